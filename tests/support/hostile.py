"""What would deceive whoever reads it in a terminal, and how does one see that it did not?"""

from __future__ import annotations

import re
import unicodedata

# What each would do if it reached the terminal, or Rich, as it is.
HOSTILE = {
    "clears the screen": "\x1b[2J\x1b[H",
    "sets the title": "\x1b]0;owned\x07",
    "eight-bit escape": "\x9b31m",
    "rewrites the line": "rm -rf /\rls",
    "deletes what was written": "evil\b\b\b\bgood",
    "reverses the rest": "\u202etxt.exe",
    "isolates": "\u2066abc\u2069",
    "joins invisibly": "pass\u200bword",
    "is blank but a letter": "\u3164\u115f",
    "hides as a tag": "\U000e0041\U000e0042",
    "soft hyphen": "git\u00adhub.com",
    "looks like a space": "a\u00a0b",
    "separates lines": "a\u2028b\u2029c\x0bd\x0ce\x85f",
    "is markup": "[bold red]approved[/bold red] [link=https://evil.example]x[/link] [/]",
    "is an emoji code": ":warning: :skull:",
    "links": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "writes the clipboard": "\x1b]52;c;cm0gLXJmIC8=\x07",
    "asks the terminal who it is": "\x1b[c\x1b[>q\x1bP+q544e\x1b\\",
    "eight-bit title": "\x9d0;owned\x9c",
    "leaves the alternate screen": "\x1b[?1049l\x1bc",
    "invisible operators": "a\u2061b\u2064c\ufeffd\u180ee",
    "marks direction": "a\u200eb\u200fc\u061cd",
    "annotates": "\ufff9a\ufffab\ufffb",
    "floods with combining marks": "z" + "\u0301" * 40,
}
EVERYTHING = " | ".join(HOSTILE.values())


def assert_harmless(output: str) -> None:
    """Nothing but newlines and printable characters; with colours, nothing but Rich's own SGR codes beside."""
    plain = re.sub("\x1b\\[[0-9;]*m", "", output)
    odd = {c for c in set(plain) if c not in "\n\r" and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")}
    assert not odd
    assert not {"\u3164", "\u115f", "\u00a0"} & set(plain)
