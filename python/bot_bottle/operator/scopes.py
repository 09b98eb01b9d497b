"""How far may an approval reach, in which words is that offered, and what does it come to?"""

from __future__ import annotations

from bot_bottle import TOOL_EGRESS_TOKEN_ALLOW, TOOL_GITLEAKS_ALLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bot_bottle import Proposal


_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}


class Scope:
    """``grant`` is what ``Inbox.decide`` takes; ``None``: this request alone, and the next one asks again."""

    def __init__(self, grant: str | None, words: str) -> None:
        self.grant = grant
        self.words = words


OFFERED = (
    Scope(None, "this request only"),
    Scope("uses:5", "this and the next 5 like it"),
    Scope("for:3600", "such requests for 1 hour"),
    Scope("for:28800", "such requests for 8 hours"),
    Scope("bottle", "such requests until the bottle stops"),
)


_OF_KIND = (("for:3600", "for 1 hour"), ("for:28800", "for 8 hours"), ("bottle", "until the bottle stops"))


PREFIX = Scope("prefix:for:3600", "commands that begin with words you type, for 1 hour")


def offered(proposal: Proposal) -> tuple[Scope, ...]:
    """The scopes to choose from; without a fingerprint nothing says what "the same again" would be."""
    if not proposal.fingerprint:
        return OFFERED[:1]
    if proposal.words:
        return (*OFFERED, PREFIX)
    if proposal.kind is None:
        return OFFERED
    wider = (Scope(f"kind:{grant}", f"{proposal.kind}, {how_long}") for grant, how_long in _OF_KIND)
    return (*OFFERED, *wider)


def words_asked(proposal: Proposal) -> str:
    """What is asked where :data:`PREFIX` is chosen."""
    return f"The first words of the commands, at most: {proposal.words}"


def needs_reason(tool: str) -> bool:
    """Does an approval need a recorded reason? The store refuses one without."""
    return tool in (TOOL_GITLEAKS_ALLOW, TOOL_EGRESS_TOKEN_ALLOW)


def seconds(text: str) -> float | None:
    """``90s``, ``15m``, ``2h``, ``30d`` or ``1w`` in seconds; ``None``: it has another form."""
    text = text.strip().lower()
    unit = next((unit for unit in _SECONDS if text.endswith(unit)), None)
    if unit is None:
        return None
    number = text.removesuffix(unit).rstrip()
    whole, point, fraction = number.partition(".")
    if not whole.isdecimal() or (point and not fraction.isdecimal()):
        return None
    return float(number) * _SECONDS[unit]


def scope(text: str) -> str:
    """How far a grant reaches, in the words of ``Inbox.decide``, which has ``for`` in seconds alone."""
    if text.startswith("prefix:"):
        how_long, _, words = text.removeprefix("prefix:").partition(" ")
        return begins(words, scope(how_long))
    if text.startswith("kind:"):
        return f"kind:{scope(text.removeprefix('kind:'))}"
    form, _, rest = text.partition(":")
    span = seconds(rest) if form == "for" else None
    return text if span is None else f"for:{span:g}"


def begins(words: str, how_long: str = "for:3600") -> str:
    """The scope of commands that begin with ``words``, as an operator typed them."""
    return f"prefix:{how_long} {' '.join(words.split())}"
