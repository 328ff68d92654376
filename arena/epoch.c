/* epoch.c - The epoch counter, the threads' records and the queue of retired objects.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Why two advances are enough. Let an object be unlinked before its stamp s was taken. The stamp is
 * a read-modify-write of the counter, so the unlinking is visible to whoever sees the counter above
 * s; a section that entered with an epoch above s therefore cannot reach the object. A section that
 * entered with s or less holds its record at that value: the counter may go from s to s+1 while it
 * is open, but not from s+1 to s+2, since each advance demands that every open section shows the
 * present epoch. So at s+2 all sections that could reach the object have ended.
 *
 * Why a reader needs no fence of its own. An advance first calls membarrier, which makes every
 * running thread pass a full barrier: a section's store to its record either is visible to the
 * scan that follows, or the section's loads come after the barrier and so after every unlinking
 * that precedes the scan. Where membarrier is missing, reader and reclaimer each pass a
 * sequentially consistent fence at these places; an exchange of the record in its stead would
 * order nothing against the loads that follow. Under TSan, which can see neither, the store is
 * such an exchange all the same.
 *
 * tests/explore runs this file under the memory model of C11, with and without membarrier; its README
 * says for each pair of orders which of its scenarios fails without it.
 */
#include "arena/epoch.h"

#include <assert.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arena/alloc.h"
#include "arena/sync.h"

#include "arena/poison.h"

#if defined(LOAM_MC)
#define SPARE_RECORDS 1
#else
#define SPARE_RECORDS 16 /* for when memory is out: the last threads to come share these in turn */
#endif

_Thread_local struct epoch_record *epoch_self_;
_Atomic uint64_t epoch_now_ = 2; /* so that a stamp is never 0 */
bool epoch_asymmetric_;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t exit_key;
static struct epoch_record *_Atomic records; /* push only */
static struct epoch_record spare[SPARE_RECORDS];

static struct epoch_node *_Atomic incoming; /* retired, newest first; any thread pushes */
static struct mutex reclaim_mutex;
static struct epoch_node *waiting;       /* guarded by reclaim_mutex: oldest first */
static struct epoch_node **waiting_tail; /* guarded by reclaim_mutex */

/* False: this kernel, or the thread sanitizer, has no barrier for other threads. */
static bool barrier_register(void)
{
#if LOAM_TSAN
    return false;
#elif defined(LOAM_MC)
    return true;
#else
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0;
#endif
}

/* Every running thread passes a full barrier, or has one of its own at the start of each section. */
static void barrier_all(void)
{
#if !LOAM_TSAN
    if (!epoch_asymmetric_) {
        atom_fence();
        return;
    }
#if defined(LOAM_MC)
    mc_barrier_all();
#else
    syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
#endif
#endif
}

static void at_thread_exit(void *value)
{
    struct epoch_record *r = value;
    assert(r->depth == 0);
    epoch_self_ = NULL;
    /* release: pairs with the acquire of the record's next owner. */
    atom_store(&r->used, 0, release);
}

static void at_fork_child(void)
{
    /* The other threads' sections do not exist here and must not hold the epoch back. */
    for (struct epoch_record *r = atom_load(&records, relaxed); r != NULL; r = r->next) {
        if (r != epoch_self_) {
            atom_store(&r->active, 0, relaxed);
            atom_store(&r->used, 0, relaxed);
            r->depth = 0;
        }
    }
    mutex_init(&reclaim_mutex, RANK_RECLAIM);
    /* Another thread may have been in the midst of the queue. What was retired is the parent's; this
     * copy of it is given up. */
    atom_store(&incoming, NULL, relaxed);
    waiting = NULL;
    waiting_tail = &waiting;
    if (epoch_asymmetric_) {
        (void)barrier_register();
    }
}

static void record_push(struct epoch_record *r)
{
    struct epoch_record *head = atom_load(&records, relaxed);
    do {
        r->next = head;
        /* release: pairs with the acquire in all_sections_at(); the record's fields are set. */
    } while (!atom_cas(&records, &head, r, release, relaxed));
}

static void start(void)
{
    /* A fork in the midst of this has the child begin anew: nobody but this could have a record yet. */
    atom_store(&records, NULL, relaxed); /* relaxed: as above */
    mutex_init(&reclaim_mutex, RANK_RECLAIM);
    waiting_tail = &waiting;
    pthread_key_create(&exit_key, at_thread_exit);
    pthread_atfork(NULL, NULL, at_fork_child);
    epoch_asymmetric_ = barrier_register();
    for (unsigned i = 0; i < SPARE_RECORDS; i++) {
        record_push(&spare[i]);
    }
}

static bool record_claim(struct epoch_record *r)
{
    uint32_t free = 0;
    /* acquire: pairs with the release at the last owner's exit. */
    return atom_load(&r->used, relaxed) == 0 && atom_cas(&r->used, &free, 1, acquire, relaxed);
}

struct epoch_record *epoch_attach_(void)
{
    pthread_once(&once, start);
    for (;;) {
        /* acquire: pairs with the release in record_push(). */
        for (struct epoch_record *r = atom_load(&records, acquire); r != NULL; r = r->next) {
            if ((r < spare || r >= spare + SPARE_RECORDS) && record_claim(r)) {
                epoch_self_ = r;
                pthread_setspecific(exit_key, r);
                return r;
            }
        }
        struct epoch_record *r =
            alloc_get_aligned(alloc_global(), MEM_MISC, sizeof *r, CACHE_LINE);
        if (r != NULL) {
            *r = (struct epoch_record){.used = 1};
            record_push(r);
            epoch_self_ = r;
            pthread_setspecific(exit_key, r);
            return r;
        }
        for (unsigned i = 0; i < SPARE_RECORDS; i++) {
            if (record_claim(&spare[i])) {
                epoch_self_ = &spare[i];
                pthread_setspecific(exit_key, epoch_self_);
                return epoch_self_;
            }
        }
        thread_yield();
    }
}

bool epoch_inside(void)
{
    return epoch_self_ != NULL && epoch_self_->depth != 0;
}

uint64_t epoch_stamp(void)
{
    pthread_once(&once, start);
    /* seq_cst read-modify-write: what the caller unlinked is visible to every section that sees a
     * later epoch; see the file's head. */
    return atom_add(&epoch_now_, 0, seq_cst);
}

static bool all_sections_at(uint64_t epoch)
{
    barrier_all();
    /* acquire: pairs with the release in record_push(). */
    for (struct epoch_record *r = atom_load(&records, acquire); r != NULL; r = r->next) {
        /* seq_cst: ordered behind the barrier, and pairs with the
         * release at exit: the section's reads happen before what the caller frees. */
        uint64_t a = atom_load(&r->active, seq_cst);
        if (a != 0 && a >> 1 != epoch) {
            return false;
        }
    }
    return true;
}

bool epoch_try_advance(void)
{
    pthread_once(&once, start);
    uint64_t e = atom_load(&epoch_now_, seq_cst); /* seq_cst: ordered before the scan */
    if (!all_sections_at(e)) {
        return false;
    }
    /* acq_rel: hands on what this thread has seen to sections that enter at the new epoch. A lost
     * race means that another thread has advanced. */
    atom_cas(&epoch_now_, &e, e + 1, acq_rel, relaxed);
    return true;
}

bool epoch_passed(uint64_t stamp)
{
    /* acquire: pairs with the advance: the ended sections' reads happen before the caller's reuse. */
    for (int tries = 0; tries < 2; tries++) {
        if (atom_load(&epoch_now_, acquire) >= stamp + 2) {
            return true;
        }
        if (!epoch_try_advance()) {
            return false;
        }
    }
    return atom_load(&epoch_now_, acquire) >= stamp + 2; /* acquire: as above */
}

void epoch_retire_node(struct epoch_node *n, epoch_free_fn *fn, void *arg, void *ptr)
{
    n->fn = fn;
    n->arg = arg;
    n->ptr = ptr;
    n->stamp = epoch_stamp();
    struct epoch_node *head = atom_load(&incoming, relaxed);
    do {
        n->next = head;
        /* release: pairs with the acquire in take_incoming(). */
    } while (!atom_cas(&incoming, &head, n, release, relaxed));
}

/* Moves what came in to the waiting queue, oldest first. Caller holds reclaim_mutex. */
static void take_incoming_locked(void)
{
    /* acquire: pairs with the release in epoch_retire_node(). */
    struct epoch_node *n = atom_swap(&incoming, NULL, acquire);
    struct epoch_node *oldest = NULL;
    while (n != NULL) {
        struct epoch_node *next = n->next;
        n->next = oldest;
        oldest = n;
        n = next;
    }
    *waiting_tail = oldest;
    for (; oldest != NULL; oldest = oldest->next) {
        waiting_tail = &oldest->next;
    }
}

/* Caller holds reclaim_mutex, which keeps synchronize from returning while frees are running. */
static uint32_t free_passed_locked(void)
{
    uint32_t count = 0;
    take_incoming_locked();
    while (waiting != NULL && epoch_passed(waiting->stamp)) {
        struct epoch_node *n = waiting;
        waiting = n->next;
        if (waiting == NULL) {
            waiting_tail = &waiting;
        }
        n->fn(n->arg, n->ptr); /* frees n as well */
        count++;
    }
    return count;
}

uint32_t epoch_poll(void)
{
    pthread_once(&once, start);
    assert(!epoch_inside());
    if (!mutex_try_lock(&reclaim_mutex)) {
        return 0;
    }
    uint32_t count = free_passed_locked();
    mutex_unlock(&reclaim_mutex);
    return count;
}

void epoch_synchronize(void)
{
    assert(!epoch_inside());
    uint64_t stamp = epoch_stamp();
    for (unsigned tries = 0; !epoch_passed(stamp); tries++) {
        if (tries < 16) {
            thread_yield();
        } else {
            thread_sleep_micros(100);
        }
    }
    mutex_lock(&reclaim_mutex);
    take_incoming_locked();
    for (;;) {
        free_passed_locked();
        if (waiting == NULL || waiting->stamp > stamp) {
            break;
        }
        thread_yield();
    }
    mutex_unlock(&reclaim_mutex);
}
