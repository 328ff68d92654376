/* model_crash_support.c - Clean reopens, and crashes after which a prefix of the commits is there.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oracle's rules for a crash: `durable` is the last commit that some answer has promised to
 * survive this kind of crash. The recovered state must equal the oracle's as of one commit p with
 * durable <= p <= now (now + 1 when the last write failed with its outcome unknown), the same p in
 * all keyspaces.
 */
#include "tests/model/model_state.h"

static int on_name(void *ctx, loam_slice name)
{
    uint32_t *found = ctx;
    (void)name;
    (*found)++;
    return 0;
}

static void check_names(struct run *r)
{
    uint32_t found = 0, live = 0;
    if (!run_fine(r, loam_ks_list(r->db, on_name, &found))) {
        return;
    }
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        live += r->m.ks[ks].live;
    }
    if (found != live) {
        MISMATCH(r, "%u keyspaces, expected %u", found, live);
    }
}

int run_open_db(struct run *r)
{
    r->options.vfs = r->fault; /* NULL: the system's */
    return loam_open(r->dir, &r->options, &r->db);
}

/* Keyspace handles after an open; now and then the database flushes before they are open. */
static void open_handles(struct run *r)
{
    if (run_one_in(r, 3)) { /* entries of keyspaces whose order nobody has given yet go to tables */
        run_fine(r, loam_flush(r->db, NULL));
    }
    if (run_one_in(r, 2)) {
        run_fine(r, loam_ks_open(r->db, "default", &r->default_ks, &r->ks[0]));
    }
    for (uint32_t ks = 1; ks < MODEL_KS_MAX && !r->dead; ks++) {
        if (r->m.ks[ks].live) {
            run_open_ks(r, ks);
        }
    }
}

/* Handles may go before the database or after it. */
static void release_handles(struct run *r, bool all)
{
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && (all || run_one_in(r, 2))) {
            run_close_walker(&r->walkers[i]);
        }
    }
    for (uint32_t i = 0; i < SNAPS; i++) {
        if (r->holders[i].snap != NULL && (all || run_one_in(r, 2))) {
            loam_snap_release(r->holders[i].snap);
            r->holders[i].snap = NULL;
        }
    }
    for (uint32_t i = 0; i < MODEL_KS_MAX; i++) {
        if (all || run_one_in(r, 2)) {
            loam_ks_release(r->ks[i]);
            r->ks[i] = NULL;
        }
    }
}

int run_close_db(struct run *r)
{
    release_handles(r, false);
    int rc = loam_close(r->db);
    for (uint32_t i = 0; i < ITERS; i++) {
        if (r->walkers[i].it != NULL && loam_iter_first(r->walkers[i].it) != LOAM_E_CLOSED) {
            MISMATCH(r, "an iterator of a closed database moved");
        }
    }
    release_handles(r, true);
    r->db = NULL;
    r->paused = false;
    return rc;
}

/* False: a keyspace with a comparator has entries that were never put in its order, and only a
 * writer can do that. */
static bool open_read_only(struct run *r)
{
    for (uint32_t ks = 1; ks < MODEL_KS_MAX; ks++) {
        const struct model_ks *k = &r->m.ks[ks];
        loam_ks_options o = run_ks_options(r, k->order);
        int rc = k->live ? loam_ks_open(r->db, k->name, &o, &r->ks[ks]) : LOAM_OK;
        if (rc == LOAM_E_READONLY && k->order != MODEL_BYTES) {
            return false;
        }
        run_fine(r, rc);
    }
    return true;
}

void run_reopen(struct run *r)
{
    r->what = "close";
    run_note(r, r->what, MODEL_NONE, MODEL_NONE);
    run_fine(r, run_close_db(r));
    r->what = "reopen";
    if (run_one_in(r, 4)) { /* a reader first: it sees the same and changes nothing */
        r->options.flags |= LOAM_OPEN_READONLY;
        run_fine(r, run_open_db(r));
        r->what = "open read-only";
        run_fine(r, loam_ks_open(r->db, "default", &r->default_ks, &r->ks[0]));
        if (open_read_only(r)) {
            run_check_all(r);
        }
        run_fine(r, run_close_db(r));
        r->options.flags &= ~LOAM_OPEN_READONLY;
        r->what = "reopen";
    }
    run_fine(r, run_open_db(r));
    open_handles(r);
    r->durable = r->m.now;
    check_names(r);
    run_check_all(r);
    r->counts->reopens++;
}

/* Whether the database shows exactly the oracle's state as of commit p. */
static bool equals(struct run *r, uint64_t p)
{
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        if (!r->m.ks[ks].live) {
            continue;
        }
        uint32_t rows = r->m.row_count[r->m.ks[ks].order];
        loam_iter *it;
        run_fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &it));
        uint32_t row = model_find(&r->m, ks, 0, 1, 0, rows, p);
        int rc = loam_iter_first(it);
        bool same = true;
        while (same && rc == LOAM_OK && row != MODEL_NONE) {
            const struct model_version *v = model_get(&r->m, ks, row, p);
            same = run_key_of_row(r, ks, row, loam_iter_key(it)) &&
                   model_value_is(v->value_id, v->size, loam_iter_value(it));
            row = model_find(&r->m, ks, (int64_t)row + 1, 1, 0, rows, p);
            rc = loam_iter_next(it);
        }
        run_fine(r, rc);
        same = same && rc == LOAM_NOTFOUND && row == MODEL_NONE;
        loam_iter_close(it);
        if (!same) {
            return false;
        }
    }
    return true;
}

/* The largest number of an entry that is there: commits before its own are all there. */
static uint64_t largest_seq(struct run *r)
{
    uint64_t seq = 0;
    for (uint32_t ks = 0; ks < MODEL_KS_MAX; ks++) {
        loam_iter *it;
        if (!r->m.ks[ks].live) {
            continue;
        }
        run_fine(r, loam_iter_open(r->db, r->ks[ks], NULL, &it));
        int rc;
        for (rc = loam_iter_first(it); rc == LOAM_OK; rc = loam_iter_next(it)) {
            seq = loam_iter_seq(it) > seq ? loam_iter_seq(it) : seq;
        }
        run_fine(r, rc);
        loam_iter_close(it);
    }
    return seq;
}

static void find_prefix(struct run *r)
{
    r->what = "prefix after crash";
    uint64_t to = r->m.now + (r->maybe ? 1 : 0);
    uint64_t hint = model_commit_of_seq(&r->m, largest_seq(r));
    /* Of a write that was in doubt the oracle has no number but that of the one before. */
    while (hint > 0 && r->m.first_seq[hint] == r->m.first_seq[hint - 1]) {
        hint--;
    }
    uint64_t from = hint > r->durable ? hint : r->durable;
    uint64_t p = from;
    /* The last one first: a batch written twice makes two commits of one state, and of a write
     * whose outcome was unknown the oracle has no numbers to compare. */
    if (r->maybe && equals(r, to)) {
        p = to;
    }
    while (p <= to && !equals(r, p)) {
        p++;
    }
    /* Nor can it tell whether one that was settled since is there when it changed nothing. */
    while (p < r->m.now && r->m.first_seq[p + 1] == r->m.first_seq[p] && equals(r, p + 1)) {
        p++;
    }
    if (p > to) {
        for (p = 0; p < from && !equals(r, p); p++) {
        }
        if (p < from) {
            MISMATCH(r,
                     "the state after the crash is that of commit %" PRIu64 "; %" PRIu64
                     " were promised",
                     p, r->durable);
        }
        MISMATCH(r,
                 "the state after the crash is that of no commit up to %" PRIu64
                 "; the newest entry has commit %" PRIu64,
                 to, hint);
    }
    if (p > r->m.now) {
        r->m.now = p;
    }
    model_truncate(&r->m, p);
    r->durable = p;
    r->maybe = false;
}

void run_set_plan(struct run *r, uint64_t crash_in)
{
    const loam_fault_plan plan = {
        .struct_size = sizeof plan,
        .seed = r->disk_seed,
        .no_map = r->disk_kind == MODEL_DISK_UNMAPPED,
        .crash_at = crash_in != 0 ? loam_vfs_calls(r->fault) + crash_in : 0,
    };
    CHECK_EQ(loam_vfs_set_plan(r->fault, &plan), LOAM_OK);
}

void run_wrap_disk(struct run *r)
{
    r->disk_seed = random_next(&r->rng);
    const loam_fault_plan plan = {.struct_size = sizeof plan,
                                  .seed = r->disk_seed,
                                  .no_map = r->disk_kind == MODEL_DISK_UNMAPPED};
    CHECK_EQ(loam_vfs_fault(r->disk, &plan, &r->fault), LOAM_OK);
}

/* Cuts power, or kills the process, and goes on from what the disk holds. */
void run_crash(struct run *r)
{
    uint64_t variant = run_one_in(r, 3) ? 0 : 1 + run_below(r, 9);
    uint64_t synced = r->durable; /* a kill keeps the rest only until power goes, too */
    r->what = variant == 0 ? "kill" : "power cut";
    run_note(r, r->what, (uint32_t)variant, MODEL_NONE);
    for (unsigned depth = 0;; depth++) {
        loam_vfs *after;
        CHECK_EQ(loam_vfs_power_cut(r->fault, variant, &after), LOAM_OK);
        if (variant == 0 && depth == 0 && r->options.durability != LOAM_DUR_MEMORY) {
            r->durable = r->m.now;
        }
        if (r->db != NULL) {
            run_set_plan(r, 1); /* closing must not take long, nor can it help */
            run_close_db(r);
        }
        loam_vfs_free(r->fault);
        loam_vfs_free(r->disk);
        r->disk = after;
        run_wrap_disk(r);
        /* Now and then recovery itself is interrupted; then the disk is cut again. */
        r->armed = depth < 3 && run_one_in(r, 3);
        run_set_plan(r, r->armed ? 1 + run_below(r, 60) : 0);
        int rc = run_open_db(r);
        if (rc < 0 && r->armed && rc == LOAM_E_IO) {
            variant = 1 + run_below(r, 9);
            r->durable = synced;
            continue;
        }
        if (rc < 0) {
            MISMATCH(r, "open after the crash returned %d (%s)", rc, loam_strerror(rc));
        }
        run_set_plan(r, 0);
        if (r->armed) { /* the interruption would have come just after the open */
            r->armed = false;
            loam_error why;
            (void)!loam_wait_idle(r->db, 0); /* a background job that met it reports before this */
            if (loam_health(r->db, &why) != LOAM_HEALTHY) {
                run_set_plan(r, 1);
                variant = 1 + run_below(r, 9);
                continue;
            }
        }
        break;
    }
    r->armed = r->dead = r->sick = false;
    open_handles(r);
    check_names(r);
    find_prefix(r);
    run_check_all(r);
    r->counts->crashes++;
}
