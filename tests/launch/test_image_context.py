"""Is everything an image is built from found in a release's wheel, however it is packed there?"""

from __future__ import annotations

import lzma
import os
import zipfile
from pathlib import Path

import pytest

from bot_bottle import InvalidInputError
from bot_bottle.launch import image

PACKAGE = Path(image.__file__).parents[1]
MACHINES = {"amd64": 62, "arm64": 183}


def program(architecture: str, name: str) -> bytes:
    """The head of an ELF file for that machine (e_machine, elf.h), and who it is."""
    return b"\x7fELF" + bytes(14) + MACHINES[architecture].to_bytes(2, "little") + name.encode()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """As `make dist` makes one for amd64: its own helper is where pip takes it from, the other programs are packed."""
    file = tmp_path / "bot_bottle-0.1.0-cp310-abi3-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("image/Dockerfile", "image/sidecars.txt", "__init__.py"):
            archive.write(PACKAGE / name, f"bot_bottle/{name}")
        archive.writestr("bot_bottle/_native.abi3.so", program("amd64", "extension"))
        archive.writestr("bot_bottle-0.1.0.data/scripts/bot-bottle-sidecar", program("amd64", "helper"))
        for packed in ("amd64/bot-bottle-egress", "arm64/bot-bottle-egress", "arm64/bot-bottle-sidecar"):
            content = lzma.compress(program(packed.split("/")[0], packed))
            archive.writestr(f"bot_bottle/programs/{packed}.xz", content)
    return file


def test_a_wheel_s_programs_are_unpacked_for_its_own_architecture(wheel: Path) -> None:
    with image.context("amd64", str(wheel)) as folder:
        assert (folder / "bot-bottle-sidecar").read_bytes() == program("amd64", "helper")
        assert (folder / "bot-bottle-egress").read_bytes() == program("amd64", "amd64/bot-bottle-egress")
        assert all(os.access(folder / name, os.X_OK) for name in image.PROGRAMS)
        assert not (folder / "bot_bottle" / "programs").exists()
    assert not folder.exists()


def test_a_wheel_for_another_architecture_is_refused_by_the_file_that_is(wheel: Path) -> None:
    with (
        pytest.raises(InvalidInputError, match=r"_native\.abi3\.so is not for Linux on arm64"),
        image.context("arm64", str(wheel)),
    ):
        pass
