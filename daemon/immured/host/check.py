"""One finding about the host, and the child process in which whatever could harm the caller is tried."""

from __future__ import annotations

import errno
import os
import select
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Check", "Status", "errno_name", "in_child", "is_root", "untried"]


class Status(StrEnum):
    """How bad a finding is. Only `FAIL` keeps the daemon from running."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """A finding: what was looked at (`name`, stable, dotted), what was seen, and what to do about it.

    `remedy` is empty unless the status is `warn` or `fail`. `facts` are the figures behind the sentence, for machines.
    `stands` is for what is a rung of the ladder: whether it is there on this host; None for all else, and where it was
    not tried. Where it is not, `found` says what stands instead.
    """

    name: str
    status: Status
    found: str
    remedy: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    stands: bool | None = None

    def as_map(self) -> dict[str, object]:
        """The shape of `immure doctor --json`, one element of `checks`."""
        return {
            "name": self.name,
            "status": self.status.value,
            "found": self.found,
            "remedy": self.remedy,
            "facts": dict(self.facts),
            "stands": self.stands,
        }


def is_root() -> bool:
    """Whether what only root can do can be tried."""
    return os.geteuid() == 0


def untried(name: str) -> Check:
    """The finding where a probe needs root and we are not: nothing is concluded from a refusal that proves nothing."""
    return Check(name, Status.INFO, "not tried: needs root")


def errno_name(number: int) -> str:
    """`EPERM` for 1; the number itself for what has no name."""
    return errno.errorcode.get(number, str(number))


def in_child(attempt: Callable[[], None], *, timeout: float = 30.0) -> int:
    """Try something in a forked child. Returns 0, or the errno of the OSError that it raised.

    A child that outlives `timeout` seconds is killed: ETIMEDOUT; a busy kernel takes several for a network namespace.
    One that dies otherwise: ECHILD.
    The caller must be single-threaded, as the command line is.
    """
    child = os.fork()
    if child == 0:
        code = 255
        try:
            attempt()
            code = 0
        except OSError as failed:
            code = failed.errno if failed.errno and failed.errno < 255 else 255
        finally:
            os._exit(code)
    return _wait(child, timeout)


def _wait(child: int, timeout: float) -> int:
    handle = os.pidfd_open(child)
    try:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(timeout * 1000):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.waitpid(child, 0)
            return errno.ETIMEDOUT
        _, status = os.waitpid(child, 0)
    finally:
        os.close(handle)
    code = os.waitstatus_to_exitcode(status)
    return code if 0 <= code < 255 else errno.ECHILD
