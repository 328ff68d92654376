/* history_judge.c - Bounds on the moments at which writes took effect, and cuts through their order.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/history_judge.h"

#include <stdbool.h>

#include "tests/support/check.h"

/* ---- the writes of a key, in order ------------------------------------------------------------- */

static int by_seq(const void *a, const void *b)
{
    const struct slot *x = a, *y = b;
    return x->op.seq < y->op.seq ? -1 : x->op.seq > y->op.seq;
}

struct value_index {
    uint64_t value;
    size_t slot;
};

static int by_value(const void *a, const void *b)
{
    const struct value_index *x = a, *y = b;
    return x->value < y->value ? -1 : x->value > y->value;
}

void history_show(const char *what, const struct history_op *o)
{
    fprintf(stderr,
            "  %s: key %" PRIu32 " %s value %#" PRIx64 " seq %" PRIu64 " commit %" PRIu64
            " [%" PRIu64 ", %" PRIu64 "]\n",
            what, o->key, o->is_write ? "write" : "read", o->value, o->seq, o->commit, o->inv,
            o->res);
}

/* What a life writes has numbers above all that it found. */
static void check_later(const struct history *h, const struct history_op *o)
{
    if (o->commit <= h->base) {
        history_show("write", o);
        CHECK_FAIL_("its number is not above %" PRIu64 ", which is older", h->base);
    }
}

static void fill_lane(struct judge *j, uint32_t key)
{
    struct lane *n = &j->lanes[key];
    size_t count = 1;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1) {
            n->slots = calloc(count, sizeof *n->slots);
            n->by_value = calloc(count, sizeof *n->by_value);
            CHECK(n->slots != NULL && n->by_value != NULL);
            count = 1;
            const struct history_version *start = &j->h->start[key];
            n->slots[0].op = (struct history_op){.value = start->value,
                                                 .seq = start->seq,
                                                 .commit = start->commit,
                                                 .key = key,
                                                 .is_write = 1};
        }
        for (unsigned t = 0; t < j->h->threads; t++) {
            const struct history_log *l = &j->h->logs[t];
            for (size_t i = 0; i < l->count; i++) {
                if (l->ops[i].is_write == 0 || l->ops[i].key != key) {
                    continue;
                }
                if (pass == 1) {
                    n->slots[count].op = l->ops[i];
                    check_later(j->h, &l->ops[i]);
                }
                count++;
            }
        }
    }
    n->count = count;
    qsort(n->slots, count, sizeof *n->slots, by_seq);
    struct value_index *order = calloc(count, sizeof *order);
    CHECK(order != NULL);
    for (size_t i = 0; i < count; i++) {
        struct slot *s = &n->slots[i];
        s->lo = s->op.inv;
        s->hi = s->op.res;
        if (i != 0 && s->op.seq == n->slots[i - 1].op.seq) {
            history_show("one", &n->slots[i - 1].op);
            history_show("other", &s->op);
            CHECK_FAIL_("two writes have one sequence number");
        }
        order[i] = (struct value_index){s->op.value, i};
    }
    qsort(order, count, sizeof *order, by_value);
    for (size_t i = 0; i < count; i++) {
        CHECK(i == 0 || order[i].value == 0 || order[i].value != order[i - 1].value);
        n->by_value[i] = order[i].slot;
    }
    free(order);
}

size_t lane_slot_of_value(const struct lane *n, uint64_t value)
{
    size_t lo = 0, hi = n->count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (n->slots[n->by_value[mid]].op.value < value) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < n->count && n->slots[n->by_value[lo]].op.value == value ? n->by_value[lo]
                                                                        : SIZE_MAX;
}

/* ---- gets --------------------------------------------------------------------------------------
 */

static void bound_by_read(struct lane *n, const struct history_op *r)
{
    size_t i = lane_slot_of_value(n, r->value);
    if (i == SIZE_MAX || n->slots[i].op.seq != r->seq) {
        history_show("read", r);
        if (i != SIZE_MAX) {
            history_show("write of the value", &n->slots[i].op);
        }
        CHECK_FAIL_("a read saw what nobody wrote, or under another sequence number");
    }
    if (n->slots[i].hi > r->res) {
        n->slots[i].hi = r->res;
    }
    if (i + 1 < n->count && n->slots[i + 1].lo < r->inv) {
        n->slots[i + 1].lo = r->inv;
    }
}

/* Lower bounds rise along the order, upper bounds fall against it; each write needs room. */
static void spread_bounds(struct lane *n)
{
    for (size_t i = 1; i < n->count; i++) {
        if (n->slots[i].lo < n->slots[i - 1].lo) {
            n->slots[i].lo = n->slots[i - 1].lo;
        }
    }
    for (size_t i = n->count - 1; i-- > 1;) {
        if (n->slots[i].hi > n->slots[i + 1].hi) {
            n->slots[i].hi = n->slots[i + 1].hi;
        }
    }
    for (size_t i = 1; i < n->count; i++) {
        if (n->slots[i].lo <= n->slots[i].hi) {
            continue;
        }
        size_t from = i > 6 ? i - 6 : 0;
        for (size_t k = from; k < n->count && k < i + 6; k++) {
            history_show(k == i ? "*write" : " write", &n->slots[k].op);
        }
        CHECK_FAIL_("not linearizable: write %zu of its key took effect at or after %" PRIu64
                    " and at or before %" PRIu64,
                    i, n->slots[i].lo, n->slots[i].hi);
    }
}

/* The last write that may have taken effect by `time`. */
static size_t last_begun(const struct lane *n, uint64_t time)
{
    size_t lo = 0, hi = n->count - 1;
    while (lo < hi) {
        size_t mid = lo + (hi - lo + 1) / 2;
        if (n->slots[mid].lo <= time) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    return lo;
}

static void check_absent(const struct lane *n, const struct history_op *r)
{
    for (size_t i = last_begun(n, r->res) + 1; i-- > 0;) {
        if (n->slots[i].op.value == 0) {
            return;
        }
        if (n->slots[i].hi < r->inv) {
            break; /* it had taken effect before the read began */
        }
    }
    history_show("read", r);
    size_t end = last_begun(n, r->res);
    for (size_t i = end > 8 ? end - 8 : 0; i <= end; i++) {
        history_show("write", &n->slots[i].op);
    }
    CHECK_FAIL_("not linearizable: a read found nothing although a value was there all the time");
}

static void check_gets(struct judge *j, struct history_summary *sum)
{
    for (int absent = 0; absent < 2; absent++) {
        for (unsigned t = 0; t < j->h->threads; t++) {
            const struct history_log *l = &j->h->logs[t];
            for (size_t i = 0; i < l->count; i++) {
                const struct history_op *o = &l->ops[i];
                if (o->is_write != 0) {
                    sum->writes += absent == 0;
                } else if (absent != 0 && o->value == 0) {
                    check_absent(&j->lanes[o->key], o);
                    sum->reads++;
                } else if (absent == 0 && o->value != 0) {
                    bound_by_read(&j->lanes[o->key], o);
                    sum->reads++;
                }
            }
        }
        for (uint32_t k = 0; k < j->h->keys && absent == 0; k++) {
            spread_bounds(&j->lanes[k]);
        }
    }
}

/* ---- cuts --------------------------------------------------------------------------------------
 */

/* Commit numbers under which each key seen so far has its value: [lo, hi). */
struct range {
    uint64_t lo, hi;
};

size_t lane_last_committed(const struct lane *n, uint64_t number)
{
    size_t lo = 0, hi = n->count - 1;
    while (lo < hi) {
        size_t mid = lo + (hi - lo + 1) / 2;
        if (n->slots[mid].op.commit <= number) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    return lo;
}

static uint64_t commit_end(const struct lane *n, size_t slot)
{
    return slot + 1 < n->count ? n->slots[slot + 1].op.commit : UINT64_MAX;
}

/* Every write that returned before the cut is in it, none that began after it is. Writes that are
 * linearized in commit order need be looked at only near the cut, but all are: it is a test. */
static void bound_by_time(const struct judge *j, const struct history_cut *c, struct range *r)
{
    for (uint32_t k = 0; k < j->h->keys; k++) {
        const struct lane *n = &j->lanes[k];
        /* hi falls against the order, lo rises along it, so both ends are found by halving. */
        size_t lo = 0, hi = n->count;
        while (lo < hi) { /* first write that need not have taken effect when the cut began */
            size_t mid = lo + (hi - lo) / 2;
            if (n->slots[mid].hi < c->inv) {
                lo = mid + 1;
            } else {
                hi = mid;
            }
        }
        if (lo > 0 && n->slots[lo - 1].op.commit > r->lo) {
            r->lo = n->slots[lo - 1].op.commit;
        }
        size_t last = last_begun(n, c->res);
        if (commit_end(n, last) < r->hi) {
            r->hi = commit_end(n, last);
        }
    }
}

static void fail_cut(const struct judge *j, const struct history_cut *c, const uint64_t *seen,
                     uint32_t key, const char *why)
{
    fprintf(stderr, "cut [%" PRIu64 ", %" PRIu64 "] seq %" PRIu64 ":\n", c->inv, c->res, c->seq);
    for (uint32_t k = 0; k < j->h->keys; k++) {
        size_t i = seen[k] != 0 ? lane_slot_of_value(&j->lanes[k], seen[k]) : SIZE_MAX;
        fprintf(stderr, "  key %" PRIu32 " saw %#" PRIx64, k, seen[k]);
        if (i != SIZE_MAX) {
            fprintf(stderr, " of commits [%" PRIu64 ", %" PRIu64 ")",
                    j->lanes[k].slots[i].op.commit, commit_end(&j->lanes[k], i));
        }
        if (c->seq != UINT64_MAX) {
            size_t want = lane_last_committed(&j->lanes[k], c->seq);
            fprintf(stderr, ", the snapshot has %#" PRIx64, j->lanes[k].slots[want].op.value);
        }
        fputc('\n', stderr);
    }
    CHECK_FAIL_("not one state: key %" PRIu32 ": %s", key, why);
}

/* A key without value: the range must touch the stay of some delete. Tells whether it does. */
static bool meets_absence(const struct lane *n, struct range r)
{
    for (size_t i = lane_last_committed(n, r.hi - 1) + 1; i-- > 0;) {
        if (n->slots[i].op.value == 0) {
            return true;
        }
        if (n->slots[i].op.commit <= r.lo) {
            return false;
        }
    }
    return false;
}

static void check_cut(const struct judge *j, const struct history_cut *c, const uint64_t *seen)
{
    struct range r = {0, UINT64_MAX};
    bound_by_time(j, c, &r);
    if (r.lo >= r.hi) {
        fail_cut(j, c, seen, 0,
                 "writes that returned before it and writes that began after it "
                 "leave no commit number");
    }
    if (c->seq != UINT64_MAX) {
        if (c->seq < r.lo || c->seq >= r.hi) {
            fail_cut(j, c, seen, 0, "the snapshot's number is behind or ahead of its time");
        }
        for (uint32_t k = 0; k < j->h->keys; k++) {
            const struct lane *n = &j->lanes[k];
            if (n->slots[lane_last_committed(n, c->seq)].op.value != seen[k]) {
                fail_cut(j, c, seen, k, "not the newest value under the snapshot's number");
            }
        }
        return;
    }
    for (uint32_t k = 0; k < j->h->keys; k++) {
        if (seen[k] == 0) {
            continue;
        }
        const struct lane *n = &j->lanes[k];
        size_t i = lane_slot_of_value(n, seen[k]);
        if (i == SIZE_MAX) {
            fail_cut(j, c, seen, k, "nobody wrote this");
        }
        r.lo = n->slots[i].op.commit > r.lo ? n->slots[i].op.commit : r.lo;
        r.hi = commit_end(n, i) < r.hi ? commit_end(n, i) : r.hi;
        if (r.lo >= r.hi) {
            fail_cut(j, c, seen, k, "no commit number is left");
        }
    }
    for (uint32_t k = 0; k < j->h->keys; k++) {
        if (seen[k] == 0 && !meets_absence(&j->lanes[k], r)) {
            fail_cut(j, c, seen, k, "it had a value under every commit number that is left");
        }
    }
}

void judge_init(struct judge *j, const struct history *h)
{
    *j = (struct judge){h, calloc(h->keys, sizeof(struct lane))};
    CHECK(j->lanes != NULL);
    for (uint32_t k = 0; k < h->keys; k++) {
        fill_lane(j, k);
    }
}

void judge_free(struct judge *j)
{
    for (uint32_t k = 0; k < j->h->keys; k++) {
        free(j->lanes[k].slots);
        free(j->lanes[k].by_value);
    }
    free(j->lanes);
}

void judge_life(struct judge *j, struct history_summary *sum)
{
    check_gets(j, sum);
    for (unsigned t = 0; t < j->h->threads; t++) {
        const struct history_log *l = &j->h->logs[t];
        for (size_t i = 0; i < l->cut_count; i++) {
            check_cut(j, &l->cuts[i], l->seen + l->cuts[i].first);
            sum->cuts++;
        }
    }
}

void history_check(const struct history *h, struct history_summary *sum)
{
    struct judge j;
    judge_init(&j, h);
    judge_life(&j, sum);
    judge_free(&j);
}
