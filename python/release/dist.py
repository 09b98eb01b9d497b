"""Which files make up a release? `make dist` runs this: wheels for all machines, an sdist, SHA256SUMS and an SBOM.

Everything is cross-built on one Linux machine, offline once `cargo fetch` and pip have run. The extension is linked
by zig, against the oldest C library that its wheel's tag promises. The static programs for sidecar images are linked
by gcc, because zig brings no static glibc, and musl's allocator would slow the proxy down. docs/releasing.md says what
is needed and what was tested.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "dist"
BUILT: Final = ROOT / "target"
PROGRAMS: Final = ROOT / "python" / "bot_bottle" / "programs"
# Where maturin looks for what pip puts beside the interpreter.
SCRIPTS: Final = ROOT / "bot_bottle._native.data" / "scripts"
BIN: Final = Path(sys.executable).parent
LARGEST: Final = 14 * 1024 * 1024

# What an engine calls the architecture → the target of its static programs.
IMAGES: Final = {"amd64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}


class Wheel(NamedTuple):
    """One wheel: how it is compiled, and which systems its tag promises (PEP 600, PEP 656)."""

    target: str
    tag: str | None
    images: str

    @property
    def helper(self) -> str:
        """The target of the `bot-bottle-sidecar` that pip puts on PATH; static on Linux, so any C library will do."""
        return IMAGES[self.images] if "linux" in self.target else self.target


WHEELS: Final = (
    Wheel("x86_64-unknown-linux-gnu", "manylinux_2_28", "amd64"),
    Wheel("aarch64-unknown-linux-gnu", "manylinux_2_28", "arm64"),
    Wheel("x86_64-unknown-linux-musl", "musllinux_1_2", "amd64"),
    Wheel("aarch64-unknown-linux-musl", "musllinux_1_2", "arm64"),
    Wheel("x86_64-apple-darwin", None, "amd64"),
    Wheel("aarch64-apple-darwin", None, "arm64"),
)


def environment() -> dict[str, str]:
    """For every build: no network, no time and no directory of this machine in what comes out."""
    built = dict(os.environ)
    built["PATH"] = f"{BIN}{os.pathsep}{built['PATH']}"
    built["CARGO_NET_OFFLINE"] = "true"
    built["CARGO_INCREMENTAL"] = "0"
    built["SOURCE_DATE_EPOCH"] = run("git", "log", "-1", "--format=%ct", output=True).strip()
    built["ZERO_AR_DATE"] = "1"
    return built


def run(*words: str | Path, output: bool = False, env: dict[str, str] | None = None) -> str:
    """Runs a program to its end, shown as it is typed; ends this one if it fails."""
    if not output:
        print("$", *words, file=sys.stderr, flush=True)
    done = subprocess.run(words, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE if output else None)
    if done.returncode:
        sys.exit(f"make dist: {words[0]} failed with exit code {done.returncode}")
    return done.stdout or ""


def missing(wheels: tuple[Wheel, ...]) -> list[str]:
    """One sentence for each thing that this machine lacks, with what brings it."""
    wanted = {each.target for each in wheels} | set(IMAGES.values())
    lacks = [
        f"Rust's library for {target}: rustup target add {target}"
        for target in sorted(wanted - set(run("rustup", "target", "list", "--installed", output=True).split()))
    ]
    for target in IMAGES.values():
        compiler = f"{target.split('-')[0]}-linux-gnu-gcc"
        if shutil.which(compiler) is None:
            package = compiler.replace("x86_64", "x86-64").removesuffix("-gcc")
            library = "amd64" if "x86" in package else "arm64"
            lacks.append(f"{compiler}: apt install gcc-{package} libc6-dev-{library}-cross")
    return lacks


def remapped() -> tuple[str, ...]:
    """Compiler options by which a file compiled in any directory is the same file."""
    cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    sysroot = run("rustc", "--print", "sysroot", output=True).strip()
    places = {ROOT: "/bot-bottle", cargo: "/cargo", sysroot: "/rust"}
    flags = [f"--remap-path-prefix={old}={new}" for old, new in places.items()]
    return ("--config", f"target.'cfg(all())'.rustflags = {json.dumps(flags)}")


def program(name: str, target: str, env: dict[str, str]) -> Path:
    """Compiles one program; where it lies. gcc links it where it is static, or cargo's own choice for this machine."""
    small = name == "bot-bottle-sidecar"
    machine = target.split("-")[0]
    if "linux" in target and machine != os.uname().machine:
        gcc = f"{machine}-linux-gnu-gcc"
        env = {**env, f"CC_{target.replace('-', '_')}": gcc}
        env[f"CARGO_TARGET_{target.replace('-', '_').upper()}_LINKER"] = gcc
    profile, crate = ("helper", "sidecar") if small else ("release", "egress")
    how = ["build"] if "linux" in target else ["zigbuild"]
    run(
        "cargo", *how, "--locked", "--quiet", "--config", f"rust/{crate}/static.toml", *remapped(),
        "--target", target, "--profile", profile, "--package", name, env=env,
    )  # fmt: skip
    return BUILT / target / profile / name


def wheel(each: Wheel, static: dict[tuple[str, str], Path], env: dict[str, str]) -> None:
    """Makes one wheel: the package, its extension, the helper on PATH, and the programs that images are built from."""
    shutil.rmtree(PROGRAMS, ignore_errors=True)
    shutil.rmtree(SCRIPTS.parent, ignore_errors=True)
    try:
        for (name, images), file in static.items():
            # The one that pip puts on PATH is found there, and is not carried twice.
            if (name, images) != ("bot-bottle-sidecar", each.images) or "linux" not in each.target:
                # A quarter less than what a wheel's own compression makes of it; `image build` unpacks it.
                PROGRAMS.joinpath(images).mkdir(parents=True, exist_ok=True)
                PROGRAMS.joinpath(images, f"{name}.xz").write_bytes(lzma.compress(file.read_bytes()))
        own = ("bot-bottle-sidecar", each.images)
        SCRIPTS.mkdir(parents=True)
        shutil.copyfile(static[own] if "linux" in each.target else program(own[0], each.target, env), SCRIPTS / own[0])
        (SCRIPTS / own[0]).chmod(0o755)
        tag = ("--compatibility", each.tag) if each.tag else ()
        run(
            "maturin", "build", "--release", "--locked", "--quiet", "--strip", "--compression-level", "9",
            "--zig", "--target", each.target, *tag, *remapped(), "--out", OUT, env=env,
        )  # fmt: skip
    finally:
        shutil.rmtree(PROGRAMS, ignore_errors=True)
        shutil.rmtree(SCRIPTS.parent, ignore_errors=True)


def sums() -> None:
    """SHA256SUMS of all files, for `sha256sum --check`, and the parts list of the first wheel beside it."""
    files = sorted(file for file in OUT.iterdir() if file.suffix in (".whl", ".gz"))
    wheels = [file for file in files if file.suffix == ".whl"]
    with zipfile.ZipFile(wheels[0]) as archive:
        (parts,) = [name for name in archive.namelist() if name.endswith(".cyclonedx.json")]
        (OUT / "bot-bottle.cyclonedx.json").write_bytes(archive.read(parts))
    files.append(OUT / "bot-bottle.cyclonedx.json")
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (OUT / "SHA256SUMS").write_text("".join(lines))
    print("".join(lines), end="")
    for file in wheels:
        if file.stat().st_size > LARGEST:
            sys.exit(f"make dist: {file.name} has {file.stat().st_size} bytes, and a wheel may have {LARGEST}")


def main() -> None:
    """Makes all of a release, or the wheels for some targets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", action="append", choices=[each.target for each in WHEELS], help="only its wheel")
    chosen = parser.parse_args().target
    wheels = tuple(each for each in WHEELS if not chosen or each.target in chosen)
    if lacks := missing(wheels):
        sys.exit("make dist: this machine lacks\n  " + "\n  ".join(lacks))
    env = environment()
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir()
    run("cargo", "fetch", "--locked", "--quiet")
    static = {
        (name, images): program(name, target, env)
        for name in ("bot-bottle-sidecar", "bot-bottle-egress")
        for images, target in IMAGES.items()
    }
    for each in wheels:
        wheel(each, static, env)
    run("maturin", "sdist", "--quiet", "--out", OUT, env=env)
    sums()


if __name__ == "__main__":
    main()
