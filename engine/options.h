/* options.h - Checks what the caller asked for and divides the memory budget.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_ENGINE_OPTIONS_H_
#define LOAM_ENGINE_OPTIONS_H_

#include <stdbool.h>

#include "engine/loam.h"

/* How one budget is shared out; constant after open. All in bytes unless said otherwise. */
struct limits {
    uint64_t budget;
    uint64_t memtable_bytes;   /* data in one memtable before it is sealed, at most */
    uint32_t memtables_max;    /* active + sealed; beyond it writers wait for a flush */
    uint64_t ring_bytes;       /* block cache and flush staging */
    uint64_t lent_bytes_most;  /* that the ring may have beside, while memtables and tables leave it */
    uint64_t iter_bytes;       /* iterators keep between calls, beside what they lend */
    uint64_t held_bytes;       /* of values that iterators and pins lend, in all; see arena/large.h */
    uint64_t passing_bytes;    /* of large values in the midst of a call */
    uint32_t scan_read_bytes;  /* an iterator reads ahead at most, of each of its tables */
    uint32_t readahead_bytes;  /* the same for one that was told how much, of all of them together */
    uint32_t merge_read_bytes; /* a merge reads at once of each input, at most */
    uint64_t merge_reads_bytes; /* the same of all inputs together, if it leaves each enough */
    uint64_t table_bytes;      /* open tables, resident indexes and filters above all */
    uint64_t table_bytes_most; /* the same when memtables make room */
    uint64_t other_bytes;      /* all else: the log, merges, iterators, versions */
    uint64_t segment_bytes;    /* capacity of one log segment */
    uint64_t segment_bytes_first; /* of the first, and of one at rest; each may have four times the last one's */
    uint64_t manifest_bytes;   /* a manifest this large is replaced by what it comes to */
    uint32_t window_bytes;     /* of a log segment mapped at once; a power of two */
    uint64_t chunk_bytes;      /* arena chunk; a power of two */
    uint64_t lease_bytes;      /* what a thread takes from a chunk at once */
    uint64_t value_max;        /* one value */
    uint64_t batch_max;        /* one batch, encoded */
    uint64_t batch_small_max;  /* what one of small operations takes; see batch_cost() */
    uint64_t target_file_bytes;
};

/* Options with every default filled in. */
struct options {
    loam_options user; /* flags, durability, intervals, callbacks */
    loam_ks_options default_ks;
    struct limits limits;
};

/* Copies a versioned struct: *size_field is src's struct_size. min_size is the oldest layout's.
 * A newer caller's extra bytes must be zero. Errors: E_INVAL naming `what`. */
int options_copy(void *dst, size_t dst_size, const void *src, size_t src_size, size_t min_size,
                 const char *what);

/* The struct of one call, which is read in place: `size` is its struct_size, `known` this library's.
 * E_INVAL naming `what`: too small, or a newer caller sets a field that is not known here. */
int options_check_size_(const void *opts, size_t size, size_t known, const char *what);
static inline int options_check_size(const void *opts, size_t size, size_t known, const char *what)
{
    return size == known ? LOAM_OK : options_check_size_(opts, size, known, what);
}

/* opts NULL: all defaults. Returns LOAM_OK, or LOAM_E_INVAL / LOAM_E_UNSUPPORTED naming the field. */
int options_resolve(const loam_options *opts, struct options *out);
int options_resolve_ks(const loam_ks_options *opts, loam_ks_options *out);

#endif
