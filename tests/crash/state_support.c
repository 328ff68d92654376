/* state_support.c - Judges one crash state, writes to it and opens it again.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/state_support.h"

#include <string.h>

#include "tests/crash/crash_support.h"

uint32_t state_open(const struct oracle *o, const struct oracle_promise *p, const loam_vfs *vfs,
                    loam_db **db, struct oracle_seen *seen)
{
    loam_options options = crash_options(vfs);
    options.flags = p->opened ? LOAM_OPEN_MUST_EXIST : 0;
    crash_must(loam_open(STATE_DIR, &options, db), "open");
    crash_must(oracle_read(o, p, *db, seen), "reading");
    return oracle_judge(o, p, seen);
}

struct oracle_promise state_exactly(const struct oracle_promise *p, uint32_t commit,
                                    const struct oracle_seen *seen)
{
    return (struct oracle_promise){.opened = true,
                                   .low = commit,
                                   .high = commit,
                                   .control_low = seen->control,
                                   .control_high = seen->control,
                                   .at = p->at};
}

static const char extra_key[] = "~extra";

static void write_extra(loam_db *db, bool durable)
{
    loam_slice key = loam_bytes(extra_key, sizeof extra_key);
    const loam_write_opts opts = {.struct_size = sizeof opts,
                                  .flags = durable ? LOAM_W_DURABLE : 0};
    crash_must(loam_put(db, NULL, key, oracle_value(77), &opts), "one more put");
}

/* The extra key is there; it is taken away, so that the oracle finds what it knows. */
static void check_extra(loam_db *db)
{
    loam_slice key = loam_bytes(extra_key, sizeof extra_key);
    loam_pin pin = LOAM_PIN_INIT;
    int rc = loam_get_pin(db, NULL, key, &pin, NULL);
    crash_must(rc, "get of one more put");
    loam_slice want = oracle_value(77);
    if (rc != LOAM_OK || pin.value.size != want.size ||
        memcmp(pin.value.data, want.data, want.size) != 0) {
        oracle_fail("one more put was lost by the next open (%d)", rc);
    }
    loam_unpin(&pin);
    crash_must(loam_delete(db, NULL, key, NULL), "delete");
}

void state_check(const struct oracle *o, const struct oracle_promise *p, const loam_vfs *vfs,
                 uint64_t seed, unsigned files_every)
{
    loam_db *db;
    struct oracle_seen seen;
    uint32_t commit = state_open(o, p, vfs, &db, &seen);
    struct oracle_promise same = state_exactly(p, commit, &seen);
    if (seed % files_every == 0) {
        crash_directory(vfs, STATE_DIR, db);
    }
    if (seed % 3 != 0) {
        crash_must(loam_close(db), "close");
        return;
    }
    write_extra(db, seed % 2 == 0);
    if (seed % 4 == 0) {
        crash_must(loam_flush(db, NULL), "flush");
    }
    crash_must(loam_close(db), "close");
    loam_options options = crash_options(vfs);
    options.durability = seed % 5 == 0 ? LOAM_DUR_MEMORY : LOAM_DUR_DEFAULT;
    options.flags = LOAM_OPEN_MUST_EXIST;
    crash_must(loam_open(STATE_DIR, &options, &db), "second open");
    check_extra(db);
    crash_must(oracle_read(o, &same, db, &seen), "reading again");
    oracle_judge(o, &same, &seen);
    crash_must(loam_close(db), "second close");
}
