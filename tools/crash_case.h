/* crash_case.h - A crash state on its own: the files it left, and what may be read from them.
 * SPDX-License-Identifier: Apache-2.0
 *
 * A directory: db/ holds the files as they were found (loam verify --db DIR/db reads them), absent
 * when the crash came before the directory was made; case.txt says what was promised, in lines.
 */
#ifndef LOAM_TOOLS_CRASH_CASE_H_
#define LOAM_TOOLS_CRASH_CASE_H_

#include "tools/crash_model.h"

/* Writes `dir`, which is made; false with a line on stderr when that does not work. */
bool crash_case_save(const char *dir, const loam_vfs *state, const struct model *m,
                     const struct model_promise *p, const char *how, const char *why);

/* Reads what was saved: a memory disk, a model of the promised commits alone, the promise in its
 * numbers. False with a line on stderr; then nothing is to be freed. */
bool crash_case_load(const char *dir, loam_vfs **state, struct model *m, struct model_promise *p);

#endif
