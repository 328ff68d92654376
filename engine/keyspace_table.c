/* keyspace_table.c - The keyspaces of a database, by id and by name.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/keyspace_table.h"

#include <assert.h>
#include <string.h>

#include "arena/epoch.h"
#include "arena/status.h"
#include "engine/sort.h"

#include "arena/poison.h"

static size_t list_bytes(uint32_t count)
{
    return sizeof(struct keyspace_list) + count * sizeof(struct keyspace *);
}

/* acquire: pairs with the release in keyspace_change_commit(); makes the objects visible. */
static struct keyspace_list *list_acquire(struct keyspace_table *t)
{
    return atom_load(&t->list, acquire);
}

/* ---- objects --------------------------------------------------------------------------------- */

static struct keyspace *keyspace_create(struct keyspace_table *t, const struct ks_desc *d)
{
    size_t bytes = sizeof(struct keyspace) + d->comparator.size + 1;
    struct keyspace *k = alloc_zero(t->alloc, MEM_VERSION, bytes);
    if (k == NULL) {
        return NULL;
    }
    k->id = d->id;
    k->compression = d->compression;
    k->filter_bits = d->filter_bits;
    k->block_bytes = d->block_bytes;
    k->table = t;
    k->bytes = bytes;
    k->comparator = (char *)(k + 1);
    if (d->comparator.size != 0) {
        memcpy(k->comparator, d->comparator.data, d->comparator.size);
    }
    assert(d->name.size < sizeof k->name);
    memcpy(k->name, d->name.data, d->name.size);
    k->name_size = d->name.size;
    /* relaxed: the object is published later, with its list. */
    atom_store(&k->refs, 1, relaxed);
    atom_store(&k->stamp, KEYSPACE_HELD, relaxed);
    atom_store(&k->ordered, d->comparator.size == 0, relaxed);
    return k;
}

static void keyspace_free(struct keyspace *k)
{
    alloc_put(k->table->alloc, MEM_VERSION, k, k->bytes);
}

void keyspace_put(struct keyspace *k)
{
    /* acq_rel: this holder's accesses come before the free, which comes after all holders'. */
    if (k == NULL || atom_sub(&k->refs, 1, acq_rel) != 1) {
        return;
    }
    /* release: pairs with the acquire in take_passed(), which may free k from here on. */
    atom_store(&k->stamp, epoch_stamp(), release);
}

bool keyspace_ref(struct keyspace *k)
{
    uint32_t n = atom_load(&k->refs, relaxed);
    while (n != 0) {
        /* relaxed: the contents became visible by the load that found k. A failed CAS means that
         * another thread changed the count. */
        if (atom_cas(&k->refs, &n, n + 1, relaxed, relaxed)) {
            return true;
        }
    }
    return false;
}

/* ---- table ----------------------------------------------------------------------------------- */

int keyspace_table_init(struct keyspace_table *t, struct alloc *a)
{
    memset(t, 0, sizeof *t);
    t->alloc = a;
    struct keyspace_list *l = alloc_zero(a, MEM_VERSION, list_bytes(0));
    if (l == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for the keyspaces");
    }
    mutex_init(&t->mu, RANK_LEAF);
    /* relaxed: no other thread knows the table yet. */
    atom_store(&t->list, l, relaxed);
    return LOAM_OK;
}

static void free_lists(struct keyspace_table *t, struct keyspace_list *l)
{
    while (l != NULL) {
        struct keyspace_list *next = l->dead_next;
        alloc_put(t->alloc, MEM_VERSION, l, list_bytes(l->count));
        l = next;
    }
}

static void free_keyspaces(struct keyspace *k)
{
    while (k != NULL) {
        struct keyspace *next = k->dead_next;
        keyspace_free(k);
        k = next;
    }
}

void keyspace_table_destroy(struct keyspace_table *t)
{
    struct keyspace_list *l = list_acquire(t);
    if (l == NULL) {
        return;
    }
    for (uint32_t i = 0; i < l->count; i++) {
        keyspace_free(l->by_id[i]);
    }
    alloc_put(t->alloc, MEM_VERSION, t->by_name, l->count * sizeof(struct keyspace *));
    l->dead_next = t->dead_lists;
    free_lists(t, l);
    free_keyspaces(t->dead);
    mutex_destroy(&t->mu);
    atom_store(&t->list, NULL, relaxed); /* relaxed: quiescent */
}

/* Keeps what is still held or has not passed in *list; returns the rest. One of a pair for the two
 * kinds of dead. */
static struct keyspace *take_passed(struct keyspace **list)
{
    struct keyspace *passed = NULL;
    while (*list != NULL) {
        struct keyspace *k = *list;
        uint64_t stamp = atom_load(&k->stamp, acquire); /* pairs with keyspace_put() */
        if (stamp != KEYSPACE_HELD && epoch_passed(stamp)) {
            *list = k->dead_next;
            k->dead_next = passed;
            passed = k;
        } else {
            list = &k->dead_next;
        }
    }
    return passed;
}

static struct keyspace_list *take_passed_lists(struct keyspace_list **list)
{
    struct keyspace_list *passed = NULL;
    while (*list != NULL) {
        struct keyspace_list *l = *list;
        if (epoch_passed(l->stamp)) {
            *list = l->dead_next;
            l->dead_next = passed;
            passed = l;
        } else {
            list = &l->dead_next;
        }
    }
    return passed;
}

void keyspace_table_reap(struct keyspace_table *t)
{
    mutex_lock(&t->mu);
    struct keyspace *dead = t->dead;
    struct keyspace_list *lists = t->dead_lists;
    t->dead = NULL;
    t->dead_lists = NULL;
    mutex_unlock(&t->mu);
    free_keyspaces(take_passed(&dead));
    free_lists(t, take_passed_lists(&lists));
    mutex_lock(&t->mu);
    while (dead != NULL) {
        struct keyspace *k = dead;
        dead = k->dead_next;
        k->dead_next = t->dead;
        t->dead = k;
    }
    while (lists != NULL) {
        struct keyspace_list *l = lists;
        lists = l->dead_next;
        l->dead_next = t->dead_lists;
        t->dead_lists = l;
    }
    mutex_unlock(&t->mu);
}

/* ---- reading --------------------------------------------------------------------------------- */

static struct keyspace *find_in_list(const struct keyspace_list *l, uint32_t id)
{
    if (id < l->count && l->by_id[id]->id == id) {
        return l->by_id[id]; /* ids without gaps are the usual case */
    }
    uint32_t lo = 0;
    uint32_t hi = l->count;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (l->by_id[mid]->id < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo < l->count && l->by_id[lo]->id == id ? l->by_id[lo] : NULL;
}

struct keyspace *keyspace_find(struct keyspace_table *t, uint32_t id)
{
    return find_in_list(list_acquire(t), id);
}

struct keyspace *keyspace_get(struct keyspace_table *t, uint32_t id)
{
    epoch_enter();
    struct keyspace *k = keyspace_find(t, id);
    if (k != NULL && !keyspace_ref(k)) {
        k = NULL;
    }
    epoch_exit();
    return k;
}

static loam_slice name_of(const struct keyspace *k)
{
    return loam_bytes(k->name, k->name_size);
}

struct keyspace *keyspace_get_by_name(struct keyspace_table *t, loam_slice name)
{
    struct keyspace *found = NULL;
    mutex_lock(&t->mu);
    uint32_t lo = 0;
    uint32_t hi = list_acquire(t)->count; /* list and by_name change together under mu */
    uint32_t count = hi;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (bytes_compare(name_of(t->by_name[mid]), name) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    if (lo < count && bytes_compare(name_of(t->by_name[lo]), name) == 0 &&
        keyspace_ref(t->by_name[lo])) {
        found = t->by_name[lo];
    }
    mutex_unlock(&t->mu);
    return found;
}

size_t keyspace_name(struct keyspace *k, char out[256])
{
    mutex_lock(&k->table->mu);
    memcpy(out, k->name, k->name_size + 1);
    size_t n = k->name_size;
    mutex_unlock(&k->table->mu);
    return n;
}

int keyspace_table_names(struct keyspace_table *t, loam_name_fn fn, void *ctx)
{
    /* References keep the objects; a section must not be open while user code runs. */
    epoch_enter();
    struct keyspace_list *l = list_acquire(t);
    uint32_t n = 0;
    size_t bytes = list_bytes(l->count);
    struct keyspace **all = alloc_get(t->alloc, MEM_MISC, bytes);
    for (uint32_t i = 0; all != NULL && i < l->count; i++) {
        if (keyspace_ref(l->by_id[i])) {
            all[n++] = l->by_id[i];
        }
    }
    epoch_exit();
    if (all == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory to list the keyspaces");
    }
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < n; i++) {
        char name[256];
        size_t size = keyspace_name(all[i], name);
        if (rc == LOAM_OK && fn(ctx, loam_bytes(name, size)) != 0) {
            rc = LOAM_STOPPED;
        }
        keyspace_put(all[i]);
    }
    alloc_put(t->alloc, MEM_MISC, all, bytes);
    return rc;
}

uint32_t keyspace_table_count(struct keyspace_table *t)
{
    epoch_enter();
    uint32_t n = list_acquire(t)->count;
    epoch_exit();
    return n;
}

bool keyspace_order_find(void *table, uint32_t ks, const loam_comparator **cmp)
{
    epoch_enter();
    struct keyspace *k = keyspace_find(table, ks);
    /* acquire: pairs with the release that sets it in version_set_order_ks(); makes cmp visible. */
    bool known = k != NULL && atom_load(&k->ordered, acquire);
    if (known) {
        *cmp = atom_load(&k->cmp, relaxed); /* relaxed: set before `ordered` */
    }
    epoch_exit();
    return known;
}

int keyspace_table_describe(struct keyspace_table *t, struct version_edit *e)
{
    const struct keyspace_list *l = list_acquire(t);
    for (uint32_t i = 0; i < l->count; i++) {
        char name[256];
        struct keyspace *k = l->by_id[i];
        struct ks_desc d = {.id = k->id,
                            .compression = k->compression,
                            .filter_bits = k->filter_bits,
                            .block_bytes = k->block_bytes,
                            .name = loam_bytes(name, keyspace_name(k, name)),
                            .comparator = loam_bytes(k->comparator, strlen(k->comparator))};
        int rc = version_edit_create_ks(e, &d);
        if (rc != LOAM_OK) {
            return rc;
        }
    }
    return LOAM_OK;
}

/* ---- changing -------------------------------------------------------------------------------- */

static bool is_dropped(const struct version_edit *e, uint32_t id)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        if (e->dropped[i] == id) {
            return true;
        }
    }
    return false;
}

/* The name that k will have: the edit's last rename of it, or its present one. */
static loam_slice future_name(const struct version_edit *e, const struct keyspace *k)
{
    for (uint32_t i = e->renamed_count; i-- > 0;) {
        if (e->renamed[i].id == k->id) {
            return e->renamed[i].name;
        }
    }
    return name_of(k);
}

static bool id_less(const void *ctx, const void *a, const void *b)
{
    (void)ctx;
    return (*(struct keyspace *const *)a)->id < (*(struct keyspace *const *)b)->id;
}

static bool name_less(const void *ctx, const void *a, const void *b)
{
    return bytes_compare(future_name(ctx, *(struct keyspace *const *)a),
                         future_name(ctx, *(struct keyspace *const *)b)) < 0;
}

void keyspace_change_abort(struct keyspace_table *t, struct keyspace_change *c)
{
    for (uint32_t i = 0; i < c->created_count; i++) {
        keyspace_free(c->created[i]);
    }
    if (c->created != NULL) {
        alloc_put(t->alloc, MEM_VERSION, c->created, c->edit->created_count * sizeof *c->created);
    }
    if (c->list != NULL) {
        c->list->count = c->cap;
        free_lists(t, c->list);
    }
    alloc_put(t->alloc, MEM_VERSION, c->by_name, c->cap * sizeof *c->by_name);
    *c = (struct keyspace_change){0};
}

/* Every id that the edit drops or renames must be there. */
static int check_ids(const struct keyspace_list *l, const struct version_edit *e, uint64_t file_id)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        if (find_in_list(l, e->dropped[i]) == NULL) {
            return FAIL_CORRUPT(file_id, 0, "an edit drops keyspace %u, which is not there",
                                e->dropped[i]);
        }
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        if (find_in_list(l, e->renamed[i].id) == NULL) {
            return FAIL_CORRUPT(file_id, 0, "an edit renames keyspace %u, which is not there",
                                e->renamed[i].id);
        }
    }
    return LOAM_OK;
}

/* Fills c->list with the keyspaces that stay and the created ones, by id. */
static int fill_list(struct keyspace_table *t, const struct keyspace_list *old,
                     struct keyspace_change *c, uint64_t file_id)
{
    const struct version_edit *e = c->edit;
    struct keyspace_list *l = c->list;
    uint32_t n = 0;
    for (uint32_t i = 0; i < old->count; i++) {
        if (!is_dropped(e, old->by_id[i]->id)) {
            l->by_id[n++] = old->by_id[i];
        }
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        struct keyspace *k = keyspace_create(t, &e->created[i]);
        if (k == NULL) {
            return FAIL(LOAM_E_NOMEM, "no memory for a keyspace");
        }
        c->created[c->created_count++] = k;
        l->by_id[n++] = k;
    }
    assert(n <= c->cap);
    l->count = n;
    memcpy(c->by_name, l->by_id, n * sizeof(struct keyspace *));
    sort_elements(l->by_id, n, sizeof l->by_id[0], id_less, NULL);
    sort_elements(c->by_name, n, sizeof c->by_name[0], name_less, e);
    for (uint32_t i = 1; i < n; i++) {
        if (l->by_id[i - 1]->id == l->by_id[i]->id ||
            bytes_compare(future_name(e, c->by_name[i - 1]), future_name(e, c->by_name[i])) == 0) {
            return FAIL_CORRUPT(file_id, 0, "an edit gives two keyspaces one id or name");
        }
    }
    return LOAM_OK;
}

int keyspace_change_prepare(struct keyspace_table *t, const struct version_edit *e,
                            uint64_t file_id, struct keyspace_change *c)
{
    *c = (struct keyspace_change){.edit = e};
    if (e->created_count == 0 && e->dropped_count == 0 && e->renamed_count == 0) {
        return LOAM_OK;
    }
    const struct keyspace_list *old = list_acquire(t);
    int rc = check_ids(old, e, file_id);
    if (rc != LOAM_OK) {
        return rc;
    }
    uint32_t kept = old->count;
    for (uint32_t i = 0; i < old->count; i++) {
        kept -= is_dropped(e, old->by_id[i]->id);
    }
    c->cap = kept + e->created_count;
    c->list = alloc_zero(t->alloc, MEM_VERSION, list_bytes(c->cap));
    c->by_name = alloc_get(t->alloc, MEM_VERSION, c->cap * sizeof *c->by_name);
    c->created = alloc_get(t->alloc, MEM_VERSION, e->created_count * sizeof *c->created);
    if (c->list == NULL || c->by_name == NULL || c->created == NULL) {
        rc = FAIL(LOAM_E_NOMEM, "no memory for the keyspaces");
    } else {
        rc = fill_list(t, old, c, file_id);
    }
    if (rc != LOAM_OK) {
        keyspace_change_abort(t, c);
    }
    return rc;
}

/* Before their order is gone: who finds none, or nothing for want of it, finds out why. */
static void mark_dropped(const struct keyspace_list *old, const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        /* release: pairs with the acquire loads of those who hold a handle. */
        atom_store(&find_in_list(old, e->dropped[i])->dropped, true, release);
    }
}

/* The table's references. The same id may stand twice in an edit. */
static void give_back_dropped(struct keyspace_table *t, const struct keyspace_list *old,
                              const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        struct keyspace *k = find_in_list(old, e->dropped[i]);
        bool again = false;
        for (uint32_t j = 0; j < i; j++) {
            again = again || e->dropped[j] == e->dropped[i];
        }
        if (!again) {
            /* Among the dead at once: handles may stay out until after the table is destroyed. */
            mutex_lock(&t->mu);
            k->dead_next = t->dead;
            t->dead = k;
            mutex_unlock(&t->mu);
            keyspace_put(k);
        }
    }
}

void keyspace_change_commit(struct keyspace_table *t, struct keyspace_change *c)
{
    if (c->list == NULL) {
        return;
    }
    const struct version_edit *e = c->edit;
    struct keyspace_list *old = list_acquire(t);
    mutex_lock(&t->mu);
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        struct keyspace *k = find_in_list(old, e->renamed[i].id);
        memcpy(k->name, e->renamed[i].name.data, e->renamed[i].name.size);
        k->name_size = e->renamed[i].name.size;
        k->name[k->name_size] = 0;
    }
    alloc_put(t->alloc, MEM_VERSION, t->by_name, old->count * sizeof *t->by_name);
    t->by_name = c->by_name;
    mark_dropped(old, e);
    /* release: pairs with the acquire in list_acquire(). */
    atom_store(&t->list, c->list, release);
    mutex_unlock(&t->mu);
    give_back_dropped(t, old, e);
    old->stamp = epoch_stamp();
    mutex_lock(&t->mu);
    old->dead_next = t->dead_lists;
    t->dead_lists = old;
    mutex_unlock(&t->mu);
    alloc_put(t->alloc, MEM_VERSION, c->created, e->created_count * sizeof *c->created);
    *c = (struct keyspace_change){0};
}
