"""The rungs that no other probe looks at: what newer kernels add to a wall, and what an operator may have set."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.host import syscalls
from immured.host.check import Check, Status, errno_name, in_child, is_root, untried
from immured.host.landlock import LADDER
from immured.host.probes_storage import existing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["landlock_rungs", "probe", "settings"]

_NEW_LISTENER: Final = 1 << 3
_WAIT_KILLABLE: Final = 1 << 5
_MEASURE_VERITY: Final = 0xC004_6686  # FS_IOC_MEASURE_VERITY
_MFD_EXEC: Final = 0x10
_NO_FD: Final = (1 << 31) - 1
_NOTIF_SET_FLAGS: Final = 0x4008_2104  # SECCOMP_IOCTL_NOTIF_SET_FLAGS
NEWER: Final = "boot Linux 6.1 or newer"


def probe(state: Path, proc: Path = Path("/proc")) -> Iterator[Check]:
    """Every finding, for a daemon whose state directory is (or would be) `state`."""
    yield wait_killable(syscalls.seccomp_flag_supported(_NEW_LISTENER | _WAIT_KILLABLE))
    yield from landlock_rungs(syscalls.landlock_abi())
    yield sync_wake_up(in_child(_try_sync_wake_up))
    yield _tried("kernel.openat2", _try_openat2, "paths are resolved beneath what was opened", NEWER)
    yield _tried("kernel.pidfd", _try_pidfd, "processes are held and signalled by descriptor", NEWER)
    yield untried("kernel.mount-setattr") if not is_root() else _tried(
        "kernel.mount-setattr", _try_mount_setattr, "mounts are bounded by descriptor, before anybody sees them",
        f"{NEWER}; in a container, let its system-call filter pass mount_setattr",
    )  # fmt: skip
    yield memory_files(proc)
    yield verity(existing(state))
    yield from settings(proc)


def wait_killable(known: bool) -> Check:
    """A notified process can then be killed, and by nothing less be interrupted, while it waits (Linux 5.19)."""
    if known:
        return Check("kernel.seccomp.wait-killable", Status.OK, "only death interrupts who waits for an explanation")
    return Check(
        "kernel.seccomp.wait-killable", Status.WARN, "no: a signal can interrupt an explained call, which restarts",
        "boot Linux 5.19 or newer",
    )  # fmt: skip


def sync_wake_up(error: int) -> Check:
    """Who explains and who waits can then hand one processor to each other (Linux 6.6)."""
    name = "kernel.seccomp.sync-wake-up"
    if error == 0:
        return Check(name, Status.OK, "an explanation costs no change of processor")
    return Check(name, Status.INFO, "no (Linux 6.6); instead: the scheduler decides, and it takes longer", stands=False)


def _try_sync_wake_up() -> None:
    listener = syscalls.listen_to_self()
    fcntl.ioctl(listener, _NOTIF_SET_FLAGS, 1)


def landlock_rungs(abi: int) -> Iterator[Check]:
    """One for each version of Landlock's ABI: what it can refuse, and what does without it."""
    for rung in LADDER:
        name, facts = f"landlock.{rung.abi}", {"abi": rung.abi, "linux": rung.linux}
        if rung.abi <= abi:
            yield Check(name, Status.OK, rung.about, facts=facts, stands=True)
        elif abi == 0:
            yield Check(
                name, Status.INFO, f"no: {rung.about}; instead: {rung.instead}", facts=facts, stands=False
            )  # fmt: skip
        else:
            found = f"no (Linux {rung.linux}): {rung.about}; instead: {rung.instead}"
            yield Check(name, Status.INFO, found, facts=facts, stands=False)


def memory_files(proc: Path = Path("/proc")) -> Check:
    """The launcher runs from a sealed memory file; large plans come in one."""
    scope = _read(proc / "sys/vm/memfd_noexec").strip() or "0"
    try:
        fd = _executable_memfd()
    except OSError as failed:
        return Check(
            "kernel.memfd", Status.FAIL, f"no sealed memory file may be executed: {errno_name(failed.errno or 0)}",
            "sysctl vm.memfd_noexec=0 (2 forbids it for good in this pid namespace)", {"memfd_noexec": int(scope)},
        )  # fmt: skip
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    finally:
        os.close(fd)
    return Check(
        "kernel.memfd", Status.OK, "memory files can be sealed, and executed", facts={"memfd_noexec": int(scope)}
    )


def _executable_memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create("immured-doctor", flags | _MFD_EXEC)
    except OSError as failed:
        if failed.errno != errno.EINVAL:  # older than Linux 6.3, which has no such flag and needs none
            raise
    return os.memfd_create("immured-doctor", flags)


def verity(place: Path) -> Check:
    """fs-verity would pin a program's content. Nothing here uses it: said, because people look for it."""
    fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, _MEASURE_VERITY, struct.pack("=HH", 0, 0))
        known = True
    except OSError as failed:
        known = failed.errno in (errno.ENODATA, errno.EOVERFLOW)
    finally:
        os.close(fd)
    said = "the file system has it" if known else "not on this file system"
    return Check("storage.verity", Status.INFO, f"{said}; not used: programs are what root's files are", stands=False)


_SETTINGS: Final[tuple[tuple[str, str, frozenset[str], str, str], ...]] = (
    # name, sysctl, good values, what it does, what stands without it
    ("dmesg", "kernel/dmesg_restrict", frozenset("1"), "the kernel's log is root's alone", "syslog is refused inside"),
    ("kptr", "kernel/kptr_restrict", frozenset("12"), "kernel addresses are hidden", "/proc/kallsyms is masked inside"),
    (
        "hardlinks", "fs/protected_hardlinks", frozenset("1"), "nobody links to another's file",
        "files with a second name are not handed to the broker",
    ),
    ("symlinks", "fs/protected_symlinks", frozenset("1"), "others' symlinks in /tmp lead nowhere", "we follow none"),
    ("bpf", "kernel/unprivileged_bpf_disabled", frozenset("12"), "bpf is root's alone", "bpf is refused inside"),
    ("perf", "kernel/perf_event_paranoid", frozenset("234"), "perf is bounded", "perf_event_open is refused inside"),
)  # fmt: skip


def settings(proc: Path = Path("/proc")) -> Iterator[Check]:
    """Sysctls that harden a host beside us. None is needed: each says which wall of ours stands without it."""
    for name, place, good, about, instead in _SETTINGS:
        value = _read(proc / "sys" / place).strip()
        facts = {"sysctl": place.replace("/", "."), "value": value}
        if value in good and value:
            yield Check(f"sysctl.{name}", Status.OK, about, facts=facts, stands=True)
        else:
            said = f"no ({facts['sysctl']} is {value or 'not in this kernel'}); instead: {instead}"
            yield Check(f"sysctl.{name}", Status.INFO, said, facts=facts, stands=False)
    yield core_pattern(_read(proc / "sys/kernel/core_pattern").strip())
    most = _read(proc / "sys/user/max_user_namespaces").strip()
    said = f"user.max_user_namespaces = {most or 'not in this kernel'}; 0 in every run"
    yield Check("sysctl.userns", Status.INFO, said)


def core_pattern(pattern: str) -> Check:
    """A handler behind a pipe is root's, and started by a crash."""
    if pattern.startswith("|"):
        return Check(
            "sysctl.core-pattern", Status.INFO,
            f"a handler is started as root, {pattern[1:].split(' ', 1)[0]}; not by a run's crash: RLIMIT_CORE is 1",
            facts={"pipe": True}, stands=False,
        )  # fmt: skip
    return Check(
        "sysctl.core-pattern", Status.OK, "no handler is started by a crash", facts={"pipe": False}, stands=True
    )


def _tried(name: str, attempt: Callable[[], None], about: str, remedy: str) -> Check:
    try:
        attempt()
    except OSError as failed:
        return Check(name, Status.FAIL, f"cannot be used: {errno_name(failed.errno or 0)}", remedy)
    return Check(name, Status.OK, about)


def _try_openat2() -> None:
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(syscalls.open_beneath(root, "."))
    finally:
        os.close(root)


def _try_pidfd() -> None:
    fd = os.pidfd_open(os.getpid())
    try:
        signal.pidfd_send_signal(fd, 0)
    finally:
        os.close(fd)


def _try_mount_setattr() -> None:
    """On a descriptor that is none: EBADF from a kernel that has it."""
    try:
        syscalls.set_idmap(-1, _NO_FD)
    except OSError as failed:
        if failed.errno != errno.EBADF:
            raise


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
