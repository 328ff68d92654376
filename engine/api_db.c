/* api_db.c - Public calls on databases and keyspaces, checked and handed on.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "arena/status.h"
#include "engine/background.h"
#include "engine/call.h"
#include "engine/handles.h"
#include "engine/keyspace_order.h"
#include "engine/lifecycle.h"
#include "engine/loam.h"
#include "engine/object.h"

#include "arena/poison.h"

#define STRING_(x) #x
#define STRING(x)  STRING_(x)

uint32_t loam_version(void)
{
    return LOAM_VERSION_MAJOR << 16 | LOAM_VERSION_MINOR << 8 | LOAM_VERSION_PATCH;
}

#if defined(__clang__)
#define COMPILER __VERSION__
#else
#define COMPILER "gcc " __VERSION__
#endif

const char *loam_build_info(void)
{
    return "loam " STRING(LOAM_VERSION_MAJOR) "." STRING(LOAM_VERSION_MINOR) "." STRING(
        LOAM_VERSION_PATCH) " (" COMPILER "; xxh3, lz4"
#if defined(LOAM_HAVE_ZSTD)
                            ", zstd"
#endif
#if !defined(NDEBUG)
                            "; assertions on"
#endif
                            ")";
}

/* ---- open and close ---------------------------------------------------------------------------- */

int loam_open(const char *dir, const loam_options *opts, loam_db **out)
{
    if (out == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_open: db is NULL");
    }
    *out = NULL;
    if (dir == NULL || dir[0] == '\0') {
        return FAIL(LOAM_E_INVAL, "loam_open: dir is %s", dir == NULL ? "NULL" : "empty");
    }
    struct options o;
    int rc = options_resolve(opts, &o);
    if (rc < 0) {
        return rc;
    }
    struct db *db;
    rc = lifecycle_open(dir, &o, &db);
    if (rc == LOAM_OK) {
        *out = HANDLE_AS(loam_db, db->handle);
    }
    return rc;
}

int loam_close(loam_db *handle)
{
    if (handle == NULL) {
        return LOAM_OK;
    }
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    background_wind_down(c.db); /* what is inside and waits, or merges, ends early */
    call_end(&c);
    /* Whoever erases the handle closes; calls that are inside end first. */
    void *db = NULL;
    rc = slotmap_erase_wait(&registry_get()->dbs, HANDLE_OF(handle), UINT64_MAX, &db);
    if (rc < 0) {
        return FAIL(LOAM_E_CLOSED, "the database of this handle is closed");
    }
    return lifecycle_close(db);
}

int loam_destroy(const char *dir, const loam_options *opts)
{
    if (dir == NULL || dir[0] == '\0') {
        return FAIL(LOAM_E_INVAL, "loam_destroy: dir is NULL or empty");
    }
    struct options o;
    int rc = options_resolve(opts, &o);
    if (rc == LOAM_OK) {
        const struct db_vfs_options how = {.inner = o.user.vfs, .alloc = alloc_global()};
        struct db_vfs files;
        db_vfs_init(&files, &how, dir);
        rc = lifecycle_destroy(dir, &files.vfs);
        db_vfs_destroy(&files);
    }
    return rc;
}

const char *loam_path(const loam_db *handle)
{
    struct call c;
    if (call_begin_raw(&c, HANDLE_OF(handle)) < 0) {
        return "";
    }
    const char *dir = c.db->dir;
    call_end(&c);
    return dir;
}

/* ---- keyspaces --------------------------------------------------------------------------------- */

static int check_name(const char *name, const char *what)
{
    if (name == NULL || name[0] == '\0' || strlen(name) > LOAM_MAX_KS_NAME) {
        return FAIL(LOAM_E_INVAL, "%s: the name is NULL, empty or over %u bytes", what,
                    LOAM_MAX_KS_NAME);
    }
    return LOAM_OK;
}

static loam_slice name_slice(const char *name)
{
    return loam_bytes(name, strlen(name));
}

/* A call that may do I/O for long: pinned, outside of the section, one at a time. */
static int control_begin(struct call *c, loam_db *handle)
{
    int rc = call_begin_waiting(c, handle);
    if (rc < 0) {
        return rc;
    }
    mutex_lock(&c->db->control_mu);
    return LOAM_OK;
}

static void control_end(struct call *c)
{
    mutex_unlock(&c->db->control_mu);
    call_end(c);
}

static int writable(const struct db *db)
{
    return db->readonly ? FAIL(LOAM_E_READONLY, "the database was opened read-only") : LOAM_OK;
}

static int create_keyspace(struct db *db, const char *name, const loam_ks_options *o)
{
    int rc = writable(db);
    if (rc < 0) {
        return rc;
    }
    uint64_t id = version_set_new_ks_id(&db->versions);
    if (id > KS_ID_MAX) {
        return FAIL(LOAM_E_TOOBIG, "all %u keyspace numbers are used up", KS_ID_MAX);
    }
    struct version_edit e;
    version_edit_init(&e, &db->alloc);
    const struct ks_desc desc = {
        .id = (uint32_t)id,
        .compression = o->compression,
        .filter_bits = o->filter_bits != 0 ? o->filter_bits : UINT32_MAX,
        .block_bytes = o->block_bytes,
        .name = name_slice(name),
        .comparator = o->comparator != NULL ? name_slice(o->comparator->name) : loam_bytes("", 0),
    };
    rc = version_edit_create_ks(&e, &desc);
    if (rc == LOAM_OK) {
        rc = db_apply_edit(db, &e);
    }
    version_edit_free(&e);
    return rc;
}

/* A keyspace that was just created has no entries to put in order, so that nothing of it fails. */
static int find_or_create(struct db *db, const char *name, const loam_ks_options *o,
                          struct keyspace **space)
{
    *space = keyspace_get_by_name(&db->versions.keyspaces, name_slice(name));
    if (*space != NULL) {
        return keyspace_order_give(db, *space, o->comparator);
    }
    int rc = create_keyspace(db, name, o);
    if (rc < 0) {
        return rc;
    }
    *space = keyspace_get_by_name(&db->versions.keyspaces, name_slice(name));
    if (*space == NULL) {
        return FAIL(LOAM_E_INTERNAL, "a keyspace that was just created is not there");
    }
    return version_set_order_ks(&db->versions, (*space)->id, o->comparator);
}

/* A handle without a keyspace yet, its number reserved: filling it in cannot fail. */
static struct ks_handle *ks_handle_new(struct db *db)
{
    struct ks_handle *k = object_take(&db->alloc, OBJECT_KS);
    if (k == NULL) {
        return NULL;
    }
    k->shell = db;
    k->db_handle = db->handle;
    k->handle = slotmap_reserve(&registry_get()->spaces);
    if (k->handle == 0) {
        object_give(&db->alloc, OBJECT_KS, k);
        return NULL;
    }
    db_ref(db);
    return k;
}

/* The handle comes first: after an error no keyspace has been created. */
static int open_keyspace(struct db *db, const char *name, const loam_ks_options *o, loam_ks **out)
{
    struct ks_handle *k = ks_handle_new(db);
    if (k == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a keyspace handle");
    }
    int rc = find_or_create(db, name, o, &k->space);
    if (rc < 0) {
        keyspace_put(k->space);
        slotmap_abort(&registry_get()->spaces, k->handle);
        ks_handle_free(NULL, k);
        return rc;
    }
    uint64_t handle =
        k->handle; /* from the commit on it may be released by a guess of its number */
    slotmap_commit(&registry_get()->spaces, handle, k);
    *out = HANDLE_AS(loam_ks, handle);
    return LOAM_OK;
}

int loam_ks_open(loam_db *handle, const char *name, const loam_ks_options *opts, loam_ks **out)
{
    if (out == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_ks_open: ks is NULL");
    }
    *out = NULL;
    loam_ks_options o;
    int rc = check_name(name, "loam_ks_open");
    if (rc < 0 || (rc = options_resolve_ks(opts, &o)) < 0) {
        return rc;
    }
    struct call c;
    rc = control_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    rc = open_keyspace(c.db, name, &o, out);
    control_end(&c);
    return rc;
}

void ks_handle_free(void *arg, void *ptr)
{
    (void)arg;
    struct ks_handle *k = ptr;
    struct db *shell = k->shell;
    object_give(&shell->alloc, OBJECT_KS, k);
    db_unref(shell);
}

void loam_ks_release(loam_ks *ks)
{
    struct registry *r = registry_get();
    if (ks == NULL || r == NULL) {
        return;
    }
    bool closed = false;
    epoch_enter();
    struct ks_handle *k = slotmap_get(&r->spaces, HANDLE_OF(ks));
    if (k != NULL && slotmap_erase(&r->spaces, HANDLE_OF(ks)) == LOAM_OK) {
        struct call c;
        closed = call_begin_raw(&c, k->db_handle) != LOAM_OK;
        if (!closed) {
            keyspace_put(k->space);
            call_end(&c);
        }
    }
    epoch_exit();
    registry_released(closed);
}

/* The id of a keyspace by name, for an operation that "default" does not allow. */
static int named_id(struct db *db, const char *name, uint32_t *id)
{
    struct keyspace *k = keyspace_get_by_name(&db->versions.keyspaces, name_slice(name));
    if (k == NULL) {
        return FAIL(LOAM_E_NOENT, "there is no keyspace of this name");
    }
    *id = k->id;
    keyspace_put(k);
    return *id == KS_DEFAULT
               ? FAIL(LOAM_E_INVAL, "the keyspace \"default\" cannot be dropped or renamed")
               : LOAM_OK;
}

int loam_ks_drop(loam_db *handle, const char *name)
{
    int rc = check_name(name, "loam_ks_drop");
    struct call c;
    if (rc < 0 || (rc = control_begin(&c, handle)) < 0) {
        return rc;
    }
    uint32_t id;
    struct version_edit e;
    version_edit_init(&e, &c.db->alloc);
    rc = writable(c.db);
    if (rc == LOAM_OK && (rc = named_id(c.db, name, &id)) == LOAM_OK &&
        (rc = version_edit_drop_ks(&e, id)) == LOAM_OK) {
        rc = db_apply_edit(c.db, &e);
    }
    version_edit_free(&e);
    control_end(&c);
    return rc;
}

int loam_ks_rename(loam_db *handle, const char *from, const char *to)
{
    int rc = check_name(from, "loam_ks_rename");
    struct call c;
    if (rc < 0 || (rc = check_name(to, "loam_ks_rename")) < 0 ||
        (rc = control_begin(&c, handle)) < 0) {
        return rc;
    }
    uint32_t id;
    struct version_edit e;
    version_edit_init(&e, &c.db->alloc);
    rc = writable(c.db);
    if (rc == LOAM_OK && (rc = named_id(c.db, from, &id)) == LOAM_OK) {
        struct keyspace *taken = keyspace_get_by_name(&c.db->versions.keyspaces, name_slice(to));
        if (taken != NULL) {
            rc = FAIL(LOAM_E_EXISTS, "there is a keyspace of the new name already");
            keyspace_put(taken);
        } else if ((rc = version_edit_rename_ks(&e, id, name_slice(to))) == LOAM_OK) {
            rc = db_apply_edit(c.db, &e);
        }
    }
    version_edit_free(&e);
    control_end(&c);
    return rc;
}

int loam_ks_list(loam_db *handle, loam_name_fn fn, void *ctx)
{
    if (fn == NULL) {
        return FAIL(LOAM_E_INVAL, "loam_ks_list: fn is NULL");
    }
    struct call c;
    int rc = control_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    rc = keyspace_table_names(&c.db->versions.keyspaces, fn, ctx);
    control_end(&c);
    return rc;
}

/* ---- keeping house ----------------------------------------------------------------------------- */

/* Checks that ks, when given, is an open keyspace of the database. */
static int check_ks(struct call *c, loam_ks *ks, uint32_t *id)
{
    struct keyspace *space;
    epoch_enter();
    int rc = call_keyspace(c, ks, &space);
    *id = rc == LOAM_OK ? space->id : 0;
    epoch_exit();
    return rc;
}

int loam_flush(loam_db *handle, loam_ks *ks)
{
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    uint32_t id;
    rc = check_ks(&c, ks, &id);
    if (rc == LOAM_OK) {
        rc = writable(c.db);
    }
    if (rc == LOAM_OK) {
        rc = call_wait_begin(&c) ? lifecycle_flush(c.db) : LOAM_E_CLOSED;
    }
    call_end(&c);
    return rc;
}

/* Time left until a deadline made from a timeout (0: none), in microseconds; 0: it has passed. */
static uint64_t time_left(uint64_t deadline)
{
    uint64_t now = clock_micros();
    return deadline == UINT64_MAX ? UINT64_MAX : now < deadline ? deadline - now : 0;
}

static uint64_t deadline_after(uint64_t timeout_us)
{
    uint64_t now = clock_micros();
    return timeout_us == 0 || timeout_us > UINT64_MAX - now ? UINT64_MAX : now + timeout_us;
}

/* Waits for some background job to end. */
static void wait_for_job(struct db *db, uint64_t micros)
{
    mutex_lock(&db->mu);
    cond_wait_for(&db->idle_cv, &db->mu, micros < 10000 ? micros : 10000);
    mutex_unlock(&db->mu);
}

static int closing(void)
{
    return FAIL(LOAM_E_CLOSED, "the database was closed during the call");
}

static bool is_closing(const struct db *db)
{
    return atom_load(&db->stopping, relaxed); /* relaxed: a wish, looked at now and then */
}

/* Merges level by level until the range is at the bottom. */
static int compact_levels(struct db *db, const struct compaction_range *range, uint64_t deadline)
{
    for (int level = 0; level < LEVEL_COUNT; level++) {
        for (;;) {
            uint64_t left = time_left(deadline);
            if (is_closing(db)) {
                return closing();
            }
            if (left == 0) {
                return LOAM_STOPPED;
            }
            int rc = background_compact_range(db, range, level);
            if (rc < 0) {
                return rc == LOAM_E_CANCELED ? closing() : rc;
            }
            if (rc == LOAM_NOTFOUND) {
                break;
            }
            if (rc == LOAM_CONFLICT) {
                wait_for_job(db, left);
            }
        }
    }
    return LOAM_OK;
}

int loam_compact(loam_db *handle, loam_ks *ks, loam_slice lo, loam_slice hi, uint64_t timeout_us)
{
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    uint32_t id;
    rc = check_ks(&c, ks, &id);
    if (rc == LOAM_OK) {
        rc = writable(c.db);
    }
    if (rc < 0 || !call_wait_begin(&c)) {
        call_end(&c);
        return rc < 0 ? rc : LOAM_E_CLOSED;
    }
    uint64_t deadline = deadline_after(timeout_us);
    rc = lifecycle_flush(c.db);
    if (rc == LOAM_OK) {
        mutex_lock(&c.db->mu);
        c.db->manual++; /* automatic merges stand back, so that this one finds its tables free */
        background_wake_locked(c.db); /* to help with its parts */
        mutex_unlock(&c.db->mu);
        /* Behind the lock: a merge that runs still took tables that are there by now. */
        const struct compaction_range range = {id, {lo, hi}, version_set_last_seq(&c.db->versions)};
        rc = compact_levels(c.db, &range, deadline);
        mutex_lock(&c.db->mu);
        c.db->manual--;
        background_wake_locked(c.db);
        mutex_unlock(&c.db->mu);
    }
    call_end(&c);
    return rc;
}

static int wait_until_idle_locked(struct db *db, uint64_t deadline)
{
    /* Asked first: without the work that a close has cut off it is idle, too. */
    while (!is_closing(db)) {
        if (background_idle_locked(db)) {
            return LOAM_OK;
        }
        uint64_t left = time_left(deadline);
        if (left == 0) {
            return LOAM_STOPPED;
        }
        background_wake_locked(db);
        cond_wait_for(&db->idle_cv, &db->mu, left < 10000 ? left : 10000);
    }
    return closing();
}

int loam_wait_idle(loam_db *handle, uint64_t timeout_us)
{
    struct call c;
    int rc = call_begin_waiting(&c, handle);
    if (rc < 0) {
        return rc;
    }
    struct db *db = c.db;
    uint64_t deadline = deadline_after(timeout_us);
    mutex_lock(&db->mu);
    db->idle_waiters++;
    rc = db->readonly ? LOAM_OK : wait_until_idle_locked(db, deadline);
    if (rc == LOAM_OK && !db->readonly) {
        mutex_unlock(&db->mu);
        background_give_up_logs(db); /* this wait is the rest it asks for */
        mutex_lock(&db->mu);
    }
    db->idle_waiters--;
    if (rc == LOAM_OK && db->error.code != LOAM_OK) {
        rc = status_raise(&db->error);
    }
    mutex_unlock(&db->mu);
    call_end(&c);
    return rc;
}

int loam_pause(loam_db *handle, int on)
{
    struct call c;
    int rc = call_begin_waiting(&c, handle);
    if (rc < 0) {
        return rc;
    }
    struct db *db = c.db;
    mutex_lock(&db->mu);
    db->paused = on != 0;
    while (on != 0 && db->paused != 0 && db->compacting != 0) {
        cond_wait_for(&db->idle_cv, &db->mu, 10000);
    }
    if (on == 0) {
        background_wake_locked(db);
    }
    mutex_unlock(&db->mu);
    call_end(&c);
    return LOAM_OK;
}

int loam_health(loam_db *handle, loam_error *why)
{
    struct call c;
    int rc = call_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    struct db *db = c.db;
    mutex_lock(&db->mu);
    loam_error e = db->error.code != LOAM_OK ? db->error : db->seal_error;
    rc = e.code != LOAM_OK ? LOAM_REFUSING_WRITES : LOAM_HEALTHY;
    if (rc == LOAM_HEALTHY && db->prepare_error.code != LOAM_OK) {
        e = db->prepare_error;
        rc = LOAM_DEGRADED;
    }
    mutex_unlock(&db->mu);
    if (why != NULL) { /* one that is over has its code taken away, and keeps its words */
        *why = rc != LOAM_HEALTHY ? e : (loam_error){0};
    }
    call_end(&c);
    return rc;
}

int loam_resume(loam_db *handle)
{
    struct call c;
    int rc = control_begin(&c, handle);
    if (rc < 0) {
        return rc;
    }
    rc = c.db->readonly ? writable(c.db) : lifecycle_resume(c.db);
    control_end(&c);
    return rc;
}
