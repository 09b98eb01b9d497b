"""Is a browser that is closed told, in what only it can read, and is one that has gone forgotten?"""

from __future__ import annotations

import base64
import http.server
import json
import os
import ssl
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bot_bottle.notify import push
from cli_process import Host
from dashboard_process import Operator

# Not among the locked packages, which come as wheels only: `make test-latest` runs this.
http_ece = pytest.importorskip("http_ece")
pytest.importorskip("pywebpush")


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Service(http.server.ThreadingHTTPServer):
    """A push service on loopback, and a browser's subscription to it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(str(self.authority))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)
        self.status = 201
        self.got: list[tuple[Any, bytes]] = []
        self.endpoint = f"https://127.0.0.1:{self.server_port}/send/abc"

    @property
    def subscription(self) -> dict[str, str]:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return {"endpoint": self.endpoint, "p256dh": encoded(point), "auth": encoded(self.auth)}

    def read(self, body: bytes) -> Any:
        """What the browser makes of it."""
        return json.loads(http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm"))


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.headers, body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def settle(host: Host) -> None:
    host.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    channel = '[notify.channels.phone]\nkind = "webpush"\nurl = "https://box.example.ts.net"\n'
    (host.root / "config.toml").write_text(channel)


def test_a_browser_is_told_in_what_only_it_can_read(host: Host, operator: Operator, service: Service) -> None:
    settle(host)
    trusted = {"REQUESTS_CA_BUNDLE": str(service.authority)}
    failed = host.run("notify", "test", "--channel", "phone", code=1, **trusted)
    assert "no browser is told" in failed.stdout
    key = operator.told("push")["key"]
    assert operator.post("/api/v1/push", json=service.subscription).status_code == 200
    host.run("notify", "test", "--channel", "phone", **trusted)
    ((headers, body),) = service.got
    assert service.read(body)["title"] == "bot-bottle: a test" and b"test" not in body
    # The signature is of the key that the browser was given, for this service, by this host.
    scheme, _, parameters = headers["Authorization"].partition(" ")
    given = dict(each.strip().split("=", 1) for each in parameters.split(","))
    assert scheme == "vapid" and given["k"] == key
    claims = json.loads(base64.urlsafe_b64decode(given["t"].split(".")[1] + "=="))
    assert claims["aud"] == f"https://127.0.0.1:{service.server_port}" and claims["sub"] == "https://box.example.ts.net"
    for path in (host.root / "push").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_one_that_is_gone_is_forgotten_and_one_that_fails_is_named(
    host: Host, operator: Operator, service: Service
) -> None:
    settle(host)
    trusted = {"REQUESTS_CA_BUNDLE": str(service.authority)}
    assert operator.post("/api/v1/push", json=service.subscription).status_code == 200
    service.status = 500
    assert "127.0.0.1 answered 500" in host.run("notify", "test", "--channel", "phone", code=1, **trusted).stdout
    assert "cannot be reached" in host.run("notify", "test", "--channel", "phone", code=1).stdout
    service.status = 410
    host.run("notify", "test", "--channel", "phone", **trusted)
    assert push.subscriptions() == []
    assert operator.post("/api/v1/push", json=service.subscription).status_code == 200
    assert operator.post("/api/v1/push/end", json={"endpoint": service.endpoint}).status_code == 200
    assert operator.told("push")["told"] == 0


@pytest.mark.parametrize(
    "wrong",
    [{"endpoint": "http://127.0.0.1/x"}, {"endpoint": "file:///etc/passwd"}, {"p256dh": "AAAA"}, {"auth": "x" * 30}],
)
def test_what_is_no_subscription_is_refused(
    host: Host, operator: Operator, service: Service, wrong: dict[str, str]
) -> None:
    answer = operator.post("/api/v1/push", json=service.subscription | wrong)
    assert answer.status_code == 422 and "must be" in answer.json()["detail"]
    assert push.subscriptions() == []
