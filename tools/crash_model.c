/* crash_model.c - Keeps the commits of a workload and judges what is found after a crash.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/crash_model.h"

#include <stdlib.h>
#include <string.h>

#define KEY_LONG 700u

static void *grow(void *at, size_t *cap, size_t want, size_t size)
{
    if (want <= *cap) {
        return at;
    }
    size_t more = *cap != 0 ? *cap * 2 : 64;
    at = realloc(at, more * size);
    if (at == NULL) {
        fputs("loam-crash: no memory for the model\n", stderr);
        exit(4);
    }
    *cap = more;
    return at;
}

void model_init(struct model *m)
{
    *m = (struct model){.spaces = 1, .next_value = 1};
    m->states = grow(NULL, &m->states_cap, 1, sizeof *m->states);
    m->controls = grow(NULL, &m->controls_cap, 1, sizeof *m->controls);
    memset(&m->states[0], 0, sizeof m->states[0]);
    memset(&m->controls[0], 0, sizeof m->controls[0]);
    memcpy(m->controls[0].name[0], "default", sizeof "default");
}

void model_free(struct model *m)
{
    free(m->states);
    free(m->controls);
    free(m->events);
    *m = (struct model){0};
}

struct model_state *model_next_state(struct model *m)
{
    m->states = grow(m->states, &m->states_cap, m->commits + 2, sizeof *m->states);
    m->states[m->commits + 1] = m->states[m->commits];
    return &m->states[++m->commits];
}

struct model_names *model_next_names(struct model *m)
{
    m->controls = grow(m->controls, &m->controls_cap, m->controls_last + 2, sizeof *m->controls);
    m->controls[m->controls_last + 1] = m->controls[m->controls_last];
    return &m->controls[++m->controls_last];
}

static void add_event(struct model *m, uint64_t at)
{
    m->events = grow(m->events, &m->events_cap, m->event_count + 1, sizeof *m->events);
    m->now.at = at;
    m->events[m->event_count++] = m->now;
}

void model_begun(struct model *m, uint64_t at, bool control)
{
    m->now.begun = m->commits;
    m->now.control_begun = control ? m->controls_last : m->now.control_begun;
    add_event(m, at);
}

void model_acked(struct model *m, uint64_t at, bool control, bool durable)
{
    if (control) {
        m->now.control_acked = m->controls_last;
    } else {
        m->now.acked = m->commits;
    }
    m->now.durable = durable ? m->now.acked : m->now.durable;
    add_event(m, at);
}

void model_synced(struct model *m, uint64_t at)
{
    m->now.durable = m->now.acked;
    add_event(m, at);
}

void model_opened(struct model *m, uint64_t at)
{
    m->now.opened = true;
    add_event(m, at);
}

void model_session(struct model *m, bool unlogged)
{
    m->now.unlogged = unlogged;
}

struct model_promise model_promise(const struct model *m, uint64_t at, bool killed)
{
    size_t lo = 0, hi = m->event_count; /* the last event with event.at <= at */
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->events[mid].at <= at) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    const struct model_event none = {0};
    const struct model_event *e = lo != 0 ? &m->events[lo - 1] : &none;
    return (struct model_promise){
        .opened = e->opened,
        .low = killed && !e->unlogged ? e->acked : e->durable,
        .high = e->begun,
        .control_low = e->control_acked,
        .control_high = e->control_begun,
    };
}

/* ---- judging ----------------------------------------------------------------------------------- */

static bool equal(const struct model_names *names, const struct model_state *a,
                  const struct model_state *b)
{
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        if (names->name[s][0] != '\0' &&
            memcmp(a->value[s], b->value[s], sizeof a->value[s]) != 0) {
            return false;
        }
    }
    return true;
}

/* The first key that differs from a promised commit, into `why`. */
static void explain(const struct model *m, const struct model_promise *p,
                    const struct model_seen *seen, char why[MODEL_WHY])
{
    const struct model_names *names = &m->controls[seen->control];
    for (uint32_t c = p->low; c-- > 0;) {
        if (equal(names, &m->states[c], &seen->state)) {
            snprintf(why, MODEL_WHY, "lost: commits up to %u were promised, only %u are there",
                     p->low, c);
            return;
        }
    }
    const struct model_state *want = &m->states[p->low];
    for (unsigned s = 0; s < MODEL_SPACES; s++) {
        for (unsigned k = 0; k < MODEL_KEYS && names->name[s][0] != '\0'; k++) {
            if (want->value[s][k] != seen->state.value[s][k]) {
                snprintf(why, MODEL_WHY,
                         "no prefix of the commits (%u promised, %u begun); keyspace %u, key %u: "
                         "value %u, not %u",
                         p->low, p->high, s, k, seen->state.value[s][k], want->value[s][k]);
                return;
            }
        }
    }
    snprintf(why, MODEL_WHY, "no prefix of the commits (%u promised, %u begun)", p->low, p->high);
}

bool model_judge(const struct model *m, const struct model_promise *p, struct model_seen *seen,
                 char why[MODEL_WHY])
{
    const struct model_names *names = &m->controls[seen->control];
    for (uint32_t c = p->high + 1; c-- > p->low;) {
        if (equal(names, &m->states[c], &seen->state)) {
            seen->commit = c;
            return true;
        }
    }
    explain(m, p, seen, why);
    return false;
}

/* ---- keys and values --------------------------------------------------------------------------- */

/* In byte order: the empty key, short ones, long ones that share all but the last byte. */
loam_slice model_key(unsigned i)
{
    static char keys[MODEL_KEYS][KEY_LONG];
    static size_t size[MODEL_KEYS];
    if (i == 0) {
        return loam_bytes(NULL, 0);
    }
    if (i == MODEL_KEYS) {
        return LOAM_LIT("~one more put");
    }
    if (size[i] == 0) {
        bool is_long = i >= MODEL_KEYS - 3;
        memset(keys[i], 'x', sizeof keys[i]);
        keys[i][0] = is_long ? 'z' : 'k';
        size_t n = is_long ? KEY_LONG - 2 : 1 + i % 7;
        keys[i][is_long ? n : 1] = (char)('a' + i);
        size[i] = n + 1;
    }
    return loam_bytes(keys[i], size[i]);
}

/* Most are small; one in 64 may be up to MODEL_VALUE_MAX. */
static uint32_t value_size(uint32_t value)
{
    uint64_t s = value;
    uint64_t r = model_random(&s);
    if (value % 64 == 63) {
        return 4 + (uint32_t)(r % (MODEL_VALUE_MAX - 4));
    }
    return 4 + (uint32_t)(r % 5 == 0 ? r / 8 % 3000 : r / 8 % 100);
}

loam_slice model_value(uint32_t value, uint8_t *buf)
{
    uint32_t n = value_size(value);
    uint64_t s = value, r = model_random(&s), same = value;
    for (uint32_t at = 0; at < n; at += 16) {
        memcpy(buf + at, &r, 8);
        memcpy(buf + at + 8, &same, 8); /* half of it compresses */
        r = (r ^ r >> 29) * 0xbf58476d1ce4e5b9u;
    }
    memcpy(buf, &value, 4);
    return loam_bytes(buf, n);
}

static int descending(void *ctx, loam_slice a, loam_slice b)
{
    (void)ctx;
    size_t n = a.size < b.size ? a.size : b.size;
    int c = n != 0 ? memcmp(a.data, b.data, n) : 0;
    return c != 0 ? -c : (b.size > a.size) - (b.size < a.size);
}

const loam_ks_options *model_ks_options(unsigned space)
{
    static const loam_comparator order = {
        .struct_size = sizeof order, .name = "descending", .compare = descending};
    static const loam_ks_options reverse = {.struct_size = sizeof reverse, .comparator = &order};
    return space > 2 && space % 2 == 1 ? &reverse : NULL;
}
