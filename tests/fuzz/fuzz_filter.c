/* fuzz_filter.c - Opens a filter of any bytes and asks it.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "arena/random.h"
#include "sstable/filter.h"
#include "tests/fuzz/fuzz_support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    void *aligned = NULL;
    fuzz_begin();
    CHECK_EQ(posix_memalign(&aligned, FILTER_LINE, size + 1), 0);
    if (size != 0) {
        memcpy(aligned, data, size);
    }
    struct filter f = {0};
    uint64_t keys = 0;
    if (filter_open(aligned, size, &f, &keys) == NULL) {
        struct random r;
        random_init(&r, size);
        (void)filter_may_contain(&f, 0);
        (void)filter_may_contain(&f, UINT64_MAX);
        for (int i = 0; i < 64; i++) {
            (void)filter_may_contain(&f, random_next(&r));
        }
    }
    free(aligned);
    fuzz_end(size);
    return 0;
}
