#!/bin/sh
# May this push go through, and how does it go on to the upstream? This only starts the program that knows.
#
# The git gate of bot-bottle (docs/git-gate.md) wrote this file and replaces it; its settings are the next lines.

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

# git starts it under the name of the hook, git daemon's access hook with the word sync.
set -- "${1:-${0##*/}}" --bottle "$bottle" --gitleaks "$gitleaks" --timeout "$timeout" --max-file "$max_file"
[ -z "$database" ] || set -- "$@" --db "$database"
[ -z "$rules" ] || set -- "$@" --rules "$rules"
[ -z "$upstream" ] || set -- "$@" --upstream "$upstream"
if ! command -v "$helper" >/dev/null; then
    echo "bot-bottle: push refused: $helper is not there; install it on the git gate" >&2
    exit 1
fi
exec "$helper" git-gate-hook "$@"
