"""The kernel itself: its age, its namespaces, seccomp, Landlock, and the other guards that are in force."""

from __future__ import annotations

import errno
import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from immured.host import syscalls
from immured.host.check import Check, Status, errno_name, in_child, is_root, untried

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FLOOR", "probe"]

FLOOR = (6, 1)
"""The oldest kernel that is supported: Debian 12's."""

NAMESPACES = {
    "mnt": syscalls.CLONE_NEWNS,
    "pid": syscalls.CLONE_NEWPID,
    "net": syscalls.CLONE_NEWNET,
    "ipc": syscalls.CLONE_NEWIPC,
    "uts": syscalls.CLONE_NEWUTS,
    "user": syscalls.CLONE_NEWUSER,
    "cgroup": syscalls.CLONE_NEWCGROUP,
    "time": syscalls.CLONE_NEWTIME,
}
ARCHITECTURES = ("x86_64", "aarch64")


def probe(proc: Path = Path("/proc"), sys: Path = Path("/sys")) -> Iterator[Check]:
    """Every finding about the kernel. Forks once per namespace."""
    yield version(platform.release())
    yield architecture(platform.machine())
    yield root()
    for name, flag in NAMESPACES.items():
        yield namespace(name, flag, proc) if is_root() else untried(f"namespace.{name}")
    yield seccomp(proc)
    yield landlock(syscalls.landlock_abi())
    yield modules(sys)
    yield ptrace(proc)
    yield unprivileged_userns(proc)


def version(release: str) -> Check:
    """Judge a release such as `6.1.0-18-amd64`."""
    found = re.match(r"(\d+)\.(\d+)", release)
    numbers = (int(found[1]), int(found[2])) if found else (0, 0)
    floor = f"{FLOOR[0]}.{FLOOR[1]}"
    facts = {"release": release, "floor": floor}
    if numbers >= FLOOR:
        return Check("kernel.version", Status.OK, f"Linux {release}", facts=facts)
    return Check(
        "kernel.version", Status.FAIL, f"Linux {release} is older than the floor, {floor}",
        "boot a newer kernel: Debian 12, Ubuntu 24.04 and everything since has one", facts,
    )  # fmt: skip


def architecture(machine: str) -> Check:
    """Judge a machine name: the system-call filter is compiled for the ones that we know."""
    if machine in ARCHITECTURES:
        return Check("kernel.architecture", Status.OK, machine)
    return Check(
        "kernel.architecture", Status.FAIL, f"no system-call filter is written for {machine}",
        "run the daemon on one of: " + ", ".join(ARCHITECTURES),
    )  # fmt: skip


def root() -> Check:
    """The daemon's launcher is root, and most of what follows can only be tried as root."""
    if is_root():
        return Check("host.root", Status.OK, "running as root")
    return Check(
        "host.root", Status.FAIL, f"running as uid {os.geteuid()}: the launcher needs root, and so do these probes",
        "sudo immure doctor",
    )  # fmt: skip


def namespace(name: str, flag: int, proc: Path = Path("/proc")) -> Check:
    """Make one namespace in a child, and throw it away."""
    error = in_child(lambda: syscalls.unshare(flag))
    if error == 0:
        return Check(f"namespace.{name}", Status.OK, "can be made")
    if name == "user" and error == errno.EPERM and in_child(lambda: syscalls.unshare(syscalls.CLONE_NEWNS)) == 0:
        return Check(
            "namespace.user", Status.FAIL, "cannot be made, though others can: EPERM",
            "in a chroot the kernel makes none: enter that root by pivot_root, as systemd-nspawn and containers do; "
            "elsewhere a security module forbids it",
        )  # fmt: skip
    ceiling = proc / f"sys/user/max_{name}_namespaces"
    remedy = f"raise sysctl user.max_{name}_namespaces" if ceiling.exists() and _is_zero(ceiling) else (
        "this is root's own right on a plain host: in a container, give the daemon CAP_SYS_ADMIN, or run it on the host"
        if error == 1
        else f"boot a kernel that was built with the {name} namespace"
    )  # fmt: skip
    return Check(f"namespace.{name}", Status.FAIL, f"cannot be made: {errno_name(error)}", remedy)


def seccomp(proc: Path = Path("/proc")) -> Check:
    """Filters are a wall, and needed; user notification only explains."""
    if not syscalls.seccomp_filter_supported():
        return Check(
            "kernel.seccomp", Status.FAIL, "no system-call filters",
            "boot a kernel with CONFIG_SECCOMP_FILTER (every distribution's has it)",
        )  # fmt: skip
    actions = _read(proc / "sys/kernel/seccomp/actions_avail").split()
    facts = {"actions": actions}
    if "user_notif" in actions:
        return Check("kernel.seccomp", Status.OK, "filters, with user notification", facts=facts)
    return Check(
        "kernel.seccomp", Status.WARN, "filters, but no user notification: denials are enforced, not named",
        "boot a kernel with CONFIG_SECCOMP_FILTER and Linux 5.0 or newer", facts,
    )  # fmt: skip


def landlock(abi: int) -> Check:
    """A second wall where the kernel has it; mounts are the first."""
    facts = {"abi": abi}
    if abi:
        return Check("kernel.landlock", Status.OK, f"ABI {abi}", facts=facts)
    return Check(
        "kernel.landlock", Status.WARN, "none: file rules stand on mounts and the filter alone",
        'add "landlock" to the lsm= boot parameter, or boot a kernel with CONFIG_SECURITY_LANDLOCK', facts,
    )  # fmt: skip


def modules(sys: Path = Path("/sys")) -> Check:
    """Which security modules are in force. None is needed; one that confines the daemon can surprise."""
    names = [name for name in _read(sys / "kernel/security/lsm").strip().split(",") if name]
    said = ", ".join(names) if names else "none that can be seen"
    return Check("kernel.lsm", Status.INFO, said, facts={"modules": names})


def ptrace(proc: Path = Path("/proc")) -> Check:
    """Yama's scope. Payloads have ids and a pid namespace of their own: it matters between a user's own processes."""
    scope = _read(proc / "sys/kernel/yama/ptrace_scope").strip()
    if not scope:
        return Check("kernel.ptrace", Status.INFO, "Yama is not in this kernel; nothing here depends on it")
    return Check("kernel.ptrace", Status.INFO, f"yama.ptrace_scope = {scope}", facts={"scope": int(scope)})


def unprivileged_userns(proc: Path = Path("/proc")) -> Check:
    """What other sandboxes need and this one does not; said, because people look for it."""
    restricted = [
        name
        for name, bad in (("apparmor_restrict_unprivileged_userns", "1"), ("unprivileged_userns_clone", "0"))
        if _read(proc / "sys/kernel" / name).strip() == bad
    ]
    state = "restricted here" if restricted else "allowed here"
    return Check("kernel.unprivileged-userns", Status.INFO, f"{state}; not needed: callers need a key, no namespaces")


def _is_zero(path: Path) -> bool:
    return _read(path).strip() == "0"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
