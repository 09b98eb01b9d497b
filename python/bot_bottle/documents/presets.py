"""Which hosts does a common need require? A preset names a list of routes, which is written out where it is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from bot_bottle.documents import routes
from bot_bottle.errors import InvalidInputError


class Host(NamedTuple):
    """A host of a preset."""

    name: str
    auth: Mapping[str, str] = {}
    """Variable → the route's ``auth`` if the operator gives the proxy a value of that name."""
    matches: str = ""
    """The route's ``matches``, if not everything goes."""


_READING: Final = (
    '[{methods: [GET, HEAD]}, {methods: [POST], paths: [{type: regex, value: "/[^/]+/[^/]+/git-upload-pack"}]}]'
)

PRESETS: Final[Mapping[str, tuple[Host, ...]]] = {
    "anthropic": (
        Host(
            "api.anthropic.com",
            {
                "ANTHROPIC_API_KEY": "{header: x-api-key, token_ref: ANTHROPIC_API_KEY}",
                "ANTHROPIC_AUTH_TOKEN": "{scheme: Bearer, token_ref: ANTHROPIC_AUTH_TOKEN}",
                "CLAUDE_CODE_OAUTH_TOKEN": "{scheme: Bearer, token_ref: CLAUDE_CODE_OAUTH_TOKEN}",
            },
        ),
    ),
    "crates": (Host("crates.io"), Host("index.crates.io"), Host("static.crates.io")),
    "debian": (Host("deb.debian.org"), Host("security.debian.org")),
    # Reading over https; what is pushed goes through the git gate (`--git`), which scans it.
    "github": (
        Host("github.com", {"GITHUB_TOKEN": "{basic: x-access-token, token_ref: GITHUB_TOKEN}"}, _READING),
        Host("api.github.com", {"GITHUB_TOKEN": "{scheme: Bearer, token_ref: GITHUB_TOKEN}"}),
        Host("codeload.github.com"),
        Host("raw.githubusercontent.com"),
        Host("objects.githubusercontent.com"),
        Host("release-assets.githubusercontent.com"),
    ),
    "go": (Host("proxy.golang.org"), Host("sum.golang.org")),
    "google": (
        Host(
            "generativelanguage.googleapis.com",
            {
                "GEMINI_API_KEY": "{header: x-goog-api-key, token_ref: GEMINI_API_KEY}",
                "GOOGLE_API_KEY": "{header: x-goog-api-key, token_ref: GOOGLE_API_KEY}",
            },
        ),
    ),
    "npm": (Host("registry.npmjs.org"),),
    "openai": (Host("api.openai.com", {"OPENAI_API_KEY": "{scheme: Bearer, token_ref: OPENAI_API_KEY}"}),),
    "pypi": (Host("pypi.org"), Host("files.pythonhosted.org")),
}


class Entry(NamedTuple):
    """A route to be: why it is there, and its text as an item of a list without indentation."""

    host: str
    origin: str
    lines: tuple[str, ...]


def expand(names: Iterable[str], secrets: Iterable[str] = ()) -> list[Entry]:
    """The routes that presets, and hosts by name, come to.

    Args:
        names: presets, or host names, which have a dot.
        secrets: variables whose values the proxy gets: a preset's host that knows one of them goes out with it.

    Raises:
        InvalidInputError: a name is neither a preset nor a host.
    """
    held = set(secrets)
    found: dict[str, Entry] = {}
    for name in names:
        if name not in PRESETS and "." not in name:
            raise InvalidInputError(f"{name!r} is neither a host nor one of {', '.join(PRESETS)}")
        if name not in PRESETS:
            # It becomes a line of YAML, in which it must not say more than a host.
            try:
                routes.canonical_host(name.removeprefix("*."))
            except ValueError as error:
                raise InvalidInputError(f"host {name!r} {error}") from None
        origin = f"preset {name}" if name in PRESETS else "asked for by name"
        for host in PRESETS.get(name) or (Host(name),):
            lines = [f'- host: "{host.name}"' if host.name.startswith("*") else f"- host: {host.name}"]
            auth = next((text for variable, text in host.auth.items() if variable in held), "")
            lines += [f"  auth: {auth}"] if auth else []
            lines += [f"  matches: {host.matches}"] if host.matches else []
            found.setdefault(host.name, Entry(host.name, origin, tuple(lines)))
    return list(found.values())


def added(text: str | None, entries: Sequence[Entry]) -> tuple[str, list[Entry]]:
    """``routes.yaml`` with the entries whose hosts it does not name yet, and which these are. What is there stays.

    Raises:
        InvalidInputError: a host is invalid, or the file has a form to which nothing can be added.
    """
    before = routes.load(text) if text is not None else routes.Routes()
    known = {route.host for route in before.routes}
    fresh = [entry for entry in entries if entry.host.lower() not in known]
    if text is not None and not fresh:
        return text, []
    margin = "  "
    if text is not None and before.routes:
        start = f"{text.rstrip()}\n"
        item = re.search(r"^( *)- ", text, re.MULTILINE)
        margin = item[1] if item else margin
    else:
        start = "# What this bottle may reach; approvals replace this file.\nroutes:" + ("\n" if fresh else " []\n")
    items = []
    for number, entry in enumerate(fresh):
        first = number == 0 or fresh[number - 1].origin != entry.origin
        lines = [*([f"# {entry.origin}"] if first else []), *entry.lines]
        items.append("".join(f"{margin}{line}\n" for line in lines))
    after = start + "".join(items)
    ours = routes.load("routes:\n" + "".join(items)) if fresh else routes.Routes()
    try:
        whole = routes.load(after)
    except routes.RoutesError:
        whole = routes.Routes()
    wanted = [route.to_dict() for route in (*before.routes, *ours.routes)]
    if [route.to_dict() for route in whole.routes] != wanted:
        raise InvalidInputError(
            "routes.yaml is written in a way that nothing can be added to; do it yourself: "
            + ", ".join(entry.host for entry in fresh)
        )
    return after, fresh
