/* ring_model_test.c - Random operations on a ring against a model.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: a table of what is alive with its byte pattern; after each step every readable entry shows
 * its pattern, no two live entries share bytes, no address was seen before, and dirty entries are
 * claimed by rising address. LOAM_SEED repeats a run.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/random.h"
#include "tests/arena/ring_support.h"
#include "tests/support/seed.h"

enum { LIVE_MAX = 512 };

struct live {
    uint64_t addr;
    size_t size;
    uint64_t pattern;
    enum { RESERVED, FILLING, READY, WRITING, CLEAN } state;
    unsigned pins;
};

struct model {
    struct ring r;
    struct random random;
    struct live live[LIVE_MAX];
    unsigned count;
    uint64_t next_pattern, last_tail_addr, last_claim;
    unsigned pins;
    bool taking;
    unsigned taken; /* times that lent memory came back */
    size_t keep;    /* bytes that the ring is left at least the next time */
};

static void pattern_write(void *p, size_t size, uint64_t pattern)
{
    unsigned char *b = p;
    for (size_t i = 0; i < size; i++) {
        b[i] = (unsigned char)(pattern * 31 + i);
    }
}

static void pattern_check(const void *p, size_t size, uint64_t pattern)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < size; i++) {
        CHECK_EQ(b[i], (unsigned char)(pattern * 31 + i));
    }
}

static bool model_relocate(void *arg, uint64_t owner, uint64_t cookie, uint64_t from, uint64_t to)
{
    struct model *m = arg;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->live[i].addr == from) {
            CHECK(m->live[i].state == CLEAN && m->live[i].pattern == cookie && owner == 5);
            m->live[i].addr = to == 0 ? from : to;
            return cookie % 8 != 0;
        }
    }
    return false;
}

static void model_forget(struct model *m, unsigned i)
{
    m->live[i] = m->live[--m->count];
}

/* Every entry shows its bytes; a clean, unpinned one may be gone instead. */
static void model_verify(struct model *m)
{
    epoch_enter();
    for (unsigned i = 0; i < m->count; i++) {
        struct live *e = &m->live[i];
        size_t size = 0;
        const void *p = ring_read(&m->r, e->addr, random_below(&m->random, 4) == 0, &size);
        CHECK(p == NULL || !ring_has_passed(&m->r, e->addr));
        if (e->state == RESERVED || e->state == FILLING) {
            CHECK(p == NULL && ring_live(&m->r, e->addr) && !ring_has_passed(&m->r, e->addr));
            pattern_check(ring_data(&m->r, e->addr), e->size, e->pattern);
        } else if (p == NULL) {
            CHECK(e->state == CLEAN && e->pins == 0);
            model_forget(m, i--);
        } else {
            CHECK_EQ(size, e->size);
            pattern_check(p, size, e->pattern);
        }
    }
    epoch_exit();
    struct ring *r = &m->r;
    CHECK(r->head <= r->evict && r->evict <= r->tail);
    CHECK(ring_distance_(r, r->tail, r->head) <= r->units);
    CHECK(ring_spare_bytes(r) <= ring_capacity(r));
}

/* Takes lent memory back a step further, and scribbles over what has come back; or lends some more. */
static void model_lend(struct model *m)
{
    struct ring *r = &m->r;
    if (!m->taking && random_below(&m->random, 4) == 0) {
        ring_lend(r, (size_t)random_below(&m->random, r->bytes + 1));
    }
    if (!m->taking && random_below(&m->random, 4) == 0) {
        (void)ring_reach_lent(r, (size_t)random_below(&m->random, r->bytes / 4));
    }
    if (!m->taking && random_below(&m->random, 8) == 0) {
        m->taking = true;
        m->keep = random_below(&m->random, 2) != 0 ? (size_t)random_below(&m->random, r->bytes + 1) : 0;
    }
    uint64_t had = r->own + r->lent, kept = m->keep >> r->unit_shift;
    if (m->taking && ring_take_back(r, m->keep)) {
        m->taking = false;
        m->taken++;
        kept = kept < r->own ? r->own : kept > had ? had : kept;
        size_t left = (size_t)(kept << r->unit_shift);
        CHECK_EQ(ring_capacity(r), left);
        memset(r->data + left, 0xdd, r->bytes - left);
    }
    epoch_poll();
}

static void model_reserve(struct model *m)
{
    struct live e = {.state = random_below(&m->random, 2) == 0 ? RESERVED : FILLING,
                     .pattern = m->next_pattern++};
    e.size = 1 + (size_t)random_below(&m->random, ring_entry_max(&m->r));
    int rc = ring_reserve(&m->r, e.state == RESERVED ? RING_DIRTY : RING_FILL, e.size, 5, e.pattern,
                          &e.addr);
    CHECK(rc == LOAM_OK || rc == LOAM_STOPPED);
    if (rc == LOAM_OK) {
        for (unsigned i = 0; i < m->count; i++) {
            CHECK(m->live[i].addr != e.addr);
        }
        pattern_write(ring_data(&m->r, e.addr), e.size, e.pattern);
        m->live[m->count++] = e;
    }
}

static void model_claim(struct model *m)
{
    struct ring_claim c;
    uint64_t oldest = UINT64_MAX;
    unsigned at = 0;
    for (unsigned i = 0; i < m->count; i++) {
        if (m->live[i].state == READY && m->live[i].addr < oldest) {
            oldest = m->live[i].addr;
            at = i;
        }
    }
    int rc = ring_claim_next(&m->r, &c);
    CHECK_EQ(rc, oldest == UINT64_MAX ? LOAM_NOTFOUND : LOAM_OK);
    if (rc == LOAM_OK) {
        CHECK(c.addr == oldest && c.size == m->live[at].size && c.cookie == m->live[at].pattern);
        m->live[at].state = WRITING;
    }
}

static void model_change(struct model *m, unsigned i)
{
    struct live *e = &m->live[i];
    unsigned dice = (unsigned)random_below(&m->random, 8);
    size_t size = 0;
    if (e->state == RESERVED || e->state == FILLING) {
        if (dice < 2) {
            e->size = 1 + (size_t)random_below(&m->random, e->size);
            ring_shrink(&m->r, e->addr, e->size);
        } else if (dice == 2) {
            ring_discard(&m->r, e->addr);
            model_forget(m, i);
        } else if (e->state == RESERVED && dice < 7) {
            ring_publish(&m->r, e->addr);
            e->state = READY;
        } else {
            ring_publish_clean(&m->r, e->addr, dice % 2 == 0);
            e->state = CLEAN;
        }
    } else if (e->state == WRITING && dice < 6) {
        enum ring_outcome o = dice < 4 ? RING_KEEP : dice == 4 ? RING_RETRY : RING_GONE;
        o = o == RING_GONE && e->pins != 0 ? RING_KEEP : o;
        ring_complete(&m->r, e->addr, o);
        e->state = o == RING_KEEP ? CLEAN : READY;
        if (o == RING_GONE) {
            model_forget(m, i);
        }
    } else if (e->pins != 0) {
        ring_unpin(&m->r, e->addr);
        e->pins--;
        m->pins--;
    } else if (dice == 7 && m->pins < 2) {
        const void *p = ring_pin(&m->r, e->addr, &size);
        CHECK(p != NULL || e->state == CLEAN);
        if (p != NULL) {
            e->pins++;
            m->pins++;
        }
    }
}

Test(ring, random_operations_agree_with_the_model)
{
    uint64_t seed = seed_of_run();
    static struct model m;
    unsigned taken = 0;
    for (unsigned round = 0; round < 60; round++) {
        memset(&m, 0, sizeof m);
        random_init(&m.random, splitmix64(&seed));
        size_t units = 1 + (size_t)random_below(&m.random, round % 3 == 0 ? 8 : 200);
        struct ring_options o = {.alloc = alloc_global(),
                                 .unit = 8u << random_below(&m.random, 4),
                                 .second_chance_percent = (uint32_t)random_below(&m.random, 76),
                                 .relocate = model_relocate,
                                 .relocate_arg = &m};
        o.bytes = units * o.unit;
        o.bytes_own = round % 2 == 0 ? (1 + (size_t)random_below(&m.random, units)) * o.unit : 0;
        CHECK_EQ(ring_init(&m.r, &o), LOAM_OK);
        for (unsigned step = 0; step < 3000; step++) {
            uint64_t dice = random_below(&m.random, 10);
            if (dice < 3 && m.count < LIVE_MAX) {
                model_reserve(&m);
            } else if (dice < 5) {
                model_claim(&m);
            } else if (m.count != 0) {
                model_change(&m, (unsigned)random_below(&m.random, m.count));
            }
            if (step % 8 == 0) {
                model_lend(&m);
                model_verify(&m);
            }
        }
        taken += m.taken;
        ring_destroy(&m.r);
    }
    CHECK(taken > 100);
}
