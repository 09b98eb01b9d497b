"""Do the programs that agents use get through the proxy: package managers, git, and HTTP clients of several runtimes?

Each is the real program against a registry made for the test, and goes through the proxy because its usual settings say
so, as they do in a bottle.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import ssl
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import pytest
import trustme

from bot_bottle.documents import presets
from bot_bottle.launch import trust
from egress_proxy import API_TOKEN, Proxy
from needs import cannot

HOST = "registry.example.test"
APIS = ("api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com")
PASSED = "own.example.test"


@dataclass
class Shelf:
    """An HTTPS server: files by path, git repositories of a directory, and the headers of what was asked."""

    directory: Path
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    go_on: threading.Event = field(default_factory=threading.Event)
    token: str = ""

    def __post_init__(self) -> None:
        authority = trustme.CA()
        self.ca_file = self.directory / "shelf-ca.pem"
        authority.cert_pem.write_to_path(str(self.ca_file))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST, PASSED, *APIS).configure_cert(context)
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                if self.headers.get("transfer-encoding") == "chunked":
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                lines = {name.lower(): value for name, value in self.headers.items()}
                shelf.asked.append((self.command, self.path, lines))
                shelf.answer(self, body)

            do_POST = do_HEAD = do_GET

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def connect_to(self) -> str:
        port = self._server.server_address[1]
        return ",".join(f"{host}:443=127.0.0.1:{port}" for host in (HOST, PASSED, *APIS))

    def answer(self, to: BaseHTTPRequestHandler, body: bytes) -> None:
        path, _, query = to.path.partition("?")
        if path.startswith("/git/"):
            return self._git(to, path.removeprefix("/git"), query, body)
        if path.endswith(("/messages", "/completions", ":streamGenerateContent")):
            return self._stream(to)
        if path.startswith(("/v2/", "/token")):
            return self._pull(to, path)
        content = self.files.get(path)
        if content is None:
            return say(to, 404, b"no")
        kind = "text/html" if path.endswith("/") else "application/octet-stream"
        return say(to, 200, content, **{"Content-Type": kind})

    def _git(self, to: BaseHTTPRequestHandler, path: str, query: str, body: bytes) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": to.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": to.headers.get("content-type") or "",
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": to.headers.get("content-encoding") or "",
            "GIT_PROTOCOL": to.headers.get("git-protocol") or "",
            "GIT_HTTP_MAX_REQUEST_BUFFER": "100M",
            "REMOTE_USER": "agent",
            "REMOTE_ADDR": "127.0.0.1",
        }
        said = subprocess.run(["git", "http-backend"], input=body, env=environment, capture_output=True).stdout
        head, _, rest = said.partition(b"\r\n\r\n")
        lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        status = int(lines.pop("Status", "200").split()[0])
        say(to, status, rest, **lines)

    def _stream(self, to: BaseHTTPRequestHandler) -> None:
        """Half of what a model says; the rest when the test has seen that."""
        to.send_response(200)
        to.send_header("Content-Type", "text/event-stream")
        to.send_header("Transfer-Encoding", "chunked")
        to.end_headers()
        for event in (b'data: {"delta": "def main"}\n\n', b'data: {"delta": "(): ..."}\n\ndata: [DONE]\n\n'):
            to.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.go_on.wait(60)
        to.wfile.write(b"0\r\n\r\n")

    def _pull(self, to: BaseHTTPRequestHandler, path: str) -> None:
        """The distribution specification's token dance."""
        if path == "/token":
            return say(to, 200, json.dumps({"token": self.token}).encode())
        if to.headers.get("authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="https://{PASSED}/token",service="registry",scope="repository:thing:pull"'
            return say(to, 401, b"{}", **{"WWW-Authenticate": challenge})
        return say(to, 200, self.files.get(path, b"{}"))


def say(to: BaseHTTPRequestHandler, status: int, body: bytes, **lines: str) -> None:
    to.send_response(status)
    for name, value in {"Content-Length": str(len(body)), **lines}.items():
        to.send_header(name, value)
    to.end_headers()
    if to.command != "HEAD":
        to.wfile.write(body)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    found = Shelf(tmp_path_factory.mktemp("shelf"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[Proxy]:
    keys = {"ANTHROPIC_API_KEY": API_TOKEN + "a", "OPENAI_API_KEY": API_TOKEN + "o", "GEMINI_API_KEY": API_TOKEN + "g"}
    found = Proxy(tmp_path_factory.mktemp("egress"), shelf, **keys)  # type: ignore[arg-type]
    text = presets.added(None, presets.expand(["anthropic", "openai", "google", HOST], keys))[0]
    found.write_routes(f"{text}  - host: {PASSED}\n    auth: passthrough\n")
    yield found
    assert found.stop() == 0, found.log()
    assert not found.pending(), "and nothing ordinary was held"


@pytest.fixture(autouse=True)
def fresh_shelf(shelf: Shelf) -> None:
    shelf.asked.clear()
    shelf.go_on.clear()


def run(gate: Proxy, directory: Path, *command: str | Path, **environment: str) -> str:
    """Runs a client as it would be in the agent's container; what it prints."""
    if which(command[0]) is None:
        cannot(f"there is no {command[0]}")
    settings = {name: gate.url for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    certificates = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "PIP_CERT", "CARGO_HTTP_CAINFO", "GIT_SSL_CAINFO")
    settings |= dict.fromkeys(certificates, gate.ca_file)
    kept = {name: os.environ[name] for name in ("PATH", "RUSTUP_HOME", "JAVA_HOME") if name in os.environ}
    kept.setdefault("RUSTUP_HOME", str(Path.home() / ".rustup"))
    done = subprocess.run(
        [str(each) for each in command],
        cwd=directory,
        env={**kept, **settings, "HOME": str(directory), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr + gate.log()
    return done.stdout


def tarball(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def test_pip_installs_a_wheel(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    wheel = zipped(
        {
            "thing.py": b"x = 1\n",
            "thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
            "thing-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            "thing-1.0.dist-info/RECORD": b"thing.py,,\nthing-1.0.dist-info/METADATA,,\n"
            b"thing-1.0.dist-info/WHEEL,,\nthing-1.0.dist-info/RECORD,,\n",
        }
    )
    name = "thing-1.0-py3-none-any.whl"
    link = f'<a href="/files/{name}#sha256={hashlib.sha256(wheel).hexdigest()}">{name}</a>'
    shelf.files |= {"/simple/thing/": link.encode(), f"/files/{name}": wheel}
    index = f"https://{HOST}/simple"
    pip = (sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-cache-dir", "--isolated")
    run(gate, tmp_path, *pip, "--cert", gate.ca_file, "--index-url", index, "--target", tmp_path / "here", "thing")
    assert (tmp_path / "here" / "thing.py").read_text() == "x = 1\n"


def test_npm_installs_a_package(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    package = json.dumps({"name": "thing", "version": "1.0.0", "main": "index.js"}).encode()
    packed = tarball({"package/package.json": package, "package/index.js": b"module.exports = 1\n"})
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    dist = {"tarball": f"https://{HOST}/npm/thing/-/thing-1.0.0.tgz", "integrity": integrity}
    versions = {"1.0.0": {"name": "thing", "version": "1.0.0", "dist": dist}}
    about = {"name": "thing", "dist-tags": {"latest": "1.0.0"}, "versions": versions}
    shelf.files |= {"/npm/thing": json.dumps(about).encode(), "/npm/thing/-/thing-1.0.0.tgz": packed}
    (tmp_path / "package.json").write_text('{"name": "mine", "version": "1.0.0"}')
    options = ("--no-audit", "--no-fund", "--no-update-notifier", f"--registry=https://{HOST}/npm/")
    # What the machine's own configuration trusts is not what a bottle does.
    run(gate, tmp_path, "npm", "install", "thing", *options, NPM_CONFIG_GLOBALCONFIG=str(tmp_path / "none"))
    assert (tmp_path / "node_modules" / "thing" / "index.js").exists()


def test_cargo_fetches_a_crate(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    manifest = '[package]\nname = "thing"\nversion = "1.0.0"\nedition = "2021"\n'
    crate = tarball({"thing-1.0.0/Cargo.toml": manifest.encode(), "thing-1.0.0/src/lib.rs": b"pub fn x() {}\n"})
    line = {"name": "thing", "vers": "1.0.0", "deps": [], "features": {}, "yanked": False}
    line["cksum"] = hashlib.sha256(crate).hexdigest()
    download = f"https://{HOST}/crates/{{crate}}/{{version}}/download"
    shelf.files |= {
        "/index/config.json": json.dumps({"dl": download}).encode(),
        "/index/th/in/thing": json.dumps(line).encode() + b"\n",
        "/crates/thing/1.0.0/download": crate,
    }
    (tmp_path / ".cargo").mkdir()
    source = '[source.crates-io]\nreplace-with = "ours"\n[source.ours]\n'
    (tmp_path / ".cargo" / "config.toml").write_text(f'{source}registry = "sparse+https://{HOST}/index/"\n')
    mine = manifest.replace("thing", "mine") + '[dependencies]\nthing = "1.0.0"\n'
    (tmp_path / "Cargo.toml").write_text(mine)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "lib.rs").write_text("")
    run(gate, tmp_path, "cargo", "fetch", CARGO_HOME=str(tmp_path / "home"))
    assert list((tmp_path / "home").rglob("thing-1.0.0.crate"))


def test_go_downloads_a_module(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    at, module = "/go/example.test/thing/@v/v1.0.0", b"module example.test/thing\n\ngo 1.20\n"
    inside = "example.test/thing@v1.0.0/"
    shelf.files |= {
        f"{at}.info": b'{"Version": "v1.0.0", "Time": "2026-01-01T00:00:00Z"}',
        f"{at}.mod": module,
        f"{at}.zip": zipped({f"{inside}go.mod": module, f"{inside}thing.go": b"package thing\n"}),
    }
    settings = {"GOPROXY": f"https://{HOST}/go", "GOSUMDB": "off", "GOTOOLCHAIN": "local", "GOFLAGS": "-modcacherw"}
    said = run(gate, tmp_path, "go", "mod", "download", "-json", "example.test/thing@v1.0.0", **settings)
    assert Path(json.loads(said)["Dir"], "thing.go").exists()


def test_git_clones_fetches_and_pushes(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    launched = trust.environment(str(gate.ca_file), None, proxy=("egress", 9099))
    who |= {name: value for name, value in launched.items() if name.startswith("GIT_CONFIG_")}

    def git(directory: Path, *arguments: str) -> str:
        return run(gate, directory, "git", *arguments, **who)

    git(shelf.directory, "init", "--quiet", "--bare", "--initial-branch=main", "repo.git")
    git(shelf.directory, "-C", "repo.git", "config", "http.receivepack", "true")
    url = f"https://{HOST}/git/repo.git"
    first, second = tmp_path / "first", tmp_path / "second"
    git(tmp_path, "clone", "--quiet", url, str(first))
    (first / "large.bin").write_bytes(os.urandom(3 << 20))
    git(first, "add", "--all")
    git(first, "commit", "--quiet", "--message", "one")
    git(first, "push", "--quiet", "origin", "HEAD:main")
    git(tmp_path, "clone", "--quiet", url, str(second))
    assert (second / "large.bin").read_bytes() == (first / "large.bin").read_bytes()
    (first / "more.txt").write_text("more\n")
    git(first, "add", "--all")
    git(first, "commit", "--quiet", "--message", "two")
    git(first, "push", "--quiet", "origin", "HEAD:main")
    git(second, "pull", "--quiet")
    assert (second / "more.txt").read_text() == "more\n"


def test_apt_updates_and_downloads(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    control = "Package: thing\nVersion: 1.0\nArchitecture: all\nMaintainer: a <a@b>\nDescription: thing\n"
    (tmp_path / "build" / "DEBIAN").mkdir(parents=True)
    (tmp_path / "build" / "DEBIAN" / "control").write_text(control)
    run(gate, tmp_path, "dpkg-deb", "--build", "build", "thing.deb")
    package = (tmp_path / "thing.deb").read_bytes()
    entry = f"{control}Filename: ./thing.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n\n"
    shelf.files |= {"/apt/./Packages": entry.encode(), "/apt/./thing.deb": package}
    shelf.files |= {"/apt/Packages": entry.encode(), "/apt/thing.deb": package}
    (tmp_path / "list").write_text(f"deb [trusted=yes allow-insecure=yes] https://{HOST}/apt/ ./\n")
    (tmp_path / "state" / "lists" / "partial").mkdir(parents=True)
    (tmp_path / "cache" / "archives" / "partial").mkdir(parents=True)
    (tmp_path / "state" / "status").touch()
    options = {
        "Dir::Etc::sourcelist": tmp_path / "list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State": tmp_path / "state",
        "Dir::State::status": tmp_path / "state" / "status",
        "Dir::Cache": tmp_path / "cache",
        "Acquire::https::CAInfo": gate.ca_file,
        "Acquire::https::Proxy": gate.url,
        "APT::Sandbox::User": "root",
        "Acquire::Languages": "none",
    }
    apt = ("apt-get", "--quiet", *(word for name, value in options.items() for word in ("-o", f"{name}={value}")))
    (tmp_path / "here").mkdir()
    run(gate, tmp_path, *apt, "update")
    run(gate, tmp_path / "here", *apt, "download", "thing")
    assert [each.read_bytes() for each in (tmp_path / "here").iterdir()] == [package]


JAVA = """
import java.io.*; import java.net.*; import java.net.http.*; import java.nio.file.*; import java.security.*;
import java.security.cert.*; import javax.net.ssl.*;
public class Client {
  public static void main(String[] words) throws Exception {
    KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
    trusted.load(null, null);
    try (InputStream file = Files.newInputStream(Path.of(words[2]))) {
      trusted.setCertificateEntry("egress", CertificateFactory.getInstance("X.509").generateCertificate(file));
    }
    TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
    trust.init(trusted);
    SSLContext context = SSLContext.getInstance("TLS");
    context.init(null, trust.getTrustManagers(), null);
    HttpClient client = HttpClient.newBuilder().sslContext(context)
      .proxy(ProxySelector.of(new InetSocketAddress("127.0.0.1", Integer.parseInt(words[1])))).build();
    HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(words[0]));
    for (HttpRequest each : new HttpRequest[] {
        request.build(), request.copy().POST(HttpRequest.BodyPublishers.ofString("x".repeat(100000))).build()}) {
      HttpResponse<String> answer = client.send(each, HttpResponse.BodyHandlers.ofString());
      System.out.println(answer.statusCode() + " " + answer.version() + " " + answer.body());
    }
  }
}
"""


def test_a_jvm_speaks_http2_through_it(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/greeting"] = b"hello"
    (tmp_path / "Client.java").write_text(JAVA)
    said = run(gate, tmp_path, "java", "Client.java", f"https://{HOST}/greeting", str(gate.port), gate.ca_file)
    assert said.splitlines() == ["200 HTTP_2 hello"] * 2


NODE = """
const [url, proxy] = process.argv.slice(2);
if (Number(process.versions.node.split(".")[0]) >= 24) {
  fetch(url).then(async (answer) => console.log(answer.status, await answer.text()));
} else { // whose fetch knows no proxy
  const { hostname } = new URL(url);
  const asked = require("http").request({ ...new URL(proxy), hostname: "127.0.0.1", port: new URL(proxy).port,
    method: "CONNECT", path: `${hostname}:443` });
  asked.on("connect", (_, socket) => require("https").get(url, { socket, agent: false, servername: hostname },
    (answer) => answer.on("data", (text) => console.log(answer.statusCode, String(text)))));
  asked.end();
}
"""


def test_node_fetches(gate: Proxy, shelf: Shelf, tmp_path: Path) -> None:
    shelf.files["/greeting"] = b"hello"
    (tmp_path / "client.cjs").write_text(NODE)
    said = run(gate, tmp_path, "node", "client.cjs", f"https://{HOST}/greeting", gate.url, NODE_USE_ENV_PROXY="1")
    assert said == "200 hello\n"


KEYS = {
    "api.anthropic.com": ("/v1/messages", "x-api-key", API_TOKEN + "a"),
    "api.openai.com": ("/v1/chat/completions", "authorization", f"Bearer {API_TOKEN}o"),
    "generativelanguage.googleapis.com": (
        "/v1beta/models/m:streamGenerateContent?alt=sse",
        "x-goog-api-key",
        API_TOKEN + "g",
    ),
}


@pytest.mark.parametrize("host", KEYS)
def test_a_model_s_api_streams_with_a_key_that_the_agent_does_not_have(gate: Proxy, shelf: Shelf, host: str) -> None:
    path, header, value = KEYS[host]
    own = [word for name in ("x-api-key", "x-goog-api-key", "Authorization") for word in ("-H", f"{name}: placeholder")]
    prompt = json.dumps({"stream": True, "messages": [{"role": "user", "content": "write main()"}]})
    asked = gate.curl_started(f"https://{host}{path}", "--no-buffer", *own, "--json", prompt)
    assert asked.stdout is not None
    seen = b""
    while b"def main" not in seen:
        seen += asked.stdout.readline()
    assert b"DONE" not in seen, "it comes as the model says it"
    shelf.go_on.set()
    rest, _ = asked.communicate(timeout=60)
    assert rest.endswith(b"data: [DONE]\n\n")
    lines = shelf.asked[0][2]
    assert lines[header] == value and "placeholder" not in lines.values()


def test_a_registrys_own_tokens_pass_where_the_route_says_so(gate: Proxy, shelf: Shelf) -> None:
    part = [
        base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=")
        for each in ({"alg": "ES256"}, {"sub": "pull", "iat": 1})
    ]
    shelf.token = f"{part[0]}.{part[1]}.{base64.urlsafe_b64encode(os.urandom(64)).decode().rstrip('=')}"
    manifest = f"https://{PASSED}/v2/thing/manifests/latest"
    refused = gate.curl(manifest)
    assert refused.status == 401 and 'realm="https://own.example.test/token"' in refused.head
    token = gate.curl(f"https://{PASSED}/token?service=registry&scope=repository:thing:pull").json()["token"]
    assert gate.curl(manifest, "-H", f"Authorization: Bearer {token}", "--max-time", "30").status == 200
    elsewhere = gate.curl_started(f"https://{PASSED}/v2/thing/blobs/x", "-d", token)
    gate.decide("rejected")
    assert b" 403" in elsewhere.communicate(timeout=60)[0], "that it may authenticate lets it into no other place"
