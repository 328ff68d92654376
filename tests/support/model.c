/* model.c - The oracle: a universe of keys, chains of versions, lookups by commit.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/support/model.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "arena/random.h"
#include "tests/support/check.h"

/* ---- orders ------------------------------------------------------------------------------------
 */

static int by_bytes(loam_slice a, loam_slice b)
{
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(a.data, b.data, n) : 0;
    return c != 0 ? c : (a.size > b.size) - (a.size < b.size);
}

static int reverse_compare(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    return by_bytes(b, a);
}

static int nocase_compare(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    const uint8_t *x = a.data, *y = b.data;
    size_t n = a.size < b.size ? a.size : b.size;
    for (size_t i = 0; i < n; i++) {
        int c = tolower(x[i]) - tolower(y[i]);
        if (c != 0) {
            return c;
        }
    }
    return (a.size > b.size) - (a.size < b.size);
}

const loam_comparator *model_comparator(enum model_order order)
{
    static const loam_comparator reverse = {
        .struct_size = sizeof reverse, .name = "test.reverse", .compare = reverse_compare};
    static const loam_comparator nocase = {
        .struct_size = sizeof nocase, .name = "test.nocase", .compare = nocase_compare};
    return order == MODEL_REVERSE ? &reverse : order == MODEL_NOCASE ? &nocase : NULL;
}

static int compare_in(enum model_order order, loam_slice a, loam_slice b)
{
    const loam_comparator *c = model_comparator(order);
    return c != NULL ? c->compare(c->ctx, a, b) : by_bytes(a, b);
}

/* ---- the universe ------------------------------------------------------------------------------
 */

static void *get_memory(size_t size)
{
    void *p = calloc(1, size != 0 ? size : 1);
    CHECK(p != NULL);
    return p;
}

static loam_slice filled(uint8_t byte, size_t size)
{
    uint8_t *p = get_memory(size);
    memset(p, byte, size);
    return loam_bytes(p, size);
}

static loam_slice random_key(struct random *r)
{
    uint8_t b[256];
    size_t n = 0;
    switch (random_below(r, 6)) {
    case 0: /* any bytes, short */
        n = 1 + random_below(r, 12);
        for (size_t i = 0; i < n; i++) {
            b[i] = (uint8_t)random_next(r);
        }
        break;
    case 1: /* extreme bytes only: neighbours differ in length and at the ends of the range */
        n = 1 + random_below(r, 6);
        for (size_t i = 0; i < n; i++) {
            b[i] = random_below(r, 2) != 0 ? 0xff : 0x00;
        }
        break;
    case 2: /* mixed case */
        n = 1 + random_below(r, 4);
        for (size_t i = 0; i < n; i++) {
            b[i] = (uint8_t)("aAbB"[random_below(r, 4)]);
        }
        break;
    case 3: /* a long shared prefix */
        n = 100 + random_below(r, 100);
        memset(b, 'p', n);
        b[n - 1] = (uint8_t)random_next(r);
        break;
    default:
        n = (size_t)snprintf((char *)b, sizeof b, "user/%04u/%u", (unsigned)random_below(r, 60),
                             (unsigned)random_below(r, 1000));
        break;
    }
    uint8_t *p = get_memory(n);
    memcpy(p, b, n);
    return loam_bytes(p, n);
}

static const struct model *sorting;
static enum model_order sorting_by;

static int compare_keys(const void *a, const void *b)
{
    uint32_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return compare_in(sorting_by, sorting->keys[x], sorting->keys[y]);
}

static void make_rows(struct model *m, enum model_order order)
{
    uint32_t *sorted = get_memory(m->key_count * sizeof *sorted);
    for (uint32_t i = 0; i < m->key_count; i++) {
        sorted[i] = i;
    }
    sorting = m;
    sorting_by = order;
    qsort(sorted, m->key_count, sizeof *sorted, compare_keys);
    m->row_of[order] = get_memory(m->key_count * sizeof(uint32_t));
    m->key_at[order] = get_memory(m->key_count * sizeof(uint32_t));
    uint32_t rows = 0;
    for (uint32_t i = 0; i < m->key_count; i++) {
        if (i == 0 || compare_in(order, m->keys[sorted[i - 1]], m->keys[sorted[i]]) != 0) {
            m->key_at[order][rows++] = sorted[i];
        }
        m->row_of[order][sorted[i]] = rows - 1;
    }
    m->row_count[order] = rows;
    free(sorted);
}

void model_init(struct model *m, uint64_t seed, uint32_t key_count)
{
    CHECK(key_count >= 16);
    memset(m, 0, sizeof *m);
    struct random r;
    random_init(&r, seed);
    m->keys = get_memory(key_count * sizeof *m->keys);
    m->key_count = key_count;
    uint32_t n = 0;
    m->keys[n++] = filled(0, 0);
    m->keys[n++] = filled(0, 1);
    m->keys[n++] = filled(0, 2);
    m->keys[n++] = filled(0xff, 1);
    m->keys[n++] = filled(0xff, 2);
    m->keys[n++] = filled(0xff, 300);
    m->keys[n++] = filled('k', LOAM_MAX_KEY);
    m->keys[n] = filled('k', LOAM_MAX_KEY);
    ((uint8_t *)(uintptr_t)m->keys[n++].data)[LOAM_MAX_KEY - 1] = 'K';
    m->keys[n++] = filled(0xff, 5000);
    while (n < key_count) {
        m->keys[n++] = random_key(&r);
    }
    for (int o = 0; o < MODEL_ORDERS; o++) {
        make_rows(m, (enum model_order)o);
    }
}

static void drop_rows(struct model *m, uint32_t ks)
{
    struct model_ks *k = &m->ks[ks];
    for (uint32_t i = 0; k->rows != NULL && i < m->row_count[k->order]; i++) {
        free(k->rows[i].v);
    }
    free(k->rows);
    k->rows = NULL;
}

void model_free(struct model *m)
{
    for (uint32_t i = 0; i < MODEL_KS_MAX; i++) {
        drop_rows(m, i);
    }
    for (uint32_t i = 0; i < m->key_count; i++) {
        free((void *)(uintptr_t)m->keys[i].data);
    }
    for (int o = 0; o < MODEL_ORDERS; o++) {
        free(m->row_of[o]);
        free(m->key_at[o]);
    }
    free(m->keys);
    free(m->first_seq);
    free(m->pending);
    memset(m, 0, sizeof *m);
}

/* ---- keyspaces ---------------------------------------------------------------------------------
 */

static void set_name(struct model_ks *k, const char *name)
{
    size_t n = strlen(name);
    CHECK(n < sizeof k->name);
    memcpy(k->name, name, n + 1);
}

uint32_t model_ks_add(struct model *m, const char *name, enum model_order order)
{
    for (uint32_t i = 0; i < MODEL_KS_MAX; i++) {
        struct model_ks *k = &m->ks[i];
        if (!k->live) {
            k->live = true;
            k->order = order;
            set_name(k, name);
            k->rows = get_memory(m->row_count[order] * sizeof *k->rows);
            return i;
        }
    }
    return MODEL_NONE;
}

void model_ks_drop(struct model *m, uint32_t ks)
{
    drop_rows(m, ks);
    m->ks[ks].live = false;
}

void model_ks_rename(struct model *m, uint32_t ks, const char *name)
{
    set_name(&m->ks[ks], name);
}

/* ---- commits -----------------------------------------------------------------------------------
 */

static void push(struct model *m, uint32_t ks, const struct model_version *v)
{
    struct model_ks *k = &m->ks[ks];
    CHECK(k->live);
    uint32_t row = m->row_of[k->order][v->key];
    struct model_chain *c = &k->rows[row];
    if (c->count == c->cap) {
        c->cap = c->cap != 0 ? c->cap * 2 : 4;
        c->v = realloc(c->v, c->cap * sizeof *c->v);
        CHECK(c->v != NULL);
    }
    c->v[c->count++] = *v;
    if (m->pending_count == m->pending_cap) {
        m->pending_cap = m->pending_cap != 0 ? m->pending_cap * 2 : 64;
        m->pending = realloc(m->pending, m->pending_cap * sizeof *m->pending);
        CHECK(m->pending != NULL);
    }
    m->pending[m->pending_count].ks = ks;
    m->pending[m->pending_count++].row = row;
}

void model_put(struct model *m, uint32_t ks, uint32_t key, uint64_t value_id, uint32_t size)
{
    const struct model_version v = {
        .commit = m->now + 1, .value_id = value_id, .size = size, .key = key, .present = true};
    push(m, ks, &v);
}

void model_delete(struct model *m, uint32_t ks, uint32_t key)
{
    const struct model_version v = {.commit = m->now + 1, .key = key, .present = false};
    push(m, ks, &v);
}

static struct model_chain *pending_chain(struct model *m, uint32_t i)
{
    return &m->ks[m->pending[i].ks].rows[m->pending[i].row];
}

void model_commit(struct model *m, uint64_t seq)
{
    /* Operation i of the commit has number seq + i; a row may hold several of them, in order. */
    for (uint32_t i = 0; i < m->pending_count && seq != 0; i++) {
        struct model_chain *c = pending_chain(m, i);
        for (uint32_t k = 0; k < c->count; k++) {
            struct model_version *v = &c->v[c->count - 1 - k];
            bool oldest_open = v->commit == m->now + 1 && v->seq == 0 &&
                               (k + 1 == c->count || v[-1].commit != v->commit || v[-1].seq != 0);
            if (oldest_open) {
                v->seq = seq + i;
                break;
            }
        }
    }
    m->now++;
    if (m->now >= m->first_seq_cap) {
        m->first_seq_cap = m->first_seq_cap != 0 ? m->first_seq_cap * 2 : 1024;
        m->first_seq = realloc(m->first_seq, m->first_seq_cap * sizeof *m->first_seq);
        CHECK(m->first_seq != NULL);
        m->first_seq[0] = 0;
    }
    m->first_seq[m->now] = seq != 0 ? seq : m->first_seq[m->now - 1];
    m->pending_count = 0;
}

void model_abort(struct model *m)
{
    while (m->pending_count != 0) {
        pending_chain(m, --m->pending_count)->count--;
    }
}

void model_truncate(struct model *m, uint64_t commit)
{
    for (uint32_t i = 0; i < MODEL_KS_MAX; i++) {
        struct model_ks *k = &m->ks[i];
        for (uint32_t row = 0; k->live && row < m->row_count[k->order]; row++) {
            struct model_chain *c = &k->rows[row];
            while (c->count != 0 && c->v[c->count - 1].commit > commit) {
                c->count--;
            }
        }
    }
    m->now = commit < m->now ? commit : m->now;
}

uint64_t model_commit_of_seq(const struct model *m, uint64_t seq)
{
    uint64_t lo = 0, hi = m->now;
    while (lo < hi) {
        uint64_t mid = hi - (hi - lo) / 2;
        if (m->first_seq[mid] <= seq) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    return lo;
}

/* ---- reading -----------------------------------------------------------------------------------
 */

const struct model_version *model_get(const struct model *m, uint32_t ks, uint32_t row,
                                      uint64_t commit)
{
    const struct model_chain *c = &m->ks[ks].rows[row];
    uint32_t lo = 0, hi = c->count;
    while (lo < hi) { /* the first version after `commit` */
        uint32_t mid = lo + (hi - lo) / 2;
        if (c->v[mid].commit <= commit) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo != 0 && c->v[lo - 1].present ? &c->v[lo - 1] : NULL;
}

uint32_t model_find(const struct model *m, uint32_t ks, int64_t row, int step, uint32_t lo,
                    uint32_t hi, uint64_t commit)
{
    if (step > 0 && row < (int64_t)lo) {
        row = lo;
    }
    if (step < 0 && row >= (int64_t)hi) {
        row = (int64_t)hi - 1;
    }
    for (; row >= (int64_t)lo && row < (int64_t)hi; row += step) {
        if (model_get(m, ks, (uint32_t)row, commit) != NULL) {
            return (uint32_t)row;
        }
    }
    return MODEL_NONE;
}

/* ---- values ------------------------------------------------------------------------------------
 */

static uint64_t value_word(uint64_t id, uint64_t i)
{
    uint64_t state = id ^ (id % 2 == 0 ? i * 0x9e3779b97f4a7c15u : i / 16);
    return splitmix64(&state);
}

void model_value(uint64_t value_id, uint32_t size, uint8_t *to)
{
    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t w = value_word(value_id, at / 8);
        memcpy(to + at, &w, size - at < 8 ? size - at : 8);
    }
}

bool model_value_is(uint64_t value_id, uint32_t size, loam_slice bytes)
{
    if (bytes.size != size) {
        return false;
    }
    const uint8_t *p = bytes.data;
    for (uint32_t at = 0; at < size; at += 8) {
        uint64_t w = value_word(value_id, at / 8);
        if (memcmp(p + at, &w, size - at < 8 ? size - at : 8) != 0) {
            return false;
        }
    }
    return true;
}
