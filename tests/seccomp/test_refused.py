"""What every shipped profile refuses, by name: a profile that is added is held to it, and so is the explained form."""

from __future__ import annotations

import errno
import socket
import termios

import pytest

from immured import _core
from immured._abi import lib
from immured.isolation import syscalls
from immured.isolation.seccomp import AUDIT_ARCH, compile_profile
from immured.isolation.syscalls import Architecture
from tests.seccomp.model import ALLOW, NOTIFY, errno_action

EPERM, ENOSYS = errno_action(errno.EPERM), errno_action(errno.ENOSYS)
SIGCHLD = 17
NAMESPACES = {
    "mount": lib.CLONE_NEWNS,
    "cgroup": lib.CLONE_NEWCGROUP,
    "uts": lib.CLONE_NEWUTS,
    "ipc": lib.CLONE_NEWIPC,
    "user": lib.CLONE_NEWUSER,
    "pid": lib.CLONE_NEWPID,
    "network": lib.CLONE_NEWNET,
    "time": lib.CLONE_NEWTIME,
}
CLONED = {name: bit for name, bit in NAMESPACES.items() if name != "time"}
"""In clone, CLONE_NEWTIME's bit belongs to the signal that the parent gets."""

PTRACE = {"TRACEME": 0, "PEEKDATA": 2, "POKEDATA": 5, "ATTACH": 16, "SEIZE": 0x4206, "SECCOMP_GET_FILTER": 0x420C}
TIOCLINUX = 0x541C
JUNK = 0xFFFF_FFFF << 32
"""Above an int, where the kernel does not look."""

REFUSED: dict[str, tuple[str, tuple[int, ...]]] = {
    **{f"clone with a {name} namespace": ("clone", (bit | SIGCHLD,)) for name, bit in CLONED.items()},
    **{f"clone with a {name} namespace, with junk": ("clone", (JUNK | bit,)) for name, bit in CLONED.items()},
    **{f"unshare a {name} namespace": ("unshare", (bit,)) for name, bit in NAMESPACES.items()},
    "setns": ("setns", (3, 0)),
    "mount": ("mount", (0, 0, 0, 0, 0)),
    "umount2": ("umount2", (0, 0)),
    "pivot_root": ("pivot_root", (0, 0)),
    "chroot": ("chroot", (0,)),
    **{
        call: (call, (0, 0))
        for call in ("fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "open_tree_attr", "move_mount",
                     "mount_setattr")
    },
    **{f"ptrace {name}": ("ptrace", (request, 1)) for name, request in PTRACE.items()},
    "process_vm_readv": ("process_vm_readv", (1, 0, 1, 0, 1, 0)),
    "process_vm_writev": ("process_vm_writev", (1, 0, 1, 0, 1, 0)),
    "pidfd_getfd": ("pidfd_getfd", (3, 0, 0)),
    **{call: (call, (8, 0)) for call in ("io_uring_setup", "io_uring_enter", "io_uring_register")},
    "bpf": ("bpf", (5, 0, 0)),
    "perf_event_open": ("perf_event_open", (0, 0, 0, 0, 0)),
    "userfaultfd": ("userfaultfd", (1,)),
    **{call: (call, (0, 0)) for call in ("keyctl", "add_key", "request_key")},
    "AF_ALG": ("socket", (socket.AF_ALG, socket.SOCK_SEQPACKET, 0)),
    "AF_VSOCK": ("socket", (socket.AF_VSOCK, socket.SOCK_STREAM, 0)),
    "AF_PACKET": ("socket", (socket.AF_PACKET, socket.SOCK_RAW, 0)),
    "AF_ALG with flags and junk": ("socket", (JUNK | socket.AF_ALG, JUNK | 5 | socket.SOCK_CLOEXEC, JUNK)),
    "TIOCSTI": ("ioctl", (0, termios.TIOCSTI, 0)),
    "TIOCLINUX": ("ioctl", (0, TIOCLINUX, 0)),
    "TIOCSTI with junk": ("ioctl", (0, JUNK | termios.TIOCSTI, 0)),
    "TIOCLINUX with junk": ("ioctl", (0, JUNK | TIOCLINUX, 0)),
    "file handles": ("open_by_handle_at", (3, 0, 0)),
    "kernel modules": ("finit_module", (3, 0, 0)),
    "kexec": ("kexec_load", (0, 0, 0, 0)),
}  # fmt: skip


def answer(program: bytes, arch: Architecture, call: str, arguments: tuple[int, ...]) -> int:
    return _core.seccomp_evaluate(program, AUDIT_ARCH[arch], syscalls.numbers(arch)[call], arguments)


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_every_shipped_profile_refuses(profile: str, arch: Architecture, what: str) -> None:
    call, arguments = REFUSED[what]
    assert answer(compile_profile(profile, arch=arch), arch, call, arguments) == EPERM
    explained = answer(compile_profile(profile, arch=arch, explain=True), arch, call, arguments)
    assert explained == (EPERM if call in syscalls.explained().unexplained else NOTIFY)


@pytest.mark.parametrize("explain", [False, True])
@pytest.mark.parametrize("call", ["clone3", "openat2"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_every_shipped_profile_lets_libraries_fall_back(
    profile: str, arch: Architecture, call: str, explain: bool
) -> None:
    assert answer(compile_profile(profile, arch=arch, explain=explain), arch, call, ()) == ENOSYS


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
@pytest.mark.parametrize("profile", syscalls.profile_names())
def test_no_manifest_brings_any_of_it_back_but_debugging(profile: str, arch: Architecture) -> None:
    """Everything that may be allowed is; debugging reaches no further than the sandbox's own processes."""
    walls = syscalls.walls()
    program = compile_profile(profile, sorted(syscalls.names() - walls.never - walls.absent), arch=arch)
    back = {what for what, (call, arguments) in REFUSED.items() if answer(program, arch, call, arguments) == ALLOW}
    debugging = {what for what, (call, _) in REFUSED.items() if call in syscalls.groups()["debug"]}
    assert back == debugging
