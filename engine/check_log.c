/* check_log.c - The live log segments, beside a writer that may be filling and flushing them.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>

#include "arena/status.h"
#include "engine/check.h"

#include "arena/poison.h"

#define ATTEMPTS 16 /* walks that may each find the log changed */
#define REST_US  2000u

/* What one walk found. */
struct log_verdict {
    int rc;
    loam_error error;
    uint64_t end; /* position it came to */
};

static int rest(void *arg, uint64_t number, const struct wal_record *record)
{
    struct check *c = arg;
    (void)number;
    return c->pace != NULL ? c->pace(c->arg, record->end - record->position) : LOAM_OK;
}

static void walk(const struct log_chain_options *o, struct log_verdict *v)
{
    struct log_chain chain;
    *v = (struct log_verdict){.rc = log_chain_init(&chain, o)};
    if (v->rc == LOAM_OK) {
        v->rc = log_chain_run(&chain);
    }
    v->end = chain.end;
    if (v->rc != LOAM_OK) {
        v->error = *loam_last_error();
    }
    log_chain_free(&chain);
}

/* Behind the place where the walk ended there may be segments with damage of their own. */
static void tell_segments_behind(struct check *c, const struct log_chain_options *o,
                                 uint64_t number)
{
    struct log_chain chain;
    int rc = log_chain_init(&chain, o);
    for (size_t i = 0; rc == LOAM_OK && i < chain.count && !c->sink.stopped; i++) {
        struct wal_reader r;
        if (chain.numbers[i] <= number) {
            continue;
        }
        int opened = wal_reader_open(&r, o->vfs, o->dir, o->alloc, chain.numbers[i], o->db_id);
        wal_reader_close(&r);
        if (damage_is(opened)) {
            damage_tell(&c->sink, &(struct damage){.kind = FILE_LOG,
                                                   .number = chain.numbers[i],
                                                   .offset = loam_last_error()->offset,
                                                   .keys = DAMAGE_KEYS_UNKNOWN});
        }
    }
    log_chain_free(&chain);
}

static bool log_exists(const struct check *c, uint64_t number)
{
    char path[FILENAME_CAP];
    loam_file *f;
    if (filename_make(c->dir, FILE_LOG, number, path) < 0) {
        return false;
    }
    int neg = c->vfs->open(c->vfs->ctx, path, LOAM_VFS_READ, &f);
    if (neg >= 0) {
        (void)c->vfs->close(c->vfs->ctx, f);
    }
    return neg != -ENOENT;
}

static void tell_log(struct check *c, const struct log_chain_options *o, const loam_error *e)
{
    bool missing = e->offset == 0 && !log_exists(c, e->file_id);
    status_raise(e);
    damage_tell(&c->sink, &(struct damage){.kind = FILE_LOG,
                                           .number = e->file_id,
                                           .code = missing ? LOAM_E_NOENT : 0,
                                           .offset = e->offset,
                                           .keys = DAMAGE_KEYS_UNKNOWN});
    tell_segments_behind(c, o, e->file_id);
}

int check_logs(struct check *c, const struct log_chain_options *options,
               bool (*moved)(void *arg, struct log_chain_options *o))
{
    struct log_chain_options o = *options;
    struct log_verdict last = {.rc = LOAM_OK};
    o.record = rest;
    o.ctx = c;
    for (int i = 0; i < ATTEMPTS; i++) {
        struct log_verdict now;
        walk(&o, &now);
        if (now.rc == LOAM_OK || !damage_is(now.rc) || now.error.file_id == 0) {
            return now.rc == LOAM_OK ? LOAM_OK : status_raise(&now.error);
        }
        /* A writer that goes on leaves another end each time; damage stays where it is. */
        if (i > 0 && now.error.file_id == last.error.file_id &&
            now.error.offset == last.error.offset && now.end == last.end) {
            tell_log(c, &o, &now.error);
            return LOAM_OK;
        }
        last = now;
        if (i > 0) {
            thread_sleep_micros(REST_US);
        }
        if (!moved(c->arg, &o)) {
            return loam_last_error()->code;
        }
    }
    return FAIL(LOAM_E_BUSY, "the log changes faster than it can be read");
}
