/* filename.c - The names of a database's files.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/filename.h"

#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

#define DIGITS_MIN 12 /* numbers are padded to it; larger ones have more, without leading zeros */

struct shape {
    const char *before; /* the number; the whole name when it has none */
    const char *after;
    bool numbered;
};

static const struct shape shapes[] = {
    [FILE_LOG] = {"", ".log", true},           [FILE_TABLE] = {"", ".sst", true},
    [FILE_MANIFEST] = {"MANIFEST-", "", true}, [FILE_CURRENT] = {"CURRENT", "", false},
    [FILE_LOCK] = {"LOCK", "", false},         [FILE_TEMP] = {"", ".tmp", true},
    [FILE_RESERVE] = {"RESERVE", "", false},
};
#define SHAPE_COUNT (sizeof shapes / sizeof shapes[0])

static char *put_number(char *p, uint64_t number)
{
    char digits[20];
    unsigned n = 0;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    for (unsigned pad = n; pad < DIGITS_MIN; pad++) {
        *p++ = '0';
    }
    while (n > 0) {
        *p++ = digits[--n];
    }
    return p;
}

void filename_base(enum file_kind kind, uint64_t number, char buf[FILENAME_BASE_CAP])
{
    const struct shape *s = &shapes[kind];
    size_t n = strlen(s->before);
    memcpy(buf, s->before, n);
    char *p = buf + n;
    if (s->numbered) {
        p = put_number(p, number);
    }
    n = strlen(s->after);
    memcpy(p, s->after, n + 1);
}

size_t filename_size(const char *dir)
{
    return strlen(dir) + 1 + FILENAME_BASE_CAP;
}

int filename_make(const char *dir, enum file_kind kind, uint64_t number, char *buf)
{
    size_t n = strlen(dir);
    if (n + 1 + FILENAME_BASE_CAP > FILENAME_CAP) {
        return FAIL(LOAM_E_INVAL, "the directory name has %zu bytes, at most %d are possible", n,
                    FILENAME_CAP - FILENAME_BASE_CAP - 1);
    }
    memcpy(buf, dir, n);
    if (n == 0 || buf[n - 1] != '/') {
        buf[n++] = '/';
    }
    filename_base(kind, number, buf + n);
    return LOAM_OK;
}

/* The digits [p, end) as filename_base() writes them, and nothing else. */
static bool parse_number(const char *p, const char *end, uint64_t *number)
{
    if (end - p < DIGITS_MIN || (end - p > DIGITS_MIN && *p == '0')) {
        return false;
    }
    uint64_t n = 0;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(*p - '0');
        if (n > (UINT64_MAX - digit) / 10) {
            return false;
        }
        n = n * 10 + digit;
    }
    *number = n;
    return true;
}

bool filename_parse(loam_slice name, enum file_kind *kind, uint64_t *number)
{
    if (name.size >= FILENAME_BASE_CAP) {
        return false;
    }
    for (size_t i = 0; i < SHAPE_COUNT; i++) {
        const struct shape *s = &shapes[i];
        size_t before = strlen(s->before);
        size_t after = strlen(s->after);
        if (name.size < before + after) {
            continue;
        }
        const char *first = name.data;
        const char *last = first + name.size - after;
        if (memcmp(first, s->before, before) != 0 || memcmp(last, s->after, after) != 0) {
            continue;
        }
        uint64_t n = 0;
        if (s->numbered ? !parse_number(first + before, last, &n) : last != first + before) {
            continue;
        }
        *kind = (enum file_kind)i;
        *number = n;
        return true;
    }
    return false;
}
