/* cli_verify_test.c - loam verify and loam repair: lines, JSON and exit codes.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/loam.h"
#include "tests/support/check.h"
#include "tools/cli.h"

static char home[] = "/tmp/loam-cli-verify-XXXXXX";
static char dir[64], output[64];

static void make_database(void)
{
    loam_options o = {.struct_size = sizeof o, .memory_budget = 4 << 20};
    loam_db *db;
    CHECK(mkdtemp(home) != NULL);
    snprintf(dir, sizeof dir, "%s/db", home);
    snprintf(output, sizeof output, "%s/output", home);
    CHECK_EQ(loam_open(dir, &o, &db), LOAM_OK);
    for (unsigned i = 0; i < 500; i++) {
        char key[16], value[64];
        snprintf(key, sizeof key, "key%05u", i);
        snprintf(value, sizeof value, "value %u", i * 77);
        CHECK_EQ(loam_put(db, NULL, loam_bytes(key, 8), loam_bytes(value, strlen(value)), NULL),
                 LOAM_OK);
    }
    CHECK_EQ(loam_flush(db, NULL), LOAM_OK);
    CHECK_EQ(loam_close(db), LOAM_OK);
}

static void remove_all(void)
{
    char path[400];
    for (unsigned pass = 0; pass < 2; pass++) {
        const char *where = pass == 0 ? dir : home;
        DIR *d = opendir(where);
        for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
            snprintf(path, sizeof path, "%s/%s", where, e->d_name);
            (void)unlink(path);
        }
        if (d != NULL) {
            closedir(d);
        }
        (void)rmdir(where);
    }
}

/* The path of the first file whose name ends so. */
static void find(const char *end, char path[400])
{
    DIR *d = opendir(dir);
    CHECK(d != NULL);
    path[0] = '\0';
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        size_t n = strlen(e->d_name), m = strlen(end);
        if (n >= m && strcmp(e->d_name + n - m, end) == 0) {
            snprintf(path, 400, "%s/%s", dir, e->d_name);
        }
    }
    closedir(d);
}

static void flip(const char *path, long at)
{
    FILE *f = fopen(path, "r+b");
    CHECK(f != NULL && fseek(f, at, SEEK_SET) == 0);
    int c = fgetc(f);
    CHECK(c != EOF && fseek(f, at, SEEK_SET) == 0 && fputc(c ^ 1, f) != EOF && fclose(f) == 0);
}

/* The exit code; what was printed is in `text`. */
static int run(int (*command)(struct cli *c), bool json, char text[4096])
{
    struct cli c = {.db = dir, .json = json};
    CHECK(freopen(output, "w", stdout) != NULL);
    int rc = command(&c);
    CHECK(fflush(stdout) == 0);
    FILE *f = fopen(output, "r");
    CHECK(f != NULL);
    text[fread(text, 1, 4095, f)] = '\0';
    fclose(f);
    return rc;
}

Test(cli_verify, says_what_is_damaged_and_repair_says_what_is_lost)
{
    char text[4096], path[400];
    make_database();
    CHECK_EQ(run(cli_verify, false, text), CLI_OK);
    CHECK(strcmp(text, "no damage\n") == 0);
    CHECK_EQ(run(cli_repair, false, text), CLI_OK);
    CHECK(strcmp(text, "no damage\n") == 0);
    find(".sst", path);
    CHECK(path[0] != '\0');
    flip(path, 5000);
    CHECK_EQ(run(cli_verify, false, text), CLI_CORRUPT);
    CHECK(strstr(text, "damaged: ") == text && strstr(text, ".sst offset ") != NULL);
    CHECK(strstr(text, " keyspace default keys [key0") != NULL);
    CHECK(strstr(text, "\n1 damaged place\n") != NULL);
    CHECK_EQ(run(cli_repair, false, text), CLI_CORRUPT);
    CHECK(strstr(text, "lost: ") == text);
    CHECK(strstr(text, "1 damaged place, 1 with a loss") != NULL);
    CHECK_EQ(run(cli_verify, false, text), CLI_OK);
    find(".sst.damaged", path);
    CHECK(path[0] != '\0');
    remove_all();
}

Test(cli_verify, prints_json_with_file_offset_keyspace_and_range)
{
    char text[4096], path[400];
    make_database();
    find(".sst", path);
    flip(path, 5000);
    for (unsigned repair = 0; repair < 2; repair++) {
        CHECK_EQ(run(repair != 0 ? cli_repair : cli_verify, true, text), CLI_CORRUPT);
        char *second = strchr(text, '\n');
        CHECK(second != NULL);
        *second++ = '\0';
        json_t *finding = json_loads(text, 0, NULL), *sum = json_loads(second, 0, NULL);
        CHECK(finding != NULL && sum != NULL);
        CHECK(strstr(json_string_value(json_object_get(finding, "damaged")), ".sst") != NULL);
        CHECK(json_integer_value(json_object_get(finding, "offset")) > 0);
        CHECK(strcmp(json_string_value(json_object_get(finding, "keyspace")), "default") == 0);
        CHECK(json_object_get(finding, "first_key") != NULL &&
              json_object_get(finding, "last_key") != NULL);
        CHECK_EQ(json_integer_value(json_object_get(sum, "damages")), 1);
        CHECK((json_object_get(finding, "recovered") != NULL) == (repair != 0));
        json_decref(finding);
        json_decref(sum);
    }
    remove_all();
}

Test(cli_verify, of_a_newer_format_is_an_error_and_not_damage)
{
    char text[4096], path[400];
    make_database();
    find("CURRENT", path);
    flip(path, 9); /* in the number of the format */
    CHECK_EQ(run(cli_stat, false, text), CLI_ERROR);
    CHECK_EQ(run(cli_verify, false, text), CLI_ERROR);
    CHECK(strstr(text, "newer format") != NULL);
    remove_all();
}

Test(cli_verify, of_no_database_is_an_error_and_not_damage)
{
    char text[4096];
    CHECK(mkdtemp(home) != NULL);
    snprintf(dir, sizeof dir, "%s/db", home);
    snprintf(output, sizeof output, "%s/output", home);
    CHECK_EQ(run(cli_verify, false, text), CLI_ERROR);
    CHECK_EQ(run(cli_repair, false, text), CLI_ERROR);
    remove_all();
}
