/* ring_support.h - Entries and a disk for the tests of the ring.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TESTS_ARENA_RING_SUPPORT_H_
#define LOAM_TESTS_ARENA_RING_SUPPORT_H_

#include <string.h>

#include "arena/epoch.h"
#include "arena/ring.h"
#include "arena/status.h"
#include "tests/support/check.h"

static inline void start(struct ring *r, size_t unit, size_t units)
{
    struct ring_options o = {.alloc = alloc_global(), .unit = unit, .bytes = unit * units};
    CHECK_EQ(ring_init(r, &o), LOAM_OK);
}

static inline uint64_t stage(struct ring *r, size_t size, uint64_t owner, uint64_t cookie)
{
    uint64_t addr = 0;
    CHECK_EQ(ring_reserve(r, RING_DIRTY, size, owner, cookie, &addr), LOAM_OK);
    memset(ring_data(r, addr), (int)(cookie & 255), size);
    ring_publish(r, addr);
    return addr;
}

static inline uint64_t fill(struct ring *r, size_t size, uint64_t owner, uint64_t cookie, bool hot)
{
    uint64_t addr = 0;
    CHECK_EQ(ring_reserve(r, RING_FILL, size, owner, cookie, &addr), LOAM_OK);
    memset(ring_data(r, addr), (int)(cookie & 255), size);
    ring_publish_clean(r, addr, hot);
    return addr;
}

static inline bool readable(struct ring *r, uint64_t addr)
{
    size_t size = 0;
    epoch_enter();
    bool yes = ring_read(r, addr, false, &size) != NULL;
    epoch_exit();
    return yes;
}

/* A disk that fails on demand. */
struct disk {
    int fail;                  /* code of the next writes, 0: good */
    enum ring_outcome outcome; /* of good writes, and of failed ones */
    uint64_t calls, cookie_sum, last_addr;
    bool rising;
};

static inline int disk_write(void *arg, const struct ring_claim *c, enum ring_outcome *outcome)
{
    struct disk *d = arg;
    const unsigned char *p = c->data;
    for (size_t i = 0; i < c->size; i++) {
        CHECK_EQ(p[i], c->cookie & 255);
    }
    d->calls++;
    *outcome = d->outcome;
    if (d->fail != 0) {
        return FAIL(d->fail, "made to fail");
    }
    d->cookie_sum += c->cookie;
    d->rising = d->last_addr < c->addr;
    d->last_addr = c->addr;
    return LOAM_OK;
}

#endif
