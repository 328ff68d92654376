/* crash_case.c - Saves and loads a crash state with its promise.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/crash_case.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tools/crash_workload.h"

#define PATH_CAP 4096
#define HEAD     "loam-crash case, version 1\n"

/* ---- files ------------------------------------------------------------------------------------- */

struct copying {
    const loam_vfs *from, *to;
    char from_dir[PATH_CAP], to_dir[PATH_CAP];
    int rc; /* the first error: -errno */
};

static int64_t copy_bytes(struct copying *c, loam_file *in, loam_file *out)
{
    uint8_t page[4096];
    int64_t n;
    uint64_t at = 0;
    while ((n = c->from->read(c->from->ctx, in, page, sizeof page, at)) > 0) {
        for (int64_t done = 0; done < n;) {
            int64_t put =
                c->to->write(c->to->ctx, out, page + done, (size_t)(n - done), at + (uint64_t)done);
            if (put <= 0) {
                return put < 0 ? put : -EIO;
            }
            done += put;
        }
        at += (uint64_t)n;
    }
    return n;
}

static int copy_file(void *ctx, loam_slice name)
{
    struct copying *c = ctx;
    char from[PATH_CAP + 256], to[PATH_CAP + 256];
    loam_file *in = NULL, *out = NULL;
    snprintf(from, sizeof from, "%s/%.*s", c->from_dir, (int)name.size, (const char *)name.data);
    snprintf(to, sizeof to, "%s/%.*s", c->to_dir, (int)name.size, (const char *)name.data);
    int rc = c->from->open(c->from->ctx, from, LOAM_VFS_READ, &in);
    rc = rc >= 0 ? c->to->open(c->to->ctx, to,
                               LOAM_VFS_READ | LOAM_VFS_WRITE | LOAM_VFS_CREATE | LOAM_VFS_TRUNCATE,
                               &out)
                 : rc;
    rc = rc >= 0 ? (int)copy_bytes(c, in, out) : rc;
    if (in != NULL) {
        c->from->close(c->from->ctx, in);
    }
    if (out != NULL) {
        c->to->close(c->to->ctx, out);
    }
    c->rc = rc < 0 ? rc : c->rc;
    return rc < 0;
}

/* Files of one directory. A missing one is copied as a missing one. */
static int copy_dir(struct copying *c)
{
    struct stat st;
    bool from_os = c->from == loam_vfs_os();
    if (from_os && stat(c->from_dir, &st) != 0) {
        return 0;
    }
    int rc = c->to->mkdir(c->to->ctx, c->to_dir);
    if (rc < 0 && rc != -EEXIST) {
        return rc;
    }
    rc = c->from->list(c->from->ctx, c->from_dir, copy_file, c);
    return c->rc < 0 ? c->rc : rc;
}

/* ---- saving ------------------------------------------------------------------------------------ */

static void write_state(FILE *f, const struct model *m, uint32_t commit)
{
    fprintf(f, "commit %u\n", commit);
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        for (unsigned k = 0; k < MODEL_KEYS; k++) {
            uint32_t value = m->states[commit].value[s][k];
            if (value != 0) {
                fprintf(f, "value %u %u %u\n", s, k, value);
            }
        }
    }
}

static void write_names(FILE *f, const struct model *m, uint32_t control)
{
    fprintf(f, "control %u\n", control);
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        if (m->controls[control].name[s][0] != '\0') {
            fprintf(f, "name %u %s\n", s, m->controls[control].name[s]);
        }
    }
}

bool crash_case_save(const char *dir, const loam_vfs *state, const struct model *m,
                     const struct model_promise *p, const char *how, const char *why)
{
    char path[PATH_CAP];
    struct copying c = {.from = state, .to = loam_vfs_os(), .from_dir = CRASH_DIR};
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) {
        perror(dir);
        return false;
    }
    snprintf(path, sizeof path, "%s/case.txt", dir);
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        perror(path);
        return false;
    }
    fprintf(f, HEAD "how %s\nwhy %s\n", how, why);
    fprintf(f, "promise %d %u %u %u %u %d %u\n", p->opened, p->low, p->high, p->control_low,
            p->control_high, p->extra, m->next_value);
    for (uint32_t i = p->control_low; i <= p->control_high; i++) {
        write_names(f, m, i);
    }
    for (uint32_t i = p->low; i <= p->high; i++) {
        write_state(f, m, i);
    }
    bool fine = ferror(f) == 0;
    fine = fclose(f) == 0 && fine;
    snprintf(c.to_dir, sizeof c.to_dir, "%s/db", dir);
    int rc = copy_dir(&c);
    if (!fine || (rc < 0 && rc != -ENOENT)) {
        fprintf(stderr, "loam-crash: %s was not saved whole\n", dir);
        return false;
    }
    return true;
}

/* ---- loading ----------------------------------------------------------------------------------- */

/* Numbers of the model loaded are those of the case less `low`. */
struct loading {
    struct model *m;
    struct model_promise p;
    uint32_t commit, control; /* of the lines that follow */
    bool head, promised;
};

static bool in_range(uint32_t n, uint32_t low, uint32_t high)
{
    return n >= low && n <= high && high - low < 1000000;
}

static bool load_line(struct loading *l, const char *line)
{
    struct model *m = l->m;
    unsigned s, k, v, opened, extra;
    char name[MODEL_NAME];
    if (strncmp(line, "how ", 4) == 0 || strncmp(line, "why ", 4) == 0) {
        return true;
    }
    if (sscanf(line, "promise %u %u %u %u %u %u %u", &opened, &l->p.low, &l->p.high,
               &l->p.control_low, &l->p.control_high, &extra, &m->next_value) == 7) {
        l->p.extra = extra != 0;
        l->p.opened = opened != 0;
        l->promised = in_range(l->p.low, l->p.low, l->p.high) &&
                      in_range(l->p.control_low, l->p.control_low, l->p.control_high);
        return l->promised;
    }
    if (sscanf(line, "control %u", &v) == 1 && l->promised) {
        l->control = v - l->p.control_low;
        if (!in_range(v, l->p.control_low, l->p.control_high) ||
            l->control > m->controls_last + 1) {
            return false;
        }
        if (l->control != 0) {
            model_next_names(m);
        }
        memset(&m->controls[l->control], 0, sizeof m->controls[0]);
        return true;
    }
    if (sscanf(line, "name %u %255s", &s, name) == 2 && s < MODEL_SPACES) {
        memcpy(m->controls[l->control].name[s], name, sizeof name);
        return true;
    }
    if (sscanf(line, "commit %u", &v) == 1 && l->promised) {
        l->commit = v - l->p.low;
        if (!in_range(v, l->p.low, l->p.high) || l->commit > m->commits + 1) {
            return false;
        }
        if (l->commit != 0) {
            model_next_state(m);
        }
        memset(&m->states[l->commit], 0, sizeof m->states[0]);
        return true;
    }
    if (sscanf(line, "value %u %u %u", &s, &k, &v) == 3 && s < MODEL_SPACES && k < MODEL_KEYS) {
        m->states[l->commit].value[s][k] = v;
        return true;
    }
    return false;
}

static bool load_text(const char *dir, struct loading *l)
{
    char path[PATH_CAP], line[2 * MODEL_WHY];
    snprintf(path, sizeof path, "%s/case.txt", dir);
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        perror(path);
        return false;
    }
    bool fine = fgets(line, sizeof line, f) != NULL && strcmp(line, HEAD) == 0;
    while (fine && fgets(line, sizeof line, f) != NULL) {
        fine = load_line(l, line);
    }
    fclose(f);
    fine = fine && l->promised && l->m->commits == l->p.high - l->p.low &&
           l->m->controls_last == l->p.control_high - l->p.control_low;
    if (!fine) {
        fprintf(stderr, "loam-crash: %s is not a saved case\n", path);
    }
    return fine;
}

bool crash_case_load(const char *dir, loam_vfs **state, struct model *m, struct model_promise *p)
{
    struct loading l = {.m = m};
    model_init(m);
    if (!load_text(dir, &l)) {
        model_free(m);
        return false;
    }
    struct copying c = {.from = loam_vfs_os(), .to_dir = CRASH_DIR};
    snprintf(c.from_dir, sizeof c.from_dir, "%s/db", dir);
    int rc = loam_vfs_memory(state);
    if (rc >= 0) {
        c.to = *state;
        rc = copy_dir(&c);
        if (rc < 0) {
            loam_vfs_free(*state);
        }
    }
    if (rc < 0) {
        fprintf(stderr, "loam-crash: %s: %s\n", c.from_dir, strerror(-rc));
        model_free(m);
        return false;
    }
    *p = (struct model_promise){
        l.p.opened, 0, l.p.high - l.p.low, 0, l.p.control_high - l.p.control_low, l.p.extra};
    return true;
}
