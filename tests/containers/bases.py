"""Where do the base images come from on a machine that reaches no container registry?

From Debian's own packages (`debootstrap`, then `docker import`) and, for Rust and Go, this machine's toolchains. They
stand in for the official images that `Dockerfile.sidecars` names by default, and they alone carry what is particular to
this machine: its certificate authorities and the settings of its package clients. Their tags name what they were made
from, so a second run finds them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

SUITE = "trixie"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
SETTINGS = [Path("/etc/pip.conf"), Path.home() / ".cargo/config.toml"]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "PIP_INDEX_URL", "GOPROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def build_arguments(scratch: Path) -> list[str]:
    """The `--build-arg`s of `Dockerfile.sidecars` that name the bases; two minutes where they have to be made.

    `scratch` takes the unpacked Debian for the while.
    """
    python = _make("python", _key(), lambda tag: _debian(tag, scratch))
    rust = _make("rust", _key(_output("rustc", "-vV")), lambda tag: _rust(tag, python))
    go = _make("go", _key(_output("go", "version")), lambda tag: _go(tag, python))
    named = {"PYTHON_BASE": python, "RUST_BASE": rust, "GO_BASE": go}
    return [word for name, tag in named.items() for word in ("--build-arg", f"{name}={tag}")]


def missing() -> list[str]:
    """What this machine lacks for making them, in words."""
    lacks = [program for program in ("debootstrap", "rustc", "go") if shutil.which(program) is None]
    return lacks if os.geteuid() == 0 else [*lacks, "root"]


def _make(name: str, key: str, make: Callable[[str], None]) -> str:
    tag = f"bot-bottle-test/{name}:{key}"
    known = subprocess.run(["docker", "image", "inspect", tag], capture_output=True).returncode == 0
    if not known:
        make(tag)
    return tag


def _key(*parts: str) -> str:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in (AUTHORITIES, *SETTINGS):
        digest.update(path.read_bytes() if path.exists() else b"")
    digest.update("\0".join((SUITE, *_variables(), *parts)).encode())
    return digest.hexdigest()[:12]


def _variables() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ]


def _debian(tag: str, scratch: Path) -> None:
    root = scratch / SUITE
    _run("debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv", SUITE, str(root))
    shutil.copy(AUTHORITIES, root / AUTHORITIES.relative_to("/"))
    for path in SETTINGS:
        if path.exists():
            (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to("/"))
    for cached in (root / "var/cache/apt/archives").glob("*.deb"):
        cached.unlink()
    shutil.rmtree(root / "var/lib/apt/lists")
    (root / "var/lib/apt/lists").mkdir()
    _import(["tar", "-C", str(root), "-c", "."], tag, [f"PATH={PATH}", *_variables()])
    shutil.rmtree(root)


def _rust(tag: str, python: str) -> None:
    sysroot = _output("rustc", "--print", "sysroot").strip()
    toolchain = ["tar", "-C", sysroot, "--exclude=./share", "--exclude=./libexec", "-c", "."]
    install = "apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && mkdir /opt/rust"
    _extend(python, tag, install, toolchain, "/opt/rust")


def _go(tag: str, python: str) -> None:
    _extend(python, tag, "mkdir /opt/go", ["tar", "-C", _output("go", "env", "GOROOT").strip(), "-c", "."], "/opt/go")


def _extend(base: str, tag: str, command: str, archive: Sequence[str], into: str) -> None:
    name = tag.replace("/", "-").replace(":", "-")
    _run("docker", "run", "--name", name, "--network", "host", base, "sh", "-c", command)
    try:
        with subprocess.Popen(archive, stdout=subprocess.PIPE) as tar:
            subprocess.run(["docker", "cp", "-", f"{name}:{into}"], stdin=tar.stdout, check=True, capture_output=True)
        path = f"ENV PATH={into}/bin:{PATH}"
        _run("docker", "commit", "--change", path, name, tag)
    finally:
        _run("docker", "rm", "--force", name)


def _import(archive: Sequence[str], tag: str, variables: Sequence[str]) -> None:
    changes = [word for variable in variables for word in ("--change", f"ENV {variable}")]
    with subprocess.Popen(archive, stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", *changes, "-", tag], stdin=tar.stdout, check=True, capture_output=True)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"{' '.join(words)} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )


def _output(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout
