/* damage_support.h - A database's files with some of them changed: what check, verify, open and reads say of it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle of a case: what cannot be opened or read, loam_check has found; what is read is right, beside calls that
 * fail, too, and all of it of one prefix of the commits; whatever the check finds in a table, loam_verify finds,
 * too, once the database is open. Findings and errors name the file that was changed and a place in it, and a key
 * that cannot be read lies in a range that was told.
 */
#ifndef LOAM_TESTS_CRASH_DAMAGE_SUPPORT_H_
#define LOAM_TESTS_CRASH_DAMAGE_SUPPORT_H_

#include <stddef.h>

#include "engine/filename.h"
#include "tests/crash/crash_support.h"
#include "tests/crash/oracle_support.h"
#include "tests/support/check.h"

#define DIR          "/db"
#define FILES_MAX    24u
#define FINDINGS_MAX 48u

struct file {
    char name[40];
    enum file_kind kind;
    uint64_t number;
    uint8_t *bytes;    /* Owns */
    size_t size, used; /* used: up to the last byte that is not zero */
};

struct files {
    struct file f[FILES_MAX];
    unsigned count;
};

/* One file of a case as it shall be instead; bytes NULL: gone. */
struct change {
    const char *name;
    const uint8_t *bytes;
    size_t used, size;
};

enum harm {
    HARM_BYTE,    /* nothing but the byte at `at` is changed: the place must be told */
    HARM_CONTENT, /* the file must be told */
    HARM_FOREIGN, /* bytes that are sound elsewhere: they and what contradicts them are equally suspect */
};

struct tried {
    const char *what;
    uint64_t at; /* printed when it fails */
    const struct change *changes;
    unsigned count;
    enum harm harm;
};

/* A loam_damage, kept. */
struct finding {
    char file[40];
    uint64_t offset, bytes;
    bool any_ks, open_first, open_last;
    char ks[ORACLE_NAME];
    size_t first_size, last_size;
    uint8_t first[1024], last[1024];
};

struct findings {
    struct finding f[FINDINGS_MAX];
    unsigned count; /* those beyond FINDINGS_MAX are counted */
};

struct damage_totals {
    uint64_t cases, right, errors, at_open, found, verified, unreadable;
};
extern struct damage_totals damage_totals;
extern struct oracle damage_oracle;
extern uint64_t damage_seed;

/* An empty disk behind a fault vfs that fails nothing, and a writer before the oracle's first steps. */
void damage_begin(loam_vfs **disk, loam_vfs **fault, struct oracle_writer *w);
/* All files of DIR but LOCK, while no thread makes, renames or removes any there. */
void damage_take_files(const loam_vfs *vfs, struct files *to);
/* The same as a kill of the process would leave them now: of one moment, whatever the threads of an open
 * database do. `fault`: a fault vfs. */
void damage_take_killed(loam_vfs *fault, struct files *to);
void damage_free_files(struct files *fs);
/* The files with their changes, on a new disk. */
loam_vfs *damage_disk_of(const struct files *fs, const struct tried *t);
/* What loam_check says of the directory (db NULL), or loam_verify of the open database. True: damage. */
bool damage_look(const loam_options *options, loam_db *db, struct findings *found);
/* Whether a finding names this file, and a place in it no further than `size`. */
bool damage_names(const struct findings *found, const char *file, size_t size);
/* The same, and the place holds the byte at `at`. */
bool damage_covers(const struct findings *found, const char *file, uint64_t at);
/* One case: all that is said above. */
void damage_try(const struct files *fs, const struct oracle_promise *p, const struct tried *t);
void damage_print_totals(const char *name);

#endif
