/* version_set_roll.c - Starts a new manifest: the state of the moment as a snapshot, put in force by CURRENT.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_set.h"

#include "arena/status.h"

#include "arena/poison.h"

#define MANIFEST_GROWTH        4    /* times its snapshot, before a new one is started */
#define SNAPSHOT_RECORD_TABLES 512u /* tables a record of the snapshot, at most */

/* A snapshot being written: the edit that gathers fields, and the record they are encoded into. */
struct snapshot {
    struct manifest *to;
    struct version_edit edit;
    struct buf record;
};

static int snapshot_flush(struct snapshot *s)
{
    manifest_record_begin(&s->record);
    version_edit_encode(&s->edit, &s->record);
    version_edit_free(&s->edit);
    return manifest_write(s->to, &s->record);
}

static int snapshot_tables(struct snapshot *s, const struct ks_version *k)
{
    for (uint8_t n = 0; n < LEVEL_COUNT; n++) {
        for (uint32_t i = 0; i < k->level[n].count; i++) {
            struct table_meta m = k->level[n].tables[i]->meta;
            m.level = n;
            int rc = version_edit_add_table(&s->edit, &m);
            if (rc == LOAM_OK && s->edit.added_count == SNAPSHOT_RECORD_TABLES) {
                rc = snapshot_flush(s);
            }
            if (rc != LOAM_OK) {
                return rc;
            }
        }
    }
    return LOAM_OK;
}

void version_set_stamp_(struct version_set *vs, struct version_edit *e)
{
    uint64_t next_ks = atom_load(&vs->next_ks, relaxed); /* relaxed: see version_set_new_ks_id() */
    version_edit_set_next_file(e, version_set_next_file(vs));
    version_edit_set_next_ks(e, next_ks > KS_ID_MAX ? KS_ID_MAX + 1 : (uint32_t)next_ks);
    /* The number beside that of a log is one up to which tables hold all: none is better than a higher one. */
    bool part = e->has_log_number && (e->has_last_seq ? e->last_seq : vs->log_seq) < vs->last_seq;
    if (part) {
        e->has_last_seq = false;
    } else if (!e->has_last_seq || e->last_seq < vs->last_seq) {
        version_edit_set_last_seq(e, vs->last_seq);
    }
    for (uint32_t i = 0; i < e->added_count; i++) {
        if (e->last_seq < e->added[i].max_seq) {
            e->last_seq = e->added[i].max_seq;
        }
    }
}

/* The state of the moment, then `edit` (NULL: none), which ends the snapshot. */
static int write_snapshot(struct version_set *vs, struct snapshot *s, struct version_edit *edit)
{
    const struct version *v = version_set_current(vs);
    int rc = LOAM_OK;
    version_edit_set_log_number(&s->edit, vs->log_number, vs->log_none);
    if (vs->log_seq < vs->last_seq) {
        version_edit_set_last_seq(&s->edit, vs->log_seq);
        rc = snapshot_flush(s);
    }
    version_set_stamp_(vs, &s->edit);
    rc = rc == LOAM_OK ? keyspace_table_describe(&vs->keyspaces, &s->edit) : rc;
    for (uint32_t i = 0; i < v->ks_count && rc == LOAM_OK; i++) {
        rc = snapshot_tables(s, v->ks[i]);
    }
    if (rc != LOAM_OK || edit == NULL) {
        s->edit.snapshot_end = true;
        return rc == LOAM_OK ? snapshot_flush(s) : rc;
    }
    bool empty = s->edit.added_count == 0 && !s->edit.has_next_file;
    rc = empty ? LOAM_OK : snapshot_flush(s);
    if (rc == LOAM_OK) {
        /* Last: a file number given out since the snapshot was stamped must not make it go back. */
        version_set_stamp_(vs, edit);
        edit->snapshot_end = true;
        manifest_record_begin(&s->record);
        version_edit_encode(edit, &s->record);
        edit->snapshot_end = false;
        rc = manifest_write(s->to, &s->record);
    }
    return rc;
}

void version_set_doubt_(struct version_set *vs, enum file_kind kind, uint64_t number)
{
    if (vs->doubtful_count == vs->doubtful_cap) {
        uint32_t cap = vs->doubtful_cap != 0 ? vs->doubtful_cap * 2 : 8;
        void *p = alloc_resize(vs->options.alloc, MEM_VERSION, vs->doubtful,
                               vs->doubtful_cap * sizeof *vs->doubtful, cap * sizeof *vs->doubtful);
        if (p == NULL) {
            return; /* the scan of the next open finds the file */
        }
        vs->doubtful = p;
        vs->doubtful_cap = cap;
    }
    vs->doubtful[vs->doubtful_count++] = (struct obsolete_file){.number = number, .kind = kind};
}

void version_set_discard_(struct version_set *vs, enum file_kind kind, uint64_t number)
{
    if (vs->options.obsolete != NULL) {
        obsolete_files_add(vs->options.obsolete, kind, number);
    }
}

void version_set_limit_manifest_(struct version_set *vs)
{
    uint64_t grown = vs->manifest.snapshot_size * MANIFEST_GROWTH;
    vs->roll_at = grown > vs->options.manifest_bytes ? grown : vs->options.manifest_bytes;
}

/* The manifest `next` is in force: nothing older can be found by an open any more. */
static void adopt_manifest(struct version_set *vs, struct manifest *next)
{
    if (vs->manifest_number != 0) {
        version_set_discard_(vs, FILE_MANIFEST, vs->manifest_number);
    }
    for (uint32_t i = 0; i < vs->doubtful_count; i++) {
        version_set_discard_(vs, vs->doubtful[i].kind, vs->doubtful[i].number);
    }
    vs->doubtful_count = 0;
    manifest_destroy(&vs->manifest);
    vs->manifest = *next;
    vs->manifest_number = next->number;
    version_set_limit_manifest_(vs);
    atom_store(&vs->in_doubt, false, relaxed); /* relaxed: as in version_set_in_doubt() */
}

int version_set_roll_(struct version_set *vs, struct version_edit *edit, bool *unsure)
{
    *unsure = false;
    struct manifest next;
    int rc = manifest_init(&next, vs->options.vfs, vs->dir, vs->options.alloc);
    if (rc != LOAM_OK) {
        return rc;
    }
    bool first = vs->manifest_number == 0;
    uint64_t number = version_set_new_file(vs);
    struct snapshot s = {.to = &next};
    version_edit_init(&s.edit, vs->options.alloc);
    buf_init(&s.record, vs->options.alloc, MEM_VERSION);
    rc = manifest_create(&next, vs->db_id, number, first);
    bool created = rc == LOAM_OK;
    if (rc == LOAM_OK) {
        rc = write_snapshot(vs, &s, edit);
    }
    if (rc == LOAM_OK) {
        rc = manifest_finish_snapshot(&next);
    }
    if (rc == LOAM_OK) {
        rc = manifest_set_current(&next, false, unsure);
    }
    version_edit_free(&s.edit);
    buf_free(&s.record);
    if (rc == LOAM_OK) {
        *unsure = false;
        adopt_manifest(vs, &next);
        return LOAM_OK;
    }
    if (*unsure) {
        version_set_doubt_(vs, FILE_MANIFEST, number);
    } else if (created) {
        loam_error e = *loam_last_error();
        manifest_discard(&next);
        rc = status_raise(&e);
    }
    manifest_destroy(&next);
    return rc;
}
