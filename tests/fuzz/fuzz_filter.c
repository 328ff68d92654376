/* fuzz_filter.c - Checks a page of a filter of any bytes and asks it.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The page is taken for the one it says it is, of a filter as it says.
 */
#include "arena/coding.h"
#include "arena/random.h"
#include "sstable/filter.h"
#include "tests/fuzz/fuzz_support.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    fuzz_begin();
    uint8_t *page = fuzz_copy(in.p, in.left, 0);
    struct filter_shape f = {.lines = 1, .keys = 1};
    uint64_t number = 0;
    if (size >= FILTER_HEAD) {
        f = (struct filter_shape){get_fixed64(page + 16), get_fixed64(page + 24)};
        number = get_fixed32(page + 32);
    }
    if (f.lines != 0 && f.lines <= UINT32_MAX &&
        filter_page_check(page, size, &f, number) == NULL) {
        struct random r;
        random_init(&r, size);
        for (int i = 0; i < 64; i++) {
            (void)filter_page_may_contain(page, f.lines, random_next(&r));
        }
        /* Brought together as one filter. */
        const struct filter whole = {page + FILTER_HEAD, (size - FILTER_HEAD) / FILTER_LINE,
                                     filter_page_probes(page)};
        (void)filter_may_contain(&whole, 0);
        (void)filter_may_contain(&whole, UINT64_MAX);
    }
    (void)filter_lines_of_size(size, 16);
    free(page);
    fuzz_end(size);
    return 0;
}
