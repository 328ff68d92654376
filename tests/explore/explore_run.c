/* explore_run.c - One run of a scenario: threads as coroutines, and the world put back afterwards.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A fiber runs until its next point. There it writes down what it is about to do, and the chooser
 * picks, among the fibers that can go on, who does; that one performs its operation and runs on to
 * its own next point. Thread-local variables of the program are copied out and in at each switch.
 *
 * The world is the program's writable data (of the modules and the scenarios), the heap of
 * explore_doors.c and the main fiber's thread-locals. It is remembered after setup and copied back
 * before each run, so every run starts from the same bytes at the same addresses.
 */
#include "tests/explore/explore_core.h"

#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arena/epoch.h"
#include "arena/thread_slot.h"

struct explorer *X;

static struct {
    unsigned char *data;
    size_t data_size;
    unsigned char *tls;
    size_t tls_size;
    unsigned char *kept; /* copy of the world: data, heap, thread-locals */
    size_t kept_heap;
} world;

/* ---- the program's memory ---------------------------------------------------------------- */

static int find_segments(struct dl_phdr_info *info, size_t size, void *arg)
{
    (void)size;
    (void)arg;
    uintptr_t relro_end = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_GNU_RELRO) {
            relro_end = info->dlpi_addr + p->p_vaddr + p->p_memsz;
        } else if (p->p_type == PT_TLS) {
            world.tls = info->dlpi_tls_data;
            world.tls_size = p->p_memsz;
        }
    }
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type == PT_LOAD && (p->p_flags & PF_W) != 0) {
            uintptr_t start = info->dlpi_addr + p->p_vaddr;
            uintptr_t end = start + p->p_memsz;
            start = relro_end > start && relro_end < end ? relro_end : start;
            world.data = (unsigned char *)start;
            world.data_size = end - start;
        }
    }
    return 1; /* the first one is the program */
}

void data_segment(unsigned char **start, size_t *size)
{
    *start = world.data;
    *size = world.data_size;
}

static void *map(size_t size)
{
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED) {
        perror("explore: mmap");
        exit(2);
    }
    return p;
}

static void world_keep(void)
{
    size_t heap_size;
    const void *heap = heap_used(&heap_size);
    unsigned char *kept = map(world.data_size + heap_size + world.tls_size);
    world.kept = kept;
    world.kept_heap = heap_size;
    memcpy(kept + world.data_size, heap, heap_size);
    memcpy(kept + world.data_size + heap_size, world.tls, world.tls_size);
    memcpy(kept, world.data, world.data_size); /* with the fields just set */
}

static void world_put_back(void)
{
    size_t heap_size;
    void *heap = heap_used(&heap_size);
    memcpy(world.data, world.kept, world.data_size);
    memcpy(heap, world.kept + world.data_size, world.kept_heap);
    memcpy(world.tls, world.kept + world.data_size + world.kept_heap, world.tls_size);
}

/* ---- failures ---------------------------------------------------------------------------- */

void explore_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(X->message, sizeof X->message, fmt, ap);
    va_end(ap);
    X->failed = true;
    siglongjmp(X->out, 1);
}

/* glibc's assert() ends up here. */
_Noreturn void __assert_fail(const char *expr, const char *file, unsigned line, const char *fn)
{
    explore_fail("%s:%u: %s: assert(%s)", file, line, fn, expr);
}

static void on_crash(int sig, siginfo_t *info, void *context)
{
    (void)context;
    snprintf(X->message, sizeof X->message, "signal %d at address %p", sig, info->si_addr);
    X->failed = true;
    siglongjmp(X->out, 1);
}

static void catch_crashes(void)
{
    stack_t stack = {.ss_sp = map(SIGSTKSZ * 4), .ss_size = (size_t)SIGSTKSZ * 4};
    sigaltstack(&stack, NULL);
    struct sigaction a = {.sa_sigaction = on_crash,
                          .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &a, NULL);
    sigaction(SIGBUS, &a, NULL);
    sigaction(SIGFPE, &a, NULL);
    sigaction(SIGILL, &a, NULL);
}

void trace(const char *fmt, ...)
{
    if (X->trace) {
        printf("  %4u %c  ", X->steps, 'a' + X->current);
        va_list ap;
        va_start(ap, fmt);
        vprintf(fmt, ap);
        va_end(ap);
        putchar('\n');
    }
}

/* ---- fibers ------------------------------------------------------------------------------ */

static void fiber_main(void);

static void switch_to(unsigned to)
{
    struct fiber *from = self(), *next = &X->fiber[to];
    if (from == next) {
        return;
    }
    memcpy(from->tls, world.tls, world.tls_size);
    X->current = to;
    memcpy(world.tls, next->tls, world.tls_size);
    if (sigsetjmp(from->at, 0) == 0) {
        if (next->started) {
            siglongjmp(next->at, 1);
        }
        next->started = true;
        setcontext(&next->start);
    }
}

static void fiber_reset(struct fiber *f)
{
    f->state = FIBER_READY;
    f->started = f->timed = f->timed_out = f->nudged = false;
    f->next = (struct op){.kind = OP_BEGIN, .name = "begin"};
    f->asleep_on = NULL;
    f->others_seen = f->own_writes = 0;
    f->steps = f->last_step = 0;
    f->clock = 1;
    f->held_count = 0;
    memset(&f->happened, 0, sizeof f->happened);
    memset(&f->seen, 0, sizeof f->seen);
    f->start.uc_stack.ss_sp = f->stack;
    f->start.uc_stack.ss_size = STACK_BYTES;
    f->start.uc_link = NULL;
    makecontext(&f->start, fiber_main, 0);
    memset(f->tls, 0, world.tls_size); /* the program's thread-locals all start as zero */
}

static bool stopped(unsigned i)
{
    return X->frozen == i && X->fiber[i].steps >= X->frozen_at;
}

static bool enabled(unsigned i)
{
    const struct fiber *f = &X->fiber[i];
    if (f->state != FIBER_READY || stopped(i)) {
        return false;
    }
    switch (f->next.kind) {
    case OP_LOCK:
        return *(const volatile uint64_t *)f->next.at == 0;
    case OP_YIELD:
        return f->nudged || X->writes - f->own_writes > f->others_seen;
    default:
        return true;
    }
}

static uint32_t enabled_set(void)
{
    uint32_t set = 0;
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        set |= (uint32_t)enabled(i) << i;
    }
    return set;
}

/* Ends a sleep that has a time limit and began before step `before`; the thread, as a set. */
static uint32_t end_a_sleep(uint32_t before)
{
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        struct fiber *f = &X->fiber[i];
        if (f->state == FIBER_ASLEEP && f->timed && !stopped(i) && f->last_step < before) {
            f->state = FIBER_READY;
            f->timed_out = true;
            X->clock += 1000;
            return 1u << i;
        }
    }
    return 0;
}

/* Nobody can go on by himself. */
static uint32_t let_time_pass(void)
{
    uint32_t set = end_a_sleep(UINT32_MAX);
    if (set != 0) {
        if ((X->scenario->flags & NO_LAPSE) != 0) {
            unsigned i = (unsigned)__builtin_ctz(set);
            explore_fail("thread %c was never woken (%s)", 'a' + i, X->fiber[i].next.where);
        }
        return set;
    }
    if (X->idle_rounds++ < 3) { /* loops that wait for a time rather than for a thread */
        X->clock += 3600ull * 1000000;
        for (unsigned i = 0; i < X->scenario->threads; i++) {
            struct fiber *f = &X->fiber[i];
            if (f->state == FIBER_READY && f->next.kind == OP_YIELD && !stopped(i)) {
                f->nudged = true;
                set |= 1u << i;
            }
        }
    }
    return set;
}

/* Threads that poll keep each other going for ever: a sleep with a time limit takes its turn. */
static uint32_t only_polling(uint32_t set)
{
    uint32_t oldest = UINT32_MAX;
    for (uint32_t left = set; left != 0; left &= left - 1) {
        const struct fiber *f = &X->fiber[__builtin_ctz(left)];
        if (f->next.kind != OP_YIELD) {
            return set;
        }
        oldest = f->last_step < oldest ? f->last_step : oldest;
    }
    uint32_t sleeper = end_a_sleep(oldest);
    return sleeper != 0 ? sleeper : set;
}

/* Whether the threads that are not stopped for ever have ended. */
static bool all_done(void)
{
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        const struct fiber *f = &X->fiber[i];
        if (f->state != FIBER_DONE && !stopped(i)) {
            return false;
        }
    }
    return true;
}

/* What each thread is at. */
static void describe(char *text, size_t size)
{
    size_t at = 0;
    for (unsigned i = 0; i < X->scenario->threads && at < size; i++) {
        const struct fiber *f = &X->fiber[i];
        const char *state = f->state == FIBER_DONE     ? "done"
                            : stopped(i)               ? "stopped"
                            : f->state == FIBER_ASLEEP ? "asleep"
                            : f->next.kind == OP_LOCK  ? "locks"
                            : f->next.kind == OP_YIELD ? "waits for a store"
                                                       : "runs";
        at += (size_t)snprintf(text + at, size - at, " %c %s (%s);", 'a' + i, state,
                               f->next.where != NULL ? f->next.where : "-");
    }
}

static void log_byte(unsigned char b)
{
    if (X->log_length < STEPS_MAX) {
        X->log[X->log_length++] = b;
    }
}

/* Hands the processor on; returns when it is this fiber's turn again. */
static void reschedule(void)
{
    char text[400];
    if (X->steps >= X->step_limit) {
        describe(text, sizeof text);
        explore_fail("%u steps without an end:%s", X->steps, text);
    }
    uint32_t set = enabled_set();
    while (set == 0) {
        if (all_done()) {
            switch_to(MAIN_FIBER);
            return;
        }
        set = let_time_pass();
        if (set == 0) {
            describe(text, sizeof text);
            explore_fail("no thread can go on:%s", text);
        }
    }
    set = only_polling(set);
    unsigned to = X->chooser->thread(set, X->current);
    log_byte((unsigned char)to);
    switch_to(to);
}

/* The calling fiber's turn has come. */
static void went_on(struct fiber *f)
{
    f->last_step = ++X->steps;
    f->steps++;
    f->clock++;
    f->happened.of[X->current] = f->seen.of[X->current] = f->clock;
    if (f->next.kind == OP_YIELD) {
        f->others_seen = X->writes - f->own_writes;
        f->nudged = false;
    }
}

void point(enum op_kind kind, const volatile void *at, const char *name, const char *where)
{
    struct fiber *f = self();
    f->next = (struct op){kind, at, name, where};
    if (X->phase == PHASE_PREPARE) {
        switch_to(MAIN_FIBER); /* the first point: the schedule begins here */
    } else {
        reschedule();
    }
    went_on(f);
}

void wrote(void)
{
    X->writes++;
    self()->own_writes++;
    X->idle_rounds = 0;
}

bool sleep_on(const volatile void *at, bool timed, const char *where)
{
    struct fiber *f = self();
    f->state = FIBER_ASLEEP;
    f->asleep_on = at;
    f->timed = timed;
    f->timed_out = false;
    f->next = (struct op){OP_RESUME, at, "asleep", where};
    reschedule();
    went_on(f);
    order_catch_up();
    trace("%s (%s)", f->timed_out ? "time ran out" : "woken", where);
    return !f->timed_out;
}

unsigned wake(const volatile void *at, unsigned most)
{
    unsigned count = 0;
    for (unsigned i = 0; i < X->scenario->threads && count < most; i++) {
        struct fiber *f = &X->fiber[i];
        if (f->state == FIBER_ASLEEP && f->asleep_on == at) {
            f->state = FIBER_READY;
            f->asleep_on = NULL;
            count++;
        }
    }
    return count;
}

static void fiber_main(void)
{
    unsigned i = X->current;
    const struct scenario *s = X->scenario;
    /* A number and an epoch record for each thread, outside of the schedule. */
    enum run_phase phase = X->phase;
    X->phase = PHASE_QUIET;
    thread_slot_self();
    epoch_enter();
    epoch_exit();
    if (s->prepare != NULL) {
        s->prepare(i);
    }
    X->phase = phase;
    s->body(i);
    if ((s->flags & EXITS) != 0) {
        thread_exits();
    }
    if (X->phase == PHASE_PREPARE) { /* a body without a single point */
        self()->state = FIBER_DONE;
        switch_to(MAIN_FIBER);
    }
    self()->state = FIBER_DONE;
    trace("ends");
    reschedule();
    abort(); /* nobody chooses a fiber that has ended */
}

/* ---- runs -------------------------------------------------------------------------------- */

void explorer_open(void)
{
    X = map(sizeof *X);
    dl_iterate_phdr(find_segments, NULL);
    if (world.data == NULL || world.tls == NULL || world.tls_size > TLS_MAX) {
        fprintf(stderr, "explore: no data segment, or %zu bytes of thread-locals\n",
                world.tls_size);
        exit(2);
    }
    for (unsigned i = 0; i < FIBERS; i++) {
        X->fiber[i].stack = map(STACK_BYTES);
        getcontext(&X->fiber[i].start);
    }
    X->current = MAIN_FIBER;
    X->fiber[MAIN_FIBER].started = true;
    X->frozen = FIBERS;
    heap_open();
    order_open();
    races_open();
    catch_crashes();
}

void world_begin(const struct scenario *s)
{
    X->scenario = s;
    X->phase = PHASE_QUIET;
    X->clock = 1000000;
    if (sigsetjmp(X->out, 0) != 0) {
        fprintf(stderr, "%s: setup: %s\n", s->name, X->message);
        exit(2);
    }
    s->setup();
    world_keep();
}

static void begin_run(void)
{
    world_put_back();
    X->run++;
    X->steps = 0;
    X->writes = 0;
    X->idle_rounds = 0;
    X->log_length = 0;
    memset(&X->barrier, 0, sizeof X->barrier);
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        fiber_reset(&X->fiber[i]);
    }
}

enum run_result run_once(const struct chooser *c)
{
    X->chooser = c;
    X->failed = X->cut = false;
    if (sigsetjmp(X->out, 0) != 0) {
        X->current = MAIN_FIBER;
        X->phase = PHASE_QUIET;
        return X->failed ? RUN_FAILED : RUN_CUT;
    }
    begin_run();
    X->phase = PHASE_PREPARE;
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        switch_to(i); /* to its first point */
    }
    X->phase = PHASE_RUN;
    uint32_t set = enabled_set();
    if (set != 0) {
        unsigned first = X->chooser->thread(set, MAIN_FIBER);
        log_byte((unsigned char)first);
        switch_to(first);
    } else if (!all_done()) {
        explore_fail("no thread can go on from the start");
    }
    X->phase = PHASE_QUIET;
    bool whole = true;
    for (unsigned i = 0; i < X->scenario->threads; i++) {
        whole = whole && X->fiber[i].state == FIBER_DONE;
    }
    if (whole && X->scenario->check != NULL) {
        X->scenario->check();
    }
    return RUN_PASSED;
}
