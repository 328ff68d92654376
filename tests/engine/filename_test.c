/* filename_test.c - Names are made in one shape, and nothing of another shape is taken for one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: parse(make(x)) == x, and make(parse(s)) == s whenever parse accepts s.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "arena/random.h"
#include "engine/filename.h"
#include "tests/support/check.h"

static bool parse(const char *s, enum file_kind *kind, uint64_t *number)
{
    return filename_parse(loam_bytes(s, strlen(s)), kind, number);
}

Test(filename, makes_the_documented_names)
{
    static const struct {
        enum file_kind kind;
        uint64_t number;
        const char *name;
    } cases[] = {
        {FILE_LOG, 12, "d/000000000012.log"},
        {FILE_TABLE, 0, "d/000000000000.sst"},
        {FILE_TABLE, 1234567890123, "d/1234567890123.sst"},
        {FILE_TABLE, UINT64_MAX, "d/18446744073709551615.sst"},
        {FILE_MANIFEST, 1, "d/MANIFEST-000000000001"},
        {FILE_CURRENT, 9, "d/CURRENT"},
        {FILE_LOCK, 9, "d/LOCK"},
        {FILE_TEMP, 7, "d/000000000007.tmp"},
        {FILE_RESERVE, 9, "d/RESERVE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char path[FILENAME_CAP];
        CHECK_EQ(filename_make("d", cases[i].kind, cases[i].number, path), LOAM_OK);
        CHECK(strcmp(path, cases[i].name) == 0);
        CHECK_EQ(filename_make("d/", cases[i].kind, cases[i].number, path), LOAM_OK);
        CHECK(strcmp(path, cases[i].name) == 0);
        CHECK(strlen(path) + 1 <= filename_size("d"));
        enum file_kind kind;
        uint64_t number;
        CHECK(parse(path + 2, &kind, &number));
        CHECK_EQ(kind, cases[i].kind);
        CHECK(number == cases[i].number || kind == FILE_CURRENT || kind == FILE_LOCK ||
              kind == FILE_RESERVE);
    }
}

Test(filename, refuses_a_directory_that_is_too_long)
{
    static char dir[FILENAME_CAP + 1];
    char path[FILENAME_CAP];
    memset(dir, 'x', FILENAME_CAP);
    CHECK_EQ(filename_make(dir, FILE_CURRENT, 0, path), LOAM_E_INVAL);
    dir[FILENAME_CAP - FILENAME_BASE_CAP - 1] = 0;
    CHECK_EQ(filename_make(dir, FILE_TABLE, UINT64_MAX, path), LOAM_OK);
}

Test(filename, leaves_strange_names_alone)
{
    static const char *names[] = {"",
                                  ".",
                                  "CURRENTx",
                                  "current",
                                  "LOCK ",
                                  "1.sst",
                                  "0000000000012.sst",
                                  "00000000001.sst",
                                  "18446744073709551616.sst",
                                  "99999999999999999999.sst",
                                  "00000000001a.sst",
                                  "000000000012.SST",
                                  "000000000012.sst~",
                                  "000000000012",
                                  "MANIFEST-",
                                  "MANIFEST-1",
                                  "MANIFEST-000000000001.tmp",
                                  "+00000000012.log",
                                  "../00000000012.log",
                                  "000000000012.log/x"};
    enum file_kind kind;
    uint64_t number;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        CHECK(!parse(names[i], &kind, &number));
    }
    CHECK(!filename_parse(loam_bytes("CURRENT\0", 8), &kind, &number));
}

Test(filename, parses_only_what_it_makes)
{
    struct random r;
    random_init(&r, 7);
    static const char letters[] = "0123456789.MANIFEST-logstmpCURRENTLOCK/";
    for (int i = 0; i < 200000; i++) {
        char name[FILENAME_BASE_CAP];
        filename_base((enum file_kind)random_below(&r, 6), random_next(&r) >> random_below(&r, 64),
                      name);
        size_t n = strlen(name);
        for (uint64_t k = random_below(&r, 3); k > 0; k--) {
            name[random_below(&r, n)] = letters[random_below(&r, sizeof letters - 1)];
        }
        enum file_kind kind;
        uint64_t number;
        char again[FILENAME_BASE_CAP];
        if (filename_parse(loam_bytes(name, n), &kind, &number)) {
            filename_base(kind, number, again);
            CHECK(strcmp(name, again) == 0);
        }
    }
}
