/* compaction.c - Merging tables into the next level.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/compaction.h"

#include "arena/status.h"
#include "engine/merge_iter.h"
#include "engine/version_filter.h"

#include "arena/poison.h"

/* How often a merge looks whether it is still wanted. */
#define CANCEL_CHECK_ENTRIES 1024u
#define CANCEL_CHECK_BYTES   ((uint64_t)1 << 20)
#define READ_BYTES_MIN       ((uint64_t)16 << 10) /* of an input at once */
#define PART_BYTES_MIN       ((uint64_t)4 << 20) /* smaller parts cost more than they save */

/* The sorted sources of a job's inputs: each table of level 0 alone, any other level as one run. */
struct inputs {
    struct source *sources;
    struct source **all, **heap;
    uint32_t count;
    uint32_t read_only; /* the first so many: what a trim looks at and does not rewrite */
    struct sst_seat seat; /* of the one large value that is in memory; LARGE_WORK */
};

/* Bytes that each input reads at once: a level 0 that is behind has many. */
static uint32_t input_read_bytes(const struct db *db, uint32_t inputs)
{
    const struct limits *l = &db->options.limits;
    uint64_t each = l->merge_reads_bytes / inputs;
    each = each < READ_BYTES_MIN ? READ_BYTES_MIN : each;
    return each < l->merge_read_bytes ? (uint32_t)each : l->merge_read_bytes;
}

static bool open_inputs(struct compaction_job *job, struct inputs *in)
{
    struct db *db = job->db;
    const struct compaction *c = job->c;
    in->count = 0;
    for (int k = 0; k < 2; k++) {
        bool apart = (k == 0 ? c->level : c->output_level) == 0;
        in->count += apart ? c->input_count[k] : c->input_count[k] != 0;
    }
    in->sources = alloc_zero(&db->alloc, MEM_BUILD, in->count * sizeof *in->sources);
    in->all = alloc_get(&db->alloc, MEM_BUILD, in->count * sizeof *in->all);
    in->heap = alloc_get(&db->alloc, MEM_BUILD, in->count * sizeof *in->heap);
    if (in->sources == NULL || in->all == NULL || in->heap == NULL) {
        return false;
    }
    uint32_t n = 0, ahead = input_read_bytes(db, in->count);
    for (int k = 0; k < 2; k++) {
        in->read_only = k == 1 && c->trim != 0 ? n : 0;
        bool apart = (k == 0 ? c->level : c->output_level) == 0;
        for (uint32_t i = 0; i < c->input_count[k]; i += apart ? 1 : c->input_count[k]) {
            in->all[n] = &in->sources[n];
            source_tables(in->all[n], &db->tables, &c->inputs[k][i], apart ? 1 : c->input_count[k],
                          c->cmp, &db->alloc, ahead, true, &in->seat);
            n++;
        }
    }
    return true;
}

static void close_inputs(struct db *db, struct inputs *in)
{
    for (uint32_t i = 0; i < in->count && in->sources != NULL; i++) {
        source_free(&in->sources[i]);
    }
    alloc_put(&db->alloc, MEM_BUILD, in->sources, in->count * sizeof *in->sources);
    alloc_put(&db->alloc, MEM_BUILD, in->all, in->count * sizeof *in->all);
    alloc_put(&db->alloc, MEM_BUILD, in->heap, in->count * sizeof *in->heap);
}

struct part_run {
    struct compaction_job *job;
    struct compaction_part *part;
    struct version_filter filter;
    struct compaction_split_state split;
    bool key_kept; /* a version of the present key has been written */
};

/* Writes the entry on top of the source unless nobody can read it any more, or, `read_only`, only looks at
 * what it hides. */
static int take_entry(struct part_run *r, struct source *s, bool read_only)
{
    const struct entry *e = &s->entry;
    bool same_key;
    enum version_verdict verdict = version_filter_next(&r->filter, e, &same_key);
    r->key_kept = r->key_kept && same_key;
    if (verdict == VERSION_OOM) {
        return FAIL(LOAM_E_NOMEM, "no memory for the last key of a merge");
    }
    if (verdict == VERSION_DROP || read_only) {
        return LOAM_OK;
    }
    struct table_output *o = &r->part->out;
    if (!r->key_kept) {
        r->key_kept = true;
        if (compaction_split_before(r->job->c, &r->split, e->key, table_output_bytes(o))) {
            int rc = table_output_cut(o);
            if (rc < 0) {
                return rc;
            }
        }
    }
    int rc = source_show(s);
    return rc < 0 ? rc : table_output_add(o, e);
}

static int merge_part(struct compaction_job *job, struct compaction_part *part, struct inputs *in)
{
    const struct compaction *c = job->c;
    struct db *db = job->db;
    struct part_run run = {.job = job, .part = part};
    struct merge_iter m;
    merge_init(&m, c->cmp, in->all, in->heap, in->count);
    version_filter_init(&run.filter, &db->alloc, job->held, job->held_count, c->cmp, c->bottommost);
    if (part->range.lo.data != NULL) {
        merge_seek(&m, part->range.lo, UINT64_MAX);
    } else {
        merge_first(&m);
    }
    int rc = LOAM_OK;
    for (uint32_t n = 1; merge_valid(&m) && rc == LOAM_OK; n++) {
        const struct entry *e = merge_entry(&m);
        if (part->range.hi.data != NULL && key_compare(c->cmp, e->key, part->range.hi) >= 0) {
            break;
        }
        if (c->trim != 0 && key_compare(c->cmp, e->key, c->range.hi) > 0) {
            break;
        }
        uint64_t size = e->key.size + e->value.size + 8;
        part->bytes_in += size;
        rc = take_entry(&run, m.heap[0], m.heap[0] < in->sources + in->read_only);
        bool look = n % CANCEL_CHECK_ENTRIES == 0 || part->bytes_in % CANCEL_CHECK_BYTES < size;
        /* relaxed: wishes, looked at now and then */
        if (look && (atom_load(&job->cancel, relaxed) || atom_load(&db->stopping, relaxed))) {
            rc = FAIL(LOAM_E_CANCELED, "the merge was canceled");
        }
        if (rc == LOAM_OK) {
            merge_next(&m);
        }
    }
    version_filter_free(&run.filter);
    return rc < 0 ? rc : m.rc < 0 ? m.rc : table_output_cut(&part->out);
}

static void run_part(struct compaction_job *job, struct compaction_part *part)
{
    struct inputs in = {0};
    part->rc = open_inputs(job, &in)
                   ? merge_part(job, part, &in)
                   : FAIL(LOAM_E_NOMEM, "no memory for a merge of %u sources", in.count);
    if (part->rc < 0) {
        part->error = *loam_last_error();
        atom_store(&job->cancel, true, relaxed); /* relaxed: a wish; the other parts end sooner */
    }
    close_inputs(job->db, &in);
}

static bool help(struct db *db, struct compaction_job *job)
{
    mutex_assert_held(&db->mu);
    if (job == NULL || job->next == job->part_count) {
        return false;
    }
    struct compaction_part *part = &job->parts[job->next++];
    job->running++;
    mutex_unlock(&db->mu);
    run_part(job, part);
    mutex_lock(&db->mu);
    job->running--;
    cond_broadcast(&db->idle_cv);
    return true;
}

bool compaction_help_locked(struct db *db)
{
    return help(db, db->job);
}

static void split_job(struct compaction_job *job)
{
    uint32_t workers = job->db->options.user.threads;
    uint64_t parts = job->c->input_bytes / PART_BYTES_MIN;
    uint32_t n = workers < COMPACTION_PARTS_MAX ? workers : COMPACTION_PARTS_MAX;
    n = parts < n ? (uint32_t)parts : n;
    struct key_range ranges[COMPACTION_PARTS_MAX] = {0};
    if (n <= 1 || job->c->trim != 0 || job->c->target_file_bytes == UINT64_MAX) {
        job->part_count = 1;
        ranges[0].lo = job->c->trim != 0 ? job->c->range.lo : ranges[0].lo;
    } else {
        job->part_count = compaction_split(job->c, n, NULL, 0, ranges);
    }
    for (uint32_t i = 0; i < job->part_count; i++) {
        job->parts[i].range = ranges[i];
        table_output_init(&job->parts[i].out, job->db, job->space, (uint8_t)job->c->output_level);
        job->parts[i].out.trimmed = job->c->trim;
        job->parts[i].out.trimmed_for = job->held[0];
    }
}

/* Runs every part here or on workers that come to help; the first error. */
static int run_parts(struct compaction_job *job)
{
    struct db *db = job->db;
    mutex_lock(&db->mu);
    bool offered = db->job == NULL && job->part_count > 1;
    if (offered) {
        db->job = job;
        (void)workers_wake_locked(&db->workers, NULL); /* without help it only takes longer */
    }
    while (help(db, job)) {
    }
    while (job->running != 0) {
        cond_wait(&db->idle_cv, &db->mu);
    }
    if (offered) {
        db->job = NULL;
    }
    mutex_unlock(&db->mu);
    int rc = LOAM_OK;
    for (uint32_t i = 0; i < job->part_count; i++) {
        const struct compaction_part *p = &job->parts[i];
        if (p->rc < 0 && (rc == LOAM_OK || rc == LOAM_E_CANCELED)) {
            rc = status_raise(&p->error);
        }
    }
    return rc;
}

static int install(struct compaction_job *job)
{
    struct db *db = job->db;
    struct version_edit edit;
    version_edit_init(&edit, &db->alloc);
    int rc = compaction_remove_inputs(job->c, &edit);
    for (uint32_t i = 0; i < job->part_count && rc == LOAM_OK; i++) {
        rc = table_output_describe(&job->parts[i].out, &edit);
    }
    if (rc == LOAM_OK && edit.added_count != 0) {
        rc = db_sync_names(db);
    }
    if (rc == LOAM_OK) {
        rc = db_apply_edit(db, &edit);
        for (uint32_t i = 0; i < job->part_count; i++) {
            if (rc == LOAM_OK) {
                table_output_installed(&job->parts[i].out);
            } else {
                table_output_disown(&job->parts[i].out);
            }
        }
    }
    version_edit_free(&edit);
    return rc;
}

static void count_job(struct compaction_job *job, uint64_t nanos)
{
    struct stats *s = &job->db->stats;
    uint64_t out = 0;
    for (uint32_t i = 0; i < job->part_count; i++) {
        out += job->parts[i].out.background_bytes;
    }
    stats_add(s, STAT_COMPACTIONS, 1);
    stats_add(s, STAT_BYTES_COMPACTED_IN, job->c->input_bytes);
    stats_add(s, STAT_BYTES_COMPACTED_OUT, out);
    stats_time(s, LOAM_HIST_COMPACT, nanos);
}

static int merge(struct db *db, struct compaction *c)
{
    struct compaction_job *job = alloc_zero(&db->alloc, MEM_BUILD, sizeof *job);
    if (job == NULL) {
        return FAIL(LOAM_E_NOMEM, "no memory for a merge");
    }
    uint64_t start = clock_nanos();
    job->db = db;
    job->c = c;
    job->space = keyspace_get(&db->versions.keyspaces, c->ks);
    int rc = LOAM_OK;
    if (job->space != NULL) { /* NULL: dropped; so are the tables */
        job->held = snapshot_numbers(&db->snapshots, &db->commit, &db->alloc, &job->held_count,
                                     &job->held_cap);
        if (job->held == NULL) {
            rc = FAIL(LOAM_E_NOMEM, "no memory for a merge");
        } else {
            split_job(job);
            rc = run_parts(job);
            if (rc == LOAM_OK) {
                rc = install(job);
            }
            if (rc == LOAM_OK) {
                count_job(job, clock_nanos() - start);
            }
            for (uint32_t i = 0; i < job->part_count; i++) {
                table_output_free(&job->parts[i].out);
            }
        }
        /* acquire: a drop comes before what it makes fail, such as opening an input. */
        if (rc < 0 && atom_load(&job->space->dropped, acquire)) {
            rc = LOAM_OK; /* nothing is left to merge */
        }
        alloc_put(&db->alloc, MEM_BUILD, job->held, job->held_cap * sizeof *job->held);
        keyspace_put(job->space);
    }
    alloc_put(&db->alloc, MEM_BUILD, job, sizeof *job);
    return rc;
}

static int move(struct db *db, const struct compaction *c)
{
    struct version_edit edit;
    version_edit_init(&edit, &db->alloc);
    int rc = compaction_move_edit(c, &edit);
    if (rc == LOAM_OK) {
        rc = db_apply_edit(db, &edit);
    }
    version_edit_free(&edit);
    if (rc == LOAM_OK) {
        stats_add(&db->stats, STAT_TABLE_MOVES, c->input_count[0]);
    }
    return rc;
}

int compaction_run(struct db *db, struct compaction *c)
{
    int rc = c->is_move ? move(db, c) : merge(db, c);
    mutex_lock(&db->mu);
    compaction_free(&db->picker, c);
    mutex_unlock(&db->mu);
    version_set_reap(&db->versions);
    obsolete_files_purge(&db->obsolete);
    return rc;
}
