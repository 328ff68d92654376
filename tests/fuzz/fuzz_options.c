/* fuzz_options.c - Options of any numbers: refused with a reason, or limits that make sense.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Input: the bytes of a loam_ks_options and of a loam_options; pointers in them are replaced.
 */
#include "engine/options.h"
#include "tests/fuzz/fuzz_support.h"

static void check_limits(const struct options *o)
{
    const struct limits *l = &o->limits;
    CHECK(l->memtable_bytes != 0 && l->memtables_max >= 2 && l->segment_bytes != 0);
    CHECK(l->budget >= (uint64_t)1 << 20);
    CHECK(l->ring_bytes <= l->budget && l->table_bytes <= l->budget);
    CHECK(l->memtable_bytes <= l->budget && l->value_max <= LOAM_MAX_VALUE);
    CHECK((l->window_bytes & (l->window_bytes - 1)) == 0);
    CHECK((l->chunk_bytes & (l->chunk_bytes - 1)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const loam_comparator cmp = {.struct_size = sizeof cmp, .name = "nothing"};
    struct fuzz_input in = {data, size};
    loam_options o;
    loam_ks_options k, k_out;
    struct options out;
    unsigned flags = (unsigned)fuzz_take(&in, 1);
    size_t n;
    fuzz_begin();
    memset(&o, 0, sizeof o);
    memset(&k, 0, sizeof k);
    const uint8_t *p = fuzz_bytes(&in, sizeof k, &n);
    memcpy(&k, p, n);
    p = fuzz_bytes(&in, sizeof o, &n);
    memcpy(&o, p, n);
    k.comparator = (flags & 1) != 0 ? &cmp : NULL;
    k.struct_size = (flags & 2) != 0 ? sizeof k : k.struct_size % (sizeof k + 1);
    o.struct_size = (flags & 4) != 0 ? sizeof o : o.struct_size % (sizeof o + 1);
    o.vfs = NULL;
    o.allocator = (flags & 8) != 0 ? fuzz_allocator() : NULL;
    o.log = NULL;
    o.default_ks = (flags & 16) != 0 ? &k : NULL;
    int rc = options_resolve_ks(&k, &k_out);
    CHECK(rc == LOAM_OK || loam_last_error()->code == rc);
    if (rc == LOAM_OK) {
        CHECK(k_out.block_bytes >= 512 && k_out.block_bytes <= 65536);
    }
    rc = options_resolve(&o, &out);
    CHECK(rc == LOAM_OK ||
          (loam_last_error()->code == rc && loam_last_error()->message[0] != '\0'));
    if (rc == LOAM_OK) {
        check_limits(&out);
    }
    fuzz_end(size);
    return 0;
}
