"""Does a release install and work where its wheels say so? `make dist-check` runs this on what `make dist` made.

The wheel for this kind of machine is installed into a fresh environment of every Python at hand, and, as root, into
Debian systems made with debootstrap: of this architecture, and arm64 by emulation. In each, an agent asks and an
operator approves with what the wheel brought. The other wheels are only read.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
OUT: Final = ROOT / "dist"
LOCKED: Final = ROOT / "python" / "locked" / "package.txt"
BIN: Final = Path(sys.executable).parent
# Debian 11 has Python 3.9, which is too old for the package.
SUITES: Final = ("bookworm", "trixie")
ENGINES: Final = {"x86_64": "amd64", "aarch64": "arm64"}

# One agent asks and blocks, one operator approves; both programs come from the wheel.
STORY: Final = """
set -eu
export BOT_BOTTLE_ROOT="$PWD/root" PATH="$PWD/venv/bin:$PATH"
bot-bottle db migrate >/dev/null
bot-bottle-sidecar propose --db "$BOT_BOTTLE_ROOT/bot-bottle.db" --bottle dev --tool egress-allow --file - \
    --justification 'a check' --wait --timeout 120 --json <<'ROUTES' >answer &
routes: []
ROUTES
until bot-bottle pending | grep -q egress-allow; do sleep 0.2; done
bot-bottle approve "$(bot-bottle pending --json | python3 -c 'import json, sys
found = json.load(sys.stdin)
print((found if isinstance(found, list) else found["proposals"])[0]["proposal_id"])')" --yes >/dev/null
wait $!
grep -q '"status":"approved"' answer
bot-bottle audit verify >/dev/null
"""


def run(*words: str | Path, cwd: Path | None = None, text: str | None = None) -> None:
    """Runs a program to its end; ends this one with what it printed if it fails."""
    done = subprocess.run(words, cwd=cwd, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(
            f"make dist-check: {' '.join(map(str, words))} failed with exit code {done.returncode}:\n{done.stdout}"
        )


def pythons() -> list[Path]:
    """Every CPython from 3.10 on that PATH or pyenv has, one of each version; not the free-threaded ones."""
    places = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    places += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    found: dict[int, Path] = {}
    for folder in places:
        for file in folder.glob("python3.[0-9]*"):
            if (version := re.fullmatch(r"python3\.(\d+)", file.name)) and int(version[1]) >= 10:
                works = subprocess.run([file, "-c", "import ensurepip, venv"], capture_output=True).returncode == 0
                if works:
                    found.setdefault(int(version[1]), file)
    return [found[minor] for minor in sorted(found)]


def installed(python: str | Path, wheel: Path, into: Path) -> None:
    """A fresh environment with the wheel and the locked versions of what it depends on."""
    run(python, "-m", "venv", into / "venv")
    pip = (into / "venv" / "bin" / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--only-binary", ":all:", "--require-hashes", "--requirement", LOCKED)
    run(*pip, "--no-index", wheel)


def in_debian(suite: str, architecture: str, wheel: Path) -> None:
    """The same in a Debian system that holds nothing else."""
    with tempfile.TemporaryDirectory(prefix="bot-bottle-dist-") as scratch:
        system = Path(scratch)
        packages = "--include=python3,python3-venv,ca-certificates"
        run("debootstrap", "--variant=minbase", f"--arch={architecture}", packages, suite, system)
        home = system / "check"
        home.mkdir()
        for file in (wheel, LOCKED):
            shutil.copy(file, home)
        # pip fetches here, where certificates and proxies are known; in there it only installs.
        version = subprocess.run(
            ["chroot", system, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            text=True, stdout=subprocess.PIPE, check=True,
        ).stdout.strip()  # fmt: skip
        run(
            BIN / "python", "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--only-binary", ":all:",
            "--require-hashes", "--requirement", LOCKED, "--python-version", version, "--dest", home / "wheels",
        )  # fmt: skip
        install = f"venv/bin/pip install --quiet --no-index --find-links wheels {wheel.name}"
        steps = (
            f"set -eu\nmount -t proc proc /proc\ntrap 'umount /proc' EXIT\ncd /check\npython3 -m venv venv\n{install}\n"
        )
        run("chroot", system, "sh", text=f"{steps}({STORY})")


def main() -> None:
    """Checks what `make dist` left in dist."""
    wheels = sorted(OUT.glob("*.whl"))
    if not wheels:
        sys.exit("make dist-check: there is no wheel in dist: 'make dist' makes them")
    run("sha256sum", "--check", "--quiet", "SHA256SUMS", cwd=OUT)
    for wheel in wheels:
        run(BIN / "abi3audit", "--strict", wheel)
        if "linux" in wheel.name:
            promised = wheel.name.removesuffix(".whl").split("-")[-1].split(".")[0]
            shown = subprocess.run([BIN / "auditwheel", "show", wheel], text=True, capture_output=True).stdout
            if promised not in shown:
                sys.exit(f"make dist-check: {wheel.name} is not {promised}:\n{shown}")
        print(f"{wheel.stat().st_size / 2**20:5.1f} MiB  {wheel.name}", flush=True)
    machine = platform.machine()
    (mine,) = [wheel for wheel in wheels if f"manylinux_2_28_{machine}" in wheel.name]
    for python in pythons():
        with tempfile.TemporaryDirectory(prefix="bot-bottle-dist-") as scratch:
            installed(python, mine, Path(scratch))
            run("bash", "-c", STORY, cwd=Path(scratch))
        print(f"works: {python}", flush=True)
    if os.geteuid() != 0 or shutil.which("debootstrap") is None:
        sys.exit("make dist-check: the rest needs root and debootstrap")
    for suite in SUITES:
        in_debian(suite, ENGINES[machine], mine)
        print(f"works: Debian {suite} {ENGINES[machine]}", flush=True)
    if machine == "x86_64" and Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists():
        (other,) = [wheel for wheel in wheels if "manylinux_2_28_aarch64" in wheel.name]
        in_debian("bookworm", "arm64", other)
        print("works: Debian bookworm arm64, emulated", flush=True)
    else:
        print("not checked: arm64, which needs qemu-user-static and its binfmt entry", flush=True)


if __name__ == "__main__":
    main()
