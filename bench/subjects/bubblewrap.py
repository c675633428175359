"""bubblewrap, the tool that the bars are against: with equal walls, as people type it, and as benchmarks time it."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from bench.subjects.spawned import PROGRAM, Spawned
from bench.walls import DEFAULT_CLASS, NO_HOST_ROOT
from immured.isolation.seccomp import compile_profile

__all__ = ["bare", "equal", "short"]

#: Whose bwrap is: started as root, its payload's files are root's, however it calls itself inside.
USER: Final = 65534

ETC: Final = [f"/etc/{name}" for name in "ld.so.cache nsswitch.conf localtime alternatives services protocols".split()]
#: What hides or adds the same in bwrap's words.
COVERS: Final = {
    "/dev/mqueue": ("--mqueue", "/dev/mqueue"),
    "/dev/shm": ("--tmpfs", "/dev/shm"),
    **{f"/proc/{name}": ("--ro-bind", f"/proc/{name}", f"/proc/{name}") for name in ("fs", "pressure")},
    "/proc/acpi": ("--tmpfs", "/proc/acpi", "--remount-ro", "/proc/acpi"),
    "/proc/scsi": ("--tmpfs", "/proc/scsi", "--remount-ro", "/proc/scsi"),
    **{
        f"/proc/{name}": ("--ro-bind", "/dev/null", f"/proc/{name}")
        for name in ("interrupts", "kcore", "keys", "latency_stats", "sched_debug", "timer_list", "timer_stats")
    },
}
#: What bwrap covers by itself where it could be written, and it is started as root.
COVERS_AS_USER: Final = {
    f"/proc/{name}": ("--ro-bind", f"/proc/{name}", f"/proc/{name}") for name in ("bus", "irq", "sys", "sysrq-trigger")
}


def equal(executable: str, places: Iterable[str]) -> Spawned:
    """The walls of a default run with the very same filter, showing and hiding what such a run does at `places`."""
    shown = list(places)
    etc = [place for place in shown if place.startswith("/etc/")]
    known = COVERS | (COVERS_AS_USER if _user(executable) is not None else {})
    covers = [word for place in shown for word in known.get(place, ())]
    return _filtered("bwrap", executable, etc or ETC, covers, how="the same walls, filter and view, as its user")


def short(executable: str) -> Spawned:
    """What people type: fewer mounts, and so less hidden."""
    return _filtered("bwrap, short", executable, ETC, [], how="six files of /etc, only what bwrap covers by itself")


def bare(executable: str) -> Spawned:
    """The line that most comparisons time."""
    words = "--unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp".split()
    how = f"`bwrap {' '.join(words)}`"
    uid = _user(executable)
    told = _told(uid)
    return Spawned("bwrap, bare", lambda command: [executable, *words, *command], told=told, how=how, uid=uid)


def _filtered(name: str, executable: str, etc: Sequence[str], covers: Sequence[str], *, how: str) -> Spawned:
    namespaces = "--unshare-all --uid 1000 --gid 1000 --hostname sandbox --new-session --die-with-parent"
    programs = "--ro-bind /usr /usr --symlink usr/bin /bin --symlink usr/sbin /sbin --symlink usr/lib /lib"
    where = "--symlink usr/lib64 /lib64 --dir /etc --proc /proc --dev /dev --tmpfs /tmp --chdir /"
    privileges = "--cap-drop ALL --clearenv --setenv PATH /usr/bin:/bin --seccomp"
    words = f"{namespaces} {programs} {where}".split()
    words += [word for file in etc for word in ("--ro-bind-try", file, file)]
    words += [*covers, *privileges.split(), PROGRAM]
    uid = _user(executable)
    return Spawned(
        name,
        lambda command: [executable, *words, *command],
        told=[DEFAULT_CLASS, *_told(uid)],
        how=how,
        program=compile_profile("default"),
        uid=uid,
    )


def _told(uid: int | None) -> list[str]:
    return [] if uid is None and os.geteuid() == 0 else [NO_HOST_ROOT]


@functools.cache
def _user(executable: str) -> int | None:
    """Whose bwrap is; None: the caller's, since that is no root, or this host lets no user make user namespaces."""
    if os.geteuid() != 0:
        return None
    tried = subprocess.run(
        [executable, "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "/bin/true"],
        check=False,
        capture_output=True,
        user=USER,
        group=USER,
        extra_groups=[],
        cwd=Path("/"),
        timeout=30,
    )
    return USER if tried.returncode == 0 else None
