/* fuzz_log.c - Reads, scans and judges a log segment of any bytes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: a byte of flags (1 seal, 2 a limit, 4 a sealed end, 8 an expected base), then the segment as
 * fuzz_put_log() takes it.
 */
#include "engine/op.h"
#include "tests/fuzz/fuzz_support.h"
#include "wal/wal_reader.h"

#define LOG_ZEROS_MAX (256u << 10)

static void read_ops(loam_slice payload)
{
    struct reader r = reader_of(payload.data, payload.size);
    struct op o;
    while (op_read(&r, &o) == LOAM_OK) {
        fuzz_touch(o.key);
        fuzz_touch(o.value);
    }
}

static void read_segment(struct wal_reader *r, unsigned flags)
{
    uint64_t base = 0, last = 0;
    int rc = wal_reader_peek(r, &base);
    if (rc == LOAM_NOTFOUND && (flags & 8) != 0) {
        wal_reader_expect(r, 64);
    }
    if ((flags & 2) != 0) {
        wal_reader_limit(r, base + 128);
    }
    struct wal_record record;
    while (rc >= 0 && (rc = wal_read_next(r, &record)) == LOAM_OK) {
        CHECK(record.end > record.position && record.position >= last);
        CHECK(record.payload.size <= r->size);
        last = record.end;
        fuzz_touch(record.payload);
        read_ops(record.payload);
    }
    struct wal_reader_end end;
    wal_reader_end(r, &end);
    rc = wal_reader_check(r, (flags & 4) != 0 ? end.end : 0);
    CHECK(rc == LOAM_OK || rc == WAL_TORN || rc == LOAM_E_CORRUPT || rc == LOAM_E_FORMAT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    unsigned flags = (unsigned)fuzz_take(&in, 1);
    fuzz_begin();
    loam_vfs *disk = fuzz_disk();
    fuzz_put_log(disk, "000000000007.log", in.left != 0 ? in.p : (const uint8_t *)"", in.left,
                 (flags & 1) != 0, LOG_ZEROS_MAX);
    struct wal_reader r;
    if (wal_reader_open(&r, disk, FUZZ_DIR, fuzz_alloc(), 7, FUZZ_ID) == LOAM_OK) {
        read_segment(&r, flags);
    }
    wal_reader_close(&r);
    loam_vfs_free(disk);
    fuzz_end(size);
    return 0;
}
