/* cli_dump.h - What the commands that read a database's files themselves share.
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef LOAM_TOOLS_CLI_DUMP_H_
#define LOAM_TOOLS_CLI_DUMP_H_

#include "sstable/sst_reader.h"
#include "tools/cli.h"
#include "wal/wal_reader.h"

/* A path cut at its last slash. */
struct dump_path {
    char dir[4096];
    const char *base; /* points into the path given */
};
bool dump_split(const char *path, struct dump_path *p);

const char *dump_codec_name(uint32_t compression); /* LOAM_COMPRESS_* */
const char *dump_kind_name(uint64_t tag);          /* of an entry */
void dump_json_number(json_t *o, const char *name, uint64_t value);
/* The error of the moment as fields of an object. */
void dump_json_error(json_t *o, int rc);

#endif
