#!/usr/bin/env python3
# mutations.py - Plants concurrency faults in a copy of the tree, one by one; the explorer must find each.
# SPDX-License-Identifier: Apache-2.0
"""Usage: tests/explore/mutations.py [name...]. Exit 1 when a fault survives, or does not apply.

Each fault is a piece of text that is replaced once. A fault that a scenario finds is "killed". The
copy is built in a temporary directory with the flags of the release preset."""
import glob
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# name, file (or files, of which the first that has the text counts), text, instead, scenarios
MUTATIONS = [
    # ---- epoch ----
    ("epoch-no-barrier", "arena/epoch.c", "    barrier_all();\n    /* acquire: pairs with the release in record_push",
     "    /* acquire: pairs with the release in record_push", "epoch"),
    ("epoch-fallback-no-reader-fence", "arena/epoch.h", "atom_fence(); /* the store must", "(void)0; /* the store must",
     "epoch"),
    ("epoch-enter-relaxed", "arena/epoch.h", "atom_store(&r->active, e << 1 | 1, release);",
     "atom_store(&r->active, e << 1 | 1, relaxed);", "epoch"),
    ("epoch-exit-relaxed", "arena/epoch.h", "atom_store(&r->active, 0, release);",
     "atom_store(&r->active, 0, relaxed);", "epoch"),
    ("epoch-scan-relaxed", "arena/epoch.c", "uint64_t a = atom_load(&r->active, seq_cst);",
     "uint64_t a = atom_load(&r->active, relaxed);", "epoch"),
    ("epoch-advance-relaxed", "arena/epoch.c", "atom_cas(&epoch_now_, &e, e + 1, acq_rel, relaxed);",
     "atom_cas(&epoch_now_, &e, e + 1, relaxed, relaxed);", "epoch"),
    ("epoch-enter-load-relaxed", "arena/epoch.h", "uint64_t e = atom_load(&epoch_now_, acquire);",
     "uint64_t e = atom_load(&epoch_now_, relaxed);", "epoch slotmap ring"),
    ("epoch-stamp-no-modify", "arena/epoch.c", "return atom_add(&epoch_now_, 0, seq_cst);",
     "return atom_load(&epoch_now_, relaxed);", "epoch slotmap ring"),
    ("epoch-one-advance-is-enough", "arena/epoch.c",
     "        if (atom_load(&epoch_now_, acquire) >= stamp + 2) {",
     "        if (atom_load(&epoch_now_, acquire) >= stamp + 1) {", "epoch"),
    ("epoch-passed-relaxed", "arena/epoch.c",
     "        if (atom_load(&epoch_now_, acquire) >= stamp + 2) {",
     "        if (atom_load(&epoch_now_, relaxed) >= stamp + 2) {", "epoch ring"),
    ("epoch-ignores-old-sections", "arena/epoch.c", "if (a != 0 && a >> 1 != epoch) {",
     "if (a != 0 && a >> 1 > epoch) {", "epoch"),
    ("epoch-retire-relaxed", "arena/epoch.c", "} while (!atom_cas(&incoming, &head, n, release, relaxed));",
     "} while (!atom_cas(&incoming, &head, n, relaxed, relaxed));", "epoch"),
    ("epoch-take-relaxed", "arena/epoch.c", "atom_swap(&incoming, NULL, acquire);",
     "atom_swap(&incoming, NULL, relaxed);", "epoch"),
    # ---- slotmap and magazines ----
    ("slotmap-no-generation", "arena/slotmap*.c", "word_of(generation + 1, SLOTMAP_FREE, 0)",
     "word_of(generation, SLOTMAP_FREE, 0)", "slotmap"),
    ("slotmap-publish-relaxed", "arena/slotmap*.c",
     "atom_store(&s->word, word_of((uint32_t)h, SLOTMAP_LIVE, 0), release);",
     "atom_store(&s->word, word_of((uint32_t)h, SLOTMAP_LIVE, 0), relaxed);", "slotmap"),
    ("slotmap-live-before-payload", "arena/slotmap*.c",
     "    atom_store(&s->payload, payload, relaxed); /* relaxed: ordered by the word below */\n",
     "    atom_store(&s->word, word_of((uint32_t)h, SLOTMAP_LIVE, 0), release);\n"
     "    atom_store(&s->payload, payload, relaxed);\n", "slotmap"),
    ("slotmap-get-relaxed", "arena/slotmap.h", "    uint64_t w = atom_load(&s->word, acquire);\n    if (__builtin",
     "    uint64_t w = atom_load(&s->word, relaxed);\n    if (__builtin", "slotmap"),
    ("slotmap-pin-relaxed", "arena/slotmap*.c", "} while (!atom_cas(&s->word, &w, w + 1, acquire, relaxed));",
     "} while (!atom_cas(&s->word, &w, w + 1, relaxed, relaxed));", "slotmap"),
    ("slotmap-unpin-relaxed", "arena/slotmap*.c", "uint64_t w = atom_sub(&s->word, 1, acq_rel);",
     "uint64_t w = atom_sub(&s->word, 1, relaxed);", "slotmap"),
    ("slotmap-erase-pinned-at-once", "arena/slotmap*.c", "if (rc == LOAM_OK && word_pins(before) == 0) {",
     "if (rc == LOAM_OK) {", "slotmap"),
    ("slotmap-unpin-forgets", "arena/slotmap*.c", "if (word_state(w) == SLOTMAP_CLOSING) {",
     "if (word_state(w) == SLOTMAP_CLOSING && word_pins(w) > 1) {", "slotmap"),
    ("slotmap-limbo-no-epoch", "arena/slotmap*.c", "if (m->batch == 0 || epoch_passed(m->batch_stamp)) {",
     "if (m->batch == 0 || m->batch_stamp != 0) {", "slotmap"),
    ("slotmap-limbo-push-relaxed", "arena/slotmap*.c",
     "} while (!atom_cas(&m->limbo, &head, next, acq_rel, relaxed));",
     "} while (!atom_cas(&m->limbo, &head, next, relaxed, relaxed));", "slotmap"),
    ("slotmap-limbo-drops-late", "arena/slotmap*.c",
     "    if (!atom_cas(&m->limbo, &expected, 0, release, relaxed)) {\n        limbo_arm(m);\n    }",
     "    (void)expected;\n    atom_store(&m->limbo, 0, release);", "slotmap"),
    ("slotmap-erase-by-store", "arena/slotmap*.c",
     "} while (!atom_cas(&s->word, &w, word_of((uint32_t)h, state, word_pins(w)), acq_rel, relaxed));",
     "} while (atom_store(&s->word, word_of((uint32_t)h, state, word_pins(w)), release), false);",
     "slotmap"),
    ("slotmap-commit-without-claim", "arena/slotmap*.c",
     "} while (!atom_cas(&s->word, &w, next, acquire, relaxed));",
     "} while (atom_store(&s->word, next, release), false);", "slotmap"),
    ("slotmap-commit-wakes-nobody", "arena/slotmap*.c",
     "    if ((flags & RESERVED_WAITED) != 0) {", "    if ((flags & RESERVED_WAITED) == UINT64_MAX) {",
     "slotmap"),
    ("depot-put-relaxed", "arena/magazine.c", "atom_store(&c->sequence, at + 1, release);",
     "atom_store(&c->sequence, at + 1, relaxed);", "slotmap"),
    ("depot-get-relaxed", "arena/magazine.c", "atom_store(&c->sequence, at + MAGAZINE_DEPOT, release);",
     "atom_store(&c->sequence, at + MAGAZINE_DEPOT, relaxed);", "slotmap"),
    ("depot-copy-after", "arena/magazine.c",
     "            copy_items(&c->magazine, m);\n            /* release: pairs with the acquire in depot_get(); makes the items visible. */\n"
     "            atom_store(&c->sequence, at + 1, release);",
     "            atom_store(&c->sequence, at + 1, release);\n            copy_items(&c->magazine, m);",
     "slotmap"),
    # ---- ring ----
    ("ring-publish-relaxed", "arena/ring.c", "atom_swap(&d->word, ring_word_(addr, RING_READY), seq_cst);",
     "atom_swap(&d->word, ring_word_(addr, RING_READY), relaxed);", "ring"),
    ("ring-pad-relaxed", "arena/ring.c",
     "atom_store(&d->word, ring_word_(addr, RING_PAD), release);",
     "atom_store(&d->word, ring_word_(addr, RING_PAD), relaxed);", "ring"),
    ("ring-read-relaxed", "arena/ring.h",
     "    uint64_t w = atom_load(&d->word, acquire);\n    if (!ring_word_readable(w, addr)) {\n        return NULL;\n    }\n    if (touch",
     "    uint64_t w = atom_load(&d->word, relaxed);\n    if (!ring_word_readable(w, addr)) {\n        return NULL;\n    }\n    if (touch",
     "ring"),
    ("ring-head-without-epoch", "arena/ring_reclaim.c", "if (!epoch_passed(s->stamp)) {",
     "if (!epoch_passed(s->stamp) && r->stamp_count == 0) {", "ring"),
    ("ring-head-relaxed", "arena/ring_reclaim.c", "atom_swap(&r->head, s->end, seq_cst);",
     "atom_swap(&r->head, s->end, relaxed);", "ring"),
    ("ring-reserve-head-relaxed", "arena/ring.c", "uint64_t h = atom_load(&r->head, acquire);",
     "uint64_t h = atom_load(&r->head, relaxed);", "ring"),
    ("ring-reclaimer-leave-relaxed", "arena/ring_reclaim.c", "atom_store(&r->reclaiming, 0, release);",
     "atom_store(&r->reclaiming, 0, relaxed);", "ring"),
    ("ring-evict-pinned", "arena/ring_reclaim.c",
     "s != RING_CLEAN) || (w & RING_PINS) != 0) {", "s != RING_CLEAN)) {", "ring"),
    ("ring-evict-blindly", "arena/ring_reclaim.c",
     "if (atom_cas(&d->word, &w, ring_word_(addr, RING_EVICTED), acq_rel, acquire)) {",
     "if (atom_store(&d->word, ring_word_(addr, RING_EVICTED), release), true) {", "ring"),
    ("ring-claim-blindly", "arena/ring_claim.c",
     "if (!atom_cas(&d->word, &w, claimed, acq_rel, relaxed)) {",
     "if (atom_store(&d->word, claimed, release), false) {", "ring"),
    ("ring-claim-passes-reserved", "arena/ring_claim.c",
     "all_settled = all_settled && s != RING_RESERVED && s != RING_WRITING;",
     "all_settled = all_settled && s != RING_WRITING;", "ring"),
    ("ring-claim-passes-writing", "arena/ring_claim.c",
     "all_settled = all_settled && s != RING_RESERVED && s != RING_WRITING;",
     "all_settled = all_settled && s != RING_RESERVED;", "ring"),
    ("ring-walk-ignores-lap", "arena/ring_claim.c",
     "        if (ring_tag_(w) != ring_tag_(p)) {\n            rc = LOAM_STOPPED;\n            break;\n        }\n        enum",
     "        enum", "ring"),
    ("ring-drop-outside-section", "arena/ring_claim.c",
     "        epoch_enter();\n        done = drop_walk(r, owner, &dropped);\n        epoch_exit();",
     "        done = drop_walk(r, owner, &dropped);", "ring"),
    ("ring-wait-no-fence", "arena/ring.c", "    atom_fence(); /* the caller's check",
     "    /* the caller's check", "ring"),
    ("ring-notify-waiters-relaxed", "arena/ring.c", "atom_load(&r->waiters, seq_cst) != 0",
     "atom_load(&r->waiters, relaxed) != 0", "ring"),
    ("ring-event-read-late", "arena/ring.c", "word_wait(&r->event, event, at_most",
     "word_wait(&r->event, atom_load(&r->event, acquire), at_most", "ring"),
    ("ring-shrink-pad-late", "arena/ring.c",
     "!atom_cas(&r->tail, &end, ring_step_(r, addr, keep), acq_rel, relaxed)) {",
     "!atom_cas(&r->tail, &end, ring_step_(r, addr, keep), relaxed, relaxed)) {", "ring"),
    ("ring-tail-relaxed", "arena/ring.c", "} while (!atom_cas(&r->tail, &t, end, acq_rel, relaxed));",
     "} while (!atom_cas(&r->tail, &t, end, relaxed, relaxed));", "ring"),
    ("ring-relocate-relaxed", "arena/ring_reclaim.c",
     "atom_store(&to->word, ring_word_(copy, RING_CLEAN), release);",
     "atom_store(&to->word, ring_word_(copy, RING_CLEAN), relaxed);", "ring"),
    ("ring-hole-without-cas", "arena/ring.c",
     "if (atom_cas(&d->word, &w, ring_word_(a, RING_FILLING) | self_bits(), acq_rel, relaxed)) {",
     "if (atom_load(&d->word, acquire) == w &&\n            "
     "(atom_store(&d->word, ring_word_(a, RING_FILLING) | self_bits(), release), true)) {", "ring"),
    # ---- memtable and arena ----
    ("skiplist-link-relaxed", "memtable/skiplist*.c",
     "if (atom_cas(node_link(w->prev[level], level), &seen, ref, release, relaxed)) {",
     "if (atom_cas(node_link(w->prev[level], level), &seen, ref, relaxed, relaxed)) {", "skiplist"),
    ("skiplist-next-relaxed", "memtable/skiplist_node.h", "return atom_load(node_link(n, level), acquire);",
     "return atom_load(node_link(n, level), relaxed);", "skiplist"),
    ("skiplist-links-without-comparing", "memtable/skiplist*.c", "bool compared = level == 0;",
     "bool compared = true;", "skiplist"),
    ("skiplist-links-blindly", "memtable/skiplist*.c",
     "if (atom_cas(node_link(w->prev[level], level), &seen, ref, release, relaxed)) {",
     "if (seen = 0, atom_store(node_link(w->prev[level], level), ref, release), true) {", "skiplist"),
    ("skiplist-links-again-uncompared", "memtable/skiplist*.c", "        compared = false;\n", "", "skiplist"),
    ("guide-set-relaxed", "memtable/skiplist_guide.h", "atom_store(slot, entry, release);",
     "atom_store(slot, entry, relaxed);", "skiplist"),
    ("guide-find-relaxed", "memtable/skiplist_guide.h",
     "        uint64_t entry = atom_load(&guide[i], acquire);\n        uint64_t higher",
     "        uint64_t entry = atom_load(&guide[i], relaxed);\n        uint64_t higher", "skiplist"),
    ("guide-not-cleared", "memtable/skiplist_insert.c", "        guide_clear(guide);\n", "", "skiplist"),
    ("guide-moves-codes-as-they-are", "memtable/skiplist_guide.h",
     "if (its >> 23 == code >> 23 && its >> 15 == code >> 15) {", "if (its == 0) {", "skiplist"),
    ("guide-moves-all", "memtable/skiplist_guide.h", "if (its <= code) {", "if (its == 0) {", "skiplist"),
    ("guide-before-upper-levels", "memtable/skiplist_insert.c",
     "            raise_height(s, height);\n",
     "            enter_guide(s, w, &p->target, ref, height);\n            raise_height(s, height);\n", "skiplist"),
    ("guide-behind-is-before", "memtable/skiplist_guide.h", "low = entry < from && entry > low ? entry : low;",
     "low = entry <= to && entry > low ? entry : low;", "skiplist"),
    ("skiplist-upper-links-late", "memtable/skiplist*.c",
     "        atom_store(node_link(n, i), 0, relaxed);", "        (void)n;", "skiplist"),
    ("chain-insert-relaxed", "memtable/skiplist*.c", "if (atom_cas(link, &older, ref, release, relaxed)) {",
     "if (atom_cas(link, &older, ref, relaxed, relaxed)) {", "skiplist memtable"),
    ("chain-insert-on-top", "memtable/skiplist*.c", "if (version_tag(o) > tag) {", "if (version_tag(o) > tag + 100) {",
     "skiplist"),
    ("chain-newest-relaxed", "memtable/skiplist_node.h", "version_at(s, atom_load(&n->versions, acquire));",
     "version_at(s, atom_load(&n->versions, relaxed));", "skiplist memtable"),
    ("index-add-relaxed", "memtable/key_index.h", "atom_cas(&b->slot[i], &seen, entry, release, relaxed)",
     "atom_cas(&b->slot[i], &seen, entry, relaxed, relaxed)", "memtable write"),
    ("index-next-relaxed", "memtable/key_index.h", "atom_load(&b->slot[(*at)++], acquire);",
     "atom_load(&b->slot[(*at)++], relaxed);", "memtable write"),
    ("filter-after-link", "memtable/memtable.c",
     "    if (rc == LOAM_OK && hashed && place.node != 0) {", "    if (rc == LOAM_OK && hashed && place.node == 1) {",
     "memtable write"),
    ("filter-not-set", "memtable/memtable.c", "key_filter_add(&m->filter, key_hash);", "(void)0;",
     "memtable write"),
    ("arena-block-relaxed", "arena/arena.c", "atom_store(&a->current, b, release);",
     "atom_store(&a->current, b, relaxed);", "arena"),
    ("arena-cut-without-add", "arena/arena.c", "    at = atom_add(&b->mark, want, relaxed);",
     "    atom_store(&b->mark, at + want, relaxed);", "arena"),
    ("arena-lease-by-address", "arena/arena.h", "if (__builtin_expect(l->id == a->id, 1)) {",
     "if (__builtin_expect(l->id != 0, 1)) {", "arena"),
    ("arena-grows-twice", "arena/arena.c", "int rc = atom_load(&a->current, relaxed) == seen ? add_chunk(a) : LOAM_OK;",
     "(void)seen;\n    int rc = add_chunk(a);", "arena"),
    ("chunk-keep-relaxed", "arena/chunk_pool.c",
     "atom_cas(&p->idle[i], &free_place, chunk, release, relaxed)) {",
     "atom_cas(&p->idle[i], &free_place, chunk, relaxed, relaxed)) {", "chunk"),
    ("chunk-take-by-load", "arena/chunk_pool.c", "void *chunk = atom_swap(&p->idle[i], NULL, acquire);",
     "void *chunk = atom_load(&p->idle[i], acquire);\n        atom_store(&p->idle[i], NULL, relaxed);", "chunk"),
    # ---- commits and the write path ----
    ("commit-mark-release", "engine/commit.c", "atom_store(done_word(c, begin), end, seq_cst);",
     "atom_store(done_word(c, begin), end, release);", "commit"),
    ("commit-look-acquire", "engine/commit.c", "uint64_t end = atom_load(done_word(c, v), seq_cst);",
     "uint64_t end = atom_load(done_word(c, v), acquire);", "commit"),
    ("commit-advance-once", "engine/commit.c", "            v = end;\n            moved = true;",
     "            moved = true;\n            break;", "commit"),
    ("commit-no-lap-check", "engine/commit.c",
     "if (begin - commit_visible(c) >= (uint64_t)COMMIT_RING_WORDS * 8) {", "if (begin == UINT64_MAX) {", "commit"),
    ("commit-visible-relaxed", "engine/commit.h", "return atom_load(&c->visible, acquire);",
     "return atom_load(&c->visible, relaxed);", "commit write"),
    ("commit-no-wait", "engine/commit.c", "    advance(c);\n    commit_wait(c, end);", "    advance(c);",
     "commit write"),
    ("commit-sleep-without-look", "engine/commit.c",
     "        if (atom_load(&c->visible, seq_cst) >= position) {\n            break;\n        }\n        word_wait",
     "        if (tick == UINT32_MAX) {\n            break;\n        }\n        word_wait", "commit"),
    ("commit-sleepers-relaxed", "engine/commit.c", "if (atom_load(&c->sleepers, seq_cst) != 0) {",
     "if (atom_load(&c->sleepers, relaxed) != 0) {", "commit"),
    ("write-switch-relaxed", "wal/wal_writer.c", "if (atom_cas(&w->tail, &tail, entered, acq_rel, acquire)) {",
     "if (atom_cas(&w->tail, &tail, entered, relaxed, relaxed)) {", "write"),
    ("write-tail-blindly", "wal/wal_writer.c",
     "if (atom_cas(&w->tail, &tail, tail + (size << 8), acq_rel, acquire)) {",
     "if (atom_store(&w->tail, tail + (size << 8), release), true) {", "write"),
    # ---- block cache and slab ----
    ("cache-fill-blindly", "sstable/block_cache.c",
     "!atom_cas(&t->addr[block], &seen, addr, acq_rel, relaxed)) {",
     "(atom_store(&t->addr[block], addr, release), false)) {", "cache"),
    ("cache-stage-uncounted", "sstable/block_cache.c", "        s->pending++;\n", "", "cache"),
    ("cache-stage-settled-early", "sstable/block_cache.c",
     "    int rc = s->rc;\n    mutex_unlock(&c->stage_mutex);\n\n    bool tried",
     "    int rc = s->rc;\n    stage_settle_locked(s, 1);\n    mutex_unlock(&c->stage_mutex);\n\n    bool tried",
     "cache"),
    ("cache-stage-unlisted-early", "sstable/block_cache.c",
     "    while (s->pending != 0) {\n        cond_wait(&c->stage_done, &c->stage_mutex);\n    }\n", "", "cache"),
    ("cache-stage-wakes-nobody", "sstable/block_cache.c", "        cond_broadcast(&s->cache->stage_done);",
     "        (void)s;", "cache"),
    ("slab-give-by-store", "arena/slab*.c",
     "return atom_cas(&g->state[slot], &live, SLOT_CACHED, relaxed, relaxed);",
     "return atom_load(&g->state[slot], relaxed) == live &&\n           "
     "(atom_store(&g->state[slot], SLOT_CACHED, relaxed), true);", "slab"),
    # ---- group syncs ----
    ("wal-follower-early", "wal/wal_sync.c", "        uint64_t goal = w->sync_goal;\n        mutex_unlock(&w->sync_mu);",
     "        uint64_t goal = w->sync_goal;\n        raise_durable(w, goal);\n        mutex_unlock(&w->sync_mu);", "wal"),
    ("wal-sync-too-far", "wal/wal_sync.c", "uint64_t end = sealed ? atom_load(&wal_slot_of(w, g + 1)->base, relaxed) : goal;",
     "uint64_t end = sealed ? atom_load(&wal_slot_of(w, g + 1)->base, relaxed) : wal_position(w);\n"
     "        goal = sealed ? goal : end;", "wal"),
    ("wal-failed-sync-counts", "wal/wal_sync.c",
     "            int rc = wal_sync_segment(w, seg);\n            if (rc < 0) {",
     "            int rc = wal_sync_segment(w, seg);\n            if (rc == 0 && rc < 0) {", "wal"),
    ("wal-poison-forgotten", "wal/wal_sync.c", "        if (refused(w)) {", "        if (refused(w) && w->sync_goal == 0) {",
     "wal"),
    ("wal-sync-skips-a-segment", "wal/wal_sync.c", "for (uint32_t g = w->sync_from; g <= last; g++) {",
     "for (uint32_t g = last; g <= last; g++) {", "wal"),
    ("wal-leader-wakes-nobody", "wal/wal_sync.c",
     "        w->leading = false;\n        cond_broadcast(&w->sync_cv);\n        if (rc < 0) {",
     "        w->leading = false;\n        if (rc < 0) {", "wal"),
    ("wal-slot-limit-relaxed", "wal/wal_segment.c",
     "finds the tail moved. */\n    atom_store(&seg->limit, 0, release);",
     "finds the tail moved. */\n    atom_store(&seg->limit, 0, relaxed);", "wal"),
]


def build(copy):
    return subprocess.run(["cmake", "--build", "build", "--target", "loam-explore"], cwd=copy,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def explore(copy, scenarios):
    return subprocess.run(["build/tests/loam-explore", "--first", "--budget=60000", "--random=4000"] + scenarios.split(), cwd=copy,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


def try_one(copy, mutation):
    """'killed by ...', or what is wrong."""
    _, pattern, text, instead, scenarios = mutation
    for path in sorted(glob.glob(os.path.join(copy, pattern))):
        with open(path, encoding="utf-8") as f:
            original = f.read()
        if text in original:
            break
    else:
        return "DOES NOT APPLY"
    with open(path, "w", encoding="utf-8") as f:
        f.write(original.replace(text, instead, 1))
    try:
        made = build(copy)
        if made.returncode != 0:
            return "DOES NOT COMPILE\n" + made.stdout[-2000:]
        run = explore(copy, scenarios)
    finally:
        with open(path, "w", encoding="utf-8") as f:
            f.write(original)
    failed = [l.split()[1] for l in run.stdout.split("\n") if l.startswith("FAIL ")]
    return "killed by " + ", ".join(failed) if run.returncode != 0 and failed else "SURVIVED"


def main():
    wanted = [m for m in MUTATIONS if len(sys.argv) < 2 or m[0] in sys.argv[1:]]
    with tempfile.TemporaryDirectory(prefix="loam-mutations-") as copy:
        for name in os.listdir(ROOT):
            if name not in ("build", ".git"):
                source, target = os.path.join(ROOT, name), os.path.join(copy, name)
                (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, target)
        subprocess.run(["cmake", "-S", ".", "-B", "build", "-DCMAKE_BUILD_TYPE=Release",
                        "-DLOAM_BUILD_TOOLS=OFF"], cwd=copy, stdout=subprocess.DEVNULL, check=True)
        made = build(copy)
        if made.returncode != 0:
            sys.exit(made.stdout)
        killed = 0
        for m in wanted:
            verdict = try_one(copy, m)
            killed += verdict.startswith("killed")
            print(f"{m[0]:36} {verdict}", flush=True)
    print(f"{killed} passed, {len(wanted) - killed} failed")
    return killed != len(wanted)


if __name__ == "__main__":
    sys.exit(main())
