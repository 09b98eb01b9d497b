"""Which browsers are told even while closed, and how does a message get to them? By Web Push.

It goes through the service of the browser's maker. It is encrypted for the browser (RFC 8291), so that the service sees
when something is pending and not what, and signed with this host's own key for pushes (VAPID, RFC 8292). If a phone is
lost, remove its file here.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from bot_bottle import InvalidInputError, bot_bottle_root
from bot_bottle.errors import BotBottleError
from bot_bottle.launch import managed
from bot_bottle.operator import words

if TYPE_CHECKING:
    from bot_bottle.notify.message import Message

_SECONDS: Final = 15.0
# After this time, a message is no longer useful.
_LASTS_SECONDS: Final = 4 * 3600
_MOST: Final = 50
_GONE: Final = (404, 410)


def public_key() -> str:
    """This host's key for pushes, in the form that a browser takes; created on first use."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    key = load_pem_private_key(_key_file().read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)  # noqa: S101  we made it
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).rstrip(b"=").decode()


def subscribe(endpoint: str, p256dh: str, auth: str, name: str) -> None:
    """Makes this browser of ``name`` be told from now on.

    Raises:
        InvalidInputError: that is no subscription, or there are too many.
    """
    at = urlsplit(endpoint)
    if at.scheme != "https" or not at.hostname or len(endpoint) > 2000:
        raise InvalidInputError("endpoint must be the https address of a push service")
    if (len(_decoded(p256dh)), len(_decoded(auth))) != (65, 16):
        raise InvalidInputError("p256dh and auth must be the keys of a browser's subscription")
    if len(subscriptions()) >= _MOST:
        raise InvalidInputError(f"{_MOST} browsers are told already; end one that is not used any more")
    content = {"endpoint": endpoint, "keys": {"p256dh": p256dh, "auth": auth}, "name": name, "since": words.now()}
    managed.write(_file(endpoint), json.dumps(content).encode())


def end(endpoint: str) -> None:
    """Stops telling it."""
    _file(endpoint).unlink(missing_ok=True)


def subscriptions() -> list[dict[str, Any]]:
    """The browsers that are told."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(_directory().glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                found.append(json.loads(path.read_bytes()))
    return found


def send(message: Message, url: str) -> list[str]:
    """Tells every browser; the problems that there were, one for each that was not reached.

    Raises:
        BotBottleError: the extra that does it is missing, or nobody is to be told.
    """
    try:
        import pywebpush
    except ModuleNotFoundError as error:
        raise BotBottleError(f"the Python module {error.name} is missing; install bot-bottle[push]") from None
    known = subscriptions()
    if not known:
        raise BotBottleError("no browser is told: open /phone on the dashboard with it")
    place = f"/#inbox/{message.proposals[0]['id']}" if len(message.proposals) == 1 else "/"
    body = json.dumps({"title": message.title, "body": message.body, "place": place})
    # The services want to know whom to write to when this host sends what it should not.
    claims = {"sub": url if url.startswith("https:") else "mailto:bot-bottle@localhost.invalid"}
    problems = []
    for each in known:
        host = urlsplit(each["endpoint"]).hostname
        subscription = {"endpoint": each["endpoint"], "keys": each["keys"]}
        try:
            pywebpush.webpush(
                subscription,
                body,
                vapid_private_key=str(_key_file()),
                vapid_claims=dict(claims),
                ttl=_LASTS_SECONDS,
                timeout=_SECONDS,
            )
        except pywebpush.WebPushException as error:
            status = getattr(error.response, "status_code", None)
            if status in _GONE:
                end(each["endpoint"])  # its browser has ended the subscription
            else:
                problems.append(f"{host} answered {status}")
        except (OSError, ValueError) as error:
            problems.append(f"{host} cannot be reached: {type(error).__name__}")
    return problems


def _directory() -> Path:
    return Path(bot_bottle_root(), "push")


def _file(endpoint: str) -> Path:
    return _directory() / f"{hashlib.sha256(endpoint.encode()).hexdigest()}.json"


def _key_file() -> Path:
    path = _directory() / "vapid.pem"
    if not path.exists():
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        managed.write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return b""
