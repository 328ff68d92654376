/* model_house_support.c - Random snapshots, keyspaces, flushes, merges, syncs and numbers.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/model/model_state.h"

void run_snapshot(struct run *r)
{
    r->what = "snapshot";
    struct holder *h = &r->holders[run_below(r, SNAPS)];
    if (h->snap != NULL) {
        loam_snap_release(h->snap);
        h->snap = NULL;
    } else if (run_fine(r, loam_snap_take(r->db, &h->snap))) {
        h->commit = r->m.now;
        if (loam_snap_seq(h->snap) < r->m.first_seq[r->m.now]) {
            MISMATCH(r, "the snapshot's number is below the last write's");
        }
    }
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
}

loam_ks_options run_ks_options(struct run *r, enum model_order order)
{
    loam_ks_options o = {.struct_size = sizeof o, .comparator = model_comparator(order)};
    static const uint32_t blocks[] = {0, 512, 1024, 4096, 16384, 65536};
    static const uint32_t bits[] = {0, 1, 10, 32, UINT32_MAX};
    o.block_bytes = blocks[run_below(r, 6)];
    o.filter_bits = bits[run_below(r, 5)];
    o.compression = (uint32_t)run_below(r, 3);
    return o;
}

/* Opens the handle of a keyspace of the oracle. */
void run_open_ks(struct run *r, uint32_t ks)
{
    loam_ks_options o = run_ks_options(r, r->m.ks[ks].order);
    run_fine(r, loam_ks_open(r->db, r->m.ks[ks].name, &o, &r->ks[ks]));
}

static void forget_ks(struct run *r, uint32_t ks)
{
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && r->walkers[i].ks == ks) {
            run_close_walker(&r->walkers[i]);
        }
    }
}

void run_keyspace(struct run *r)
{
    r->what = "keyspace";
    uint32_t ks = 1 + (uint32_t)run_below(r, MODEL_KS_MAX - 1);
    char name[32];
    snprintf(name, sizeof name, "space-%u", r->next_name);
    run_note(r, r->what, ks, MODEL_NONE);
    if (!r->m.ks[ks].live) {
        /* Created while the disk fails, it may or may not be there afterwards. */
        if (r->armed || r->sick) {
            return;
        }
        r->next_name++;
        ks =
            model_ks_add(&r->m, name, (enum model_order)run_below(r, r->orders ? MODEL_ORDERS : 1));
        run_open_ks(r, ks);
    } else if (run_one_in(r, 3) && !r->armed && !r->sick) {
        r->what = "ks_drop";
        forget_ks(r, ks);
        run_fine(r, loam_ks_drop(r->db, r->m.ks[ks].name));
        size_t len;
        int rc = loam_get(r->db, r->ks[ks], LOAM_LIT("x"), NULL, 0, &len, NULL);
        if (rc != LOAM_E_NOENT) {
            MISMATCH(r, "a dropped keyspace's handle gives %d", rc);
        }
        loam_ks_release(r->ks[ks]);
        r->ks[ks] = NULL;
        model_ks_drop(&r->m, ks);
    } else if (run_one_in(r, 2) && !r->armed && !r->sick) {
        r->what = "ks_rename";
        r->next_name++;
        run_fine(r, loam_ks_rename(r->db, r->m.ks[ks].name, name));
        model_ks_rename(&r->m, ks, name);
    } else { /* another handle of the same keyspace */
        loam_ks *old = r->ks[ks];
        run_open_ks(r, ks);
        loam_ks_release(old);
    }
}

void run_flush(struct run *r)
{
    r->what = "flush";
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
    uint64_t upto = r->m.now;
    if (run_may_fail(r, loam_flush(r->db, r->ks[run_pick_ks(r)]))) {
        r->durable = upto;
        r->counts->flushes++;
    }
}

void run_compact(struct run *r)
{
    r->what = "compact";
    uint32_t ks = run_pick_ks(r);
    run_note(r, r->what, ks, MODEL_NONE);
    loam_slice lo = {NULL, 0}, hi = {NULL, 0};
    if (run_one_in(r, 2)) {
        lo = r->m.keys[run_pick_key(r)];
    }
    if (run_one_in(r, 2)) {
        hi = r->m.keys[run_pick_key(r)];
    }
    uint64_t upto = r->m.now;
    int rc = loam_compact(r->db, r->ks[ks], lo, hi, run_one_in(r, 4) ? 1 + run_below(r, 3000) : 0);
    if (run_may_fail(r, rc)) {
        r->durable = rc == LOAM_OK ? upto : r->durable;
        r->counts->compactions++;
    }
}

void run_pause(struct run *r)
{
    r->what = r->paused ? "resume merges" : "pause";
    r->paused = !r->paused;
    run_fine(r, loam_pause(r->db, r->paused));
}

void run_sync(struct run *r)
{
    r->what = "sync";
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
    if (r->options.durability == LOAM_DUR_MEMORY) {
        return;
    }
    uint64_t upto = r->m.now;
    if (run_one_in(r, 3)) {
        uint64_t commit = upto != 0 ? 1 + run_below(r, upto) : 0;
        int rc = loam_wait_durable(r->db, r->m.first_seq[commit], run_below(r, 2000));
        if (run_may_fail(r, rc) && rc == LOAM_OK && commit > r->durable) {
            r->durable = commit;
        }
    } else if (run_may_fail(r, loam_sync(r->db))) {
        r->durable = upto;
        if (loam_durable_seq(r->db) < r->m.first_seq[upto]) {
            MISMATCH(r, "durable_seq %" PRIu64 " is below what was synced, %" PRIu64,
                     loam_durable_seq(r->db), r->m.first_seq[upto]);
        }
    }
}

void run_numbers(struct run *r)
{
    r->what = "numbers";
    loam_stats s = {.struct_size = sizeof s};
    if (!run_fine(r, loam_get_stats(r->db, r->ks[run_pick_ks(r)], &s))) {
        return;
    }
    if (s.last_seq < r->m.first_seq[r->m.now]) {
        MISMATCH(r, "stats.last_seq %" PRIu64 " is below the last write's %" PRIu64, s.last_seq,
                 r->m.first_seq[r->m.now]);
    }
    char text[256];
    size_t need;
    int rc = loam_format_stats(r->db, (int)run_below(r, 2), text, sizeof text, &need);
    if (rc != (need < sizeof text ? LOAM_OK : LOAM_TRUNCATED)) {
        MISMATCH(r, "format_stats returned %d for %zu bytes", rc, need);
    }
    uint64_t value;
    CHECK_EQ(loam_property(r->db, r->ks[run_pick_ks(r)], "level.1.bytes", &value), LOAM_OK);
    if (!r->armed && !r->sick && loam_health(r->db, NULL) != LOAM_HEALTHY) {
        MISMATCH(r, "the database is not healthy");
    }
    if (run_one_in(r, 10)) {
        rc = loam_wait_idle(r->db, 1 + run_below(r, 20000));
        run_may_fail(r, rc);
    }
}
