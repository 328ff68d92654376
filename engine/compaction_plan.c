/* compaction_plan.c - What a job must know while it runs.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction_plan.h"

#include <assert.h>

#include "arena/poison.h"

bool compaction_split_before(const struct compaction *c, struct compaction_split_state *s,
                             loam_slice key, uint64_t output_bytes)
{
    while (s->grandparent < c->grandparent_count) {
        const struct table_meta *m = &c->grandparents[s->grandparent]->meta;
        if (key_compare(c->cmp, key, m->largest) <= 0) {
            break;
        }
        s->overlap += s->any ? m->size : 0; /* those before the first key do not count */
        s->grandparent++;
    }
    s->any = true;
    if (output_bytes == 0) {
        s->overlap = 0;
        return false;
    }
    if (output_bytes < c->target_file_bytes && s->overlap <= c->grandparent_bytes) {
        return false;
    }
    s->overlap = 0;
    return true;
}

int compaction_remove_inputs(const struct compaction *c, struct version_edit *e)
{
    int rc = LOAM_OK;
    for (int side = c->trim != 0 ? 1 : 0; side < 2; side++) {
        uint8_t level = (uint8_t)(side == 0 ? c->level : c->output_level);
        for (uint32_t i = 0; i < c->input_count[side] && rc == LOAM_OK; i++) {
            rc = version_edit_remove_table(e, c->ks, level, c->inputs[side][i]->meta.number);
        }
    }
    return rc;
}

int compaction_move_edit(const struct compaction *c, struct version_edit *e)
{
    assert(c->is_move && c->input_count[1] == 0);
    int rc = compaction_remove_inputs(c, e);
    for (uint32_t i = 0; i < c->input_count[0] && rc == LOAM_OK; i++) {
        struct table_meta m = c->inputs[0][i]->meta;
        m.level = (uint8_t)c->output_level;
        rc = version_edit_add_table(e, &m);
    }
    return rc;
}
