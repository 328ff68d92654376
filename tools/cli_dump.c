/* cli_dump.c - Commands that print a file as it stands on disk: sst, wal, manifest.
 * SPDX-License-Identifier: Apache-2.0
 *
 * None of them opens the database: they work on a copy of one file, and beside a running process.
 */
#include "tools/cli_dump.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/filename.h"
#include "engine/manifest.h"
#include "engine/op.h"
#include "engine/version_edit.h"
#include "sstable/sst_cursor.h"

bool dump_split(const char *path, struct dump_path *p)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash == NULL ? 0 : (size_t)(slash - path);
    p->base = slash == NULL ? path : slash + 1;
    if (n >= sizeof(p->dir)) {
        return false;
    }
    memcpy(p->dir, path, n);
    p->dir[n] = '\0';
    if (n == 0) {
        snprintf(p->dir, sizeof(p->dir), "%s", slash == NULL ? "." : "/");
    }
    return true;
}

const char *dump_codec_name(uint32_t compression)
{
    static const char *const names[] = {"default", "none", "lz4", "zstd"};
    return compression < 4 ? names[compression] : "unknown";
}

const char *dump_kind_name(uint64_t tag)
{
    switch (tag_kind(tag)) {
    case ENTRY_PUT:
        return "put";
    case ENTRY_DELETE:
        return "delete";
    default:
        return "unknown";
    }
}

void dump_json_number(json_t *o, const char *name, uint64_t value)
{
    json_object_set_new(o, name, json_integer((json_int_t)value));
}

void dump_json_error(json_t *o, int rc)
{
    const loam_error *e = loam_last_error();
    json_object_set_new(o, "error", json_string(loam_strerror(rc)));
    if (e->code == rc) {
        cli_json_text(o, "message", e->message);
        dump_json_number(o, "offset", e->offset);
    }
}

/* ---- sst ------------------------------------------------------------------------------------- */

static void print_props(const struct cli *c, const struct sst_props *p)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {{"file_number", p->file_number},
                   {"keyspace_id", p->ks},
                   {"level", p->level},
                   {"file_bytes", p->file_size},
                   {"data_bytes", p->data_size},
                   {"index_bytes", p->index_size},
                   {"top_bytes", p->top_size},
                   {"partitions", p->partitions},
                   {"filter_bytes", p->filter_size},
                   {"properties_bytes", p->props_size},
                   {"raw_bytes", p->raw_bytes},
                   {"block_bytes", p->block_bytes},
                   {"blocks", p->blocks},
                   {"entries", p->entries},
                   {"deletes", p->deletes},
                   {"filter_keys", p->filter_keys},
                   {"min_seq", p->min_seq},
                   {"max_seq", p->max_seq}};
    size_t n = sizeof(numbers) / sizeof(numbers[0]);
    char id[32];
    snprintf(id, sizeof(id), "%016" PRIx64, p->db_id);
    if (c->json) {
        json_t *o = json_pack("{s:s}", "database_id", id);
        for (size_t i = 0; i < n; i++) {
            dump_json_number(o, numbers[i].name, numbers[i].value);
        }
        cli_json_bytes(o, "comparator", p->comparator, false);
        cli_json_bytes(o, "smallest", p->smallest, c->hex);
        cli_json_bytes(o, "largest", p->largest, c->hex);
        cli_json_line(o);
        return;
    }
    printf("%-17s %s\n", "database_id", id);
    for (size_t i = 0; i < n; i++) {
        printf("%-17s %" PRIu64 "\n", numbers[i].name, numbers[i].value);
    }
    printf("%-17s ", "comparator");
    cli_write_bytes(stdout, p->comparator.size != 0 ? p->comparator : LOAM_LIT("bytes"), false);
    printf("\n%-17s ", "smallest");
    cli_write_bytes(stdout, p->smallest, c->hex);
    printf("\n%-17s ", "largest");
    cli_write_bytes(stdout, p->largest, c->hex);
    printf("\n");
}

static void print_version(const struct cli *c, const struct entry *e)
{
    if (c->json) {
        json_t *o = json_object();
        cli_json_bytes(o, "key", e->key, c->hex);
        dump_json_number(o, "seq", tag_seq(e->tag));
        json_object_set_new(o, "kind", json_string(dump_kind_name(e->tag)));
        if (!c->keys_only) {
            cli_json_bytes(o, "value", e->value, c->hex);
        }
        cli_json_line(o);
        return;
    }
    cli_write_bytes(stdout, e->key, c->hex);
    printf("\t%" PRIu64 "\t%s", tag_seq(e->tag), dump_kind_name(e->tag));
    if (!c->keys_only && tag_kind(e->tag) == ENTRY_PUT) {
        putchar('\t');
        cli_write_bytes(stdout, e->value, c->hex);
    }
    putchar('\n');
}

static int print_entries(const struct cli *c, struct sst_reader *r)
{
    struct sst_cursor cursor;
    struct cli_bytes from = {NULL, 0};
    if (c->from != NULL && !cli_bytes_of(c->from, c->hex, &from)) {
        return cli_usage(c, "'%s' is not hexadecimal", c->from);
    }
    int rc = sst_cursor_init(&cursor, r, alloc_global(), SST_CURSOR_BACKGROUND, 0);
    if (rc == LOAM_OK) {
        bool on = from.data != NULL
                      ? sst_cursor_seek(&cursor, loam_bytes(from.data, from.size), UINT64_MAX)
                      : sst_cursor_first(&cursor);
        for (uint64_t n = 0; on && (c->limit == 0 || n < c->limit); n++) {
            struct entry e;
            sst_cursor_entry(&cursor, &e);
            print_version(c, &e);
            on = sst_cursor_next(&cursor);
        }
        rc = sst_cursor_rc(&cursor);
        sst_cursor_free(&cursor);
    }
    free(from.data);
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, c->args[0]);
}

static int tell_damage(void *arg, const struct sst_damage *d)
{
    const struct cli *c = arg;
    if (c->json) {
        json_t *o = json_object();
        cli_json_text(o, "damaged", c->args[0]);
        dump_json_error(o, d->rc);
        dump_json_number(o, "offset", d->offset);
        cli_json_line(o);
    } else {
        printf("damaged: %s offset %" PRIu64 ": %s\n", c->args[0], d->offset,
               loam_last_error()->message);
    }
    return 0;
}

int cli_sst(struct cli *c)
{
    struct sst_reader *r = NULL;
    const struct sst_open_options o = {
        .vfs = loam_vfs_os(), .alloc = alloc_global(), .path = c->args[0], .inspect = true};
    int rc = sst_open(&o, &r);
    if (rc != LOAM_OK) {
        return cli_failed(rc, c->args[0]);
    }
    int status = CLI_OK;
    if (c->entries) {
        status = print_entries(c, r);
    } else {
        print_props(c, sst_props(r));
    }
    if (status == CLI_OK && c->verify) {
        const struct sst_verify_options v = {.damage = tell_damage, .arg = c};
        rc = sst_verify(r, &v, NULL);
        status = rc == LOAM_OK ? CLI_OK : cli_failed(rc, c->args[0]);
    }
    sst_close(r);
    return status;
}

/* ---- wal ------------------------------------------------------------------------------------- */

static void print_op(const struct cli *c, uint64_t seq, const struct op *o, json_t *ops)
{
    uint64_t tag = entry_tag(seq, o->kind);
    if (c->json) {
        json_t *line = json_object();
        dump_json_number(line, "seq", seq);
        json_object_set_new(line, "kind", json_string(dump_kind_name(tag)));
        dump_json_number(line, "keyspace_id", o->ks);
        cli_json_bytes(line, "key", o->key, c->hex);
        if (!c->keys_only && o->kind == ENTRY_PUT) {
            cli_json_bytes(line, "value", o->value, c->hex);
        }
        json_array_append_new(ops, line);
        return;
    }
    printf("  %" PRIu64 "\t%s\tks %" PRIu32 "\t", seq, dump_kind_name(tag), o->ks);
    cli_write_bytes(stdout, o->key, c->hex);
    if (!c->keys_only && o->kind == ENTRY_PUT) {
        putchar('\t');
        cli_write_bytes(stdout, o->value, c->hex);
    }
    putchar('\n');
}

static int print_record(const struct cli *c, const struct wal_record *record)
{
    struct reader r = reader_of(record->payload.data, record->payload.size);
    struct op op;
    uint64_t seq = record->position;
    json_t *ops = json_array();
    int rc;
    if (!c->json) {
        printf("record %" PRIu64 " to %" PRIu64 ", %zu bytes\n", record->position, record->end,
               record->payload.size);
    }
    while ((rc = op_read(&r, &op)) == LOAM_OK) {
        print_op(c, seq++, &op, ops);
    }
    if (c->json) {
        json_t *o = json_object();
        dump_json_number(o, "position", record->position);
        dump_json_number(o, "end", record->end);
        json_object_set(o, "operations", ops);
        cli_json_line(o);
    }
    json_decref(ops);
    if (rc == LOAM_E_CORRUPT) {
        cli_error("%s: the record at position %" PRIu64 " holds no valid operations", c->args[0],
                  record->position);
        return CLI_CORRUPT;
    }
    return rc < 0 ? cli_failed(rc, c->args[0]) : CLI_OK;
}

static void print_log_header(const struct cli *c, const struct wal_file_header *h)
{
    if (c->json) {
        json_t *o = json_object();
        dump_json_number(o, "segment", h->number);
        dump_json_number(o, "capacity", h->capacity);
        cli_json_line(o);
    } else {
        printf("segment %" PRIu64 " of database %016" PRIx64 ", room for %" PRIu64 " bytes\n",
               h->number, h->db_id, h->capacity);
    }
}

static int print_log_end(const struct cli *c, struct wal_reader *r)
{
    struct wal_reader_end end;
    int rc = wal_reader_check(r, 0);
    wal_reader_end(r, &end);
    const char *how = rc == LOAM_OK ? "whole" : rc == WAL_TORN ? "unfinished write" : "damaged";
    if (c->json) {
        json_t *o = json_pack("{s:s}", "end_is", how);
        dump_json_number(o, "end", end.end);
        dump_json_number(o, "offset", end.offset);
        dump_json_number(o, "durable", end.durable);
        cli_json_line(o);
    } else {
        printf("end %" PRIu64 " at offset %" PRIu64 ", durable up to %" PRIu64 ": %s\n", end.end,
               end.offset, end.durable, how);
    }
    return rc < 0 ? cli_failed(rc, c->args[0]) : CLI_OK;
}

static int print_log(const struct cli *c, struct wal_reader *r)
{
    struct wal_record record;
    int rc = LOAM_OK, status = CLI_OK;
    print_log_header(c, &r->header);
    for (uint64_t n = 0; status == CLI_OK && (c->limit == 0 || n < c->limit); n++) {
        rc = wal_read_next(r, &record);
        if (rc != LOAM_OK) {
            break;
        }
        status = print_record(c, &record);
    }
    if (rc < 0) {
        return cli_failed(rc, c->args[0]);
    }
    return status == CLI_OK && rc == LOAM_NOTFOUND ? print_log_end(c, r) : status;
}

/* The database's id stands in the file itself. */
static int read_log_id(const struct cli *c, uint64_t *db_id)
{
    uint8_t page[WAL_HEADER_PAGE];
    struct wal_file_header h;
    FILE *in = fopen(c->args[0], "rb");
    if (in == NULL) {
        return cli_error("%s: cannot be opened", c->args[0]);
    }
    size_t n = fread(page, 1, sizeof(page), in);
    fclose(in);
    if (n < sizeof(page)) {
        return cli_error("%s: too short for a log segment", c->args[0]);
    }
    int rc = wal_file_header_decode(page, 0, &h);
    *db_id = h.db_id;
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, c->args[0]);
}

int cli_wal(struct cli *c)
{
    struct dump_path path;
    uint64_t number, db_id = 0;
    if (!dump_split(c->args[0], &path) ||
        !wal_parse_file_name(loam_bytes(path.base, strlen(path.base)), &number)) {
        return cli_usage(c, "'%s' is not named like a log segment", c->args[0]);
    }
    int status = read_log_id(c, &db_id);
    if (status != CLI_OK) {
        return status;
    }
    struct wal_reader r;
    int rc = wal_reader_open(&r, loam_vfs_os(), path.dir, alloc_global(), number, db_id);
    if (rc != LOAM_OK) {
        return cli_failed(rc, c->args[0]);
    }
    status = print_log(c, &r);
    wal_reader_close(&r);
    return status;
}

/* ---- manifest -------------------------------------------------------------------------------- */

static void json_tables(json_t *o, const struct cli *c, const struct version_edit *e)
{
    json_t *added = json_array(), *removed = json_array();
    for (uint32_t i = 0; i < e->added_count; i++) {
        const struct table_meta *m = &e->added[i];
        json_t *t = json_object();
        dump_json_number(t, "number", m->number);
        dump_json_number(t, "keyspace_id", m->ks);
        dump_json_number(t, "level", m->level);
        dump_json_number(t, "bytes", m->size);
        dump_json_number(t, "entries", m->entries);
        dump_json_number(t, "deletes", m->deletes);
        dump_json_number(t, "min_seq", m->min_seq);
        dump_json_number(t, "max_seq", m->max_seq);
        cli_json_bytes(t, "smallest", m->smallest, c->hex);
        cli_json_bytes(t, "largest", m->largest, c->hex);
        json_array_append_new(added, t);
    }
    for (uint32_t i = 0; i < e->removed_count; i++) {
        json_t *t = json_object();
        dump_json_number(t, "number", e->removed[i].number);
        dump_json_number(t, "keyspace_id", e->removed[i].ks);
        dump_json_number(t, "level", e->removed[i].level);
        json_array_append_new(removed, t);
    }
    json_object_set_new(o, "added", added);
    json_object_set_new(o, "removed", removed);
}

static void json_keyspaces(json_t *o, const struct version_edit *e)
{
    json_t *created = json_array(), *dropped = json_array(), *renamed = json_array();
    for (uint32_t i = 0; i < e->created_count; i++) {
        const struct ks_desc *d = &e->created[i];
        json_t *k = json_object();
        dump_json_number(k, "id", d->id);
        cli_json_bytes(k, "name", d->name, false);
        cli_json_bytes(k, "comparator", d->comparator, false);
        json_object_set_new(k, "compression", json_string(dump_codec_name(d->compression)));
        dump_json_number(k, "filter_bits", d->filter_bits == UINT32_MAX ? 0 : d->filter_bits);
        dump_json_number(k, "block_bytes", d->block_bytes);
        json_array_append_new(created, k);
    }
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        json_array_append_new(dropped, json_integer((json_int_t)e->dropped[i]));
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        json_t *k = json_object();
        dump_json_number(k, "id", e->renamed[i].id);
        cli_json_bytes(k, "name", e->renamed[i].name, false);
        json_array_append_new(renamed, k);
    }
    json_object_set_new(o, "keyspaces_created", created);
    json_object_set_new(o, "keyspaces_dropped", dropped);
    json_object_set_new(o, "keyspaces_renamed", renamed);
}

/* The single numbers of an edit; NULL name ends the list. */
struct edit_number {
    const char *name;
    bool present;
    uint64_t value;
};

enum { EDIT_NUMBERS = 8 };

static void edit_numbers(const struct version_edit *e, struct edit_number out[EDIT_NUMBERS])
{
    const struct edit_number all[EDIT_NUMBERS] = {
        {"log_number", e->has_log_number, e->log_number},
        {"next_file", e->has_next_file, e->next_file},
        {"last_seq", e->has_last_seq, e->last_seq},
        {"sealed_log", e->has_sealed, e->sealed_number},
        {"sealed_position", e->has_sealed, e->sealed_position},
        {"next_keyspace", e->has_next_ks, e->next_ks},
        {"dead_ranges", e->dead_count != 0, e->dead_count},
        {NULL, false, 0}};
    memcpy(out, all, sizeof(all));
}

static void print_edit_json(const struct cli *c, const struct version_edit *e, uint64_t offset)
{
    struct edit_number numbers[EDIT_NUMBERS];
    json_t *o = json_object();
    dump_json_number(o, "offset", offset);
    edit_numbers(e, numbers);
    for (size_t i = 0; numbers[i].name != NULL; i++) {
        if (numbers[i].present) {
            dump_json_number(o, numbers[i].name, numbers[i].value);
        }
    }
    json_object_set_new(o, "snapshot_end", json_boolean(e->snapshot_end));
    json_tables(o, c, e);
    json_keyspaces(o, e);
    cli_json_line(o);
}

static void print_tables(const struct cli *c, const struct version_edit *e)
{
    for (uint32_t i = 0; i < e->removed_count; i++) {
        printf("  - table %" PRIu64 "  ks %" PRIu32 "  level %u\n", e->removed[i].number,
               e->removed[i].ks, e->removed[i].level);
    }
    for (uint32_t i = 0; i < e->added_count; i++) {
        const struct table_meta *m = &e->added[i];
        printf("  + table %" PRIu64 "  ks %" PRIu32 "  level %u  %" PRIu64 " bytes  %" PRIu64
               " entries  [",
               m->number, m->ks, m->level, m->size, m->entries);
        cli_write_bytes(stdout, m->smallest, c->hex);
        printf(" .. ");
        cli_write_bytes(stdout, m->largest, c->hex);
        printf("]\n");
    }
}

static void print_edit(const struct cli *c, const struct version_edit *e, uint64_t offset)
{
    struct edit_number numbers[EDIT_NUMBERS];
    printf("edit at offset %" PRIu64 "%s\n", offset,
           e->snapshot_end ? ", end of the snapshot" : "");
    for (uint32_t i = 0; i < e->dropped_count; i++) {
        printf("  - keyspace %" PRIu32 "\n", e->dropped[i]);
    }
    for (uint32_t i = 0; i < e->renamed_count; i++) {
        printf("  = keyspace %" PRIu32 " is now ", e->renamed[i].id);
        cli_write_bytes(stdout, e->renamed[i].name, false);
        printf("\n");
    }
    for (uint32_t i = 0; i < e->created_count; i++) {
        const struct ks_desc *d = &e->created[i];
        printf("  + keyspace %" PRIu32 " ", d->id);
        cli_write_bytes(stdout, d->name, false);
        printf("  %s  filter bits %" PRIu32 "  block %" PRIu32 " bytes\n",
               dump_codec_name(d->compression), d->filter_bits == UINT32_MAX ? 0 : d->filter_bits,
               d->block_bytes);
    }
    print_tables(c, e);
    edit_numbers(e, numbers);
    for (size_t i = 0; numbers[i].name != NULL; i++) {
        if (numbers[i].present) {
            printf("  %s %" PRIu64 "\n", numbers[i].name, numbers[i].value);
        }
    }
}

static void print_manifest_end(const struct cli *c, const struct manifest_reader *r)
{
    if (c->json) {
        json_t *o = json_pack("{s:s}", "end_is", r->torn ? "unfinished write" : "whole");
        dump_json_number(o, "offset", r->offset);
        cli_json_line(o);
    } else if (r->torn) {
        printf("ends in an edit that was cut short\n");
    }
}

static int print_edits(const struct cli *c, struct manifest_reader *r, uint64_t number)
{
    struct version_edit e;
    loam_slice payload;
    uint64_t offset;
    int rc = LOAM_OK;
    version_edit_init(&e, alloc_global());
    for (uint64_t n = 0; rc == LOAM_OK && (c->limit == 0 || n < c->limit); n++) {
        rc = manifest_read_next(r, &payload, &offset);
        if (rc == LOAM_OK) {
            rc = version_edit_decode(&e, payload, number, offset);
        }
        if (rc == LOAM_OK) {
            if (c->json) {
                print_edit_json(c, &e, offset);
            } else {
                print_edit(c, &e, offset);
            }
            r->snapshot_size = e.snapshot_end ? r->offset : r->snapshot_size;
        }
        version_edit_free(&e);
    }
    if (rc == LOAM_NOTFOUND) {
        print_manifest_end(c, r);
    }
    return rc < 0 ? cli_failed(rc, "manifest") : CLI_OK;
}

int cli_manifest(struct cli *c)
{
    struct manifest_current current;
    struct manifest_reader r;
    int rc = manifest_read_current(loam_vfs_os(), c->db, &current);
    if (rc == LOAM_E_NOENT) {
        return cli_error("%s: no database there", c->db);
    }
    if (rc == LOAM_OK) {
        rc = manifest_reader_open(&r, loam_vfs_os(), c->db, alloc_global(), &current);
    }
    if (rc != LOAM_OK) {
        return cli_failed(rc, c->db);
    }
    char name[FILENAME_BASE_CAP];
    filename_base(FILE_MANIFEST, current.number, name);
    bool closed = current.closed && current.size == r.file_size;
    if (c->json) {
        cli_json_line(json_pack("{s:s, s:b}", "manifest", name, "closed", closed));
    } else {
        printf("%s, %s\n", name, closed ? "closed cleanly" : "in use, or not closed cleanly");
    }
    int status = print_edits(c, &r, current.number);
    manifest_reader_close(&r);
    return status;
}
