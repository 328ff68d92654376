/* repair.c - The steps of a repair, and the switch from the damaged state to the new one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/repair.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "arena/status.h"
#include "engine/lifecycle.h"
#include "engine/manifest_replay.h"
#include "engine/sort.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

#define ASIDE ".damaged"

/* ---- keyspaces --------------------------------------------------------------------------------- */

const struct ks_desc *repair_ks(const struct repair *r, uint32_t id)
{
    for (uint32_t i = 0; i < r->state.created_count; i++) {
        if (r->state.created[i].id == id) {
            return &r->state.created[i];
        }
    }
    return NULL;
}

static bool name_taken(const struct repair *r, loam_slice name)
{
    for (uint32_t i = 0; i < r->state.created_count; i++) {
        if (bytes_compare(r->state.created[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

#define NEW_NAME_CAP 40u

/* A name that no other keyspace has. */
static loam_slice new_name(const struct repair *r, uint32_t id, char name[NEW_NAME_CAP])
{
    int n = snprintf(name, NEW_NAME_CAP, "%s", id == KS_DEFAULT ? "default" : "");
    for (unsigned i = 0; n == 0 || name_taken(r, loam_bytes(name, (size_t)n)); i++) {
        n = snprintf(name, NEW_NAME_CAP, i == 0 ? "recovered-%u" : "recovered-%u-%u", (unsigned)id, i);
    }
    return loam_bytes(name, (size_t)n);
}

/* As described, unless a damaged manifest says two things of one number, or gives one name twice. */
static int take_ks(struct repair *r, const struct ks_desc *d)
{
    char name[NEW_NAME_CAP];
    struct ks_desc own = *d;
    if (repair_ks(r, d->id) != NULL) {
        return LOAM_OK;
    }
    if (name_taken(r, d->name)) {
        own.name = new_name(r, d->id, name);
    }
    return version_edit_create_ks(&r->state, &own);
}

int repair_add_ks(struct repair *r, uint32_t id, loam_slice comparator)
{
    char name[NEW_NAME_CAP];
    if (id > KS_ID_MAX) {
        return LOAM_OK; /* no keyspace ever had it */
    }
    const struct ks_desc d = {.id = id,
                              .compression = LOAM_COMPRESS_LZ4,
                              .filter_bits = 10,
                              .block_bytes = 4096,
                              .name = new_name(r, id, name),
                              .comparator = comparator};
    r->next_ks = r->next_ks > id ? r->next_ks : id + 1;
    return version_edit_create_ks(&r->state, &d);
}

bool repair_order(const struct repair *r, uint32_t id, const loam_comparator **cmp)
{
    const struct ks_desc *d = repair_ks(r, id);
    *cmp = NULL;
    if (d == NULL || d->comparator.size == 0) {
        return true;
    }
    const loam_comparator *given = id == KS_DEFAULT ? r->default_cmp : NULL;
    if (given != NULL &&
        bytes_compare(d->comparator, loam_bytes(given->name, strlen(given->name))) == 0) {
        *cmp = given;
        return true;
    }
    return false;
}

bool repair_lasting(const loam_error *e)
{
    if (e->code == LOAM_E_IO) {
        /* The medium, or something planted under the name; not a lack of descriptors or rights. */
        return e->sys_errno == EIO || e->sys_errno == ELOOP || e->sys_errno == EISDIR ||
               e->sys_errno == EINVAL;
    }
    return damage_is(e->code);
}

/* ---- files set aside --------------------------------------------------------------------------- */

int repair_set_aside(struct repair *r, enum file_kind kind, uint64_t number)
{
    const struct repair_aside a = {.file = {.number = number, .kind = kind}};
    buf_append(&r->aside, &a, sizeof a);
    return buf_status(&r->aside);
}

static int paths_of(const struct repair *r, const struct repair_aside *a, char path[FILENAME_CAP],
                    char aside[FILENAME_CAP + sizeof ASIDE])
{
    int rc = filename_make(r->dir, a->file.kind, a->file.number, path);
    if (rc == LOAM_OK) {
        size_t n = strlen(path);
        memcpy(aside, path, n);
        memcpy(aside + n, ASIDE, sizeof ASIDE);
    }
    return rc;
}

static size_t aside_count(const struct repair *r)
{
    return r->aside.size / sizeof(struct repair_aside);
}

static struct repair_aside *aside_at(const struct repair *r, size_t i)
{
    return (struct repair_aside *)(void *)r->aside.data + i;
}

/* The second names. Where the file system has no links, the first are changed after the switch. */
static int link_aside(struct repair *r)
{
    for (size_t i = 0; i < aside_count(r); i++) {
        char path[FILENAME_CAP], aside[FILENAME_CAP + sizeof ASIDE];
        int rc = paths_of(r, aside_at(r, i), path, aside);
        if (rc < 0) {
            return rc;
        }
        int neg = r->vfs->link(r->vfs->ctx, path, aside);
        aside_at(r, i)->linked = neg >= 0; /* else it is an older one's, or of this file already */
        if (neg < 0 && neg != -EEXIST && neg != -ENOENT && neg != -EOPNOTSUPP && neg != -EPERM &&
            neg != -EMLINK && neg != -ENOSYS) {
            return FAIL_IO(neg, aside_at(r, i)->file.number, 0,
                           "cannot give a damaged file a second name");
        }
    }
    int neg = r->vfs->sync_dir(r->vfs->ctx, r->dir);
    return neg < 0 ? FAIL_IO(neg, 0, 0, "cannot sync the database directory") : LOAM_OK;
}

/* Of a repair that did not come to its end. */
static void drop_second_names(struct repair *r)
{
    for (size_t i = 0; i < aside_count(r); i++) {
        char path[FILENAME_CAP], aside[FILENAME_CAP + sizeof ASIDE];
        if (aside_at(r, i)->linked && paths_of(r, aside_at(r, i), path, aside) == LOAM_OK) {
            (void)r->vfs->remove(r->vfs->ctx, aside);
        }
    }
}

/* After the switch nothing can fail any more: what stays is an orphan of the next open. CURRENT is
 * the new one by now. */
static void drop_first_names(struct repair *r)
{
    for (size_t i = 0; i < aside_count(r); i++) {
        char path[FILENAME_CAP], aside[FILENAME_CAP + sizeof ASIDE];
        loam_file *f;
        if (aside_at(r, i)->file.kind == FILE_CURRENT ||
            paths_of(r, aside_at(r, i), path, aside) < 0) {
            continue;
        }
        if (r->vfs->open(r->vfs->ctx, aside, LOAM_VFS_READ, &f) >= 0) {
            (void)r->vfs->close(r->vfs->ctx, f);
            (void)r->vfs->remove(r->vfs->ctx, path);
        } else {
            (void)r->vfs->rename(r->vfs->ctx, path, aside);
        }
    }
    (void)r->vfs->sync_dir(r->vfs->ctx, r->dir);
}

/* ---- the directory ----------------------------------------------------------------------------- */

struct listing {
    struct buf tables, manifests; /* numbers */
    uint64_t next_file;
};

static int note_file(void *arg, loam_slice name)
{
    struct listing *l = arg;
    enum file_kind kind;
    uint64_t number;
    if (!filename_parse(name, &kind, &number)) {
        return 0;
    }
    if (number >= l->next_file && number < FILENAME_COUNTED) { /* as in manifest_replay_check_files() */
        l->next_file = number + 1;
    }
    if (kind == FILE_TABLE || kind == FILE_MANIFEST) {
        buf_append(kind == FILE_TABLE ? &l->tables : &l->manifests, &number, sizeof number);
    }
    return 0;
}

static int list_directory(struct repair *r, struct listing *l)
{
    *l = (struct listing){.next_file = 1};
    buf_init(&l->tables, r->alloc, MEM_VERSION);
    buf_init(&l->manifests, r->alloc, MEM_VERSION);
    int neg = r->vfs->list(r->vfs->ctx, r->dir, note_file, l);
    if (neg < 0) {
        return FAIL_IO(neg, 0, 0, "cannot list the database directory");
    }
    if (l->tables.size != 0) {
        sort_numbers(l->tables.data, l->tables.size / 8);
    }
    if (l->manifests.size != 0) {
        sort_numbers(l->manifests.data, l->manifests.size / 8);
    }
    r->next_file = r->next_file > l->next_file ? r->next_file : l->next_file;
    return l->tables.oom ? buf_status(&l->tables) : buf_status(&l->manifests);
}

static void listing_free(struct listing *l)
{
    buf_free(&l->tables);
    buf_free(&l->manifests);
}

static uint64_t number_at(const struct buf *b, size_t i)
{
    uint64_t n;
    memcpy(&n, b->data + i * sizeof n, sizeof n);
    return n;
}

/* ---- with a manifest --------------------------------------------------------------------------- */

static void log_of(struct repair *r, const struct manifest_replay *m)
{
    r->log = (struct log_chain_options){.vfs = r->vfs,
                                        .dir = r->dir,
                                        .alloc = r->alloc,
                                        .db_id = r->db_id,
                                        .first_needed = m != NULL ? m->log_number : 0,
                                        .none = m != NULL && m->log_none,
                                        .last_seq = m != NULL ? m->last_seq : 0,
                                        .next_ks = m != NULL ? m->next_ks : 0,
                                        .sealed = m != NULL && m->sealed,
                                        .sealed_number = m != NULL ? m->sealed_number : 0,
                                        .sealed_position = m != NULL ? m->sealed_position : 0};
}

/* Whether the log may stay as it is: it ends where it should, or in a torn write. */
static int judge_log(struct repair *r)
{
    struct log_chain chain;
    int rc = log_chain_init(&chain, &r->log);
    if (rc == LOAM_OK) {
        rc = log_chain_run(&chain);
    }
    const loam_error e = *loam_last_error();
    log_chain_free(&chain);
    if (rc < 0) {
        status_raise(&e);
    }
    /* A log goes on at the last number of the tables: not when a repaired one has numbers beyond it. */
    r->log_kept = rc == LOAM_OK && r->last_seq <= r->log.last_seq;
    return rc < 0 && repair_lasting(loam_last_error()) ? LOAM_OK : rc;
}

static int by_manifest(struct repair *r, struct manifest_replay *m)
{
    int rc = LOAM_OK;
    r->whole = true;
    r->next_ks = m->next_ks;
    r->last_seq = m->last_seq;
    r->log_seq = m->log_seq;
    for (uint32_t i = 0; i < m->keyspaces.created_count && rc == LOAM_OK; i++) {
        rc = take_ks(r, &m->keyspaces.created[i]);
    }
    uint32_t count = m->table_count;
    struct table **tables = rc == LOAM_OK && count != 0 ? manifest_replay_take(m) : NULL;
    if (rc == LOAM_OK && count != 0 && tables == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for %u tables", count);
    }
    for (uint32_t i = 0; tables != NULL && i < count; i++) {
        rc = rc == LOAM_OK ? repair_note_held(r, &tables[i]->meta) : rc;
        rc = rc == LOAM_OK && !r->sink.stopped ? repair_table(r, &tables[i]->meta) : rc;
        table_free(tables[i]);
    }
    alloc_put(r->alloc, MEM_VERSION, tables, count * sizeof(struct table *));
    log_of(r, m);
    if (rc == LOAM_OK && !r->sink.stopped) {
        rc = judge_log(r);
    }
    if (rc == LOAM_OK && !r->log_kept && !r->sink.stopped) {
        rc = repair_log(r);
    }
    bool fit = true;
    rc = rc == LOAM_OK ? repair_fits(r, &fit) : rc;
    return rc == LOAM_OK && !fit ? repair_place(r) : rc;
}

/* ---- without one ------------------------------------------------------------------------------- */

static bool listed(const struct buf *list, uint64_t number)
{
    for (size_t i = 0; i < list->size / 8; i++) {
        if (number_at(list, i) == number) {
            return true;
        }
    }
    return false;
}

/* The id that the tables' own headers agree on; 0: there is none. */
static uint64_t id_of_tables(const struct repair *r, const struct listing *l)
{
    uint64_t id = 0;
    for (size_t i = 0; i < l->tables.size / 8 && id == 0; i++) {
        char path[FILENAME_CAP];
        struct sst_reader *t = NULL;
        if (filename_make(r->dir, FILE_TABLE, number_at(&l->tables, i), path) < 0) {
            continue;
        }
        const struct sst_open_options o = {
            .vfs = r->vfs, .alloc = r->alloc, .path = path, .inspect = true};
        if (sst_open(&o, &t) == LOAM_OK) {
            id = sst_props(t)->db_id;
        }
        sst_close(t);
    }
    return id;
}

/* Tells of tables that the readable part names and that are not there. */
static void tell_missing(struct repair *r, const struct manifest_salvage *s,
                         const struct listing *l)
{
    for (size_t i = 0; i < s->added.size / 8; i++) {
        uint64_t number = number_at(&s->added, i);
        if (!manifest_salvage_removed(s, number) && !listed(&l->tables, number)) {
            FAIL_CORRUPT(number, 0, "table %llu is missing; it may have been merged into others",
                         (unsigned long long)number);
            damage_tell(&r->sink, &(struct damage){.kind = FILE_TABLE,
                                                   .number = number,
                                                   .code = LOAM_E_NOENT,
                                                   .keys = DAMAGE_KEYS_UNKNOWN});
        }
    }
}

static int take_tables(struct repair *r, const struct manifest_salvage *s, const struct listing *l)
{
    int rc = LOAM_OK;
    for (size_t i = 0; i < l->tables.size / 8 && rc == LOAM_OK && !r->sink.stopped; i++) {
        const struct table_meta m = {.number = number_at(&l->tables, i),
                                     .entries = DAMAGE_KEYS_UNKNOWN};
        if (!manifest_salvage_removed(s, m.number)) {
            rc = repair_table(r, &m);
        }
    }
    return rc;
}

static int by_directory(struct repair *r, const struct manifest_salvage *s, const struct listing *l)
{
    int rc = LOAM_OK;
    uint64_t found = r->sink.found;
    r->whole = false;
    r->db_id = s->header ? s->db_id : r->db_id != 0 ? r->db_id : id_of_tables(r, l);
    r->db_id = r->db_id != 0 ? r->db_id : s->db_id;
    r->db_id = r->db_id != 0 ? r->db_id : 1;
    r->next_ks = s->next_ks;
    r->last_seq = s->last_seq;
    for (uint32_t i = 0; i < s->keyspaces.created_count && rc == LOAM_OK; i++) {
        rc = take_ks(r, &s->keyspaces.created[i]);
    }
    if (rc == LOAM_OK && repair_ks(r, KS_DEFAULT) == NULL) {
        const loam_comparator *cmp = r->default_cmp;
        rc = repair_add_ks(r, KS_DEFAULT,
                           cmp != NULL ? loam_bytes(cmp->name, strlen(cmp->name))
                                       : loam_bytes("", 0));
    }
    if (rc == LOAM_OK) {
        rc = take_tables(r, s, l);
    }
    if (rc == LOAM_OK) {
        tell_missing(r, s, l);
        /* A log that waits for its removal has puts whose deletes merges have dropped. */
        r->log_from = r->sink.found == found && !s->holes ? s->log_number : 0;
        log_of(r, NULL);
        rc = r->sink.stopped ? LOAM_OK : repair_log(r);
    }
    return rc == LOAM_OK && !r->sink.stopped ? repair_place(r) : rc;
}

/* ---- the new state ----------------------------------------------------------------------------- */

static void finish_state(struct repair *r)
{
    if (r->log_kept) {
        version_edit_set_log_number(&r->state, r->log.first_needed, r->log.none);
        version_edit_set_last_seq(&r->state, r->log.last_seq);
        if (r->log.sealed) {
            version_edit_set_sealed(&r->state, r->log.sealed_number, r->log.sealed_position);
        }
    } else {
        /* The log goes on behind everything that was ever seen; positions are multiples of 8. */
        version_edit_set_log_number(&r->state, r->next_file++, true);
        version_edit_set_last_seq(&r->state, r->last_seq | 7);
    }
    version_edit_set_next_ks(&r->state, r->next_ks);
    r->state.snapshot_end = true;
}

/* The log stays, and tables hold a part alone of what it has up to the last number: a record of its own says
 * up to where all. */
static int write_log_seq(struct repair *r, struct manifest *m, struct buf *record)
{
    struct version_edit e;
    version_edit_init(&e, r->alloc);
    version_edit_set_log_number(&e, r->log.first_needed, r->log.none);
    version_edit_set_last_seq(&e, r->log_seq);
    manifest_record_begin(record);
    version_edit_encode(&e, record);
    version_edit_free(&e);
    r->state.has_log_number = false;
    return manifest_write(m, record);
}

static int switch_state(struct repair *r)
{
    struct manifest m;
    struct buf record;
    bool renamed = false;
    uint64_t number = r->next_file++;
    finish_state(r);
    version_edit_set_next_file(&r->state, r->next_file);
    int rc = manifest_init(&m, r->vfs, r->dir, r->alloc);
    if (rc != LOAM_OK) {
        return rc;
    }
    buf_init(&record, r->alloc, MEM_VERSION);
    rc = manifest_create(&m, r->db_id, number, false);
    if (rc == LOAM_OK && r->log_kept && r->log_seq < r->log.last_seq) {
        rc = write_log_seq(r, &m, &record);
    }
    manifest_record_begin(&record);
    version_edit_encode(&r->state, &record);
    rc = rc == LOAM_OK ? manifest_write(&m, &record) : rc;
    rc = rc == LOAM_OK ? manifest_finish_snapshot(&m) : rc;
    rc = rc == LOAM_OK ? manifest_set_current(&m, false, &renamed) : rc;
    const loam_error e = *loam_last_error();
    if (rc < 0 && !renamed) {
        manifest_discard(&m);
    }
    manifest_destroy(&m);
    buf_free(&record);
    if (rc < 0) {
        status_raise(&e);
        return renamed ? status_add_flags(rc, LOAM_ERR_UNKNOWN) : rc;
    }
    return LOAM_OK;
}

/* Tables of a repair that did not come to its end; orphans otherwise, for an open to remove. */
static void drop_new_tables(struct repair *r, uint64_t first)
{
    for (uint64_t n = first; n < r->next_file; n++) {
        char path[FILENAME_CAP];
        if (filename_make(r->dir, FILE_TABLE, n, path) == LOAM_OK) {
            (void)r->vfs->remove(r->vfs->ctx, path);
        }
    }
}

/* From where new files are numbered: not from the next number of a manifest that was closed cleanly,
 * for a table there says that edits are missing. */
static void start_numbers(struct repair *r, const struct manifest_replay *m)
{
    uint64_t first = m->next_file;
    if (m->sealed && first < FILENAME_COUNTED) {
        first += MANIFEST_REPLAY_GAP;
    }
    r->next_file = r->next_file > first ? r->next_file : first;
}

static int build_and_switch(struct repair *r, struct manifest_replay *m,
                            const struct manifest_salvage *s, const struct listing *l)
{
    if (m != NULL) {
        start_numbers(r, m);
    } else {
        r->next_file = r->next_file > s->next_file ? r->next_file : s->next_file;
    }
    uint64_t first = r->next_file;
    int rc = m != NULL ? by_manifest(r, m) : by_directory(r, s, l);
    if (rc == LOAM_OK && r->sink.stopped) {
        rc = LOAM_STOPPED;
    }
    if (rc == LOAM_OK) {
        rc = link_aside(r); /* syncs the names of the new tables too */
    }
    if (rc != LOAM_OK) {
        const loam_error e = *loam_last_error();
        drop_new_tables(r, first > l->next_file ? first : l->next_file);
        drop_second_names(r);
        return rc < 0 ? status_raise(&e) : rc;
    }
    rc = switch_state(r);
    if (rc == LOAM_OK) {
        drop_first_names(r);
    } else if ((loam_last_error()->flags & LOAM_ERR_UNKNOWN) == 0) {
        const loam_error e = *loam_last_error();
        drop_new_tables(r, first > l->next_file ? first : l->next_file);
        drop_second_names(r);
        rc = status_raise(&e);
    }
    return rc;
}

/* ---- the whole --------------------------------------------------------------------------------- */

static void tell_manifest(struct repair *r, enum file_kind kind, uint64_t number,
                          const loam_error *e)
{
    status_raise(e);
    damage_tell(&r->sink, &(struct damage){.kind = kind,
                                           .number = number,
                                           .offset = e->offset,
                                           .keys = DAMAGE_KEYS_UNKNOWN});
}

/* The manifest to gather from: the one in force if that is known, else the newest. */
static int read_remains(struct repair *r, const struct manifest_current *current,
                        const struct listing *l, struct manifest_salvage *s)
{
    size_t n = l->manifests.size / 8;
    uint64_t number = current->number;
    if (!listed(&l->manifests, number)) {
        number = n != 0 ? number_at(&l->manifests, n - 1) : 0;
    }
    int rc = n != 0 ? manifest_salvage_read(s, r->vfs, r->dir, number) : LOAM_OK;
    if (rc == LOAM_OK && n != 0) {
        rc = repair_set_aside(r, FILE_MANIFEST, number);
    }
    if (rc == LOAM_OK) {
        rc = repair_set_aside(r, FILE_CURRENT, 0);
    }
    return rc < 0 && rc != LOAM_E_FORMAT && repair_lasting(loam_last_error()) ? LOAM_OK : rc;
}

static int repair_locked(struct repair *r)
{
    struct manifest_current current = {0};
    struct manifest_replay m;
    struct manifest_salvage s;
    struct listing l;
    manifest_replay_init(&m, r->alloc);
    manifest_salvage_init(&s, r->alloc);
    int rc = list_directory(r, &l);
    int read = manifest_read_current(r->vfs, r->dir, &current);
    enum file_kind kind = FILE_CURRENT;
    if (read == LOAM_E_NOENT) {
        read = FAIL_CORRUPT(0, 0, "CURRENT is missing beside files of a database");
    } else if (read == LOAM_OK) {
        kind = FILE_MANIFEST;
        r->db_id = current.db_id;
        read = manifest_replay_run(&m, r->vfs, r->dir, &current);
    }
    const loam_error e = *loam_last_error();
    if (rc == LOAM_OK && read == LOAM_OK) {
        rc = build_and_switch(r, &m, NULL, &l);
    } else if (rc == LOAM_OK && !repair_lasting(&e)) {
        rc = status_raise(&e);
    } else if (rc == LOAM_OK) {
        rc = read_remains(r, &current, &l, &s);
        if (rc == LOAM_OK && read == LOAM_E_FORMAT && !s.header && id_of_tables(r, &l) == 0) {
            rc = status_raise(&e); /* nothing says that it is ours, and of this format */
        }
        if (rc == LOAM_OK) {
            tell_manifest(r, kind, current.number, &e);
            rc = build_and_switch(r, NULL, &s, &l);
        }
    }
    listing_free(&l);
    manifest_salvage_free(&s);
    manifest_replay_free(&m);
    return rc;
}

int repair_directory(const loam_vfs *vfs, const char *dir, struct alloc *a,
                     const loam_comparator *default_cmp, loam_damage_fn fn, void *ctx)
{
    char path[FILENAME_CAP];
    loam_file *lock;
    int rc = check_directory(vfs, dir, a, default_cmp, NULL, NULL);
    if (rc == LOAM_E_NOENT) {
        return rc; /* and no LOCK is left where no database is */
    }
    rc = filename_make(dir, FILE_LOCK, 0, path);
    if (rc == LOAM_OK) {
        rc = lifecycle_lock(vfs, path, &lock);
    }
    if (rc < 0) {
        return rc;
    }
    /* Once more: nobody writes now. */
    rc = check_directory(vfs, dir, a, default_cmp, NULL, NULL);
    if (damage_is(rc) && rc != LOAM_E_NOENT) {
        struct repair r = {.vfs = vfs,
                           .dir = dir,
                           .alloc = a,
                           .default_cmp = default_cmp,
                           .sink = {.fn = fn, .ctx = ctx},
                           .next_file = 1};
        version_edit_init(&r.state, a);
        buf_init(&r.aside, a, MEM_VERSION);
        buf_init(&r.held, a, MEM_VERSION);
        rc = repair_locked(&r);
        version_edit_free(&r.state);
        buf_free(&r.aside);
        buf_free(&r.held);
    }
    const loam_error e = *loam_last_error();
    (void)vfs->close(vfs->ctx, lock);
    return rc < 0 ? status_raise(&e) : rc;
}
