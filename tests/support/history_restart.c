/* history_restart.c - What one life of a store leaves to the next: the state under one number of its order.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdbool.h>

#include "tests/support/check.h"
#include "tests/support/history_judge.h"

struct meeting {
    const struct judge *j;
    const struct history_end *end;
    const struct history_version *found;
    uint64_t floor, ceiling; /* the number is at least the one, and below the other */
    struct history_promise by_time, by_number; /* of the floor: those that say most; 0: none */
};

/* ---- what must be there, and what cannot ------------------------------------------------------- */

/* The promises that were kept before the end. */
static void gather_promises(struct meeting *m)
{
    if (!m->end->promised_only) {
        m->by_time.inv = m->by_time.res = m->end->inv;
    }
    for (unsigned t = 0; t < m->j->h->threads; t++) {
        const struct history_log *l = &m->j->h->logs[t];
        for (size_t i = 0; i < l->promise_count; i++) {
            const struct history_promise *p = &l->promises[i];
            if (p->res >= m->end->inv) {
                continue;
            }
            m->by_time = p->inv > m->by_time.inv ? *p : m->by_time;
            m->by_number = p->number > m->by_number.number ? *p : m->by_number;
        }
    }
}

static void find_bounds(struct meeting *m)
{
    gather_promises(m);
    m->floor = m->j->h->base;
    m->ceiling = UINT64_MAX;
    for (unsigned t = 0; t < m->j->h->threads; t++) {
        const struct history_log *l = &m->j->h->logs[t];
        for (size_t i = 0; i < l->count; i++) {
            const struct history_op *o = &l->ops[i];
            if (o->is_write == 0) {
                continue;
            }
            if ((o->res < m->by_time.inv || o->commit <= m->by_number.number) &&
                o->commit > m->floor) {
                m->floor = o->commit;
            }
            if (o->inv > m->end->res && o->commit < m->ceiling) {
                m->ceiling = o->commit;
            }
        }
    }
}

/* ---- the number -------------------------------------------------------------------------------- */

static void show_promise(const char *what, const struct history_promise *p)
{
    fprintf(stderr, "  promised %s: number %" PRIu64 " [%" PRIu64 ", %" PRIu64 "]\n", what,
            p->number, p->inv, p->res);
}

static void fail_meeting(const struct meeting *m, const char *why)
{
    fprintf(stderr, "the life ended [%" PRIu64 ", %" PRIu64 "], %s\n", m->end->inv, m->end->res,
            m->end->promised_only ? "by a power cut" : "closed or killed");
    show_promise("what had returned when it began", &m->by_time);
    show_promise("up to its number", &m->by_number);
    fprintf(stderr, "  the life began under number %" PRIu64 "\n", m->j->h->base);
    for (uint32_t k = 0; k < m->j->h->keys; k++) {
        const struct lane *n = &m->j->lanes[k];
        uint64_t value = m->found[k].value;
        fprintf(stderr, "  key %" PRIu32 " found %#" PRIx64 " seq %" PRIu64 "\n", k, value,
                m->found[k].seq);
        size_t i = value != 0 ? lane_slot_of_value(n, value) : SIZE_MAX;
        if (i != SIZE_MAX) {
            history_show("which is", &n->slots[i].op);
        }
        i = lane_last_committed(n, m->floor);
        for (size_t end = i + 4; i < n->count && i < end; i++) {
            history_show("from the floor on", &n->slots[i].op);
        }
    }
    CHECK_FAIL_("a restart found no state of the order from number %" PRIu64 " to below %" PRIu64
                ": %s",
                m->floor, m->ceiling, why);
}

static bool is_state(const struct meeting *m, uint64_t number)
{
    for (uint32_t k = 0; k < m->j->h->keys; k++) {
        const struct lane *n = &m->j->lanes[k];
        const struct history_op *o = &n->slots[lane_last_committed(n, number)].op;
        if (o->value != m->found[k].value || (o->value != 0 && o->seq != m->found[k].seq)) {
            return false;
        }
    }
    return true;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* The lowest number from the floor to below the ceiling that has the state; only writes change it. */
static uint64_t find_number(const struct meeting *m)
{
    size_t count = 1, at = 0;
    for (uint32_t k = 0; k < m->j->h->keys; k++) {
        count += m->j->lanes[k].count;
    }
    uint64_t *numbers = calloc(count, sizeof *numbers);
    CHECK(numbers != NULL);
    numbers[at++] = m->floor;
    for (uint32_t k = 0; k < m->j->h->keys; k++) {
        const struct lane *n = &m->j->lanes[k];
        for (size_t i = lane_last_committed(n, m->floor) + 1; i < n->count; i++) {
            numbers[at++] = n->slots[i].op.commit;
        }
    }
    qsort(numbers, at, sizeof *numbers, by_number);
    for (size_t i = 0; i < at && numbers[i] < m->ceiling; i++) {
        if ((i == 0 || numbers[i] != numbers[i - 1]) && is_state(m, numbers[i])) {
            uint64_t number = numbers[i];
            free(numbers);
            return number;
        }
    }
    free(numbers);
    fail_meeting(m, m->floor < m->ceiling
                        ? "a write is missing, half a batch is there, or one that nobody made"
                        : "a write that was promised has a number above one that began later");
    return 0;
}

static uint64_t writes_above(const struct history *h, uint64_t number)
{
    uint64_t sum = 0;
    for (unsigned t = 0; t < h->threads; t++) {
        for (size_t i = 0; i < h->logs[t].count; i++) {
            sum += h->logs[t].ops[i].is_write != 0 && h->logs[t].ops[i].commit > number;
        }
    }
    return sum;
}

void history_restart(struct history *h, const struct history_end *end,
                     const struct history_version *found, struct history_summary *sum)
{
    struct judge j;
    judge_init(&j, h);
    judge_life(&j, sum);
    struct meeting m = {.j = &j, .end = end, .found = found};
    find_bounds(&m);
    h->base = find_number(&m);
    sum->lost += writes_above(h, h->base);
    for (uint32_t k = 0; k < h->keys; k++) {
        const struct lane *n = &j.lanes[k];
        const struct history_op *o = &n->slots[lane_last_committed(n, h->base)].op;
        h->start[k] = o->value != 0 ? (struct history_version){o->value, o->seq, o->commit}
                                    : (struct history_version){0, 0, 0};
    }
    judge_free(&j);
    history_forget(h);
}
