#!/bin/sh
# Does the repository have what its upstream has, before anybody reads it or pushes to it? If that is not certain, no.
#
# git daemon runs this at each request (--access-hook) with the service and the repository; what it prints on standard
# output is the one line that the refused client gets to see. Written by the git gate of bot-bottle (docs/git-gate.md).
set -eu

fail() {
    echo "bot-bottle: $*"
    printf 'git gate: %s: %s\n' "$repository" "$*" >&2
    exit 1
}

repository=$2
cd "$repository" || fail "the repository is not there"
# One at a time: two fetches into the same refs trip over each other.
exec 9>bot-bottle/sync.lock
flock -w 300 9 || fail "the upstream takes long to answer; try again"
said=$(git fetch --quiet --prune --no-auto-maintenance upstream 2>&1 </dev/null 9>&-) ||
    fail "the upstream cannot be reached, and what is here may be old: $(echo "$said" | tr '\n' ' ')"
# Follows the upstream's choice of a default branch when ours is not there (any more).
if ! git rev-parse --verify --quiet HEAD >/dev/null; then
    head=$(git ls-remote --symref upstream HEAD 2>/dev/null </dev/null | sed -n 's/^ref: \([^	]*\)	HEAD$/\1/p')
    [ -z "$head" ] || git symbolic-ref HEAD "$head"
fi
