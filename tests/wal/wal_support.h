/* wal_support.h - A log under test: records with known contents, and knowing them again.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Record number i holds i (8 bytes), then bytes that follow from i and the position in the payload.
 */
#ifndef LOAM_TESTS_WAL_WAL_SUPPORT_H_
#define LOAM_TESTS_WAL_WAL_SUPPORT_H_

#include <stdlib.h>

#include "tests/support/check.h"
#include "wal/wal_reader.h"
#include "wal/wal_writer.h"

#define LOG_DB 77u

static inline void log_fill(uint8_t *p, uint64_t size, uint64_t i)
{
    CHECK(size >= 8);
    put_fixed64(p, i);
    for (uint64_t k = 8; k < size; k++) {
        p[k] = (uint8_t)(i * 131 + k * 7 + 1);
    }
}

/* The record's number, if its bytes are right. */
static inline uint64_t log_verify(loam_slice payload)
{
    const uint8_t *p = payload.data;
    CHECK(payload.size >= 8);
    uint64_t i = get_fixed64(p);
    for (uint64_t k = 8; k < payload.size; k++) {
        CHECK(p[k] == (uint8_t)(i * 131 + k * 7 + 1));
    }
    return i;
}

static inline struct wal_options log_options(const loam_vfs *vfs, const char *dir)
{
    struct wal_options o = {
        .vfs = vfs,
        .dir = dir,
        .alloc = alloc_global(),
        .db_id = LOG_DB,
        .segment_bytes = 1u << 20,
        .window_bytes = 1u << 16,
        .start_position = 64,
        .first_number = 1,
    };
    return o;
}

/* One record, every other one copied from elsewhere; switches segments when there is no room. */
static inline int log_append(struct wal *w, uint64_t size, uint64_t i, struct wal_slot *s)
{
    int rc;
    uint8_t *source = i % 2 != 0 ? malloc(size) : NULL;
    if (source != NULL) {
        log_fill(source, size, i);
    }
    while ((rc = source != NULL ? wal_begin_copy(w, loam_bytes(source, size), s)
                                : wal_begin(w, size, s)) == WAL_FULL) {
        uint64_t boundary;
        uint32_t generation;
        rc = wal_switch(w, size, &boundary, &generation);
        if (rc != LOAM_OK) {
            break;
        }
    }
    if (rc == LOAM_OK) {
        if (source == NULL) {
            log_fill(s->payload, size, i);
        }
        rc = wal_end(w, s, wal_durable(w));
    }
    free(source);
    return rc;
}

/* What runs behind the writers, in turn: windows and releases, then the next segment. */
static inline int log_keep(struct wal *w, uint64_t applied)
{
    bool more;
    int kept = wal_keep(w, applied, &more);
    int made = wal_prepare(w);
    return kept < 0 ? kept : made;
}

static inline void log_remove_all(const loam_vfs *vfs, const char *dir, uint64_t up_to)
{
    char path[256], name[WAL_FILE_NAME_MAX];
    for (uint64_t n = 0; n <= up_to; n++) {
        wal_file_name(name, n);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        (void)vfs->remove(vfs->ctx, path);
    }
}

#endif
