"""Do gRPC calls of every kind pass, made and answered by gRPC's own library: messages, metadata, trailers, status?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import trustme

from egress_proxy import API_TOKEN, HOSTS, Proxy, github_token

SECONDS = 40
SERVICE = "test.Echo"
COMPRESSIONS = [grpc.Compression.NoCompression, grpc.Compression.Gzip]


class GrpcServer:
    """A gRPC server over TLS; ``messages`` is what arrived, ``go_on`` lets ``many`` send its second message."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        self.ca_file = directory / "grpc-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        own = authority.issue_cert(*HOSTS)
        chain = b"".join(pem.bytes() for pem in own.cert_chain_pems)
        credentials = grpc.ssl_server_credentials([(own.private_key_pem.bytes(), chain)])
        self.messages: list[bytes] = []
        self.go_on = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8))
        handlers = {
            "one": grpc.unary_unary_rpc_method_handler(self._one),
            "many": grpc.unary_stream_rpc_method_handler(self._many),
            "sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "chat": grpc.stream_stream_rpc_method_handler(self._chat),
            "fail": grpc.unary_unary_rpc_method_handler(self._fail),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._server.start()

    def close(self) -> None:
        self._server.stop(None).wait()

    def connect_to(self) -> str:
        return ",".join(f"{host}:443=127.0.0.1:{self.port}" for host in HOSTS)

    def _one(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self.messages.append(message)
        said = dict(context.invocation_metadata())
        context.send_initial_metadata([("x-first", "head")])
        context.set_trailing_metadata([("x-last", "trailer"), ("x-sent", said.get("authorization", "nothing"))])
        return b"got " + message

    def _many(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield message + b" 1"
        self.go_on.wait(SECONDS)
        yield message + b" 2"

    def _sum(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        for message in messages:
            self.messages.append(message)
        return b" ".join(self.messages)

    def _chat(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for message in messages:
            self.messages.append(message)
            yield b"got " + message

    def _fail(self, message: bytes, context: grpc.ServicerContext) -> None:
        context.set_trailing_metadata([("x-detail-bin", b"\0\1\xff")])
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100 % \u00e9")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    found = GrpcServer(tmp_path_factory.mktemp("upstream"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, upstream: GrpcServer) -> Iterator[Proxy]:
    found = Proxy(tmp_path_factory.mktemp("egress"), upstream)
    yield found
    assert found.stop() == 0, found.log()
    assert "internal error" not in found.log(), found.log()


@pytest.fixture(autouse=True)
def fresh(upstream: GrpcServer) -> None:
    upstream.messages.clear()
    upstream.go_on.clear()


def channel(proxy: Proxy, host: str, compression: grpc.Compression = grpc.Compression.NoCompression) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials(Path(proxy.ca_file).read_bytes())
    options = [("grpc.http_proxy", proxy.url), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.secure_channel(f"{host}.example.test:443", credentials, options, compression)


def chat(client: grpc.Channel, messages: list[bytes]) -> list[bytes]:
    """The answers; each message is sent once the one before is answered."""
    answered = threading.Semaphore(1)

    def one_by_one() -> Iterator[bytes]:
        for message in messages:
            assert answered.acquire(timeout=SECONDS), "the one before is not answered"
            yield message

    got = []
    for answer in client.stream_stream(f"/{SERVICE}/chat")(one_by_one(), timeout=SECONDS):
        got.append(answer)
        answered.release()
    return got


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("host", ["api", "auth", "open"])  # scanned on its way out, on both, not at all
def test_calls_of_every_kind_pass(proxy: Proxy, upstream: GrpcServer, host: str, compression: grpc.Compression) -> None:
    with channel(proxy, host, compression) as client:
        answer, call = client.unary_unary(f"/{SERVICE}/one").with_call(b"hello " * 99, timeout=SECONDS)
        assert answer == b"got " + b"hello " * 99
        assert dict(call.initial_metadata())["x-first"] == "head"
        assert dict(call.trailing_metadata())["x-last"] == "trailer"
        upstream.messages.clear()

        many = client.unary_stream(f"/{SERVICE}/many")(b"part", timeout=SECONDS)
        assert next(many) == b"part 1", "while the server has not gone on"
        upstream.go_on.set()
        assert list(many) == [b"part 2"]

        three = [b"one", b"two", b"three"]
        assert client.stream_unary(f"/{SERVICE}/sum")(iter(three), timeout=SECONDS) == b"one two three"

        assert chat(client, three) == [b"got one", b"got two", b"got three"]


def test_a_failure_comes_with_its_status_its_words_and_its_trailers(proxy: Proxy) -> None:
    with channel(proxy, "auth") as client, pytest.raises(grpc.RpcError) as failed:
        client.unary_unary(f"/{SERVICE}/fail")(b"hello", timeout=SECONDS)
    assert failed.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert failed.value.details() == "not today: 100 % \u00e9"
    assert dict(failed.value.trailing_metadata())["x-detail-bin"] == b"\0\1\xff"


def test_the_credential_goes_to_the_server_and_does_not_come_back_in_a_trailer(proxy: Proxy) -> None:
    with channel(proxy, "auth") as client:
        sent = [("authorization", "the agent's own")]
        _, call = client.unary_unary(f"/{SERVICE}/one").with_call(b"hello", timeout=SECONDS, metadata=sent)
    assert dict(call.trailing_metadata())["x-sent"] == "Bearer " + "*" * len(API_TOKEN)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_secret_in_a_message_ends_the_call(proxy: Proxy, upstream: GrpcServer, compression: grpc.Compression) -> None:
    secret = b"again " * 40 + github_token().encode()
    with channel(proxy, "block", compression) as client:
        with pytest.raises(grpc.RpcError) as refused:
            client.unary_unary(f"/{SERVICE}/one")(secret, timeout=SECONDS)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as cut:
            chat(client, [b"hello", secret])
        assert cut.value.code() == grpc.StatusCode.INTERNAL, "the stream is reset: its answer had begun"
    assert upstream.messages == [b"hello"]
