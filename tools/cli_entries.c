/* cli_entries.c - Commands on entries: get, put, delete, scan, count.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

/* ---- one key --------------------------------------------------------------------------------- */

static void print_value(const struct cli *c, loam_slice key, loam_slice value)
{
    if (c->json) {
        json_t *o = json_object();
        cli_json_bytes(o, "key", key, c->hex);
        cli_json_bytes(o, "value", value, c->hex);
        cli_json_line(o);
        return;
    }
    if (c->hex) {
        cli_write_bytes(stdout, value, true);
    } else if (value.size != 0) {
        fwrite(value.data, 1, value.size, stdout);
    }
    if (!c->raw) {
        putchar('\n');
    }
}

int cli_get(struct cli *c)
{
    struct cli_bytes key;
    struct cli_db d;
    if (!cli_bytes_of(c->args[0], c->hex, &key)) {
        return cli_usage(c, "'%s' is not hexadecimal", c->args[0]);
    }
    int status = cli_open(c, CLI_READ, &d);
    if (status == CLI_OK) {
        loam_pin pin = LOAM_PIN_INIT;
        loam_slice k = loam_bytes(key.data, key.size);
        int rc = loam_get_pin(d.db, d.ks, k, &pin, NULL);
        if (rc == LOAM_OK) {
            print_value(c, k, pin.value);
        } else {
            status = cli_failed(rc, "get");
        }
        loam_unpin(&pin);
        status = cli_close(&d, status);
    }
    free(key.data);
    return status;
}

/* Everything stdin has. False: no memory or an error of reading. */
static bool read_all(FILE *in, struct cli_bytes *b)
{
    size_t cap = 4096;
    b->size = 0;
    b->data = malloc(cap);
    while (b->data != NULL) {
        b->size += fread(b->data + b->size, 1, cap - b->size, in);
        if (b->size < cap) {
            break;
        }
        cap *= 2;
        uint8_t *more = cap <= 2 * LOAM_MAX_VALUE ? realloc(b->data, cap) : NULL;
        if (more == NULL) {
            free(b->data);
        }
        b->data = more;
    }
    return b->data != NULL && !ferror(in);
}

static int value_of(const struct cli *c, struct cli_bytes *value)
{
    if (c->count < 2 || strcmp(c->args[1], "-") == 0) {
        return read_all(stdin, value) ? CLI_OK : cli_error("stdin: cannot be read");
    }
    if (!cli_bytes_of(c->args[1], c->hex, value)) {
        return cli_usage(c, "'%s' is not hexadecimal", c->args[1]);
    }
    return CLI_OK;
}

int cli_put(struct cli *c)
{
    struct cli_bytes key, value = {NULL, 0};
    struct cli_db d;
    if (!cli_bytes_of(c->args[0], c->hex, &key)) {
        return cli_usage(c, "'%s' is not hexadecimal", c->args[0]);
    }
    int status = value_of(c, &value);
    if (status == CLI_OK) {
        status = cli_open(c, c->create ? CLI_CREATE : CLI_WRITE, &d);
        if (status == CLI_OK) {
            int rc = loam_put(d.db, d.ks, loam_bytes(key.data, key.size),
                              loam_bytes(value.data, value.size), NULL);
            status = cli_close(&d, rc == LOAM_OK ? CLI_OK : cli_failed(rc, "put"));
        }
    }
    free(key.data);
    free(value.data);
    return status;
}

int cli_delete(struct cli *c)
{
    struct cli_db d;
    int status = cli_open(c, CLI_WRITE, &d);
    if (status != CLI_OK) {
        return status;
    }
    for (int i = 0; i < c->count && status == CLI_OK; i++) {
        struct cli_bytes key;
        if (!cli_bytes_of(c->args[i], c->hex, &key)) {
            status = cli_usage(c, "'%s' is not hexadecimal", c->args[i]);
            break;
        }
        int rc = loam_delete(d.db, d.ks, loam_bytes(key.data, key.size), NULL);
        status = rc == LOAM_OK ? CLI_OK : cli_failed(rc, "delete");
        free(key.data);
    }
    return cli_close(&d, status);
}

/* ---- many keys ------------------------------------------------------------------------------- */

static void print_entry(const struct cli *c, loam_iter *it)
{
    loam_slice key = loam_iter_key(it);
    if (c->json) {
        json_t *o = json_object();
        cli_json_bytes(o, "key", key, c->hex);
        if (!c->keys_only) {
            cli_json_bytes(o, "value", loam_iter_value(it), c->hex);
        }
        cli_json_line(o);
        return;
    }
    cli_write_bytes(stdout, key, c->hex);
    if (!c->keys_only) {
        putchar('\t');
        cli_write_bytes(stdout, loam_iter_value(it), c->hex);
    }
    putchar('\n');
}

/* Walks the range; *count entries were met. Prints them when asked to. */
static int walk(const struct cli *c, struct cli_db *d, loam_iter_opts *o, bool print,
                uint64_t *count)
{
    loam_iter *it = NULL;
    struct cli_progress p;
    uint64_t bytes = 0;
    int rc = loam_iter_open(d->db, d->ks, o, &it);
    *count = 0;
    cli_progress_start(&p, c->command);
    if (rc == LOAM_OK) {
        rc = c->reverse ? loam_iter_last(it) : loam_iter_first(it);
    }
    while (rc == LOAM_OK && (c->limit == 0 || *count < c->limit)) {
        (*count)++;
        bytes += loam_iter_key(it).size + loam_iter_value(it).size;
        if (print) {
            print_entry(c, it);
        } else {
            cli_progress_tick(&p, *count, bytes);
        }
        rc = c->reverse ? loam_iter_prev(it) : loam_iter_next(it);
    }
    cli_progress_end(&p);
    int status = rc < 0 ? cli_failed(rc, c->command) : CLI_OK;
    loam_iter_close(it);
    return status;
}

static int walk_range(const struct cli *c, bool print, uint64_t *count)
{
    struct cli_range r;
    struct cli_db d;
    loam_iter_opts o;
    int status = cli_range_of(c, &r, &o);
    if (status != CLI_OK) {
        return status;
    }
    o.flags = !print || c->keys_only ? LOAM_ITER_KEYS : 0;
    status = cli_open(c, CLI_READ, &d);
    if (status == CLI_OK) {
        status = cli_close(&d, walk(c, &d, &o, print, count));
    }
    cli_range_free(&r);
    return status;
}

int cli_scan(struct cli *c)
{
    uint64_t count;
    return walk_range(c, true, &count);
}

int cli_count(struct cli *c)
{
    uint64_t count;
    int status = walk_range(c, false, &count);
    if (status == CLI_OK && c->json) {
        cli_json_line(json_pack("{s:I}", "count", (json_int_t)count));
    } else if (status == CLI_OK) {
        printf("%" PRIu64 "\n", count);
    }
    return status;
}
