#!/bin/sh
# May this push go through? gitleaks looks for secrets in it; if there are any, the operator decides.
#
# The git gate of bot-bottle (docs/git-gate.md) wrote this file and replaces it; its settings are the next lines.
# POSIX sh, git, gitleaks and bot-bottle-sidecar are all it needs. Whatever fails, the push is refused.

bottle=@bottle@
# Empty for the one that the environment names.
database=@database@
helper=@helper@
gitleaks=@gitleaks@
# A gitleaks configuration; empty for gitleaks' own.
rules=@rules@
# Seconds to wait for the operator.
timeout=@timeout@
# Bytes; what is larger is not scanned and cannot pass.
max_file=@max_file@
# Where accepted refs go on to; empty for nowhere.
upstream=@upstream@

set -eu
# What the machine has configured for git must not change what gitleaks is shown.
export LC_ALL=C GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null GIT_ATTR_NOSYSTEM=1 GIT_NO_REPLACE_OBJECTS=1

say() { printf 'bot-bottle: %s\n' "$*" >&2; }
refuse() {
    say "push refused: $*"
    exit 1
}

scratch='' asking='' watching=''
leave() {
    trap '' HUP INT PIPE TERM
    # The helper takes its proposal back when it is told to end. What git daemon starts ignores TERM, hence KILL.
    [ -z "$asking" ] || kill "$asking" 2>/dev/null || :
    [ -z "$watching" ] || kill -KILL "$watching" 2>/dev/null || :
    [ -z "$scratch" ] || rm -rf "$scratch"
}
# Every way out is one: an error, the pusher hanging up (HUP, PIPE), the gate being stopped (TERM).
trap leave EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 141' PIPE
trap 'exit 143' TERM

# --- What is pushed -------------------------------------------------------------------------------------------------

# All that no ref of this repository has yet: objects has lines of type, id, size and, for some, a path; names has
# the path of every file that is new or changed, quoted by git where it is odd.
list_objects() {
    git rev-list --objects --stdin --not --all <"$scratch/tips" >"$scratch/new"
    git cat-file --batch-check='%(objecttype) %(objectname) %(objectsize) %(rest)' <"$scratch/new" >"$scratch/objects"
    sed -n 's/^commit \([^ ]*\).*/\1/p' "$scratch/objects" >"$scratch/commits"
    git diff-tree --stdin --root -r -c --no-commit-id --name-only <"$scratch/commits" >"$scratch/changed"
    sed -n 's/^[a-z]* [^ ]* [^ ]* //p' "$scratch/objects" >>"$scratch/changed"
    sort -u "$scratch/changed" >"$scratch/names"

    large=$(awk -v max="$max_file" '$1 == "blob" && $3 > max {
        size = $3; sub(/^[^ ]* [^ ]* [^ ]* /, ""); print $0 " has " size " bytes"; exit }' "$scratch/objects")
    [ -z "$large" ] || refuse "$large; above $max_file it is not scanned and cannot pass"
    # gitleaks' reader of diffs trips over such a name and passes over the file.
    odd=$(awk '/\\"?$/ { print; exit }' "$scratch/names")
    [ -z "$odd" ] || refuse "gitleaks cannot read files whose name ends in a backslash, like $odd; rename it"
}

# In words, for the operator.
describe_push() {
    awk -v commits="$(wc -l <"$scratch/commits")" -v repository="$(basename "$(pwd)")" '
        NR <= 20 { refs = refs (NR > 1 ? ", " : "") $3 ($2 ~ /^0+$/ ? " (deleted)" : "") }
        END {
            if (NR > 20) refs = refs " and " NR - 20 " more"
            printf "a push to %s of %s", refs, repository
            if (commits > 0) printf ", %d new commit%s", commits, commits == 1 ? "" : "s"
        }' "$scratch/updates"
}

# --- What gitleaks finds --------------------------------------------------------------------------------------------

# Nothing in a push may switch gitleaks off: it takes no configuration, no ignore file and no comment from there.
run_gitleaks() {
    GITLEAKS_CONFIG='' GITLEAKS_CONFIG_TOML="
        [extend]
        $extend
        [[rules]]
        id = 'bot-bottle-canary'
        regex = 'bot-bottle-canary-[0-9a-f]{32}'
        keywords = ['bot-bottle-canary']" \
        "$gitleaks" "$@" --ignore-gitleaks-allow --gitleaks-ignore-path "$scratch/none" --exit-code 42 \
        --report-format json --report-path - --no-banner --no-color --log-level warn 2>>"$scratch/log"
}

# gitleaks ends as if all were well when it cannot read on. So each run must find a secret at the very end of what it
# is to read; the helper, which gets this after each report, insists on it.
end_of_run() {
    printf '{"run": "%s", "exit": %d, "canary": "%s", %s}\n' "$1" "$2" "$canary" "$3"
    runs=$((runs + 1))
}

write_file() { git hash-object -w --stdin; }
write_directory() { printf '100644 blob %s\t%s\n' "$1" "$2" | git mktree; }
write_commit() {
    printf 'tree %s\nauthor git gate <> 0 +0000\ncommitter git gate <> 0 +0000\n\ngit gate\n' "$1" |
        git hash-object -t commit -w --stdin
}

# A tag may also name a directory or a file; for each of those, a commit that adds all of it.
wrap_tips() {
    while read -r tip; do
        object=$(git rev-parse --verify --quiet "$tip^{}")
        type=$(git cat-file -t "$object")
        case $type in
        tree) write_commit "$object" ;;
        blob) write_commit "$(write_directory "$object" tagged-file)" ;;
        esac
    done <"$scratch/tips"
}

scan_files() {
    # A merge that takes every file from one of its parents brings nothing of its own; most do.
    git rev-list --no-walk=unsorted --merges --stdin <"$scratch/commits" >"$scratch/merges"
    git diff-tree --stdin -r -c --raw <"$scratch/merges" >"$scratch/merged"
    git rev-list --no-walk=unsorted --no-merges --stdin <"$scratch/commits" >"$scratch/to-scan"
    awk '/^[0-9a-f]/ { id = $1 } /^:/ && id { print id; id = "" }' "$scratch/merged" >>"$scratch/to-scan"
    wrap_tips >>"$scratch/to-scan"

    last=$(write_commit "$(write_directory "$(echo "$canary" | write_file)" canary)")
    # The commits one by one rather than as a range, so that the canary is last; as many as fit into one argument.
    awk '{ printf "%s%s", $1, NR % 1000 ? " " : "\n" } END { if (NR % 1000) print "" }' "$scratch/to-scan" >"$scratch/batches"
    while read -r batch; do
        # shellcheck disable=SC2086  # ids, to be split
        parents=$(git rev-list --no-walk=unsorted --min-parents=2 --parents $batch |
            awk '{ printf "%s\"%s\": %d", separator, $1, NF - 1; separator = ", " }')
        code=0
        # Attributes could hide content (binary, textconv) and settings change the form of the diff. A merge is shown
        # against each of its parents: what it brings itself is in none of them.
        GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=core.quotePath GIT_CONFIG_VALUE_0=true \
            GIT_CONFIG_KEY_1=log.showRoot GIT_CONFIG_VALUE_1=true \
            run_gitleaks git --platform none --log-opts="--no-walk=unsorted --diff-merges=separate --text --no-textconv\
 --no-ext-diff --find-renames -O/dev/null --src-prefix=a/ --dst-prefix=b/ --inter-hunk-context=0 --submodule=short\
 --ignore-submodules=none --format=medium --date=iso-strict --no-notes --no-show-signature --no-decorate --no-color\
 $batch $last" . </dev/null || code=$?
        end_of_run "the files" "$code" "\"parents\": {$parents}"
    done <"$scratch/batches"
}

# Messages, names, and the files that gitleaks takes for its own configuration and leaves out, as one text. As from
# git cat-file --batch, each part comes after a line of id, type and size; sections says which part begins where.
scan_texts() {
    sed -nE 's/^(commit|tag) ([^ ]*).*/\2/p; s/^blob ([^ ]*) [0-9]+ .*gitleaks\.toml.*/\1/p' "$scratch/objects" >"$scratch/texts"
    awk '$2 !~ /^0+$/ { print $3 }' "$scratch/updates" >"$scratch/refs"
    code=0
    {
        {
            git cat-file --batch <"$scratch/texts"
            for list in refs names; do
                echo "- $list $(($(wc -c <"$scratch/$list")))"
                cat "$scratch/$list"
                echo
            done
        } | tr '\000' '\n' | awk -v sections="$scratch/sections" -v parts="$(($(wc -l <"$scratch/texts") + 2))" '
            BEGIN {
                what["commit"] = "commit message"; what["tag"] = "tag message"; what["blob"] = "gitleaks.toml"
                what["refs"] = "ref name"; what["names"] = "file name"
            }
            left <= 0 {
                if (!($2 in what)) exit 1
                printf "%s{\"line\": %d, \"what\": \"%s\", \"object\": \"%s\"}", separator, NR, what[$2], \
                    ($1 == "-" ? "" : $1) >sections
                separator = ", "; left = $3 + 1; seen++; print ""; next
            }
            { left -= length($0) + 1; print }
            END { exit seen != parts || left > 0 }' && printf '\n%s\n' "$canary"
    } | run_gitleaks stdin || code=$?
    end_of_run "the messages and names" "$code" "\"sections\": [$(cat "$scratch/sections")]"
}

scan() {
    # What the scan itself writes (the canary's commit) goes to a place of its own.
    GIT_ALTERNATE_OBJECT_DIRECTORIES=$GIT_OBJECT_DIRECTORY:${GIT_ALTERNATE_OBJECT_DIRECTORIES:-}
    GIT_OBJECT_DIRECTORY=$scratch/written
    export GIT_OBJECT_DIRECTORY GIT_ALTERNATE_OBJECT_DIRECTORIES
    mkdir "$GIT_OBJECT_DIRECTORY"
    canary=bot-bottle-canary-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    extend="useDefault = true"
    [ -z "$rules" ] || extend="path = '$rules'"
    runs=0
    scan_files
    scan_texts
    # A name may be a secret: the helper redacts this sentence like all else.
    echo "{\"end\": $runs, \"push\": \"$(describe_push | sed 's/["\\]/\\&/g')\"}"
}

# Leaves the push in words as the report's first line, then a line per finding: fingerprint, rule, path, line, commit,
# places, match, description. gitleaks' own report, which holds the secrets, stays in the pipe.
find_secrets() {
    [ -n "${GIT_OBJECT_DIRECTORY:-}" ] || refuse "git gave it no quarantine; git 2.32 or newer is needed"
    commits=$(($(wc -l <"$scratch/commits")))
    mebibytes=$(awk '$1 == "blob" { bytes += $3 } END { printf "%d", bytes / 1048576 }' "$scratch/objects")
    # About a second for each hundred or mebibyte.
    if [ "$commits" -ge 500 ] || [ "$mebibytes" -ge 5 ]; then
        say "looking for secrets in $commits commits with $mebibytes MiB of files, this takes a while"
    fi
    set +e
    (set -e; scan) | "$helper" gitleaks-report --key-file "$state/key" >"$scratch/report" 2>"$scratch/error"
    code=$?
    set -e
    if [ "$code" -ne 0 ]; then
        [ ! -s "$scratch/log" ] || tail -n 5 "$scratch/log" >&2
        refuse "$(reason)"
    fi
    sed 1d "$scratch/report" >"$scratch/findings"
    # A pipe would hide a failure of its first part.
    cut -f 1 "$scratch/findings" >"$scratch/unsorted"
    sort -u "$scratch/unsorted" >"$scratch/all"
}

# --- What was allowed before ----------------------------------------------------------------------------------------

# The helper's sentence without its name.
reason() { sed 's/^bot-bottle-sidecar: //' "$scratch/error"; }

# One approval covers the findings it was asked for together. Its grant is about all of them; sets/ has the members.
name_of_set() {
    members=$(($(wc -l <"$1")))
    if [ "$members" -eq 1 ]; then cat "$1"; else echo "$members findings $(git hash-object --stdin <"$1")"; fi
}

use_grant() {
    "$helper" use-grant ${database:+--db "$database"} --bottle "$bottle" --tool gitleaks-allow --fingerprint "$1" \
        >/dev/null 2>"$scratch/error"
}

granted() {
    code=0
    use_grant "$1" || code=$?
    [ "$code" -eq 0 ] || [ "$code" -eq 4 ] || refuse "the grants could not be read: $(reason)"
    return "$code"
}

# Takes what is granted off the list of open findings. Not with grep -vf: to busybox's an empty file is a pattern that
# all lines match, so nothing would stay open.
close_open() {
    awk 'FILENAME == ARGV[1] { closed[$0]; next } !($0 in closed)' "$1" "$scratch/open" >"$scratch/left" ||
        refuse "the grants could not be applied"
    mv "$scratch/left" "$scratch/open"
}

apply_grants() {
    cp "$scratch/all" "$scratch/open"
    for set in "$state"/sets/*; do
        if [ -s "$set" ] && grep -qxFf "$set" "$scratch/open" && granted "$(name_of_set "$set")"; then
            close_open "$set"
        fi
    done
    count=$(($(wc -l <"$scratch/open")))
    [ "$count" -le 200 ] || refuse "gitleaks found $count possible secrets, more than anybody would look through"
    while IFS= read -r fingerprint; do
        if granted "$fingerprint"; then echo "$fingerprint"; fi
    done <"$scratch/open" >"$scratch/granted"
    close_open "$scratch/granted"
    allowed=$(($(wc -l <"$scratch/all") - $(wc -l <"$scratch/open")))
    [ "$allowed" -eq 0 ] || say "possible secrets that were allowed before: $allowed"
}

# --- What the operator says -----------------------------------------------------------------------------------------

write_proposal() {
    awk -F '\t' 'NR == FNR { open[$0]; next } $1 in open' "$scratch/open" "$scratch/findings" >"$scratch/doubtful"
    # Neither line nor commit: after a rebase it is the same proposal, and all who push it share the answer.
    awk -F '\t' '
        { text = text sprintf("\n%d. %s in %s\n   %s\n   %s\n   %s\n", NR, $2, $3, $7, $8, $1) }
        END { printf "gitleaks found %d possible secret%s:\n%s", NR, NR == 1 ? "" : "s", text }' \
        "$scratch/doubtful" >"$scratch/payload"
    {
        head -n 1 "$scratch/report"
        sort -t "$(printf '\t')" -k 3,3 -k 4,4n "$scratch/doubtful" | awk -F '\t' '
            {
                place = $2 " in " $3 ($4 ? ", line " $4 : "") ($5 ? ", commit " substr($5, 1, 12) : "")
                if ($6 > 1) place = place " and " $6 - 1 " more place" ($6 > 2 ? "s" : "")
                if ((used += length(place) + 1) > 12000) hidden++; else print place
            }
            END { if (hidden) print "and " hidden " more" }'
    } >"$scratch/justification"
}

# Ends the wait of the given process when the pusher has hung up. git does not tell its hook: receive-pack loses the
# thread that talks to the pusher (within receive.keepAlive, 5 s) and waits on, and what is written to standard error
# just stays in the pipe. So the threads are counted; where there is no /proc, the wait goes on to its end.
watch_pusher() {
    waiter=$1 waited=0
    set -- "/proc/$PPID/task"/*
    threads=$#
    # Standard error is not sleep's to hold open: git waits until all have let go of it.
    while sleep 2 >/dev/null 2>&1; do
        set -- "/proc/$PPID/task"/*
        [ $# -ge "$threads" ] || break
        waited=$((waited + 2))
        [ $((waited % 30)) -ne 0 ] || say "still waiting for the operator, since $waited s"
    done
    kill "$waiter"
}

# Returns if the operator approves.
ask_operator() {
    write_proposal
    say "gitleaks found possible secrets in $(sed '1!s/^/    /' "$scratch/justification")"
    say "waiting up to $timeout s for the operator of bottle $bottle to decide"
    "$helper" propose ${database:+--db "$database"} --bottle "$bottle" --tool gitleaks-allow --file "$scratch/payload" \
        --justification "$(cat "$scratch/justification")" --fingerprint "$(name_of_set "$scratch/open")" \
        --expires-in "$timeout" --wait >"$scratch/answer" &
    asking=$!
    watch_pusher "$asking" &
    watching=$!
    code=0
    wait "$asking" || code=$?
    asking=''
    case $code in
    0) say "$(cat "$scratch/answer")" ;;
    3) refuse "$(cat "$scratch/answer")" ;;
    5) refuse "there was no decision; push again to ask again" ;;
    *) refuse "the operator could not be asked" ;;
    esac
}

# --- Where it goes on to --------------------------------------------------------------------------------------------

# git push to the upstream, all or nothing, and only if it still has what the pusher saw there.
forward() {
    while read -r old new ref; do
        case $old in *[!0]*) ;; *) old='' ;; esac
        case $new in *[!0]*) ;; *) new='' ;; esac
        set -- "$@" "--force-with-lease=$ref:$old" "$new:$ref"
    done <"$scratch/updates"
    # Not every upstream can do it, nor need it for one.
    [ "$(wc -l <"$scratch/updates")" -eq 1 ] || set -- --atomic "$@"
    # The mark of the quarantine would reach an upstream on this machine and stop it from taking the refs.
    (unset GIT_QUARANTINE_PATH && git push --quiet --no-verify "$upstream" "$@") >&2 </dev/null ||
        refuse "the upstream did not accept it"
}

# --------------------------------------------------------------------------------------------------------------------

[ -n "${GIT_DIR:-}" ] || refuse "this hook only works within a push; push to the repository instead of starting it"
state=$(pwd)/bot-bottle
command -v "$helper" >/dev/null || refuse "$helper is not there; install it on the git gate"
command -v "$gitleaks" >/dev/null || refuse "$gitleaks is not there; install it on the git gate"
[ -r "$state/key" ] || refuse "$state/key cannot be read; install the git gate again"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/bot-bottle.XXXXXX")

cat >"$scratch/updates" # lines of old id, new id, ref; an id of zeros is none
[ -s "$scratch/updates" ] || refuse "this hook only works within a push; it was not told of any ref"
if [ -n "$upstream" ]; then
    other=$(awk '$3 !~ /^refs\/(heads|tags|notes)\// { print $3; exit }' "$scratch/updates")
    [ -z "$other" ] || refuse "only branches, tags and notes are passed on, not $other"
fi
awk '$2 !~ /^0+$/ { print $2 }' "$scratch/updates" >"$scratch/tips"

approved=''
: >"$scratch/open"
if [ -s "$scratch/tips" ]; then
    list_objects
    find_secrets
    apply_grants
fi
if [ -s "$scratch/open" ]; then
    # What the upstream would refuse anyway needs nobody's decision.
    [ -z "$upstream" ] || forward --dry-run
    ask_operator
    approved=$(name_of_set "$scratch/open")
    mkdir -p "$state/sets"
    [ "$(wc -l <"$scratch/open")" -eq 1 ] || cp "$scratch/open" "$state/sets/${approved##* }"
fi
[ -z "$upstream" ] || forward
# A grant for so many pushes pays for this one only now that it has gone through.
[ -z "$approved" ] || use_grant "$approved" || :
