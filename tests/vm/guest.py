"""How does a test boot another kernel than the host's, with the helper in it and nothing but a share and a wire out?

A Debian kernel under qemu, without hardware virtualisation, so that it runs anywhere; its root is an initramfs of
busybox and the helper. It sees a host directory over 9p or virtiofs. Its network is qemu's own, on addresses of
documentation (RFC 5737), and leads to one place: each connection to ``BROKER`` is passed to the broker's unix socket.
"""

from __future__ import annotations

import platform
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BROKER = "http://192.0.2.100:9101"
SHARE = "/run/supervise"
VIRTIOFSD = Path("/usr/lib/qemu/virtiofsd")
_PROGRAMS = ("qemu-system-x86_64", str(VIRTIOFSD), "busybox", "cpio", "socat", "sqlite3", "apt-get", "dpkg-deb")
_MODULES = ("virtio_pci", "virtio_net", "9p", "9pnet_virtio", "virtiofs")
_MOUNTS = {
    # mmap: the one cache mode in which SQLite would open a WAL database at all.
    "9p": "mount -t 9p -o trans=virtio,version=9p2000.L,cache=mmap share",
    "virtiofs": "mount -t virtiofs share",
}
_INIT = """#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev
{modules}
ifconfig eth0 192.0.2.15 netmask 255.255.255.0 up
{mount} {share} || echo "the share cannot be mounted"
echo "::begin"
. /job
echo "::end"
poweroff -f
"""


def missing() -> str:
    """What this machine lacks, in words."""
    if platform.machine() != "x86_64":
        return "an x86_64 machine"
    return ", ".join(name for name in _PROGRAMS if shutil.which(name) is None)


def fetch_kernel(into: Path) -> None:
    """Takes Debian's kernel and its modules out of their package, which is not installed."""
    if any(into.glob("boot/vmlinuz-*")):
        return
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True)
    package = re.search(r"Depends: (linux-image-\d\S+)", depends.stdout)
    assert package, depends.stdout
    subprocess.run(["apt-get", "download", "-qq", package[1]], cwd=into, check=True, capture_output=True)
    (archive,) = into.glob("*.deb")
    unpacked = into / "unpacked"
    subprocess.run(["dpkg-deb", "--extract", archive, unpacked], check=True)
    archive.unlink()
    for part in ("lib", "boot"):  # the kernel last: with it, all is there
        shutil.move(unpacked / part, into / part)


class Guest:
    """A kernel and an initramfs for it; each boot is a new machine."""

    def __init__(self, kernel: Path, scratch: Path) -> None:
        (self._kernel,) = kernel.glob("boot/vmlinuz-*")
        self._modules = {path.name.split(".")[0].replace("-", "_"): path for path in kernel.rglob("*.ko*")}
        self._scratch = scratch
        self._complaints = scratch / "complaints"

    @contextmanager
    def boot(
        self, job: str, share: Path, kind: str, *, programs: dict[str, Path], files: dict[str, str], broker: Path | None
    ) -> Iterator[subprocess.Popen[str]]:
        """A machine that runs the shell script ``job``; its standard output is the console, which :meth:`said` reads.

        Args:
            share: the host's directory that is ``SHARE`` there.
            kind: ``9p`` or ``virtiofs``.
            programs: name to the program on this host, which is taken along with its libraries.
            files: absolute path to content.
            broker: its socket, which ``BROKER`` leads to.
        """
        initrd = self._initramfs(job, kind, programs, files)
        machine = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "256", "-nodefaults", "-display", "none",
            "-no-reboot", "-serial", "stdio", "-kernel", str(self._kernel), "-initrd", str(initrd),
            "-append", "console=ttyS0 quiet panic=-1",
        ]  # fmt: skip
        if broker:
            wire = f"guestfwd=tcp:192.0.2.100:9101-cmd:socat - UNIX-CONNECT:{broker}"
            machine += ["-netdev", f"user,id=wire,net=192.0.2.0/24,restrict=on,{wire}"]
            machine += ["-device", "virtio-net-pci,netdev=wire,romfile="]
        daemon = None
        if kind == "9p":
            machine += ["-virtfs", f"local,path={share},mount_tag=share,security_model=none"]
        else:
            path = self._scratch / "virtiofs.sock"
            # It listens before the daemon runs, so that qemu need not wait for it.
            with socket.socket(socket.AF_UNIX) as door, self._complaints.open("a") as complaints:
                door.bind(str(path))
                door.listen()
                options = [f"--fd={door.fileno()}", "-o", f"source={share}", "-o", "sandbox=chroot"]
                daemon = subprocess.Popen([VIRTIOFSD, *options], stderr=complaints, pass_fds=[door.fileno()])
            # Memory that both have mapped is how vhost-user works.
            machine += ["-object", "memory-backend-memfd,id=memory,size=256M,share=on", "-numa", "node,memdev=memory"]
            machine += ["-chardev", f"socket,id=files,path={path}"]
            machine += ["-device", "vhost-user-fs-pci,chardev=files,tag=share"]
        with self._complaints.open("a") as complaints:
            qemu = subprocess.Popen(
                machine, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True
            )
        try:
            yield qemu
        finally:
            for process in (qemu, daemon):
                if process:
                    process.kill()
                    process.wait()

    def said(self, machine: subprocess.Popen[str]) -> str:
        """What the job of a machine wrote, once it has ended; fails with what qemu and virtiofsd say if it did not."""
        console, _ = machine.communicate(timeout=240)
        assert "::end" in console, f"{self._complaints.read_text()}{console}"
        return console.partition("::begin")[2].partition("::end")[0]

    def _initramfs(self, job: str, kind: str, programs: dict[str, Path], files: dict[str, str]) -> Path:
        root = self._scratch / "root"
        shutil.rmtree(root, ignore_errors=True)
        for directory in ("bin", "proc", "sys", "dev", "modules", SHARE[1:]):
            (root / directory).mkdir(parents=True)
        for name, program in {"busybox": Path(shutil.which("busybox") or ""), **programs}.items():
            shutil.copy(program, root / "bin" / name)
            said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
            for library in re.findall(r"(/\S+) \(0x", said):
                (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(library, root / library[1:])
        inserted = "\n".join(f"insmod /modules/{path.name}" for path in self._needed())
        for path in self._needed():
            shutil.copy(path, root / "modules")
        init = _INIT.format(modules=inserted, mount=_MOUNTS[kind], share=SHARE)
        for name, content in {"/init": init, "/job": job, **files}.items():
            (root / name[1:]).write_text(content)
            (root / name[1:]).chmod(0o700)
        initrd = self._scratch / "initrd"
        listing = "\n".join(str(path.relative_to(root)) for path in sorted(root.rglob("*")))
        with initrd.open("wb") as output:
            command = ["cpio", "--create", "--format=newc", "--quiet"]
            subprocess.run(command, cwd=root, input=listing.encode(), stdout=output, check=True)
        return initrd

    def _needed(self) -> list[Path]:
        """The modules, each after those it depends on, as their own ``.modinfo`` says."""
        order: list[str] = []

        def add(name: str) -> None:
            if name not in order and name in self._modules:  # what is not there is built in
                depends = re.search(rb"\0depends=([^\0]*)\0", self._modules[name].read_bytes())
                for other in depends[1].decode().split(",") if depends else ():
                    add(other.replace("-", "_"))
                order.append(name)

        for name in _MODULES:
            add(name)
        return [self._modules[name] for name in order]
