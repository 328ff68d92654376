/* fuzz_batch.c - Reads operations of any bytes, and drives the calls on batches by them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A run of operations that reads to its end gives the same bytes when it is put into a batch. Marks
 * and rewinds leave exactly what was there.
 */
#include "arena/epoch.h"
#include "engine/batch.h"
#include "engine/loam.h"
#include "engine/op.h"
#include "tests/fuzz/fuzz_support.h"

static void read_run(const uint8_t *data, size_t size)
{
    struct reader r = reader_of(data, size), again;
    struct batch b;
    struct op o, p;
    int rc;
    batch_init(&b, fuzz_alloc());
    while ((rc = op_read(&r, &o)) == LOAM_OK) {
        fuzz_touch(o.key);
        fuzz_touch(o.value);
        (void)batch_add(&b, 0, &o);
    }
    if (rc == LOAM_NOTFOUND && b.error.code == LOAM_OK) {
        r = reader_of(data, size);
        again = reader_of(b.ops.data, b.ops.size);
        while (op_read(&r, &o) == LOAM_OK) {
            CHECK_EQ(op_read(&again, &p), LOAM_OK);
            CHECK(o.kind == p.kind && o.ks == p.ks);
            CHECK_BYTES(o.key.data, o.key.size, p.key.data, p.key.size);
            CHECK_BYTES(o.value.data, o.value.size, p.value.data, p.value.size);
        }
        CHECK_EQ(op_read(&again, &p), LOAM_NOTFOUND);
    }
    batch_free(&b);
}

static void call(struct fuzz_input *in, loam_batch *b)
{
    size_t n, mark = loam_batch_mark(b), count = loam_batch_count(b);
    unsigned what = (unsigned)fuzz_take(in, 1);
    const uint8_t *p = fuzz_bytes(in, (size_t)fuzz_take(in, 1), &n);
    int rc = LOAM_OK;
    switch (what % 6) {
    case 0:
        rc = loam_batch_put(b, NULL, loam_bytes(p, n / 2), loam_bytes(p, n));
        break;
    case 1:
        rc = loam_batch_delete(b, NULL, loam_bytes(p, n));
        break;
    case 2: {
        void *to = loam_batch_reserve(b, NULL, loam_bytes(p, n), n * 3);
        if (to != NULL) {
            memset(to, 1, n * 3);
        }
        break;
    }
    case 3:
        (void)loam_batch_rewind(b, mark);
        CHECK_EQ(loam_batch_count(b), count);
        break;
    case 4:
        CHECK(loam_batch_rewind(b, mark + 1 + n) < 0);
        loam_batch_clear(b);
        break;
    default:
        if (rc == LOAM_OK &&
            loam_batch_put(b, NULL, loam_bytes(p, n), loam_bytes(p, n)) == LOAM_OK) {
            CHECK_EQ(loam_batch_rewind(b, mark), LOAM_OK);
            CHECK_EQ(loam_batch_count(b), count);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_begin();
    read_run(data, size);
    struct fuzz_input in = {data, size};
    loam_batch *b = loam_batch_new(size % 100);
    CHECK(b != NULL);
    while (in.left != 0) {
        call(&in, b);
    }
    loam_batch_free(b);
    epoch_synchronize(); /* its shell waits for that */
    fuzz_end(size);
    return 0;
}
