/* compaction_part.c - Picks a part of level 0 when the disk has no space to merge all of it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The oldest tables can go down by themselves: what stays in level 0 is newer. Where even that is too much,
 * neighbours of like size are merged where they are, so that their number stays small.
 */
#include "engine/compaction_draft.h"

#include "arena/poison.h"

#define OUTPUT_FILES 2u /* what level 0 gets is at most as large as so many tables of other levels */

/* Half of the tables, or a quarter, and so on: the first part that there is space for, if it is worth what it
 * rewrites below. */
static bool oldest_down(const struct site *s, int out, struct draft *d)
{
    const struct level *l = &s->k->level[0]; /* the newest first */
    for (uint32_t n = l->count / 2; n != 0; n /= 2) {
        *d = (struct draft){.level = 0, .output_level = out, .in[0] = {l->tables + l->count - n, n}};
        if (draft_complete(s, d) && draft_fits(s, d)) {
            return !draft_is_dear(s, d);
        }
    }
    return false;
}

/* The cheapest run for each table that goes away. One that holds a table as large as all others together
 * would rewrite that again and again; one that makes a table larger than a few memtables leaves one that
 * no trim has space for. */
static struct run cheapest_neighbours(const struct site *s)
{
    const struct level *l = &s->k->level[0];
    uint64_t most = OUTPUT_FILES * s->p->tunables.target_file_bytes;
    most = most < s->p->room ? most : s->p->room;
    struct run best = {NULL, 0};
    double best_each = 0;
    for (uint32_t i = 0; i < l->count; i++) {
        uint64_t bytes = 0, largest = 0;
        for (uint32_t n = 1; i + n <= l->count; n++) {
            uint64_t size = l->tables[i + n - 1]->meta.size;
            bytes += size;
            largest = size > largest ? size : largest;
            if (bytes > most) {
                break;
            }
            double each = (double)bytes / n;
            if (n >= L0_RUN_MIN && largest <= bytes / 2 &&
                (best.count == 0 || each < best_each)) {
                best = (struct run){l->tables + i, n};
                best_each = each;
            }
        }
    }
    return best;
}

int compaction_pick_part_of_l0(const struct site *s, int out, struct compaction **c)
{
    struct draft d;
    if (oldest_down(s, out, &d)) {
        return draft_commit(s, &d, c);
    }
    d = (struct draft){.in[0] = cheapest_neighbours(s)};
    return d.in[0].count != 0 ? draft_try(s, &d, c) : LOAM_NOTFOUND;
}
