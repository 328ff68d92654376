/* version_edit.c - Builds, encodes and decodes one change to the set of tables and keyspaces.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_edit.h"

#include <assert.h>
#include <string.h>

#include "arena/coding.h"
#include "arena/entry.h"
#include "arena/status.h"
#include "engine/loam.h"

#include "arena/poison.h"

enum field {
    FIELD_TABLE_ADDED = 2,
    FIELD_TABLE_REMOVED = 4,
    FIELD_LOG_NUMBER = 6,
    FIELD_NEXT_FILE = 8,
    FIELD_LAST_SEQ = 10,
    FIELD_SEALED_LOG = 12,
    FIELD_KS_CREATED = 14,
    FIELD_KS_DROPPED = 16,
    FIELD_KS_RENAMED = 18,
    FIELD_SNAPSHOT_END = 20,
    FIELD_NEXT_KS = 22,
    FIELD_LOG_NONE = 24,
    FIELD_DEAD_RANGE = 27,
    FIELD_OLDER_VERSIONS = 29
};

enum { DEAD_LO_BEHIND = 1, DEAD_HI_BEHIND = 2 };

void version_edit_init(struct version_edit *e, struct alloc *a)
{
    *e = (struct version_edit){.alloc = a};
}

/* ---- arrays with owned bytes ----------------------------------------------------------------- */

/* Room for one more element; false when memory is out. */
static bool grow(struct alloc *a, void *array, uint32_t count, uint32_t *cap, size_t element)
{
    if (count < *cap) {
        return true;
    }
    if (*cap > UINT32_MAX / 2) {
        return false;
    }
    uint32_t bigger = *cap != 0 ? *cap * 2 : 4;
    void *old;
    memcpy(&old, array, sizeof old);
    void *p = alloc_resize(a, MEM_VERSION, old, *cap * element, bigger * element);
    if (p == NULL) {
        return false;
    }
    memcpy(array, &p, sizeof p);
    *cap = bigger;
    return true;
}

static int no_memory(void)
{
    return FAIL(LOAM_E_NOMEM, "no memory for a version edit");
}

/* Moves two slices into one allocation of (their sizes + 1) bytes, so that data is never NULL. */
static bool own_pair(struct alloc *a, loam_slice *x, loam_slice *y)
{
    uint8_t *p = alloc_get(a, MEM_VERSION, x->size + y->size + 1);
    if (p == NULL) {
        return false;
    }
    if (x->size != 0) {
        memcpy(p, x->data, x->size);
    }
    if (y->size != 0) {
        memcpy(p + x->size, y->data, y->size);
    }
    p[x->size + y->size] = 0;
    y->data = p + x->size;
    x->data = p;
    return true;
}

static void disown_pair(struct alloc *a, loam_slice x, loam_slice y)
{
    alloc_put(a, MEM_VERSION, (void *)(uintptr_t)x.data, x.size + y.size + 1);
}

static loam_slice no_slice(void)
{
    return loam_bytes("", 0);
}

void version_edit_free(struct version_edit *e)
{
    struct alloc *a = e->alloc;
    for (uint32_t i = 0; i < e->added_count; i++) {
        disown_pair(a, e->added[i].smallest, e->added[i].largest);
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        disown_pair(a, e->created[i].name, e->created[i].comparator);
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        disown_pair(a, e->renamed[i].name, no_slice());
    }
    for (uint32_t i = 0; i < e->dead_count; i++) {
        disown_pair(a, e->dead[i].lo, e->dead[i].hi);
    }
    alloc_put(a, MEM_VERSION, e->dead, e->dead_cap * sizeof *e->dead);
    alloc_put(a, MEM_VERSION, e->added, e->added_cap * sizeof *e->added);
    alloc_put(a, MEM_VERSION, e->removed, e->removed_cap * sizeof *e->removed);
    alloc_put(a, MEM_VERSION, e->created, e->created_cap * sizeof *e->created);
    alloc_put(a, MEM_VERSION, e->dropped, e->dropped_cap * sizeof *e->dropped);
    alloc_put(a, MEM_VERSION, e->renamed, e->renamed_cap * sizeof *e->renamed);
    version_edit_init(e, a);
}

int version_edit_add_table(struct version_edit *e, const struct table_meta *m)
{
    assert(m->level < LEVEL_COUNT);
    struct table_meta t = *m;
    if (!grow(e->alloc, &e->added, e->added_count, &e->added_cap, sizeof *e->added) ||
        !own_pair(e->alloc, &t.smallest, &t.largest)) {
        return no_memory();
    }
    e->added[e->added_count++] = t;
    return LOAM_OK;
}

void version_edit_drop_added(struct version_edit *e, uint32_t i)
{
    assert(i < e->added_count);
    disown_pair(e->alloc, e->added[i].smallest, e->added[i].largest);
    e->added_count--;
    memmove(&e->added[i], &e->added[i + 1], (e->added_count - i) * sizeof *e->added);
}

int version_edit_remove_table(struct version_edit *e, uint32_t ks, uint8_t level, uint64_t number)
{
    assert(level < LEVEL_COUNT);
    if (!grow(e->alloc, &e->removed, e->removed_count, &e->removed_cap, sizeof *e->removed)) {
        return no_memory();
    }
    e->removed[e->removed_count++] =
        (struct removed_table){.number = number, .ks = ks, .level = level};
    return LOAM_OK;
}

int version_edit_create_ks(struct version_edit *e, const struct ks_desc *d)
{
    struct ks_desc k = *d;
    if (!grow(e->alloc, &e->created, e->created_count, &e->created_cap, sizeof *e->created) ||
        !own_pair(e->alloc, &k.name, &k.comparator)) {
        return no_memory();
    }
    e->created[e->created_count++] = k;
    return LOAM_OK;
}

int version_edit_drop_ks(struct version_edit *e, uint32_t id)
{
    if (!grow(e->alloc, &e->dropped, e->dropped_count, &e->dropped_cap, sizeof *e->dropped)) {
        return no_memory();
    }
    e->dropped[e->dropped_count++] = id;
    return LOAM_OK;
}

int version_edit_rename_ks(struct version_edit *e, uint32_t id, loam_slice name)
{
    loam_slice none = no_slice();
    if (!grow(e->alloc, &e->renamed, e->renamed_count, &e->renamed_cap, sizeof *e->renamed) ||
        !own_pair(e->alloc, &name, &none)) {
        return no_memory();
    }
    e->renamed[e->renamed_count++] = (struct ks_rename){.id = id, .name = name};
    return LOAM_OK;
}

int version_edit_add_dead(struct version_edit *e, const struct dead_note *n)
{
    struct dead_note d = *n;
    if (!grow(e->alloc, &e->dead, e->dead_count, &e->dead_cap, sizeof *e->dead) ||
        !own_pair(e->alloc, &d.lo, &d.hi)) {
        return no_memory();
    }
    e->dead[e->dead_count++] = d;
    return LOAM_OK;
}

void version_edit_drop_dead(struct version_edit *e, uint32_t i)
{
    assert(i < e->dead_count);
    disown_pair(e->alloc, e->dead[i].lo, e->dead[i].hi);
    e->dead_count--;
    memmove(&e->dead[i], &e->dead[i + 1], (e->dead_count - i) * sizeof *e->dead);
}

void version_edit_move_dead(struct version_edit *to, struct version_edit *from)
{
    assert(to->alloc == from->alloc);
    while (to->dead_count != 0) {
        version_edit_drop_dead(to, to->dead_count - 1);
    }
    struct dead_note *array = to->dead;
    uint32_t cap = to->dead_cap;
    to->dead = from->dead;
    to->dead_count = from->dead_count;
    to->dead_cap = from->dead_cap;
    from->dead = array;
    from->dead_count = 0;
    from->dead_cap = cap;
}

void version_edit_set_log_number(struct version_edit *e, uint64_t number, bool none)
{
    e->log_none = none;
    e->has_log_number = true;
    e->log_number = number;
}

void version_edit_set_next_file(struct version_edit *e, uint64_t number)
{
    e->has_next_file = true;
    e->next_file = number;
}

void version_edit_set_last_seq(struct version_edit *e, uint64_t seq)
{
    e->has_last_seq = true;
    e->last_seq = seq;
}

void version_edit_set_sealed(struct version_edit *e, uint64_t number, uint64_t position)
{
    e->has_sealed = true;
    e->sealed_number = number;
    e->sealed_position = position;
}

void version_edit_set_next_ks(struct version_edit *e, uint32_t id)
{
    e->has_next_ks = true;
    e->next_ks = id;
}

/* ---- encoding -------------------------------------------------------------------------------- */

static size_t slice_size(loam_slice s)
{
    return varint64_size(s.size) + s.size;
}

static void field_begin(struct buf *out, enum field tag, size_t size)
{
    buf_append_varint(out, tag);
    buf_append_varint(out, size);
}

static void field_varint(struct buf *out, enum field tag, uint64_t v)
{
    field_begin(out, tag, varint64_size(v));
    buf_append_varint(out, v);
}

static void encode_added(const struct table_meta *m, struct buf *out)
{
    const uint64_t before[] = {m->ks,      m->level,   m->number,   m->size,
                               m->entries, m->deletes, m->raw_bytes};
    size_t size = 8 + varint64_size(m->min_seq) + varint64_size(m->max_seq) +
                  slice_size(m->smallest) + slice_size(m->largest);
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        size += varint64_size(before[i]);
    }
    field_begin(out, FIELD_TABLE_ADDED, size);
    for (size_t i = 0; i < sizeof before / sizeof before[0]; i++) {
        buf_append_varint(out, before[i]);
    }
    buf_append_fixed64(out, m->checksum);
    buf_append_varint(out, m->min_seq);
    buf_append_varint(out, m->max_seq);
    buf_append_slice(out, m->smallest);
    buf_append_slice(out, m->largest);
}

static void encode_older(const struct table_meta *m, struct buf *out)
{
    field_begin(out, FIELD_OLDER_VERSIONS, varint64_size(m->number) + varint64_size(m->older));
    buf_append_varint(out, m->number);
    buf_append_varint(out, m->older);
}

static void encode_created(const struct ks_desc *d, struct buf *out)
{
    field_begin(out, FIELD_KS_CREATED,
                varint64_size(d->id) + slice_size(d->name) + slice_size(d->comparator) +
                    varint64_size(d->compression) + varint64_size(d->filter_bits) +
                    varint64_size(d->block_bytes));
    buf_append_varint(out, d->id);
    buf_append_slice(out, d->name);
    buf_append_slice(out, d->comparator);
    buf_append_varint(out, d->compression);
    buf_append_varint(out, d->filter_bits);
    buf_append_varint(out, d->block_bytes);
}

static void encode_keyspaces(const struct version_edit *e, struct buf *out)
{
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        field_varint(out, FIELD_KS_DROPPED, e->dropped[i]);
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        const struct ks_rename *r = &e->renamed[i];
        field_begin(out, FIELD_KS_RENAMED, varint64_size(r->id) + slice_size(r->name));
        buf_append_varint(out, r->id);
        buf_append_slice(out, r->name);
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        encode_created(&e->created[i], out);
    }
}

static void encode_dead(const struct dead_note *n, struct buf *out)
{
    uint64_t places =
        (n->lo_behind ? DEAD_LO_BEHIND : 0u) | (n->hi_behind ? DEAD_HI_BEHIND : 0u);
    field_begin(out, FIELD_DEAD_RANGE,
                varint64_size(n->ks) + varint64_size(n->from) + varint64_size(places) +
                    slice_size(n->lo) + slice_size(n->hi));
    buf_append_varint(out, n->ks);
    buf_append_varint(out, n->from);
    buf_append_varint(out, places);
    buf_append_slice(out, n->lo);
    buf_append_slice(out, n->hi);
}

void version_edit_encode(const struct version_edit *e, struct buf *out)
{
    if (e->has_log_number) {
        field_varint(out, FIELD_LOG_NUMBER, e->log_number);
        if (e->log_none) {
            field_begin(out, FIELD_LOG_NONE, 0);
        }
    }
    if (e->has_next_file) {
        field_varint(out, FIELD_NEXT_FILE, e->next_file);
    }
    if (e->has_last_seq) {
        field_varint(out, FIELD_LAST_SEQ, e->last_seq);
    }
    if (e->has_sealed) {
        field_begin(out, FIELD_SEALED_LOG,
                    varint64_size(e->sealed_number) + varint64_size(e->sealed_position));
        buf_append_varint(out, e->sealed_number);
        buf_append_varint(out, e->sealed_position);
    }
    if (e->has_next_ks) {
        field_varint(out, FIELD_NEXT_KS, e->next_ks);
    }
    for (uint32_t i = 0; i < e->removed_count; i++) {
        const struct removed_table *r = &e->removed[i];
        field_begin(out, FIELD_TABLE_REMOVED,
                    varint64_size(r->ks) + varint64_size(r->level) + varint64_size(r->number));
        buf_append_varint(out, r->ks);
        buf_append_varint(out, r->level);
        buf_append_varint(out, r->number);
    }
    encode_keyspaces(e, out);
    for (uint32_t i = 0; i < e->added_count; i++) {
        encode_added(&e->added[i], out);
        if (e->added[i].older != 0) {
            encode_older(&e->added[i], out);
        }
    }
    for (uint32_t i = 0; i < e->dead_count; i++) {
        encode_dead(&e->dead[i], out);
    }
    if (e->snapshot_end) {
        field_begin(out, FIELD_SNAPSHOT_END, 0);
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* Why bytes were refused; NULL: they were not. */
typedef const char *refusal;

static bool ks_id_ok(uint64_t id)
{
    return id <= KS_ID_MAX;
}

static bool name_ok(loam_slice s, bool may_be_empty)
{
    if (s.size > LOAM_MAX_KS_NAME || (s.size == 0 && !may_be_empty)) {
        return false;
    }
    return s.size == 0 || memchr(s.data, 0, s.size) == NULL;
}

static refusal check_added(const struct table_meta *m, uint64_t ks, uint64_t level)
{
    if (!ks_id_ok(ks) || level >= LEVEL_COUNT) {
        return "a table's keyspace or level is out of range";
    }
    if (m->number == 0 || m->size == 0 || m->entries == 0 || m->deletes > m->entries) {
        return "a table's number, size or counts are impossible";
    }
    if (m->min_seq > m->max_seq || m->max_seq > SEQ_MAX) {
        return "a table's sequence numbers are impossible";
    }
    if (m->smallest.size > LOAM_MAX_KEY || m->largest.size > LOAM_MAX_KEY) {
        return "a table's key is too long";
    }
    return NULL;
}

static int decode_added(struct version_edit *e, struct reader *r, refusal *why)
{
    struct table_meta m = {0};
    uint64_t ks = read_varint64(r);
    uint64_t level = read_varint64(r);
    m.number = read_varint64(r);
    m.size = read_varint64(r);
    m.entries = read_varint64(r);
    m.deletes = read_varint64(r);
    m.raw_bytes = read_varint64(r);
    m.checksum = read_fixed64(r);
    m.min_seq = read_varint64(r);
    m.max_seq = read_varint64(r);
    m.smallest = read_slice(r);
    m.largest = read_slice(r);
    if (r->bad || (*why = check_added(&m, ks, level)) != NULL) {
        return LOAM_OK;
    }
    m.ks = (uint32_t)ks;
    m.level = (uint8_t)level;
    return version_edit_add_table(e, &m);
}

static void decode_older(struct version_edit *e, struct reader *r, refusal *why)
{
    uint64_t number = read_varint64(r), older = read_varint64(r);
    struct table_meta *m = e->added_count != 0 ? &e->added[e->added_count - 1] : NULL;
    if (r->bad) {
        return;
    }
    if (m == NULL || m->number != number || m->older != 0 || older == 0 || older >= m->entries) {
        *why = "older versions of no table, or too many";
        return;
    }
    m->older = older;
}

static int decode_removed(struct version_edit *e, struct reader *r, refusal *why)
{
    uint64_t ks = read_varint64(r);
    uint64_t level = read_varint64(r);
    uint64_t number = read_varint64(r);
    if (r->bad) {
        return LOAM_OK;
    }
    if (!ks_id_ok(ks) || level >= LEVEL_COUNT) {
        *why = "a removed table's keyspace or level is out of range";
        return LOAM_OK;
    }
    return version_edit_remove_table(e, (uint32_t)ks, (uint8_t)level, number);
}

static int decode_created(struct version_edit *e, struct reader *r, refusal *why)
{
    struct ks_desc d = {0};
    uint64_t id = read_varint64(r);
    d.name = read_slice(r);
    d.comparator = read_slice(r);
    d.compression = read_varint32(r);
    d.filter_bits = read_varint32(r);
    d.block_bytes = read_varint32(r);
    if (r->bad) {
        return LOAM_OK;
    }
    if (!ks_id_ok(id) || !name_ok(d.name, false) || !name_ok(d.comparator, true)) {
        *why = "a keyspace's id or name is out of range";
        return LOAM_OK;
    }
    if (d.compression > LOAM_COMPRESS_ZSTD || (d.filter_bits > 32 && d.filter_bits != UINT32_MAX) ||
        d.block_bytes < 512 || d.block_bytes > 65536) {
        *why = "a keyspace's options are out of range";
        return LOAM_OK;
    }
    d.id = (uint32_t)id;
    return version_edit_create_ks(e, &d);
}

static int decode_ks_id(struct version_edit *e, struct reader *r, refusal *why, bool rename)
{
    uint64_t id = read_varint64(r);
    loam_slice name = rename ? read_slice(r) : loam_bytes("-", 1);
    if (r->bad) {
        return LOAM_OK;
    }
    if (!ks_id_ok(id) || !name_ok(name, false)) {
        *why = "a keyspace's id or name is out of range";
        return LOAM_OK;
    }
    return rename ? version_edit_rename_ks(e, (uint32_t)id, name)
                  : version_edit_drop_ks(e, (uint32_t)id);
}

static int decode_dead(struct version_edit *e, struct reader *r, refusal *why)
{
    struct dead_note n = {0};
    uint64_t ks = read_varint64(r);
    n.from = read_varint64(r);
    uint64_t places = read_varint64(r);
    n.lo = read_slice(r);
    n.hi = read_slice(r);
    if (r->bad) {
        return LOAM_OK;
    }
    if (!ks_id_ok(ks) || n.from > SEQ_MAX || places > (DEAD_LO_BEHIND | DEAD_HI_BEHIND) ||
        n.lo.size > LOAM_MAX_KEY || n.hi.size > LOAM_MAX_KEY) {
        *why = "a dead range is impossible";
        return LOAM_OK;
    }
    n.ks = (uint32_t)ks;
    n.lo_behind = (places & DEAD_LO_BEHIND) != 0;
    n.hi_behind = (places & DEAD_HI_BEHIND) != 0;
    return version_edit_add_dead(e, &n);
}

/* A field that may come once: a number of at most `max`. */
static void decode_once(struct reader *r, uint64_t max, bool *has, uint64_t *v, refusal *why)
{
    uint64_t x = read_varint64(r);
    if (*has || x > max) {
        *why = *has ? "a field comes twice" : "a number is out of range";
        return;
    }
    *has = true;
    *v = x;
}

static void decode_sealed(struct version_edit *e, struct reader *r, refusal *why)
{
    decode_once(r, UINT64_MAX, &e->has_sealed, &e->sealed_number, why);
    e->sealed_position = read_varint64(r);
    if (e->sealed_position > SEQ_MAX) {
        *why = "a log position is out of range";
    }
}

static int decode_field(struct version_edit *e, uint64_t tag, struct reader *r, refusal *why)
{
    uint64_t next_ks = 0;
    switch (tag) {
    case FIELD_TABLE_ADDED:
        return decode_added(e, r, why);
    case FIELD_TABLE_REMOVED:
        return decode_removed(e, r, why);
    case FIELD_KS_CREATED:
        return decode_created(e, r, why);
    case FIELD_KS_DROPPED:
        return decode_ks_id(e, r, why, false);
    case FIELD_KS_RENAMED:
        return decode_ks_id(e, r, why, true);
    case FIELD_LOG_NUMBER:
        decode_once(r, UINT64_MAX, &e->has_log_number, &e->log_number, why);
        return LOAM_OK;
    case FIELD_NEXT_FILE:
        /* Half the range is out of reach, so that numbers can be counted up without a check. */
        decode_once(r, UINT64_MAX / 2, &e->has_next_file, &e->next_file, why);
        return LOAM_OK;
    case FIELD_LAST_SEQ:
        decode_once(r, SEQ_MAX, &e->has_last_seq, &e->last_seq, why);
        return LOAM_OK;
    case FIELD_SEALED_LOG:
        decode_sealed(e, r, why);
        return LOAM_OK;
    case FIELD_NEXT_KS:
        decode_once(r, (uint64_t)KS_ID_MAX + 1, &e->has_next_ks, &next_ks, why);
        e->next_ks = (uint32_t)next_ks;
        return LOAM_OK;
    case FIELD_LOG_NONE:
        *why = e->log_none ? "a field comes twice" : NULL;
        e->log_none = true;
        return LOAM_OK;
    case FIELD_DEAD_RANGE:
        return decode_dead(e, r, why);
    case FIELD_OLDER_VERSIONS:
        decode_older(e, r, why);
        return LOAM_OK;
    case FIELD_SNAPSHOT_END:
        *why = e->snapshot_end ? "a field comes twice" : NULL;
        e->snapshot_end = true;
        return LOAM_OK;
    default:
        r->p = r->end; /* odd: may be skipped */
        return LOAM_OK;
    }
}

static int decode_fields(struct version_edit *e, struct reader *in, uint64_t file_id,
                         uint64_t offset)
{
    while (reader_left(in) != 0) {
        uint64_t tag = read_varint64(in);
        loam_slice body = read_slice(in);
        if (in->bad) {
            return FAIL_CORRUPT(file_id, offset, "a field of a manifest record is cut off");
        }
        if (tag % 2 == 0 && (tag < FIELD_TABLE_ADDED || tag > FIELD_LOG_NONE)) {
            return status_fail(
                (struct fail_info){.code = LOAM_E_FORMAT, .file_id = file_id, .offset = offset},
                __FILE__, __LINE__, "manifest field %llu is of a newer format",
                (unsigned long long)tag);
        }
        struct reader r = reader_of(body.data, body.size);
        refusal why = NULL;
        int rc = decode_field(e, tag, &r, &why);
        if (rc != LOAM_OK) {
            return rc;
        }
        if (why != NULL) {
            return FAIL_CORRUPT(file_id, offset, "manifest: %s", why);
        }
        if (r.bad || reader_left(&r) != 0) {
            return FAIL_CORRUPT(file_id, offset, "manifest field %llu has the wrong size",
                                (unsigned long long)tag);
        }
    }
    if (e->dead_count != 0 && !e->has_sealed) {
        return FAIL_CORRUPT(file_id, offset, "manifest: a dead range beside an open log");
    }
    return LOAM_OK;
}

int version_edit_decode(struct version_edit *e, loam_slice bytes, uint64_t file_id, uint64_t offset)
{
    struct reader in = reader_of(bytes.data, bytes.size);
    int rc = decode_fields(e, &in, file_id, offset);
    if (rc != LOAM_OK) {
        version_edit_free(e);
    }
    return rc;
}
