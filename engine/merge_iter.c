/* merge_iter.c - A heap of sources.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/merge_iter.h"

#include <assert.h>

#include "arena/poison.h"

void merge_init(struct merge_iter *m, const loam_comparator *cmp, struct source **all,
                struct source **heap, uint32_t count)
{
    *m = (struct merge_iter){.cmp = cmp, .all = all, .heap = heap, .count = count, .forward = true};
    for (uint32_t i = 0; i < count; i++) {
        all[i]->rank = i;
    }
}

/* Whether a comes before b in the direction of the walk. */
static bool before(const struct merge_iter *m, const struct source *a, const struct source *b)
{
    int c = key_compare(m->cmp, a->entry.key, b->entry.key);
    if (c == 0 && a->entry.tag != b->entry.tag) {
        c = a->entry.tag > b->entry.tag ? -1 : 1; /* newest first */
    } else if (c == 0) { /* a log was read again of which a part is in tables: as a get has it */
        c = a->rank < b->rank ? -1 : 1;
    }
    return m->forward ? c < 0 : c > 0;
}

static void sift_down(struct merge_iter *m, uint32_t i)
{
    struct source *s = m->heap[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= m->heap_count) {
            break;
        }
        if (child + 1 < m->heap_count && before(m, m->heap[child + 1], m->heap[child])) {
            child++;
        }
        if (!before(m, m->heap[child], s)) {
            break;
        }
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = s;
}

/* The top is settled: notes who would be next. */
static void find_second(struct merge_iter *m)
{
    m->second = m->heap_count < 2 ? 0
                : m->heap_count > 2 && before(m, m->heap[2], m->heap[1]) ? 2
                                                                        : 1;
}

/* Takes the sources as they were just placed. */
static void rebuild(struct merge_iter *m, bool forward)
{
    m->forward = forward;
    m->heap_count = 0;
    m->rc = LOAM_OK;
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->all[i]->rc < 0) {
            m->rc = m->all[i]->rc;
            return;
        }
        if (m->all[i]->valid) {
            m->heap[m->heap_count++] = m->all[i];
        }
    }
    for (uint32_t i = m->heap_count / 2; i-- > 0;) {
        sift_down(m, i);
    }
    find_second(m);
}

void merge_first(struct merge_iter *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        source_first(m->all[i]);
    }
    rebuild(m, true);
}

void merge_last(struct merge_iter *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        source_last(m->all[i]);
    }
    rebuild(m, false);
}

void merge_seek(struct merge_iter *m, loam_slice key, uint64_t tag)
{
    for (uint32_t i = 0; i < m->count; i++) {
        source_aim(m->all[i], key);
    }
    for (uint32_t i = 0; i < m->count; i++) {
        source_land(m->all[i], key, tag);
    }
    rebuild(m, true);
}

void merge_seek_before(struct merge_iter *m, loam_slice key, uint64_t tag)
{
    for (uint32_t i = 0; i < m->count; i++) {
        source_seek_before(m->all[i], key, tag);
    }
    rebuild(m, false);
}

/* The top source has moved. */
static inline void settle_top(struct merge_iter *m)
{
    struct source *top = m->heap[0];
    if (top->valid) {
        if (m->second == 0 || before(m, top, m->heap[m->second])) {
            return; /* the common case: one comparison */
        }
    } else if (top->rc < 0) {
        m->rc = top->rc;
        return;
    } else {
        m->heap[0] = m->heap[--m->heap_count];
    }
    if (m->heap_count > 1) {
        sift_down(m, 0);
    }
    find_second(m);
}

void merge_next(struct merge_iter *m)
{
    assert(merge_valid(m) && m->forward);
    source_next(m->heap[0]);
    settle_top(m);
}

void merge_prev(struct merge_iter *m)
{
    assert(merge_valid(m) && !m->forward);
    source_prev(m->heap[0]);
    settle_top(m);
}
