/* bench_engine.c - The engines that are built in, found by name.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_engine.h"

#include <stdarg.h>
#include <string.h>

static const struct {
    const char *name;
    const struct bench_engine *engine; /* NULL: not built */
} engines[] = {
    {"loam", &bench_engine_loam},
#ifdef HAVE_LEVELDB
    {"leveldb", &bench_engine_leveldb},
#else
    {"leveldb", NULL},
#endif
#ifdef HAVE_ROCKSDB
    {"rocksdb", &bench_engine_rocksdb},
#else
    {"rocksdb", NULL},
#endif
#ifdef HAVE_LMDB
    {"lmdb", &bench_engine_lmdb},
#else
    {"lmdb", NULL},
#endif
};

static _Thread_local char last_error[256];

const struct bench_engine *bench_engine_find(const char *name, bool *known)
{
    for (size_t i = 0; i < sizeof(engines) / sizeof(engines[0]); i++) {
        if (strcmp(name, engines[i].name) == 0) {
            *known = true;
            return engines[i].engine;
        }
    }
    *known = false;
    return NULL;
}

double bench_written_per_byte(const struct bench_counters *before, const struct bench_counters *after,
                              uint64_t put_bytes)
{
    double written = (double)(after->bytes_written - before->bytes_written) / (double)put_bytes;
    return written + (after->log_included ? 0 : 1);
}

int bench_engine_fail(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(last_error, sizeof(last_error), fmt, args);
    va_end(args);
    return BENCH_ERROR;
}

const char *bench_engine_error(void)
{
    return last_error;
}
