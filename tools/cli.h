/* cli.h - What the commands of the tool `loam` share: options, opening, bytes as text, errors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Exit codes: 0 done, 1 no such key, 2 usage, 3 damaged data, 4 any other error.
 * Bytes as text: printable ASCII as it is; anything else, and the backslash, as a backslash and two
 * hexadecimal digits: the `print` form of Berkeley DB's dumps. With --hex all bytes are so, without
 * the backslash, in arguments too.
 */
#ifndef LOAM_TOOLS_CLI_H_
#define LOAM_TOOLS_CLI_H_

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "engine/loam.h"

enum { CLI_OK = 0, CLI_NOTFOUND = 1, CLI_USAGE = 2, CLI_CORRUPT = 3, CLI_ERROR = 4 };

struct cli {
    const char *db; /* NULL: not given */
    const char *ks; /* NULL: "default" */
    const char *from, *to, *prefix;
    const char *file; /* to write or read; NULL: stdout or stdin */
    uint64_t limit;   /* entries; 0 = all */
    bool hex, json, reverse, keys_only, all, print, create, raw, entries, verify, help, version;
    const char *command;
    char **args;
    int count;
};

/* ---- errors ---------------------------------------------------------------------------------- */

/* One line on stderr. */
int cli_usage(const struct cli *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Tells of a failed call with what loam_last_error() has, and returns the exit code for it. */
int cli_failed(int rc, const char *what);

/* ---- databases ------------------------------------------------------------------------------- */

enum cli_mode { CLI_READ, CLI_WRITE, CLI_CREATE };

struct cli_db {
    loam_db *db;
    loam_ks *ks; /* NULL: "default" */
};

/* Opens --db and --ks. CLI_READ takes no lock and sees the state of the moment. CLI_OK, or the exit
 * code after a line on stderr; then nothing is open. */
int cli_open(const struct cli *c, enum cli_mode mode, struct cli_db *d);
/* Returns `status`, or the exit code of a failed close when status is CLI_OK. */
int cli_close(struct cli_db *d, int status);

/* ---- bytes ----------------------------------------------------------------------------------- */

/* Bytes of an argument: itself, or with --hex what it encodes. Free b->data with free(). */
struct cli_bytes {
    uint8_t *data;
    size_t size;
};
/* False: not hexadecimal, or no memory; nothing to free. */
bool cli_bytes_of(const char *text, bool hex, struct cli_bytes *b);
/* The bounds of an iterator from --from, --to and --prefix; the three are to be freed. */
struct cli_range {
    struct cli_bytes from, to, prefix;
};
int cli_range_of(const struct cli *c, struct cli_range *r, loam_iter_opts *o);
void cli_range_free(struct cli_range *r);

void cli_write_bytes(FILE *out, loam_slice s, bool hex);
/* Adds text when the bytes are UTF-8 and --hex was not given; otherwise name_hex in hexadecimal. */
void cli_json_bytes(json_t *object, const char *name, loam_slice s, bool hex);
/* The same of text that nobody has looked at: a path, a message with one in it. */
void cli_json_text(json_t *object, const char *name, const char *text);
/* Prints an object on a line of its own and frees it. */
void cli_json_line(json_t *object);

/* ---- progress -------------------------------------------------------------------------------- */

/* On a terminal's stderr, five times a second; silent elsewhere. */
struct cli_progress {
    const char *what;
    uint64_t start_ns, next_ns;
    bool shown, active;
};
void cli_progress_start(struct cli_progress *p, const char *what);
void cli_progress_show(struct cli_progress *p, uint64_t entries, uint64_t bytes);
void cli_progress_end(struct cli_progress *p);

/* Cheap enough for every entry. */
static inline void cli_progress_tick(struct cli_progress *p, uint64_t entries, uint64_t bytes)
{
    if (p->active && entries % 1024 == 0) {
        cli_progress_show(p, entries, bytes);
    }
}

/* ---- commands: each returns the exit code ---------------------------------------------------- */

/* cli_entries.c */
int cli_get(struct cli *c);
int cli_put(struct cli *c);
int cli_delete(struct cli *c);
int cli_scan(struct cli *c);
int cli_count(struct cli *c);
/* cli_transfer.c */
int cli_dump(struct cli *c);
int cli_load(struct cli *c);
/* cli_state.c */
int cli_stat(struct cli *c);
int cli_levels(struct cli *c);
int cli_compact(struct cli *c);
int cli_each_ks(loam_db *db, int (*fn)(void *arg, const char *name), void *arg);
/* cli_verify.c */
int cli_verify(struct cli *c);
int cli_repair(struct cli *c);
/* cli_dump.c: these read the files themselves */
int cli_sst(struct cli *c);
int cli_wal(struct cli *c);
int cli_manifest(struct cli *c);

#endif
