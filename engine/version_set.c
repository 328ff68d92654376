/* version_set.c - Applies edits durably and publishes the versions they make.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_set.h"

#include <assert.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "engine/table_cache.h"

#include "arena/poison.h"

#define MANIFEST_BYTES_DEFAULT ((uint64_t)1 << 20)

/* ---- life ------------------------------------------------------------------------------------ */

int version_set_create(struct version_set *vs, const struct version_set_options *o)
{
    memset(vs, 0, sizeof *vs);
    vs->options = *o;
    if (vs->options.manifest_bytes == 0) {
        vs->options.manifest_bytes = MANIFEST_BYTES_DEFAULT;
    }
    mutex_init(&vs->mu, RANK_MANIFEST);
    version_edit_init(&vs->known, o->alloc);
    version_graveyard_init(&vs->graveyard);
    vs->build = (struct version_build){.alloc = o->alloc,
                                       .graveyard = &vs->graveyard,
                                       .order = {keyspace_order_find, &vs->keyspaces}};
    size_t n = strlen(o->dir) + 1;
    vs->dir = alloc_get(o->alloc, MEM_VERSION, n);
    if (vs->dir == NULL) {
        version_set_destroy(vs);
        return FAIL(LOAM_E_NOMEM, "no memory for the version set");
    }
    memcpy(vs->dir, o->dir, n);
    int rc = keyspace_table_init(&vs->keyspaces, o->alloc);
    if (rc == LOAM_OK) {
        rc = manifest_init(&vs->manifest, o->vfs, vs->dir, o->alloc);
    }
    struct version *v = rc == LOAM_OK ? version_empty(&vs->build) : NULL;
    if (rc == LOAM_OK && v == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for the version set");
    }
    if (rc != LOAM_OK) {
        version_set_destroy(vs);
        return rc;
    }
    /* relaxed: no other thread knows the set yet. */
    atom_store(&vs->current, v, relaxed);
    atom_store(&vs->next_file, 1, relaxed);
    return LOAM_OK;
}

/* Closes and queues what no version names. Tables whose reader is pinned wait in `zombies`. */
static void bury_locked(struct version_set *vs, struct table *dead)
{
    struct table *pinned = NULL;
    while (dead != NULL) {
        struct table *t = dead;
        dead = t->next;
        if (vs->options.cache != NULL && !table_cache_drop(vs->options.cache, t)) {
            t->next = pinned;
            pinned = t;
            continue;
        }
        if (vs->options.obsolete != NULL) {
            obsolete_files_add(vs->options.obsolete, FILE_TABLE, t->meta.number);
        }
        table_free(t);
    }
    vs->zombies = pinned;
}

static void reap_locked(struct version_set *vs)
{
    struct table *dead = vs->zombies;
    vs->zombies = NULL;
    struct version *v = version_graveyard_take(&vs->graveyard);
    while (v != NULL) {
        struct version *next = v->dead_next;
        version_free(v, &dead);
        v = next;
    }
    bury_locked(vs, dead);
}

void version_set_reap(struct version_set *vs)
{
    if (mutex_try_lock(&vs->mu)) {
        reap_locked(vs);
        mutex_unlock(&vs->mu);
    }
    keyspace_table_reap(&vs->keyspaces);
    if (vs->options.cache != NULL) {
        table_cache_poll(vs->options.cache);
    }
}

/* Gives up the current version without making its tables obsolete. */
static void release_current(struct version_set *vs)
{
    struct version *v = atom_swap(&vs->current, NULL, relaxed); /* relaxed: quiescent */
    struct table *dead = NULL;
    if (v != NULL) {
        version_free(v, &dead);
    }
    while (dead != NULL) {
        struct table *t = dead;
        dead = t->next;
        if (vs->options.cache != NULL) {
            bool dropped = table_cache_drop(vs->options.cache, t);
            assert(dropped);
            (void)dropped;
        }
        table_free(t);
    }
}

void version_set_destroy(struct version_set *vs)
{
    if (vs->manifest.path != NULL) {
        epoch_synchronize();
        mutex_lock(&vs->mu);
        reap_locked(vs);
        release_current(vs);
        mutex_unlock(&vs->mu);
        manifest_destroy(&vs->manifest);
    }
    alloc_put(vs->options.alloc, MEM_VERSION, vs->doubtful,
              vs->doubtful_cap * sizeof *vs->doubtful);
    version_edit_free(&vs->known);
    keyspace_table_destroy(&vs->keyspaces);
    if (vs->dir != NULL) {
        alloc_put(vs->options.alloc, MEM_VERSION, vs->dir, strlen(vs->dir) + 1);
    }
    version_graveyard_destroy(&vs->graveyard);
    mutex_destroy(&vs->mu);
}

/* ---- reading --------------------------------------------------------------------------------- */

struct version *version_set_ref_current(struct version_set *vs)
{
    epoch_enter();
    struct version *v = version_set_current(vs);
    while (!version_try_ref(v)) { /* it was replaced since the load: there is a newer one */
        v = version_set_current(vs);
    }
    epoch_exit();
    return v;
}

uint64_t version_set_bytes(struct version_set *vs)
{
    struct version *v = version_set_ref_current(vs);
    uint64_t bytes = version_bytes(v);
    version_unref(v);
    return bytes;
}

uint64_t version_set_new_file(struct version_set *vs)
{
    /* relaxed: only uniqueness matters; the edit that uses the number records what is above it. */
    return atom_add(&vs->next_file, 1, relaxed);
}

uint64_t version_set_next_file(const struct version_set *vs)
{
    return atom_load(&vs->next_file, relaxed); /* relaxed: a bound of the moment */
}

uint32_t version_set_next_ks(const struct version_set *vs)
{
    uint64_t next = atom_load(&vs->next_ks, relaxed); /* relaxed: a number that only grows */
    return next <= UINT32_MAX ? (uint32_t)next : UINT32_MAX;
}

uint64_t version_set_new_ks_id(struct version_set *vs)
{
    return atom_add(&vs->next_ks, 1, relaxed); /* relaxed: only uniqueness matters */
}

uint64_t version_set_last_seq(struct version_set *vs)
{
    mutex_lock(&vs->mu);
    uint64_t v = vs->last_seq;
    mutex_unlock(&vs->mu);
    return v;
}

uint64_t version_set_log_number(struct version_set *vs)
{
    mutex_lock(&vs->mu);
    uint64_t v = vs->log_number;
    mutex_unlock(&vs->mu);
    return v;
}

bool version_set_log_none(struct version_set *vs)
{
    mutex_lock(&vs->mu);
    bool none = vs->log_none;
    mutex_unlock(&vs->mu);
    return none;
}

bool version_set_sealed(struct version_set *vs, uint64_t *number, uint64_t *position)
{
    mutex_lock(&vs->mu);
    bool sealed = vs->sealed;
    *number = vs->sealed_number;
    *position = vs->sealed_position;
    mutex_unlock(&vs->mu);
    return sealed;
}

bool version_set_in_doubt(const struct version_set *vs)
{
    /* relaxed: a state to report; decisions are taken under mu. */
    return atom_load(&vs->in_doubt, relaxed);
}

/* ---- applying -------------------------------------------------------------------------------- */

static int writable(const struct version_set *vs)
{
    if (vs->options.read_only || vs->closed) {
        return FAIL(LOAM_E_READONLY, "the version set takes no edits");
    }
    return LOAM_OK;
}

/* Whether the edit also removes this table: then it moves, and its file is in use. */
static bool is_move(const struct version_edit *e, uint64_t number)
{
    for (uint32_t i = 0; i < e->removed_count; i++) {
        if (e->removed[i].number == number) {
            return true;
        }
    }
    return false;
}

/* Takes out what belongs to keyspaces that were dropped since the edit was begun. */
static void strip_dropped(struct version_set *vs, struct version_edit *e)
{
    epoch_enter();
    for (uint32_t i = e->added_count; i-- > 0;) {
        const struct table_meta *m = &e->added[i];
        if (keyspace_find(&vs->keyspaces, m->ks) != NULL) {
            continue;
        }
        bool created = false;
        for (uint32_t c = 0; c < e->created_count; c++) {
            created = created || e->created[c].id == m->ks;
        }
        if (!created) {
            if (!is_move(e, m->number)) {
                version_set_discard_(vs, FILE_TABLE, m->number);
            }
            version_edit_drop_added(e, i);
        }
    }
    uint32_t kept = 0;
    for (uint32_t i = 0; i < e->removed_count; i++) {
        if (keyspace_find(&vs->keyspaces, e->removed[i].ks) != NULL) {
            e->removed[kept++] = e->removed[i];
        }
    }
    e->removed_count = kept;
    epoch_exit();
}

/* Whether rc, the error of the moment, is a lack of space or descriptors. */
static bool comes_back(int rc)
{
    const loam_error *e = loam_last_error();
    return e->code == rc && (e->flags & LOAM_ERR_RETRY) != 0;
}

/* Makes the edit durable: appended to the manifest, or within a new one when that is not possible.
 * *unsure: after the error a later open may find the edit all the same. */
static int commit_locked(struct version_set *vs, struct version_edit *e, bool *unsure)
{
    *unsure = false;
    bool appended = false;
    if (manifest_is_open(&vs->manifest)) {
        struct buf record;
        buf_init(&record, vs->options.alloc, MEM_VERSION);
        manifest_record_begin(&record);
        version_set_stamp_(vs, e);
        version_edit_encode(e, &record);
        int rc = manifest_append(&vs->manifest, &record);
        buf_free(&record);
        if (rc == LOAM_OK || manifest_is_open(&vs->manifest)) {
            return rc;
        }
        appended = true;
    }
    bool roll_unsure;
    int rc = version_set_roll_(vs, e, &roll_unsure);
    if (rc != LOAM_OK) {
        *unsure = appended || roll_unsure;
        if (*unsure) {
            atom_store(&vs->in_doubt, true, relaxed); /* relaxed: see version_set_in_doubt() */
        }
        if (version_set_in_doubt(vs)) {
            /* The next edit ends the doubt; what was short comes back, and it is tried unasked. */
            uint32_t flags = comes_back(rc) ? 0u : LOAM_ERR_STICKY;
            status_add_flags(rc, flags | (*unsure ? LOAM_ERR_UNKNOWN : 0u));
        }
    }
    return rc;
}

void version_set_publish_(struct version_set *vs, struct version *v)
{
    /* release: pairs with the acquire in version_set_current(). */
    struct version *old = atom_swap(&vs->current, v, acq_rel);
    version_unref(old);
}

static void take_counters(struct version_set *vs, const struct version_edit *e)
{
    if (e->has_log_number) {
        assert(e->log_number >= vs->log_number);
        vs->log_number = e->log_number;
        vs->log_none = e->log_none;
    }
    if (e->has_last_seq && e->last_seq > vs->last_seq) {
        vs->last_seq = e->last_seq;
    }
    if (e->has_log_number && e->has_last_seq) {
        vs->log_seq = e->last_seq;
    }
    vs->sealed = e->has_sealed;
    vs->sealed_number = e->sealed_number;
    vs->sealed_position = e->sealed_position;
}

/* The files of the tables that the failed edit would have added are nobody's. */
static void disown_files(struct version_set *vs, const struct version_edit *e, bool unsure)
{
    for (uint32_t i = 0; i < e->added_count; i++) {
        uint64_t number = e->added[i].number;
        if (is_move(e, number)) {
            continue;
        }
        if (unsure) {
            version_set_doubt_(vs, FILE_TABLE, number);
        } else {
            version_set_discard_(vs, FILE_TABLE, number);
        }
    }
}

int version_set_apply_locked_(struct version_set *vs, struct version_edit *e)
{
    struct keyspace_change change = {0};
    struct version *v = NULL;
    bool unsure = false;
    vs->build.file_id = vs->manifest_number;
    strip_dropped(vs, e);
    int rc = writable(vs);
    if (rc == LOAM_OK) {
        rc = keyspace_change_prepare(&vs->keyspaces, e, vs->manifest_number, &change);
    }
    if (rc == LOAM_OK) {
        rc = version_apply(&vs->build, version_set_current(vs), e, &v);
    }
    if (rc == LOAM_OK) {
        rc = commit_locked(vs, e, &unsure);
    }
    if (rc == LOAM_OK) {
        keyspace_change_commit(&vs->keyspaces, &change);
        version_set_publish_(vs, v);
        take_counters(vs, e);
        return LOAM_OK;
    }
    if (v != NULL) {
        struct table *dead = NULL;
        version_free(v, &dead);
        while (dead != NULL) { /* the fresh ones; all others are in the current version */
            struct table *t = dead;
            dead = t->next;
            table_free(t);
        }
    }
    keyspace_change_abort(&vs->keyspaces, &change);
    disown_files(vs, e, unsure);
    return rc;
}

/* Starts a new manifest when the present one has grown long. An error is no loss: the edits are in
 * the present one; if it is not clear which of the two is in force, the next edit starts a third.
 */
static void roll_if_long(struct version_set *vs)
{
    if (!manifest_is_open(&vs->manifest) || vs->manifest.size < vs->roll_at) {
        return;
    }
    bool unsure;
    if (version_set_roll_(vs, NULL, &unsure) != LOAM_OK) {
        vs->roll_at = vs->manifest.size * 2;
        if (unsure) {
            manifest_close(&vs->manifest);
        }
    }
}

int version_set_apply(struct version_set *vs, struct version_edit *e)
{
    mutex_lock(&vs->mu);
    int rc = version_set_apply_locked_(vs, e);
    if (rc == LOAM_OK) {
        roll_if_long(vs);
    }
    loam_error saved = *loam_last_error();
    reap_locked(vs);
    mutex_unlock(&vs->mu);
    return rc == LOAM_OK ? rc : status_raise(&saved);
}

int version_set_resume(struct version_set *vs)
{
    mutex_lock(&vs->mu);
    int rc = writable(vs);
    if (rc == LOAM_OK && version_set_in_doubt(vs)) {
        bool unsure;
        rc = version_set_roll_(vs, NULL, &unsure);
        if (rc != LOAM_OK && !comes_back(rc)) {
            status_add_flags(rc, LOAM_ERR_STICKY);
        }
    }
    mutex_unlock(&vs->mu);
    return rc;
}

int version_set_close_clean(struct version_set *vs, uint64_t number, uint64_t position)
{
    struct version_edit e;
    version_edit_init(&e, vs->options.alloc);
    version_edit_set_sealed(&e, number, position);
    mutex_lock(&vs->mu);
    version_edit_move_dead(&e, &vs->known);
    int rc = version_set_apply_locked_(vs, &e);
    if (rc == LOAM_OK) {
        bool renamed;
        rc = manifest_set_current(&vs->manifest, true, &renamed);
        vs->closed = true;
        manifest_close(&vs->manifest);
    }
    mutex_unlock(&vs->mu);
    version_edit_free(&e);
    return rc;
}
