/* secmap.c - Entries tagged with the generation they belong to, changed under a busy state.
 * SPDX-License-Identifier: Apache-2.0
 *
 *     EMPTY --set--> BUSY --> PRESENT --set--> BUSY --> PRESENT --del--> BUSY --> EMPTY
 *
 *     from            to               by                          generation, version
 *     EMPTY, PRESENT  BUSY             entry_lock                  stay; compare-and-swap
 *     BUSY            as it was        entry_unlock, when refused  stay
 *     BUSY            PRESENT          secmap_set                  the same or a newer one; + 1
 *     BUSY            EMPTY            entry_remove_locked, which  stays; + 1
 *                                      found it PRESENT
 *
 * tag_may_become() is this table; each end of BUSY asserts it.
 *
 * The tag's version grows with every change. A reader takes the tag, the value, and the tag again:
 * equal and not busy means that the value belongs to it. An emptied entry keeps its generation, so
 * that an older handle stays refused.
 */
#include "arena/secmap.h"

#include <assert.h>
#include <string.h>

#include "arena/status.h"

#include "arena/poison.h"

#define ENTRY_EMPTY   ((uint64_t)0)
#define ENTRY_PRESENT ((uint64_t)1)
#define ENTRY_BUSY    ((uint64_t)2)
#define STATE_MASK    ((uint64_t)3)
#define VERSION_ONE   ((uint64_t)4)
#define VERSION_MASK  ((uint64_t)0xfffffffc)

struct entry_pair {
    _Atomic uint64_t tag;
    _Atomic uint64_t value;
};

static uint32_t tag_generation(uint64_t tag)
{
    return (uint32_t)(tag >> 32);
}

static uint64_t tag_next(uint64_t tag, uint32_t generation, uint64_t state)
{
    return (uint64_t)generation << 32 | ((tag + VERSION_ONE) & VERSION_MASK) | state;
}

/* Whether the holder of an entry that had the tag `from` may leave it with `to`. */
static __attribute__((unused)) bool tag_may_become(uint64_t from, uint64_t to)
{
    if (to == from) {
        return (from & STATE_MASK) != ENTRY_BUSY;
    }
    uint64_t one_on = tag_next(from, tag_generation(from), to & STATE_MASK);
    switch (to & STATE_MASK) {
    case ENTRY_PRESENT:
        return (uint32_t)to == (uint32_t)one_on && tag_generation(to) >= tag_generation(from);
    case ENTRY_EMPTY:
        return to == one_on && (from & STATE_MASK) == ENTRY_PRESENT;
    default:
        return false;
    }
}

static uint32_t page_slots(unsigned page)
{
    return SLOTMAP_PAGE_FIRST << page;
}

/* A page: the entries, then one occupancy bit for each. */
static size_t page_bytes(unsigned page)
{
    return (size_t)page_slots(page) * sizeof(struct entry_pair) + page_slots(page) / 8;
}

static _Atomic uint64_t *occupancy_of(char *base, unsigned page)
{
    return (_Atomic uint64_t *)(void *)(base +
                                        (size_t)page_slots(page) * sizeof(struct entry_pair));
}

/* The place of a handle: the page's number, and the entry's in it. */
struct place {
    unsigned page;
    uint32_t at;
    char *base; /* NULL: no such page yet */
};

static int place_find(const struct secmap *s, uint64_t h, struct place *out)
{
    *out = (struct place){0, 0, NULL};
    if (h == 0 || h >> 60 != s->kind || (uint32_t)h == 0) {
        return FAIL(LOAM_E_INVAL, "a handle of kind %u where %u is expected", (unsigned)(h >> 60),
                    s->kind);
    }
    uint32_t j = ((uint32_t)(h >> 32) & 0x0fffffffu) + SLOTMAP_PAGE_FIRST;
    unsigned log = 31u - (unsigned)__builtin_clz(j);
    out->page = log - 10u;
    out->at = j ^ (1u << log);
    if (out->page >= SLOTMAP_PAGES) {
        return FAIL(LOAM_E_INVAL, "a handle beyond the slots of any slotmap");
    }
    /* acquire: pairs with the release in place_make(). */
    out->base = atom_load(&s->page[out->page], acquire);
    return LOAM_OK;
}

static struct entry_pair *place_entry(const struct place *p)
{
    return (struct entry_pair *)(void *)p->base + p->at;
}

/* Makes the place's page. False: no memory. */
static bool place_make(struct secmap *s, struct place *p)
{
    if (p->base != NULL) {
        return true;
    }
    size_t bytes = page_bytes(p->page);
    char *fresh = alloc_map(s->alloc, MEM_HANDLE, bytes, 4096, false, false);
    if (fresh == NULL) {
        return false;
    }
    /* release: pairs with the acquire in place_find(). acquire: the winner's page. */
    if (atom_cas(&s->page[p->page], &p->base, fresh, acq_rel, acquire)) {
        p->base = fresh;
    } else {
        alloc_unmap(s->alloc, MEM_HANDLE, fresh, bytes, false);
    }
    return true;
}

/* Takes the entry: its tag before, which is not busy. */
static uint64_t entry_lock(struct entry_pair *e)
{
    for (;;) {
        uint64_t tag = atom_load(&e->tag, relaxed); /* relaxed: the exchange decides */
        if ((tag & STATE_MASK) == ENTRY_BUSY) {
            spin_pause();
            continue;
        }
        /* acquire: pairs with the release in entry_unlock(). */
        if (atom_cas(&e->tag, &tag, (tag & ~STATE_MASK) | ENTRY_BUSY, acquire, relaxed)) {
            return tag;
        }
    }
}

static void entry_unlock(struct entry_pair *e, uint64_t before, uint64_t tag)
{
    assert(tag_may_become(before, tag));
    (void)before;
    atom_store(&e->tag, tag, release); /* release: pairs with entry_lock() and entry_read() */
}

/* A tag that is not busy and the value that belongs to it. */
static uint64_t entry_read(struct entry_pair *e, uint64_t *value)
{
    for (;;) {
        uint64_t tag = atom_load(&e->tag, acquire); /* acquire: pairs with entry_unlock() */
        if ((tag & STATE_MASK) != ENTRY_BUSY) {
            /* acquire: pairs with the release in entry_set(): who sees a value sees the busy tag
             * written before it, so the second look finds the tag changed. */
            *value = atom_load(&e->value, acquire);
            if (atom_load(&e->tag, relaxed) == tag) { /* relaxed: ordered by the line above */
                return tag;
            }
        }
        spin_pause();
    }
}

static void occupancy_set(const struct place *p, bool on)
{
    _Atomic uint64_t *bits = &occupancy_of(p->base, p->page)[p->at / 64];
    uint64_t bit = (uint64_t)1 << p->at % 64;
    /* relaxed: a hint for foreach; the entry's tag decides. */
    if (on) {
        atom_or(bits, bit, relaxed);
    } else {
        atom_and(bits, ~bit, relaxed);
    }
}

/* Whether an entry with this tag serves handle h. */
static int tag_check(uint64_t tag, uint64_t h)
{
    if (tag_generation(tag) > (uint32_t)h) {
        return FAIL(LOAM_E_CLOSED, "a newer handle has taken this entry");
    }
    bool here = tag_generation(tag) == (uint32_t)h && (tag & STATE_MASK) == ENTRY_PRESENT;
    return here ? LOAM_OK : LOAM_NOTFOUND;
}

int secmap_set(struct secmap *s, uint64_t h, uint64_t value)
{
    struct place p;
    int rc = place_find(s, h, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (!place_make(s, &p)) {
        return FAIL(LOAM_E_NOMEM, "no memory for a page of a secondary map");
    }
    struct entry_pair *e = place_entry(&p);
    uint64_t tag = entry_lock(e);
    rc = tag_check(tag, h);
    if (rc < 0) {
        entry_unlock(e, tag, tag);
        return rc;
    }
    if ((tag & STATE_MASK) == ENTRY_EMPTY) {
        occupancy_set(&p, true);
        atom_add(&s->count, 1, relaxed); /* relaxed: a statistic */
    }
    atom_store(&e->value, value, release); /* release: pairs with entry_read() */
    entry_unlock(e, tag, tag_next(tag, (uint32_t)h, ENTRY_PRESENT));
    return LOAM_OK;
}

int secmap_get(const struct secmap *s, uint64_t h, uint64_t *value)
{
    struct place p;
    int rc = place_find(s, h, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (p.base == NULL) {
        return LOAM_NOTFOUND;
    }
    uint64_t seen;
    rc = tag_check(entry_read(place_entry(&p), &seen), h);
    if (rc == LOAM_OK) {
        *value = seen;
    }
    return rc;
}

/* Empties the place's locked entry. */
static void entry_remove_locked(struct secmap *s, const struct place *p, uint64_t tag)
{
    occupancy_set(p, false);
    atom_sub(&s->count, 1, relaxed); /* relaxed: a statistic */
    entry_unlock(place_entry(p), tag, tag_next(tag, tag_generation(tag), ENTRY_EMPTY));
}

int secmap_del(struct secmap *s, uint64_t h, uint64_t *value)
{
    struct place p;
    int rc = place_find(s, h, &p);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (p.base == NULL) {
        return LOAM_NOTFOUND;
    }
    struct entry_pair *e = place_entry(&p);
    uint64_t tag = entry_lock(e);
    rc = tag_check(tag, h);
    if (rc != LOAM_OK) {
        entry_unlock(e, tag, tag);
        return rc;
    }
    if (value != NULL) {
        *value = atom_load(&e->value, relaxed); /* relaxed: the entry is locked */
    }
    entry_remove_locked(s, &p, tag);
    return LOAM_OK;
}

bool secmap_contains(const struct secmap *s, uint64_t h)
{
    uint64_t value;
    return secmap_get(s, h, &value) == LOAM_OK;
}

size_t secmap_len(const struct secmap *s)
{
    return (size_t)atom_load(&s->count, relaxed); /* relaxed: a statistic */
}

/* The place of entry `at` of a page, with its handle, value and tag; false when it is empty. */
static bool entry_at(const struct secmap *s, const struct place *p, uint64_t *h, uint64_t *value,
                     uint64_t *tag)
{
    *tag = entry_read(place_entry(p), value);
    uint64_t index = (uint64_t)page_slots(p->page) - SLOTMAP_PAGE_FIRST + p->at;
    *h = (uint64_t)s->kind << 60 | index << 32 | tag_generation(*tag);
    return (*tag & STATE_MASK) == ENTRY_PRESENT;
}

/* Calls visit for each present entry until it returns false. */
static void each_entry(const struct secmap *s,
                       bool (*visit)(void *arg, const struct place *p, uint64_t h, uint64_t value,
                                     uint64_t tag),
                       void *arg)
{
    struct place p;
    uint64_t h, value, tag;
    for (p.page = 0; p.page < SLOTMAP_PAGES; p.page++) {
        p.base = atom_load(&s->page[p.page], acquire); /* acquire: pairs with place_make() */
        for (uint32_t first = 0; p.base != NULL && first < page_slots(p.page); first += 64) {
            /* relaxed: a hint; the tag decides. */
            uint64_t bits = atom_load(&occupancy_of(p.base, p.page)[first / 64], relaxed);
            for (; bits != 0; bits &= bits - 1) {
                p.at = first + (uint32_t)__builtin_ctzll(bits);
                if (entry_at(s, &p, &h, &value, &tag) && !visit(arg, &p, h, value, tag)) {
                    return;
                }
            }
        }
    }
}

struct foreach_state {
    bool (*fn)(void *arg, uint64_t h, uint64_t value);
    void *arg;
    size_t calls;
};

static bool foreach_one(void *arg, const struct place *p, uint64_t h, uint64_t value, uint64_t tag)
{
    (void)p;
    (void)tag;
    struct foreach_state *f = arg;
    f->calls++;
    return f->fn(f->arg, h, value);
}

size_t secmap_foreach(const struct secmap *s, bool (*fn)(void *arg, uint64_t h, uint64_t value),
                      void *arg)
{
    struct foreach_state f = {fn, arg, 0};
    each_entry(s, foreach_one, &f);
    return f.calls;
}

struct retain_state {
    struct secmap *map;
    bool (*keep)(void *arg, uint64_t h, uint64_t value); /* NULL: none */
    void *arg;
    size_t removed;
};

static bool retain_one(void *arg, const struct place *p, uint64_t h, uint64_t value, uint64_t tag)
{
    struct retain_state *r = arg;
    if (r->keep != NULL && r->keep(r->arg, h, value)) {
        return true;
    }
    uint64_t now = entry_lock(place_entry(p));
    if (now == tag) {
        entry_remove_locked(r->map, p, tag);
        r->removed++;
    } else { /* set again since it was judged */
        entry_unlock(place_entry(p), now, now);
    }
    return true;
}

size_t secmap_retain(struct secmap *s, bool (*keep)(void *arg, uint64_t h, uint64_t value),
                     void *arg)
{
    struct retain_state r = {s, keep, arg, 0};
    each_entry(s, retain_one, &r);
    return r.removed;
}

size_t secmap_clear(struct secmap *s)
{
    return secmap_retain(s, NULL, NULL);
}

static bool keep_live(void *arg, uint64_t h, uint64_t value)
{
    (void)value;
    const struct slotmap *m = arg;
    return slotmap_contains(m, h);
}

size_t secmap_sweep(struct secmap *s, struct slotmap *m)
{
    return secmap_retain(s, keep_live, m);
}

int secmap_init(struct secmap *s, struct alloc *a, unsigned kind)
{
    if (kind == 0 || kind > 15) {
        return FAIL(LOAM_E_INVAL, "a secondary map's kind is %u, not 1 to 15", kind);
    }
    memset(s, 0, sizeof *s);
    s->alloc = a;
    s->kind = kind;
    return LOAM_OK;
}

void secmap_destroy(struct secmap *s)
{
    for (unsigned page = 0; page < SLOTMAP_PAGES; page++) {
        char *base = atom_load(&s->page[page], relaxed); /* relaxed: nobody else is left */
        if (base != NULL) {
            alloc_unmap(s->alloc, MEM_HANDLE, base, page_bytes(page), false);
            atom_store(&s->page[page], NULL, relaxed); /* relaxed: as above */
        }
    }
}
