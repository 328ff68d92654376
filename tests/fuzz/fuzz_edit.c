/* fuzz_edit.c - Decodes a version edit of any bytes; what it accepts must encode to the same again.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/version_edit.h"
#include "tests/fuzz/fuzz_support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct version_edit e, again;
    struct buf first, second;
    fuzz_begin();
    version_edit_init(&e, fuzz_alloc());
    version_edit_init(&again, fuzz_alloc());
    buf_init(&first, fuzz_alloc(), MEM_VERSION);
    buf_init(&second, fuzz_alloc(), MEM_VERSION);
    if (version_edit_decode(&e, loam_bytes(data, size), 1, 40) == LOAM_OK) {
        version_edit_encode(&e, &first);
        CHECK_EQ(version_edit_decode(&again, buf_slice(&first), 1, 40), LOAM_OK);
        version_edit_encode(&again, &second);
        CHECK_BYTES(first.data, first.size, second.data, second.size);
    }
    version_edit_free(&e);
    version_edit_free(&again);
    buf_free(&first);
    buf_free(&second);
    fuzz_end(size);
    return 0;
}
