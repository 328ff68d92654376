/* model_test.c - Random public calls against the oracle, by disk and by promise.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Goal: whatever is called in whatever order, over flushes, merges, reopens and crashes, the
 * database shows what a sorted map would show. Oracle: tests/support/model.h. Together a little
 * over 200,000 operations (LOAM_MODEL_OPS multiplies: percent). A failure prints the seed and how
 * to replay it.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "arena/alloc.h"
#include "engine/loam.h"
#include "tests/model/model_run.h"
#include "tests/support/check.h"

#define DEFAULT_PERCENT (LOAM_ASAN ? 15u : 100u)

static void run(struct model_run_options o)
{
    struct model_run_counts counts = {0};
    const char *text = getenv("LOAM_MODEL_OPS");
    o.ops = o.ops * (text != NULL ? strtoull(text, NULL, 0) : DEFAULT_PERCENT) / 100;
    o.seed = model_run_seed();
    model_run_many(&o, 0, &counts);
    CHECK_EQ(counts.ops, o.ops);
}

Test(model, a_mapped_log_keeps_every_promise)
{
    run((struct model_run_options){.ops = 70000, .disk = MODEL_DISK_MAPPED});
}

Test(model, a_log_without_maps_keeps_every_promise)
{
    run((struct model_run_options){.ops = 70000, .disk = MODEL_DISK_UNMAPPED});
}

Test(model, writes_that_survive_power_loss)
{
    run((struct model_run_options){
        .ops = 30000, .disk = MODEL_DISK_MAPPED, .durability = LOAM_DUR_POWER});
}

Test(model, a_database_without_a_log)
{
    run((struct model_run_options){
        .ops = 30000, .disk = MODEL_DISK_UNMAPPED, .durability = LOAM_DUR_MEMORY});
}

Test(model, the_operating_systems_files)
{
    run((struct model_run_options){.ops = 12000, .disk = MODEL_DISK_OS});
}
