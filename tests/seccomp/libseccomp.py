"""libseccomp by ctypes: the other compiler, for comparison. Filters leave it as programs, never as installed ones."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

_LIBRARY: Final = ctypes.CDLL("libseccomp.so.2", use_errno=True)
_ACT_BADARCH: Final = 2
ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
NE, LT, LE, EQ, GE, GT, MASKED_EQ = range(1, 8)


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_uint),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


_LIBRARY.seccomp_init.argtypes = [ctypes.c_uint32]
_LIBRARY.seccomp_init.restype = ctypes.c_void_p
_LIBRARY.seccomp_release.argtypes = [ctypes.c_void_p]
_LIBRARY.seccomp_release.restype = None
_LIBRARY.seccomp_arch_native.restype = ctypes.c_uint32
_LIBRARY.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
_LIBRARY.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
_LIBRARY.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
_LIBRARY.seccomp_rule_add_array.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint32,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.POINTER(Comparison),
]
_LIBRARY.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
_LIBRARY.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]


def number_of(name: str, architecture: str = "x86_64") -> int:
    """A system call's number as libseccomp knows it; negative where it does not."""
    return int(_LIBRARY.seccomp_syscall_resolve_name_arch(ARCHITECTURES[architecture], name.encode()))


class Filter:
    """A filter under construction."""

    def __init__(self, context: int) -> None:
        self._context = context

    def rule(self, action: int, number: int, *comparisons: tuple[int, int, int, int]) -> None:
        """Add a rule: all comparisons `(argument, operator, first, second)` hold -> action."""
        array = (Comparison * len(comparisons))(*(Comparison(*one) for one in comparisons))
        _check(_LIBRARY.seccomp_rule_add_array(self._context, action, number, len(comparisons), array))

    def export(self) -> bytes:
        """The program, `struct sock_filter[]`."""
        descriptor = os.memfd_create("libseccomp")
        try:
            _check(_LIBRARY.seccomp_export_bpf(self._context, descriptor))
            os.lseek(descriptor, 0, os.SEEK_SET)
            with os.fdopen(os.dup(descriptor), "rb") as program:
                return program.read()
        finally:
            os.close(descriptor)


@contextmanager
def new_filter(default: int, foreign: int, architecture: str = "x86_64") -> Iterator[Filter]:
    """A filter for one architecture whose other calls get `foreign`."""
    context = _LIBRARY.seccomp_init(default)
    assert context
    try:
        _check(_LIBRARY.seccomp_attr_set(context, _ACT_BADARCH, foreign))
        if ARCHITECTURES[architecture] != _LIBRARY.seccomp_arch_native():
            _check(_LIBRARY.seccomp_arch_add(context, ARCHITECTURES[architecture]))
            _check(_LIBRARY.seccomp_arch_remove(context, _LIBRARY.seccomp_arch_native()))
        yield Filter(context)
    finally:
        _LIBRARY.seccomp_release(context)


def compiled(
    default: int,
    foreign: int,
    rules: Sequence[tuple[int, int, Sequence[tuple[int, int, int, int]]]],
    architecture: str = "x86_64",
) -> bytes:
    """A filter of `(number, action, comparisons)` rules. Numbers are this machine's, whatever the architecture."""
    with new_filter(default, foreign, architecture) as filter_:
        for number, action, comparisons in rules:
            filter_.rule(action, number, *comparisons)
        return filter_.export()


def _check(status: int) -> None:
    if status:
        raise OSError(-status, os.strerror(-status))
