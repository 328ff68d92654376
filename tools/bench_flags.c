/* bench_flags.c - The command line of loam-bench: struct, defaults, parser, help from one table.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_flags.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_suite.h"

enum flag_type { FLAG_BOOL, FLAG_COUNT, FLAG_SIZE, FLAG_REAL, FLAG_TEXT, FLAG_GROUP };

struct flag {
    const char *name; /* or the title of a group */
    const char *help;
    enum flag_type type;
    size_t offset; /* in struct bench_flags */
};

static const struct flag flags[] = {
#define GROUP(title)                {title, "", FLAG_GROUP, 0},
#define FLAG(type, name, def, help) {#name, help, FLAG_##type, offsetof(struct bench_flags, name)},
    BENCH_FLAGS_MAP(GROUP, FLAG)};
#undef GROUP
#undef FLAG

enum { FLAG_TOTAL = sizeof(flags) / sizeof(flags[0]) };

static void set_defaults(struct bench_flags *f)
{
    memset(f, 0, sizeof(*f));
#define GROUP(title)
#define FLAG(type, name, def, help) f->name = def;
    BENCH_FLAGS_MAP(GROUP, FLAG)
#undef GROUP
#undef FLAG
}

static int usage(const char *what, const char *flag, const char *value)
{
    if (value != NULL) {
        fprintf(stderr, "loam-bench: %s '%s' for --%s\n", what, value, flag);
    } else {
        fprintf(stderr, "loam-bench: %s '%s' (--help lists the flags)\n", what, flag);
    }
    return 2;
}

/* ---- values ---------------------------------------------------------------------------------- */

static bool parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"1", "true", "yes", "t", "y"};
    static const char *const no[] = {"0", "false", "no", "f", "n"};
    for (size_t i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

/* A whole number with an optional K, M or G of the given base. */
static bool parse_int(const char *text, int64_t base, int64_t *out)
{
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || errno != 0) {
        return false;
    }
    static const char suffixes[] = "KMGT";
    const char *suffix = *end != '\0' ? strchr(suffixes, *end & ~0x20) : NULL;
    int64_t result = value;
    if (suffix != NULL) {
        for (const char *s = suffixes; s <= suffix; s++) {
            if (__builtin_mul_overflow(result, base, &result)) {
                return false;
            }
        }
        end++;
    }
    *out = result;
    return *end == '\0';
}

static bool parse_real(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && *out >= 0;
}

static bool set_value(struct bench_flags *f, const struct flag *flag, const char *text)
{
    void *field = (char *)f + flag->offset;
    switch (flag->type) {
    case FLAG_BOOL:
        return parse_bool(text, field);
    case FLAG_COUNT:
        return parse_int(text, 1000, field);
    case FLAG_SIZE:
        return parse_int(text, 1024, field);
    case FLAG_REAL:
        return parse_real(text, field);
    case FLAG_TEXT:
        *(const char **)field = text;
        return true;
    case FLAG_GROUP:
        break;
    }
    return false;
}

/* ---- the parser ------------------------------------------------------------------------------ */

/* What a long option stands for: val = kind << 16 | index into that kind's table. */
enum option_kind {
    OPT_FLAG = 1,
    OPT_NO_FLAG,
    OPT_IGNORED_VALUED,
    OPT_IGNORED_BOOL,
    OPT_NO_IGNORED
};

static int option_val(enum option_kind kind, size_t index)
{
    return (int)((unsigned)kind << 16 | (unsigned)index);
}

static size_t count_names(const char *const *names)
{
    size_t n = 0;
    while (names[n] != NULL) {
        n++;
    }
    return n;
}

static const char *negated(const char *name)
{
    size_t n = strlen(name) + 3;
    char *text = malloc(n);
    if (text != NULL) {
        snprintf(text, n, "no%s", name);
    }
    return text;
}

static size_t add_option(struct option *o, size_t n, const char *name, int has_arg, int val)
{
    o[n] = (struct option){name, has_arg, NULL, val};
    return n + 1;
}

/* The table getopt wants, ended by a zero entry; to be freed with free_options(). */
static struct option *build_options(void)
{
    size_t valued = count_names(bench_flags_ignored_valued);
    size_t bools = count_names(bench_flags_ignored_bool), n = 0;
    struct option *o = calloc(2 * FLAG_TOTAL + valued + 2 * bools + 1, sizeof(*o));
    if (o == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < FLAG_TOTAL; i++) {
        if (flags[i].type == FLAG_BOOL) {
            n = add_option(o, n, flags[i].name, optional_argument, option_val(OPT_FLAG, i));
            n = add_option(o, n, negated(flags[i].name), no_argument, option_val(OPT_NO_FLAG, i));
        } else if (flags[i].type != FLAG_GROUP) {
            n = add_option(o, n, flags[i].name, required_argument, option_val(OPT_FLAG, i));
        }
    }
    for (size_t i = 0; i < valued; i++) {
        n = add_option(o, n, bench_flags_ignored_valued[i], required_argument,
                       option_val(OPT_IGNORED_VALUED, i));
    }
    for (size_t i = 0; i < bools; i++) {
        const char *name = bench_flags_ignored_bool[i];
        n = add_option(o, n, name, optional_argument, option_val(OPT_IGNORED_BOOL, i));
        n = add_option(o, n, negated(name), no_argument, option_val(OPT_NO_IGNORED, i));
    }
    return o;
}

static void free_options(struct option *o)
{
    for (size_t i = 0; o != NULL && o[i].name != NULL; i++) {
        int kind = o[i].val >> 16;
        if (kind == OPT_NO_FLAG || kind == OPT_NO_IGNORED) {
            /* negated() made the name */
            union {
                const char *in;
                void *out;
            } cast = {.in = o[i].name};
            free(cast.out);
        }
    }
    free(o);
}

/* getopt takes any unambiguous beginning of a name; a benchmark must not guess. */
static bool is_whole_name(const char *arg, const char *name)
{
    arg += strspn(arg, "-");
    size_t n = strcspn(arg, "=");
    return strlen(name) == n && strncmp(arg, name, n) == 0;
}

static int take_ignored(struct bench_flags *f, const char *name)
{
    if (f->strict || strcmp(f->compat, "rocksdb") != 0) {
        return usage("flag without a meaning here", name, NULL);
    }
    fprintf(stderr, "ignored: --%s\n", name);
    return 0;
}

static int take_flag(struct bench_flags *f, const struct flag *flag, int argc, char **argv)
{
    const char *text = optarg;
    bool unused;
    if (flag->type == FLAG_BOOL && text == NULL) {
        /* `--histogram 1`, which gflags would not take, is what people mean. */
        text = optind < argc && parse_bool(argv[optind], &unused) ? argv[optind++] : "1";
    }
    f->write_buffer_given |= flag->offset == offsetof(struct bench_flags, write_buffer_size);
    f->cache_given |= flag->offset == offsetof(struct bench_flags, cache_size);
    return set_value(f, flag, text) ? 0 : usage("bad value", flag->name, text);
}

static int take_option(struct bench_flags *f, int val, int argc, char **argv)
{
    size_t index = (size_t)val & 0xffff;
    switch ((enum option_kind)(val >> 16)) {
    case OPT_FLAG:
        return take_flag(f, &flags[index], argc, argv);
    case OPT_NO_FLAG:
        return set_value(f, &flags[index], "0") ? 0 : 2;
    case OPT_IGNORED_VALUED:
        return take_ignored(f, bench_flags_ignored_valued[index]);
    case OPT_IGNORED_BOOL:
    case OPT_NO_IGNORED:
        return take_ignored(f, bench_flags_ignored_bool[index]);
    }
    return 2;
}

static bool is_one_of(const char *text, const char *list)
{
    size_t n = strlen(text);
    for (const char *at = list; (at = strstr(at, text)) != NULL; at++) {
        if ((at == list || at[-1] == '|') && (at[n] == '|' || at[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static int check_values(struct bench_flags *f)
{
    const struct {
        const char *flag, *value, *allowed;
    } texts[] = {{"key_format", f->key_format, "leveldb|rocksdb"},
                 {"progress", f->progress, "|none|line|bar|json"},
                 {"compat", f->compat, "rocksdb|none"},
                 {"value_size_distribution_type", f->value_size_distribution_type, "fixed|uniform"},
                 {"compression_type", f->compression_type, "none|lz4|snappy|zstd"}};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].value[0] != '\0' && !is_one_of(texts[i].value, texts[i].allowed)) {
            return usage("bad value", texts[i].flag, texts[i].value);
        }
    }
    const struct {
        const char *flag;
        int64_t value, lo, hi;
    } ints[] = {{"num", f->num, 1, INT64_C(1) << 40},
                {"threads", f->threads, 1, 1024},
                {"writers", f->writers, 1, 1024},
                {"rounds", f->rounds, 1, 1000},
                {"key_size", f->key_size, 1, 4096},
                {"key_prefix", f->key_prefix, 0, 4096},
                {"value_size", f->value_size, 0, 256 << 20},
                {"value_size_min", f->value_size_min, 0, f->value_size_max},
                {"value_size_max", f->value_size_max, 0, 256 << 20},
                {"batch_size", f->batch_size, 1, 1000000},
                {"seek_nexts", f->seek_nexts, 0, INT64_C(1) << 40},
                {"readwritepercent", f->readwritepercent, 0, 100},
                {"block_size", f->block_size, 512, 65536},
                {"bloom_bits", f->bloom_bits, -1, 32},
                {"ops_between_duration_checks", f->ops_between_duration_checks, 1, 1000000000}};
    for (size_t i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        if (ints[i].value < ints[i].lo || ints[i].value > ints[i].hi) {
            char text[32];
            snprintf(text, sizeof(text), "%" PRId64, ints[i].value);
            return usage("value out of range", ints[i].flag, text);
        }
    }
    return 0;
}

static int parse_all(struct bench_flags *f, int argc, char **argv, const struct option *options)
{
    for (;;) {
        const char *arg = optind < argc ? argv[optind] : "";
        int longindex = 0;
        int val = getopt_long_only(argc, argv, "+:", options, &longindex);
        if (val == -1) {
            break;
        }
        if (val == ':') {
            return usage("no value given for flag", arg, NULL);
        }
        if (val == '?' || !is_whole_name(arg, options[longindex].name)) {
            return usage("unknown flag", arg, NULL);
        }
        int rc = take_option(f, val, argc, argv);
        if (rc != 0) {
            return rc;
        }
    }
    return optind < argc ? usage("not a flag:", argv[optind], NULL) : 0;
}

/* The value of the last --suite, in any of its forms; NULL: not given. */
static const char *suite_named(int argc, char **argv)
{
    const char *name = NULL;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i] + strspn(argv[i], "-");
        if (arg != argv[i] && strncmp(arg, "suite=", 6) == 0) {
            name = arg + 6;
        } else if (arg != argv[i] && strcmp(arg, "suite") == 0 && i + 1 < argc) {
            name = argv[++i];
        }
    }
    return name;
}

int bench_flags_parse(struct bench_flags *f, int argc, char **argv)
{
    set_defaults(f);
    struct option *options = build_options();
    if (options == NULL) {
        fprintf(stderr, "loam-bench: out of memory\n");
        return 2;
    }
    opterr = 0;
    /* Before the others: it changes their defaults. */
    const char *name = suite_named(argc, argv);
    const struct bench_suite *suite = name != NULL ? bench_suite_find(name) : NULL;
    if (suite != NULL) {
        bench_suite_defaults(suite, f);
    } else if (name != NULL && name[0] != '\0') {
        free_options(options);
        return usage("bad value", "suite", name);
    }
    /* Before the others: it judges flags on either side of itself. */
    for (int i = 1; i < argc; i++) {
        f->strict |= strcmp(argv[i], "--strict") == 0 || strcmp(argv[i], "-strict") == 0;
    }
    int rc = parse_all(f, argc, argv, options);
    free_options(options);
    if (rc != 0) {
        return rc;
    }
    if (!f->compression) {
        f->compression_type = "none";
    }
    f->seed = f->seed == 0 ? 301 : f->seed;
    return check_values(f);
}

/* ---- help ------------------------------------------------------------------------------------ */

static void print_default(FILE *out, const struct bench_flags *f, const struct flag *flag)
{
    const void *field = (const char *)f + flag->offset;
    switch (flag->type) {
    case FLAG_BOOL:
        fprintf(out, "%s", *(const bool *)field ? " [on]" : "");
        break;
    case FLAG_COUNT:
        fprintf(out, " [%" PRId64 "]", *(const int64_t *)field);
        break;
    case FLAG_SIZE:
        if (*(const int64_t *)field >= 1 << 20) {
            fprintf(out, " [%" PRId64 "M]", *(const int64_t *)field >> 20);
        } else {
            fprintf(out, " [%" PRId64 "]", *(const int64_t *)field);
        }
        break;
    case FLAG_REAL:
        fprintf(out, " [%g]", *(const double *)field);
        break;
    case FLAG_TEXT:
        if (**(const char *const *)field != '\0' && strlen(*(const char *const *)field) < 20) {
            fprintf(out, " [%s]", *(const char *const *)field);
        }
        break;
    case FLAG_GROUP:
        break;
    }
}

static const char help_head[] =
    "loam-bench - measures loam and other key-value stores the way db_bench does\n"
    "\n"
    "  loam-bench --benchmarks=fillrandom,readrandom --num=1000000\n"
    "  loam-bench --benchmarks=ycsbload,ycsba,ycsbc --value_size=1000 --histogram\n"
    "  loam-bench --suite=quick                          # beside the peers that are built in\n"
    "  loam-bench --benchmarks=fillseq,readseq --engine=loam,lmdb --rounds=3  # ends with ratios\n"
    "  loam-bench --benchmarks='fillrandom,readrandom[X5-W1]' --threads=2 --json=run.json\n"
    "  loam-bench --benchmarks=readwhilewriting --use_existing_db --duration=30\n"
    "\n"
    "A line reads `name : A micros/op B ops/sec C seconds D operations; E MB/s (found)`: A is the\n"
    "time of all threads together for one operation, B counts by the clock on the wall.\n"
    "\n"
    "Benchmarks\n"
    "  fill, on a fresh database   fillseq fillrandom filluniquerandom fillbatch fillsync\n"
    "                              fill100K ycsbload\n"
    "  write                       overwrite updaterandom deleteseq deleterandom\n"
    "  read                        readrandom readmissing readhot readrandomsmall multireadrandom\n"
    "                              readseq readreverse seekrandom seekordered newiterator\n"
    "                              seekdeleted: to the --deletes keys that deleteseq deleted\n"
    "  both at once                readwhilewriting readwhilescanning seekrandomwhilewriting\n"
    "                              readrandomwriterandom\n"
    "  YCSB, Zipf 0.99             ycsba ycsbb ycsbc ycsbd ycsbe ycsbf\n"
    "  block cache, beside an LRU  cachezipf cacheuniform cachescan cacheshift, after\n"
    "                              filluniquerandom,compact\n"
    "  keeping house               flush compact compactall waitforcompaction open recover\n"
    "                              verifychecksum stats levelstats memstats resetstats sstables\n"
    "  parts                       memtable xxh3 lz4comp lz4uncomp\n"
    "  the machine alone           pauses: what it takes from threads that never wait (with\n"
    "                              --duration, --threads and --histogram)\n";

void bench_flags_help(FILE *out)
{
    struct bench_flags defaults;
    set_defaults(&defaults);
    fputs(help_head, out);
    fputs("\nSuites (--suite=NAME)\n", out);
    bench_suites_help(out);
    for (size_t i = 0; i < FLAG_TOTAL; i++) {
        if (flags[i].type == FLAG_GROUP) {
            fprintf(out, "\n%s\n", flags[i].name);
            continue;
        }
        int width = fprintf(out, "  --%s", flags[i].name);
        if (flags[i].type != FLAG_BOOL) {
            width += fprintf(out, "=%s", flags[i].type == FLAG_TEXT ? "..." : "N");
        }
        fprintf(out, "%*s %s", width < 30 ? 30 - width : 0, "", flags[i].help);
        print_default(out, &defaults, &flags[i]);
        fputc('\n', out);
    }
    fputs("\nBooleans: --f, --nof, --f=0. Counts take K M G of 1000, sizes K M G of 1024.\n"
          "Exit status: 0 done, 1 a benchmark failed or is unknown, 2 usage.\n",
          out);
}
