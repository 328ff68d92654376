/* repair_table.c - Takes one table into the repaired state, whole or what is left of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"
#include "engine/repair.h"
#include "sstable/sst_salvage.h"

#include "arena/poison.h"

struct one_table {
    struct repair *r;
    struct table_meta meta; /* keys NULL: only the number is known */
    struct check check;     /* of it alone */
    loam_slice ks_name;
    struct repair_output out;
    bool output;      /* out is initialised */
    uint64_t places;  /* damaged places told of */
    loam_error why;   /* that the file is not sound */
    int missing_code; /* LOAM_E_NOENT when there is no file */
};

static bool is_lone(const struct one_table *t)
{
    return t->meta.smallest.data == NULL;
}

/* ---- is it sound? ------------------------------------------------------------------------------ */

static bool find_ks(void *arg, uint32_t id, struct check_ks *out)
{
    const struct one_table *t = arg;
    const struct ks_desc *d = repair_ks(t->r, id);
    if (d == NULL) {
        return false;
    }
    *out = (struct check_ks){d->name, d->comparator, NULL};
    (void)repair_order(t->r, id, &out->cmp);
    return true;
}

static bool named(void *arg, uint64_t table)
{
    (void)arg, (void)table;
    return true;
}

static int note_missing(void *ctx, const loam_damage *d)
{
    struct one_table *t = ctx;
    t->missing_code = d->code == LOAM_E_NOENT ? LOAM_E_NOENT : t->missing_code;
    return 0;
}

/* LOAM_OK, with *sound and t->why. */
static int look(struct one_table *t, bool *sound)
{
    t->check = (struct check){.vfs = t->r->vfs,
                              .dir = t->r->dir,
                              .alloc = t->r->alloc,
                              .db_id = t->r->db_id,
                              .sink = {.fn = note_missing, .ctx = t},
                              .ks = find_ks,
                              .named = named,
                              .arg = t};
    int rc = check_table(&t->check, &t->meta);
    *sound = t->check.sink.found == 0;
    t->why = t->check.sink.worst;
    return rc;
}

/* ---- a sound one ------------------------------------------------------------------------------- */

static int open_reader(const struct one_table *t, struct sst_reader **reader)
{
    char path[FILENAME_CAP];
    int rc = filename_make(t->r->dir, FILE_TABLE, t->meta.number, path);
    const struct sst_open_options o = {.vfs = t->r->vfs,
                                       .alloc = t->r->alloc,
                                       .path = path,
                                       .file_number = t->meta.number,
                                       .db_id = t->r->db_id,
                                       .inspect = true};
    return rc == LOAM_OK ? sst_open(&o, reader) : rc;
}

static int checksum_of(struct sst_reader *reader, uint64_t *checksum)
{
    return sst_verify(reader, NULL, checksum);
}

/* What the file says of itself is all there is. *ours: it is this database's. */
static int take_lone(struct one_table *t, bool *ours)
{
    struct sst_reader *reader = NULL;
    uint64_t checksum = 0;
    int rc = open_reader(t, &reader);
    if (rc == LOAM_OK) {
        rc = checksum_of(reader, &checksum);
    }
    if (rc == LOAM_OK) {
        const struct sst_props *p = sst_props(reader);
        *ours = p->db_id == t->r->db_id && p->ks <= KS_ID_MAX; /* which it never makes */
        const struct table_meta m = {.number = t->meta.number,
                                     .size = p->file_size,
                                     .entries = p->entries,
                                     .deletes = p->deletes,
                                     .raw_bytes = p->raw_bytes,
                                     .checksum = checksum,
                                     .min_seq = p->min_seq,
                                     .max_seq = p->max_seq,
                                     .ks = p->ks,
                                     .level = p->level < LEVEL_COUNT ? (uint8_t)p->level : 0,
                                     .smallest = p->smallest,
                                     .largest = p->largest};
        if (*ours && repair_ks(t->r, m.ks) == NULL) {
            rc = repair_add_ks(t->r, m.ks, p->comparator);
        }
        if (*ours && rc == LOAM_OK) {
            rc = version_edit_add_table(&t->r->state, &m);
            t->r->last_seq = m.max_seq > t->r->last_seq ? m.max_seq : t->r->last_seq;
        }
    }
    sst_close(reader);
    return rc;
}

/* ---- a damaged one ----------------------------------------------------------------------------- */

static void tell_place(void *arg, const struct sst_damage *d)
{
    struct one_table *t = arg;
    t->places++;
    damage_tell(&t->r->sink, &(struct damage){.kind = FILE_TABLE,
                                              .number = t->meta.number,
                                              .offset = d->offset,
                                              .bytes = d->bytes,
                                              .keys = d->entries,
                                              .ks = t->ks_name,
                                              .first = d->first,
                                              .last = d->last});
}

static int take_entry(void *arg, const struct entry *e)
{
    struct one_table *t = arg;
    return repair_output_add(&t->out, e);
}

/* Entries whose order was not known when they were flushed stand in byte order. */
static bool by_bytes(const struct one_table *t)
{
    struct sst_reader *reader = NULL;
    bool is = open_reader(t, &reader) == LOAM_OK && sst_props(reader)->comparator.size == 0;
    sst_close(reader);
    return is;
}

static int salvage(struct one_table *t, struct sst_salvaged *got)
{
    struct repair *r = t->r;
    char path[FILENAME_CAP];
    struct sst_salvage_options o = {.vfs = r->vfs,
                                    .alloc = r->alloc,
                                    .path = path,
                                    .file_number = t->meta.number,
                                    .db_id = r->db_id,
                                    .entry = take_entry,
                                    .damage = tell_place,
                                    .arg = t};
    int rc = filename_make(r->dir, FILE_TABLE, t->meta.number, path);
    bool bytes = by_bytes(t);
    o.ordered = bytes || repair_order(r, t->meta.ks, &o.cmp);
    o.cmp = bytes ? NULL : o.cmp;
    repair_output_init(&t->out, r, t->meta.ks, t->meta.level, bytes);
    t->output = true;
    if (rc == LOAM_OK) {
        rc = sst_salvage(&o, got);
    }
    if (rc == LOAM_OK) {
        rc = repair_output_finish(&t->out);
    }
    return rc;
}

/* One finding for the whole file, when its damage is not in single blocks. */
static void tell_rest(struct one_table *t)
{
    uint64_t had = t->meta.entries, got = t->output ? t->out.entries : 0;
    bool known = !is_lone(t);
    if (t->places != 0) {
        return;
    }
    status_raise(&t->why);
    damage_tell(&t->r->sink, &(struct damage){.kind = FILE_TABLE,
                                              .number = t->meta.number,
                                              .code = t->missing_code,
                                              .recovered = known && got == had,
                                              .offset = t->why.offset,
                                              .keys = !known      ? DAMAGE_KEYS_UNKNOWN
                                                      : got < had ? had - got
                                                                  : 0,
                                              .ks = t->ks_name,
                                              .first = t->meta.smallest,
                                              .last = t->meta.largest});
}

/* The header alone, which has a checksum of its own. */
static bool read_header(const struct one_table *t, struct sst_header *h)
{
    char path[FILENAME_CAP];
    uint8_t bytes[SST_HEADER_SIZE];
    const loam_vfs *vfs = t->r->vfs;
    loam_file *f;
    if (filename_make(t->r->dir, FILE_TABLE, t->meta.number, path) < 0 ||
        vfs->open(vfs->ctx, path, LOAM_VFS_READ, &f) < 0) {
        return false;
    }
    int rc = sst_read_full(vfs, f, t->meta.number, bytes, sizeof bytes, 0);
    (void)vfs->close(vfs->ctx, f);
    return rc == LOAM_OK && sst_header_decode(bytes, t->meta.number, h) == LOAM_OK &&
           h->db_id == t->r->db_id && h->file_number == t->meta.number;
}

/* Of a file that nobody names: which keyspace it is of, if it says so itself. */
static bool ask_file(struct one_table *t)
{
    struct sst_reader *reader = NULL;
    struct sst_header h;
    loam_slice comparator = loam_bytes("", 0);
    if (!read_header(t, &h)) {
        return false;
    }
    t->meta.ks = h.ks;
    if (open_reader(t, &reader) == LOAM_OK) {
        const struct sst_props *p = sst_props(reader);
        t->meta.level = p->level < LEVEL_COUNT ? (uint8_t)p->level : 0;
        comparator = p->comparator;
    }
    bool known = repair_ks(t->r, h.ks) != NULL || repair_add_ks(t->r, h.ks, comparator) == LOAM_OK;
    sst_close(reader);
    return known;
}

static int take_remains(struct one_table *t)
{
    struct sst_salvaged got = {.opened = false};
    int rc = LOAM_OK;
    bool whose = !is_lone(t) || ask_file(t);
    if (t->missing_code != LOAM_E_NOENT && whose && repair_ks(t->r, t->meta.ks) != NULL) {
        rc = salvage(t, &got);
    }
    if (rc == LOAM_OK) {
        tell_rest(t);
        rc = t->missing_code != LOAM_E_NOENT ? repair_set_aside(t->r, FILE_TABLE, t->meta.number)
                                             : LOAM_OK;
    }
    if (t->output) {
        repair_output_free(&t->out);
    }
    return rc;
}

int repair_table(struct repair *r, const struct table_meta *m)
{
    struct one_table t = {.r = r, .meta = *m};
    const struct ks_desc *d = repair_ks(r, m->ks);
    bool sound = false, ours = true;
    t.ks_name = d != NULL && !is_lone(&t) ? d->name : loam_bytes(NULL, 0);
    int rc = look(&t, &sound);
    if (rc != LOAM_OK) {
        return rc;
    }
    if (!sound && t.missing_code != LOAM_E_NOENT && !repair_lasting(&t.why)) {
        return status_raise(&t.why);
    }
    if (!sound) {
        return take_remains(&t);
    }
    if (!is_lone(&t)) {
        return version_edit_add_table(&r->state, m);
    }
    rc = take_lone(&t, &ours);
    if (rc == LOAM_OK && !ours) {
        FAIL_CORRUPT(m->number, 16, "table %llu is another database's, or of no keyspace",
                     (unsigned long long)m->number);
        t.why = *loam_last_error();
        tell_rest(&t);
        rc = repair_set_aside(r, FILE_TABLE, m->number);
    }
    return rc;
}
