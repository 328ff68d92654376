/* write_controller.h - Holds writers back smoothly, by bytes of work the background still owes.
 * SPDX-License-Identifier: Apache-2.0
 *
 *   pressure 0 ........ soft ............ hard
 *   open     | paced: each KiB has a price, | stopped: waits until a
 *            | which rises with pressure    | memtable has been flushed
 *
 * The price is paid to a clock that all writers share: a write is due when the clock, advanced by
 * everything admitted before it, says so. No write is held longer than max_pause by pacing.
 */
#ifndef LOAM_ENGINE_WRITE_CONTROLLER_H_
#define LOAM_ENGINE_WRITE_CONTROLLER_H_

#include "arena/sync.h"
#include "engine/loam.h"

struct write_controller {
    uint64_t max_pause_us; /* constant */
    _Alignas(CACHE_LINE) _Atomic uint32_t state; /* WRITES_*; 0: the common case */
    _Atomic uint64_t ns_per_mib;                 /* price when paced */
    _Atomic uint64_t due_ns;                     /* the shared clock */
};

#define WRITES_PACED 1u
#define WRITES_REFUSED 2u

void write_controller_init(struct write_controller *c, uint64_t max_pause_us);
static inline uint32_t write_controller_state(const struct write_controller *c)
{
    return atom_load(&c->state, acquire); /* acquire: pairs with the setters; the reason is set */
}
/* bytes_per_s 0: open; else the speed at which all writers together may go. */
void write_controller_pace(struct write_controller *c, uint64_t bytes_per_s);
void write_controller_refuse(struct write_controller *c, bool refuse);
/* How long, in microseconds, a write of this many bytes must wait; it is charged at once. */
uint64_t write_controller_charge(struct write_controller *c, uint64_t bytes);
/* Takes a charge back: the write was not made. */
void write_controller_refund(struct write_controller *c, uint64_t bytes);

#endif
