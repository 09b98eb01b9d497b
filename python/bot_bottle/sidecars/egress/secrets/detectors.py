"""Is there a secret in these bytes, which one, and where?

Two detectors, named as ``routes.yaml`` names them. ``token_patterns`` knows the published formats of tokens and
private keys; ``known_secrets`` looks for given values, such as those the proxy itself injects. Both look at every
reading of the bytes (see :mod:`bot_bottle.sidecars.egress.secrets.readings`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from bot_bottle.documents.routes import DETECTORS
from bot_bottle.sidecars.egress.secrets.readings import latin1, readings

MIN_KNOWN_SECRET: Final = 8  # bytes; shorter values turn up by chance
MAX_SECRET: Final = 2048  # bytes; what of a longer one lies beyond is not looked at
_MIN_DISTINCT: Final = 8  # different characters; xxxxxxxx and 12341234 are placeholders


@dataclass(frozen=True)
class Finding:
    """A secret and where it is; ``repr`` and ``str`` do not show it.

    ``detector`` is its name in ``routes.yaml``, ``kind`` says what it is, ``how`` the steps that hid it. ``start`` and
    ``end`` span the bytes to mask; both are 0 where masking cannot reach it (inside compressed data).
    """

    detector: str
    kind: str
    secret: bytes = field(repr=False)
    start: int
    end: int
    how: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Pattern:
    """A token's format; every match holds one of ``anchors``, at most ``before`` bytes after its beginning."""

    kind: str
    anchors: tuple[bytes, ...]
    expression: re.Pattern[bytes]
    before: int
    placeholders: bool


def _pattern(kind: str, anchors: str, expression: str, *, before: int = 0, placeholders: bool = True) -> _Pattern:
    return _Pattern(
        kind, tuple(anchors.encode().split()), re.compile(expression.encode(), re.DOTALL), before, placeholders
    )


_NOT_IN_WORD: Final = "(?<![A-Za-z0-9])"
_BETWEEN: Final = r"(?:\s|\\[nrt]|[\"',])"  # line ends, also as strings in a program spell them
_PEM_HEADERS: Final = r"(?:[A-Z][A-Za-z-]{1,20}: [^\n\\]{1,80}" + _BETWEEN + r"{1,12}){0,4}"
_KEY_MATERIAL: Final = (
    _BETWEEN + r"{0,40}" + _PEM_HEADERS + r"[A-Za-z0-9+/]{40,76}(?:" + _BETWEEN + r"{0,12}[A-Za-z0-9+/=]{1,76}){0,20}"
)

# Formats as their issuers document them, checked against the rules of gitleaks (MIT) and GitHub's secret scanning
# patterns. Only formats with a fixed part: guessing by entropy alone stops too much that is no secret.
_PATTERNS: Final = (
    _pattern("private key", "KEY-----", r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY-----" + _KEY_MATERIAL,
             before=64, placeholders=False),
    _pattern("PGP private key", "BLOCK-----", r"-----BEGIN PGP PRIVATE KEY BLOCK-----" + _KEY_MATERIAL,
             before=40, placeholders=False),
    _pattern("age secret key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58}"),
    _pattern("JSON web token", "eyJ", r"eyJ[A-Za-z0-9_-]{10,800}\.eyJ[A-Za-z0-9_-]{10,1000}\.[A-Za-z0-9_-]{16,700}"),
    _pattern("GitHub token", "ghp_ gho_ ghu_ ghs_ ghr_", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _pattern("GitHub fine-grained token", "github_pat_", r"github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    _pattern("GitLab token", "glpat- gldt- glrt- glptt- glcbt- glsoat- glft- glimt- glagent-",
             r"gl(?:pat|dt|rt|ptt|cbt|soat|ft|imt|agent)-[A-Za-z0-9_.-]{20,300}"),
    _pattern("AWS access key id", "AKIA ASIA ABIA ACCA", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
    _pattern("AWS secret access key", "ccess_key ccessKey CCESS_KEY",
             r"(?i:secret_?access_?key)[\"'\\]{0,2}\s{0,3}[=:,]\s{0,3}[\"'\\]{0,2}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+])",
             before=8),
    _pattern("AWS Bedrock key", "ABSK", r"ABSK[A-Za-z0-9+/]{109,269}={0,2}"),
    _pattern("Google API key", "AIza", r"AIza[A-Za-z0-9_-]{35}"),
    _pattern("Google OAuth secret", "GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{28}"),
    _pattern("Google OAuth token", "ya29.", r"ya29\.[A-Za-z0-9_.-]{30,1024}"),
    _pattern("Google refresh token", "1//0", r"(?<![A-Za-z0-9/])1//0[A-Za-z0-9_-]{40,256}"),
    _pattern("Azure storage key", "AccountKey=", r"AccountKey=[A-Za-z0-9/+]{86}=="),
    _pattern("Azure client secret", "Q~", r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}", before=4),
    _pattern("Anthropic key", "sk-", r"sk-ant-[a-z]{2,8}\d{2}-[A-Za-z0-9_-]{20,256}"),
    _pattern("OpenAI key", "sk-", _NOT_IN_WORD + r"sk-(?:proj|svcacct|admin|service|None)-[A-Za-z0-9_-]{20,256}"),
    _pattern("OpenRouter key", "sk-", r"sk-or-v\d-[0-9a-f]{64}"),
    _pattern("OpenAI-style key", "sk-", _NOT_IN_WORD + r"sk-[A-Za-z0-9]{32,96}"),
    _pattern("Groq key", "gsk_", _NOT_IN_WORD + r"gsk_[A-Za-z0-9]{48,56}"),
    _pattern("xAI key", "xai-", _NOT_IN_WORD + r"xai-[A-Za-z0-9]{70,90}"),
    _pattern("Perplexity key", "pplx-", r"pplx-[A-Za-z0-9]{40,64}"),
    _pattern("Hugging Face token", "hf_", _NOT_IN_WORD + r"hf_[A-Za-z0-9]{34,40}"),
    _pattern("Replicate token", "r8_", _NOT_IN_WORD + r"r8_[A-Za-z0-9]{37}"),
    _pattern("Slack token", "xoxa- xoxb- xoxc- xoxd- xoxe- xoxe. xoxo- xoxp- xoxr- xoxs-",
             r"xox[a-eopr-s][-.](?:\d-)?[A-Za-z0-9%.-]{20,255}"),
    _pattern("Slack app token", "xapp-", r"xapp-\d-[A-Z0-9]{6,20}-\d{6,20}-[A-Za-z0-9]{32,100}"),
    _pattern("Slack webhook", "hooks.slack.com/",
             r"hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/]{40,70}"),
    _pattern("Discord webhook", "/api/webhooks/", r"/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,80}"),
    _pattern("Telegram bot token", ":AA", r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])", before=10),
    _pattern("Stripe key", "_live_ _test_", _NOT_IN_WORD + r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}", before=2),
    _pattern("Stripe webhook secret", "whsec_", r"whsec_[A-Za-z0-9+/]{32,64}"),
    _pattern("Square token", "sq0", r"sq0(?:atp|csp|idp)-[A-Za-z0-9_-]{22,43}"),
    _pattern("Shopify token", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _pattern("SendGrid key", "SG.", _NOT_IN_WORD + r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    _pattern("npm token", "npm_", _NOT_IN_WORD + r"npm_[A-Za-z0-9]{36}"),
    _pattern("PyPI token", "pypi-AgE", r"pypi-AgE[A-Za-z0-9_-]{60,400}"),
    _pattern("crates.io token", "cio", _NOT_IN_WORD + r"cio[A-Za-z0-9]{32}(?![A-Za-z0-9])"),
    _pattern("RubyGems key", "rubygems_", r"rubygems_[a-f0-9]{48}"),
    _pattern("Docker Hub token", "dckr_pat_ dckr_oat_", r"dckr_[po]at_[A-Za-z0-9_-]{27,48}"),
    _pattern("Atlassian token", "ATATT3 ATCTT3", r"AT[AC]TT3[A-Za-z0-9_=-]{100,300}"),
    _pattern("Linear key", "lin_api_ lin_oauth_", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,64}"),
    _pattern("Notion token", "ntn_", _NOT_IN_WORD + r"ntn_[A-Za-z0-9]{40,50}"),
    _pattern("Figma token", "figd_", r"figd_[A-Za-z0-9_-]{38,46}"),
    _pattern("Databricks token", "dapi", _NOT_IN_WORD + r"dapi[a-f0-9]{32}(?:-\d)?"),
    _pattern("DigitalOcean token", "_v1_", r"do[opr]_v1_[a-f0-9]{64}", before=3),
    _pattern("Heroku key", "HRKU-", r"HRKU-[A-Za-z0-9_-]{36,80}"),
    _pattern("HashiCorp Vault token", "hvs. hvb.", _NOT_IN_WORD + r"hv[sb]\.[A-Za-z0-9_-]{24,300}"),
    _pattern("Terraform Cloud token", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[A-Za-z0-9_=-]{60,70}", before=14),
    _pattern("Grafana token", "glsa_ glc_", r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}|glc_[A-Za-z0-9+/]{32,400}"),
    _pattern("Sentry token", "sntrys_ sntryu_", r"sntry(?:s_eyJ[A-Za-z0-9_+/=-]{40,400}|u_[a-f0-9]{64})"),
    _pattern("New Relic key", "NRAK-", r"NRAK-[A-Z0-9]{27}"),
    _pattern("Supabase key", "sbp_ sb_secret_", r"sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{30,48}"),
    _pattern("Tailscale key", "tskey-", r"tskey-[a-z]{2,12}-[A-Za-z0-9]{8,20}-[A-Za-z0-9]{16,40}"),
    _pattern("Netlify token", "nfp_", _NOT_IN_WORD + r"nfp_[A-Za-z0-9]{36}"),
    _pattern("PlanetScale token", "pscale_", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{32,64}"),
    _pattern("Doppler token", "dp.", _NOT_IN_WORD + r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{40,80}"),
)  # fmt: skip

KINDS: Final = tuple(dict.fromkeys(pattern.kind for pattern in _PATTERNS))
"""What ``token_patterns`` knows, as operators read it."""

# No anchor begins with another: where several could be found, RE2 tells of one.
_BY_ANCHOR: Final[dict[bytes, list[_Pattern]]] = defaultdict(list)
for _each in _PATTERNS:
    for _anchor in _each.anchors:
        _BY_ANCHOR[_anchor].append(_each)
# Found by RE2 in one pass; only where an anchor is are the formats themselves tried.
_ANCHORS: Final = latin1(b"|".join(re.escape(anchor) for anchor in _BY_ANCHOR))
_ANCHOR_BEGINNINGS: Final = tuple({anchor[:length] for anchor in _BY_ANCHOR for length in range(3, len(anchor))})

_WORD: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_.%\\:&#;~-\0"
_HEX_LIST: Final = b"0123456789abcdefABCDEFx:,- \t\r\n"
_CUT_ESCAPE: Final = re.compile(rb"(?:%|\\x|\\u0?0?|\\|&#[xX]?|&)[0-9A-Fa-f]{0,3}\Z")
_WRAPPED_LINE: Final = 16  # characters; so long at least are the lines of encoded text in lines
_OPEN_KEY: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}(?:KEY(?: BLOCK)?-----[^-]{0,1900})?\Z")
_LOOK_BACK: Final = 4096


class Detectors:
    """The detectors of a route over the secrets that are known.

    Args:
        names: of ``token_patterns`` and ``known_secrets`` those to use.
        known: what a secret is called (shown to operators) → its value; short values are left out.
    """

    def __init__(self, names: Collection[str], known: Mapping[str, str]) -> None:
        self._patterns = "token_patterns" in names
        self._known = (
            {value.encode(): kind for kind, value in known.items() if len(value.encode()) >= MIN_KNOWN_SECRET}
            if "known_secrets" in names
            else {}
        )

    def __bool__(self) -> bool:
        return self._patterns or bool(self._known)

    def scan(self, data: bytes) -> list[Finding]:
        """Every secret in ``data``, in any reading; one found at the same place in several readings counts once."""
        findings: dict[tuple[bytes, int, int], Finding] = {}
        for reading in readings(data):
            for detector, kind, start, end in self._matches(reading.text):
                secret = reading.text[start:end]
                span = reading.origin(start, end)
                findings.setdefault((secret, *span), Finding(detector, kind, secret, *span, reading.how))
        return list(findings.values())

    def open_end(self, data: bytes) -> int:
        """How many bytes at the end of ``data`` may be the beginning of a secret that goes on in what follows.

        A piece of a stream that ends so must wait for the next one: sent on, it would carry most of the secret.
        """
        tail = data[-_LOOK_BACK:]
        if self._patterns and (key := _OPEN_KEY.search(tail)):
            return len(tail) - key.start()
        longest = 0
        for word in (_last_word(tail), tail[len(tail.rstrip(_HEX_LIST)) :]):
            whole = _CUT_ESCAPE.sub(b"", word)
            if any(self._is_open(reading.text) for reading in readings(whole)):
                longest = max(longest, len(word))
        return longest

    def _is_open(self, text: bytes) -> bool:
        if self._patterns and (_ANCHORS.search(text) or text.endswith(_ANCHOR_BEGINNINGS)):
            return True
        return any(text.endswith(value[:length]) for value in self._known for length in range(4, len(value)))

    def _matches(self, text: bytes) -> Iterator[tuple[str, str, int, int]]:
        for value, kind in self._known.items():
            begin = text.find(value)
            while begin >= 0:
                yield "known_secrets", kind, begin, begin + len(value)
                begin = text.find(value, begin + 1)
        if self._patterns:
            for anchor in _ANCHORS.finditer(text):
                for pattern in _BY_ANCHOR[anchor.group()]:
                    if match := _match_around(pattern, text, anchor.start()):
                        yield "token_patterns", pattern.kind, match.start(), match.end()


def cleaned(text: str, known: Mapping[str, str]) -> str:
    """``text`` with ``*`` over everything that looks like a secret, in ASCII; it may be stored."""
    data = text.encode("utf-8", "surrogateescape")
    return masked(data, Detectors(DETECTORS, known).scan(data)).decode("ascii", "backslashreplace")


def masked(text: bytes, findings: Iterable[Finding]) -> bytes:
    """``text`` with ``*`` over the characters of each secret."""
    out = bytearray(text)
    for finding in findings:
        out[finding.start : finding.end] = b"*" * (finding.end - finding.start)
    return bytes(out)


def _last_word(text: bytes) -> bytes:
    """The end of ``text`` that a token or encoded text may lie across; a word, or the lines of a wrapped one."""
    begin = len(text.rstrip(_WORD))
    while True:
        above = text[:begin].rstrip(b" \t\r\n")
        line = len(above) - len(above.rstrip(_WORD))
        if line < _WRAPPED_LINE or b"\n" not in text[len(above) : begin]:
            return text[begin:]
        begin = len(above) - line


def _match_around(pattern: _Pattern, text: bytes, anchor: int) -> re.Match[bytes] | None:
    for begin in range(max(0, anchor - pattern.before), anchor + 1):
        match = pattern.expression.match(text, begin, begin + MAX_SECRET)
        if match and match.end() > anchor and not (pattern.placeholders and _is_placeholder(match[0])):
            return match
    return None


def _is_placeholder(token: bytes) -> bool:
    return len(set(token)) < _MIN_DISTINCT or token.endswith(b"EXAMPLE")
