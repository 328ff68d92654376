/* cli_dump_verify.c - The command verify: every table, log and the manifest, byte by byte.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Takes no lock. While another process writes, a table may be gone before its turn comes; it is
 * then damage only if the manifest of that later moment still names it. Logs are judged as recovery
 * does.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/filename.h"
#include "engine/manifest_replay.h"
#include "engine/op.h"
#include "tools/cli_dump.h"

struct verify {
    const struct cli *cli;
    const loam_vfs *vfs;
    struct manifest_current current;
    struct manifest_replay replay;
    struct table **tables;
    uint32_t table_count;
    const struct table_meta *table; /* being read */
    struct cli_progress progress;
    uint64_t tables_read, logs_read, records, bytes, damages;
    int status; /* the worst exit code so far */
};

/* ---- telling --------------------------------------------------------------------------------- */

static loam_slice ks_name(const struct verify *v, uint32_t id)
{
    for (uint32_t i = 0; i < v->replay.keyspaces.created_count; i++) {
        if (v->replay.keyspaces.created[i].id == id) {
            return v->replay.keyspaces.created[i].name;
        }
    }
    return LOAM_LIT("?");
}

static void tell_table(const struct verify *v, json_t *o)
{
    const struct table_meta *m = v->table;
    loam_slice ks = ks_name(v, m->ks);
    if (o != NULL) {
        dump_json_number(o, "level", m->level);
        cli_json_bytes(o, "keyspace", ks, false);
        cli_json_bytes(o, "smallest", m->smallest, v->cli->hex);
        cli_json_bytes(o, "largest", m->largest, v->cli->hex);
        return;
    }
    printf(" level %u keyspace ", m->level);
    cli_write_bytes(stdout, ks, false);
    printf(" keys [");
    cli_write_bytes(stdout, m->smallest, v->cli->hex);
    printf(" .. ");
    cli_write_bytes(stdout, m->largest, v->cli->hex);
    printf("]");
}

/* One line for a damage; `text` NULL: what loam_last_error() says. */
static void tell(struct verify *v, enum file_kind kind, uint64_t number, uint64_t offset, int rc,
                 const char *text)
{
    char name[FILENAME_BASE_CAP];
    int code = rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT ? CLI_CORRUPT : CLI_ERROR;
    text = text != NULL ? text : loam_last_error()->message;
    filename_base(kind, number, name);
    cli_progress_end(&v->progress);
    if (v->cli->json) {
        json_t *o = json_pack("{s:s, s:s, s:s}", "damaged", name, "error", loam_strerror(rc),
                              "message", text);
        dump_json_number(o, "offset", offset);
        if (kind == FILE_TABLE) {
            tell_table(v, o);
        }
        cli_json_line(o);
    } else {
        printf("damaged: %s offset %" PRIu64, name, offset);
        if (kind == FILE_TABLE) {
            tell_table(v, NULL);
        }
        printf(": %s\n", text);
    }
    v->damages++;
    v->status = v->status == CLI_CORRUPT ? CLI_CORRUPT : code;
}

/* ---- tables ---------------------------------------------------------------------------------- */

static int table_damage(void *arg, uint64_t offset, int rc)
{
    struct verify *v = arg;
    tell(v, FILE_TABLE, v->table->number, offset, rc, NULL);
    return 0;
}

/* Whether the manifest of this moment names the table; *oldest_log is the first log it needs. False
 * when the manifest cannot be read. */
static bool still_named(const struct verify *v, uint64_t number, uint64_t *oldest_log)
{
    struct manifest_current current;
    struct manifest_replay replay;
    bool named = false;
    manifest_replay_init(&replay, alloc_global());
    if (manifest_read_current(v->vfs, v->cli->db, &current) == LOAM_OK &&
        manifest_replay_run(&replay, v->vfs, v->cli->db, &current) == LOAM_OK) {
        struct table **all = manifest_replay_take(&replay);
        for (uint32_t i = 0; all != NULL && i < replay.table_count; i++) {
            named |= all[i]->meta.number == number;
            table_free(all[i]);
        }
        alloc_put(alloc_global(), MEM_VERSION, all, replay.table_count * sizeof(*all));
        *oldest_log = replay.log_number;
    }
    manifest_replay_free(&replay);
    return named;
}

static bool ordered_by_bytes(const struct verify *v, uint32_t ks)
{
    for (uint32_t i = 0; i < v->replay.keyspaces.created_count; i++) {
        if (v->replay.keyspaces.created[i].id == ks) {
            return v->replay.keyspaces.created[i].comparator.size == 0;
        }
    }
    return true;
}

/* What the table says of itself against what the manifest says of it. */
static void compare_meta(struct verify *v, const struct sst_props *p, uint64_t checksum)
{
    const struct table_meta *m = v->table;
    const struct {
        const char *what;
        bool same;
    } checks[] = {
        {"the table is another database's", p->db_id == v->current.db_id},
        {"the table has another number", p->file_number == m->number},
        {"the table is another keyspace's", p->ks == m->ks},
        {"the size is not what the manifest says", p->file_size == m->size},
        {"the number of entries is not what the manifest says", p->entries == m->entries},
        {"the smallest key is not what the manifest says",
         bytes_compare(p->smallest, m->smallest) == 0},
        {"the largest key is not what the manifest says",
         bytes_compare(p->largest, m->largest) == 0},
        {"the file's checksum is not what the manifest says", checksum == m->checksum},
    };
    for (size_t i = 0; i < sizeof(checks) / sizeof(checks[0]); i++) {
        if (!checks[i].same) {
            tell(v, FILE_TABLE, m->number, 0, LOAM_E_CORRUPT, checks[i].what);
        }
    }
}

static void verify_table(struct verify *v, const struct table_meta *m)
{
    char path[FILENAME_CAP];
    struct sst_reader *r = NULL;
    uint64_t checksum = 0, damages = v->damages, unused;
    v->table = m;
    int rc = filename_make(v->cli->db, FILE_TABLE, m->number, path);
    if (rc == LOAM_OK) {
        const struct sst_open_options o = {.vfs = v->vfs,
                                           .alloc = alloc_global(),
                                           .path = path,
                                           .file_number = m->number,
                                           .db_id = v->current.db_id,
                                           .size = m->size,
                                           .inspect = !ordered_by_bytes(v, m->ks)};
        rc = sst_open(&o, &r);
    }
    if (rc == LOAM_E_NOENT && !still_named(v, m->number, &unused)) {
        return;
    }
    if (rc != LOAM_OK) {
        tell(v, FILE_TABLE, m->number, loam_last_error()->offset,
             rc == LOAM_E_NOENT ? LOAM_E_CORRUPT : rc, NULL);
        return;
    }
    rc = sst_verify(r, table_damage, v, &checksum);
    if (rc < 0 && v->damages == damages) {
        tell(v, FILE_TABLE, m->number, loam_last_error()->offset, rc, NULL);
    }
    if (v->damages == damages) {
        compare_meta(v, sst_props(r), checksum);
    }
    sst_close(r);
    v->tables_read++;
    v->bytes += m->size;
    cli_progress_show(&v->progress, v->tables_read, v->bytes);
}

/* ---- logs ------------------------------------------------------------------------------------ */

struct log_numbers {
    uint64_t *list;
    size_t count;
    uint64_t oldest;
    bool oom;
};

static int note_log(void *ctx, loam_slice name)
{
    struct log_numbers *l = ctx;
    uint64_t number;
    if (!wal_parse_file_name(name, &number) || number < l->oldest) {
        return 0;
    }
    uint64_t *list = realloc(l->list, (l->count + 1) * sizeof(*list));
    l->oom = list == NULL;
    if (list != NULL) {
        l->list = list;
        l->list[l->count++] = number;
    }
    return l->oom;
}

static int compare_numbers(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int open_log(const struct verify *v, uint64_t number, struct wal_reader *r)
{
    return wal_reader_open(r, v->vfs, v->cli->db, alloc_global(), number, v->current.db_id);
}

/* Where the first segment behind `from` that has a record begins. LOAM_OK, LOAM_NOTFOUND, an error.
 */
static int next_base(const struct verify *v, const struct log_numbers *l, size_t from,
                     uint64_t *base)
{
    int rc = LOAM_NOTFOUND;
    for (size_t i = from; i < l->count && rc == LOAM_NOTFOUND; i++) {
        struct wal_reader r;
        rc = open_log(v, l->list[i], &r);
        if (rc == LOAM_OK) {
            rc = wal_reader_peek(&r, base);
        }
        wal_reader_close(&r);
    }
    return rc;
}

/* The highest position that any segment behind `from` says was durable. */
static uint64_t promised_behind(const struct verify *v, const struct log_numbers *l, size_t from)
{
    uint64_t durable = 0;
    for (size_t i = from; i < l->count; i++) {
        struct wal_reader r;
        struct wal_reader_end end;
        if (open_log(v, l->list[i], &r) == LOAM_OK && wal_reader_scan(&r) == LOAM_OK) {
            wal_reader_end(&r, &end);
            durable = end.durable > durable ? end.durable : durable;
        }
        wal_reader_close(&r);
    }
    return durable;
}

static int read_records(struct verify *v, struct wal_reader *r, uint64_t number)
{
    struct wal_record record;
    int rc;
    while ((rc = wal_read_next(r, &record)) == LOAM_OK) {
        struct reader ops = reader_of(record.payload.data, record.payload.size);
        struct op op;
        int op_rc;
        while ((op_rc = op_read(&ops, &op)) == LOAM_OK) {
        }
        if (op_rc != LOAM_NOTFOUND) {
            tell(v, FILE_LOG, number, record.position - r->base + WAL_HEADER_PAGE, op_rc,
                 "the record holds no valid operations");
        }
        v->records++;
        v->bytes += record.end - record.position;
    }
    return rc == LOAM_NOTFOUND ? LOAM_OK : rc;
}

/* What became of a segment: the next one goes on where it ends; the log ends in it; it was damaged;
 * or the writer has meanwhile given it up, so that its file may hold anything. */
enum log_fate { LOG_WHOLE, LOG_LAST, LOG_DAMAGED, LOG_GONE };

static enum log_fate log_failed(struct verify *v, uint64_t number, int rc)
{
    const loam_error error = *loam_last_error();
    uint64_t oldest = number;
    still_named(v, 0, &oldest);
    if (oldest > number) {
        v->replay.log_number = oldest;
        return LOG_GONE;
    }
    tell(v, FILE_LOG, number, error.offset, rc, error.message);
    return LOG_DAMAGED;
}

/* Judges how segment i ends when it is not followed up. LOAM_OK, WAL_TORN or an error. */
static int check_last(const struct verify *v, const struct log_numbers *l, size_t i,
                      struct wal_reader *r)
{
    uint64_t promised = promised_behind(v, l, i + 1);
    bool sealed = v->replay.sealed && v->replay.sealed_number == l->list[i];
    if (v->replay.sealed && !sealed && v->replay.sealed_position > promised) {
        promised = v->replay.sealed_position;
    }
    wal_reader_promise(r, promised);
    return wal_reader_check(r, sealed ? v->replay.sealed_position : 0);
}

static enum log_fate verify_log(struct verify *v, const struct log_numbers *l, size_t i,
                                uint64_t *end_before)
{
    struct wal_reader r;
    struct wal_reader_end end;
    uint64_t base = 0, own = 0, number = l->list[i];
    int next = next_base(v, l, i + 1, &base);
    int rc = next < 0 ? next : open_log(v, number, &r);
    if (rc != LOAM_OK) {
        return log_failed(v, number, rc);
    }
    if (next == LOAM_OK) {
        wal_reader_limit(&r, base);
    }
    rc = wal_reader_peek(&r, &own);
    if (rc == LOAM_NOTFOUND && *end_before != 0) {
        wal_reader_expect(&r, *end_before);
    }
    rc = rc < 0 ? rc : read_records(v, &r, number);
    wal_reader_end(&r, &end);
    bool whole = rc == LOAM_OK && next == LOAM_OK && (end.end == base || end.empty);
    if (rc == LOAM_OK && !whole) {
        rc = check_last(v, l, i, &r);
    }
    *end_before = end.end != 0 ? end.end : *end_before;
    wal_reader_close(&r);
    v->logs_read++;
    return rc < 0 ? log_failed(v, number, rc) : whole ? LOG_WHOLE : LOG_LAST;
}

/* LOG_GONE: to be done again with the logs that are needed now. */
static enum log_fate verify_logs_once(struct verify *v)
{
    struct log_numbers l = {NULL, 0, v->replay.log_number, false};
    enum log_fate fate = LOG_WHOLE;
    uint64_t end = 0;
    int neg = v->vfs->list(v->vfs->ctx, v->cli->db, note_log, &l);
    if (neg < 0 || l.oom) {
        v->status = cli_error("%s: the directory cannot be read", v->cli->db);
        fate = LOG_DAMAGED;
    } else if (l.count > 0) {
        qsort(l.list, l.count, sizeof(*l.list), compare_numbers);
    }
    for (size_t i = 0; i < l.count && fate == LOG_WHOLE; i++) {
        fate = verify_log(v, &l, i, &end);
    }
    free(l.list);
    return fate;
}

static void verify_logs(struct verify *v)
{
    const uint64_t bytes = v->bytes;
    /* Each time around, the writer has filled and flushed a whole segment. */
    for (int i = 0; i < 16; i++) {
        v->logs_read = v->records = 0;
        v->bytes = bytes;
        if (verify_logs_once(v) != LOG_GONE) {
            return;
        }
    }
    v->status = cli_error("%s: the logs change faster than they can be read", v->cli->db);
}

/* ---- the command ----------------------------------------------------------------------------- */

static int read_manifest(struct verify *v)
{
    int rc = manifest_read_current(v->vfs, v->cli->db, &v->current);
    if (rc == LOAM_E_NOENT) {
        return cli_error("%s: no database there", v->cli->db);
    }
    if (rc == LOAM_OK) {
        rc = manifest_replay_run(&v->replay, v->vfs, v->cli->db, &v->current);
    }
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, v->cli->db);
}

static void summarise(const struct verify *v)
{
    if (v->cli->json) {
        json_t *o = json_object();
        dump_json_number(o, "tables", v->tables_read);
        dump_json_number(o, "logs", v->logs_read);
        dump_json_number(o, "log_records", v->records);
        dump_json_number(o, "bytes", v->bytes);
        dump_json_number(o, "damages", v->damages);
        cli_json_line(o);
        return;
    }
    printf("%" PRIu64 " tables, %" PRIu64 " log segments with %" PRIu64 " records, %" PRIu64
           " bytes: ",
           v->tables_read, v->logs_read, v->records, v->bytes);
    if (v->damages == 0) {
        printf("no damage\n");
    } else {
        printf("%" PRIu64 " damaged places\n", v->damages);
    }
}

int cli_verify(struct cli *c)
{
    struct verify v = {.cli = c, .vfs = loam_vfs_os(), .status = CLI_OK};
    struct alloc *a = alloc_global();
    manifest_replay_init(&v.replay, a);
    int status = read_manifest(&v);
    if (status == CLI_OK) {
        v.table_count = v.replay.table_count;
        v.tables = v.table_count != 0 ? manifest_replay_take(&v.replay) : NULL;
        if (v.table_count != 0 && v.tables == NULL) {
            status = cli_error("out of memory");
        }
    }
    if (status == CLI_OK) {
        cli_progress_start(&v.progress, "tables verified");
        for (uint32_t i = 0; i < v.table_count; i++) {
            verify_table(&v, &v.tables[i]->meta);
        }
        verify_logs(&v);
        cli_progress_end(&v.progress);
        summarise(&v);
        status = v.status;
    }
    for (uint32_t i = 0; v.tables != NULL && i < v.table_count; i++) {
        table_free(v.tables[i]);
    }
    alloc_put(a, MEM_VERSION, v.tables, v.table_count * sizeof(*v.tables));
    manifest_replay_free(&v.replay);
    return status;
}
