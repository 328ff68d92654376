/* crash_check.c - Reads a recovered database in every way and compares.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/crash_check.h"

#include <stdarg.h>
#include <string.h>
#include <time.h>

#include "tools/crash_workload.h"

#define TRIES 100 /* to find background work at rest, 10 ms apart */

struct reading {
    const struct model *model;
    loam_db *db;
    char *why;
    uint8_t value[MODEL_VALUE_MAX + 8];
};

static bool complain(char why[MODEL_WHY], const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static bool complain(char why[MODEL_WHY], const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, MODEL_WHY, fmt, ap);
    va_end(ap);
    return false;
}

/* A call that may not fail. */
static bool goes(char why[MODEL_WHY], int rc, const char *what)
{
    const loam_error *e = loam_last_error();
    return rc >= 0 || complain(why, "%s gives %d, file %llu, offset %llu, source line %u: %s", what,
                               rc, (unsigned long long)e->file_id, (unsigned long long)e->offset,
                               e->line, e->message);
}

/* ---- one keyspace ------------------------------------------------------------------------------ */

static bool same(loam_slice a, loam_slice b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* The identity these bytes are; 0 when they are none that was ever written. */
static uint32_t value_of(struct reading *r, loam_slice v)
{
    uint32_t value = 0;
    if (v.size >= sizeof value) {
        memcpy(&value, v.data, sizeof value);
    }
    return value != 0 && value < r->model->next_value && same(model_value(value, r->value), v)
               ? value
               : 0;
}

static unsigned key_of(loam_slice key)
{
    for (unsigned k = 0; k <= MODEL_KEYS; k++) {
        if (same(model_key(k), key)) {
            return k;
        }
    }
    return MODEL_KEYS + 1;
}

static bool note_entry(struct reading *r, unsigned space, loam_iter *it, struct model_seen *seen)
{
    loam_slice key = loam_iter_key(it);
    unsigned k = key_of(key);
    if (k > MODEL_KEYS) {
        return complain(r->why, "keyspace %u: a key of %zu bytes that was never written", space,
                        key.size);
    }
    if (k == MODEL_KEYS) {
        seen->has_extra = true;
        return true;
    }
    uint32_t *at = &seen->state.value[space][k];
    if (*at != 0) {
        return complain(r->why, "keyspace %u: key %u twice in one scan", space, k);
    }
    *at = value_of(r, loam_iter_value(it));
    return *at != 0 || complain(r->why, "wrong: keyspace %u, key %u: %zu bytes never written",
                                space, k, loam_iter_value(it).size);
}

static bool scan(struct reading *r, loam_ks *ks, unsigned space, bool back, struct model_seen *seen)
{
    loam_iter *it;
    if (!goes(r->why, loam_iter_open(r->db, ks, NULL, &it), "opening an iterator")) {
        return false;
    }
    bool fine = true;
    int rc = back ? loam_iter_last(it) : loam_iter_first(it);
    while (rc == LOAM_OK && fine) {
        fine = note_entry(r, space, it, seen);
        if (fine) {
            rc = back ? loam_iter_prev(it) : loam_iter_next(it);
        }
    }
    fine = fine && goes(r->why, rc, "a scan");
    loam_iter_close(it);
    return fine;
}

static bool get_all(struct reading *r, loam_ks *ks, unsigned space, const struct model_seen *seen)
{
    for (unsigned k = 0; k < MODEL_KEYS; k++) {
        loam_pin pin = LOAM_PIN_INIT;
        int rc = loam_get_pin(r->db, ks, model_key(k), &pin, NULL);
        if (!goes(r->why, rc, "a get")) {
            return false;
        }
        uint32_t want = seen->state.value[space][k], got = 0;
        if (rc == LOAM_OK) {
            got = want != 0 && same(model_value(want, r->value), pin.value)
                      ? want
                      : value_of(r, pin.value);
        }
        loam_unpin(&pin);
        if (got != want || (rc == LOAM_OK) != (want != 0)) {
            return complain(r->why, "keyspace %u, key %u: a get gives value %u, the scan %u", space,
                            k, got, want);
        }
    }
    return true;
}

static bool read_space(struct reading *r, loam_ks *ks, unsigned space, struct model_seen *seen)
{
    struct model_seen back = {0};
    if (!scan(r, ks, space, false, seen) || !scan(r, ks, space, true, &back)) {
        return false;
    }
    if (memcmp(back.state.value[space], seen->state.value[space], sizeof back.state.value[space]) !=
        0) {
        return complain(r->why, "keyspace %u: scans forward and back disagree", space);
    }
    return get_all(r, ks, space, seen);
}

/* ---- all of it --------------------------------------------------------------------------------- */

struct found_names {
    char name[MODEL_SPACES + 1][MODEL_NAME];
    unsigned count;
};

static int note_name(void *ctx, loam_slice name)
{
    struct found_names *f = ctx;
    if (f->count > MODEL_SPACES || name.size >= MODEL_NAME) {
        return 1;
    }
    memcpy(f->name[f->count], name.data, name.size);
    f->name[f->count++][name.size] = '\0';
    return 0;
}

static bool same_names(const struct model_names *n, const struct found_names *f)
{
    unsigned live = 0, matched = 0;
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        live += n->name[s][0] != '\0';
        for (unsigned i = 0; i < f->count && n->name[s][0] != '\0'; i++) {
            matched += strcmp(n->name[s], f->name[i]) == 0;
        }
    }
    return live == f->count && matched == live;
}

static bool find_control(struct reading *r, const struct model_promise *p, struct model_seen *seen)
{
    static _Thread_local struct found_names found;
    found.count = 0;
    int rc = loam_ks_list(r->db, note_name, &found);
    if (!goes(r->why, rc, "listing keyspaces")) {
        return false;
    }
    for (uint32_t c = p->control_high + 1; rc == LOAM_OK && c-- > p->control_low;) {
        if (same_names(&r->model->controls[c], &found)) {
            seen->control = c;
            return true;
        }
    }
    return complain(r->why, "the %u keyspaces are not those of states %u to %u", found.count,
                    p->control_low, p->control_high);
}

static bool read_all(struct reading *r, const struct model_promise *p, struct model_seen *seen)
{
    memset(seen, 0, sizeof *seen);
    if (!find_control(r, p, seen)) {
        return false;
    }
    const struct model_names *names = &r->model->controls[seen->control];
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        loam_ks *ks = NULL;
        if (names->name[s][0] == '\0') {
            continue;
        }
        if (s != 0 && !goes(r->why, loam_ks_open(r->db, names->name[s], model_ks_options(s), &ks),
                            "opening a keyspace")) {
            return false;
        }
        bool fine = read_space(r, ks, s, seen);
        loam_ks_release(ks);
        if (!fine) {
            return false;
        }
    }
    return true;
}

loam_db *crash_open_and_judge(const struct model *m, const struct model_promise *p,
                              const loam_vfs *vfs, struct model_seen *seen, char why[MODEL_WHY])
{
    struct reading r = {.model = m, .why = why};
    loam_options options = crash_options(vfs);
    options.flags = p->opened ? LOAM_OPEN_MUST_EXIST : 0;
    if (!goes(why, loam_open(CRASH_DIR, &options, &r.db), "unopenable: open")) {
        return NULL;
    }
    bool fine = read_all(&r, p, seen) && model_judge(m, p, seen, why) &&
                (!p->extra || seen->has_extra || complain(why, "lost: the put after a recovery"));
    if (!fine) {
        (void)loam_close(r.db);
        return NULL;
    }
    return r.db;
}

/* ---- the directory ----------------------------------------------------------------------------- */

struct files {
    uint64_t tables, manifests, current, others;
    char other[64]; /* one of them */
};

/* `name` is 12 digits or more between two fixed parts. */
static bool numbered(loam_slice name, const char *before, const char *after)
{
    size_t b = strlen(before), a = strlen(after);
    const char *s = name.data;
    if (name.size < b + a + 12 || memcmp(s, before, b) != 0 ||
        memcmp(s + name.size - a, after, a) != 0) {
        return false;
    }
    for (size_t i = b; i < name.size - a; i++) {
        if (s[i] < '0' || s[i] > '9') {
            return false;
        }
    }
    return true;
}

static int note_file(void *ctx, loam_slice name)
{
    struct files *f = ctx;
    if (numbered(name, "", ".sst")) {
        f->tables++;
    } else if (numbered(name, "MANIFEST-", "")) {
        f->manifests++;
    } else if (same(name, LOAM_LIT("CURRENT"))) {
        f->current++;
    } else if (!numbered(name, "", ".log") && !same(name, LOAM_LIT("LOCK")) &&
               !same(name, LOAM_LIT("RESERVE"))) {
        f->others++;
        snprintf(f->other, sizeof f->other, "%.*s", (int)name.size, (const char *)name.data);
    }
    return 0;
}

static bool list_files(const loam_vfs *vfs, struct files *f, char why[MODEL_WHY])
{
    *f = (struct files){0};
    return goes(why, vfs->list(vfs->ctx, CRASH_DIR, note_file, f), "listing the directory");
}

/* What a close leaves: one manifest, and no file that has no meaning. */
static bool check_closed(const struct files *f, char why[MODEL_WHY])
{
    return (f->others == 0 && f->current == 1 && f->manifests == 1) ||
           complain(why,
                    "after a close there are %llu manifests, %llu CURRENT, %llu unknown files %s",
                    (unsigned long long)f->manifests, (unsigned long long)f->current,
                    (unsigned long long)f->others, f->other);
}

static uint64_t number(loam_db *db, const char *name)
{
    uint64_t value = 0;
    return loam_property(db, NULL, name, &value) >= 0 ? value : UINT64_MAX;
}

/* Every table found is one that the database, open again, names. A merge that it began at once makes
 * that a matter of time: `patient` waits until its inputs are gone. */
static bool check_tables(const loam_vfs *vfs, loam_db *db, struct files f, bool patient,
                         char why[MODEL_WHY])
{
    uint64_t live = 0;
    for (int i = 0; i < TRIES; i++) {
        live = number(db, "files");
        bool merging = number(db, "running_compactions") != 0 || number(db, "compactions") != 0;
        if (f.tables == live || (merging && !patient)) {
            return true;
        }
        if (!goes(why, loam_wait_idle(db, 0), "wait")) {
            return false;
        }
        nanosleep(&(struct timespec){.tv_nsec = i == 0 ? 0 : 10000000}, NULL);
        if (!list_files(vfs, &f, why)) {
            return false;
        }
    }
    return complain(why, "%llu tables of which %llu are live", (unsigned long long)f.tables,
                    (unsigned long long)live);
}

bool crash_check(const struct model *m, const struct model_promise *p, const loam_vfs *vfs,
                 uint64_t seed, char why[MODEL_WHY])
{
    struct model_seen first, again;
    loam_db *db = crash_open_and_judge(m, p, vfs, &first, why);
    if (db == NULL) {
        return false;
    }
    const loam_write_opts opts = {.struct_size = sizeof opts,
                                  .flags = seed % 2 == 0 ? LOAM_W_DURABLE : 0};
    bool fine = goes(why, loam_put(db, NULL, model_key(MODEL_KEYS), LOAM_LIT("more"), &opts),
                     "one more put") &&
                (seed % 8 != 0 || goes(why, loam_flush(db, NULL), "flush"));
    fine = goes(why, loam_close(db), "close") && fine;
    struct files files;
    if (!fine || !list_files(vfs, &files, why) || !check_closed(&files, why)) {
        return false;
    }
    const struct model_promise exact = {true,          first.commit,  first.commit,
                                        first.control, first.control, true};
    db = crash_open_and_judge(m, &exact, vfs, &again, why);
    if (db == NULL) {
        return false;
    }
    fine = check_tables(vfs, db, files, seed % 256 == 1, why);
    return goes(why, loam_close(db), "second close") && fine;
}
