/* version_support.c - Versions of made-up tables, without a version set.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/engine/version_support.h"

#include "arena/epoch.h"
#include "tests/support/check.h"

static bool same_order(void *ctx, uint32_t ks, const loam_comparator **cmp)
{
    (void)ks;
    *cmp = ctx;
    return true;
}

void version_fix_start(struct version_fix *f, const loam_comparator *cmp)
{
    version_graveyard_init(&f->graveyard);
    f->build = (struct version_build){.alloc = alloc_global(),
                                      .graveyard = &f->graveyard,
                                      .order = {same_order, (void *)(uintptr_t)cmp}};
}

void version_fix_reap(struct version_fix *f)
{
    struct table *dead = NULL;
    struct version *v = version_graveyard_take(&f->graveyard);
    while (v != NULL) {
        struct version *next = v->dead_next;
        version_free(v, &dead);
        v = next;
    }
    while (dead != NULL) {
        struct table *t = dead;
        dead = t->next;
        table_free(t);
    }
}

void version_fix_stop(struct version_fix *f)
{
    epoch_synchronize();
    version_fix_reap(f);
    version_graveyard_destroy(&f->graveyard);
    CHECK_EQ(alloc_used_by(alloc_global(), MEM_VERSION), 0);
}

void version_fix_add(struct version_edit *e, struct table_meta m)
{
    if (m.size == 0) {
        m.size = 10;
        m.entries = 2;
    }
    m.max_seq = m.max_seq == 0 ? m.number : m.max_seq;
    CHECK_EQ(version_edit_add_table(e, &m), LOAM_OK);
}
