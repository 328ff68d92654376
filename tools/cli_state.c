/* cli_state.c - Commands on a database as a whole: stat, levels, compact.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli.h"

/* ---- keyspaces ------------------------------------------------------------------------------- */

struct names {
    char **list;
    size_t count;
    bool oom;
};

static int collect_name(void *ctx, loam_slice name)
{
    struct names *n = ctx;
    char **list = realloc(n->list, (n->count + 1) * sizeof(*list));
    char *copy = strndup(name.data, name.size);
    if (list != NULL) {
        n->list = list;
    }
    if (list == NULL || copy == NULL) {
        free(copy);
        n->oom = true;
        return 1;
    }
    n->list[n->count++] = copy;
    return 0;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int cli_each_ks(loam_db *db, int (*fn)(void *arg, const char *name), void *arg)
{
    /* The listing must not call loam, so the names are taken first. */
    struct names n = {NULL, 0, false};
    int rc = loam_ks_list(db, collect_name, &n);
    int status = rc < 0 ? cli_failed(rc, "keyspaces") : CLI_OK;
    if (n.oom) {
        status = cli_error("out of memory");
    }
    if (n.count > 1) {
        qsort(n.list, n.count, sizeof(*n.list), compare_names);
    }
    for (size_t i = 0; i < n.count; i++) {
        if (status == CLI_OK) {
            status = fn(arg, n.list[i]);
        }
        free(n.list[i]);
    }
    free(n.list);
    return status;
}

/* ---- stat ------------------------------------------------------------------------------------ */

int cli_stat(struct cli *c)
{
    struct cli_db d;
    size_t need = 0, cap = 0;
    char *text = NULL;
    int status = cli_open(c, CLI_READ, &d), rc = LOAM_TRUNCATED;
    if (status != CLI_OK) {
        return status;
    }
    /* The numbers move between the calls: as often as it takes, each time with room to spare. */
    while (rc == LOAM_TRUNCATED) {
        free(text);
        cap = cap == 0 ? 8192 : need + 1024;
        text = malloc(cap);
        rc = text == NULL
                 ? LOAM_E_NOMEM
                 : loam_format_stats(d.db, c->json ? LOAM_JSON : LOAM_TEXT, text, cap, &need);
    }
    if (rc == LOAM_OK) {
        size_t n = strlen(text);
        printf("%s%s", text, n > 0 && text[n - 1] == '\n' ? "" : "\n");
    } else {
        status = cli_failed(rc, "stat");
    }
    free(text);
    return cli_close(&d, status);
}

/* ---- levels ---------------------------------------------------------------------------------- */

struct levels {
    const struct cli *cli;
    loam_db *db;
};

static uint64_t property(loam_db *db, loam_ks *ks, const char *fmt, uint64_t level, int *rc)
{
    char name[64];
    uint64_t value = 0;
    snprintf(name, sizeof(name), "level.%" PRIu64 ".%s", level, fmt);
    int got = loam_property(db, ks, name, &value);
    *rc = *rc != LOAM_OK ? *rc : got;
    return value;
}

static int print_levels(const struct levels *l, loam_ks *ks, const char *name)
{
    uint64_t count = 0;
    int rc = loam_property(l->db, ks, "levels", &count);
    json_t *rows = json_array();
    if (!l->cli->json) {
        printf("keyspace %s\nlevel  files        bytes\n", name);
    }
    for (uint64_t i = 0; rc == LOAM_OK && i < count; i++) {
        uint64_t files = property(l->db, ks, "files", i, &rc);
        uint64_t bytes = property(l->db, ks, "bytes", i, &rc);
        if (rc != LOAM_OK) {
            break;
        }
        if (l->cli->json) {
            json_array_append_new(rows,
                                  json_pack("{s:I, s:I, s:I}", "level", (json_int_t)i, "files",
                                            (json_int_t)files, "bytes", (json_int_t)bytes));
        } else {
            printf("%5" PRIu64 " %6" PRIu64 " %12" PRIu64 "\n", i, files, bytes);
        }
    }
    if (rc == LOAM_OK && l->cli->json) {
        json_t *o = json_object();
        cli_json_text(o, "keyspace", name);
        json_object_set(o, "levels", rows);
        cli_json_line(o);
    }
    json_decref(rows);
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, "levels");
}

static int levels_of(void *arg, const char *name)
{
    const struct levels *l = arg;
    /* By handle even for "default": numbers without one are the whole database's. */
    loam_ks *ks = NULL;
    int rc = loam_ks_open(l->db, name, NULL, &ks);
    if (rc != LOAM_OK) {
        return cli_failed(rc, name);
    }
    int status = print_levels(l, ks, name);
    loam_ks_release(ks);
    return status;
}

int cli_levels(struct cli *c)
{
    struct cli_db d;
    int status = cli_open(c, CLI_READ, &d);
    if (status != CLI_OK) {
        return status;
    }
    struct levels l = {c, d.db};
    status = c->ks != NULL ? levels_of(&l, c->ks) : cli_each_ks(d.db, levels_of, &l);
    return cli_close(&d, status);
}

/* ---- compact --------------------------------------------------------------------------------- */

int cli_compact(struct cli *c)
{
    struct cli_range r;
    struct cli_db d;
    loam_iter_opts o;
    int status = cli_range_of(c, &r, &o);
    if (status == CLI_OK && c->prefix != NULL) {
        status = cli_usage(c, "compact takes --from and --to, not --prefix");
    }
    if (status == CLI_OK) {
        status = cli_open(c, CLI_WRITE, &d);
    }
    if (status == CLI_OK) {
        struct cli_progress p;
        int rc = LOAM_STOPPED;
        cli_progress_start(&p, "compacting; tables now");
        while (rc == LOAM_STOPPED) {
            /* In slices, so that a terminal sees something happen. */
            rc = loam_compact(d.db, d.ks, o.lower, o.upper, 500000);
            loam_stats st = {.struct_size = sizeof(st)};
            if (loam_get_stats(d.db, NULL, &st) == LOAM_OK) {
                cli_progress_show(&p, st.files, st.bytes_compacted_out);
            }
        }
        cli_progress_end(&p);
        status = cli_close(&d, rc == LOAM_OK ? CLI_OK : cli_failed(rc, "compact"));
    }
    cli_range_free(&r);
    return status;
}
