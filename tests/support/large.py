"""Which texts of 1 MiB, the most that an agent may send, are the hardest to draw?"""

from __future__ import annotations

from bot_bottle import MAX_PAYLOAD_BYTES as MOST


def _cut(text: str) -> str:
    return text.encode()[:MOST].decode(errors="ignore")


LARGE = {
    name: _cut(part * (MOST // len(part.encode()) + 1))
    for name, part in {
        "empty lines": "\n",
        "lines of a letter": "a\n",
        "tabs": "\tx\n",
        "a line of combining marks": "\u0301",
        "lines with marks": "e\u0301\u0301\n",
        "one line": "a",
        "one line of words": "ab ",
        "bidi overrides": "\u202e",
        "right to left": "\u05d0\n",
        "escapes": "\x1b[31m",
        "returns": "\r\n",
        "wide": "\u6f22",
        "wide lines": "\u6f22\u5b57\n",
        "emoji": "\U0001f469\u200d\U0001f467",
        "mixed scripts": "p\u0430ypal ",
        "a diff": "+a\n-b\n",
        "brackets": "[",
        "deep YAML": "".join(" " * depth + "a:\n" for depth in range(300)),
    }.items()
}
