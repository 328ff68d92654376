/* wal_reader.h - Reads the records of one segment file in order and judges how it ends.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Reads through a buffer, never maps; the buffer is small until more than the begin of the file is wanted,
 * for a log that holds nothing is opened often. A record longer than the buffer is checked piece by piece
 * before memory is taken for it, so a file can only cost memory for bytes it proves to hold.
 *
 * How recovery goes through the segments, numbers rising:
 *  1. Open N and N+1, and wal_reader_peek() the base b of the first segment behind N that has a
 *     record (segments without one are passed over). wal_reader_limit(N, b): what N holds from b on
 *     was given up by the writer after a failed append.
 *  2. Replay N. Its end must be b: then N is complete, whatever lies behind its end.
 *  3. When it is not, or there is no b, N ends the replay. wal_reader_scan() all segments behind N
 *     and give wal_reader_promise(N) the highest of their durable marks and the end that the
 *     manifest's sealed segment has, if that is another one; then wal_reader_check(N) is the
 *     verdict. Unless it is LOAM_E_CORRUPT the segments behind N held nothing that was promised.
 *  A last segment without records: wal_reader_expect(end of the one before), so that the search
 *  behind a lost first record is exact.
 * Segments that were not replayed must be gone, or be below the manifest's first live segment,
 * before new records are written: those begin where N was cut.
 */
#ifndef LOAM_WAL_WAL_READER_H_
#define LOAM_WAL_WAL_READER_H_

#include "arena/alloc.h"
#include "arena/vfs.h"
#include "wal/wal_format.h"

#define WAL_TORN 102 /* wal_reader_check: an unfinished write at the end, no promise broken */

struct wal_record {
    uint64_t position;
    uint64_t end;
    uint64_t offset;    /* in the file */
    loam_slice payload; /* lent until the next call on the reader */
};

struct wal_reader {
    const loam_vfs *vfs;
    struct alloc *alloc;
    loam_file *file;
    struct wal_file_header header;
    uint64_t number;
    uint64_t size;  /* of the file, bytes */
    uint64_t limit; /* positions from here on are not read */

    uint8_t *buffer; /* a window of the file */
    size_t buffer_cap;
    size_t buffer_most; /* what it grows to while the file is read on */
    uint64_t buffer_offset;
    size_t buffer_size;
    uint8_t *big; /* the last long record */
    uint64_t big_size;

    bool based;    /* the base is known */
    bool ended;    /* wal_read_next has returned LOAM_NOTFOUND */
    bool scanned;
    uint64_t base; /* position of the first record */
    uint64_t next; /* file offset of the next record */

    uint64_t durable; /* highest durable mark seen in any record, or promised from outside */
    bool beyond;      /* the scan found a record behind the end */
    bool torn;        /* something of this use of the file lies behind the end */
    int failed;       /* the first error is kept; 0 = none */
    loam_error error;
};

struct wal_reader_end {
    bool empty;       /* no record was read */
    uint64_t end;     /* position behind the last good record; 0: not even the base is known */
    uint64_t offset;  /* of that place in the file */
    bool torn;
    uint64_t durable; /* highest mark seen, also behind a hole once it was scanned */
};

/* LOAM_OK, or: LOAM_E_NOENT; LOAM_E_FORMAT: not a log or a newer version; LOAM_E_CORRUPT: a damaged
 * header, another database's or another number's file, or a file cut short. On an error nothing is
 * open. */
int wal_reader_open(struct wal_reader *r, const loam_vfs *vfs, const char *dir, struct alloc *alloc,
                    uint64_t number, uint64_t db_id);
/* Likewise, but takes a file for the rest of a segment whatever state its header and its length are in:
 * only another database's is refused. For repair. */
int wal_reader_open_damaged(struct wal_reader *r, const loam_vfs *vfs, const char *dir,
                            struct alloc *alloc, uint64_t number, uint64_t db_id);
void wal_reader_close(struct wal_reader *r); /* also after a failed open, or twice */

/* The position of the first record without reading on. LOAM_OK or LOAM_NOTFOUND, or an error.
 * REQUIRES: nothing has been read yet. */
int wal_reader_peek(struct wal_reader *r, uint64_t *base);
/* The position of the first record, known from elsewhere. REQUIRES: peek found none; nothing was
 * read. */
void wal_reader_expect(struct wal_reader *r, uint64_t base);
/* Records at or above this position do not exist for this reader. */
void wal_reader_limit(struct wal_reader *r, uint64_t position);
/* A durable mark known from elsewhere: everything below it and the limit must be readable. */
void wal_reader_promise(struct wal_reader *r, uint64_t durable);

/* The next record of operations; void ones are passed over. LOAM_OK; LOAM_NOTFOUND: the end, of
 * which wal_reader_check tells the nature; LOAM_E_FORMAT: a valid record of an unknown type;
 * LOAM_E_IO, LOAM_E_NOMEM. */
int wal_read_next(struct wal_reader *r, struct wal_record *record);
void wal_reader_end(const struct wal_reader *r, struct wal_reader_end *end);

/* Behind the end, to the next place where a record of this use of the file can be read, so that
 * wal_read_next() goes on there. LOAM_OK, LOAM_NOTFOUND, or an error. For repair. */
int wal_reader_skip(struct wal_reader *r);

/* Looks behind the end for records of this use of the file, so .durable and .torn are complete.
 * Reads on to the end first. LOAM_OK or an error; LOAM_E_CORRUPT when the file is built to make the
 * search expensive. */
int wal_reader_scan(struct wal_reader *r);
/* Judges the end. sealed_end: the position the manifest says this segment ends at (clean close), or
 * 0. Returns:  LOAM_OK: ends where it should; WAL_TORN: an unfinished write behind the end, nothing
 *           promised is missing; LOAM_E_CORRUPT with file number and offset; or an error of
 *           reading. */
int wal_reader_check(struct wal_reader *r, uint64_t sealed_end);

/* Between wal_reader.c and wal_reader_open.c. */
int wal_reader_io_error_(struct wal_reader *r, int64_t rc, uint64_t offset); /* kept */
void wal_reader_drop_big_(struct wal_reader *r);

#endif
