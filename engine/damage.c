/* damage.c - Hands findings to the caller.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "engine/damage.h"

#include "arena/status.h"

#include "arena/poison.h"

void damage_tell(struct damage_sink *s, const struct damage *d)
{
    const loam_error e = *loam_last_error();
    if (s->found == 0 || (s->worst.code != LOAM_E_CORRUPT && e.code == LOAM_E_CORRUPT)) {
        s->worst = e;
    }
    s->found++;
    s->missing = s->missing || d->code == LOAM_E_NOENT;
    s->lost = s->lost || !d->recovered;
    if (s->fn == NULL || s->stopped) {
        return;
    }
    char name[FILENAME_BASE_CAP];
    filename_base(d->kind, d->number, name);
    const loam_damage out = {
        .struct_size = sizeof out,
        .code = d->code != 0 ? d->code : e.code,
        .recovered = d->recovered,
        .file = name,
        .offset = d->offset,
        .bytes = d->bytes,
        .keys_lost_max = d->keys,
        .ks_name = d->ks,
        .first_key = d->first,
        .last_key = d->last,
    };
    s->stopped = s->fn(s->ctx, &out) != 0;
}

int damage_result(const struct damage_sink *s)
{
    if (s->stopped) {
        return LOAM_STOPPED;
    }
    return s->found != 0 ? status_raise(&s->worst) : LOAM_OK;
}
