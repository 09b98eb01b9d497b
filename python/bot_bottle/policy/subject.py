"""What is a proposal about, as far as a rule can ask for it?

Only what is known for sure: where a change cannot be read or compared, its hosts and paths are unknown (``None``), and
no rule that names one matches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from bot_bottle import (
    TOOL_EGRESS_ALLOW,
    TOOL_EGRESS_BLOCK,
    TOOL_EGRESS_TOKEN_ALLOW,
    TOOL_GITLEAKS_ALLOW,
)
from bot_bottle.documents import routes
from bot_bottle.documents.routes import Dlp, Match, Route

if TYPE_CHECKING:
    from bot_bottle import InboxItem, Proposal, Review

# A fingerprint shows so many characters of a host; a longer one may be cut.
_HOST_SHOWN = 120
# The git gate's for one finding: rule, path, 128 bits in hex. One for several has a longer hash, and names no path.
_FINDING = re.compile(r"(\S+) (.+) [0-9a-f]{32}")
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


class Subject(NamedTuple):
    """What a rule's conditions are compared with."""

    bottle: str
    tool: str
    sha256: str
    size: int
    hosts: frozenset[str] | None = None
    paths: frozenset[str] | None = None
    whole: bool = False
    """Are ``hosts`` and ``paths`` all that it is about? If not, nothing is approved by them: a route may also bring a
    credential or switch off the detectors, and a change may take another route away."""


def of_review(review: Review) -> Subject:
    """What a pending proposal is about, with the managed file as it is now."""
    base = "" if review.current_sha256 in ("", None) else review.current_file
    return _subject(review.item.proposal, None if review.current_problem else base)


def of_decided(item: InboxItem, diff: str) -> Subject:
    """What a decided proposal was about; ``diff`` is its audit entry's."""
    answer, proposed = item.response, item.proposal.proposed_file
    if answer is not None and answer.status == "modified":
        # Without a managed file the diff is from the proposed text to the operator's.
        base = before(diff, answer.final_file or "") if item.apply_state else ""
    elif not diff:
        base = proposed if item.apply_state else ""
    else:
        base = before(diff, proposed)
    return _subject(item.proposal, base)


def _subject(proposal: Proposal, base: str | None) -> Subject:
    found = Subject(proposal.bottle_slug, proposal.tool, proposal.payload_sha256, proposal.payload_bytes)
    if proposal.tool in (TOOL_EGRESS_ALLOW, TOOL_EGRESS_BLOCK):
        return found if base is None else _routes(found, base, proposal.proposed_file)
    if proposal.tool == TOOL_EGRESS_TOKEN_ALLOW:
        # Of the secret, before its kind.
        host = (proposal.fingerprint or "").partition(" | ")[0].rpartition(":")[0]
        if 0 < len(host) < _HOST_SHOWN:
            try:
                return found._replace(hosts=frozenset([routes.canonical_host(host)]), whole=True)
            except ValueError:
                return found
    if proposal.tool == TOOL_GITLEAKS_ALLOW:
        finding = _FINDING.fullmatch(proposal.fingerprint or "")
        if finding and not finding[2].startswith("…"):
            return found._replace(paths=frozenset([finding[2]]), whole=True)
    return found


def _routes(found: Subject, base: str, proposed: str) -> Subject:
    try:
        known = routes.load(base or "routes: []")
        old = {route.host: route for route in known.routes}
        new = {route.host: route for route in routes.load(proposed).routes}
    except routes.RoutesError:
        return found
    changed = [host for host in {*old, *new} if old.get(host) != new.get(host)]
    added = [new[host] for host in changed if host in new and host not in old]
    paths = [each["value"] for route in added for match in route.matches for each in match.paths]
    return found._replace(
        hosts=frozenset(changed),
        paths=frozenset(paths) if added and all(map(_every_path_is_named, added)) else None,
        whole=bool(added) and len(added) == len(changed) and all(_plain(each) and _new(each, known) for each in added),
    )


def _new(route: Route, known: routes.Routes) -> bool:
    """Was nothing said of it before? A route for one name overrides that for a wildcard, and what it restricts."""
    return known.find(route.host.replace("*", "any", 1)) is None


def _plain(route: Route) -> bool:
    """Does it allow requests and nothing else: no credential, nothing unopened, all detectors as by default?"""
    return route.auth is None and not route.tunnel and not route.override_headers and route.dlp == Dlp()


def _every_path_is_named(route: Route) -> bool:
    return bool(route.matches) and all(map(_names_paths, route.matches))


def _names_paths(match: Match) -> bool:
    return bool(match.paths) and all(
        each["type"] in ("exact", "prefix") and not {"%", "\\"} & set(each["value"]) and "/." not in each["value"]
        for each in match.paths
    )


def before(diff: str, after: str) -> str | None:
    """The text that the unified ``diff`` made ``after`` of; ``None`` if it did not."""
    lines, out, at = after.split("\n"), [], 0
    hunks = diff.split("\n")[2:]
    while hunks and (head := _HUNK.fullmatch(hunks[0])):
        hunks.pop(0)
        start, length = int(head[3]), int(head[4] or 1)
        start -= 1 if length else 0
        out += lines[at:start]
        at = start
        while hunks and hunks[0][:1] in ("+", "-", " ", "\\") and hunks[0]:
            sign, text = hunks[0][0], hunks.pop(0)[1:]
            if sign in "+ ":
                if at >= len(lines) or lines[at] != text:
                    return None
                at += 1
            if sign in "- ":
                out.append(text)
    if any(hunks):
        return None
    return "\n".join(out + lines[at:])
