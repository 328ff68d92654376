/* iter_versions.c - Passing the versions of one key, and searching past the many.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/iter_versions.h"

#include "engine/iter_lend.h"

#include "arena/poison.h"

/* Where the versions that are seen begin. */
static uint64_t newest_tag(const struct db_iter *it)
{
    return it->seq << 8 | 0xff;
}

/* ---- forward ----------------------------------------------------------------------------------- */

/* Whether the many belong to one key is asked only here, once in a while: a move also meets many keys that are all new.
 */
int iter_versions_newer_(struct db_iter *it, uint32_t n)
{
    if (n > SKIPS_BEFORE_SEEK && iter_versions_on(it)) {
        merge_seek(&it->merge, buf_slice(&it->key), newest_tag(it));
        return LOAM_OK;
    }
    int rc = iter_lend_key(it, merge_entry(&it->merge)->key);
    if (rc == LOAM_OK) {
        merge_next(&it->merge);
    }
    return rc;
}

/* ---- backward ---------------------------------------------------------------------------------- */

/* Takes the version the merge stands on for the newest. */
static int take(struct db_iter *it, uint64_t *seq, bool *found)
{
    const struct entry *e = merge_entry(&it->merge);
    *seq = tag_seq(e->tag);
    *found = tag_kind(e->tag) != ENTRY_DELETE;
    return *found ? iter_lend_value(it, it->merge.heap[0], false) : LOAM_OK;
}

/* Takes the newest that is seen, from anywhere. The merge is then before the key; of one that is deleted, before its
 * versions that are seen, as it is to be known whether there are newer ones (dead_walk.h). */
static int take_newest(struct db_iter *it, uint64_t *seq, bool *found)
{
    loam_slice key = buf_slice(&it->key);
    merge_seek(&it->merge, key, newest_tag(it));
    int rc = iter_versions_on(it) ? take(it, seq, found) : it->merge.rc;
    if (rc == LOAM_OK) {
        merge_seek_before(&it->merge, key, *found ? UINT64_MAX : newest_tag(it));
    }
    return rc;
}

int iter_versions_gather(struct db_iter *it, uint64_t *seq, bool *newer)
{
    bool found = false;
    *seq = 0;
    *newer = false;
    int rc = iter_lend_key(it, merge_entry(&it->merge)->key);
    for (uint32_t n = 0; rc == LOAM_OK && iter_versions_on(it); n++) {
        *newer = tag_seq(merge_entry(&it->merge)->tag) > it->seq;
        if (*newer && n >= SKIPS_BEFORE_SEEK) {
            merge_seek_before(&it->merge, buf_slice(&it->key), UINT64_MAX); /* so are the rest */
        } else if (n >= SKIPS_BEFORE_SEEK) {
            rc = take_newest(it, seq, &found);
        } else {
            rc = *newer ? LOAM_OK : take(it, seq, &found);
            if (rc == LOAM_OK) { /* else the source may have no entry any more */
                merge_prev(&it->merge);
            }
        }
    }
    return rc < 0 ? rc : it->merge.rc < 0 ? it->merge.rc : found ? LOAM_OK : LOAM_NOTFOUND;
}
