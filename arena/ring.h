/* ring.h - Circular buffer of entries: built in place, written in order, kept readable, reused.
 * SPDX-License-Identifier: Apache-2.0
 *
 *        head          evict            claim                     tail
 *   free  | evicted,     | CLEAN: written | CLEAN, WRITING, READY,  |  free
 *         | still read   | or filled      | RESERVED, FILLING       |
 *   ------+--------------+----------------+-------------------------+------> addresses
 *
 * The buffer is an array of units. Each entry is a run of units that does not wrap; one descriptor
 * per unit (that of an entry's first unit counts) lives outside the buffer, so user bytes can never
 * forge it. An address is lap:40 | unit index:24; laps start at 1, so 0 is never an address. The
 * address is a generational name: it is good exactly while the descriptor carries its lap and a
 * readable state, and it is never given out again. (One exception nobody can observe: the address
 * of a reservation that was discarded, never published, may serve one more fill.)
 *
 * States of an entry                        [who]
 *   (free)    -> RESERVED, FILLING           ring_reserve
 *   RESERVED  -> READY | CLEAN | DISCARDED   ring_publish, ring_publish_clean, ring_discard
 *   FILLING   -> CLEAN | DISCARDED           ring_publish_clean, ring_discard
 *   READY     -> WRITING | EVICTED           ring_claim_next | ring_drop_owner
 *   WRITING   -> CLEAN | READY | EVICTED     ring_complete
 *   CLEAN     -> EVICTED                     the reclaimer
 *   DISCARDED -> FILLING | EVICTED           ring_reserve of a fill (hole reuse) | the reclaimer
 *   EVICTED, PAD -> (free)                   the reclaimer, after the epoch has passed
 * ring_may_step_() is this table; each step asserts it.
 *
 * Ordering guarantees
 *   Bytes written before ring_publish* are seen by whoever finds the entry readable. A thread
 *   inside an epoch section that found an entry readable may use its bytes until the section
 *   ends: units are reused only when the epoch of their eviction has passed.
 * Progress guarantees
 *   ring_read is wait-free and writes nothing unless it sets the reference bit. reserve, publish,
 *   discard, pin, claim and complete are lock-free and never wait. One thread at a time is the
 *   reclaimer; others do not wait for it, they see less free space meanwhile. Only
 *   ring_wait_space, ring_claim_wait and ring_drain wait, with a timeout, outside of sections.
 *   The head is stopped by RESERVED, FILLING, READY, WRITING and pinned entries. So a fill is
 *   reserved when its bytes are already in private memory, copied and published at once
 *   (microseconds), a pin is short, and a dirty reservation waits for nobody who could be waiting
 *   for room.
 */
#ifndef LOAM_ARENA_RING_H_
#define LOAM_ARENA_RING_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arena/alloc.h"
#include "arena/atomic.h"

#define RING_INDEX_BITS 24
#define RING_UNITS_MAX  ((uint64_t)1 << RING_INDEX_BITS)
#define RING_LAP_MAX    (((uint64_t)1 << 40) - 1)
#define RING_READABLE   ((uint64_t)8 << 20) /* set in the states whose bytes may be read */
#define RING_REF        ((uint64_t)1 << 19) /* read since it was published or moved */
#define RING_COPIED     ((uint64_t)1 << 18) /* had a second chance */
#define RING_PINS       (RING_COPIED - 1)   /* readable: pins; reserved: thread number + 1 */
#define RING_STAMPS     16u
#define RING_HOLES      16u

enum ring_state {
    RING_FREE = 0,
    RING_PAD = 1,      /* units nobody uses: the rest before the physical end, or after a shrink */
    RING_RESERVED = 2, /* being built, will be dirty */
    RING_FILLING = 3,  /* being built, will be clean */
    RING_DISCARDED = 4,
    RING_EVICTED = 5,
    RING_READY = 8, /* dirty */
    RING_WRITING = 9,
    RING_CLEAN = 10,
    RING_STATE_COUNT = 11
};

struct ring_desc {
    _Atomic uint64_t word;  /* lap:40 | state:4 | reference:1 | copied:1 | pins:18 */
    _Atomic uint32_t units; /* changes once at most, by ring_shrink */
    uint32_t size;          /* bytes; constant while readable, as are the next two */
    uint64_t owner;
    uint64_t cookie;
};

/* The owner of an entry is told that it moved: swaps its record of the address, old to new. Called
 * by the reclaimer, which may be a reader in a section: must not wait nor touch the ring. new_addr
 * 0 only asks, before anything is copied, whether the owner still knows old_addr.
 * Returns: false when it does not; then the entry dies. */
typedef bool ring_relocate_fn(void *arg, uint64_t owner, uint64_t cookie, uint64_t old_addr,
                              uint64_t new_addr);

struct ring_options {
    struct alloc *alloc;
    size_t unit;   /* bytes, a power of two from 8 to 1 MiB */
    size_t bytes;  /* a multiple of unit, at most 2^24 units */
    size_t bytes_own; /* a multiple of unit: what the ring has all the time, the rest being lent to it
                       * by ring_lend(); 0: all of it */
    void *memory;  /* NULL: mapped by the ring; else `bytes` of the caller's, aligned to
                    * min(unit, 4096), which stay the caller's. Cannot be lent. */
    bool in_order; /* claims stop at a RESERVED entry instead of going past it */
    uint32_t second_chance_percent; /* of reclaimed bytes that may be copied to the tail; <= 75. Fewer are while
                                     * copied entries are read no more than others */
    ring_relocate_fn *relocate;     /* NULL: no second chance */
    void *relocate_arg;
    uint64_t first_lap; /* 0 = 1; tests of the end of the address space start near it */
};

struct ring_stamp {
    uint64_t end;   /* units below are free once the epoch has passed `stamp` */
    uint64_t stamp; /* epoch */
};

/* Entries that came to the head, and how many of them had been read since they were published or moved. */
struct ring_passed {
    uint64_t entries, read;
};

struct ring {
    /* constant after init */
    struct ring_desc *desc;
    unsigned char *data;
    unsigned unit_shift;
    bool in_order;
    bool own_memory;
    uint32_t second_chance_percent;
    uint64_t units;      /* of the whole buffer */
    uint64_t own;        /* units it has all the time; the rest is lent to it */
    uint64_t ahead;      /* units kept free or evicted ahead of demand */
    uint64_t batch;      /* units evicted at a time */
    uint64_t stamp_size; /* units under one epoch stamp */
    size_t bytes;
    ring_relocate_fn *relocate;
    void *relocate_arg;
    struct alloc *alloc;
    size_t desc_bytes;
    _Atomic uint64_t limit; /* units of a lap in which entries are reserved: own, or more while lent */

    /* of the one thread that lends */
    uint64_t lent;        /* units whose memory is not back yet */
    uint64_t fence;       /* while it is taken back: no entry behind this address is in it; 0: not yet */
    uint64_t left_stamp;  /* of the epoch after which nobody reads there; 0: some entry is still there */
    uint64_t untouched;   /* address at which memory lent last begins; 0: the tail was past it, or it goes back */

    _Alignas(CACHE_LINE) _Atomic uint64_t tail; /* next address to reserve */
    _Alignas(CACHE_LINE) _Atomic uint64_t head; /* oldest address not yet free */
    _Atomic uint64_t evict;                     /* oldest address not yet evicted */
    _Atomic uint64_t low_mark; /* tail at which the reserve of free units is looked after again */
    _Alignas(CACHE_LINE) _Atomic uint64_t claim; /* nothing below can be or become dirty */
    _Alignas(CACHE_LINE) _Atomic uint32_t waiters;
    _Atomic uint32_t event; /* sleepers' word: moves on when an entry's state or the head did */
    _Atomic uint32_t held;  /* who has fills refused at the moment */
    _Atomic uint32_t hole_count; /* a hint */
    _Atomic uint64_t hole[RING_HOLES];

    /* the reclaimer's: written only by the thread that set `reclaiming` */
    _Alignas(CACHE_LINE) _Atomic uint32_t reclaiming;
    uint32_t stamp_first, stamp_count;
    struct ring_stamp stamp[RING_STAMPS];
    uint64_t stamped;   /* evicted addresses below have a stamp */
    uint64_t credit;    /* percent-units that may still be copied */
    struct ring_passed fresh, copied; /* of late: those that had no second chance yet, and those that had */
    bool even;          /* both are read alike: a second chance gains nothing */
    uint64_t next_poll; /* tail at which a passed epoch is looked for again */
    _Atomic uint64_t evicted_units, relocated_units, relocated_entries, pad_units;
    _Alignas(CACHE_LINE) _Atomic uint64_t holes_reused, reserve_full;
};

/* Returns: LOAM_OK, E_INVAL, E_NOMEM. */
int ring_init(struct ring *r, const struct ring_options *o);
/* Forgets what is still there; an all-zero ring is fine. REQUIRES: no other thread uses it. */
void ring_destroy(struct ring *r);

/* ---- building entries ------------------------------------------------------------------------ */

enum ring_kind {
    RING_DIRTY, /* in ring order; to be published, claimed and written */
    RING_FILL   /* a clean copy of what is on disk; may use a hole */
};

/* Room for `size` bytes. The entry belongs to the calling thread until it is published or discarded
 * by that thread. Reclaims without waiting; keeps a reserve of free units ahead.
 * Returns: LOAM_OK; LOAM_STOPPED: no room now (no error is recorded); E_TOOBIG: 0 or more than a
 * quarter of the ring (one unit always fits); E_INTERNAL: all addresses are used up. */
int ring_reserve(struct ring *r, enum ring_kind kind, size_t size, uint64_t owner, uint64_t cookie,
                 uint64_t *addr);
/* Largest size ring_reserve takes. */
size_t ring_entry_max(const struct ring *r);
/* Memory of an address, without any check. */
static inline void *ring_data(const struct ring *r, uint64_t addr)
{
    return r->data + ((addr & (RING_UNITS_MAX - 1)) << r->unit_shift);
}
/* REQUIRES for the next five: `addr` is reserved by the calling thread. */
void ring_set_owner(struct ring *r, uint64_t addr, uint64_t owner, uint64_t cookie);
/* Keeps the first `used` bytes, 1 to the reserved size; whole units behind them go back to the tail
 * when the entry is dirty and still the last, else they are lost until the head passes. */
void ring_shrink(struct ring *r, uint64_t addr, size_t used);
/* Dirty: READY, an evictor will take it. Not for fills. */
void ring_publish(struct ring *r, uint64_t addr);
/* CLEAN; hot: with the reference bit set. */
void ring_publish_clean(struct ring *r, uint64_t addr, bool hot);
void ring_discard(struct ring *r, uint64_t addr);

/* ---- reading --------------------------------------------------------------------------------- */

/* True when the entry's bytes may be read. */
static inline bool ring_word_readable(uint64_t word, uint64_t addr)
{
    return (word ^ addr) >> RING_INDEX_BITS == 0 && (word & RING_READABLE) != 0;
}

/* The entry's bytes, or NULL when the address is stale. touch: set the reference bit.
 * Threads:  any. REQUIRES: inside an epoch section; the bytes are lent until its end. */
static inline const void *ring_read(struct ring *r, uint64_t addr, bool touch, size_t *size)
{
    struct ring_desc *d = &r->desc[addr & (RING_UNITS_MAX - 1)];
    /* acquire: pairs with the publishing store; makes size and bytes visible. */
    uint64_t w = atom_load(&d->word, acquire);
    if (!ring_word_readable(w, addr)) {
        return NULL;
    }
    if (touch && (w & RING_REF) == 0) {
        /* relaxed: a hint. The descriptor is not reused before this section ends. */
        (void)atom_or(&d->word, RING_REF, relaxed);
    }
    *size = d->size;
    return ring_data(r, addr);
}
/* Whether the entry was evicted, as far as that is told without a look at its descriptor, which lies somewhere in
 * memory: for a cache that remembers the addresses of what it has lost. */
static inline bool ring_has_passed(const struct ring *r, uint64_t addr)
{
    /* relaxed: an old value says of fewer entries that they are gone, never of one that is not. */
    return addr < atom_load(&r->evict, relaxed);
}
/* Begins to bring an entry into the processor's cache; any address will do. */
static inline const void *ring_prefetch(const struct ring *r, uint64_t addr)
{
    const unsigned char *p = ring_data(r, addr);
    __builtin_prefetch(&r->desc[addr & (RING_UNITS_MAX - 1)]);
    __builtin_prefetch(p);
    __builtin_prefetch(p + CACHE_LINE);
    return p;
}
/* Like ring_read, but NULL as well when the entry is not the owner's own of that cookie; it is not
 * touched then. */
static inline const void *ring_read_owned(struct ring *r, uint64_t addr, uint64_t owner,
                                          uint64_t cookie, bool touch, size_t *size)
{
    const struct ring_desc *d = &r->desc[addr & (RING_UNITS_MAX - 1)];
    const void *p = ring_read(r, addr, false, size);
    /* Readable: owner and cookie are constant until this section ends. */
    if (p == NULL || d->owner != owner || d->cookie != cookie) {
        return NULL;
    }
    return touch ? ring_read(r, addr, true, size) : p;
}
/* True when `addr` names an entry that is readable or being built; for those who lost a race. */
bool ring_live(struct ring *r, uint64_t addr);
/* The state of the entry at this moment; RING_FREE: the address is stale. Any thread. */
enum ring_state ring_entry_state(struct ring *r, uint64_t addr);

/* Like ring_read, but the bytes are lent until ring_unpin, outside of sections too. Stops the head.
 * NULL: stale, or too many pins (2^18 - 1). Any thread. */
const void *ring_pin(struct ring *r, uint64_t addr, size_t *size);
void ring_unpin(struct ring *r, uint64_t addr);

/* ---- writing out ----------------------------------------------------------------------------- */

struct ring_claim {
    uint64_t addr;
    const void *data;
    size_t size; /* bytes */
    uint64_t owner, cookie;
};

enum ring_outcome {
    RING_KEEP, /* written: CLEAN, stays readable */
    RING_GONE, /* written, or not wanted any more: not readable from now on */
    RING_RETRY /* not written: READY again */
};

/* Takes the oldest READY entry; the caller alone completes it. Entries being written by others and
 * fills are passed over; RESERVED ones too unless the ring is in order.
 * Returns: LOAM_OK; LOAM_NOTFOUND: nothing is READY; LOAM_STOPPED: an older entry must become
 * READY first, or a reservation is this moment being entered. */
int ring_claim_next(struct ring *r, struct ring_claim *c);
/* Waits up to `micros` for an entry that ring_claim_next would give. Not inside a section.
 * Returns: as ring_claim_next (after the time is over), or E_MISUSE: what it would wait for is the
 * calling thread's own reservation. */
int ring_claim_wait(struct ring *r, struct ring_claim *c, uint64_t micros);
void ring_complete(struct ring *r, uint64_t addr, enum ring_outcome outcome);

/* Writes one claimed entry. No lock is held; other threads may evict other entries meanwhile.
 * *outcome is RING_KEEP at entry. Returns a code; when it is negative and *outcome still RING_KEEP,
 * the entry becomes READY again. */
typedef int ring_write_fn(void *arg, const struct ring_claim *c, enum ring_outcome *outcome);

struct ring_evicted {
    uint64_t entries;    /* completed as KEEP or GONE */
    uint64_t bytes;      /* their sizes */
    uint64_t head_bytes; /* by which the head moved during the call, whoever moved it */
};
/* `out` may be NULL. Returns: as ring_claim_next, or the code of fn when negative. */
int ring_evict_one(struct ring *r, ring_write_fn *fn, void *arg, struct ring_evicted *out);
/* Until `bytes` were written, nothing is claimable (the code of ring_claim_next) or fn failed. */
int ring_evict_n(struct ring *r, size_t bytes, ring_write_fn *fn, void *arg,
                 struct ring_evicted *out);
/* Until nothing reserved before the call is dirty or can become so. Not inside a section.
 * Returns: LOAM_OK; the first negative code of fn (the rest stays dirty); LOAM_STOPPED: timeout;
 * E_MISUSE: what it would wait for is the calling thread's own reservation. */
int ring_drain(struct ring *r, ring_write_fn *fn, void *arg, uint64_t micros,
               struct ring_evicted *out);
/* Drops the READY entries of an owner unwritten; returns how many. Entries of it that are being
 * written are left to their writers. REQUIRES: the owner reserves nothing meanwhile. Not inside a
 * section: waits (nanoseconds, normally) for reservations being entered this moment. */
uint64_t ring_drop_owner(struct ring *r, uint64_t owner);

/* ---- room ------------------------------------------------------------------------------------ */

/* Frees what has passed and evicts clean entries until `size` bytes fit. Never waits; any thread,
 * also inside a section. True: the next ring_reserve of that size fits if nobody comes first. */
bool ring_reclaim(struct ring *r, size_t size);
/* Waits for ring_reclaim to succeed. Not inside a section.
 * Returns: LOAM_OK; LOAM_STOPPED: timeout; E_TOOBIG; E_MISUSE: the oldest entry in the way is the
 * calling thread's own reservation. */
int ring_wait_space(struct ring *r, size_t size, uint64_t micros);
/* Between hold and release new fills are refused, so that readers who miss all the time do not take
 * each unit that comes free from under a thread that needs a run of them. Counted; any thread.
 * ring_wait_space holds them while it waits; who tries again and again holds them all the time. */
void ring_hold_fills(struct ring *r);
void ring_release_fills(struct ring *r);

/* ---- lent memory (ring_lent.c) ------------------------------------------------------------------
 * One thread at a time; others use the ring meanwhile. */

/* Entries may take up to `bytes` of the buffer from now on, as far as that is more than they may now. The
 * memory is charged to the ring. REQUIRES: nothing is being taken back. */
void ring_lend(struct ring *r, size_t bytes);
/* The tail comes to what was lent only once it has passed, and entries have lost, the rest of what there was
 * before. This takes it there without a loss: entries that can be read, read or not, move from the head to the
 * tail, some `bytes` of them in one call and no more than there is room for; never waits.
 * Returns: true when the tail is there, or nothing was lent. */
bool ring_reach_lent(struct ring *r, size_t bytes);
/* Takes one more step towards giving back what was lent beyond `bytes` in all, or none; never waits. Clean
 * entries there are lost, dirty and pinned ones are waited for. A walk over all entries at most. How far it
 * goes is settled once it has begun: `bytes` counts again when it has returned true.
 * Returns: true when no more than that is lent, or nothing, and the memory is the system's again. */
bool ring_take_back(struct ring *r, size_t bytes);
/* Bytes that entries may take at this moment. Any thread. */
static inline size_t ring_capacity(const struct ring *r)
{
    return (size_t)(atom_load(&r->limit, relaxed) << r->unit_shift); /* relaxed: a moment's answer */
}

/* ---- looking --------------------------------------------------------------------------------- */

/* Bytes of READY and WRITING entries, whole units. Any thread; O(entries behind the oldest). */
uint64_t ring_dirty_bytes(struct ring *r);
/* At least ring_dirty_bytes(), in O(1): from the oldest entry that was dirty at the last claim to
 * the tail. For pacing: a claim brings it down. */
uint64_t ring_unsettled_bytes(struct ring *r);
/* Bytes that new entries can take before one that can be read has to go. Any thread. */
uint64_t ring_spare_bytes(struct ring *r);

struct ring_metrics {
    uint64_t capacity_bytes, free_bytes; /* free: could be reserved at once */
    uint64_t dirty_bytes;
    uint64_t evicted_bytes, relocated_bytes, relocated_entries, pad_bytes; /* since init; pads are not
                                                                              * evicted */
    uint64_t holes_reused, reserve_full; /* full: reservations refused for want of room */
    uint64_t head, evict, claim, tail;   /* addresses */
    uint64_t entries[RING_STATE_COUNT], bytes[RING_STATE_COUNT]; /* by state, from evict to tail */
};
/* Lock-free; the counts by state are of entries at slightly different moments. O(entries). */
void ring_metrics(struct ring *r, struct ring_metrics *m);

/* ---- shared by the ring's own files ---------------------------------------------------------- */

static inline uint64_t ring_index_(uint64_t addr)
{
    return addr & (RING_UNITS_MAX - 1);
}
static inline uint64_t ring_tag_(uint64_t addr)
{
    return addr & ~(RING_UNITS_MAX - 1);
}
static inline enum ring_state ring_state_(uint64_t word)
{
    return (enum ring_state)(word >> 20 & 15);
}
/* The table of states at the head. To FREE leads only the head, which passes whole runs. */
static inline bool ring_may_step_(enum ring_state from, enum ring_state to)
{
    static const uint16_t next[RING_STATE_COUNT] = {
        [RING_FREE] = 1 << RING_RESERVED | 1 << RING_FILLING | 1 << RING_PAD,
        [RING_RESERVED] = 1 << RING_READY | 1 << RING_CLEAN | 1 << RING_DISCARDED,
        [RING_FILLING] = 1 << RING_CLEAN | 1 << RING_DISCARDED,
        [RING_READY] = 1 << RING_WRITING | 1 << RING_EVICTED,
        [RING_WRITING] = 1 << RING_CLEAN | 1 << RING_READY | 1 << RING_EVICTED,
        [RING_CLEAN] = 1 << RING_EVICTED,
        [RING_DISCARDED] = 1 << RING_FILLING | 1 << RING_EVICTED,
    };
    return (next[from] >> to & 1) != 0;
}
static inline uint64_t ring_word_(uint64_t addr, enum ring_state s)
{
    return ring_tag_(addr) | (uint64_t)s << 20;
}
/* Units from `low` up to `high`; both are addresses, low <= high. */
static inline uint64_t ring_distance_(const struct ring *r, uint64_t high, uint64_t low)
{
    return ((high >> RING_INDEX_BITS) - (low >> RING_INDEX_BITS)) * r->units + ring_index_(high) -
           ring_index_(low);
}
/* The address `n` units on; REQUIRES: the run does not cross the physical end. */
static inline uint64_t ring_step_(const struct ring *r, uint64_t addr, uint64_t n)
{
    uint64_t i = ring_index_(addr) + n;
    return i < r->units ? addr + n : ring_tag_(addr) + RING_UNITS_MAX;
}
static inline uint64_t ring_units_(const struct ring *r, size_t size)
{
    return ((uint64_t)size + (((uint64_t)1 << r->unit_shift) - 1)) >> r->unit_shift;
}
static inline struct ring_desc *ring_desc_(const struct ring *r, uint64_t addr)
{
    return &r->desc[ring_index_(addr)];
}
/* The first `units` of an entry at the tail. LOAM_OK, LOAM_STOPPED: no room, E_INTERNAL. */
int ring_try_reserve_(struct ring *r, uint64_t units, enum ring_state state, size_t size,
                      uint64_t owner, uint64_t cookie, uint64_t *addr);
/* The reclaimer's role, which one thread at a time has. */
bool ring_reclaimer_enter_(struct ring *r);
void ring_reclaimer_leave_(struct ring *r);
/* What is copied to the tail before it becomes unreadable. */
enum ring_chance {
    RING_NO_CHANCE,
    RING_IF_READ, /* what was read since it was entered or moved, in a part of all */
    RING_IF_KNOWN /* all that its owner still knows */
};
/* Makes an entry unreadable. False: it is not entered yet, dirty, being built or pinned. REQUIRES: the
 * reclaimer's role. */
bool ring_evict_entry_(struct ring *r, uint64_t addr, struct ring_desc *d, enum ring_chance chance);
/* Moves the evict cursor on, and entries of up to `units` that it passes to the tail, as many as have room there. */
void ring_rotate_(struct ring *r, uint64_t units);
/* Tops up the reserve of free units, if no other thread is about it. */
void ring_reclaim_ahead_(struct ring *r);
/* Wakes sleepers, if any; called after each change of state that can free the head or the claim. */
void ring_notify_(struct ring *r);
/* A sleep: enter, check the condition again, leave with the time to sleep (0: it came true). */
uint32_t ring_wait_enter_(struct ring *r);
void ring_wait_leave_(struct ring *r, uint32_t event, uint64_t micros);
/* True when the word is that of the calling thread's own reservation. */
bool ring_mine_(uint64_t word);

#endif
