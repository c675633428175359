"""The few system calls that Python has no name for, as the probes need them: each raises OSError, none has a policy.

The numbers are the same on every 64-bit architecture (Linux unified them from 424 on; one is older), so they can stand
here: the doctor must be able to speak on a host where the native parts have not been built.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct

__all__ = [
    "CLONE_NEWCGROUP",
    "CLONE_NEWIPC",
    "CLONE_NEWNET",
    "CLONE_NEWNS",
    "CLONE_NEWPID",
    "CLONE_NEWTIME",
    "CLONE_NEWUSER",
    "CLONE_NEWUTS",
    "call",
    "clone_into_cgroup",
    "clone_tree",
    "landlock_abi",
    "listen_to_self",
    "open_beneath",
    "seccomp_filter_supported",
    "seccomp_flag_supported",
    "set_idmap",
    "unshare",
]

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_CLONE_INTO_CGROUP = 0x200000000
_SYS_OPEN_TREE = 428
_SYS_CLONE3 = 435
_SYS_OPENAT2 = 437
_SYS_SECCOMP = 277 if os.uname().machine == "aarch64" else 317
_SYS_MOUNT_SETATTR = 442
_SYS_LANDLOCK_CREATE_RULESET = 444
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_IDMAP = 0x00100000
_LANDLOCK_CREATE_RULESET_VERSION = 1
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_NEW_LISTENER = 1 << 3
_SECCOMP_MODE_FILTER = 2
_EFAULT = 14

# PyDLL: the interpreter lock stays held, so that the child of a raw clone3 wakes up as the one thread that holds it.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _CloneArgs(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class _MountAttr(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns"))


def call(number: int, *arguments: object) -> int:
    """A system call by its number; an int among the arguments is a C int. Raises OSError."""
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def unshare(flags: int) -> None:
    """Leave the namespaces named by `flags` (CLONE_NEW*) for fresh ones. os.unshare is Python 3.12's."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def clone_into_cgroup(cgroup: int) -> int:
    """Fork a child that is born in the cgroup whose directory is open as `cgroup`; 0 in the child, its pid here."""
    arguments = _CloneArgs(flags=_CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=cgroup)
    return call(_SYS_CLONE3, ctypes.byref(arguments), ctypes.c_size_t(ctypes.sizeof(arguments)))


def clone_tree(path: str) -> int:
    """A detached mount of `path`, in nobody's view, as a descriptor that the caller closes."""
    return call(
        _SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC),
    )  # fmt: skip


def set_idmap(tree: int, userns: int) -> None:
    """Idmap the detached mount `tree` by the user namespace `userns`; EINVAL where its file system cannot."""
    attributes = _MountAttr(set=_MOUNT_ATTR_IDMAP, userns=userns)
    call(
        _SYS_MOUNT_SETATTR, ctypes.c_int(tree), ctypes.c_char_p(b""), ctypes.c_uint(_AT_EMPTY_PATH),
        ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)),
    )  # fmt: skip


def landlock_abi() -> int:
    """The kernel's Landlock ABI version; 0 where it has none, or has it switched off."""
    try:
        return call(
            _SYS_LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_LANDLOCK_CREATE_RULESET_VERSION)
        )
    except OSError:
        return 0


def seccomp_flag_supported(flags: int) -> bool:
    """Whether seccomp(2) knows these SECCOMP_FILTER_FLAG_*: with no program it then answers EFAULT, and loads none."""
    answer = _libc.syscall(ctypes.c_long(_SYS_SECCOMP), ctypes.c_uint(1), ctypes.c_uint(flags), None)
    return int(answer) < 0 and ctypes.get_errno() == _EFAULT


def listen_to_self() -> int:
    """A listener to a filter that allows everything, put on this very process: for a child that ends soon."""
    program = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF_0000), 8)
    loaded = struct.pack("=H6xQ", 1, ctypes.addressof(program))
    _libc.prctl(ctypes.c_int(_PR_SET_NO_NEW_PRIVS), ctypes.c_ulong(1), 0, 0, 0)
    return call(_SYS_SECCOMP, ctypes.c_uint(1), ctypes.c_uint(_NEW_LISTENER), ctypes.c_char_p(loaded))


def open_beneath(directory: int, path: str) -> int:
    """openat2 with RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS, for reading; a descriptor that the caller closes."""
    how = (ctypes.c_uint64 * 3)(os.O_RDONLY | os.O_CLOEXEC, 0, 0x08 | 0x02)
    return call(
        _SYS_OPENAT2,
        ctypes.c_int(directory),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        ctypes.c_size_t(24),
    )


def seccomp_filter_supported() -> bool:
    """Whether the kernel takes seccomp filters: with no program it answers EFAULT where it does, and loads nothing."""
    answer = _libc.prctl(ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(_SECCOMP_MODE_FILTER), None, 0, 0)
    return int(answer) < 0 and ctypes.get_errno() == _EFAULT
