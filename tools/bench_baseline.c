/* bench_baseline.c - Processor times of an earlier run, read from its JSON, beside those of this one.
 * SPDX-License-Identifier: Apache-2.0
 */
#include "tools/bench_baseline.h"

#include <stdio.h>
#include <string.h>

#define SLOWER 1.1

static bool same_text(const json_t *o, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(o, key));
    return value != NULL && strcmp(value, text) == 0;
}

static void find_entry(struct bench_entry *e, const json_t *table)
{
    size_t i;
    const json_t *o;
    json_array_foreach(table, i, o)
    {
        const json_t *units = json_object_get(o, "units_per_op");
        if (json_is_number(units) && same_text(o, "group", e->group->name) &&
            same_text(o, "row", e->label) && same_text(o, "engine", e->engine->name)) {
            e->baseline = json_number_value(units);
        }
    }
}

int bench_baseline_read(struct bench_table *t, const char *path)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    const json_t *table = json_object_get(root, "table");
    if (!json_is_array(table)) {
        fprintf(stderr, "loam-bench: %s: %s\n", path,
                root == NULL ? error.text : "no table, so not a suite's JSON");
        json_decref(root);
        return -1;
    }
    for (size_t i = 0; i < t->count; i++) {
        find_entry(&t->entries[i], table);
    }
    json_decref(root);
    return 0;
}

void bench_baseline_print(const struct bench_table *t, FILE *out)
{
    size_t known = 0, slower = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct bench_entry *e = &t->entries[i];
        if (e->baseline > 0 && e->units > 0) {
            known++;
            if (e->units > SLOWER * e->baseline) {
                slower++;
                fprintf(out, "slower: %s takes %.2f times what it took\n", e->label,
                        e->units / e->baseline);
            }
        }
    }
    fprintf(out, "%zu of %zu rows known from the baseline take over a tenth longer\n", slower,
            known);
}
