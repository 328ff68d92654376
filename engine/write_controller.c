/* write_controller.c - The shared clock that paces writers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/write_controller.h"

#include "arena/poison.h"

#define BURST_NS 1000000u /* credit an idle clock may build up */

void write_controller_init(struct write_controller *c, uint64_t max_pause_us)
{
    c->max_pause_us = max_pause_us;
    atomic_init(&c->state, 0);
    atomic_init(&c->ns_per_mib, 0);
    atomic_init(&c->due_ns, 0);
}

void write_controller_pace(struct write_controller *c, uint64_t bytes_per_s)
{
    /* release, here and below: pairs with write_controller_state(). */
    if (bytes_per_s == 0) {
        atom_and(&c->state, ~WRITES_PACED, release);
        return;
    }
    /* relaxed: a stale price is a matter of microseconds. */
    atom_store(&c->ns_per_mib, ((uint64_t)1000000000 << 20) / bytes_per_s, relaxed);
    atom_or(&c->state, WRITES_PACED, release);
}

void write_controller_refuse(struct write_controller *c, bool refuse)
{
    if (refuse) {
        atom_or(&c->state, WRITES_REFUSED, release); /* pairs as above: the reason is set */
    } else {
        atom_and(&c->state, ~WRITES_REFUSED, release); /* as above */
    }
}

static uint64_t price_ns(const struct write_controller *c, uint64_t bytes)
{
    double p = (double)bytes * (double)atom_load(&c->ns_per_mib, relaxed) / (1 << 20);
    return (uint64_t)p; /* at most 1 GiB at a few seconds a MiB: far from overflow */
}

uint64_t write_controller_charge(struct write_controller *c, uint64_t bytes)
{
    uint64_t price = price_ns(c, bytes);
    uint64_t now = clock_nanos();
    uint64_t due = atom_load(&c->due_ns, relaxed); /* relaxed: only the number matters */
    uint64_t start;
    do {
        start = due + BURST_NS > now ? due : now - BURST_NS;
        /* The clock never runs ahead further than one pause: debt beyond it is forgiven, and the
         * memtable limit is what holds then. */
        uint64_t limit = now + c->max_pause_us * 1000;
        if (start > limit) {
            start = limit;
        }
    } while (!atom_cas(&c->due_ns, &due, start + price, relaxed, relaxed));
    if (start <= now) {
        return 0;
    }
    uint64_t wait = (start - now) / 1000;
    return wait < c->max_pause_us ? wait : c->max_pause_us;
}

void write_controller_refund(struct write_controller *c, uint64_t bytes)
{
    atom_sub(&c->due_ns, price_ns(c, bytes), relaxed);
}
