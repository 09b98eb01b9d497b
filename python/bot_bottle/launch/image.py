"""How is the sidecars' image built from the installed package alone, and does an image fit this host's database?"""

from __future__ import annotations

import json
import lzma
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from bot_bottle._native import Database, __version__
from bot_bottle.errors import InvalidInputError, NotFoundError
from bot_bottle.launch import client
from bot_bottle.launch.backend import IMAGE

VERSION_LABEL: Final = "bot-bottle.version"
SCHEMA_LABEL: Final = "bot-bottle.schema"
PROGRAMS: Final = ("bot-bottle-sidecar", "bot-bottle-egress")
_PACKAGE: Final = Path(__file__).resolve().parents[1]
# The engine's word, and that of an ELF file (e_machine in elf.h).
_MACHINES: Final = {"amd64": 62, "arm64": 183}
# Parts of the package that the image does not need.
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.pyc", "programs", "cli", "tui", "dashboard", "notify")


class Built(NamedTuple):
    """A sidecars' image on this engine."""

    id: str
    tags: tuple[str, ...]
    version: str
    created: str
    size: int


def schema() -> dict[str, int]:
    """Module → the version of its tables that this program works with."""
    return {name: module["supported"] for name, module in Database().status()["modules"].items()}


def labels() -> dict[str, str]:
    """What an image of this release says of itself."""
    return {VERSION_LABEL: __version__, SCHEMA_LABEL: json.dumps(schema(), sort_keys=True)}


def misfit(image: str) -> str:
    """Why sidecars of this image and this host cannot share a database, or ``""``. An image without labels is taken."""
    found = client.inspect("image", image)
    text = ((found or {}).get("Config") or {}).get("Labels") or {}
    if SCHEMA_LABEL not in text:
        return ""
    try:
        theirs = {str(name): int(version) for name, version in json.loads(text[SCHEMA_LABEL]).items()}
    except (ValueError, TypeError, AttributeError):
        return (
            f"the image {image} has a label {SCHEMA_LABEL} that cannot be read: 'bot-bottle image build' makes another"
        )
    release = text.get(VERSION_LABEL, "an unknown release")
    for name, module in Database().status()["modules"].items():
        # A newer sidecar would migrate the file beyond this program; one that is too old would be refused by the file.
        if theirs.get(name, 0) > module["supported"]:
            return (
                f"the image {image} ({release}) is newer than this bot-bottle ({__version__}): "
                "'pip install --upgrade bot-bottle', or 'bot-bottle image build' for this one"
            )
        if theirs.get(name, 0) < module["compat"]:
            return (
                f"the image {image} ({release}) is too old for this host's database: 'bot-bottle image build' makes "
                "another"
            )
    return ""


def require(image: str) -> None:
    """Lets pass only an image that sidecars may be started from; one with a name of its own may still be fetched.

    Raises:
        NotFoundError: nobody has built it yet.
        InvalidInputError: it is of a release that does not fit this host.
    """
    if image == IMAGE and client.inspect("image", image) is None:
        raise NotFoundError(f"there is no image {image!r} for the sidecars: 'bot-bottle image build' makes it")
    if reason := misfit(image):
        raise InvalidInputError(reason)


def architecture() -> str:
    """The engine's: ``amd64`` or ``arm64``.

    Raises:
        InvalidInputError: no engine answers, or it is another.
    """
    client.security()
    found = client.run("version", "--format", "{{.Server.Arch}}")
    if found not in _MACHINES:
        raise InvalidInputError(
            f"this engine is of the architecture {found}: there are images for {', '.join(_MACHINES)}"
        )
    return found


@contextmanager
def context(architecture: str, wheel: str | None = None) -> Iterator[Path]:
    """A directory with all that the build needs, for as long as it is needed.

    Args:
        wheel: take the package and its programs from this file, not from what is installed.

    Raises:
        InvalidInputError: a part is missing, or of another architecture.
    """
    with tempfile.TemporaryDirectory(prefix="bot-bottle-image-") as scratch:
        folder, package = Path(scratch, "context"), _PACKAGE
        folder.mkdir()
        if wheel is not None:
            package = _unpacked(wheel, Path(scratch, "wheel"))
        shutil.copytree(package, folder / "bot_bottle", ignore=_LEFT_OUT, symlinks=True)
        for name in ("Dockerfile", "sidecars.txt"):
            (folder / "bot_bottle" / "image" / name).rename(folder / name)
        (extension,) = [*package.glob("_native*.so")] or [package / "_native.abi3.so"]
        _require(extension, architecture)
        for name in PROGRAMS:
            _place(package, name, architecture, folder / name, installed=wheel is None)
        yield folder


def command(folder: Path, tags: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """What builds the image in a directory of :func:`context`."""
    named = [word for tag in tags for word in ("--tag", tag)]
    said = [word for name, value in labels().items() for word in ("--label", f"{name}={value}")]
    return ["docker", "build", *named, *said, *arguments, str(folder)]


def tags(tag: str | None) -> list[str]:
    """What the image is called: by default as the sidecars' image is looked for, and with the release."""
    return [tag] if tag else [IMAGE, f"{IMAGE}:{__version__}"]


def built() -> list[Built]:
    """The sidecars' images, newest first."""
    client.security()
    ids = client.run("image", "ls", "--no-trunc", "--quiet", "--filter", f"label={VERSION_LABEL}").split()
    found: list[Built] = []
    for each in dict.fromkeys(ids):
        state: dict[str, Any] = client.inspect("image", each) or {}
        if state:
            version = str(state["Config"]["Labels"][VERSION_LABEL])
            names = tuple(state.get("RepoTags") or ())
            found.append(Built(str(state["Id"]), names, version, str(state["Created"])[:19] + "Z", int(state["Size"])))
    return sorted(found, key=lambda image: image.created, reverse=True)


def spare(images: Sequence[Built]) -> list[Built]:
    """Those of them that are neither what sidecars are started from by default nor in use by a container."""
    used = {
        str(state["Image"])
        for each in client.run("container", "ls", "--all", "--quiet", "--no-trunc").split()
        if (state := client.inspect("container", each))
    }
    default = (client.inspect("image", IMAGE) or {}).get("Id")
    return [image for image in images if image.id not in used and image.id != default]


def _unpacked(wheel: str, into: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            # zipfile keeps every name below the directory.
            archive.extractall(into)
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"{wheel} is not a wheel: {error}") from None
    if not (into / "bot_bottle" / "image" / "Dockerfile").is_file():
        raise InvalidInputError(f"{wheel} is not a wheel of bot-bottle")
    return into / "bot_bottle"


def _place(package: Path, name: str, architecture: str, to: Path, *, installed: bool) -> None:
    """Puts a static program where the build takes it from: as the wheel brings it, packed or not, or as installed."""
    carried = package / "programs" / architecture
    # A wheel's own helper is not among the programs, but where pip takes it from to put it on PATH.
    places = [carried / f"{name}.xz", carried / name]
    places += [folder / name for folder in package.parent.glob("bot_bottle-*.data/scripts")]
    if installed:
        found = shutil.which(name)
        places += [Path(sys.executable).parent / name, *([Path(found)] if found else [])]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        raise InvalidInputError(
            f"{name} for {architecture} is not in this installation: install the wheel that 'make wheel' makes "
            "in a checkout, or name it with --wheel"
        )
    if place.suffix == ".xz":
        to.write_bytes(lzma.decompress(place.read_bytes()))
        _require(to, architecture)
    else:
        _require(place, architecture)
        shutil.copyfile(place, to)
    to.chmod(0o755)


def _require(file: Path, architecture: str) -> None:
    try:
        with file.open("rb") as program:
            head = program.read(20)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror}") from None
    if head[:4] != b"\x7fELF" or int.from_bytes(head[18:20], "little") != _MACHINES[architecture]:
        raise InvalidInputError(
            f"{file} is not for Linux on {architecture}, which this engine runs: name a wheel that is, by --wheel FILE"
        )


def run(words: Sequence[str], *, quiet: bool) -> int:
    """Builds, showing what the engine says unless ``quiet``; its exit code."""
    silent = subprocess.DEVNULL if quiet else sys.stderr
    return subprocess.run(words, stdin=subprocess.DEVNULL, stdout=silent).returncode
