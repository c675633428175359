"""What the broker gives up for good. The one file that knows python-prctl."""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import prctl

from immured.errors import ConfigurationError

__all__ = [
    "become",
    "bound_tasks",
    "drop_capabilities",
    "filter_calls",
    "hide_memory",
    "raise_descriptor_limit",
    "status",
]

_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECUREBITS: Final = 28
_SECCOMP_MODE_FILTER: Final = 2
# linux/securebits.h. NOROOT and NO_CAP_AMBIENT_RAISE set, NO_SETUID_FIXUP and KEEP_CAPS clear; all four locked.
_SECUREBITS: Final = 0b1110_1011
_CAPABILITY_VERSION_3: Final = 0x2008_0522
_TASKS: Final = 4096  # a thread for each file that is being collected, and for each uid whose descriptors close slowly

_libc = ctypes.CDLL(None, use_errno=True)


def hide_memory() -> None:
    """No core dump, no ptrace by an equal uid: this process holds keys. Raises ConfigurationError.

    A change of uid undoes it: call it again after one.
    """
    # 1 byte: no file is written, nor, as at 0, the host's handler started. The launcher inherits it and could not
    # raise a 0 of ours for payloads where it lacks CAP_SYS_RESOURCE.
    core = min(1, resource.getrlimit(resource.RLIMIT_CORE)[1] % 2**64)
    resource.setrlimit(resource.RLIMIT_CORE, (core, core))
    _try("PR_SET_DUMPABLE", prctl.set_dumpable, 0)
    _try("PR_SET_NAME", prctl.set_name, "immured")


def drop_capabilities() -> None:
    """The bounding set emptied, and securebits locked so that no uid means anything to it. Needs CAP_SETPCAP; raises
    ConfigurationError. What is left goes with the change of uid."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in range(last + 1):
        _call("PR_CAPBSET_DROP", _libc.prctl, _PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("PR_SET_SECUREBITS", _libc.prctl, _PR_SET_SECUREBITS, _SECUREBITS, 0, 0, 0)


def become(uid: int, gid: int) -> None:
    """All ids, no supplementary groups, no capability in any set, no_new_privs. Raises ConfigurationError."""
    _try("setgroups", os.setgroups, [])
    _try(f"setresgid({gid})", os.setresgid, gid, gid, gid)
    _try(f"setresuid({uid})", os.setresuid, uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _call("capset", _libc.capset, header, (ctypes.c_uint32 * 6)())
    _try("PR_SET_NO_NEW_PRIVS", prctl.set_no_new_privs, 1)


def filter_calls(program: bytes) -> None:
    """This thread, and all that it starts, behind a filter: `struct sock_filter[]`. Raises ConfigurationError."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    loaded = Program(len(program) // 8, program)
    _call("PR_SET_SECCOMP", _libc.prctl, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0)


def bound_tasks() -> None:
    """So many tasks of our uid, and no more. Raises ConfigurationError."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    bound = _TASKS if hard == resource.RLIM_INFINITY else min(hard, _TASKS)
    _try("RLIMIT_NPROC", resource.setrlimit, resource.RLIMIT_NPROC, (bound, bound))


def raise_descriptor_limit() -> int:
    """RLIMIT_NOFILE to its hard value, which is returned: a connection each, and up to six for a run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def status() -> dict[str, list[str]]:
    """/proc/self/status: what the kernel says of this process, by name."""
    lines = (line.partition(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: value.split() for name, _, value in lines}


def _try(what: str, attempt: Callable[..., object], *arguments: Any) -> None:
    try:
        attempt(*arguments)
    except OSError as error:
        raise _failed(what, error) from error


def _call(what: str, function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        error = ctypes.get_errno()
        raise _failed(what, OSError(error, os.strerror(error)))


def _failed(what: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        "cannot_drop_privileges",
        f"{what}: {error.strerror}",
        "see `immure doctor`; in a container, let the daemon set uids, and name one that is mapped as [broker] user",
    )
