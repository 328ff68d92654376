/* loam_cli.c - The tool `loam`: looks into a database and works on it from the command line.
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/cli.h"

struct command {
    const char *name;
    const char *usage; /* what follows the name */
    const char *summary;
    const char *help;
    int (*run)(struct cli *c);
    int min_args, max_args; /* without the database; -1 = any number */
    bool needs_db;
};

static const struct command commands[] = {
    {"get", "KEY", "print a value",
     "  --raw        no newline after the value\n"
     "Exit code 1 when there is no such key.\n",
     cli_get, 1, 1, true},
    {"put", "KEY [VALUE]", "write a value",
     "Without VALUE, or with -, the value is what stdin has.\n"
     "  --create     make the database or keyspace when there is none\n",
     cli_put, 1, 2, true},
    {"delete", "KEY...", "remove keys", "A key that does not exist is no error.\n", cli_delete, 1,
     -1, true},
    {"scan", "", "print entries in order",
     "  --from KEY   first key, inclusive       --to KEY     last key, exclusive\n"
     "  --prefix P   only keys that begin so    --limit N    at most N entries\n"
     "  --reverse    from the end               --keys-only  without values\n"
     "A line is the key, a tab, the value; bytes that do not print are \\xx.\n",
     cli_scan, 0, 0, true},
    {"count", "", "count entries", "  --from KEY, --to KEY, --prefix P as in scan\n", cli_count, 0,
     0, true},
    {"stat", "", "print the database's numbers", "", cli_stat, 0, 0, true},
    {"levels", "", "print files and bytes of each level",
     "Of every keyspace, or of the one given by --ks.\n", cli_levels, 0, 0, true},
    {"dump", "", "write all entries as text",
     "The format is that of mdb_dump and db_dump; `loam load` and `mdb_load` read it.\n"
     "  --all        every keyspace, one section each\n"
     "  --print, -p  printable bytes as they are instead of hexadecimal\n"
     "  --file F, -f F  to a file instead of stdout\n",
     cli_dump, 0, 0, true},
    {"load", "", "read entries from such text",
     "Each section goes to the keyspace it names, or to the one given by --ks. Missing databases\n"
     "and keyspaces are created; entries that exist are replaced.\n"
     "  --file F, -f F  from a file instead of stdin\n",
     cli_load, 0, 0, true},
    {"verify", "", "read every file and check every checksum",
     "Names file, offset, keyspace and key range of what is damaged (*: any); exit code 3 then.\n"
     "Works on a database that another process has open.\n",
     cli_verify, 0, 0, true},
    {"repair", "", "make a damaged database one that opens",
     "Keeps all that is readable and names what is not (*: any); exit code 3 when something is lost.\n"
     "The damaged files stay in the directory as NAME.damaged. A sound database is left as it is.\n",
     cli_repair, 0, 0, true},
    {"sst", "FILE", "print a table file",
     "  --entries    every version in it: key, sequence number, kind, value\n"
     "  --verify     check every checksum\n"
     "  --from KEY, --limit N, --keys-only as in scan\n",
     cli_sst, 1, 1, false},
    {"wal", "FILE", "print a log segment",
     "  --keys-only  without values           --limit N    at most N records\n", cli_wal, 1, 1,
     false},
    {"manifest", "", "print the history of the set of tables", "  --limit N    at most N edits\n",
     cli_manifest, 0, 0, true},
    {"compact", "", "merge everything into the last level", "  --from KEY, --to KEY as in scan\n",
     cli_compact, 0, 0, true},
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static const char head[] =
    "loam - looks into a loam database and works on it\n"
    "\n"
    "  loam [--db DIR | DIR] COMMAND [ARGUMENT...]\n"
    "\n"
    "  loam mydb put --create greeting hello      loam mydb dump --all > backup.txt\n"
    "  loam mydb get greeting                     loam copy load < backup.txt\n"
    "  loam mydb scan --prefix gr --limit 10      loam mydb verify\n"
    "\n";

static const char tail[] =
    "\n"
    "Everywhere\n"
    "  --db DIR     the database              --ks NAME    keyspace [default]\n"
    "  --hex        keys and values in hexadecimal, given and printed\n"
    "  --json       one JSON object a line    --help       of a command: loam COMMAND --help\n"
    "  --version\n"
    "\n"
    "Only put, delete, load, compact and repair write; the others take no lock and may run beside a "
    "process\n"
    "that has the database open.\n"
    "Exit codes: 0 done, 1 no such key, 2 usage, 3 damaged data, 4 other errors.\n";

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; name != NULL && i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int print_help(const struct command *cmd)
{
    if (cmd != NULL) {
        printf("loam [--db DIR | DIR] %s [OPTION...] %s%s- %s\n%s", cmd->name, cmd->usage,
               cmd->usage[0] != '\0' ? " " : "", cmd->summary, cmd->help);
        return CLI_OK;
    }
    fputs(head, stdout);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        printf("  %-8s %-12s %s\n", commands[i].name, commands[i].usage, commands[i].summary);
    }
    fputs(tail, stdout);
    return CLI_OK;
}

/* ---- arguments ------------------------------------------------------------------------------- */

enum {
    OPT_DB = 256,
    OPT_KS,
    OPT_FROM,
    OPT_TO,
    OPT_PREFIX,
    OPT_LIMIT,
    OPT_HEX,
    OPT_JSON,
    OPT_REVERSE,
    OPT_KEYS_ONLY,
    OPT_ALL,
    OPT_CREATE,
    OPT_RAW,
    OPT_ENTRIES,
    OPT_VERIFY,
    OPT_VERSION
};

static const struct option options[] = {
    {"db", required_argument, NULL, OPT_DB},
    {"ks", required_argument, NULL, OPT_KS},
    {"from", required_argument, NULL, OPT_FROM},
    {"to", required_argument, NULL, OPT_TO},
    {"prefix", required_argument, NULL, OPT_PREFIX},
    {"limit", required_argument, NULL, OPT_LIMIT},
    {"file", required_argument, NULL, 'f'},
    {"hex", no_argument, NULL, OPT_HEX},
    {"json", no_argument, NULL, OPT_JSON},
    {"reverse", no_argument, NULL, OPT_REVERSE},
    {"keys-only", no_argument, NULL, OPT_KEYS_ONLY},
    {"all", no_argument, NULL, OPT_ALL},
    {"print", no_argument, NULL, 'p'},
    {"create", no_argument, NULL, OPT_CREATE},
    {"raw", no_argument, NULL, OPT_RAW},
    {"entries", no_argument, NULL, OPT_ENTRIES},
    {"verify", no_argument, NULL, OPT_VERIFY},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static bool parse_limit(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    *out = value;
    return errno == 0 && end != text && *end == '\0' && *text != '-' && value > 0;
}

static int take_option(struct cli *c, int opt)
{
    const struct {
        int opt;
        const char **text;
        bool *flag;
    } places[] = {
        {OPT_DB, &c->db, NULL},
        {OPT_KS, &c->ks, NULL},
        {OPT_FROM, &c->from, NULL},
        {OPT_TO, &c->to, NULL},
        {OPT_PREFIX, &c->prefix, NULL},
        {'f', &c->file, NULL},
        {OPT_HEX, NULL, &c->hex},
        {OPT_JSON, NULL, &c->json},
        {OPT_REVERSE, NULL, &c->reverse},
        {OPT_KEYS_ONLY, NULL, &c->keys_only},
        {OPT_ALL, NULL, &c->all},
        {'p', NULL, &c->print},
        {OPT_CREATE, NULL, &c->create},
        {OPT_RAW, NULL, &c->raw},
        {OPT_ENTRIES, NULL, &c->entries},
        {OPT_VERIFY, NULL, &c->verify},
        {'h', NULL, &c->help},
        {OPT_VERSION, NULL, &c->version},
    };
    if (opt == OPT_LIMIT) {
        return parse_limit(optarg, &c->limit) ? CLI_OK
                                              : cli_usage(c, "--limit %s is no count", optarg);
    }
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (places[i].opt == opt && places[i].text != NULL) {
            *places[i].text = optarg;
        } else if (places[i].opt == opt) {
            *places[i].flag = true;
        }
    }
    return CLI_OK;
}

static int parse_options(struct cli *c, int argc, char **argv)
{
    opterr = 0;
    for (;;) {
        int at = optind, opt = getopt_long(argc, argv, ":f:ph", options, NULL);
        if (opt == -1) {
            return CLI_OK;
        }
        if (opt == '?') {
            return cli_usage(c, "unknown option '%s'", argv[optind > at ? optind - 1 : at]);
        }
        if (opt == ':') {
            return cli_usage(c, "no value given for '%s'", argv[optind - 1]);
        }
        int rc = take_option(c, opt);
        if (rc != CLI_OK) {
            return rc;
        }
    }
}

/* What is left after the options: [DIR] COMMAND or COMMAND [DIR], then the command's arguments. */
static const struct command *take_positionals(struct cli *c)
{
    const struct command *cmd = find_command(c->count > 0 ? c->args[0] : NULL);
    if (cmd == NULL && c->db == NULL && c->count > 1) {
        cmd = find_command(c->args[1]);
        if (cmd != NULL) {
            c->db = c->args[0];
            c->args++;
            c->count--;
        }
    }
    if (cmd == NULL) {
        return NULL;
    }
    c->command = cmd->name;
    c->args++;
    c->count--;
    if (cmd->needs_db && c->db == NULL && c->count > 0) {
        c->db = c->args[0];
        c->args++;
        c->count--;
    }
    return cmd;
}

static int no_command(const struct cli *c, const char *first)
{
    if (c->db == NULL && c->count == 1 && access(first, F_OK) == 0) {
        return cli_usage(c, "what to do with '%s'? No command is given", first);
    }
    return cli_usage(c, "'%s' is not a command",
                     c->db == NULL && c->count > 1 ? c->args[1] : first);
}

/* What did not get out is an error, whatever else went well. */
static int finish(int rc)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        return rc != CLI_OK ? rc : cli_error("stdout: %s", strerror(errno));
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct cli c;
    memset(&c, 0, sizeof(c));
    int rc = parse_options(&c, argc, argv);
    if (rc != CLI_OK) {
        return rc;
    }
    if (c.version) {
        puts(loam_build_info());
        return finish(CLI_OK);
    }
    c.args = argv + optind;
    c.count = argc - optind;
    const char *first = c.count > 0 ? c.args[0] : NULL;
    const struct command *cmd = take_positionals(&c);
    if (c.help || first == NULL || (cmd == NULL && strcmp(first, "help") == 0)) {
        print_help(cmd);
        return finish(c.help || first != NULL ? CLI_OK : CLI_USAGE);
    }
    if (cmd == NULL) {
        return no_command(&c, first);
    }
    if (cmd->needs_db && c.db == NULL) {
        return cli_usage(&c, "no database given");
    }
    if (c.count < cmd->min_args || (cmd->max_args >= 0 && c.count > cmd->max_args)) {
        return cli_usage(&c, "%s takes %s%s", cmd->name, cmd->needs_db ? "a database and " : "",
                         cmd->usage[0] != '\0' ? cmd->usage : "no arguments");
    }
    return finish(cmd->run(&c));
}
