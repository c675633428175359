"""Files that are locked while somebody serves: one daemon for a state directory, one for a block of host ids."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError
from immured.host.ids import BLOCKS, SLOT_BASE, SLOT_SIZE, SLOTS_PER_BLOCK

__all__ = ["lock_slots", "lock_state", "wait_for_launcher"]

_POLL_S: Final = 0.05


def lock_state(path: Path) -> int:
    """Lock a state directory by its `lock`, which then holds our pid. Returns the descriptor: closed, it is unlocked.

    Raises ConfigurationError `state_in_use`, naming the pid of the daemon that holds it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise ConfigurationError(
            "state_in_use",
            f"{path.parent} is served by another daemon, process {holder}",
            "stop that one, or give this one a state directory of its own",
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def wait_for_launcher(path: Path, seconds: float) -> int:
    """Lock `launcher.lock`, which a launcher of a dead daemon holds while it clears up. Returns the descriptor.

    Raises ConfigurationError `launcher_busy` after so many seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < deadline:
                time.sleep(_POLL_S)
                continue
            os.close(fd)
            raise ConfigurationError(
                "launcher_busy",
                f"the launcher of an earlier daemon still clears up after {seconds:g} s, and holds {path}",
                f"see which process: fuser {path}; a file system that does not answer may hold it up",
            ) from None
        return fd


def lock_slots(directory: Path, preferred: int) -> tuple[int, int]:
    """A block of host ids that no other daemon of this host uses: (first id, descriptor of its lock).

    Raises ConfigurationError `no_slots` where all are taken, OSError.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    for step in range(BLOCKS):
        block = (preferred + step) % BLOCKS
        fd = os.open(directory / f"slots-{block}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            continue
        return SLOT_BASE + block * SLOTS_PER_BLOCK * SLOT_SIZE, fd
    raise ConfigurationError(
        "no_slots",
        f"{BLOCKS} daemons run on this host already, and their sandboxes take all host ids set apart",
        "configure slot_base and slot_count, outside of what others use",
    )
