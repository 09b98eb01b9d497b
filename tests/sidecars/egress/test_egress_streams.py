"""Do streams stay streams: uploads in bounded memory, answers as they come, WebSockets, and cuts that fail closed?"""

from __future__ import annotations

import gzip
import hashlib
import random
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h2.connection
import h2.events
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from egress_proxy import API_TOKEN, ROUTES, Answer, Exchange, Proxy, Server, fresh, github_token, proxy, server

__all__ = ["fresh", "proxy", "server"]

API = "https://api.example.test"
MIB = 1 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 MiB that do not compress."""
    path = tmp_path_factory.mktemp("large") / "file"
    write_noise(path, 200)
    return path


def write_noise(path: Path, size: int) -> None:
    block = random.Random(1).randbytes(MIB)
    with open(path, "wb") as file:
        for number in range(size):
            file.write(number.to_bytes(4, "big") + block[4:])


class Growth:
    """By how much a process's memory grew while this watched; ``bytes`` afterwards."""

    def __init__(self, proxy: Proxy) -> None:
        self.bytes = 0
        self._proxy = proxy
        self._start = proxy.resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.bytes = max(self.bytes, self._proxy.resident() - self._start)

    def __enter__(self) -> Growth:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(MIB):
            digest.update(block)
    return digest.hexdigest()


@pytest.mark.parametrize(
    "host, options, size", [("open", "--http1.1", 200), ("open", "--http2", 200), ("api", "--http1.1", 80)]
)
def test_a_large_upload_passes_whole_in_bounded_memory(
    proxy: Proxy, server: Server, large: Path, tmp_path: Path, host: str, options: str, size: int
) -> None:
    upload = large
    if size != 200:  # scanning takes its time
        upload = tmp_path / "file"
        write_noise(upload, size)
    with Growth(proxy) as growth:
        answer = proxy.curl(f"https://{host}.example.test/up", options, "-T", str(upload), timeout=110)
    assert answer.status == 200
    (exchange,) = server.exchanges
    assert exchange.complete and exchange.length == size * MIB
    assert exchange.sha256.hexdigest() == sha256(upload)
    assert growth.bytes < 40 * MIB


@pytest.mark.parametrize("options", [("--http1.1",), ("--http2",)])
def test_a_slow_server_slows_the_client_and_fills_no_memory(
    proxy: Proxy, server: Server, tmp_path: Path, options: tuple[str, ...]
) -> None:
    upload = tmp_path / "file"
    write_noise(upload, 64)
    server.slow = 0.001
    with Growth(proxy) as growth:
        assert proxy.curl("https://open.example.test/up", *options, "-T", str(upload), timeout=110).status == 200
    assert server.exchanges[0].length == 64 * MIB
    assert growth.bytes < 30 * MIB


@pytest.mark.parametrize("options", [("--http1.1",), ("--http2",)])
def test_a_client_that_never_stops_fills_no_memory(proxy: Proxy, large: Path, options: tuple[str, ...]) -> None:
    """A denied upload is thrown away, not collected."""
    with Growth(proxy) as growth:
        answer = proxy.curl("https://paths.example.test/up", *options, "-H", "Expect:", "-T", str(large), timeout=110)
    assert answer.status == 403
    assert growth.bytes < 30 * MIB


def test_a_head_without_end_fills_no_memory(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as connection, Growth(proxy) as growth:
        connection.settimeout(2)
        connection.sendall(b"GET http://api.example.test/ HTTP/1.1\r\n")
        with pytest.raises(OSError):
            while True:
                connection.sendall(b"X: " + b"y" * 65536)
    assert growth.bytes < 30 * MIB
    assert proxy.curl(f"{API}/").status == 200


@pytest.fixture
def leaking(tmp_path: Path) -> tuple[str, Path]:
    """A token, and 4 MiB that hold it in the middle."""
    token, noise = github_token(), random.Random(3).randbytes(2 * MIB)
    path = tmp_path / "leaking"
    path.write_bytes(noise + b" " + token.encode() + b" " + noise)
    return token, path


def assert_cut(exchange: Exchange, token: str) -> None:
    """The server has neither the secret, nor what it could take for a whole request."""
    assert not exchange.complete
    assert exchange.length <= 2 * MIB + 1 + 8
    assert token[:12].encode() not in exchange.body


@pytest.mark.parametrize("options", [("--http1.1",), ("--http1.1", "-H", "Transfer-Encoding: chunked"), ("--http2",)])
def test_a_secret_in_a_large_body_cuts_the_request(
    proxy: Proxy, server: Server, leaking: tuple[str, Path], options: tuple[str, ...]
) -> None:
    token, path = leaking
    answer = proxy.curl("https://block.example.test/up", *options, "-T", str(path))
    assert (answer.status, answer.json()["error"]) == (403, "secret_blocked")
    assert_cut(server.exchanges[0], token)
    proxy.wait_for_audit("request-cut", "block.example.test")
    proxy.assert_nowhere(token)


def test_a_secret_in_a_large_compressed_body_cuts_the_request(proxy: Proxy, server: Server, tmp_path: Path) -> None:
    token, noise = github_token(), random.Random(4).randbytes(2 * MIB)
    path = tmp_path / "leaking.gz"
    path.write_bytes(gzip.compress(noise + b" " + token.encode() + b" " + noise))
    for options in (("-H", "Content-Encoding: gzip"), ()):
        answer = proxy.curl("https://redact.example.test/up", *options, "-T", str(path))
        assert (answer.status, answer.json()["error"]) == (403, "secret_not_masked")
        assert not server.exchanges[-1].complete


def test_a_secret_in_a_large_body_is_masked_in_passing(proxy: Proxy, server: Server, leaking: tuple[str, Path]) -> None:
    token, path = leaking
    assert proxy.curl("https://redact.example.test/up", "-T", str(path)).status == 200
    (exchange,) = server.exchanges
    assert exchange.complete and exchange.length == path.stat().st_size
    assert bytes(exchange.body) == path.read_bytes().replace(token.encode(), b"*" * 40)


def test_a_request_too_large_to_hold_is_asked_about_and_goes_through_the_next_time(
    proxy: Proxy, server: Server, leaking: tuple[str, Path]
) -> None:
    token, path = leaking
    first = proxy.curl(f"{API}/up", "-T", str(path))
    assert (first.status, first.json()["error"]) == (403, "secret_pending")
    assert_cut(server.exchanges[0], token)
    again = proxy.curl(f"{API}/up", "-T", str(path))
    assert again.json()["proposal_id"] == first.json()["proposal_id"], "asked once"
    proposal = proxy.decide("approved")
    assert proposal["id"] == first.json()["proposal_id"] and proposal["waiting"]
    assert proxy.curl(f"{API}/up", "-T", str(path)).status == 200
    assert server.exchanges[-1].complete
    fresh_question = proxy.curl(f"{API}/up", "-T", str(path))
    assert fresh_question.json()["error"] == "secret_pending", "one approval, one request"
    proxy.decide("rejected", "not again")
    assert "not again" in proxy.curl(f"{API}/up", "-T", str(path)).json()["reason"]
    proxy.assert_nowhere(token)


def test_a_request_too_large_to_hold_spends_one_use_of_the_grant_that_answers_it(
    proxy: Proxy, server: Server, leaking: tuple[str, Path]
) -> None:
    token, path = leaking
    assert proxy.curl(f"{API}/up", "-T", str(path)).json()["error"] == "secret_pending"
    proposal = proxy.decide("approved", grant="uses:2")
    proxy.operator(
        "import time\n"
        "until, store = time.monotonic() + 50, GrantStore(sys.argv[1])\n"
        "wanted = (arguments[0], 1)\n"
        "while not (result := wanted in [(each.proposal_id, each.uses_left) for each in store.list_grants()]):\n"
        "    assert time.monotonic() < until\n"
        "    time.sleep(0.02)  # the proxy takes the first use once it has the answer",
        proposal["id"],
    )
    assert proxy.curl(f"{API}/up", "-T", str(path)).status == 200
    assert proxy.curl(f"{API}/", "-d", token).status == 200, "the second use"
    request = proxy.curl_started(f"{API}/", "-d", token)
    proxy.decide("rejected")
    assert Answer.of(request).status == 403, "there is no third"


def test_a_secret_in_the_head_of_a_large_request_sends_nothing(proxy: Proxy, server: Server, tmp_path: Path) -> None:
    path, token = tmp_path / "file", github_token()
    path.write_bytes(bytes(2 * MIB))
    answer = proxy.curl(f"{API}/up", "-T", str(path), "-H", f"X-Key: {token}")
    assert answer.json()["error"] == "secret_pending"
    assert not server.exchanges
    proxy.decide("approved", grant="once")
    assert proxy.curl(f"{API}/up", "-T", str(path), "-H", f"X-Key: {token}").status == 200


def test_an_answer_comes_as_it_is_sent(proxy: Proxy, server: Server) -> None:
    for host in ("api", "auth"):  # the second is scanned on its way back
        server.go_on.clear()
        with (
            httpx.Client(proxy=proxy.url, verify=_context(proxy), timeout=20) as client,
            client.stream("GET", f"https://{host}.example.test/drip") as answer,
        ):
            pieces = answer.iter_bytes()
            assert next(pieces) == b"data: one\n\n", "while the server has not gone on"
            server.go_on.set()
            assert next(pieces) == b"data: two\n\n"


def test_a_request_is_passed_on_as_it_comes_once_it_is_too_long_to_hold(proxy: Proxy, server: Server) -> None:
    arrived = threading.Event()

    def upload() -> Iterator[bytes]:
        yield bytes(2 * MIB)
        arrived.wait(20)
        yield b"the end"

    def look() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not (server.exchanges and server.exchanges[0].length >= 2 * MIB):
            time.sleep(0.02)
        arrived.set()

    threading.Thread(target=look).start()
    with httpx.Client(proxy=proxy.url, verify=_context(proxy), timeout=40) as client:
        assert client.post(f"{API}/up", content=upload()).json()["length"] == 2 * MIB + 7


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/grpc+proto"])
def test_a_client_that_waits_for_an_answer_to_half_its_body_gets_it(proxy: Proxy, server: Server, kind: str) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as plain:
        plain.sendall(b"CONNECT api.example.test:443 HTTP/1.1\r\nHost: api.example.test:443\r\n\r\n")
        assert plain.recv(4096).startswith(b"HTTP/1.1 200")
        context = _context(proxy)
        context.set_alpn_protocols(["h2"])
        with context.wrap_socket(plain, server_hostname="api.example.test") as stream:
            client = h2.connection.H2Connection()
            client.initiate_connection()
            head = {":method": "POST", ":scheme": "https", ":authority": "api.example.test", ":path": "/early"}
            client.send_headers(1, [*head.items(), ("content-type", kind)])
            for message in (b"one", b"two", b"three"):
                client.send_data(1, message)
                stream.sendall(client.data_to_send())
                got = b""
                while got != message:
                    for event in client.receive_data(stream.recv(65536)):
                        if isinstance(event, h2.events.DataReceived):
                            got += event.data
            client.send_data(1, f" {github_token()} ".encode(), end_stream=True)
            stream.sendall(client.data_to_send())
            ended: list[h2.events.Event] = []
            while not ended:
                events = client.receive_data(stream.recv(65536))
                ended = [each for each in events if isinstance(each, (h2.events.StreamReset, h2.events.StreamEnded))]
            assert isinstance(ended[0], h2.events.StreamReset)
    assert not server.exchanges[0].complete
    assert bytes(server.exchanges[0].body) == b"onetwothree"
    proxy.decide("rejected")


# -- WebSocket -----------------------------------------------------------------------------------------------------


@contextmanager
def websocket(proxy: Proxy, host: str = "api", **options: object) -> Iterator[ClientConnection]:
    with connect(
        f"wss://{host}.example.test/ws", proxy=proxy.url, ssl=_context(proxy), max_size=64 * MIB, **options
    ) as found:
        yield found


@pytest.mark.parametrize("compression", ["deflate", None])
def test_websocket_messages_pass_both_ways(proxy: Proxy, server: Server, compression: str | None) -> None:
    with websocket(proxy, compression=compression) as connection:
        for message in ("hello", b"\x00\x01\x02", "w" * MIB, ["in ", "three ", "pieces"]):
            connection.send(message)
            expected = "".join(message) if isinstance(message, list) else message
            assert connection.recv(timeout=20) == expected
        assert connection.ping().wait(10)
    with websocket(proxy, "auth"):
        assert server.exchanges[-1].header("authorization") == f"Bearer {API_TOKEN}"


def test_a_plain_websocket_passes_too(proxy: Proxy) -> None:
    with connect("ws://api.example.test/ws", proxy=proxy.url) as connection:
        connection.send("hello")
        assert connection.recv(timeout=20) == "hello"


def test_a_secret_in_a_message_is_held_and_decided(proxy: Proxy, server: Server) -> None:
    token = github_token()
    with websocket(proxy) as connection:
        connection.send(f"key {token}")
        proposal = proxy.decide("approved")
        assert "WebSocket message" in proposal["proposed_file"]
        assert connection.recv(timeout=20) == f"key {token}"
        connection.send(f"again {token}")
        assert connection.recv(timeout=20) == f"again {token}", "allowed for as long as this connection lasts"
    refused = github_token()
    with websocket(proxy) as connection:
        connection.send(f"key {refused}")
        proxy.decide("rejected")
        with pytest.raises(ConnectionClosed) as closed:
            connection.recv(timeout=20)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008
        assert closed.value.rcvd.reason == "secret_rejected"
    assert not any(refused in str(message) for message in server.messages)
    proxy.assert_nowhere(token, refused)


def test_a_secret_is_seen_across_messages_pieces_and_control_frames(proxy: Proxy, server: Server) -> None:
    token = github_token()

    def refused(send: object) -> bool:
        with websocket(proxy, "block") as connection:
            try:
                send(connection)  # type: ignore[operator]
                connection.send("and on")
                while connection.recv(timeout=20):
                    pass
            except ConnectionClosed:
                return True
        return False

    assert refused(lambda connection: connection.send(token))
    assert refused(lambda connection: connection.send(token.encode().hex()))
    assert refused(lambda connection: connection.send([token[:10], token[10:30], token[30:]]))
    assert refused(lambda connection: (connection.send(token[:20]), connection.send(token[20:])))
    assert refused(lambda connection: connection.ping(token))
    assert refused(lambda connection: (connection.ping(token[:20]), connection.ping(token[20:])))
    with websocket(proxy, "block") as connection:
        connection.close(1000, token)
    assert not any(token[20:] in str(message) for message in server.messages)


def test_a_secret_in_a_message_is_masked(proxy: Proxy, server: Server) -> None:
    token = github_token()
    with websocket(proxy, "redact") as connection:
        connection.send(f"key {token}, and more")
        assert connection.recv(timeout=20) == f"key {'*' * 40}, and more"
    with websocket(proxy, "auth") as connection:
        connection.send("who am I")
        assert connection.recv(timeout=20) == f"Bearer {'*' * len(API_TOKEN)}"


def test_a_client_that_leaves_a_held_message_withdraws(proxy: Proxy, server: Server) -> None:
    with websocket(proxy) as connection:
        connection.send(github_token())
        proxy.wait_until_pending(1)
        connection.socket.shutdown(socket.SHUT_RDWR)
        assert proxy.wait_until_pending(0) == []


def test_a_message_without_end_is_refused(proxy: Proxy) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(MIB)

    with websocket(proxy, "open", compression=None) as connection, Growth(proxy) as growth:
        with pytest.raises(ConnectionClosed):
            connection.send(endless())
        assert connection.close_code in (1009, 1006), "1006: the rest that it sent overtook the reason"
    assert growth.bytes < 80 * MIB


def test_an_open_websocket_does_not_outlive_its_route(proxy: Proxy) -> None:
    proxy.write_routes(ROUTES + "  - host: late.example.test\n")
    try:
        with websocket(proxy, "late") as connection:
            connection.send("hello")
            assert connection.recv(timeout=20) == "hello"
            proxy.write_routes(ROUTES)
            connection.send("hello")
            with pytest.raises(ConnectionClosed):
                connection.recv(timeout=20)
    finally:
        proxy.write_routes(ROUTES)


def _context(proxy: Proxy) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=proxy.ca_file)
