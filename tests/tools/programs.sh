#!/bin/sh
# programs.sh - Uses loam, loam-bench and loam-stress as people do: what is printed, and exit codes.
# SPDX-License-Identifier: Apache-2.0
#
# programs.sh BUILD [--no-bench]; prints "N passed, M failed", and before that what failed.
set -u
loam=$1/loam bench=$1/loam-bench stress=$1/loam-stress crash=$1/loam-crash with_bench=${2:-yes}
work=$(mktemp -d "${TMPDIR:-/tmp}/loam-programs-XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
passed=0 failed=0

verdict() { # verdict OK WHAT...: OK is yes or no
    if [ "$1" = yes ]; then
        passed=$((passed + 1))
        return
    fi
    shift
    failed=$((failed + 1))
    echo "FAIL  $*"
    sed 's/^/      out: /' out 2>/dev/null | head -n 5
    sed 's/^/      err: /' err 2>/dev/null | head -n 5
}

# says CODE TEXT COMMAND...: the exit code and all of stdout. Errors are one line on stderr, answers
# none. What stdin has is in the file `in`.
says() {
    code=$1 text=$2
    shift 2
    "$@" <in >out 2>err
    rc=$? lines=0
    if [ "$code" -ge 2 ]; then lines=1; fi
    ok=no
    if [ "$rc" -eq "$code" ] && [ "$(cat out)" = "$text" ] && [ "$(wc -l <err)" -eq $lines ]; then
        ok=yes
    fi
    verdict $ok "$* gives $rc, not $code with '$text'"
}

# prints PATTERN COMMAND...: exit code 0, and a line that matches.
prints() {
    pattern=$1
    shift
    ok=no
    if "$@" <in >out 2>err && grep -Eq -- "$pattern" out; then ok=yes; fi
    verdict $ok "$* prints no line like '$pattern'"
}

: >in
nl='
'
tab=$(printf '\t')

# ---- usage: one line, exit 2 ----------------------------------------------------------------------

prints 'exit codes|Exit codes' "$loam" --help
"$loam" >out 2>err
rc=$?
ok=no
if [ $rc -eq 2 ] && grep -q 'Exit codes' out; then ok=yes; fi
verdict $ok "loam alone gives its help and 2"
prints '^loam [0-9]+\.[0-9]+\.[0-9]+ ' "$loam" --version
"$loam" --help | awk '/^  [a-z]+ / && NF > 2 && $1 != "loam" { print $1 }' >commands
for command in get put delete scan count stat levels dump load verify sst wal manifest compact; do
    prints "^$command\$" cat commands
    prints "^loam .*$command" "$loam" "$command" --help
done
for line in 'db' 'db frob' 'frob db' 'db get' 'db get a b' 'db delete' 'db put' 'db scan x' \
    'db scan --frob' 'db scan --limit' 'db scan --limit x' 'db scan --limit -1' 'db scan --limit 0' \
    'db scan --prefix a --from b' 'get' 'scan' '--db' 'sst' 'db sst' 'wal' 'db get --hex 6' \
    'db get --hex zz' 'db put --hex 61 6' 'wal in' 'db load in'; do
    # shellcheck disable=SC2086 # words are meant
    says 2 '' "$loam" $line
done
for line in --frob --num --num=x --num=-1 --threads=0 --compression_type=x --progress=x --suite=x \
    --engine=x --db x '--strict --max_background_flushes=2'; do
    # shellcheck disable=SC2086
    says 2 '' "$bench" $line
done
for line in --frob --cycles --cycles=x --cycles=0 --threads=0 --threads=65 --seconds=0 --seconds=x \
    --value_size=-1 x; do
    says 2 '' "$stress" "$line"
done

# ---- no database, no keyspace ---------------------------------------------------------------------

for line in 'get k' 'put k v' 'delete k' scan count stat levels dump verify manifest compact; do
    # shellcheck disable=SC2086
    says 4 '' "$loam" db $line
done
ok=no
if [ ! -e db ]; then ok=yes; fi
verdict $ok "a command that finds no database makes none"
says 4 '' "$loam" sst no-such-file
says 4 '' "$loam" db load --file no-such-file

# ---- entries --------------------------------------------------------------------------------------

says 0 '' "$loam" db put --create b 2
says 0 '' "$loam" db put a 1
says 0 '' "$loam" --db db put c 3
says 0 1 "$loam" db get a
says 0 1 "$loam" get db a
says 0 1 "$loam" --db=db get a
says 1 '' "$loam" db get none
says 0 '{"key":"a","value":"1"}' "$loam" db get a --json
says 1 '' "$loam" db get none --json
says 0 "a${tab}1${nl}b${tab}2${nl}c${tab}3" "$loam" db scan
says 0 "c${tab}3${nl}b${tab}2" "$loam" db scan --reverse --limit 2
says 0 "b" "$loam" db scan --from b --to c --keys-only
says 0 "b${tab}2" "$loam" db scan --prefix b
says 0 '{"key":"c","value":"3"}' "$loam" db scan --from c --json
says 0 3 "$loam" db count
says 0 '{"count":1}' "$loam" db count --to b --json
printf 'x\000\n\134' >in # the last is a backslash
says 0 '' "$loam" db put bin
: >in
says 0 78000a5c "$loam" db get --hex 62696e
says 0 "bin${tab}x\\00\\0a\\5c" "$loam" db scan --prefix bin
says 0 '' "$loam" db put --hex 00ff ''
says 0 1 "$loam" db count --to a
says 0 '' "$loam" db delete --hex 00ff 62696e 7a7a
says 1 '' "$loam" db get bin
says 0 '' "$loam" db put '' empty
says 0 empty "$loam" db get ''
says 0 '' "$loam" db delete ''
says 4 '' "$loam" db get --ks other k
says 4 '' "$loam" db put --ks other k v
says 0 '' "$loam" db put --ks other --create k v
says 0 v "$loam" db get --ks other k
says 0 1 "$loam" db count --ks other

# ---- looking in: nothing is written ---------------------------------------------------------------

says 0 '' "$loam" db compact
says 0 '' "$loam" db put d 4
sums() { find db -type f -exec cksum {} + | sort; }
sums >before
table=$(find db -name '*.sst' | sort | head -n 1)
log=$(find db -name '*.log' | sort | tail -n 1)
says 0 'no damage' "$loam" db verify
says 0 '{"damages":0}' "$loam" db verify --json
prints '^memory_budget +[0-9]+$' "$loam" db stat
prints '"last_seq":[0-9]+' "$loam" db stat --json
prints '^ +6 +1 +[0-9]+$' "$loam" db levels
prints '"levels":' "$loam" db levels --json
prints '^entries +3$' "$loam" sst "$table"
prints '"entries":3' "$loam" sst "$table" --json
prints "put.*d${tab}4\$" "$loam" wal "$log"
prints '"key":"d"' "$loam" wal "$log" --json
prints '^  \+ table ' "$loam" db manifest
prints '"added":' "$loam" db manifest --json
prints '^\{"end_is":"whole","offset":[0-9]+\}$' "$loam" db manifest --json
"$loam" db dump --all >all.txt
sums >after
ok=no
if cmp -s before after; then ok=yes; fi
verdict $ok "commands that look change no file"

cp -r db cut
manifest=cut/$(basename "$(find db -name 'MANIFEST-*')")
printf 'part of an edit' >>"$manifest"
prints '^ends in an edit that was cut short$' "$loam" cut manifest
prints '^\{"end_is":"unfinished write","offset":[0-9]+\}$' "$loam" cut manifest --json

# ---- dump and load --------------------------------------------------------------------------------

cp all.txt in
says 0 '' "$loam" copy load
: >in
says 0 "$(cat all.txt)" "$loam" copy dump --all
says 0 '' "$loam" copy load --file all.txt --ks third
says 0 5 "$loam" copy count --ks third
echo garbage >in
says 4 '' "$loam" junk load
: >in
says 4 '' "$loam" junk load
ok=no
if [ ! -e junk ]; then ok=yes; fi
verdict $ok "load makes no database for what is no dump"

printf 'VERSION=3\nformat=print\ndatabase=\\00b\ntype=btree\nHEADER=END\n k\n v\nDATA=END\n' >in
says 4 '' "$loam" junk load # not into the keyspace whose name stands before the NUL
printf 'VERSION=3\nformat=print\ntype=btree\nHEADER=END\n k\n v\nDATA=END\000 k2\n v2\nDATA=END\n' >in
says 4 '' "$loam" junk load
: >in
ok=no
if [ "$("$loam" junk count 2>err)" = '' ] || [ "$("$loam" junk count)" = 0 ]; then ok=yes; fi
verdict $ok "load takes nothing from a section with a line it cannot know"

# ---- output that gets lost, text that is no UTF-8 --------------------------------------------------

if [ -c /dev/full ]; then
    for line in --help --version 'db get --help' 'db scan' 'db levels --json' 'db dump'; do
        # shellcheck disable=SC2086 # words are meant
        "$loam" $line >/dev/full 2>err
        rc=$?
        ok=no
        if [ $rc -eq 4 ]; then ok=yes; fi
        verdict $ok "loam $line to a full disk gives $rc, not 4"
    done
fi
latin=$(printf 'x\377')
says 0 '' "$loam" names put --create --ks "$latin" k v
prints '"keyspace_hex":"78ff"' "$loam" names levels --json
mkdir "$latin"
says 0 '' "$loam" "$latin/db" put --create k v
says 0 '' "$loam" "$latin/db" compact
hidden=$(find "$latin/db" -name '*.sst')
rm "$hidden"
mkdir "$hidden" # its name, with the directory's, is in the message
"$loam" "$latin/db" verify --json >out 2>err
ok=no
if grep -q '"damaged":"[0-9]*.sst".*"message_hex"' out; then ok=yes; fi
verdict $ok "verify --json has an object for a finding whose message is no UTF-8"

# A message must not go into the file that would have the number of the closed standard error.
printf 'VERSION=3\nformat=print\ntype=btree\nHEADER=END\n k\n v\nDATA=END\ngarbage\n' >in
"$loam" closed load --file in <&- >&- 2>&-
: >in
says 0 'no damage' "$loam" closed verify
says 0 v "$loam" closed get k

# ---- damage: exit 3, named ------------------------------------------------------------------------

cp -r db hurt
hurt=hurt/$(basename "$table")
byte=$(od -An -tu1 -j60 -N1 "$hurt")
# shellcheck disable=SC2059 # an octal escape is made
printf "\\$(printf '%03o' $(((byte + 1) % 256)))" | dd of="$hurt" bs=1 seek=60 conv=notrunc 2>err
"$loam" hurt verify >out 2>err
rc=$?
ok=no
if [ $rc -eq 3 ] && grep -q "$(basename "$table")" out err; then ok=yes; fi
verdict $ok "verify names the damaged table and gives 3, not $rc"
says 3 '' "$loam" hurt get a
says 0 4 "$loam" hurt get d

# ---- loam-crash: a case that failed fails again, and one that did not does not ---------------------

prints '^[1-9][0-9]* distinct crash states .* 0 lost, 0 wrong, 0 unopenable, 0 other' \
    "$crash" --seed=1 --hours=0.0003 --jobs=1 --save=none
prints '^[1-9][0-9]* of 1000000 wanted distinct crash states .* 0 other' \
    "$crash" --seed=1 --states=1000000 --seconds=1 --jobs=1 --at_least=1 --save=none
"$crash" --seed=1 --states=100 --jobs=1 --at_least=1000 --save=none >out 2>err
rc=$?
ok=no
if [ $rc -eq 1 ] && grep -q 'fewer than --at_least=1000' err; then ok=yes; fi
verdict $ok "a hundred states of a thousand give $rc, not 1"
"$crash" --seed=1 --lie=sync --states=20000 --failures=1 --jobs=1 --save=cases >out 2>err
rc=$?
found=$(find cases -mindepth 1 -maxdepth 1 | head -n 1)
ok=no
if [ -n "$found" ]; then ok=yes; fi
verdict $ok "a disk that lies leaves no case behind (exit $rc)"
"$crash" --replay="$found" >out 2>err
rc=$?
ok=no
if [ $rc -eq 3 ] && grep -q "^$found: " out && ! grep -q ': right$' out; then ok=yes; fi
verdict $ok "a case that failed gives $rc when it is replayed, not 3"
says 4 '' "$crash" --replay=no-such-case

# ---- loam-stress, loam-bench ----------------------------------------------------------------------

prints ' 0 lost, 0 torn, 0 wrong' "$stress" --db=stress --kill --seconds=0.3 --cycles=2
# alone CHILDREN PROGRAM FLAGS...: killed in the middle, it leaves no process behind. The shell goes on with
# a program of its own, so that what the program started can be told by its parent.
alone() {
    children=$1
    shift
    "$@" >out 2>err &
    pid=$! born=
    for _ in $(seq 600); do
        born=$(cat "/proc/$pid/task/$pid/children")
        if [ "$(echo "$born" | wc -w)" -ge "$children" ]; then break; fi
        sleep 0.05
    done
    kill -9 $pid
    wait $pid 2>/dev/null
    ok=no
    for _ in $(seq 600); do
        left=$(for child in $born; do awk '/^State:/ && $2 != "Z"' "/proc/$child/status"; done 2>/dev/null)
        if [ -z "$left" ]; then ok=yes && break; fi
        sleep 0.05
    done
    if [ -z "$born" ]; then ok=no; fi
    # shellcheck disable=SC2086 # words are meant
    [ $ok = yes ] || kill -9 $born
    verdict $ok "$* leaves processes behind when it is killed: $born"
}
alone 1 "$stress" --db=stress --seconds=600
alone 2 "$crash" --states=0 --seconds=600 --jobs=2
if [ "$with_bench" = yes ]; then
    list=fillseq,fillrandom,fillbatch,fillsync,overwrite,readrandom,readmissing,readhot,readseq
    list=$list,readreverse,seekrandom,readwhilewriting,readrandomwriterandom,updaterandom
    list=$list,multireadrandom,deleteseq,deleterandom,compact,flush,waitforcompaction,stats
    list=$list,levelstats,filluniquerandom,open,recover,memtable,xxh3,pauses,lz4comp,lz4uncomp
    list=$list,ycsba,ycsbb,ycsbc,ycsbd,ycsbe,ycsbf
    ok=no
    if "$bench" --db=bench --num=300 --threads=2 --benchmarks="$list" --json=b.json --csv=b.csv \
        >out 2>err; then
        ok=yes
    fi
    verdict $ok "loam-bench runs every benchmark"
    cp out lines
    for name in $(echo "$list" | tr , ' '); do
        case $name in
        stats | levelstats) continue ;; # they print tables
        esac
        ok=no
        if grep -q "^${name}[ .]" lines && grep -q "\"${name}[.\"]" b.json &&
            grep -q "^${name}[.,]" b.csv; then
            ok=yes
        fi
        verdict $ok "$name has a line, and a row in JSON and CSV"
    done
    prints '^readrandom \[AVG +3 runs\]' "$bench" --db=bench --num=300 \
        --benchmarks='fillrandom,readrandom[X3-W1]'
    prints '^Percentiles: ' "$bench" --db=bench --num=300 --benchmarks=fillrandom --histogram
    prints '^readrandom ' "$bench" --db=bench --num=300 --use_existing_db --benchmarks=readrandom \
        --duration=1
    mkdir parent
    ok=yes
    if "$bench" --db=parent --num=300 --use_existing_db --benchmarks=readrandom >out 2>err ||
        [ ! -s err ] || [ -n "$(ls parent)" ]; then
        ok=no
    fi
    verdict $ok "loam-bench --use_existing_db makes no database"
    prints '^fillrandom ' "$bench" --db=bench --num=300 --benchmarks=fillrandom \
        --disk_reserve=1048576
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
