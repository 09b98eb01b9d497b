"""What does a test do to a child process to see what happens then: take a system call or privileges away, mount?"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import subprocess
import sys

# asm/unistd.h
NUMBERS = {
    "x86_64": {"renameat": 264, "fdatasync": 75, "fsync": 74, "utimensat": 280},
    "aarch64": {"renameat": 38, "fdatasync": 83, "fsync": 82, "utimensat": 88},
}

can_die = sys.platform == "linux" and platform.machine() in NUMBERS

# What :func:`die_at` looks like to the parent.
CODE = -signal.SIGSYS if can_die else 0

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 22, 38, 2
KILL_PROCESS, ALLOW = 0x80000000, 0x7FFF0000


def die_at(call: str) -> None:
    """From here on this thread's next ``call`` is the process's last, as if it had been killed on that line.

    A seccomp filter (seccomp(2)) ends the process as the kernel enters the call, so the call itself does not happen.
    No handler runs and nothing is cleaned up. The filter is for the calling thread and those it starts.
    """
    number = NUMBERS[platform.machine()][call]
    load, jump_if_equal, give = 0x20, 0x15, 0x06  # linux/bpf_common.h: LD|W|ABS, JMP|JEQ|K, RET|K
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in [
            (load, 0, 0, 0),  # the call's number
            (jump_if_equal, 0, 1, number),
            (give, 0, 0, KILL_PROCESS),
            (give, 0, 0, ALLOW),
        ]
    )
    code = ctypes.create_string_buffer(program, len(program))
    head = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(code)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not to be had")


def drop_privileges() -> None:
    """From here on root is asked for permission like everybody else (capabilities(7))."""
    if os.geteuid() == 0:
        version_3 = 0x20080522
        if libc.capset(struct.pack("=Ii", version_3, 0), struct.pack("=6I", *[0] * 6)):
            raise OSError(ctypes.get_errno(), "capset failed")


def can_mount() -> bool:
    return subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0


def mount(source: str, target: str, filesystem: str = "", options: str = "") -> None:
    """Mounts for this process and its children alone (mount_namespaces(7)); without a filesystem: binds (mount(8))."""
    new_namespace, bind, recursive, private = 0x20000, 0x1000, 0x4000, 0x40000
    steps: list[tuple[bytes, bytes, bytes | None, int, bytes | None]] = [
        (b"none", b"/", None, recursive | private, None)
    ]
    kind = filesystem.encode() if filesystem else None
    steps.append((source.encode(), target.encode(), kind, 0 if filesystem else bind, options.encode()))
    if libc.unshare(new_namespace) or any(libc.mount(*step) for step in steps):
        raise OSError(ctypes.get_errno(), "mount failed", target)
