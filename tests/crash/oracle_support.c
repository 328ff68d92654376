/* oracle_support.c - Writes a random workload and remembers what was promised of it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tests/crash/oracle_support.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_MAX 20480u
#define HUGE_MIN  100000u
#define HUGE_MAX  200000u
#define BATCH_OPS 12u
#define LONG_OPS  128u
/* Of a long batch: more than a memtable of the smallest budget, up to more than a reader of the log takes at once,
 * and less than half of that budget. */
#define LONG_BYTES 130000u
#define LONG_MORE  100000u
#define KEY_LONG  700u

/* ---- failing ----------------------------------------------------------------------------------- */

static char context[512];
void (*oracle_on_fail)(void);

void oracle_context(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
}

_Noreturn void oracle_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "\nFAILED at %s\n  ", context);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    fflush(stderr);
    va_end(ap);
    if (oracle_on_fail != NULL) {
        oracle_on_fail();
    }
    abort();
}

/* ---- keys and values --------------------------------------------------------------------------- */

/* In byte order: the empty key, short ones, long ones that share all but the last byte. */
loam_slice oracle_key(unsigned i)
{
    static char keys[ORACLE_KEYS][KEY_LONG];
    static size_t size[ORACLE_KEYS];
    if (i == 0) {
        return loam_bytes(NULL, 0);
    }
    if (size[i] == 0) {
        memset(keys[i], 'x', sizeof keys[i]);
        keys[i][0] = i < ORACLE_KEYS - 3 ? 'k' : 'z';
        size_t n = i < ORACLE_KEYS - 3 ? 1 + i % 7 : KEY_LONG - 2;
        keys[i][i < ORACLE_KEYS - 3 ? 1 : n] = (char)('a' + i);
        size[i] = n + 1;
    }
    return loam_bytes(keys[i], size[i]);
}

/* How long a value is, told by the number modulo 64 that identifies it. */
enum length { HUGE = 62, BIG = 63, PLAIN = 64 };

static enum length length_of(uint32_t value)
{
    return value % 64 >= HUGE ? (enum length)(value % 64) : PLAIN;
}

static uint32_t value_size(uint32_t value)
{
    uint64_t s = value;
    uint64_t r = splitmix64(&s);
    switch (length_of(value)) {
    case HUGE:
        return (uint32_t)(HUGE_MIN + r % (HUGE_MAX - HUGE_MIN));
    case BIG:
        return (uint32_t)(4 + r % (VALUE_MAX - 4));
    default:
        return (uint32_t)(4 + r % (r % 5 == 0 ? 3000 : 100));
    }
}

/* Not in the thread's own storage, which comes out of its stack. */
static uint8_t *huge_bytes(void)
{
    static _Thread_local uint8_t *bytes;
    if (bytes == NULL && (bytes = malloc(HUGE_MAX + 8)) == NULL) {
        oracle_fail("no memory for a value");
    }
    return bytes;
}

loam_slice oracle_value(uint32_t value)
{
    static _Thread_local uint8_t usual[VALUE_MAX + 8];
    bool huge = length_of(value) == HUGE;
    uint8_t *bytes = huge ? huge_bytes() : usual;
    uint32_t n = value_size(value);
    uint64_t s = value;
    for (uint32_t at = 0; at < n; at += 8) {
        /* Half of it compresses. */
        uint64_t r = huge || at % 16 == 0 ? splitmix64(&s) : value;
        memcpy(bytes + at, &r, 8);
    }
    memcpy(bytes, &value, 4);
    return loam_bytes(bytes, n);
}

/* ---- the oracle -------------------------------------------------------------------------------- */

void oracle_init(struct oracle *o)
{
    memset(o, 0, sizeof *o);
    strcpy(o->controls[0].name[0], "default");
    o->spaces = 1;
    o->next_value = 1;
    for (unsigned i = 0; i < ORACLE_KEYS; i++) {
        (void)oracle_key(i); /* made before threads are there */
    }
}

static bool keeps_no_log(const struct oracle *o)
{
    return atom_load(&o->unlogged, acquire) != 0; /* acquire: pairs with oracle_open() */
}

static struct oracle_promise promise_low(const struct oracle *o, bool acked)
{
    /* acquire: whoever sees the mark sees what it covers; pairs with the stores of the writer. */
    return (struct oracle_promise){
        .opened = atom_load(&o->opened, acquire) != 0,
        .low = acked ? atom_load(&o->acked, acquire) : atom_load(&o->durable, acquire),
        .control_low = atom_load(&o->control_acked, acquire),
    };
}

struct oracle_promise oracle_promise_low(const struct oracle *o, bool process)
{
    return promise_low(o, process && !keeps_no_log(o));
}

struct oracle_promise oracle_promise_live(const struct oracle *o)
{
    struct oracle_promise p = promise_low(o, true);
    oracle_promise_high(o, &p);
    return p;
}

void oracle_promise_high(const struct oracle *o, struct oracle_promise *p)
{
    p->high = atom_load(&o->begun, acquire);                 /* acquire: as above */
    p->control_high = atom_load(&o->control_begun, acquire); /* as above */
}

/* ---- writing ----------------------------------------------------------------------------------- */

static void step_done(struct oracle_writer *w)
{
    if (w->after != NULL) {
        w->after(w->hook_ctx);
    }
}

static int failed(struct oracle_writer *w, const char *what, int rc)
{
    w->refused++;
    if (w->strict) {
        oracle_fail("%s gives %d: %s", what, rc, loam_last_error()->message);
    }
    return rc;
}

static uint32_t present_control(const struct oracle *o)
{
    return atom_load(&o->control_acked, relaxed); /* relaxed: the writer's own mark */
}

/* What a session without a log wrote and could not flush is there up to some commit; the rest is gone. */
static int forget_lost(struct oracle_writer *w)
{
    struct oracle *o = w->o;
    struct oracle_promise p = oracle_promise_low(o, true);
    struct oracle_seen seen;
    oracle_promise_high(o, &p);
    int rc = p.low < p.high && keeps_no_log(o) ? oracle_read(o, &p, w->db, &seen) : LOAM_STOPPED;
    if (rc != LOAM_OK) {
        return rc;
    }
    uint32_t found = oracle_judge(o, &p, &seen);
    for (uint32_t c = found + 1; c <= p.high; c++) {
        if (atom_load(&o->commits[c].fate, relaxed) != ORACLE_FAILED) { /* relaxed: its own mark */
            o->commits[c].failed_at = w->rec != NULL ? loam_recording_mark(w->rec) + 1 : 0;
            atom_store(&o->commits[c].fate, ORACLE_FAILED, release); /* pairs with the judge */
        }
    }
    atom_store(&o->durable, found, release); /* pairs with oracle_promise_low() */
    atom_store(&o->acked, found, release);   /* likewise */
    return LOAM_OK;
}

int oracle_open(struct oracle_writer *w, const char *dir, const loam_options *options)
{
    struct oracle *o = w->o;
    int rc = loam_open(dir, options, &w->db);
    if (rc < 0) {
        return failed(w, "open", rc);
    }
    if ((rc = forget_lost(w)) < 0) {
        loam_close(w->db);
        w->db = NULL;
        return failed(w, "reading what was flushed", rc);
    }
    /* release: pairs with keeps_no_log(); until now the promise was that of the session before. */
    atom_store(&o->unlogged, options->durability == LOAM_DUR_MEMORY, release);
    atom_store(&o->opened, 1, release); /* pairs with oracle_promise_low() */
    const struct oracle_names *names = &o->controls[present_control(o)];
    for (unsigned s = 1; s < ORACLE_SPACES; s++) {
        if (names->name[s][0] != '\0' &&
            (rc = loam_ks_open(w->db, names->name[s], NULL, &w->space[s])) < 0) {
            oracle_close(w);
            return failed(w, "opening a keyspace", rc);
        }
    }
    step_done(w);
    return LOAM_OK;
}

int oracle_close(struct oracle_writer *w)
{
    struct oracle *o = w->o;
    for (unsigned s = 1; s < ORACLE_SPACES; s++) {
        loam_ks_release(w->space[s]);
        w->space[s] = NULL;
    }
    int rc = loam_close(w->db);
    w->db = NULL;
    if (rc < 0) {
        return failed(w, "close", rc);
    }
    /* release: pairs with oracle_promise_low(); a clean close makes everything durable. */
    atom_store(&o->durable, atom_load(&o->acked, relaxed), release);
    step_done(w);
    return LOAM_OK;
}

static struct oracle_commit *begin(struct oracle_writer *w)
{
    struct oracle *o = w->o;
    uint32_t n = atom_load(&o->begun, relaxed) + 1; /* relaxed: the writer's own mark */
    if (n > ORACLE_COMMITS || o->op_count + LONG_OPS > ORACLE_OPS) {
        oracle_fail("the workload is too long for the oracle");
    }
    o->commits[n].first = o->op_count;
    return &o->commits[n];
}

/* The next number of a value of that length. */
static uint32_t new_value(struct oracle *o, enum length length)
{
    uint32_t value = o->next_value;
    while (length_of(value) != length) {
        value++;
    }
    o->next_value = value + 1;
    return value;
}

static loam_slice add_op(struct oracle_writer *w, struct oracle_commit *c, unsigned space,
                         unsigned key, bool remove, enum length length)
{
    struct oracle *o = w->o;
    uint32_t value = remove ? 0 : new_value(o, length);
    o->ops[o->op_count++] = (struct oracle_op){(uint8_t)space, (uint8_t)key, value};
    c->count++;
    return remove ? loam_bytes(NULL, 0) : oracle_value(value);
}

static void step_begun(struct oracle_writer *w)
{
    if (w->before != NULL) {
        w->before(w->hook_ctx);
    }
}

/* The call is about to be made. */
static void publish(struct oracle_writer *w)
{
    atom_add(&w->o->begun, 1, release); /* pairs with oracle_promise_high() */
    step_begun(w);
}

static int finish(struct oracle_writer *w, struct oracle_commit *c, int rc, bool durable)
{
    struct oracle *o = w->o;
    uint32_t n = (uint32_t)(c - o->commits);
    durable = durable && !keeps_no_log(o);
    if (rc < 0) {
        bool unknown = (loam_last_error()->flags & LOAM_ERR_UNKNOWN) != 0;
        c->failed_at = w->rec != NULL ? loam_recording_mark(w->rec) + 1 : 0;
        /* release: pairs with the judge. */
        atom_store(&c->fate, unknown ? ORACLE_MAYBE : ORACLE_FAILED, release);
        failed(w, "a write", rc);
    } else {
        atom_store(&c->fate, ORACLE_ACKED, release); /* as above */
        if (durable) {
            atom_store(&o->durable, n, release); /* pairs with oracle_promise_low() */
        }
        atom_store(&o->acked, n, release); /* likewise */
    }
    step_done(w);
    return rc;
}

static unsigned some_space(struct oracle_writer *w)
{
    for (;;) {
        unsigned s = (unsigned)random_below(&w->random, ORACLE_SPACES);
        if (s == 0 || w->space[s] != NULL) {
            return s;
        }
    }
}

static loam_write_opts write_opts(const struct oracle_writer *w, bool durable)
{
    return (loam_write_opts){.struct_size = sizeof(loam_write_opts),
                             .flags = durable && !keeps_no_log(w->o) ? LOAM_W_DURABLE : 0};
}

/* n operations, of which the first `big` have big values; and on until there are so many bytes of values. */
static int write_batch(struct oracle_writer *w, bool durable, unsigned n, unsigned big,
                       size_t bytes)
{
    const loam_write_opts opts = write_opts(w, durable);
    struct oracle_commit *c = begin(w);
    loam_batch *b = loam_batch_new(0);
    size_t put = 0;
    for (unsigned i = 0; i < n || (put < bytes && i < LONG_OPS); i++) {
        unsigned s = some_space(w), key = (unsigned)random_below(&w->random, ORACLE_KEYS);
        bool remove = random_below(&w->random, 4) == 0;
        loam_slice v = add_op(w, c, s, key, remove, i < big ? BIG : PLAIN);
        put += v.size;
        if (remove) {
            loam_batch_delete(b, w->space[s], oracle_key(key));
        } else {
            loam_batch_put(b, w->space[s], oracle_key(key), v);
        }
    }
    publish(w);
    int rc = loam_write(w->db, b, &opts);
    loam_batch_free(b);
    return finish(w, c, rc, durable);
}

static int write_one(struct oracle_writer *w, unsigned s, unsigned key, bool remove, bool durable,
                     enum length length)
{
    const loam_write_opts opts = write_opts(w, durable);
    struct oracle_commit *c = begin(w);
    loam_slice v = add_op(w, c, s, key, remove, length);
    publish(w);
    int rc = remove ? loam_delete(w->db, w->space[s], oracle_key(key), &opts)
                    : loam_put(w->db, w->space[s], oracle_key(key), v, &opts);
    return finish(w, c, rc, durable);
}

void oracle_write(struct oracle_writer *w, unsigned n, bool big)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t kind = random_below(&w->random, 100);
        bool durable = kind % 4 == 0, large = big && kind % 7 == 0;
        if (kind >= 70) {
            unsigned ops = 2 + (unsigned)random_below(&w->random, BATCH_OPS - 1);
            write_batch(w, durable, ops, large, 0);
        } else {
            unsigned s = some_space(w), key = (unsigned)random_below(&w->random, ORACLE_KEYS);
            write_one(w, s, key, kind >= 55, durable, large ? BIG : PLAIN);
        }
    }
}

int oracle_batch_long(struct oracle_writer *w, bool durable)
{
    size_t bytes = LONG_BYTES + (size_t)random_below(&w->random, 3) * LONG_MORE;
    return write_batch(w, durable, 2, LONG_OPS, bytes);
}

int oracle_put(struct oracle_writer *w, unsigned key, bool durable)
{
    return write_one(w, 0, key, false, durable, PLAIN);
}

int oracle_put_long(struct oracle_writer *w, unsigned key)
{
    return write_one(w, 0, key, false, false, BIG);
}

int oracle_put_huge(struct oracle_writer *w, unsigned key)
{
    return write_one(w, 0, key, false, false, HUGE);
}

int oracle_sync(struct oracle_writer *w)
{
    struct oracle *o = w->o;
    int rc = keeps_no_log(o) ? loam_flush(w->db, NULL) : loam_sync(w->db);
    if (rc < 0) {
        return failed(w, "sync", rc);
    }
    /* release: pairs with oracle_promise_low() */
    atom_store(&o->durable, atom_load(&o->acked, relaxed), release);
    step_done(w);
    return LOAM_OK;
}

int oracle_flush(struct oracle_writer *w)
{
    struct oracle *o = w->o;
    int rc = loam_flush(w->db, NULL);
    if (rc < 0) {
        return failed(w, "flush", rc);
    }
    /* release: pairs with oracle_promise_low() */
    atom_store(&o->durable, atom_load(&o->acked, relaxed), release);
    step_done(w);
    return LOAM_OK;
}

int oracle_compact(struct oracle_writer *w)
{
    const loam_slice open_end = {NULL, 0};
    for (unsigned s = 0; s < ORACLE_SPACES; s++) {
        if (s == 0 || w->space[s] != NULL) {
            int rc = loam_compact(w->db, w->space[s], open_end, open_end, 0);
            if (rc < 0) {
                return failed(w, "compact", rc);
            }
        }
    }
    step_done(w);
    return LOAM_OK;
}

/* ---- keyspaces --------------------------------------------------------------------------------- */

/* Room for the next control state, a copy of the present one. NULL: after a change whose outcome is
 * not known there are no more. */
static struct oracle_names *control_begin(struct oracle *o)
{
    uint32_t now = present_control(o);
    if (atom_load(&o->control_begun, relaxed) != now) { /* relaxed: the writer's own mark */
        return NULL;
    }
    if (now == ORACLE_CONTROLS) {
        oracle_fail("the workload has too many keyspace changes");
    }
    o->controls[now + 1] = o->controls[now];
    return &o->controls[now + 1];
}

static void control_publish(struct oracle_writer *w)
{
    atom_add(&w->o->control_begun, 1, release); /* pairs with oracle_promise_high() */
    step_begun(w);
}

/* A change that has not happened and will not: the state before it follows. One that is begun may show on the
 * way, so its state keeps its number. */
static void control_undo(struct oracle *o)
{
    uint32_t tried = atom_load(&o->control_begun, relaxed); /* relaxed: the writer's own mark */
    if (tried >= ORACLE_CONTROLS) {
        oracle_fail("the workload has too many keyspace changes");
    }
    o->controls[tried + 1] = o->controls[tried - 1];
    atom_store(&o->control_begun, tried + 1, release); /* pairs with oracle_promise_high() */
    atom_store(&o->control_acked, tried + 1, release); /* pairs with oracle_promise_low() */
}

static int control_end(struct oracle_writer *w, const char *what, int rc)
{
    struct oracle *o = w->o;
    if (rc >= 0) {
        atom_add(&o->control_acked, 1, release); /* pairs with oracle_promise_low() */
    } else {
        if ((loam_last_error()->flags & LOAM_ERR_UNKNOWN) == 0) {
            control_undo(o);
        }
        failed(w, what, rc);
    }
    step_done(w);
    return rc;
}

unsigned oracle_find_name(const struct oracle_names *n, const char *name)
{
    for (unsigned s = 0; s < ORACLE_SPACES; s++) {
        if (strcmp(n->name[s], name) == 0) {
            return s;
        }
    }
    return ORACLE_SPACES;
}

int oracle_ks_create(struct oracle_writer *w, const char *name)
{
    struct oracle *o = w->o;
    struct oracle_names *next = control_begin(o);
    if (next == NULL) {
        return LOAM_OK;
    }
    unsigned s = o->spaces++;
    if (s >= ORACLE_SPACES) {
        oracle_fail("the workload has too many keyspaces");
    }
    strcpy(next->name[s], name);
    control_publish(w);
    return control_end(w, "creating a keyspace", loam_ks_open(w->db, name, NULL, &w->space[s]));
}

int oracle_ks_drop(struct oracle_writer *w, const char *name)
{
    struct oracle_names *next = control_begin(w->o);
    unsigned s = next != NULL ? oracle_find_name(next, name) : ORACLE_SPACES;
    if (s == ORACLE_SPACES) {
        return LOAM_OK;
    }
    next->name[s][0] = '\0';
    control_publish(w);
    int rc = loam_ks_drop(w->db, name);
    rc = control_end(w, "dropping a keyspace", rc);
    if (rc >= 0 || atom_load(&w->o->control_begun, relaxed) != present_control(w->o)) {
        loam_ks_release(w->space[s]);
        w->space[s] = NULL;
    }
    return rc;
}

int oracle_ks_rename(struct oracle_writer *w, const char *from, const char *to)
{
    struct oracle_names *next = control_begin(w->o);
    unsigned s = next != NULL ? oracle_find_name(next, from) : ORACLE_SPACES;
    if (s == ORACLE_SPACES) {
        return LOAM_OK;
    }
    strcpy(next->name[s], to);
    control_publish(w);
    return control_end(w, "renaming a keyspace", loam_ks_rename(w->db, from, to));
}
