"""What every idea stands on. It is put in beside the idea and runs where that runs, with the standard library alone.

An idea says once what came of it, as a line of JSON: `{"got": what}`, `{"contained": why}`. An OSError that it lets
escape is a containment by that errno; any other exception is a mistake in the idea, and fails its test.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, TypeVar

NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x80, 0x20000, 0x2000000, 0x4000000, 0x8000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
SIGCHLD = 17

libc = ctypes.CDLL(None, use_errno=True)
Thing = TypeVar("Thing")


def say(word: str, what: object) -> NoReturn:
    """The verdict, by a single write; then the end, whatever else runs here."""
    os.write(1, json.dumps({word: str(what)}).encode() + b"\n")
    os._exit(0)


def got(what: object) -> NoReturn:
    say("got", what)


def contained(why: object) -> NoReturn:
    say("contained", why)


def holding(what: object = "") -> str:
    """Tells the one outside that everything is in place, and waits for its answer."""
    os.write(1, json.dumps({"holding": str(what)}).encode() + b"\n")
    return sys.stdin.readline().strip()


def check(result: int, what: str = "") -> int:
    """`result` of a call of C's; negative: OSError by errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def system(name: str, *arguments: Any) -> int:
    """A system call by name. Whole numbers are passed as 64 bits, the rest as ctypes has it."""
    from numbers_here import NUMBERS  # type: ignore[import-not-found]  # the harness writes it for this machine

    if name not in NUMBERS:
        raise OSError(errno.ENOSYS, "no such call on this machine", name)
    words = [ctypes.c_long(word) if isinstance(word, int) else word for word in arguments]
    ctypes.set_errno(0)
    return check(int(libc.syscall(ctypes.c_long(NUMBERS[name]), *words)), name)


def outcome(attempt: Callable[[], object]) -> str:
    """The errno's name, or `ok`."""
    try:
        attempt()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "ok"


def tries(attempts: Mapping[str, Callable[[], object]]) -> NoReturn:
    """One after the other: the first that works is what was got."""
    met = set()
    for name, attempt in attempts.items():
        answer = outcome(attempt)
        if answer == "ok":
            got(name)
        met.add(answer)
    contained(" ".join(sorted(met)))


def each(attempt: Callable[[Thing], object], *things: Thing) -> dict[str, Callable[[], object]]:
    """The same with several things, for `tries`."""
    return {hex(thing) if isinstance(thing, int) else str(thing): partial(attempt, thing) for thing in things}


def through(call: str, *arguments: Any) -> None:
    """A call whose arguments are nonsense: the kernel asks for the right first. Whoever has it meets nonsense."""
    answer = outcome(lambda: system(call, *arguments))
    if answer in {"EPERM", "EACCES", "ENOSYS"}:
        raise OSError(getattr(errno, answer), call)


def in_child(work: Callable[[], object]) -> str:
    """`outcome(work)`, in a process of its own, so that what works changes nothing here."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, outcome(work).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    answer = os.read(read, 64).decode()
    os.close(read)
    return answer or "died"


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def open_to_write(path: str) -> None:
    """Opens and closes: shows the reach, and changes nothing."""
    os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))


def status(field: str) -> str:
    """A line of /proc/self/status."""
    lines = read("/proc/self/status").decode().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field + ":"))


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, OSError) and error.errno:
        contained(errno.errorcode.get(error.errno, error.errno))
    sys.__excepthook__(kind, error, trace)


sys.excepthook = _hook
