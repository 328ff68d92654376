/* cli.c - What the commands of the tool `loam` share: options, opening, bytes as text, errors.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/cli.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- errors ---------------------------------------------------------------------------------- */

static void complain(const char *fmt, va_list args)
{
    fflush(stdout);
    fprintf(stderr, "loam: ");
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
}

int cli_usage(const struct cli *c, const char *fmt, ...)
{
    char text[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fprintf(stderr, "loam: %s (try 'loam %s%s--help')\n", text,
            c->command != NULL ? c->command : "", c->command != NULL ? " " : "");
    return CLI_USAGE;
}

int cli_error(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    complain(fmt, args);
    va_end(args);
    return CLI_ERROR;
}

int cli_failed(int rc, const char *what)
{
    if (rc == LOAM_NOTFOUND) {
        return CLI_NOTFOUND;
    }
    if (rc > 0) {
        return cli_error("%s: %s", what, loam_strerror(rc));
    }
    const loam_error *e = loam_last_error();
    const char *message = e->code == rc && e->message[0] != '\0' ? e->message : loam_strerror(rc);
    if (e->code == rc && e->file_id != 0) {
        cli_error("%s: %s (file %" PRIu64 ", offset %" PRIu64 ")", what, message, e->file_id,
                  e->offset);
    } else {
        cli_error("%s: %s", what, message);
    }
    return rc == LOAM_E_CORRUPT ? CLI_CORRUPT : CLI_ERROR;
}

/* ---- databases ------------------------------------------------------------------------------- */

static int is_name(void *ctx, loam_slice name)
{
    const char *wanted = ctx;
    return name.size == strlen(wanted) && memcmp(name.data, wanted, name.size) == 0;
}

/* Opening a keyspace makes it, which a mistyped name must not. */
static int open_ks(const struct cli *c, enum cli_mode mode, struct cli_db *d)
{
    char name[LOAM_MAX_KS_NAME + 1];
    snprintf(name, sizeof(name), "%s", c->ks);
    if (mode != CLI_CREATE) {
        int rc = loam_ks_list(d->db, is_name, name);
        if (rc != LOAM_STOPPED) {
            return rc < 0 ? cli_failed(rc, c->ks) : cli_error("%s: no such keyspace", c->ks);
        }
    }
    int rc = loam_ks_open(d->db, c->ks, NULL, &d->ks);
    return rc == LOAM_OK ? CLI_OK : cli_failed(rc, c->ks);
}

int cli_open(const struct cli *c, enum cli_mode mode, struct cli_db *d)
{
    *d = (struct cli_db){NULL, NULL};
    loam_options o = {.struct_size = sizeof(o)};
    if (mode == CLI_READ) {
        o.flags = LOAM_OPEN_READONLY | LOAM_OPEN_MUST_EXIST;
    } else if (mode == CLI_WRITE) {
        o.flags = LOAM_OPEN_MUST_EXIST;
    }
    int rc = loam_open(c->db, &o, &d->db);
    if (rc == LOAM_E_NOENT && mode == CLI_WRITE && strcmp(c->command, "put") == 0) {
        return cli_error("%s: no database here; put --create makes one", c->db);
    }
    if (rc != LOAM_OK) {
        return cli_failed(rc, c->db);
    }
    if (c->ks == NULL || strcmp(c->ks, "default") == 0) {
        return CLI_OK;
    }
    int status = open_ks(c, mode, d);
    return status == CLI_OK ? CLI_OK : cli_close(d, status);
}

int cli_close(struct cli_db *d, int status)
{
    loam_ks_release(d->ks);
    int rc = loam_close(d->db);
    *d = (struct cli_db){NULL, NULL};
    return rc < 0 && status == CLI_OK ? cli_failed(rc, "close") : status;
}

/* ---- bytes ----------------------------------------------------------------------------------- */

static int hex_digit(char ch)
{
    if (ch >= '0' && ch <= '9') {
        return ch - '0';
    }
    int low = ch | 0x20;
    return low >= 'a' && low <= 'f' ? low - 'a' + 10 : -1;
}

static bool decode_hex(const char *text, uint8_t *out)
{
    for (size_t i = 0; text[2 * i] != '\0'; i++) {
        int high = hex_digit(text[2 * i]), low = hex_digit(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

bool cli_bytes_of(const char *text, bool hex, struct cli_bytes *b)
{
    size_t n = strlen(text);
    b->data = malloc(n + 1);
    b->size = hex ? n / 2 : n;
    if (b->data == NULL) {
        return false;
    }
    if (!hex) {
        memcpy(b->data, text, n);
    } else if (n % 2 != 0 || !decode_hex(text, b->data)) {
        free(b->data);
        b->data = NULL;
        return false;
    }
    return true;
}

static int bound_of(const struct cli *c, const char *text, struct cli_bytes *b, loam_slice *s)
{
    if (text == NULL) {
        return CLI_OK;
    }
    if (!cli_bytes_of(text, c->hex, b)) {
        return cli_usage(c, "'%s' is not hexadecimal", text);
    }
    *s = loam_bytes(b->data, b->size);
    return CLI_OK;
}

int cli_range_of(const struct cli *c, struct cli_range *r, loam_iter_opts *o)
{
    memset(r, 0, sizeof(*r));
    memset(o, 0, sizeof(*o));
    o->struct_size = sizeof(*o);
    if (c->prefix != NULL && (c->from != NULL || c->to != NULL)) {
        return cli_usage(c, "--prefix does not go with --from or --to");
    }
    int rc = bound_of(c, c->from, &r->from, &o->lower);
    rc = rc != CLI_OK ? rc : bound_of(c, c->to, &r->to, &o->upper);
    rc = rc != CLI_OK ? rc : bound_of(c, c->prefix, &r->prefix, &o->prefix);
    if (rc != CLI_OK) {
        cli_range_free(r);
    }
    return rc;
}

void cli_range_free(struct cli_range *r)
{
    free(r->from.data);
    free(r->to.data);
    free(r->prefix.data);
    memset(r, 0, sizeof(*r));
}

void cli_write_bytes(FILE *out, loam_slice s, bool hex)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = s.data;
    for (size_t i = 0; i < s.size; i++) {
        if (hex) {
            putc_unlocked(digits[p[i] >> 4], out);
            putc_unlocked(digits[p[i] & 15], out);
        } else if (p[i] >= 0x20 && p[i] < 0x7f && p[i] != '\\') {
            putc_unlocked(p[i], out);
        } else {
            /* The backslash too: LMDB 0.9.24 loads \5c, but spoils a doubled one. */
            putc_unlocked('\\', out);
            putc_unlocked(digits[p[i] >> 4], out);
            putc_unlocked(digits[p[i] & 15], out);
        }
    }
}

static json_t *hex_json(loam_slice s)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = s.data;
    char *text = malloc(2 * s.size + 1);
    if (text == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < s.size; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    json_t *value = json_stringn(text, 2 * s.size);
    free(text);
    return value;
}

void cli_json_bytes(json_t *object, const char *name, loam_slice s, bool hex)
{
    json_t *text = hex ? NULL : json_stringn(s.size != 0 ? s.data : "", s.size);
    if (text != NULL) {
        json_object_set_new(object, name, text);
        return;
    }
    char name_hex[64];
    snprintf(name_hex, sizeof(name_hex), "%s_hex", name);
    json_object_set_new(object, name_hex, hex_json(s));
}

void cli_json_text(json_t *object, const char *name, const char *text)
{
    cli_json_bytes(object, name, loam_bytes(text, strlen(text)), false);
}

void cli_json_line(json_t *object)
{
    json_dumpf(object, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(object);
}

/* ---- progress -------------------------------------------------------------------------------- */

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void cli_progress_start(struct cli_progress *p, const char *what)
{
    *p = (struct cli_progress){.what = what, .start_ns = now_ns()};
    p->next_ns = p->start_ns + 500000000u;
    p->active = isatty(STDERR_FILENO) != 0;
}

void cli_progress_show(struct cli_progress *p, uint64_t entries, uint64_t bytes)
{
    uint64_t now = now_ns();
    if (!p->active || now < p->next_ns) {
        return;
    }
    p->next_ns = now + 200000000u;
    p->shown = true;
    double seconds = (double)(now - p->start_ns) * 1e-9;
    fprintf(stderr, "\r%s %" PRIu64 "  %.0f MB  %.0fk/s ", p->what, entries,
            (double)bytes / 1048576, (double)entries / seconds * 1e-3);
    fflush(stderr);
}

void cli_progress_end(struct cli_progress *p)
{
    if (p->shown) {
        fprintf(stderr, "\r%60s\r", "");
    }
}
