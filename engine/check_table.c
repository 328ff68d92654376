/* check_table.c - One table file against its checksums, its order and the manifest's word.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/status.h"
#include "engine/check.h"
#include "sstable/sst_reader.h"

#include "arena/poison.h"

/* What the manifest says of a file of which nobody has said anything. */
static struct table_meta lone_meta(uint64_t number)
{
    return (struct table_meta){.number = number, .entries = DAMAGE_KEYS_UNKNOWN};
}

static bool is_lone(const struct table_meta *m)
{
    return m->smallest.data == NULL;
}

/* All of the table is at risk. */
static void tell_all(struct check *c, int code, uint64_t offset)
{
    const struct table_meta *m = c->table;
    damage_tell(&c->sink, &(struct damage){.kind = FILE_TABLE,
                                           .number = m->number,
                                           .code = code,
                                           .offset = offset,
                                           .keys = m->entries,
                                           .ks = c->ks_name,
                                           .first = m->smallest,
                                           .last = m->largest});
}

static int tell_place(void *arg, const struct sst_damage *d)
{
    struct check *c = arg;
    if (!damage_is(d->rc)) {
        return 1;
    }
    damage_tell(&c->sink, &(struct damage){.kind = FILE_TABLE,
                                           .number = c->table->number,
                                           .offset = d->offset,
                                           .bytes = d->bytes,
                                           .keys = d->entries,
                                           .ks = c->ks_name,
                                           .first = d->first,
                                           .last = d->last});
    return c->sink.stopped;
}

static int pace(void *arg, uint64_t bytes)
{
    struct check *c = arg;
    return c->pace != NULL ? c->pace(c->arg, bytes) : LOAM_OK;
}

/* Whose file it is. Opened for inspection, it has been believed so far. */
static const char *check_identity(const struct check *c, const struct sst_props *p,
                                  const struct check_ks *ks)
{
    const struct table_meta *m = c->table;
    if (p->file_number != m->number) {
        return "the file is another table's";
    }
    if (is_lone(m)) {
        return NULL;
    }
    if (p->db_id != c->db_id) {
        return "the file is another database's";
    }
    if (p->ks != m->ks) {
        return "the file is another keyspace's";
    }
    /* Until its order is known, a keyspace's entries are flushed in byte order. */
    return p->comparator.size == 0 || bytes_compare(p->comparator, ks->comparator) == 0
               ? NULL
               : "the file was built with another comparator";
}

static const char *check_meta(const struct table_meta *m, const struct sst_props *p,
                              uint64_t checksum)
{
    const struct {
        bool same;
        const char *what;
    } checks[] = {
        {p->file_size == m->size, "the size is not the manifest's"},
        {p->entries == m->entries && p->deletes == m->deletes && p->raw_bytes == m->raw_bytes,
         "the number of entries is not the manifest's"},
        {p->min_seq == m->min_seq && p->max_seq == m->max_seq,
         "the sequence numbers are not the manifest's"},
        {bytes_compare(p->smallest, m->smallest) == 0 && bytes_compare(p->largest, m->largest) == 0,
         "the key range is not the manifest's"},
        {checksum == m->checksum, "the file's checksum is not the manifest's"},
    };
    for (size_t i = 0; i < sizeof checks / sizeof checks[0]; i++) {
        if (!checks[i].same) {
            return checks[i].what;
        }
    }
    return NULL;
}

static int open_table(const struct check *c, const loam_comparator *cmp, struct sst_reader **r)
{
    char path[FILENAME_CAP];
    int rc = filename_make(c->dir, FILE_TABLE, c->table->number, path);
    if (rc < 0) {
        return rc;
    }
    const struct sst_open_options o = {.vfs = c->vfs,
                                       .alloc = c->alloc,
                                       .path = path,
                                       .file_number = c->table->number,
                                       .db_id = c->db_id,
                                       .cmp = cmp,
                                       .size = c->table->size,
                                       .inspect = true};
    return sst_open(&o, r);
}

static int check_contents(struct check *c, struct sst_reader *r, const struct check_ks *ks)
{
    const struct sst_verify_options o = {.damage = tell_place, .pace = pace, .arg = c};
    uint64_t found = c->sink.found, checksum = 0, number = c->table->number;
    const char *what = check_identity(c, sst_props(r), ks);
    if (what == NULL) {
        int rc = sst_verify(r, &o, &checksum);
        if (rc < 0 && !damage_is(rc)) {
            return rc;
        }
        if (rc == LOAM_OK && !is_lone(c->table)) {
            what = check_meta(c->table, sst_props(r), checksum);
        }
    }
    if (what != NULL && c->sink.found == found) {
        FAIL_CORRUPT(number, 0, "table %llu: %s", (unsigned long long)number, what);
        tell_all(c, 0, 0);
    }
    return LOAM_OK;
}

int check_table(struct check *c, const struct table_meta *m)
{
    struct check_ks ks = {0};
    struct sst_reader *r = NULL;
    bool known = !is_lone(m) && c->ks(c->arg, m->ks, &ks);
    if (!known && c->in_use) {
        return LOAM_OK;
    }
    c->table = m;
    c->ks_name = known ? ks.name : loam_bytes(NULL, 0);
    int rc = open_table(c, ks.cmp, &r);
    if (rc == LOAM_OK) {
        rc = check_contents(c, r, &ks);
    } else if (rc == LOAM_E_NOENT) {
        rc = LOAM_OK;
        if (c->named(c->arg, m->number)) {
            FAIL_CORRUPT(m->number, 0, "table %llu is missing", (unsigned long long)m->number);
            tell_all(c, LOAM_E_NOENT, 0);
        }
    } else if (damage_is(rc)) {
        tell_all(c, 0, loam_last_error()->offset);
        rc = LOAM_OK;
    }
    sst_close(r);
    c->table = NULL;
    return rc;
}

int check_lone_table(struct check *c, uint64_t number)
{
    const struct table_meta m = lone_meta(number);
    return check_table(c, &m);
}
