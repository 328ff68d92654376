/* compaction_split.c - Divides a compaction into parts of about equal size for parallel workers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Candidate cuts are the first keys of the input tables, and hints. They divide the keys into gaps;
 * a table's bytes are spread evenly over the gaps it reaches into, and cuts are taken where the sum
 * passes each n-th of the whole.
 */
#include "engine/compaction_plan.h"

#include <assert.h>
#include <string.h>

#include "engine/sort.h"

#include "arena/poison.h"

static bool key_less(const void *ctx, const void *a, const void *b)
{
    const struct compaction *c = ctx;
    return key_compare(c->cmp, *(const loam_slice *)a, *(const loam_slice *)b) < 0;
}

/* Sorted, without duplicates and without keys that would leave the first part empty. */
static uint32_t gather_cuts(const struct compaction *c, const loam_slice *hints,
                            uint32_t hint_count, loam_slice *cuts)
{
    uint32_t n = 0;
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < c->input_count[side]; i++) {
            cuts[n++] = c->inputs[side][i]->meta.smallest;
        }
    }
    for (uint32_t i = 0; i < hint_count; i++) {
        cuts[n++] = hints[i];
    }
    sort_elements(cuts, n, sizeof *cuts, key_less, c);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        bool inside = key_compare(c->cmp, cuts[i], c->range.lo) > 0 &&
                      key_compare(c->cmp, cuts[i], c->range.hi) <= 0;
        if (inside && (kept == 0 || key_compare(c->cmp, cuts[i], cuts[kept - 1]) > 0)) {
            cuts[kept++] = cuts[i];
        }
    }
    return kept;
}

/* How many cuts are <= key: the index of the gap that key lies in. */
static uint32_t gap_of(const struct compaction *c, const loam_slice *cuts, uint32_t n,
                       loam_slice key)
{
    uint32_t lo = 0;
    uint32_t hi = n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (key_compare(c->cmp, cuts[mid], key) <= 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

/* weights[0..n]: bytes of each gap. Holds differences first, sums of them at the end. */
static void weigh_gaps(const struct compaction *c, const loam_slice *cuts, uint32_t n,
                       double *weights)
{
    memset(weights, 0, (n + 2) * sizeof *weights);
    for (int side = 0; side < 2; side++) {
        for (uint32_t i = 0; i < c->input_count[side]; i++) {
            const struct table_meta *m = &c->inputs[side][i]->meta;
            uint32_t first = gap_of(c, cuts, n, m->smallest);
            uint32_t last = gap_of(c, cuts, n, m->largest);
            double each = (double)m->size / (double)(last - first + 1);
            weights[first] += each;
            weights[last + 1] -= each;
        }
    }
    for (uint32_t i = 1; i <= n; i++) {
        weights[i] += weights[i - 1];
    }
}

static uint32_t cut_ranges(const loam_slice *cuts, uint32_t n, const double *weights, double total,
                           uint32_t parts_max, struct key_range *ranges)
{
    uint32_t parts = 1;
    double sum = 0;
    for (uint32_t i = 0; i < n && parts < parts_max; i++) {
        sum += weights[i];
        if (sum >= total * parts / parts_max) {
            ranges[parts - 1].hi = cuts[i];
            ranges[parts] = (struct key_range){cuts[i], {NULL, 0}};
            parts++;
        }
    }
    return parts;
}

uint32_t compaction_split(const struct compaction *c, uint32_t n, const loam_slice *hints,
                          uint32_t hint_count, struct key_range *ranges)
{
    assert(n >= 1);
    ranges[0] = (struct key_range){{NULL, 0}, {NULL, 0}};
    uint64_t most = (uint64_t)c->input_count[0] + c->input_count[1] + hint_count;
    if (n == 1 || most > UINT32_MAX / 2) {
        return 1;
    }
    size_t cut_bytes = (size_t)most * sizeof(loam_slice);
    size_t weight_bytes = (size_t)(most + 2) * sizeof(double);
    loam_slice *cuts = alloc_get(c->alloc, MEM_VERSION, cut_bytes);
    double *weights = alloc_get(c->alloc, MEM_VERSION, weight_bytes);
    uint32_t parts = 1;
    if (cuts != NULL && weights != NULL) {
        uint32_t count = gather_cuts(c, hints, hint_count, cuts);
        weigh_gaps(c, cuts, count, weights);
        parts = cut_ranges(cuts, count, weights, (double)c->input_bytes, n, ranges);
    }
    alloc_put(c->alloc, MEM_VERSION, cuts, cut_bytes);
    alloc_put(c->alloc, MEM_VERSION, weights, weight_bytes);
    return parts;
}
