/* cli_verify.c - The commands verify and repair: every finding of the library as a line.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>

#include "tools/cli.h"

struct findings {
    const struct cli *cli;
    bool repair;
    uint64_t count, lost;
};

static void print_key(const struct cli *c, loam_slice key)
{
    if (key.data == NULL) {
        fputs("*", stdout);
    } else {
        cli_write_bytes(stdout, key, c->hex);
    }
}

static void print_text(const struct findings *f, const loam_damage *d)
{
    const struct cli *c = f->cli;
    printf("%s: %s offset %" PRIu64,
           !f->repair     ? "damaged"
           : d->recovered ? "recovered"
                          : "lost",
           d->file, d->offset);
    if (d->bytes != 0) {
        printf(" bytes %" PRIu64, d->bytes);
    }
    printf(" keyspace ");
    print_key(c, d->ks_name);
    printf(" keys [");
    print_key(c, d->first_key);
    printf(" .. ");
    print_key(c, d->last_key);
    printf("]");
    if (d->keys_lost_max != UINT64_MAX) {
        printf(" at most %" PRIu64, d->keys_lost_max);
    }
    printf(": %s\n", loam_last_error()->message);
}

static void json_number(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

static void print_json(const struct findings *f, const loam_damage *d)
{
    const struct cli *c = f->cli;
    json_t *o = json_object();
    cli_json_text(o, "damaged", d->file);
    cli_json_text(o, "error", loam_strerror(d->code));
    cli_json_text(o, "message", loam_last_error()->message);
    if (f->repair) {
        json_object_set_new(o, "recovered", json_boolean(d->recovered));
    }
    json_number(o, "offset", d->offset);
    if (d->bytes != 0) {
        json_number(o, "bytes", d->bytes);
    }
    if (d->ks_name.data != NULL) {
        cli_json_bytes(o, "keyspace", d->ks_name, false);
    }
    if (d->first_key.data != NULL) {
        cli_json_bytes(o, "first_key", d->first_key, c->hex);
    }
    if (d->last_key.data != NULL) {
        cli_json_bytes(o, "last_key", d->last_key, c->hex);
    }
    if (d->keys_lost_max != UINT64_MAX) {
        json_number(o, "keys_lost_max", d->keys_lost_max);
    }
    cli_json_line(o);
}

static int tell(void *ctx, const loam_damage *d)
{
    struct findings *f = ctx;
    f->count++;
    f->lost += !d->recovered;
    if (f->cli->json) {
        print_json(f, d);
    } else {
        print_text(f, d);
    }
    return 0;
}

static void summarise(const struct findings *f)
{
    if (f->cli->json) {
        json_t *o = json_object();
        json_number(o, "damages", f->count);
        if (f->repair) {
            json_number(o, "lost", f->lost);
        }
        cli_json_line(o);
    } else if (f->count == 0) {
        printf("no damage\n");
    } else {
        printf("%" PRIu64 " damaged place%s", f->count, f->count == 1 ? "" : "s");
        if (f->repair) {
            printf(", %" PRIu64 " with a loss; the damaged files stay as *.damaged", f->lost);
        }
        printf("\n");
    }
}

int cli_verify(struct cli *c)
{
    struct findings f = {.cli = c};
    int rc = loam_check(c->db, NULL, tell, &f);
    if (rc < 0 && f.count == 0) {
        return cli_failed(rc, c->db);
    }
    summarise(&f);
    /* Anything else is no damage: another format, a disk that cannot be read, a check that ended early. */
    return rc == LOAM_OK ? CLI_OK : rc == LOAM_E_CORRUPT ? CLI_CORRUPT : cli_failed(rc, c->db);
}

int cli_repair(struct cli *c)
{
    struct findings f = {.cli = c, .repair = true};
    int rc = loam_repair(c->db, NULL, tell, &f);
    if (rc < 0) {
        return cli_failed(rc, c->db);
    }
    summarise(&f);
    return f.lost == 0 ? CLI_OK : CLI_CORRUPT;
}
