"""Which hosts would an approval open to a bottle, and what is odd about each name?"""

from __future__ import annotations

from bot_bottle import TOOL_EGRESS_ALLOW, Review

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from bot_bottle.documents.routes import Route
    from bot_bottle.operator.words import Said

# Letters that look like others in most fonts: the pairs that occur in deceptive names.
_ALIKE = (("rn", "m"), ("vv", "w"), ("cl", "d"), ("0", "o"), ("1", "l"), ("i", "l"), ("5", "s"), ("-", ""))


def remarks(review: Review) -> tuple[Said, ...]:
    """What to say about a change to ``routes.yaml``; nothing if it opens nothing, or cannot be compared."""
    item = review.item
    if item.proposal.tool != TOOL_EGRESS_ALLOW or item.state != "pending" or review.current_problem:
        return ()
    from bot_bottle.documents import presets, routes

    try:
        before = routes.load(review.current_file or "routes: []").routes
        after = routes.load(item.proposal.proposed_file).routes
    except routes.RoutesError:
        return ()
    old = [route.host for route in before]
    known = {*old, *(host.name for hosts in presets.PRESETS.values() for host in hosts)}
    said = [each for route in after if route.host not in old for each in _about(route, known)]
    if said:
        others = ", ".join(old) or "nothing"
        said.append((f"So far this bottle may reach {others}.", "quiet"))
    return tuple(said)


def _about(route: Route, known: Iterable[str]) -> list[Said]:
    host = route.host
    said: list[Said] = [(f"{host} is new to this bottle.", "plain")]
    name = host.removeprefix("*.")
    if name != host:
        said.append((f"{host} is every name below {name}.", "soon"))
    if _is_address(name):
        said.append((f"{host} is an IP address: no certificate says whose it is.", "alarm"))
    if any(label.startswith("xn--") for label in name.split(".")):
        said.append((f"{host} is written with other letters than a-z: it reads {_read(name)!a}.", "alarm"))
    alike = [each for each in known if each.removeprefix("*.") != name and _looks_like(name, each.removeprefix("*."))]
    said += [(f"{host} looks like {each}, which it is not.", "alarm") for each in sorted(alike)]
    if route.tunnel:
        said.append((f"What goes to {host} passes unopened: nobody looks for secrets in it.", "alarm"))
    elif not route.dlp.outbound_detectors:
        said.append((f"Nobody looks for secrets in what goes to {host}.", "alarm"))
    return said


def _is_address(name: str) -> bool:
    import ipaddress  # only for a new host: every review imports this module

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _read(name: str) -> str:
    try:
        return name.encode().decode("idna")
    except UnicodeError:
        return name


def _plain(name: str) -> str:
    for one, other in _ALIKE:
        name = name.replace(one, other)
    return name


def _looks_like(name: str, other: str) -> bool:
    """Do they look the same at a glance, or differ by one letter that is added, missing, changed or swapped?"""
    if _plain(name) == _plain(other):
        return True
    start = 0
    while start < min(len(name), len(other)) and name[start] == other[start]:
        start += 1
    here, there = name[start:], other[start:]
    if here[:1].isdigit() and there[:1].isdigit():
        return False  # numbered alike
    swapped = len(here) > 1 and here[:2] == there[1::-1] and here[2:] == there[2:]
    return swapped or here[1:] == there[1:] or here[1:] == there or here == there[1:]
