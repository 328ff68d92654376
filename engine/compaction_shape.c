/* compaction_shape.c - Measures levels against their targets.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction_shape.h"

#include "arena/poison.h"

#define LAST        (LEVEL_COUNT - 1)
#define DRAIN_SCORE 1.5 /* of a level that should not be there */

#define KIB ((uint64_t)1 << 10)
#define MIB ((uint64_t)1 << 20)

static uint64_t clamp(uint64_t v, uint64_t lo, uint64_t hi)
{
    return v < lo ? lo : v > hi ? hi : v;
}

void compaction_tunables_init(struct compaction_tunables *t, uint64_t memtable_bytes)
{
    *t = (struct compaction_tunables){
        .l0_trigger_files = 12, .l0_idle_files = 4, .multiplier = 10, .space_percent = 25};
    t->target_file_bytes = clamp(memtable_bytes / 2, 256 * KIB, 64 * MIB);
    t->base_level_bytes = clamp(t->l0_trigger_files * memtable_bytes, MIB, UINT64_MAX / 256);
    t->max_input_bytes = 25 * t->target_file_bytes;
    t->grandparent_bytes = 10 * t->target_file_bytes;
}

/* ---- targets --------------------------------------------------------------------------------- */

struct compaction_shape compaction_shape_of(const struct ks_version *k,
                                            const struct compaction_tunables *t)
{
    struct compaction_shape s = {.base = LAST};
    uint64_t bytes = t->base_level_bytes;
    for (int n = 1; n < LEVEL_COUNT; n++) {
        bytes = k->level[n].bytes > bytes ? k->level[n].bytes : bytes;
    }
    s.target[LAST] = bytes;
    while (s.base > 1 && bytes / t->multiplier >= t->base_level_bytes) {
        bytes /= t->multiplier;
        s.target[--s.base] = bytes;
    }
    return s;
}

int compaction_output_level(const struct ks_version *k, const struct compaction_shape *s, int level)
{
    int out = level + 1;
    while (out < s->base && k->level[out].count == 0) {
        out++;
    }
    return out;
}

bool compaction_can_shrink(const struct table *t, uint64_t oldest)
{
    return table_garbage(t) != 0 && t->meta.max_seq <= oldest;
}

/* Bytes of the level's tables that no job has, those of mostly deletes counted twice. */
static uint64_t urgent_bytes(const struct level *l)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        const struct table *t = l->tables[i];
        if (!t->compacting) {
            sum += table_dense_deletes(t) ? 2 * t->meta.size : t->meta.size;
        }
    }
    return sum;
}

double compaction_level_score(const struct ks_version *k, const struct compaction_shape *s,
                              const struct compaction_tunables *t, int level, uint64_t oldest)
{
    const struct level *l = &k->level[level];
    if (l->count == 0) {
        return 0;
    }
    if (level == 0) {
        double files = (double)l->count / t->l0_trigger_files;
        double bytes = (double)l->bytes / (double)t->base_level_bytes;
        return files > bytes ? files : bytes;
    }
    if (level < LAST) {
        uint64_t bytes = urgent_bytes(l);
        if (s->target[level] == 0) {
            return bytes != 0 ? DRAIN_SCORE : 0;
        }
        return (double)bytes / (double)s->target[level];
    }
    for (uint32_t i = 0; i < l->count; i++) {
        const struct table *x = l->tables[i];
        bool dense = table_garbage(x) > x->meta.entries / 2;
        if (!x->compacting && dense && compaction_can_shrink(x, oldest)) {
            return 1;
        }
    }
    return 0;
}

/* ---- debt ------------------------------------------------------------------------------------ */

/* What rewriting `over` bytes out of `bytes` costs when `next` bytes lie below them all. */
static double cost_of(double over, double bytes, double next, const struct compaction_tunables *t)
{
    double ratio = bytes > 0 ? next / bytes : 0;
    double most = 2.0 * t->multiplier; /* a small level under a huge one is merged in part */
    return over * (1 + (ratio < most ? ratio : most));
}

uint64_t compaction_debt_bytes_ks(const struct ks_version *k, const struct compaction_tunables *t)
{
    struct compaction_shape s = compaction_shape_of(k, t);
    double debt = 0;
    double arriving[LEVEL_COUNT + 1] = {0}; /* from the levels above, once they are in shape */
    for (int n = 0; n < LAST; n++) {
        double bytes = (double)k->level[n].bytes + arriving[n];
        double target = n == 0 ? (double)t->base_level_bytes : (double)s.target[n];
        if (bytes <= target) {
            continue;
        }
        int out = compaction_output_level(k, &s, n);
        debt += cost_of(bytes - target, bytes, (double)k->level[out].bytes, t);
        arriving[out] += bytes - target;
    }
    return (uint64_t)debt;
}

uint64_t compaction_debt_bytes(const struct version *v, const struct compaction_tunables *t)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < v->ks_count; i++) {
        sum += compaction_debt_bytes_ks(v->ks[i], t);
    }
    return sum;
}

bool compaction_wastes_space(const struct ks_version *k, uint32_t percent)
{
    const struct level *last = &k->level[LAST];
    double bytes = 0;
    double puts = 0;
    double entries = 0;
    for (int n = 0; n < LAST; n++) {
        const struct level *l = &k->level[n];
        bytes += (double)l->bytes;
        entries += (double)l->entries;
        if (l->entries != 0) {
            puts += (double)l->bytes * (double)(l->entries - l->deletes) / (double)l->entries;
        }
    }
    if (bytes <= 0 || last->count == 0) {
        return bytes > 0;
    }
    double hidden = entries < (double)last->entries
                        ? (double)last->bytes * entries / (double)last->entries
                        : (double)last->bytes;
    double live = (double)last->bytes - hidden + puts;
    return ((double)last->bytes + bytes) * 100 > live * (100 + percent);
}
