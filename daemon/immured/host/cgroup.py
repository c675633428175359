"""Where this daemon's cgroups go: the configured place, our own delegated unit, or a subtree named after the state."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError

__all__ = ["cgroup2_mount", "choose_cgroup", "parse_mount", "parse_own", "step_aside"]

_LEAF: Final = "supervisor"
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


def choose_cgroup(state: Path, configured: Path | None = None) -> Path:
    """The cgroup v2 directory under which the launcher makes its own; it need not exist yet.

    In order: `configured`; our own cgroup where it was delegated to us and holds nobody else (a service unit with
    Delegate=); `<mount>/immured-<8 hex of SHA-256 of the state's path>`. Raises ConfigurationError `no_cgroup2`.
    """
    mount = cgroup2_mount()
    if mount is None:
        raise ConfigurationError(
            "no_cgroup2", "no cgroup v2 hierarchy is mounted", "mount -t cgroup2 none /sys/fs/cgroup/unified"
        )
    if configured is not None:
        if not configured.is_relative_to(mount):
            raise ConfigurationError(
                "bad_configuration", f"{configured} is not below the cgroup v2 mount {mount}", "mend `cgroup`"
            )
        return configured
    own = _delegated(mount)
    if own is not None:
        return own
    name = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:8]
    return mount / f"immured-{name}"


def cgroup2_mount() -> Path | None:
    """Where the cgroup v2 hierarchy is mounted, or None."""
    return parse_mount(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def parse_mount(mountinfo: str) -> Path | None:
    """The first cgroup2 mount that shows the hierarchy's root, or else the first one."""
    found: list[tuple[str, str]] = []
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        if separator and after.split(" ", 1)[0] == "cgroup2":
            columns = before.split(" ")
            found.append((columns[3], columns[4]))
    if not found:
        return None
    _, point = min(found, key=lambda one: one[0] != "/")
    return Path(_ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), point))


def parse_own(proc_cgroup: str) -> str | None:
    """Our own v2 path from /proc/self/cgroup, `/` for the root."""
    for line in proc_cgroup.splitlines():
        if line.startswith("0::"):
            return line[3:]
    return None


def _delegated(mount: Path) -> Path | None:
    own = parse_own(Path("/proc/self/cgroup").read_text(errors="surrogateescape"))
    if own is None or own == "/" or own.startswith("/.."):
        return None
    path = mount / own.lstrip("/")
    try:
        if os.getxattr(path, "trusted.delegate") != b"1":
            return None
        members = (path / "cgroup.procs").read_text().split()
    except OSError:
        return None
    return path if members == [str(os.getpid())] else None


def step_aside(cgroup: Path) -> None:
    """Where `cgroup` is our own, move into a leaf below it: controllers reach only children of an empty cgroup.

    Raises ConfigurationError `no_cgroup2`.
    """
    mount = cgroup2_mount()
    own = parse_own(Path("/proc/self/cgroup").read_text(errors="surrogateescape"))
    if mount is None or own is None or mount / own.lstrip("/") != cgroup:
        return
    leaf = cgroup / _LEAF
    try:
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text("0")
    except OSError as error:
        raise ConfigurationError(
            "no_cgroup2", f"{leaf}: {error.strerror}", "give the unit Delegate=yes, or configure another `cgroup`"
        ) from error
