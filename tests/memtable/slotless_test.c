/* slotless_test.c - Threads that find no slot set memory aside and add, and may get one in between.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A thread without a slot has no record in a list and makes no towers, and what it set aside is for just that.
 * Memtables are filled to every degree, so that some of them have no room for anything else.
 */
#include <criterion/criterion.h>

#include "arena/thread_slot.h"
#include "tests/memtable/memtable_support.h"

enum { SET_ASIDE = 100, LIMIT = 128 << 10 };

static bool no_slots;

uint32_t __real_thread_slot_register_(void);
uint32_t __wrap_thread_slot_register_(void);

uint32_t __wrap_thread_slot_register_(void)
{
    return no_slots ? THREAD_SLOT_NONE : __real_thread_slot_register_();
}

/* Whether the thread can have a slot from here on; it has none at first. */
static void slots(bool there_are)
{
    thread_slot_detach();
    no_slots = !there_are;
    CHECK_EQ(thread_slot_self() != THREAD_SLOT_NONE, there_are);
}

TestSuite(slotless, .init = memtable_fix_start_small, .fini = memtable_fix_stop);

static int add_nth(struct memtable *m, uint64_t n)
{
    char key[24];
    const struct memtable_op o = numbered(n, key);
    return memtable_add(m, o.ks, o.key, o.key_hash, o.tag, o.value);
}

static void add_set_aside(struct memtable *m, uint64_t first, bool one_by_one)
{
    static char keys[SET_ASIDE][24];
    struct memtable_pipeline p;
    memtable_pipeline_begin(&p, m);
    for (uint64_t i = 0; i < SET_ASIDE; i++) {
        if (one_by_one) {
            CHECK_EQ(add_nth(m, first + i), LOAM_OK);
        } else {
            const struct memtable_op o = numbered(first + i, keys[i]);
            memtable_pipeline_add(&p, &o);
        }
    }
    memtable_pipeline_end(&p);
}

/* Filled with so many entries by who has a slot or not: is there room for what is set aside, it is enough. */
static bool fill_and_add(uint64_t entries, bool filled_with_slot, bool one_by_one)
{
    struct memtable *m = make(0, LIMIT);
    slots(filled_with_slot);
    uint64_t n = 0;
    while (n < entries && add_nth(m, n) == LOAM_OK) {
        n++;
    }
    slots(false);
    struct memtable_need need = {0};
    for (uint64_t i = 0; i < SET_ASIDE; i++) {
        memtable_need_add(&need, 0, 16, 8);
    }
    bool room = memtable_reserve(m, &need) == LOAM_OK;
    slots(true);
    if (room) {
        add_set_aside(m, n, one_by_one);
        n += SET_ASIDE;
    }
    CHECK_EQ(memtable_count(m), n);
    memtable_destroy(m);
    return room;
}

Test(slotless, what_was_set_aside_is_enough_when_a_slot_comes)
{
    for (unsigned how = 0; how < 4; how++) {
        uint64_t entries = 0;
        while (fill_and_add(entries, how % 2 == 0, how / 2 == 0)) {
            entries += 7;
        }
        CHECK(entries > 500);
    }
}

/* The next time memory is set aside the thread is one with a slot. */
Test(slotless, a_slot_counts_from_the_next_reservation_on)
{
    struct arena arena;
    struct skiplist list;
    struct skiplist_need need = {0};
    CHECK_EQ(arena_init(&arena, &memtable_fix.pool, arena_new_ids(1), 4096, LIMIT), LOAM_OK);
    skiplist_init(&list, &arena, &arena, NULL, NULL);
    struct skiplist_target t = skiplist_target(&list, 0, LOAM_LIT("k"));
    skiplist_need_add(&need, 0, 1, 1);
    for (uint64_t tag = 1; tag <= 3; tag++) {
        struct skiplist_ahead ahead;
        struct skiplist_place p;
        bool counts = tag == 2;
        slots(counts);
        CHECK_EQ(skiplist_ensure(&list, &need), LOAM_OK);
        slots(true);
        CHECK_EQ(skiplist_ahead_begin(&list, &t, &ahead), counts);
        skiplist_locate(&list, &t, &p);
        CHECK_EQ(skiplist_link(&list, &p, tag, LOAM_LIT("v")), LOAM_OK);
        CHECK_EQ(atom_load(&list.stray_count, relaxed), tag == 1 || tag == 2 ? 1 : 2);
        CHECK_EQ(skiplist_count(&list), tag);
    }
    arena_destroy(&arena);
}
