/* bench_engine_lmdb.c - LMDB behind the benchmark's table of functions.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Opened with NOSYNC, WRITEMAP and MAPASYNC: its fastest mode, in which a power cut may lose or
 * damage the file. Writes that must survive one are followed by mdb_env_sync(). Reads lend mapped
 * memory: nothing is copied, and the page cache is its cache.
 */
#ifdef HAVE_LMDB

#include <errno.h>
#include <lmdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tools/bench_engine.h"

/* The file is sparse up to this; only address space is taken. */
#define MAP_BYTES ((size_t)64 << 30)
enum { MAX_READERS = 4096 };

struct map_db {
    MDB_env *env;
    MDB_dbi dbi;
    bool durable;
};

struct map_session {
    struct bench_session head;
    struct map_db *db;
    MDB_txn *read; /* reset between gets, so that it holds back no pages */
    MDB_txn *batch;
    MDB_txn *scan; /* of the iterator */
    MDB_cursor *cursor;
    MDB_val key, value; /* the iterator's entry */
};

static int from_rc(int rc)
{
    if (rc == MDB_NOTFOUND) {
        return BENCH_NOTFOUND;
    }
    return rc == 0 ? BENCH_OK : bench_engine_fail("%s", mdb_strerror(rc));
}

static MDB_val val_of(loam_slice s)
{
    union {
        const void *in;
        void *out;
    } cast = {.in = s.data};
    return (MDB_val){.mv_size = s.size, .mv_data = cast.out};
}

static const char *map_version(void)
{
    return mdb_version(NULL, NULL, NULL);
}

static int open_dbi(struct map_db *d, bool readonly)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(d->env, NULL, readonly ? MDB_RDONLY : 0, &txn);
    if (rc != 0) {
        return rc;
    }
    rc = mdb_dbi_open(txn, NULL, 0, &d->dbi);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int map_close(void *db)
{
    struct map_db *d = db;
    mdb_env_close(d->env);
    free(d);
    return BENCH_OK;
}

static int map_open(const struct bench_open *how, void **db)
{
    struct map_db *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return bench_engine_fail("out of memory");
    }
    int rc = mdb_env_create(&d->env);
    if (rc != 0) {
        free(d);
        return from_rc(rc);
    }
    unsigned flags = how->readonly ? MDB_RDONLY : MDB_NOSYNC | MDB_WRITEMAP | MDB_MAPASYNC;
    d->durable = how->durable;
    if (how->must_exist) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/data.mdb", how->dir);
        rc = access(path, F_OK) != 0 ? errno : 0; /* LMDB itself would make it */
    } else if (mkdir(how->dir, 0700) != 0 && errno != EEXIST) {
        rc = errno;
    }
    rc = rc != 0 ? rc : mdb_env_set_mapsize(d->env, MAP_BYTES);
    rc = rc != 0 ? rc : mdb_env_set_maxreaders(d->env, MAX_READERS);
    rc = rc != 0 ? rc : mdb_env_open(d->env, how->dir, flags | MDB_NOTLS, 0600);
    rc = rc != 0 ? rc : open_dbi(d, how->readonly);
    if (rc != 0) {
        map_close(d);
        return from_rc(rc);
    }
    *db = d;
    return BENCH_OK;
}

static int map_destroy(const char *dir)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    for (size_t i = 0; i < 2; i++) {
        char path[4096];
        snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
        if (unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR) {
            return bench_engine_fail("%s: %s", path, strerror(errno));
        }
    }
    rmdir(dir); /* stays when somebody else's files are in it */
    return BENCH_OK;
}

static int map_session_open(void *db, struct bench_session **out)
{
    struct map_session *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        return bench_engine_fail("out of memory");
    }
    s->db = db;
    int rc = mdb_txn_begin(s->db->env, NULL, MDB_RDONLY, &s->read);
    if (rc != 0) {
        free(s);
        return from_rc(rc);
    }
    mdb_txn_reset(s->read);
    *out = &s->head;
    return BENCH_OK;
}

static void map_session_close(struct bench_session *head)
{
    struct map_session *s = (struct map_session *)head;
    if (s->cursor != NULL) {
        mdb_cursor_close(s->cursor);
        mdb_txn_abort(s->scan);
    }
    if (s->batch != NULL) {
        mdb_txn_abort(s->batch);
    }
    mdb_txn_abort(s->read);
    free(s);
}

static int commit(struct map_session *s, MDB_txn *txn)
{
    int rc = mdb_txn_commit(txn);
    if (rc == 0 && (s->head.sync || s->db->durable)) {
        rc = mdb_env_sync(s->db->env, 1);
    }
    return from_rc(rc);
}

static int map_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    struct map_session *s = (struct map_session *)head;
    MDB_txn *txn;
    MDB_val k = val_of(key), v = val_of(value);
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);
    if (rc != 0) {
        return from_rc(rc);
    }
    rc = mdb_put(txn, s->db->dbi, &k, &v, 0);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return from_rc(rc);
    }
    return commit(s, txn);
}

static int map_erase(struct bench_session *head, loam_slice key)
{
    struct map_session *s = (struct map_session *)head;
    MDB_txn *txn;
    MDB_val k = val_of(key);
    int rc = mdb_txn_begin(s->db->env, NULL, 0, &txn);
    if (rc != 0) {
        return from_rc(rc);
    }
    rc = mdb_del(txn, s->db->dbi, &k, NULL);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return rc == MDB_NOTFOUND ? BENCH_OK : from_rc(rc);
    }
    return commit(s, txn);
}

static int map_get(struct bench_session *head, loam_slice key, loam_slice *value)
{
    struct map_session *s = (struct map_session *)head;
    /* The value stays mapped after the reset; only a later write could reuse its page. */
    MDB_val k = val_of(key), v;
    int rc = mdb_txn_renew(s->read);
    if (rc == 0) {
        rc = mdb_get(s->read, s->db->dbi, &k, &v);
        mdb_txn_reset(s->read);
    }
    if (rc == 0) {
        *value = loam_bytes(v.mv_data, v.mv_size);
    }
    return from_rc(rc);
}

/* One view for all of them, as a reader of LMDB would do it. */
static int map_get_many(struct bench_session *head, const loam_slice *keys, size_t n, size_t *found,
                        uint64_t *bytes)
{
    struct map_session *s = (struct map_session *)head;
    int rc = mdb_txn_renew(s->read);
    for (size_t i = 0; i < n && rc == 0; i++) {
        MDB_val k = val_of(keys[i]), v;
        rc = mdb_get(s->read, s->db->dbi, &k, &v);
        if (rc == 0) {
            (*found)++;
            *bytes += v.mv_size;
        }
        rc = rc == MDB_NOTFOUND ? 0 : rc;
    }
    mdb_txn_reset(s->read);
    return from_rc(rc);
}

static int map_batch_put(struct bench_session *head, loam_slice key, loam_slice value)
{
    struct map_session *s = (struct map_session *)head;
    MDB_val k = val_of(key), v = val_of(value);
    int rc = s->batch != NULL ? 0 : mdb_txn_begin(s->db->env, NULL, 0, &s->batch);
    return from_rc(rc != 0 ? rc : mdb_put(s->batch, s->db->dbi, &k, &v, 0));
}

static int map_batch_erase(struct bench_session *head, loam_slice key)
{
    struct map_session *s = (struct map_session *)head;
    MDB_val k = val_of(key);
    int rc = s->batch != NULL ? 0 : mdb_txn_begin(s->db->env, NULL, 0, &s->batch);
    rc = rc != 0 ? rc : mdb_del(s->batch, s->db->dbi, &k, NULL);
    return rc == MDB_NOTFOUND ? BENCH_OK : from_rc(rc);
}

static int map_batch_commit(struct bench_session *head)
{
    struct map_session *s = (struct map_session *)head;
    MDB_txn *txn = s->batch;
    s->batch = NULL;
    return txn == NULL ? BENCH_OK : commit(s, txn);
}

/* ---- iterators ------------------------------------------------------------------------------- */

static int map_iter_open(struct bench_session *head, void **it)
{
    struct map_session *s = (struct map_session *)head;
    int rc;
    if (s->cursor == NULL) {
        rc = mdb_txn_begin(s->db->env, NULL, MDB_RDONLY, &s->scan);
        if (rc == 0 && (rc = mdb_cursor_open(s->scan, s->db->dbi, &s->cursor)) != 0) {
            mdb_txn_abort(s->scan);
        }
    } else {
        rc = mdb_txn_renew(s->scan);
        rc = rc != 0 ? rc : mdb_cursor_renew(s->scan, s->cursor);
    }
    *it = s;
    return from_rc(rc);
}

static void map_iter_close(void *it)
{
    mdb_txn_reset(((struct map_session *)it)->scan);
}

static int move(struct map_session *s, MDB_cursor_op op)
{
    return from_rc(mdb_cursor_get(s->cursor, &s->key, &s->value, op));
}

static int map_iter_first(void *it)
{
    return move(it, MDB_FIRST);
}

static int map_iter_last(void *it)
{
    return move(it, MDB_LAST);
}

static int map_iter_seek(void *it, loam_slice key)
{
    struct map_session *s = it;
    s->key = val_of(key);
    return move(s, MDB_SET_RANGE);
}

static int map_iter_next(void *it)
{
    return move(it, MDB_NEXT);
}

static int map_iter_prev(void *it)
{
    return move(it, MDB_PREV);
}

static void map_iter_entry(void *it, loam_slice *key, loam_slice *value)
{
    const struct map_session *s = it;
    *key = loam_bytes(s->key.mv_data, s->key.mv_size);
    *value = loam_bytes(s->value.mv_data, s->value.mv_size);
}

/* ---- keeping house --------------------------------------------------------------------------- */

static int map_flush(void *db)
{
    return from_rc(mdb_env_sync(((struct map_db *)db)->env, 1));
}

static int map_print_stats(void *db, FILE *out)
{
    struct map_db *d = db;
    MDB_stat st;
    MDB_envinfo info;
    int rc = mdb_env_stat(d->env, &st);
    rc = rc != 0 ? rc : mdb_env_info(d->env, &info);
    if (rc == 0) {
        fprintf(out, "entries %zu, depth %u, pages: branch %zu, leaf %zu, overflow %zu, last %zu\n",
                st.ms_entries, st.ms_depth, st.ms_branch_pages, st.ms_leaf_pages,
                st.ms_overflow_pages, info.me_last_pgno);
    }
    return from_rc(rc);
}

const struct bench_engine bench_engine_lmdb = {
    .name = "lmdb",
    .note = "NOSYNC, WRITEMAP, MAPASYNC: a power cut may damage the file; its cache is all memory",
    .unsafe = true,
    .version = map_version,
    .open = map_open,
    .close = map_close,
    .destroy = map_destroy,
    .session_open = map_session_open,
    .session_close = map_session_close,
    .put = map_put,
    .erase = map_erase,
    .get = map_get,
    .get_many = map_get_many,
    .batch_put = map_batch_put,
    .batch_erase = map_batch_erase,
    .batch_commit = map_batch_commit,
    .iter_open = map_iter_open,
    .iter_close = map_iter_close,
    .iter_first = map_iter_first,
    .iter_last = map_iter_last,
    .iter_seek = map_iter_seek,
    .iter_next = map_iter_next,
    .iter_prev = map_iter_prev,
    .iter_entry = map_iter_entry,
    .flush = map_flush,
    .print_stats = map_print_stats,
};

#else

typedef int bench_engine_lmdb_is_not_built;

#endif
