/* bench_usage.c - What this process takes: processor time, memory, bytes written, room on disk.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_usage.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* The number after `name` at the beginning of a line of a file in /proc. */
static bool proc_number(const char *path, const char *name, uint64_t *out)
{
    FILE *f = fopen(path, "r");
    char line[256];
    unsigned long long value = 0;
    bool found = false;
    while (!found && f != NULL && fgets(line, sizeof(line), f) != NULL) {
        found = strncmp(line, name, strlen(name)) == 0 &&
                sscanf(line + strlen(name), "%llu", &value) == 1;
    }
    if (f != NULL) {
        fclose(f);
    }
    *out = value;
    return found;
}

static double seconds(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

void bench_usage_now(struct bench_usage *u)
{
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    u->cpu_seconds = seconds(r.ru_utime) + seconds(r.ru_stime);
    u->bytes_known = proc_number("/proc/self/io", "write_bytes:", &u->bytes_written);
}

void bench_rss_reset(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f != NULL) {
        fputs("5", f);
        fclose(f);
    }
}

uint64_t bench_rss_peak(void)
{
    uint64_t kib;
    proc_number("/proc/self/status", "VmHWM:", &kib);
    return kib * 1024;
}

uint64_t bench_rss_now(void)
{
    uint64_t kib;
    proc_number("/proc/self/status", "VmRSS:", &kib);
    return kib * 1024;
}

unsigned bench_threads_now(void)
{
    uint64_t n;
    proc_number("/proc/self/status", "Threads:", &n);
    return (unsigned)n;
}

uint64_t bench_disk_bytes(const char *dir)
{
    DIR *d = opendir(dir);
    uint64_t sum = 0;
    struct dirent *entry;
    while (d != NULL && (entry = readdir(d)) != NULL) {
        char path[4096];
        struct stat st;
        int n = snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || n < 0 ||
            (size_t)n >= sizeof(path) || lstat(path, &st) != 0) {
            continue;
        }
        /* Blocks, not sizes: some files are made long ahead and stay full of holes. */
        sum += S_ISDIR(st.st_mode) ? bench_disk_bytes(path) : (uint64_t)st.st_blocks * 512;
    }
    if (d != NULL) {
        closedir(d);
    }
    return sum;
}
