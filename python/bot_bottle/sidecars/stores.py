"""How does a sidecar reach the host: by the mounted database, or over the broker? As its launch says.

``SUPERVISE_URL`` with ``SUPERVISE_TOKEN_FILE`` (for https also ``SUPERVISE_TLS_CERT_FILE``) is the broker. Without it,
``SUPERVISE_DB_PATH`` is the file, which the image sets for good; so a launch that names a broker overrides it.
In both cases, ``SUPERVISE_OPERATOR_KEY_FILE`` has the keys that answers and grants must be signed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from bot_bottle import DB_PATH_IN_CONTAINER, Broker
from bot_bottle.errors import InvalidInputError


class Way(TypedDict, total=False):
    """One of the two, and whose word counts, as stores of answers take it: ``QueueStore(slug, **way)``."""

    db_path: str
    broker: Broker
    operator_keys: str


def way(environment: Mapping[str, str]) -> Way:
    """What ``environment`` says; an empty variable counts as unset. Opens nothing.

    Raises:
        InvalidInputError: the URL is invalid, or something that it needs is missing.
    """
    url = environment.get("SUPERVISE_URL")
    keys = environment.get("SUPERVISE_OPERATOR_KEY_FILE")
    signed: Way = {"operator_keys": keys} if keys else {}
    if not url:
        return {"db_path": environment.get("SUPERVISE_DB_PATH") or DB_PATH_IN_CONTAINER, **signed}
    token_file = environment.get("SUPERVISE_TOKEN_FILE")
    if not token_file:
        raise InvalidInputError("SUPERVISE_URL names a broker, and SUPERVISE_TOKEN_FILE is not set; it holds the token")
    return {"broker": Broker(url, token_file, environment.get("SUPERVISE_TLS_CERT_FILE") or None), **signed}
