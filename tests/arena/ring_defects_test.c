/* ring_defects_test.c - Defects of the buffer that the ring replaces, each by its identifier.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Those that are no behaviour of their own here:
 *   C1 (one mutex for everything): the ring has no lock; throughput is the benchmark's business.
 *   C5 (a weak CAS without retry loses a block): arena/atomic.h has only the strong form.
 *   C8 (eviction searches a free list): holes are hints checked by one CAS; nothing is searched.
 *   C9 (the tail is read as a plain word): all shared words are atomic; ring_stress reads the
 *      metrics while everything moves, under TSan.
 *   C12 (drain asserts that nobody allocates): ring_stress, C12_drain_beside_producers.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/sync.h"
#include "tests/arena/ring_support.h"

Test(ring, C2_a_thread_is_told_that_it_waits_for_its_own_reservation)
{
    struct ring r;
    start(&r, 64, 4);
    uint64_t own = 0;
    struct disk d = {0};
    struct ring_claim c;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &own), LOAM_OK);
    for (unsigned i = 0; i < 3; i++) {
        stage(&r, 64, 1, 2);
    }
    CHECK_EQ(ring_evict_n(&r, SIZE_MAX, disk_write, &d, NULL),
             LOAM_NOTFOUND); /* and does not hang */
    CHECK_EQ(d.calls, 3);
    uint64_t a = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_STOPPED);
    CHECK_EQ(ring_wait_space(&r, 64, UINT64_MAX), LOAM_E_MISUSE);
    CHECK_EQ(ring_drain(&r, disk_write, &d, UINT64_MAX, NULL), LOAM_E_MISUSE);
    r.in_order = true;
    CHECK_EQ(ring_claim_wait(&r, &c, UINT64_MAX), LOAM_E_MISUSE);
    ring_discard(&r, own);
    CHECK_EQ(ring_wait_space(&r, 64, 0), LOAM_OK);
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
    ring_destroy(&r);
}

Test(ring, C3_C14_a_failed_write_is_reported_and_the_entry_stays_dirty_or_is_dropped)
{
    struct ring r;
    start(&r, 64, 32);
    uint64_t a = stage(&r, 64, 1, 1), b = stage(&r, 64, 1, 2);
    struct disk d = {.fail = LOAM_E_NOSPACE};
    struct ring_evicted e;
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK(d.calls == 1 && e.entries == 0 && e.bytes == 0);
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK_EQ(d.calls, 2);
    CHECK_EQ(ring_drain(&r, disk_write, &d, UINT64_MAX, &e), LOAM_E_NOSPACE);
    CHECK_EQ(d.calls, 3);
    CHECK_EQ(ring_dirty_bytes(&r), 128); /* C14: nothing failed was taken for written */
    CHECK(readable(&r, a) && readable(&r, b));
    d.outcome = RING_GONE; /* the callback gives the first one up */
    CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_E_NOSPACE);
    CHECK(!readable(&r, a) && e.entries == 1);
    d = (struct disk){0};
    CHECK_EQ(ring_drain(&r, disk_write, &d, 0, &e), LOAM_OK);
    CHECK(d.calls == 1 && d.cookie_sum == 2 && ring_dirty_bytes(&r) == 0);
    ring_destroy(&r);
}

Test(ring, C3_a_retry_without_an_error_does_not_spin)
{
    struct ring r;
    start(&r, 64, 32);
    stage(&r, 64, 1, 1);
    struct disk d = {.outcome = RING_RETRY};
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, NULL), LOAM_OK);
    CHECK_EQ(d.calls, 1);
    CHECK_EQ(ring_drain(&r, disk_write, &d, 1000, NULL), LOAM_STOPPED);
    ring_destroy(&r);
}

Test(ring, C4_eviction_reports_written_bytes_and_head_movement_apart)
{
    struct ring r;
    start(&r, 64, 8);
    uint64_t own = 0;
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &own), LOAM_OK);
    for (unsigned i = 0; i < 7; i++) {
        stage(&r, 50, 1, i);
    }
    struct disk d = {0};
    struct ring_evicted e;
    CHECK_EQ(ring_evict_n(&r, 1000, disk_write, &d, &e), LOAM_NOTFOUND);
    CHECK(e.entries == 7 && e.bytes == 350 && e.head_bytes == 0);
    uint64_t before = r.head;
    ring_discard(&r, own);
    CHECK(ring_reclaim(&r, 64));
    CHECK(r.head > before);
    ring_destroy(&r);
}

Test(ring, C6_memory_of_the_caller_is_checked_used_and_never_freed)
{
    static _Alignas(4096) unsigned char mine[64 * 32 + 64];
    struct ring r;
    struct ring_options o = {
        .alloc = alloc_global(), .unit = 64, .bytes = 64 * 32, .memory = mine + 1};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    ring_destroy(&r);
    o.memory = mine + 64;
    CHECK_EQ(ring_init(&r, &o), LOAM_OK);
    uint64_t a = fill(&r, 64, 1, 42, false);
    CHECK(ring_data(&r, a) == mine + 64 && mine[64] == 42);
    ring_destroy(&r);
    memset(mine, 1, sizeof mine);
    ring_destroy(&r);
}

Test(ring, C6_C13_bad_options_and_no_memory_are_codes)
{
    struct ring r;
    struct ring_options o = {.alloc = alloc_global(), .unit = 63, .bytes = 63 * 4};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.unit = 4;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o = (struct ring_options){.alloc = alloc_global(), .unit = 64, .bytes = 0};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 100;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 64 * (RING_UNITS_MAX + 1);
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    o.bytes = 6400;
    o.second_chance_percent = 76;
    CHECK_EQ(ring_init(&r, &o), LOAM_E_INVAL);
    static struct alloc small;
    alloc_init(&small, NULL, 8192);
    o = (struct ring_options){.alloc = &small, .unit = 64, .bytes = 1 << 20};
    CHECK_EQ(ring_init(&r, &o), LOAM_E_NOMEM);
    CHECK_EQ(alloc_used(&small), 0);
    ring_destroy(&r);
}

Test(ring, C7_sizes_out_of_range_are_codes_and_all_in_range_work)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    CHECK_EQ(ring_entry_max(&r), 1024);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 0, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 1025, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_reserve(&r, RING_FILL, SIZE_MAX, 1, 1, &a), LOAM_E_TOOBIG);
    CHECK_EQ(ring_wait_space(&r, 1025, 0), LOAM_E_TOOBIG);
    struct disk d = {0};
    for (size_t size = 1; size <= 1024; size++) {
        stage(&r, size, 1, size);
        struct ring_evicted e;
        CHECK_EQ(ring_evict_one(&r, disk_write, &d, &e), LOAM_OK);
        CHECK_EQ(e.bytes, size);
    }
    ring_destroy(&r);
}

Test(ring, C10_a_hole_near_the_head_is_not_used_again)
{
    struct ring r;
    start(&r, 64, 64);
    uint64_t a = 0;
    CHECK_EQ(ring_reserve(&r, RING_FILL, 128, 1, 1, &a), LOAM_OK);
    ring_discard(&r, a);
    for (unsigned i = 0; i < 40; i++) {
        fill(&r, 64, 1, 2, false); /* half the size: not for the hole */
    }
    CHECK(fill(&r, 128, 1, 3, false) > a);
    struct ring_metrics m;
    ring_metrics(&r, &m);
    CHECK(m.holes_reused == 0 && r.hole_count == 0);
    ring_destroy(&r);
}

Test(ring, C10_the_best_fitting_of_several_sizes_is_never_too_small)
{
    struct ring r;
    start(&r, 64, 256);
    uint64_t a[4] = {0};
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(ring_reserve(&r, RING_FILL, 64u << i, 1, 1, &a[i]), LOAM_OK);
    }
    for (unsigned i = 0; i < 4; i++) {
        ring_discard(&r, a[i]);
    }
    CHECK_EQ(fill(&r, 512, 1, 1, false), a[3]);
    CHECK_EQ(fill(&r, 65, 1, 1, false), a[1]);
    CHECK(fill(&r, 513, 1, 1, false) > a[3]);
    ring_destroy(&r);
}

Test(ring, C11_waiting_for_room_ends_by_time)
{
    struct ring r;
    start(&r, 64, 4);
    for (unsigned i = 0; i < 4; i++) {
        stage(&r, 64, 1, 1);
    }
    struct ring_claim c;
    CHECK_EQ(ring_wait_space(&r, 64, 2000), LOAM_STOPPED);
    for (unsigned i = 0; i < 4; i++) {
        CHECK_EQ(ring_claim_wait(&r, &c, 0), LOAM_OK);
        CHECK_EQ(ring_wait_space(&r, 64, 0), LOAM_STOPPED);
        if (i != 0) {
            ring_complete(&r, c.addr, RING_KEEP);
        }
    }
    CHECK_EQ(ring_claim_wait(&r, &c, 1000), LOAM_NOTFOUND);
    CHECK_EQ(ring_drain(&r, disk_write, NULL, 1000, NULL), LOAM_STOPPED); /* one in flight */
    ring_destroy(&r);
}

Test(ring, C11_fills_are_refused_while_somebody_waits_for_a_run_of_units)
{
    struct ring r;
    start(&r, 64, 16);
    uint64_t a = 0;
    ring_hold_fills(&r);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &a), LOAM_STOPPED);
    CHECK_EQ(ring_reserve(&r, RING_DIRTY, 64, 1, 1, &a), LOAM_OK);
    ring_release_fills(&r);
    CHECK_EQ(ring_reserve(&r, RING_FILL, 64, 1, 1, &a), LOAM_OK);
    ring_destroy(&r);
}

Test(ring, C13_any_number_of_units_works)
{
    for (size_t units = 1; units <= 40; units++) {
        struct ring r;
        start(&r, 64, units);
        struct disk d = {0};
        size_t max = ring_entry_max(&r);
        for (uint64_t i = 0; i < 200; i++) {
            size_t size = 1 + (size_t)(i * 37) % max;
            uint64_t a = 0;
            int rc;
            while ((rc = ring_reserve(&r, RING_DIRTY, size, 1, i, &a)) == LOAM_STOPPED) {
                CHECK_EQ(ring_evict_one(&r, disk_write, &d, NULL), LOAM_OK);
            }
            CHECK_EQ(rc, LOAM_OK);
            memset(ring_data(&r, a), (int)(i & 255), size);
            ring_publish(&r, a);
        }
        CHECK_EQ(ring_drain(&r, disk_write, &d, 0, NULL), LOAM_OK);
        CHECK(d.calls == 200 && d.cookie_sum == 199 * 200 / 2);
        ring_destroy(&r);
    }
}
