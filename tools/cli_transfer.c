/* cli_transfer.c - dump and load: all entries as the text that Berkeley DB's and LMDB's tools use.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   VERSION=3
 *   format=bytevalue | print
 *   database=NAME            left out for the keyspace "default" alone
 *   type=btree
 *   HEADER=END
 *    <key>                   a space, then bytes: hexadecimal, or printable with \xx
 *    <value>
 *   DATA=END
 *
 * Sections follow one another. Header lines that loam does not know are passed over.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

/* ---- dump ------------------------------------------------------------------------------------ */

struct dump {
    const struct cli *cli;
    loam_db *db;
    FILE *out;
    struct cli_progress progress;
    uint64_t entries, bytes;
};

static void write_line(FILE *out, loam_slice s, bool print)
{
    putc_unlocked(' ', out);
    cli_write_bytes(out, s, !print);
    putc_unlocked('\n', out);
}

static int dump_entries(struct dump *d, loam_ks *ks)
{
    loam_iter *it = NULL;
    /* Opened read-only, so all iterators see one moment. */
    int rc = loam_iter_open(d->db, ks, NULL, &it);
    rc = rc == LOAM_OK ? loam_iter_first(it) : rc;
    while (rc == LOAM_OK) {
        loam_slice key = loam_iter_key(it), value = loam_iter_value(it);
        write_line(d->out, key, d->cli->print);
        write_line(d->out, value, d->cli->print);
        d->bytes += key.size + value.size;
        cli_progress_tick(&d->progress, ++d->entries, d->bytes);
        rc = loam_iter_next(it);
    }
    int status = rc < 0 ? cli_failed(rc, "dump") : CLI_OK;
    loam_iter_close(it);
    return status;
}

static int dump_section(struct dump *d, loam_ks *ks, const char *name)
{
    fprintf(d->out, "VERSION=3\nformat=%s\n", d->cli->print ? "print" : "bytevalue");
    if (name != NULL) {
        fputs("database=", d->out);
        cli_write_bytes(d->out, loam_bytes(name, strlen(name)), false);
        fputc('\n', d->out);
    }
    fputs("type=btree\nHEADER=END\n", d->out);
    int status = dump_entries(d, ks);
    /* Without the last line the text is visibly not whole. */
    if (status == CLI_OK) {
        fputs("DATA=END\n", d->out);
    }
    return status;
}

static int dump_ks(void *arg, const char *name)
{
    struct dump *d = arg;
    loam_ks *ks = NULL;
    if (strcmp(name, "default") != 0) {
        int rc = loam_ks_open(d->db, name, NULL, &ks);
        if (rc != LOAM_OK) {
            return cli_failed(rc, name);
        }
    }
    int status = dump_section(d, ks, name);
    loam_ks_release(ks);
    return status;
}

int cli_dump(struct cli *c)
{
    struct cli_db d;
    int status = cli_open(c, CLI_READ, &d);
    if (status != CLI_OK) {
        return status;
    }
    struct dump dump = {.cli = c, .db = d.db, .out = stdout};
    if (c->file != NULL && (dump.out = fopen(c->file, "w")) == NULL) {
        return cli_close(&d, cli_error("%s: %s", c->file, strerror(errno)));
    }
    cli_progress_start(&dump.progress, "dumped");
    status = c->all ? cli_each_ks(d.db, dump_ks, &dump) : dump_section(&dump, d.ks, c->ks);
    cli_progress_end(&dump.progress);
    bool bad = fflush(dump.out) != 0 || ferror(dump.out);
    if (dump.out != stdout) {
        bad |= fclose(dump.out) != 0;
    }
    if (bad && status == CLI_OK) {
        status = cli_error("%s: %s", c->file != NULL ? c->file : "stdout", strerror(errno));
    }
    return cli_close(&d, status);
}

/* ---- load ------------------------------------------------------------------------------------ */

enum { LOAD_BATCH_OPS = 1000, LOAD_BATCH_BYTES = 1 << 20 };

struct load {
    const struct cli *cli;
    struct cli_db to; /* opened, and made, when a section has begun: not for text of another kind */
    loam_ks *ks;      /* of the section; NULL: "default" */
    loam_batch *batch;
    uint64_t batch_bytes;
    FILE *in;
    const char *name; /* of the input, for errors */
    char *line;
    size_t line_cap;
    size_t line_size;
    uint64_t number; /* of the line */
    bool print;
    uint8_t *key;
    size_t key_cap, key_size;
    struct cli_progress progress;
    uint64_t entries, bytes;
};

static int bad_line(const struct load *l, const char *what)
{
    return cli_error("%s: line %" PRIu64 ": %s", l->name, l->number, what);
}

/* The next line without its newline. False at the end. */
static bool next_line(struct load *l)
{
    ssize_t n = getline(&l->line, &l->line_cap, l->in);
    if (n < 0) {
        return false;
    }
    l->number++;
    while (n > 0 && (l->line[n - 1] == '\n' || l->line[n - 1] == '\r')) {
        n--;
    }
    l->line[n] = '\0';
    l->line_size = (size_t)n;
    return true;
}

static bool line_is(const struct load *l, const char *text)
{
    return l->line_size == strlen(text) && memcmp(l->line, text, l->line_size) == 0;
}

static int hex_value(char ch)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = ch != '\0' ? strchr(digits, ch >= 'A' && ch <= 'F' ? ch | 0x20 : ch) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

static bool decode_pair(const char *p, uint8_t *out)
{
    int high = hex_value(p[0]), low = high < 0 ? -1 : hex_value(p[1]);
    if (low < 0) {
        return false;
    }
    *out = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    return true;
}

/* Decodes a line or a name in place; the result is never longer. A doubled backslash, which others
 * write, stands for one. */
static bool decode(char *text, size_t size, bool print, size_t *decoded)
{
    size_t n = 0;
    uint8_t *out = (uint8_t *)text;
    for (size_t i = 0; i < size; n++) {
        if (print && text[i] != '\\') {
            out[n] = (uint8_t)text[i++];
        } else if (print && i + 1 < size && text[i + 1] == '\\') {
            out[n] = '\\';
            i += 2;
        } else {
            size_t skip = print ? 1 : 0;
            if (size - i < skip + 2 || !decode_pair(text + i + skip, &out[n])) {
                return false;
            }
            i += skip + 2;
        }
    }
    *decoded = n;
    return true;
}

static int open_section_ks(struct load *l, const char *name)
{
    int status = l->to.db == NULL ? cli_open(l->cli, CLI_CREATE, &l->to) : CLI_OK;
    if (status != CLI_OK) {
        return status;
    }
    if (l->batch == NULL && (l->batch = loam_batch_new(LOAD_BATCH_BYTES)) == NULL) {
        return cli_error("out of memory");
    }
    loam_ks_release(l->ks);
    l->ks = NULL;
    if (name == NULL || strcmp(name, "default") == 0) {
        return CLI_OK;
    }
    int rc = loam_ks_open(l->to.db, name, NULL, &l->ks);
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, name);
}

/* Reads up to HEADER=END. *more is false at the end of the input. */
static int read_header(struct load *l, bool *more)
{
    char name[LOAM_MAX_KS_NAME + 1] = "";
    bool any = false;
    l->print = false;
    while (next_line(l)) {
        const char *value = strchr(l->line, '=');
        if (l->line_size == 0 && !any) {
            continue;
        }
        if (value == NULL) {
            return bad_line(l, "expected a header line, name=value");
        }
        value++;
        any = true;
        if (line_is(l, "HEADER=END")) {
            const char *ks = l->cli->ks != NULL ? l->cli->ks : name[0] != '\0' ? name : NULL;
            *more = true;
            return open_section_ks(l, ks);
        }
        if (strncmp(l->line, "VERSION=", 8) == 0 && strcmp(value, "3") != 0) {
            return bad_line(l, "only VERSION=3 is known");
        }
        if (strncmp(l->line, "format=", 7) == 0) {
            l->print = strcmp(value, "print") == 0;
            if (!l->print && strcmp(value, "bytevalue") != 0) {
                return bad_line(l, "the format is neither bytevalue nor print");
            }
        } else if (strncmp(l->line, "type=", 5) == 0 && strcmp(value, "btree") != 0 &&
                   strcmp(value, "hash") != 0) {
            return bad_line(l, "only the types btree and hash have keys and values");
        } else if (strncmp(l->line, "duplicates=1", 12) == 0) {
            return bad_line(l, "a key has one value in loam; duplicates cannot be loaded");
        } else if (strncmp(l->line, "database=", 9) == 0) {
            size_t n, at = (size_t)(value - l->line);
            if (!decode(l->line + at, l->line_size - at, true, &n) || n > LOAM_MAX_KS_NAME ||
                memchr(l->line + at, '\0', n) != NULL) { /* what stands before it is another's name */
                return bad_line(l, "not the name of a keyspace");
            }
            memcpy(name, l->line + at, n);
            name[n] = '\0';
        }
    }
    *more = false;
    return ferror(l->in) ? bad_line(l, strerror(errno))
           : any         ? bad_line(l, "the text ends inside a header")
                         : CLI_OK;
}

static int write_batch(struct load *l)
{
    int rc = loam_write(l->to.db, l->batch, NULL);
    loam_batch_clear(l->batch);
    l->batch_bytes = 0;
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, "load");
}

/* A data line, decoded in place. */
static int read_bytes_line(struct load *l, loam_slice *s)
{
    size_t n;
    if (l->line[0] != ' ' || !decode(l->line + 1, l->line_size - 1, l->print, &n)) {
        return bad_line(l, "expected a space, then bytes in the section's format");
    }
    *s = loam_bytes(l->line + 1, n);
    return CLI_OK;
}

static int keep_key(struct load *l, loam_slice key)
{
    if (key.size > LOAM_MAX_KEY) {
        return bad_line(l, "the key is too long");
    }
    if (key.size > l->key_cap) {
        uint8_t *more = realloc(l->key, key.size);
        if (more == NULL) {
            return cli_error("out of memory");
        }
        l->key = more;
        l->key_cap = key.size;
    }
    if (key.size != 0) {
        memcpy(l->key, key.data, key.size);
    }
    l->key_size = key.size;
    return CLI_OK;
}

static int read_section(struct load *l)
{
    while (next_line(l)) {
        loam_slice key, value;
        if (line_is(l, "DATA=END")) {
            return write_batch(l);
        }
        int status = read_bytes_line(l, &key);
        status = status == CLI_OK ? keep_key(l, key) : status;
        if (status == CLI_OK && !next_line(l)) {
            status = bad_line(l, "the text ends after a key");
        }
        status = status == CLI_OK ? read_bytes_line(l, &value) : status;
        if (status != CLI_OK) {
            return status;
        }
        int rc = loam_batch_put(l->batch, l->ks, loam_bytes(l->key, l->key_size), value);
        if (rc != LOAM_OK) {
            return cli_failed(rc, "load");
        }
        l->batch_bytes += l->key_size + value.size;
        l->bytes += l->key_size + value.size;
        cli_progress_tick(&l->progress, ++l->entries, l->bytes);
        if (loam_batch_count(l->batch) >= LOAD_BATCH_OPS || l->batch_bytes >= LOAD_BATCH_BYTES) {
            status = write_batch(l);
            if (status != CLI_OK) {
                return status;
            }
        }
    }
    return bad_line(l, "the text ends before DATA=END");
}

static int load_all(struct load *l)
{
    bool more = true, any = false;
    int status = CLI_OK;
    while (status == CLI_OK && more) {
        status = read_header(l, &more);
        if (status == CLI_OK && more) {
            status = read_section(l);
            any = true;
        }
    }
    return status == CLI_OK && !any ? bad_line(l, "there is nothing to load") : status;
}

int cli_load(struct cli *c)
{
    struct load l = {.cli = c, .in = stdin, .name = c->file != NULL ? c->file : "stdin"};
    if (c->file != NULL && (l.in = fopen(c->file, "r")) == NULL) {
        return cli_error("%s: %s", c->file, strerror(errno));
    }
    cli_progress_start(&l.progress, "loaded");
    int status = load_all(&l);
    cli_progress_end(&l.progress);
    loam_batch_free(l.batch);
    loam_ks_release(l.ks);
    if (l.to.db != NULL) {
        status = cli_close(&l.to, status);
    }
    if (status == CLI_OK && c->json) {
        cli_json_line(json_pack("{s:I, s:I}", "entries", (json_int_t)l.entries, "bytes",
                                (json_int_t)l.bytes));
    }
    free(l.line);
    free(l.key);
    if (l.in != stdin) {
        fclose(l.in);
    }
    return status;
}
