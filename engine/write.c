/* write.c - The write path.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/write.h"

#include <assert.h>

#include "arena/copy.h"
#include "arena/status.h"
#include "engine/background.h"
#include "engine/flush.h"

#include "arena/poison.h"

#define LARGE_WRITE ((uint64_t)64 << 10) /* bytes from which on a write counts before it is there */
#define SLEEP_MIN_US 50u        /* shorter pauses are left on the clock: sleeping costs about this */
#define OVER_MAX ((uint64_t)256 << 10) /* what deletes on a full disk may take beyond a memtable's limit */
#define ROOM_POLL_US 100000u    /* how long one wait for room lasts before errors are looked at */

static int refused(struct db *db)
{
    mutex_lock(&db->mu);
    loam_error e = db->error;
    bool refusing = (write_controller_state(&db->control) & WRITES_REFUSED) != 0;
    mutex_unlock(&db->mu);
    if (e.code == LOAM_OK) {
        /* Nothing is acknowledged on top of what a resume is still putting right. */
        return refusing ? FAIL(LOAM_E_READONLY, "writes are refused until loam_resume() ends")
                        : LOAM_OK;
    }
    status_raise(&e);
    return e.code;
}

/* When the call is to give up; 0: it does not wait at all. */
static uint64_t deadline_of(const loam_write_opts *opts)
{
    if (opts != NULL && (opts->flags & LOAM_W_NOWAIT) != 0) {
        return 0;
    }
    if (opts == NULL || opts->deadline_us == 0) {
        return UINT64_MAX;
    }
    uint64_t now = clock_micros();
    return opts->deadline_us < UINT64_MAX - now ? now + opts->deadline_us : UINT64_MAX;
}

static void throttled(struct db *db, uint64_t micros)
{
    stats_add(&db->stats, STAT_THROTTLED_WRITES, 1);
    stats_add(&db->stats, STAT_THROTTLED_US, micros);
}

static int busy(struct db *db)
{
    stats_add(&db->stats, STAT_BUSY_WRITES, 1);
    return FAIL(LOAM_E_BUSY, "the write was not admitted in time");
}

/* Deletes may use the reserve of a full disk. */
static bool only_deletes(const struct write_request *q)
{
    if (q->one != NULL) {
        return q->one->kind == ENTRY_DELETE;
    }
    struct reader r = reader_of(q->ops.data, q->ops.size);
    struct op o;
    while (op_read(&r, &o) == LOAM_OK) {
        if (o.kind != ENTRY_DELETE) {
            return false;
        }
    }
    return true;
}

/* Waits as pacing demands. */
static int admit(struct call *c, const struct write_request *q, uint64_t bytes, uint64_t deadline)
{
    struct db *db = c->db;
    uint32_t state = write_controller_state(&db->control);
    if (__builtin_expect(state == 0, 1)) {
        return LOAM_OK;
    }
    if ((state & WRITES_REFUSED) != 0) {
        int rc = refused(db);
        if (rc < 0 && !(rc == LOAM_E_NOSPACE && only_deletes(q))) {
            return rc;
        }
    }
    if ((state & WRITES_PACED) == 0) {
        return LOAM_OK;
    }
    uint64_t pause = write_controller_charge(&db->control, bytes);
    if (pause < SLEEP_MIN_US) {
        return LOAM_OK;
    }
    if (deadline != UINT64_MAX && clock_micros() + pause > deadline) {
        write_controller_refund(&db->control, bytes);
        return busy(db);
    }
    throttled(db, pause);
    if (!call_wait_begin(c)) {
        return LOAM_E_CLOSED;
    }
    thread_sleep_micros(pause);
    call_wait_end(c);
    return LOAM_OK;
}

/* How long a write waits for room, and for what. */
struct patience {
    uint64_t deadline;
    bool large;       /* it is a batch of more than a memtable may hold */
    bool begun;       /* from here on: once it has waited */
    bool deletes;     /* it frees space: on a full disk it waits for flushes, too */
    bool over;        /* and then may go over the memtable's limit, where the log has room */
    uint64_t failed;  /* flushes that had failed when it began */
};

static void begin_patience(struct db *db, struct patience *p, const struct write_request *q)
{
    if (!p->begun) {
        mutex_lock(&db->mu);
        uint64_t failed = db->failed_flushes;
        mutex_unlock(&db->mu);
        p->begun = true;
        p->deletes = only_deletes(q);
        p->failed = failed;
    }
}

/* Whether a flush will make room: while nothing is wrong, and on a full disk for deletes as long as there
 * is one, until it fails with all there was to spend. */
static bool room_to_come_locked(const struct db *db, const struct patience *p)
{
    mutex_assert_held(&db->mu);
    bool flush = db->flushing || flush_due_locked(db);
    return db->error.code == LOAM_OK || (p->deletes && db->error.code == LOAM_E_NOSPACE && flush &&
                                         db->failed_flushes == p->failed);
}

/* Waits for a flush while so many memtables are sealed or more, and one can be hoped for. */
static int wait_for_flush(struct call *c, const struct patience *p, uint32_t sealed)
{
    struct db *db = c->db;
    uint64_t start = clock_micros();
    if (start >= p->deadline) {
        return busy(db);
    }
    if (!call_wait_begin(c)) {
        return LOAM_E_CLOSED;
    }
    mutex_lock(&db->mu);
    if (memtable_list_in_memory(&db->memtables) > sealed && room_to_come_locked(db, p) &&
        !atom_load(&db->stopping, relaxed)) {
        uint64_t limit = p->deadline - start;
        background_wake_locked(db);
        cond_wait_for(&db->idle_cv, &db->mu, limit < ROOM_POLL_US ? limit : ROOM_POLL_US);
    }
    bool again = p->deletes && room_to_come_locked(db, p);
    mutex_unlock(&db->mu);
    throttled(db, clock_micros() - start);
    call_wait_end(c);
    return again ? LOAM_OK : refused(db);
}

/* Switches away from `generation`, waiting for room as the caller allows. */
static int seal_and_wait(struct call *c, uint32_t generation, uint64_t hint,
                         const struct patience *p)
{
    for (;;) {
        if (!call_wait_begin(c)) {
            return LOAM_E_CLOSED;
        }
        int rc = db_seal(c->db, generation, hint);
        call_wait_end(c);
        if (rc != LOAM_STOPPED) {
            return rc;
        }
        rc = wait_for_flush(c, p, c->db->options.limits.memtables_max - 1);
        if (rc < 0) {
            return rc;
        }
    }
}

/* The disk had no space for another log segment: what a delete may hope for are the reserve, and the
 * segments that flushes of sealed memtables set free. */
static bool space_to_come(struct call *c, const struct patience *p)
{
    struct db *db = c->db;
    if (db_spend_reserve(db, LOAM_E_NOSPACE)) {
        return true;
    }
    mutex_lock(&db->mu);
    bool flushes = memtable_list_in_memory(&db->memtables) > 1 && room_to_come_locked(db, p);
    mutex_unlock(&db->mu);
    return flushes && wait_for_flush(c, p, 1) == LOAM_OK;
}

/* Whether the memtable has room. A large request counts in it from now on, until arrived(): else as many
 * as there are writers would come on top of the limit. */
static bool has_room(struct db *db, struct memtable *m, uint64_t cost, bool over)
{
    uint64_t limit = db_memtable_limit(db) + (over ? OVER_MAX : 0);
    return cost < LARGE_WRITE ? memtable_bytes(m) < limit : memtable_expect(m, cost, limit);
}

static void arrived(struct memtable *m, uint64_t cost)
{
    if (cost >= LARGE_WRITE) {
        memtable_came(m, cost);
    }
}

/* Whether a batch that takes more than a memtable may hold is within the share of all memtables, or nothing
 * else is in them. On a disk that is full, say, it is not asked: there deletes must go on. */
static bool within_share(struct db *db, const struct write_request *q)
{
    uint64_t limit = db_memtable_limit(db), cost = memtable_cost(&q->need);
    mutex_lock(&db->mu);
    uint64_t have = memtable_list_bytes(&db->memtables);
    bool leaving = db->memtables.leaving != 0;
    bool well = db->error.code == LOAM_OK;
    mutex_unlock(&db->mu);
    bool fits = have == 0 || have + cost <= limit * db->options.limits.memtables_max;
    return (fits && !leaving) || !well;
}

static bool is_flushed(struct db *db, uint32_t end)
{
    mutex_lock(&db->mu);
    bool flushed = db->memtables.oldest >= end && db->memtables.leaving == 0;
    mutex_unlock(&db->mu);
    return flushed;
}

/* Waits until there is memory for such a batch, at most for what is in memtables now: else as many would come
 * on top of each other as there are memtables. */
static int make_memory(struct call *c, const struct write_request *q, uint64_t size,
                       const struct patience *p)
{
    uint32_t generation = wal_generation(&c->db->wal);
    const struct memtable *m = memtable_list_find(&c->db->memtables, generation);
    bool untouched = m != NULL && memtable_untouched(m);
    int rc = untouched ? LOAM_OK : seal_and_wait(c, generation, size, p);
    uint32_t end = untouched ? generation : generation + 1;
    while (rc == LOAM_OK && !within_share(c->db, q) && !is_flushed(c->db, end)) {
        rc = wait_for_flush(c, p, 1);
    }
    return rc == LOAM_E_NOSPACE && p->deletes ? LOAM_OK : rc;
}

/* Large batches look for memory, and take it, one after the other: what the others are about to take nobody sees
 * in memtables yet. */
static int begin_large(struct call *c, const struct patience *p)
{
    struct db *db = c->db;
    while (p->large) {
        mutex_lock(&db->mu);
        bool mine = !db->large_comes;
        db->large_comes = true;
        mutex_unlock(&db->mu);
        if (mine) {
            return LOAM_OK;
        }
        uint64_t now = clock_micros();
        if (now >= p->deadline) {
            return busy(db);
        }
        if (!call_wait_begin(c)) {
            return LOAM_E_CLOSED;
        }
        mutex_lock(&db->mu);
        if (db->large_comes) {
            uint64_t limit = p->deadline - now;
            cond_wait_for(&db->idle_cv, &db->mu, limit < ROOM_POLL_US ? limit : ROOM_POLL_US);
        }
        mutex_unlock(&db->mu);
        throttled(db, clock_micros() - now);
        call_wait_end(c);
    }
    return LOAM_OK;
}

/* Not while a record of a buffered log is open: others come to the log with mu held. */
static void end_large(struct db *db, const struct patience *p)
{
    if (p->large) {
        mutex_lock(&db->mu);
        db->large_comes = false;
        cond_broadcast(&db->idle_cv);
        mutex_unlock(&db->mu);
    }
}

/* A place in the log of a generation whose memtable is below its limit; *m is told of the request. */
static int reserve(struct call *c, const struct write_request *q, uint64_t size,
                   struct patience *p, struct wal_slot *s, struct memtable **m)
{
    struct db *db = c->db;
    uint64_t cost = memtable_cost(&q->need);
    if (p->large && !within_share(db, q)) {
        begin_patience(db, p, q);
        int rc = make_memory(c, q, size, p);
        if (rc < 0) {
            return rc;
        }
    }
    for (;;) {
        uint32_t generation = wal_generation(&db->wal);
        *m = memtable_list_find(&db->memtables, generation);
        int rc = WAL_FULL;
        /* NULL for an instant when the generation read is an old one: look again. */
        if (*m != NULL && has_room(db, *m, cost, p->over)) {
            rc = q->one != NULL ? wal_begin(&db->wal, size, s)
                                : wal_begin_copy(&db->wal, q->ops, s);
            if (rc == LOAM_OK) {
                return rc;
            }
            arrived(*m, cost); /* not at all */
            if (rc != WAL_FULL) {
                return rc;
            }
        }
        begin_patience(db, p, q);
        rc = seal_and_wait(c, generation, size, p);
        if (rc == LOAM_E_NOSPACE && p->deletes && space_to_come(c, p)) {
            continue;
        }
        if (rc == LOAM_E_NOSPACE && p->deletes && !p->over) {
            p->over = true;
            continue;
        }
        if (rc < 0) {
            return rc;
        }
    }
}

static void copy_one(uint8_t *to, const struct op *o)
{
    to += op_put_head(to, o->kind, o->ks, o->key.size, o->value.size);
    copy_bytes(to, o->key.data, o->key.size);
    copy_bytes(to + o->key.size, o->value.data, o->value.size);
}

/* Where operations go, and the number of the next one. */
struct addition {
    struct db *db;
    struct memtable *m;
    struct stats_stripe *stats;
    uint64_t seq;
    struct memtable_op one; /* the only one, if it is */
};

static void addition_begin(struct addition *a, struct db *db, struct memtable *m, const struct op *one,
                           uint64_t seq)
{
    a->db = db;
    a->m = m;
    a->stats = stats_stripe_self(&db->stats);
    a->seq = seq;
    if (one != NULL) {
        a->one = op_addition(one, a->seq++);
        memtable_prefetch(m, a->one.key_hash);
    }
}

/* What is to be known of an operation before it is visible. */
static void tell(const struct addition *a, const struct memtable_op *o)
{
    struct db *db = a->db;
    if (tag_kind(o->tag) == ENTRY_PUT) {
        dead_ranges_put(&db->dead, o->ks, o->key);
        stats_bump(a->stats, STAT_PUTS, 1);
    } else {
        stats_bump(a->stats, STAT_DELETES, 1);
        /* relaxed: a statistic */
        uint64_t deletes = atom_load(&a->stats->n[STAT_DELETES], relaxed);
        dead_scout_delete(&db->scout, deletes, o->ks, o->key);
    }
}

static void add_batch(struct addition *a, loam_slice ops)
{
    struct reader r = reader_of(ops.data, ops.size);
    struct memtable_pipeline p;
    memtable_pipeline_begin(&p, a->m);
    struct op o;
    while (op_read(&r, &o) == LOAM_OK) {
        struct memtable_op next = op_addition(&o, a->seq++);
        tell(a, &next);
        memtable_pipeline_add(&p, &next);
    }
    memtable_pipeline_end(&p);
}

/* Inserts every operation; cannot fail after memtable_reserve(). */
static void add_all(struct addition *a, const struct write_request *q)
{
    if (q->one == NULL) {
        add_batch(a, q->ops);
        return;
    }
    const struct memtable_op *o = &a->one;
    tell(a, o);
    int rc = memtable_add(a->m, o->ks, o->key, o->key_hash, o->tag, o->value);
    assert(rc == LOAM_OK);
    (void)rc;
}

static uint64_t encoded_size(const struct write_request *q)
{
    if (q->one == NULL) {
        return q->ops.size;
    }
    uint8_t head[OP_HEAD_MAX];
    const struct op *o = q->one;
    return op_put_head(head, o->kind, o->ks, o->key.size, o->value.size) + o->key.size +
           o->value.size;
}

/* A place in the log, and memory in its generation's memtable. */
static int set_aside(struct call *c, const struct write_request *q, uint64_t size,
                     struct patience *p, struct wal_slot *s, struct memtable **m)
{
    struct db *db = c->db;
    struct memtable *told;
    int rc = reserve(c, q, size, p, s, &told);
    if (rc < 0) {
        return rc;
    }
    /* Another one, if there was a switch in between. */
    *m = memtable_list_find(&db->memtables, s->generation);
    rc = memtable_reserve(*m, &q->need);
    arrived(told, memtable_cost(&q->need));
    if (rc < 0 && wal_void(&db->wal, s) != WAL_UNUSED) {
        commit_publish(&db->commit, s->position, s->end);
    }
    return rc;
}

static int log_request(struct db *db, const struct write_request *q, struct wal_slot *s)
{
    if (q->one != NULL && s->payload != NULL) {
        copy_one(s->payload, q->one);
    }
    int rc = wal_end(&db->wal, s, wal_durable(&db->wal));
    if (rc < 0 && wal_poisoned(&db->wal)) {
        db_log_failed(db, rc); /* what was to take the record back could not be synced */
    }
    return rc;
}

/* Logs and applies the request; *s tells where. */
static int log_and_apply(struct call *c, const struct write_request *q, uint64_t size,
                         uint64_t deadline, struct wal_slot *s)
{
    struct db *db = c->db;
    struct memtable *m = NULL;
    struct patience patience = {
        .deadline = deadline,
        .large = q->one == NULL && memtable_cost(&q->need) > db_memtable_limit(db)};
    int rc = begin_large(c, &patience);
    if (rc < 0) {
        return rc;
    }
    rc = set_aside(c, q, size, &patience, s, &m);
    struct addition a;
    if (rc == LOAM_OK) {
        addition_begin(&a, db, m, q->one, s->position);
        rc = log_request(db, q, s);
    }
    end_large(db, &patience);
    if (rc < 0) {
        return rc;
    }
    add_all(&a, q);
    commit_publish(&db->commit, s->position, s->end);
    if (s->at_edge) {
        wal_relieve(&db->wal, commit_visible(&db->commit));
    }
    struct stats_stripe *t = stats_stripe_self(&db->stats);
    stats_bump(t, STAT_BYTES_PUT, q->data);
    stats_bump(t, STAT_BYTES_LOGGED, db->logging ? s->end - s->position : 0);
    return LOAM_OK;
}

int write_sync(struct call *c, uint64_t position)
{
    struct db *db = c->db;
    if (wal_durable(&db->wal) >= position) {
        return LOAM_OK;
    }
    if (!call_wait_begin(c)) {
        return status_add_flags(LOAM_E_CLOSED, LOAM_ERR_UNKNOWN); /* close may yet sync it */
    }
    uint64_t start = clock_nanos();
    int rc = wal_sync(&db->wal, position);
    stats_time(&db->stats, LOAM_HIST_SYNC, clock_nanos() - start);
    stats_add(&db->stats, STAT_GROUP_COMMITS, 1);
    if (rc < 0) {
        status_add_flags(rc, LOAM_ERR_UNKNOWN);
        db_log_failed(db, rc);
    }
    call_wait_end(c);
    return rc;
}

int write_apply(struct call *c, const struct write_request *q, const loam_write_opts *opts)
{
    struct db *db = c->db;
    if (db->readonly) {
        return FAIL(LOAM_E_READONLY, "the database was opened read-only");
    }
    uint32_t flags = opts != NULL ? opts->flags : 0;
    if ((flags & LOAM_W_DURABLE) != 0 && !db->logging) {
        return FAIL(LOAM_E_UNSUPPORTED, "there is no log to make a write durable under LOAM_DUR_MEMORY");
    }
    struct stats_stripe *t = stats_stripe_self(&db->stats);
    uint64_t start = stats_sample(t) ? clock_nanos() : 0;
    uint64_t size = encoded_size(q), deadline = deadline_of(opts);
    int rc = memory_share_want(c, size, deadline);
    if (rc == LOAM_OK) {
        rc = admit(c, q, size, deadline);
    }
    if (rc < 0) {
        return rc;
    }
    struct wal_slot s;
    rc = log_and_apply(c, q, size, deadline, &s);
    if (rc < 0) {
        return rc;
    }
    bool durable = (flags & LOAM_W_DURABLE) != 0 ||
                   (db->options.user.durability == LOAM_DUR_POWER &&
                    (flags & LOAM_W_RELAXED) == 0);
    if (durable) {
        rc = write_sync(c, s.end);
        if (rc < 0) {
            return rc;
        }
    }
    if (opts != NULL && opts->seq != NULL) {
        *opts->seq = s.position;
    }
    if (start != 0) {
        stats_time(&db->stats, q->one != NULL ? LOAM_HIST_PUT : LOAM_HIST_WRITE,
                   clock_nanos() - start);
    }
    return LOAM_OK;
}
