/* api_test.c - Every public call's answer to bad input, and the answers that are not errors.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Oracle: the comments of loam.h.
 */
#include <criterion/criterion.h>

#include <stdlib.h>

#include "tests/engine/db_support.h"

static loam_vfs *disk;
static loam_db *db;

static void set_up(void)
{
    disk = memory_disk();
    db = open_small(disk, "/db");
}

static void tear_down(void)
{
    GOES(loam_close(db));
    loam_vfs_free(disk);
}

TestSuite(api, .init = set_up, .fini = tear_down);

/* ---- options -----------------------------------------------------------------------------------
 */

/* The message of an error in an option names the field, "reserved_" for "reserved_[5]". */
static void names(const char *field)
{
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(field, "["), field);
    if (strstr(loam_last_error()->message, name) == NULL) {
        CHECK_FAIL_("'%s' does not name %s", loam_last_error()->message, name);
    }
}

static void refused_open(loam_options o, const char *field, int code)
{
    loam_db *other = (loam_db *)&o;
    FAILS(loam_open("/other", &o, &other), code);
    CHECK(other == NULL);
    names(field);
}

#define REFUSES(field, value, code)                                                                \
    do {                                                                                           \
        loam_options bad_ = small_options(disk);                                                   \
        bad_.field = (value);                                                                      \
        refused_open(bad_, #field, (code));                                                        \
    } while (0)

static int never_called(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx, (void)a, (void)b;
    abort();
}

Test(api, open_refuses_option_values_out_of_range)
{
    REFUSES(struct_size, 0, LOAM_E_INVAL);
    REFUSES(struct_size, sizeof(loam_options) - 1, LOAM_E_INVAL);
    REFUSES(struct_size, SIZE_MAX, LOAM_E_INVAL);
    REFUSES(flags, 0x08u, LOAM_E_INVAL);
    REFUSES(flags, 0x80000000u, LOAM_E_INVAL);
    REFUSES(flags, LOAM_OPEN_NEW | LOAM_OPEN_MUST_EXIST, LOAM_E_INVAL);
    REFUSES(flags, LOAM_OPEN_NEW | LOAM_OPEN_READONLY, LOAM_E_INVAL);
    REFUSES(durability, LOAM_DUR_POWER + 1, LOAM_E_INVAL);
    REFUSES(durability, UINT32_MAX, LOAM_E_INVAL);
    REFUSES(threads, 65, LOAM_E_INVAL);
    REFUSES(memory_budget, 1, LOAM_E_INVAL);
    REFUSES(memory_budget, ((uint64_t)1 << 20) - 1, LOAM_E_INVAL);
    REFUSES(memory_budget, UINT64_MAX, LOAM_E_INVAL);
    REFUSES(max_open_files, 15, LOAM_E_INVAL);
    REFUSES(log_level, LOAM_LOG_DEBUG + 1, LOAM_E_INVAL);
    REFUSES(reserved0_, 1, LOAM_E_INVAL);
    REFUSES(reserved_[0], 1, LOAM_E_INVAL);
    REFUSES(reserved_[5], 1, LOAM_E_INVAL);
    REFUSES(disk_budget, (4u << 20) - 1, LOAM_E_INVAL);
    REFUSES(disk_reserve, 1, LOAM_E_INVAL);
    REFUSES(disk_reserve, (64u << 10) - 1, LOAM_E_INVAL);
    REFUSES(disk_reserve, ((uint64_t)1 << 46) + 1, LOAM_E_INVAL);
    REFUSES(disk_reserve, UINT64_MAX, LOAM_E_INVAL);
    loam_options half = small_options(disk);
    half.disk_budget = 8u << 20;
    half.disk_reserve = (4u << 20) + 1;
    refused_open(half, "disk_reserve", LOAM_E_INVAL);
    const loam_allocator no_alloc = {.struct_size = sizeof no_alloc};
    REFUSES(allocator, &no_alloc, LOAM_E_INVAL);
}

/* With any call missing but map, which takes unmap with it. */
Test(api, a_file_system_without_a_call_is_refused)
{
    loam_vfs v = *disk;
    loam_options o = small_options(&v);
    v.struct_size = offsetof(loam_vfs, write_durable) - 1;
    refused_open(o, "vfs.struct_size", LOAM_E_INVAL);
    const size_t older[] = {offsetof(loam_vfs, write_durable), offsetof(loam_vfs, is_named)};
    for (size_t i = 0; i < sizeof older / sizeof *older; i++) {
        v.struct_size = older[i]; /* one from before that call */
        loam_db *old;
        CHECK_EQ(loam_open("/old", &o, &old), LOAM_OK);
        CHECK_EQ(loam_close(old), LOAM_OK);
    }
#define WITHOUT(call)                                                                              \
    do {                                                                                           \
        v = *disk;                                                                                 \
        v.call = NULL;                                                                             \
        refused_open(o, "vfs." #call, LOAM_E_INVAL);                                               \
    } while (0)
    WITHOUT(open);
    WITHOUT(close);
    WITHOUT(read);
    WITHOUT(write);
    WITHOUT(sync);
    WITHOUT(truncate);
    WITHOUT(reserve);
    WITHOUT(size);
    WITHOUT(unmap);
    WITHOUT(advise);
    WITHOUT(sync_dir);
    WITHOUT(mkdir);
    WITHOUT(rename);
    WITHOUT(link);
    WITHOUT(remove);
    WITHOUT(list);
    WITHOUT(lock);
    WITHOUT(space);
    WITHOUT(now_us);
    WITHOUT(random);
    v = *disk;
    v.map = NULL;
    v.unmap = NULL;
    loam_db *other;
    GOES(loam_open("/other", &o, &other));
    GOES(loam_close(other));
}

/* The structs of single calls, too: zero is what an older library would have done. */
Test(api, a_newer_callers_options_of_one_call_are_taken_while_the_new_fields_are_zero)
{
    struct {
        loam_write_opts o;
        uint64_t more[2];
    } w = {.o = {.struct_size = sizeof w}};
    struct {
        loam_read_opts o;
        uint64_t more[2];
    } r = {.o = {.struct_size = sizeof r}};
    struct {
        loam_iter_opts o;
        uint64_t more[2];
    } i = {.o = {.struct_size = sizeof i}};
    loam_iter *it;
    GOES(loam_put(db, NULL, text("k"), text("v"), &w.o));
    GOES(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r.o));
    GOES(loam_iter_open(db, NULL, &i.o, &it));
    loam_iter_close(it);
    w.more[1] = r.more[1] = i.more[1] = 1;
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w.o), LOAM_E_INVAL);
    names("write_opts");
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r.o), LOAM_E_INVAL);
    names("read_opts");
    FAILS(loam_iter_open(db, NULL, &i.o, &it), LOAM_E_INVAL);
    names("iter_opts");
    w.o.struct_size = r.o.struct_size = i.o.struct_size = SIZE_MAX;
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w.o), LOAM_E_INVAL);
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r.o), LOAM_E_INVAL);
    FAILS(loam_iter_open(db, NULL, &i.o, &it), LOAM_E_INVAL);
    CHECK(it == NULL);
}

Test(api, a_newer_callers_options_are_taken_while_the_new_fields_are_zero)
{
    struct newer {
        loam_options o;
        uint64_t more[4];
    } n = {.o = small_options(disk)};
    n.o.struct_size = sizeof n;
    loam_db *other;
    GOES(loam_open("/other", &n.o, &other));
    GOES(loam_close(other));
    n.more[3] = 1;
    FAILS(loam_open("/other", &n.o, &other), LOAM_E_INVAL);
}

static void refused_ks(loam_ks_options o, const char *field, int code)
{
    loam_ks *ks = (loam_ks *)&o;
    FAILS(loam_ks_open(db, "bad", &o, &ks), code);
    CHECK(ks == NULL);
    names(field);
    loam_options whole = small_options(disk);
    whole.default_ks = &o;
    refused_open(whole, field, code);
}

#define REFUSES_KS(field, value, code)                                                             \
    do {                                                                                           \
        loam_ks_options bad_ = {.struct_size = sizeof bad_};                                       \
        bad_.field = (value);                                                                      \
        refused_ks(bad_, #field, (code));                                                          \
    } while (0)

Test(api, keyspace_options_are_checked)
{
    REFUSES_KS(struct_size, 0, LOAM_E_INVAL);
    REFUSES_KS(struct_size, sizeof(loam_ks_options) - 4, LOAM_E_INVAL);
    REFUSES_KS(compression, LOAM_COMPRESS_ZSTD + 1, LOAM_E_INVAL);
    REFUSES_KS(filter_bits, 33, LOAM_E_INVAL);
    REFUSES_KS(block_bytes, 511, LOAM_E_INVAL);
    REFUSES_KS(block_bytes, 65537, LOAM_E_INVAL);
    REFUSES_KS(reserved_[8], 1, LOAM_E_INVAL);
    const loam_comparator no_name = {.struct_size = sizeof no_name, .compare = never_called};
    REFUSES_KS(comparator, &no_name, LOAM_E_INVAL);
    const loam_comparator no_call = {.struct_size = sizeof no_call, .name = "x"};
    REFUSES_KS(comparator, &no_call, LOAM_E_INVAL);
    const loam_comparator no_size = {.name = "x", .compare = never_called};
    REFUSES_KS(comparator, &no_size, LOAM_E_INVAL);
}

Test(api, keyspace_names_are_checked)
{
    char name[LOAM_MAX_KS_NAME + 2];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    loam_ks *ks;
    FAILS(loam_ks_open(db, NULL, NULL, &ks), LOAM_E_INVAL);
    FAILS(loam_ks_open(db, "", NULL, &ks), LOAM_E_INVAL);
    FAILS(loam_ks_open(db, name, NULL, &ks), LOAM_E_INVAL);
    FAILS(loam_ks_open(db, "a", NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_ks_drop(db, ""), LOAM_E_INVAL);
    FAILS(loam_ks_drop(db, NULL), LOAM_E_INVAL);
    FAILS(loam_ks_drop(db, "none"), LOAM_E_NOENT);
    FAILS(loam_ks_drop(db, "default"), LOAM_E_INVAL);
    FAILS(loam_ks_rename(db, "none", "other"), LOAM_E_NOENT);
    FAILS(loam_ks_rename(db, "default", "other"), LOAM_E_INVAL);
    FAILS(loam_ks_rename(db, NULL, "other"), LOAM_E_INVAL);
    name[LOAM_MAX_KS_NAME] = '\0';
    GOES(loam_ks_open(db, name, NULL, &ks));
    FAILS(loam_ks_rename(db, name, "default"), LOAM_E_EXISTS);
    FAILS(loam_ks_rename(db, name, ""), LOAM_E_INVAL);
    put_text(db, ks, "k", "v");
    GOES(loam_ks_rename(db, name, "short"));
    expect_text(db, ks, "k", "v"); /* open handles stay valid */
    GOES(loam_ks_drop(db, "short"));
    FAILS(loam_put(db, ks, text("k"), text("v"), NULL), LOAM_E_NOENT);
    FAILS(loam_get(db, ks, text("k"), NULL, 0, NULL, NULL), LOAM_E_NOENT);
    loam_ks_release(ks);
}

/* ---- keys, values, buffers ---------------------------------------------------------------------
 */

Test(api, null_and_oversized_slices_are_refused)
{
    static uint8_t big[(1 << 18) + 1];
    const loam_slice null_some = {NULL, 1}, empty = {NULL, 0};
    FAILS(loam_put(db, NULL, null_some, text("v"), NULL), LOAM_E_INVAL);
    FAILS(loam_put(db, NULL, text("k"), null_some, NULL), LOAM_E_INVAL);
    FAILS(loam_delete(db, NULL, null_some, NULL), LOAM_E_INVAL);
    FAILS(loam_get(db, NULL, null_some, NULL, 0, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_put(db, NULL, loam_bytes(big, LOAM_MAX_KEY + 1), text("v"), NULL), LOAM_E_TOOBIG);
    FAILS(loam_delete(db, NULL, loam_bytes(big, LOAM_MAX_KEY + 1), NULL), LOAM_E_TOOBIG);
    FAILS(loam_put(db, NULL, text("k"), loam_bytes(big, sizeof big), NULL), LOAM_E_TOOBIG);
    FAILS(loam_put(db, NULL, text("k"), loam_bytes(big, SIZE_MAX), NULL), LOAM_E_TOOBIG);
    FAILS(loam_put(db, NULL, loam_bytes(big, SIZE_MAX), text("v"), NULL), LOAM_E_TOOBIG);
    expect_none(db, NULL, "k");
    GOES(loam_put(db, NULL, loam_bytes(big, LOAM_MAX_KEY), loam_bytes(big, 1 << 18), NULL));
    GOES(loam_put(db, NULL, empty, empty, NULL));
    size_t n;
    GOES(loam_get(db, NULL, loam_bytes(big, LOAM_MAX_KEY), NULL, 0, &n, NULL));
    CHECK_EQ(n, 1 << 18);
    GOES(loam_get(db, NULL, empty, NULL, 0, &n, NULL));
    CHECK_EQ(n, 0);
    CHECK_EQ(loam_get(db, NULL, loam_bytes(big, LOAM_MAX_KEY + 1), NULL, 0, &n, NULL),
             LOAM_NOTFOUND);
}

Test(api, get_tells_when_the_buffer_is_too_small)
{
    put_text(db, NULL, "k", "0123456789");
    char buf[16] = "................";
    size_t n = 77;
    CHECK_EQ(loam_get(db, NULL, text("k"), buf, 4, &n, NULL), LOAM_TRUNCATED);
    CHECK_EQ(n, 10);
    CHECK_BYTES(buf, 6, "0123..", 6);
    CHECK_EQ(loam_get(db, NULL, text("k"), buf, 4, NULL, NULL), LOAM_TRUNCATED);
    CHECK_EQ(loam_get(db, NULL, text("k"), buf, 0, &n, NULL), LOAM_TRUNCATED);
    GOES(loam_get(db, NULL, text("k"), NULL, 0, &n, NULL));
    GOES(loam_get(db, NULL, text("k"), buf, 10, &n, NULL));
    CHECK_BYTES(buf, n, "0123456789", 10);
    n = 77;
    CHECK_EQ(loam_get(db, NULL, text("none"), buf, sizeof buf, &n, NULL), LOAM_NOTFOUND);
    CHECK_EQ(n, 77);
    FAILS(loam_get(db, NULL, text("k"), NULL, 4, &n, NULL), LOAM_E_INVAL);
    put_text(db, NULL, "empty", "");
    GOES(loam_get(db, NULL, text("empty"), buf, 0, &n, NULL));
    CHECK_EQ(n, 0);
}

Test(api, write_and_read_options_are_checked)
{
    loam_error e = {0};
    loam_write_opts w = {.struct_size = sizeof w, .flags = 0x100, .err = &e};
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w), LOAM_E_INVAL);
    CHECK_EQ(e.code, LOAM_E_INVAL);
    names("write_opts.flags");
    w.flags = LOAM_W_DURABLE | LOAM_W_RELAXED;
    FAILS(loam_delete(db, NULL, text("k"), &w), LOAM_E_INVAL);
    names("write_opts.flags");
    w.flags = 0;
    w.reserved_ = 1;
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w), LOAM_E_INVAL);
    names("write_opts.reserved_");
    w.reserved_ = 0;
    w.struct_size = 8;
    FAILS(loam_put(db, NULL, text("k"), text("v"), &w), LOAM_E_INVAL);
    names("write_opts.struct_size");
    loam_read_opts r = {.struct_size = sizeof r, .flags = 4};
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r), LOAM_E_INVAL);
    names("read_opts.flags");
    r.flags = 0;
    r.reserved_ = 1;
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r), LOAM_E_INVAL);
    names("read_opts.reserved_");
    r.reserved_ = 0;
    r.struct_size = 0;
    FAILS(loam_get(db, NULL, text("k"), NULL, 0, NULL, &r), LOAM_E_INVAL);
    names("read_opts.struct_size");
    loam_iter_opts i = {.struct_size = sizeof i, .flags = 2};
    loam_iter *it = (loam_iter *)&i;
    FAILS(loam_iter_open(db, NULL, &i, &it), LOAM_E_INVAL);
    CHECK(it == NULL);
    names("iter_opts.flags");
    i.flags = 0;
    i.prefix = text("p");
    i.lower = text("l");
    FAILS(loam_iter_open(db, NULL, &i, &it), LOAM_E_INVAL);
    names("prefix");
    i.prefix = loam_bytes(NULL, 3);
    i.lower = loam_bytes(NULL, 0);
    FAILS(loam_iter_open(db, NULL, &i, &it), LOAM_E_INVAL);
    i.struct_size = 1;
    FAILS(loam_iter_open(db, NULL, &i, &it), LOAM_E_INVAL);
    names("iter_opts.struct_size");
    FAILS(loam_iter_open(db, NULL, NULL, NULL), LOAM_E_INVAL);
}

Test(api, null_handles_are_refused)
{
    loam_snap *snap;
    loam_iter *it;
    loam_ks *ks;
    loam_pin pin = LOAM_PIN_INIT;
    loam_stats stats = {.struct_size = sizeof stats};
    loam_hist hist;
    uint64_t number;
    char buf[8];
    loam_batch *b = loam_batch_new(0);
    loam_db *none;
    FAILS(loam_open(NULL, NULL, &none), LOAM_E_INVAL);
    FAILS(loam_open("", NULL, &none), LOAM_E_INVAL);
    FAILS(loam_open("/x", NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_destroy(NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_put(NULL, NULL, text("k"), text("v"), NULL), LOAM_E_INVAL);
    FAILS(loam_delete(NULL, NULL, text("k"), NULL), LOAM_E_INVAL);
    FAILS(loam_write(NULL, b, NULL), LOAM_E_INVAL);
    FAILS(loam_write(db, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_get(NULL, NULL, text("k"), NULL, 0, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_get_pin(NULL, NULL, text("k"), &pin, NULL), LOAM_E_INVAL);
    FAILS(loam_get_pin(db, NULL, text("k"), NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_get_many(db, NULL, NULL, 1, &pin, &(int){0}, NULL), LOAM_E_INVAL);
    GOES(loam_get_many(db, NULL, NULL, 0, NULL, NULL, NULL));
    FAILS(loam_iter_open(NULL, NULL, NULL, &it), LOAM_E_INVAL);
    FAILS(loam_iter_first(NULL), LOAM_E_INVAL);
    FAILS(loam_iter_refresh(NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_scan(db, NULL, NULL, 0, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_snap_take(NULL, &snap), LOAM_E_INVAL);
    FAILS(loam_snap_take(db, NULL), LOAM_E_INVAL);
    FAILS(loam_ks_open(NULL, "a", NULL, &ks), LOAM_E_INVAL);
    FAILS(loam_ks_drop(NULL, "a"), LOAM_E_INVAL);
    FAILS(loam_ks_list(db, NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_flush(NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_compact(NULL, NULL, text(""), text(""), 0), LOAM_E_INVAL);
    FAILS(loam_sync(NULL), LOAM_E_INVAL);
    FAILS(loam_wait_durable(NULL, 1, 0), LOAM_E_INVAL);
    FAILS(loam_wait_idle(NULL, 0), LOAM_E_INVAL);
    FAILS(loam_pause(NULL, 1), LOAM_E_INVAL);
    FAILS(loam_health(NULL, NULL), LOAM_E_INVAL);
    FAILS(loam_resume(NULL), LOAM_E_INVAL);
    FAILS(loam_get_stats(NULL, NULL, &stats), LOAM_E_INVAL);
    FAILS(loam_get_stats(db, NULL, NULL), LOAM_E_INVAL);
    stats.struct_size = 0;
    FAILS(loam_get_stats(db, NULL, &stats), LOAM_E_INVAL);
    FAILS(loam_get_hist(db, -1, &hist), LOAM_E_INVAL);
    FAILS(loam_get_hist(db, LOAM_HIST_COUNT, &hist), LOAM_E_INVAL);
    FAILS(loam_get_hist(db, 0, NULL), LOAM_E_INVAL);
    FAILS(loam_format_stats(db, 2, buf, sizeof buf, NULL), LOAM_E_INVAL);
    FAILS(loam_property(db, NULL, NULL, &number), LOAM_E_INVAL);
    FAILS(loam_property(db, NULL, "no such", &number), LOAM_E_NOENT);
    FAILS(loam_property(db, NULL, "puts", NULL), LOAM_E_INVAL);
    CHECK_EQ(loam_iter_key(NULL).size, 0);
    CHECK_EQ(loam_iter_value(NULL).size, 0);
    CHECK_EQ(loam_iter_seq(NULL), 0);
    CHECK_EQ(loam_snap_seq(NULL), 0);
    CHECK_EQ(loam_durable_seq(NULL), 0);
    CHECK_EQ(strcmp(loam_path(NULL), ""), 0);
    CHECK_EQ(loam_batch_count(NULL), 0);
    CHECK(loam_batch_put(NULL, NULL, text("k"), text("v")) < 0);
    CHECK(loam_batch_reserve(NULL, NULL, text("k"), 1) == NULL);
    loam_iter_close(NULL);
    loam_snap_release(NULL);
    loam_ks_release(NULL);
    loam_unpin(NULL);
    loam_batch_free(NULL);
    loam_batch_clear(NULL);
    loam_vfs_free(NULL);
    GOES(loam_close(NULL));
    loam_batch_free(b);
}

/* ---- batches -----------------------------------------------------------------------------------
 */

Test(api, a_batch_error_sticks_until_cleared_or_rewound)
{
    static uint8_t big[LOAM_MAX_KEY + 1];
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, NULL, text("a"), text("1")));
    size_t mark = loam_batch_mark(b);
    CHECK_EQ(loam_batch_put(b, NULL, loam_bytes(big, sizeof big), text("")), LOAM_E_TOOBIG);
    CHECK_EQ(loam_batch_put(b, NULL, text("b"), text("2")), LOAM_E_TOOBIG);
    CHECK(loam_batch_reserve(b, NULL, text("c"), 4) == NULL);
    FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
    expect_none(db, NULL, "a");
    GOES(loam_batch_rewind(b, mark));
    CHECK_EQ(loam_batch_count(b), 1);
    GOES(loam_write(db, b, NULL));
    expect_text(db, NULL, "a", "1");
    expect_none(db, NULL, "b");
    CHECK_EQ(loam_batch_rewind(b, mark + 1), LOAM_E_INVAL);
    CHECK_EQ(loam_batch_rewind(b, SIZE_MAX), LOAM_E_INVAL);
    CHECK(loam_batch_reserve(b, NULL, text("c"), SIZE_MAX) == NULL);
    FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
    loam_batch_clear(b);
    GOES(loam_write(db, b, NULL));
    GOES(loam_batch_delete(b, NULL, text("a")));
    GOES(loam_write(db, b, NULL));
    expect_none(db, NULL, "a");
    loam_batch_free(b);
    FAILS(loam_batch_put(b, NULL, text("a"), text("1")), LOAM_E_INVAL);
    FAILS(loam_write(db, b, NULL), LOAM_E_INVAL);
    loam_batch_free(b);
}

Test(api, rewinding_forgets_a_value_over_the_limit_and_another_database)
{
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, NULL, text("a"), text("1")));
    size_t mark = loam_batch_mark(b);
    CHECK(loam_batch_reserve(b, NULL, text("big"), (1 << 18) + 1) != NULL);
    FAILS(loam_write(db, b, NULL), LOAM_E_TOOBIG);
    GOES(loam_batch_rewind(b, mark));
    GOES(loam_write(db, b, NULL));
    expect_text(db, NULL, "a", "1");
    loam_db *other = open_small(disk, "/other");
    loam_ks *theirs, *ours;
    GOES(loam_ks_open(other, "s", NULL, &theirs));
    GOES(loam_ks_open(db, "s", NULL, &ours));
    GOES(loam_batch_rewind(b, 0));
    GOES(loam_batch_put(b, theirs, text("a"), text("1")));
    FAILS(loam_write(db, b, NULL), LOAM_E_INVAL);
    CHECK_EQ(loam_batch_put(b, ours, text("a"), text("1")), LOAM_E_INVAL);
    GOES(loam_batch_rewind(b, 0));
    GOES(loam_batch_put(b, ours, text("a"), text("1")));
    GOES(loam_write(db, b, NULL));
    FAILS(loam_put(db, theirs, text("a"), text("1"), NULL), LOAM_E_INVAL);
    loam_snap *snap;
    GOES(loam_snap_take(other, &snap));
    loam_read_opts r = {.struct_size = sizeof r, .snap = snap};
    FAILS(loam_get(db, NULL, text("a"), NULL, 0, NULL, &r), LOAM_E_INVAL);
    loam_snap_release(snap);
    FAILS(loam_get(db, NULL, text("a"), NULL, 0, NULL, &r), LOAM_E_CLOSED);
    loam_ks_release(ours);
    loam_ks_release(theirs);
    GOES(loam_close(other));
    loam_batch_free(b);
}

/* ---- pins, waiting, numbers --------------------------------------------------------------------
 */

Test(api, a_pin_must_be_empty)
{
    put_text(db, NULL, "k", "v");
    loam_pin pin = LOAM_PIN_INIT;
    GOES(loam_get_pin(db, NULL, text("k"), &pin, NULL));
    CHECK_BYTES(pin.value.data, pin.value.size, "v", 1);
    FAILS(loam_get_pin(db, NULL, text("k"), &pin, NULL), LOAM_E_INVAL);
    CHECK_BYTES(pin.value.data, pin.value.size, "v", 1);
    loam_unpin(&pin);
    loam_unpin(&pin);
    CHECK_EQ(loam_get_pin(db, NULL, text("none"), &pin, NULL), LOAM_NOTFOUND);
    CHECK_EQ(pin.opaque_[0], 0);
}

Test(api, wait_durable_ends_by_sync_or_timeout)
{
    uint64_t seq = 0;
    loam_write_opts w = {.struct_size = sizeof w, .seq = &seq};
    GOES(loam_put(db, NULL, text("k"), text("v"), &w));
    CHECK_EQ(loam_wait_durable(db, seq + 1000000, 1000), LOAM_STOPPED);
    GOES(loam_sync(db));
    GOES(loam_wait_durable(db, seq, 0));
    CHECK(loam_durable_seq(db) >= seq);
    w.flags = LOAM_W_DURABLE;
    GOES(loam_put(db, NULL, text("k2"), text("v"), &w));
    CHECK(loam_durable_seq(db) >= seq);
    GOES(loam_put(db, NULL, text("k3"), text("v"), &w));
    GOES(loam_wait_durable(db, seq, UINT64_MAX));
}

/* A write without a log cannot survive what DURABLE says: it is refused, not acknowledged. */
Test(api, durable_write_without_a_log_is_refused)
{
    loam_options o = small_options(disk);
    loam_db *unlogged;
    o.durability = LOAM_DUR_MEMORY;
    GOES(loam_open("/unlogged", &o, &unlogged));
    loam_write_opts w = {.struct_size = sizeof w, .flags = LOAM_W_DURABLE};
    FAILS(loam_put(unlogged, NULL, text("k"), text("v"), &w), LOAM_E_UNSUPPORTED);
    FAILS(loam_delete(unlogged, NULL, text("k"), &w), LOAM_E_UNSUPPORTED);
    loam_batch *b = loam_batch_new(0);
    GOES(loam_batch_put(b, NULL, text("k"), text("v")));
    FAILS(loam_write(unlogged, b, &w), LOAM_E_UNSUPPORTED);
    CHECK_EQ(loam_last_error()->flags & LOAM_ERR_UNKNOWN, 0);
    expect_none(unlogged, NULL, "k");
    w.flags = LOAM_W_RELAXED;
    GOES(loam_write(unlogged, b, &w));
    expect_text(unlogged, NULL, "k", "v");
    loam_batch_free(b);
    GOES(loam_close(unlogged));
}

Test(api, nowait_and_deadline_give_busy_instead_of_waiting)
{
    static uint8_t value[64 * 1024];
    uint64_t refused = 0;
    loam_write_opts w = {.struct_size = sizeof w, .flags = LOAM_W_NOWAIT};
    for (int i = 0; i < 400; i++) {
        int rc = loam_put(db, NULL, loam_bytes(&i, sizeof i), loam_bytes(value, sizeof value), &w);
        CHECK(rc == LOAM_OK || rc == LOAM_E_BUSY);
        refused += rc == LOAM_E_BUSY;
        CHECK_EQ(loam_get(db, NULL, loam_bytes(&i, sizeof i), NULL, 0, NULL, NULL),
                 rc == LOAM_OK ? LOAM_OK : LOAM_NOTFOUND);
    }
    CHECK(refused != 0); /* 25 MiB at once into a database of 1 MiB */
    w.flags = 0;
    w.deadline_us = 1;
    for (int i = 0; i < 400; i++) {
        int rc = loam_put(db, NULL, text("d"), loam_bytes(value, sizeof value), &w);
        CHECK(rc == LOAM_OK || rc == LOAM_E_BUSY);
    }
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK(s.busy_writes >= refused);
}

static int stop_at_once(void *ctx, loam_slice name)
{
    (void)name;
    ++*(int *)ctx;
    return 1;
}

static int take_one(void *ctx, loam_slice key, loam_slice value)
{
    (void)key, (void)value;
    return ++*(int *)ctx == 1;
}

Test(api, callbacks_and_limits_stop)
{
    put_text(db, NULL, "a", "1");
    put_text(db, NULL, "b", "2");
    int n = 0;
    CHECK_EQ(loam_ks_list(db, stop_at_once, &n), LOAM_STOPPED);
    CHECK_EQ(n, 1);
    n = 0;
    CHECK_EQ(loam_scan(db, NULL, NULL, 0, take_one, &n), LOAM_STOPPED);
    CHECK_EQ(n, 1);
    n = 1; /* counts up, never 1 again */
    CHECK_EQ(loam_scan(db, NULL, NULL, 1, take_one, &n), LOAM_STOPPED);
    CHECK_EQ(n, 2);
    GOES(loam_scan(db, NULL, NULL, 3, take_one, &n));
    CHECK_EQ(n, 4);
}

Test(api, blocks_that_iterators_read_are_counted)
{
    put_text(db, NULL, "a", "1");
    GOES(loam_flush(db, NULL));
    loam_stats before = {.struct_size = sizeof before}, after = {.struct_size = sizeof after};
    GOES(loam_get_stats(db, NULL, &before));
    for (int i = 0; i < 3; i++) {
        loam_iter *it;
        GOES(loam_iter_open(db, NULL, NULL, &it));
        GOES(loam_iter_seek(it, text("a")));
        CHECK_EQ(loam_iter_next(it), LOAM_NOTFOUND);
        loam_iter_close(it);
    }
    GOES(loam_get_stats(db, NULL, &after));
    CHECK_EQ(after.cache_hits + after.cache_misses, before.cache_hits + before.cache_misses + 3);
    CHECK_EQ(after.nexts, before.nexts + 3);
}

Test(api, statistics_can_be_had_in_every_form)
{
    put_text(db, NULL, "a", "1");
    expect_text(db, NULL, "a", "1");
    loam_stats s = {.struct_size = sizeof s};
    GOES(loam_get_stats(db, NULL, &s));
    CHECK_EQ(s.puts, 1);
    CHECK_EQ(s.gets, 1);
    CHECK_EQ(s.memory_budget, 1 << 20);
    uint64_t v = 0;
    GOES(loam_property(db, NULL, "puts", &v));
    CHECK_EQ(v, 1);
    static const char *const names[] = {
        "levels",          "level.0.files",       "level.6.bytes",    "memtables",
        "pending_flushes", "running_compactions", "sealed_memtables", "last_seq"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        GOES(loam_property(db, NULL, names[i], &v));
    }
    FAILS(loam_property(db, NULL, "level.99.files", &v), LOAM_E_NOENT);
    FAILS(loam_property(db, NULL, "level..files", &v), LOAM_E_NOENT);
    for (int format = LOAM_TEXT; format <= LOAM_JSON; format++) {
        size_t need = 0;
        char small[10];
        CHECK_EQ(loam_format_stats(db, format, small, sizeof small, &need), LOAM_TRUNCATED);
        CHECK_EQ(small[9], '\0');
        CHECK(need > 10);
        char *all = malloc(need + 1000);
        GOES(loam_format_stats(db, format, all, need + 1000, &need));
        CHECK_EQ(strlen(all), need);
        free(all);
    }
    loam_hist h;
    for (int i = 0; i < LOAM_HIST_COUNT; i++) {
        GOES(loam_get_hist(db, i, &h));
    }
    CHECK_EQ(loam_health(db, NULL), LOAM_HEALTHY);
    GOES(loam_resume(db));
}

Test(api, every_code_has_a_text)
{
#define HAS_TEXT(name, number, words)                                                              \
    CHECK_EQ(LOAM_##name, number);                                                                 \
    CHECK(strstr(loam_strerror(number), words) != NULL);
    LOAM_STATUS_MAP(HAS_TEXT)
    CHECK(loam_strerror(-1000) != NULL);
    CHECK_EQ(loam_version(), 0x000100);
    CHECK(strstr(loam_build_info(), "loam") != NULL);
}
