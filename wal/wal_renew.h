/* wal_renew.h - Makes a segment file durable whose syncs an earlier process may have seen fail.
 * SPDX-License-Identifier: Apache-2.0
 *
 * After a failed sync the system may forget what it could not write and keep it readable. A process
 * that is started anew reads it, syncs without an error, and loses it at the next power cut. What
 * it read is written again, to another place, since a write that is cut can harm what it replaces.
 */
#ifndef LOAM_WAL_WAL_RENEW_H_
#define LOAM_WAL_WAL_RENEW_H_

#include "wal/wal_segment.h"

/* Puts a copy of segment `number` in its place: its first `used` bytes, zeros up to its size. A crash
 * finds the old file or the copy. Returns: LOAM_OK: the copy is durable; E_IO, E_NOSPACE, E_NOMEM:
 * the old file is there. */
int wal_renew(const struct wal_place *place, uint64_t number, uint64_t used);

#endif
