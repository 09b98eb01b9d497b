"""Which routes.yaml does the egress proxy of this bottle say is in force?"""

from __future__ import annotations

import http.client
import json
from typing import NamedTuple
from urllib.parse import urlsplit

# What rust/egress/src/answers.rs answers there.
_PATH = "/bot-bottle/routes"


class Standing(NamedTuple):
    """As the proxy says it, or why it does not."""

    sha256: str | None = None
    """Of the file whose routes are in force."""
    refused: str | None = None
    """Why the file that is there now is not."""
    unknown: str | None = None
    """Why the proxy said nothing."""


def ask(url: str, patience: float = 5.0) -> Standing:
    """Asks the proxy at ``url``, which looks at its file before it answers. Waits ``patience`` seconds at most."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port or 80, timeout=patience)
    try:
        connection.request("GET", _PATH)
        answer = connection.getresponse()
        said = json.loads(answer.read(65_536))
        return Standing(said["sha256"], said["refused"])
    except (OSError, http.client.HTTPException) as error:
        return Standing(unknown=f"the egress proxy does not answer: {error or type(error).__name__}")
    except (ValueError, KeyError, TypeError):
        return Standing(unknown="the egress proxy does not say which routes are in force; it may be of another release")
    finally:
        connection.close()
