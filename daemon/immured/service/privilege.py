"""From root to the broker's own user: once, before anything that a stranger or the broker itself wrote is read.

Whatever needs root is done before (the launcher is started, the locks are taken) or is a step of a plan. Afterwards
this process has no capability in any set, its uid means nothing to the kernel, it starts no process and opens no
socket, and it writes nowhere but in its own directories.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import stat
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError
from immured.isolation.seccomp import preload
from immured.manifest.builtin import load_classes
from immured.service import confine, harden
from immured.service.broker_user import User
from immured.service.commands import load_commands
from immured.service.state import Paths

__all__ = ["drop", "prepare"]

_LATER: Final = (
    *("concurrent.futures.thread", "difflib", "encodings.ascii", "encodings.hex_codec", "encodings.idna"),
    *("encodings.latin_1", "linecache", "traceback", "unicodedata"),
    "cryptography.hazmat.primitives.serialization",
    # Also kept out of a start's way by imports inside functions.
    *("immured.host.statx", "immured.service.daemon"),
)
_SELDOM: Final = ("sqlite3", "_sqlite3")
"""What a question to a large ledger takes: a megabyte, left for the first of them where it is sure to be there then."""
_NONE: Final = frozenset({"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"})


def prepare() -> None:
    """Load what would otherwise be loaded when it is first needed: the package may stand where only root can read."""
    for name in _LATER:
        importlib.import_module(name)
    if not all(map(_is_the_systems, _SELDOM)):
        for name in _SELDOM:
            importlib.import_module(name)
    load_commands()
    preload()
    load_classes()


def _is_the_systems(name: str) -> bool:
    """Whether the broker can import it behind its walls too: a file of the system's own Python, which anybody may read,
    and what that is linked to is where the system's libraries are. Of any other Python's nothing is known."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        return False
    path = Path(found.origin).resolve()
    return (
        path.is_relative_to("/usr")
        and bool(path.stat().st_mode & stat.S_IROTH)
        and all(above.stat().st_mode & stat.S_IXOTH for above in path.parents)
    )


def drop(user: User, paths: Paths) -> Paths:
    """Become `user` behind the broker's walls, for good. Returns the paths as this process can reach them.

    Raises ConfigurationError `cannot_drop_privileges`, or `bad_state` where it could reach nothing; OSError.
    """
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise ConfigurationError("internal", "there are threads, which would keep their rights", "report it")
    program = confine.broker_filter()
    # Below a directory that only root may pass, it is reached by this descriptor alone.
    held = os.open(paths.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with confine.make_domain(paths) as domain:
        harden.drop_capabilities()
        harden.bound_tasks()
        harden.become(user.uid, user.gid)
        harden.hide_memory()
        domain.enter()
    harden.filter_calls(program)
    _check(user)
    return _reachable(paths, held)


def _check(user: User) -> None:
    """What was asked of the kernel is what it says."""
    said = harden.status()
    right = (
        said["Uid"] == [str(user.uid)] * 4
        and said["Gid"] == [str(user.gid)] * 4
        and said["Groups"] == []
        and all(int(said[name][0], 16) == 0 for name in _NONE)
        and said["NoNewPrivs"] == ["1"]
        and said["Seccomp"] == ["2"]
    )
    if not right:
        raise ConfigurationError("cannot_drop_privileges", "the kernel kept rights of this process", "report it")


def _reachable(paths: Paths, held: int) -> Paths:
    for candidate in (paths, Paths(Path(f"/proc/self/fd/{held}"))):
        try:
            candidate.ledger.stat()
            candidate.keys.stat()
        except PermissionError:
            continue
        return candidate
    raise ConfigurationError(
        "bad_state",
        f"the broker's user cannot reach {paths.ledger} and {paths.keys}",
        "let others pass the directories above what these are links to (chmod o+x)",
    )
