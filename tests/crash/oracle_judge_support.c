/* oracle_judge_support.c - Reads a database whole and judges it by what its writer was promised.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <string.h>

#include "tests/crash/oracle_support.h"

/* ---- reading ----------------------------------------------------------------------------------- */

/* The value these bytes are, or abort. */
static uint32_t value_of(loam_slice v, unsigned space, unsigned key)
{
    uint32_t value = 0;
    if (v.size >= 4) {
        memcpy(&value, v.data, 4);
    }
    if (value != 0) {
        loam_slice want = oracle_value(value);
        if (want.size == v.size && memcmp(want.data, v.data, v.size) == 0) {
            return value;
        }
    }
    oracle_fail("keyspace %u, key %u: %zu bytes that were never written (value %u?)", space, key,
                v.size, value);
}

struct found_names {
    char name[ORACLE_SPACES + 1][ORACLE_NAME];
    unsigned count;
};

static int note_name(void *ctx, loam_slice name)
{
    struct found_names *f = ctx;
    if (f->count > ORACLE_SPACES || name.size >= ORACLE_NAME) {
        oracle_fail("too many keyspaces, or names too long");
    }
    memcpy(f->name[f->count], name.data, name.size);
    f->name[f->count++][name.size] = '\0';
    return 0;
}

static bool same_names(const struct oracle_names *n, const struct found_names *f)
{
    unsigned live = 0;
    for (unsigned s = 0; s < ORACLE_SPACES; s++) {
        live += n->name[s][0] != '\0';
    }
    for (unsigned i = 0; i < f->count; i++) {
        if (oracle_find_name(n, f->name[i]) == ORACLE_SPACES) {
            return false;
        }
    }
    return live == f->count;
}

static int read_names(const struct oracle *o, const struct oracle_promise *p, loam_db *db,
                      struct oracle_seen *seen)
{
    struct found_names found = {.count = 0};
    int rc = loam_ks_list(db, note_name, &found);
    if (rc < 0) {
        return rc;
    }
    for (uint32_t c = p->control_low; c <= p->control_high; c++) {
        if (same_names(&o->controls[c], &found)) {
            seen->control = c;
            seen->names = o->controls[c];
            return LOAM_OK;
        }
    }
    fprintf(stderr, "keyspaces found:");
    for (unsigned i = 0; i < found.count; i++) {
        fprintf(stderr, " \"%s\"", found.name[i]);
    }
    oracle_fail("the keyspaces are not those of states %u to %u", p->control_low, p->control_high);
}

static unsigned key_index(loam_slice key, unsigned space)
{
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        loam_slice want = oracle_key(k);
        if (want.size == key.size &&
            (key.size == 0 || memcmp(want.data, key.data, key.size) == 0)) {
            return k;
        }
    }
    oracle_fail("keyspace %u: a key of %zu bytes that was never written", space, key.size);
}

static int scan(loam_db *db, loam_ks *ks, unsigned space, bool back, uint32_t *value)
{
    loam_iter *it;
    int rc = loam_iter_open(db, ks, NULL, &it);
    if (rc < 0) {
        return rc;
    }
    memset(value, 0, ORACLE_KEYS * sizeof *value);
    for (rc = back ? loam_iter_last(it) : loam_iter_first(it); rc == LOAM_OK;
         rc = back ? loam_iter_prev(it) : loam_iter_next(it)) {
        unsigned k = key_index(loam_iter_key(it), space);
        if (value[k] != 0) {
            oracle_fail("keyspace %u: key %u twice in one scan", space, k);
        }
        value[k] = value_of(loam_iter_value(it), space, k);
    }
    loam_iter_close(it);
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

/* *value: 0 when there is none. */
static int get(loam_db *db, loam_ks *ks, unsigned space, unsigned key, uint32_t *value)
{
    loam_pin pin = LOAM_PIN_INIT;
    int rc = loam_get_pin(db, ks, oracle_key(key), &pin, NULL);
    if (rc >= 0) {
        *value = rc == LOAM_OK ? value_of(pin.value, space, key) : 0;
        loam_unpin(&pin);
    }
    return rc;
}

static int read_space(loam_db *db, loam_ks *ks, unsigned space, uint32_t *value)
{
    uint32_t backward[ORACLE_KEYS];
    int rc = scan(db, ks, space, false, value);
    if (rc < 0 || (rc = scan(db, ks, space, true, backward)) < 0) {
        return rc;
    }
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        uint32_t got = 0;
        rc = get(db, ks, space, k, &got);
        if (rc < 0) {
            return rc;
        }
        if (got != value[k] || backward[k] != value[k]) {
            oracle_fail("keyspace %u, key %u: the scan gives value %u, back %u, the get %u", space,
                        k, value[k], backward[k], got);
        }
    }
    return LOAM_OK;
}

int oracle_read(const struct oracle *o, const struct oracle_promise *p, loam_db *db,
                struct oracle_seen *seen)
{
    memset(seen, 0, sizeof *seen);
    int rc = read_names(o, p, db, seen);
    for (unsigned s = 0; s < ORACLE_SPACES && rc >= 0; s++) {
        if (seen->names.name[s][0] == '\0') {
            continue;
        }
        loam_ks *ks = NULL;
        rc = s == 0 ? LOAM_OK : loam_ks_open(db, seen->names.name[s], NULL, &ks);
        if (rc >= 0) {
            rc = read_space(db, ks, s, seen->value[s]);
        }
        loam_ks_release(ks);
    }
    return rc;
}

/* ---- reading beside damage --------------------------------------------------------------------- */

/* One keyspace of a database some of whose calls fail. */
struct beside {
    struct oracle_seen *seen;
    unsigned space;
    oracle_failed_fn *failed;
    void *ctx;
};

static void note(const struct beside *b, unsigned key, uint32_t value)
{
    bool *unread = &b->seen->unread[b->space][key];
    uint32_t *known = &b->seen->value[b->space][key];
    if (!*unread && *known != value) {
        oracle_fail("keyspace %u, key %u: one call gives value %u, another %u", b->space, key,
                    *known, value);
    }
    *unread = false;
    *known = value;
}

static void failed(const struct beside *b, const char *call, int key, int rc)
{
    b->failed(b->ctx, b->seen->names.name[b->space], call, key, rc);
}

/* The keys from *at up to where the iterator is now are not there. *at: the one behind it. */
static void pass_to(const struct beside *b, const loam_iter *it, int *at, bool back)
{
    int k = (int)key_index(loam_iter_key(it), b->space), step = back ? -1 : 1;
    if (back ? k > *at : k < *at) {
        oracle_fail("keyspace %u: a walk %s comes to key %d where %d is next", b->space,
                    back ? "back" : "forward", k, *at);
    }
    for (; *at != k; *at += step) {
        note(b, (unsigned)*at, 0);
    }
    note(b, (unsigned)k, value_of(loam_iter_value(it), b->space, (unsigned)k));
    *at += step;
}

/* From what a seek gave, in either direction, to an error or the end. key: the one sought; le: by
 * loam_iter_seek_le(), which looks back for its entry as loam_iter_seek() looks forward. */
static void walk(const struct beside *b, loam_iter *it, unsigned key, bool le, bool back)
{
    int at = (int)key;
    bool way = le;
    int rc = le ? loam_iter_seek_le(it, oracle_key(key)) : loam_iter_seek(it, oracle_key(key));
    while (rc == LOAM_OK) {
        pass_to(b, it, &at, way);
        if (way != back) { /* it turns here, once: what is next is on the entry's other side */
            at += back ? -2 : 2;
            way = back;
        }
        rc = back ? loam_iter_prev(it) : loam_iter_next(it);
    }
    if (rc < 0) {
        failed(b, way ? "a walk back" : "a walk forward", -1, rc);
        return;
    }
    for (; at >= 0 && at < (int)ORACLE_KEYS; at += way ? -1 : 1) {
        note(b, (unsigned)at, 0);
    }
}

static void walk_all(const struct beside *b, loam_db *db, loam_ks *ks)
{
    loam_iter *it;
    int rc = loam_iter_open(db, ks, NULL, &it);
    if (rc < 0) {
        failed(b, "opening an iterator", -1, rc);
        return;
    }
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        for (unsigned way = 0; way < 4; way++) {
            walk(b, it, k, way / 2 != 0, way % 2 != 0);
        }
    }
    loam_iter_close(it);
}

static void get_all(const struct beside *b, loam_db *db, loam_ks *ks)
{
    for (unsigned k = 0; k < ORACLE_KEYS; k++) {
        uint32_t value;
        int rc = get(db, ks, b->space, k, &value);
        if (rc < 0) {
            failed(b, "a get", (int)k, rc);
        } else {
            note(b, k, value);
        }
    }
}

int oracle_read_beside(const struct oracle *o, const struct oracle_promise *p, loam_db *db,
                       struct oracle_seen *seen, oracle_failed_fn *on_failure, void *ctx)
{
    memset(seen, 0, sizeof *seen);
    memset(seen->unread, true, sizeof seen->unread);
    int rc = read_names(o, p, db, seen);
    for (unsigned s = 0; s < ORACLE_SPACES && rc >= 0; s++) {
        const struct beside b = {seen, s, on_failure, ctx};
        loam_ks *ks = NULL;
        if (seen->names.name[s][0] == '\0') {
            continue;
        }
        rc = s == 0 ? LOAM_OK : loam_ks_open(db, seen->names.name[s], NULL, &ks);
        if (rc >= 0) {
            get_all(&b, db, ks);
            walk_all(&b, db, ks);
        }
        loam_ks_release(ks);
    }
    return rc;
}

/* ---- judging ----------------------------------------------------------------------------------- */

/* The commits of unknown outcome; a bit of a mask each. */
struct maybes {
    uint32_t commit[ORACLE_MAYBES];
    unsigned count;
};

static void find_maybes(const struct oracle *o, uint32_t high, struct maybes *m)
{
    m->count = 0;
    for (uint32_t c = 1; c <= high; c++) {
        /* acquire: pairs with the writer. */
        if (atom_load(&o->commits[c].fate, acquire) == ORACLE_MAYBE) {
            if (m->count == ORACLE_MAYBES) {
                oracle_fail("too many writes of unknown outcome");
            }
            m->commit[m->count++] = c;
        }
    }
}

static bool left_out(const struct oracle *o, const struct maybes *m, unsigned mask, uint32_t c,
                     uint64_t moment)
{
    for (unsigned i = 0; i < m->count; i++) {
        if (m->commit[i] == c) {
            return (mask >> i & 1) == 0;
        }
    }
    bool failed = atom_load(&o->commits[c].fate, acquire) == ORACLE_FAILED; /* acquire: as above */
    return failed && (moment == 0 || o->commits[c].failed_at <= moment);
}

static bool equal(const struct oracle_seen *seen, uint32_t state[ORACLE_SPACES][ORACLE_KEYS])
{
    for (unsigned s = 0; s < ORACLE_SPACES; s++) {
        for (unsigned k = 0; k < ORACLE_KEYS && seen->names.name[s][0] != '\0'; k++) {
            if (seen->value[s][k] != state[s][k] && !seen->unread[s][k]) {
                return false;
            }
        }
    }
    return true;
}

static bool find_prefix(const struct oracle *o, const struct maybes *m, unsigned mask, uint32_t low,
                        uint32_t high, uint64_t moment, const struct oracle_seen *seen,
                        uint32_t *at)
{
    uint32_t state[ORACLE_SPACES][ORACLE_KEYS] = {0};
    bool found = false;
    for (uint32_t c = 0; c <= high; c++) {
        if (c != 0 && !left_out(o, m, mask, c, moment)) {
            const struct oracle_commit *k = &o->commits[c];
            for (uint32_t i = 0; i < k->count; i++) {
                const struct oracle_op *op = &o->ops[k->first + i];
                state[op->space][op->key] = op->value;
            }
        }
        if (c >= low && equal(seen, state)) {
            *at = c; /* the last that fits: what follows it changed nothing visible */
            found = true;
        }
    }
    return found;
}

static void print_difference(const struct oracle *o, const struct oracle_seen *seen, uint32_t upto)
{
    uint32_t state[ORACLE_SPACES][ORACLE_KEYS] = {0};
    uint32_t by[ORACLE_SPACES][ORACLE_KEYS] = {0};
    for (uint32_t c = 1; c <= upto; c++) {
        for (uint32_t i = 0; i < o->commits[c].count; i++) {
            const struct oracle_op *op = &o->ops[o->commits[c].first + i];
            state[op->space][op->key] = op->value;
            by[op->space][op->key] = c;
        }
    }
    for (unsigned s = 0; s < ORACLE_SPACES; s++) {
        for (unsigned k = 0; k < ORACLE_KEYS && seen->names.name[s][0] != '\0'; k++) {
            if (state[s][k] != seen->value[s][k] && !seen->unread[s][k]) {
                fprintf(stderr, "  \"%s\" key %u: value %u, promised %u of commit %u\n",
                        seen->names.name[s], k, seen->value[s][k], state[s][k], by[s][k]);
            }
        }
    }
}

uint32_t oracle_judge(const struct oracle *o, const struct oracle_promise *p,
                      const struct oracle_seen *seen)
{
    struct maybes m;
    uint32_t at = 0;
    find_maybes(o, p->high, &m);
    for (unsigned mask = 0; mask < 1u << m.count; mask++) {
        if (find_prefix(o, &m, mask, p->low, p->high, p->at, seen, &at)) {
            return at;
        }
    }
    print_difference(o, seen, p->low);
    for (unsigned mask = 0; mask < 1u << m.count; mask++) {
        if (find_prefix(o, &m, mask, 0, p->low, p->at, seen, &at)) {
            oracle_fail("commits up to %u were promised, only %u are there", p->low, at);
        }
    }
    oracle_fail("what is there is no prefix of the commits (%u promised, %u begun)", p->low,
                p->high);
}
