"""What does the egress proxy cost beside no proxy at all? ``python -m benchmarks.proxying [PROGRAM [LOAD]]``.

PROGRAM is a released ``bot-bottle-egress`` and LOAD the example of that name, as the command in docs/egress.md builds
them; without them those of target/real. One server and one client (LOAD), TLS on both sides. *direct* has no proxy,
*egress* is ours with its default detectors, *unscanned* with none, *mitmdump* the debugging proxy if it is on the
PATH. Their turns alternate; printed are medians, and how each stands to *direct*.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme

from benchmarks.harness import BUILT, CHECKOUT, turns

RELEASED = CHECKOUT / "target" / "real" / "x86_64-unknown-linux-gnu" / "release"
ROUNDS, SECONDS, KEPT, FRESH, MIB = 5, 3, 8, 8, 256
LARGE_MIB, IDLE = 1024, 5000
ROUTES = """\
routes:
  - host: scanned.example.test
  - host: unscanned.example.test
    dlp: {outbound_detectors: false, inbound_detectors: false}
"""


@contextmanager
def running(*command: object, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended in the end."""
    started = subprocess.Popen(
        [str(each) for each in command],
        env=os.environ | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.wait()


class Lab:
    """The server, the proxies, and the ways through them: target, proxy and certificate by name."""

    def __init__(self, home: Path, egress: Path, load: Path, ends: ExitStack) -> None:
        self.load = load
        authority = trustme.CA()
        authority.cert_pem.write_to_path(home / "ca.pem")
        own = authority.issue_cert("localhost", "scanned.example.test", "unscanned.example.test")
        own.private_key_pem.write_to_path(home / "key.pem")
        own.cert_chain_pems[0].write_to_path(home / "chain.pem")
        server = ends.enter_context(running(load, "serve", home / "chain.pem", home / "key.pem"))
        assert server.stdout is not None
        port = int(server.stdout.readline())
        (home / "routes.yaml").write_text(ROUTES)
        (home / "db").mkdir()
        hosts = ("scanned.example.test", "unscanned.example.test")
        begun = time.perf_counter()
        self.egress = ends.enter_context(
            running(
                egress,
                SUPERVISE_BOTTLE_SLUG="bench",
                SUPERVISE_DB_PATH=str(home / "db" / "bot-bottle.db"),
                EGRESS_ROUTES_FILE=str(home / "routes.yaml"),
                EGRESS_HOST="127.0.0.1",
                EGRESS_PORT="0",
                EGRESS_CONFDIR=str(home / "conf"),
                EGRESS_CA_CERT_FILE=str(home / "agent-ca.pem"),
                EGRESS_UPSTREAM_CA_FILE=str(home / "ca.pem"),
                EGRESS_CONNECT_TO=",".join(f"{host}:443=127.0.0.1:{port}" for host in hosts),
            )
        )
        assert self.egress.stderr is not None
        while "listening on port" not in (line := self.egress.stderr.readline()):
            assert line, "egress did not start"
        self.ready = time.perf_counter() - begun
        own_port = line.split("port ")[1].strip()
        self.ways = {"direct": (f"localhost:{port}", "-", str(home / "ca.pem"))}
        for name, host in zip(("egress", "unscanned"), hosts, strict=True):
            self.ways[name] = (f"{host}:443", f"127.0.0.1:{own_port}", str(home / "agent-ca.pem"))
        if shutil.which("mitmdump"):
            free = socket.create_server(("127.0.0.1", 0))
            at = free.getsockname()[1]
            free.close()
            conf, ca = home / "mitm", home / "ca.pem"
            options = [f"confdir={conf}", f"ssl_verify_upstream_trusted_ca={ca}", "stream_large_bodies=1m"]
            sets = [word for each in options for word in ("--set", each)]
            ends.enter_context(running("mitmdump", "-q", "--listen-host", "127.0.0.1", "-p", at, *sets))
            while not (conf / "mitmproxy-ca-cert.pem").exists():
                time.sleep(0.1)
            time.sleep(2)
            self.ways["mitmdump"] = (f"localhost:{port}", f"127.0.0.1:{at}", str(conf / "mitmproxy-ca-cert.pem"))

    def run(self, way: str, *words: object) -> dict[str, float]:
        command = [str(self.load), *self.ways[way], *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise SystemExit(f"{way} {words}: {done.stderr}")
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    def resident(self, what: str = "VmRSS") -> float:
        """MiB that the proxy holds, or held at most (``VmHWM``)."""
        status = Path(f"/proc/{self.egress.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(what)) / 1024


def compare(lab: Lab, *words: object) -> dict[str, dict[str, float]]:
    """The medians of each way's figures."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in lab.ways}
    for number in range(ROUNDS):
        for name in turns(lab.ways, number):
            found[name].append(lab.run(name, *words))
    return {
        name: {figure: statistics.median(each[figure] for each in rounds) for figure in rounds[0]}
        for name, rounds in found.items()
    }


def main() -> None:
    given = [Path(each).resolve() for each in sys.argv[1:]]
    egress = given[0] if given else RELEASED / "bot-bottle-egress"
    load = given[1] if len(given) > 1 else RELEASED / "examples" / "load"
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as home, ExitStack() as ends:
        lab = Lab(Path(home), egress, load, ends)
        idle = lab.resident()
        kept = compare(lab, "kept", SECONDS, KEPT)
        fresh = compare(lab, "fresh", SECONDS, FRESH)
        upload = compare(lab, "upload", MIB)
        before = lab.resident("VmHWM")
        lab.run("egress", "upload", LARGE_MIB)
        large = lab.resident("VmHWM") - before
        with running(load, *lab.ways["egress"], "idle", IDLE) as sockets:
            assert sockets.stdout is not None
            before = lab.resident()
            assert sockets.stdout.readline() == "open\n", sockets.stderr and sockets.stderr.read()
            waiting = lab.resident() - before
    names = [name for name in lab.ways if name != "direct"]
    print(f"{'':34}{'direct':>10}" + "".join(f"{name:>12}{'x':>7}" for name in names))
    rows = [
        (f"requests/s, {KEPT} kept connections", kept, "per_s"),
        ("  median, ms", kept, "p50_ms"),
        ("  p99, ms", kept, "p99_ms"),
        (f"new TLS connections/s, {FRESH} at once", fresh, "per_s"),
        (f"upload of {MIB} MiB, MiB/s", upload, "mib_per_s"),
    ]
    for what, figures, figure in rows:
        direct = figures["direct"][figure]
        others = "".join(f"{figures[name][figure]:12,.1f}{figures[name][figure] / direct:7.2f}" for name in names)
        print(f"{what:34}{direct:10,.1f}{others}")
    print(
        f"ready after {lab.ready:.3f} s; {idle:.1f} MiB idle; the program has {egress.stat().st_size / 2**20:.1f} MiB"
    )
    print(f"upload of {LARGE_MIB} MiB: {large:.1f} MiB more than before; {IDLE} idle WebSockets: {waiting:.1f} MiB")


if __name__ == "__main__":
    main()
