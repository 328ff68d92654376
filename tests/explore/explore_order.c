/* explore_order.c - Atomic operations by the memory model of C11, orders taken as they are written.
 * SPDX-License-Identifier: Apache-2.0
 *
 * For each atomic object the last stores of the run are kept, in the order in which they were
 * performed, which is taken for their modification order. A load may return any of them that the
 * thread can have overlooked: not one older than a store that it, or a load before it in
 * happens-before, has seen; nor one older than a store that it must know by happens-before or a
 * seq_cst barrier. The newest one is always possible; older ones are tried in weak mode.
 * Read-modify-writes see the newest store.
 *
 *   release store        carries what its thread knows; an acquire load of it learns that, too
 *   read-modify-write    continues the release sequence of the store it replaces
 *   seq_cst              performed in one order: a load sees the last seq_cst store to the object,
 *                        and what was known to seq_cst barriers before it
 *   membarrier           a seq_cst barrier on every thread
 *
 * So a happens-before edge exists only where the source asks for it, and a plain access that
 * relies on another edge is a race (explore_plain.c), on any processor. Not explored: stores that
 * become visible before an earlier store of the same thread is performed to another object in
 * program order (load buffering), and modification orders other than that of performance.
 *
 * The memory itself always holds the newest value, for checks and for a reader in a debugger.
 */
#include "tests/explore/explore_core.h"

#include <string.h>
#include <sys/mman.h>

#include "arena/atomic.h"

#define OBJECTS (1u << 14) /* a power of two */
#define STORES  8u         /* kept for each object */

struct store {
    uint64_t value;
    /* When each thread first read it, or wrote it, by its own clock; 0: not yet. Who knows of that
     * moment reads nothing older. */
    uint32_t met[EXPLORE_THREADS];
    bool releases;
    struct view happened, seen; /* what an acquire load learns */
};

struct object {
    const volatile void *at;
    uint32_t run;
    uint32_t count;                  /* stores so far; store i is at i % STORES */
    uint32_t floor[EXPLORE_THREADS]; /* the oldest store each thread may still read */
    uint32_t sc_floor;               /* the last seq_cst store */
    struct store store[STORES];
};

static struct object *objects;

void order_open(void)
{
    objects = mmap(NULL, OBJECTS * sizeof *objects, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (objects == MAP_FAILED) {
        explore_fail("no memory for %u objects", OBJECTS);
    }
}

static bool acquires(memory_order o)
{
    return o == memory_order_acquire || o == memory_order_acq_rel || o == memory_order_seq_cst;
}

static bool releases(memory_order o)
{
    return o == memory_order_release || o == memory_order_acq_rel || o == memory_order_seq_cst;
}

static const char *order_name(memory_order o)
{
    switch (o) {
    case memory_order_relaxed:
        return "relaxed";
    case memory_order_acquire:
        return "acquire";
    case memory_order_release:
        return "release";
    case memory_order_acq_rel:
        return "acq_rel";
    default:
        return "seq_cst";
    }
}

static void join(struct view *to, const struct view *from)
{
    for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
        to->of[i] = to->of[i] > from->of[i] ? to->of[i] : from->of[i];
    }
}

bool view_has(const struct view *v, unsigned thread, uint32_t clock)
{
    return v->of[thread] >= clock;
}

static uint64_t get(const volatile void *p, size_t n)
{
    uint64_t v = 0;
    memcpy(&v, (const void *)(uintptr_t)p, n);
    return v;
}

static void put(volatile void *p, size_t n, uint64_t v)
{
    memcpy((void *)(uintptr_t)p, &v, n);
}

static struct store *newest(struct object *o)
{
    return &o->store[(o->count - 1) % STORES];
}

/* The object at an address; its history begins anew when the memory was written around it. */
static struct object *object_at(const volatile void *p, size_t n)
{
    uint64_t value = n != 0 ? get(p, n) : 0;
    uint64_t h = (uintptr_t)p * 0x9e3779b97f4a7c15u >> 40;
    for (unsigned probes = 0; probes < OBJECTS; probes++, h++) {
        struct object *o = &objects[h % OBJECTS];
        if (o->run == X->run && o->at != p) {
            continue;
        }
        if (o->run != X->run || (n != 0 && newest(o)->value != value)) {
            memset(o, 0, offsetof(struct object, store));
            o->at = p;
            o->run = X->run;
            o->count = 1;
            o->store[0] = (struct store){.value = value};
        }
        return o;
    }
    explore_fail("more than %u atomic objects", OBJECTS);
}

static void add_store(struct object *o, uint64_t value, memory_order order, bool modifies)
{
    struct fiber *f = self();
    struct store s = {.value = value};
    s.met[X->current] = f->clock;
    if (releases(order)) {
        s.releases = true;
        s.happened = f->happened;
        s.seen = f->seen;
    }
    if (modifies && newest(o)->releases) {
        s.releases = true;
        join(&s.happened, &newest(o)->happened);
        join(&s.seen, &newest(o)->seen);
    }
    if (order == memory_order_seq_cst) {
        o->sc_floor = o->count;
        X->barrier.of[X->current] = f->clock;
    }
    o->floor[X->current] = o->count;
    o->store[o->count++ % STORES] = s;
    if (releases(order)) { /* what follows is not carried by this store */
        f->clock++;
        f->happened.of[X->current] = f->seen.of[X->current] = f->clock;
    }
    wrote();
}

/* The calling thread has read the store. */
static void meet(struct store *s)
{
    if (s->met[X->current] == 0) {
        s->met[X->current] = self()->clock;
    }
}

static void learn(const struct store *s, memory_order order)
{
    if (acquires(order) && s->releases) {
        join(&self()->happened, &s->happened);
        join(&self()->seen, &s->seen);
    }
}

static bool knows(const struct view *v, const struct store *s)
{
    for (unsigned i = 0; i < EXPLORE_THREADS; i++) {
        if (s->met[i] != 0 && s->met[i] <= v->of[i]) {
            return true;
        }
    }
    return false;
}

/* The oldest store that a load of this thread may return. */
static uint32_t oldest_readable(const struct object *o, memory_order order)
{
    const struct fiber *f = self();
    uint32_t low = o->count > STORES ? o->count - STORES : 0;
    low = o->floor[X->current] > low ? o->floor[X->current] : low;
    bool sc = order == memory_order_seq_cst;
    low = sc && o->sc_floor > low ? o->sc_floor : low;
    for (uint32_t i = o->count - 1; i > low; i--) {
        const struct store *s = &o->store[i % STORES];
        if (knows(&f->seen, s) || (sc && knows(&X->barrier, s))) {
            return i;
        }
    }
    return low;
}

/* The store that a load returns: the chooser's, in weak mode. */
static struct store *pick(struct object *o, memory_order order)
{
    uint32_t at = o->count - 1;
    if (X->weak) {
        uint32_t low = oldest_readable(o, order);
        if (low != at) {
            unsigned age = X->chooser->age(at - low + 1);
            if (X->log_length < STEPS_MAX) {
                X->log[X->log_length++] = (unsigned char)(0x80 | age);
            }
            at -= age;
        }
    }
    o->floor[X->current] = at > o->floor[X->current] ? at : o->floor[X->current];
    meet(&o->store[at % STORES]);
    return &o->store[at % STORES];
}

void mc_load(const volatile void *p, size_t n, void *v, memory_order order, const char *where)
{
    if (X->phase == PHASE_QUIET) {
        memcpy(v, (const void *)(uintptr_t)p, n);
        return;
    }
    point(OP_READ, p, "load", where);
    plain_access(p, n, ATOMIC_READ, where);
    struct object *o = object_at(p, n);
    const struct store *s = pick(o, order);
    learn(s, order);
    memcpy(v, &s->value, n);
    trace("%p load %s: %" PRIx64 "%s (%s)", (void *)(uintptr_t)p, order_name(order), s->value,
          s != newest(o) ? " (old)" : "", where);
}

void mc_store(volatile void *p, size_t n, const void *v, memory_order order, const char *where)
{
    if (X->phase == PHASE_QUIET) {
        memcpy((void *)(uintptr_t)p, v, n);
        return;
    }
    point(OP_WRITE, p, "store", where);
    plain_access(p, n, ATOMIC_WRITE, where);
    uint64_t value = get(v, n);
    add_store(object_at(p, n), value, order, false);
    put(p, n, value);
    trace("%p store %s: %" PRIx64 " (%s)", (void *)(uintptr_t)p, order_name(order), value, where);
}

static uint64_t modified(uint64_t old, enum mc_modify op, uint64_t v)
{
    switch (op) {
    case MC_ADD:
        return old + v;
    case MC_SUB:
        return old - v;
    case MC_OR:
        return old | v;
    case MC_AND:
        return old & v;
    default:
        return v;
    }
}

void mc_modify(volatile void *p, size_t n, enum mc_modify op, const void *v, void *old,
               memory_order order, const char *where)
{
    uint64_t operand = get(v, n);
    uint64_t mask = n == 8 ? UINT64_MAX : ((uint64_t)1 << 8 * n) - 1;
    if (X->phase == PHASE_QUIET) {
        uint64_t was = get(p, n);
        memcpy(old, &was, n);
        put(p, n, modified(was, op, operand) & mask);
        return;
    }
    point(OP_WRITE, p, "modify", where);
    plain_access(p, n, ATOMIC_WRITE, where);
    struct object *o = object_at(p, n);
    struct store was = *newest(o);
    learn(&was, order);
    uint64_t value = modified(was.value, op, operand) & mask;
    add_store(o, value, order, true);
    put(p, n, value);
    memcpy(old, &was.value, n);
    trace("%p modify %s: %" PRIx64 " -> %" PRIx64 " (%s)", (void *)(uintptr_t)p, order_name(order),
          was.value, value, where);
}

bool mc_cas(volatile void *p, size_t n, void *expected, const void *desired, memory_order success,
            memory_order failure, const char *where)
{
    uint64_t wanted = get(expected, n), value = get(desired, n);
    if (X->phase == PHASE_QUIET) {
        uint64_t was = get(p, n);
        put(expected, n, was);
        if (was == wanted) {
            put(p, n, value);
        }
        return was == wanted;
    }
    point(OP_WRITE, p, "cas", where);
    plain_access(p, n, ATOMIC_WRITE, where);
    struct object *o = object_at(p, n);
    struct store was = *newest(o);
    bool done = was.value == wanted;
    learn(&was, done ? success : failure);
    if (done) {
        add_store(o, value, success, true);
        put(p, n, value);
    } else {
        o->floor[X->current] = o->count - 1;
        meet(newest(o));
        put(expected, n, was.value);
    }
    trace("%p cas %s: %" PRIx64 " -> %" PRIx64 "%s (%s)", (void *)(uintptr_t)p, order_name(success),
          was.value, value, done ? "" : " failed", where);
    return done;
}

void order_catch_up(void)
{
    struct fiber *f = self();
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        f->seen.of[i] = X->fiber[i].clock > f->seen.of[i] ? X->fiber[i].clock : f->seen.of[i];
    }
}

void mc_wait(const char *where)
{
    if (X->phase == PHASE_QUIET) {
        return;
    }
    point(OP_YIELD, NULL, "wait", where);
    order_catch_up();
    trace("waits (%s)", where);
}

void mc_fence(const char *where)
{
    if (X->phase == PHASE_QUIET) {
        return;
    }
    point(OP_BARRIER, NULL, "fence", where);
    join(&X->barrier, &self()->seen);
    join(&self()->seen, &X->barrier);
    trace("fence (%s)", where);
}

void mc_barrier_all(void)
{
    if (X->phase == PHASE_QUIET) {
        return;
    }
    point(OP_BARRIER, NULL, "membarrier", "membarrier");
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        join(&X->barrier, &X->fiber[i].seen);
    }
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        join(&X->fiber[i].seen, &X->barrier);
    }
    trace("membarrier");
}

/* The history of a lock: beside that of the word. */
static struct store *lock_store(const volatile void *at)
{
    return newest(object_at((const volatile char *)at + 1, 0));
}

void order_acquire(const volatile void *lock)
{
    const struct store *s = lock_store(lock);
    join(&self()->happened, &s->happened);
    join(&self()->seen, &s->seen);
}

void order_release(const volatile void *lock)
{
    struct fiber *f = self();
    struct store *s = lock_store(lock);
    join(&s->happened, &f->happened);
    join(&s->seen, &f->seen);
    f->clock++;
    f->happened.of[X->current] = f->seen.of[X->current] = f->clock;
}
