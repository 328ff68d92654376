/* options_test.c - Defaults, and the division of every budget from the smallest to the largest.
 * SPDX-License-Identifier: Apache-2.0
 *
 * What is refused is in api_test.c, through loam_open().
 */
#include <criterion/criterion.h>

#include <stddef.h>

#include "arena/ring.h"
#include "engine/options.h"
#include "tests/support/check.h"

Test(options, null_means_all_defaults)
{
    struct options o;
    CHECK_EQ(options_resolve(NULL, &o), LOAM_OK);
    CHECK_EQ(o.user.durability, LOAM_DUR_PROCESS);
    CHECK_EQ(o.user.sync_interval_ms, 1000);
    CHECK_EQ(o.user.max_write_pause_us, 2000);
    CHECK_EQ(o.user.log_level, LOAM_LOG_WARN);
    CHECK(o.user.threads >= 1 && o.user.threads <= 4);
    CHECK(o.user.max_open_files >= 16 && o.user.max_open_files <= 4096);
    CHECK(o.user.memory_budget >= 1 << 20);
    CHECK(o.user.vfs == loam_vfs_os());
    CHECK_EQ(o.default_ks.compression, LOAM_COMPRESS_LZ4);
    CHECK_EQ(o.default_ks.filter_bits, 10);
    CHECK_EQ(o.default_ks.block_bytes, 4096);
}

Test(options, given_values_stay)
{
    const loam_ks_options ks = {
        .struct_size = sizeof ks, .filter_bits = UINT32_MAX, .block_bytes = 512};
    const loam_options in = {.struct_size = sizeof in,
                             .durability = LOAM_DUR_POWER,
                             .threads = 64,
                             .memory_budget = 5 << 20,
                             .max_open_files = 16,
                             .sync_interval_ms = UINT32_MAX,
                             .default_ks = &ks};
    struct options o;
    CHECK_EQ(options_resolve(&in, &o), LOAM_OK);
    CHECK_EQ(o.user.durability, LOAM_DUR_POWER);
    CHECK_EQ(o.user.threads, 64);
    CHECK_EQ(o.limits.budget, 5 << 20);
    CHECK_EQ(o.user.max_open_files, 16);
    CHECK_EQ(o.user.sync_interval_ms, UINT32_MAX);
    CHECK_EQ(o.default_ks.filter_bits, 0); /* none */
    CHECK_EQ(o.default_ks.block_bytes, 512);
}

static bool power_of_two(uint64_t v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

Test(options, every_budget_is_divided_without_being_exceeded)
{
    for (uint64_t budget = 1 << 20; budget <= (uint64_t)1 << 46; budget += budget / 3 + 4097) {
        const loam_options in = {.struct_size = sizeof in, .memory_budget = budget};
        struct options o;
        CHECK_EQ(options_resolve(&in, &o), LOAM_OK);
        const struct limits *l = &o.limits;
        CHECK(l->memtables_max >= 3);
        CHECK(l->memtable_bytes * l->memtables_max + l->ring_bytes + l->table_bytes <= budget);
        CHECK(l->ring_bytes + l->lent_bytes_most <= (uint64_t)RING_UNITS_MAX << 20); /* as a ring may be */
        CHECK(power_of_two(l->chunk_bytes) && power_of_two(l->window_bytes));
        CHECK(l->chunk_bytes <= l->memtable_bytes && l->lease_bytes <= l->chunk_bytes);
        CHECK(l->window_bytes >= 4096 && l->window_bytes <= l->segment_bytes);
        CHECK(l->segment_bytes > l->memtable_bytes);
        CHECK(l->value_max <= budget / 4 && l->value_max <= LOAM_MAX_VALUE);
        CHECK(l->batch_max >= l->value_max);
    }
}

Test(options, a_small_disk_budget_makes_small_memtables)
{
    loam_options in = {.struct_size = sizeof in, .memory_budget = (uint64_t)1 << 30};
    struct options whole, part;
    CHECK_EQ(options_resolve(&in, &whole), LOAM_OK);
    for (uint64_t disk = 4 << 20; disk <= (uint64_t)1 << 40; disk *= 2) {
        in.disk_budget = disk;
        CHECK_EQ(options_resolve(&in, &part), LOAM_OK);
        const struct limits *l = &part.limits;
        /* All segments of the log and the reserve leave room for tables. */
        CHECK((l->memtables_max + 3) * l->segment_bytes + 3 * l->memtable_bytes < disk * 3 / 4);
        CHECK(l->memtable_bytes <= whole.limits.memtable_bytes);
        CHECK(l->memtable_bytes * l->memtables_max + l->ring_bytes + l->table_bytes <= 1 << 30);
    }
    CHECK_EQ(part.limits.memtable_bytes, whole.limits.memtable_bytes);
}

Test(options, a_disk_reserve_is_in_units_of_4_kib)
{
    loam_options in = {.struct_size = sizeof in, .disk_reserve = (64 << 10) + 1};
    struct options out;
    CHECK_EQ(options_resolve(&in, &out), LOAM_OK);
    CHECK_EQ(out.user.disk_reserve, 68 << 10);
    in.disk_budget = 4 << 20;
    in.disk_reserve = 2 << 20; /* half of it */
    CHECK_EQ(options_resolve(&in, &out), LOAM_OK);
    CHECK_EQ(out.user.disk_reserve, 2 << 20);
    in.disk_reserve = 0; /* as good as never set */
    CHECK_EQ(options_resolve(&in, &out), LOAM_OK);
    CHECK_EQ(out.user.disk_reserve, 0);
}

Test(options, copy_takes_older_and_newer_layouts)
{
    struct {
        size_t struct_size;
        uint32_t a, b, c, d; /* an even number, so that no padding counts as a field */
    } old = {sizeof(size_t) + 4, 7, 8, 9, 0}, out;
    CHECK_EQ(options_copy(&out, sizeof out, &old, old.struct_size, 12, "x"), LOAM_OK);
    CHECK_EQ(out.a, 7);
    CHECK_EQ(out.b, 0); /* not part of the older layout */
    CHECK_EQ(options_copy(&out, sizeof out, &old, 11, 12, "x"), LOAM_E_INVAL);
    CHECK_EQ(options_copy(&out, 12, &old, sizeof old, 12, "x"), LOAM_E_INVAL); /* c is set */
    old.b = old.c = 0;
    CHECK_EQ(options_copy(&out, 12, &old, sizeof old, 12, "x"), LOAM_OK);
    CHECK_EQ(options_copy(&out, sizeof out, NULL, 0, 12, "x"), LOAM_OK);
    CHECK_EQ(out.a, 0);
}
