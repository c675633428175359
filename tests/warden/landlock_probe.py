"""Runs inside, with the standard library alone: tries things by the arguments' places and prints what it met, as JSON.

TMP WRITABLE OUTSIDE ABSTRACT VICTIM: two places that may be written, one that may not; an abstract socket's name and a
process, neither of the sandbox's.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)


def attempt(call: Callable[..., object], *arguments: Any) -> str:
    """The name of the errno that a call met, or "ok"."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error.errno))
    return "ok"


def put(path: str, flags: int = os.O_WRONLY | os.O_CREAT) -> None:
    os.close(os.open(path, flags, 0o644))


def say(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def truncate(path: str) -> str:
    """By path: `os.truncate` opens nothing."""
    ctypes.set_errno(0)
    return "ok" if libc.truncate(path.encode(), ctypes.c_long(0)) == 0 else errno.errorcode[ctypes.get_errno()]


def unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)


def datagram(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.sendto(b"x", ("127.0.0.1", port))


def terminal() -> None:
    ours, theirs = pty.openpty()
    os.get_terminal_size(theirs)
    os.ttyname(theirs)
    again = os.open(os.ttyname(theirs), os.O_RDWR | os.O_NOCTTY)
    os.get_terminal_size(again)
    for fd in (ours, theirs, again):
        os.close(fd)


def own_sockets(base: str) -> None:
    for name in (f"{base}/own.sock", "\0immured-own-socket"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
            server.listen()
            unix(name)


def own_signals() -> None:
    child = subprocess.Popen(["sleep", "60"])
    child.send_signal(signal.SIGTERM)
    if child.wait() != -signal.SIGTERM:
        raise OSError(errno.ECHILD, "no signal came")


def places(base: str) -> dict[str, str]:
    """Every way to change something below `base`, where `there`, `old/` and `fifo` are."""
    return {
        "create": attempt(put, f"{base}/new"),
        "write": attempt(put, f"{base}/there", os.O_WRONLY),
        "read and write": attempt(put, f"{base}/there", os.O_RDWR),
        "append": attempt(put, f"{base}/there", os.O_WRONLY | os.O_APPEND),
        "open to truncate": attempt(put, f"{base}/there", os.O_WRONLY | os.O_TRUNC),
        "open to read and truncate": attempt(put, f"{base}/there", os.O_RDONLY | os.O_TRUNC),
        "truncate": truncate(f"{base}/there"),
        "nameless": attempt(put, base, os.O_TMPFILE | os.O_RDWR),
        "mkdir": attempt(os.mkdir, f"{base}/directory"),
        "mkfifo": attempt(os.mkfifo, f"{base}/pipe"),
        "mknod": attempt(os.mknod, f"{base}/node", 0o100644),
        "symlink": attempt(os.symlink, "x", f"{base}/symlink"),
        "link": attempt(os.link, f"{base}/there", f"{base}/link"),
        "link into a directory": attempt(os.link, f"{base}/there", f"{base}/old/link"),
        "rename": attempt(os.rename, f"{base}/there", f"{base}/renamed"),
        "rename into a directory": attempt(os.rename, f"{base}/renamed", f"{base}/old/there"),
        "rename back": attempt(os.rename, f"{base}/old/there", f"{base}/there"),
        "unlink": attempt(os.unlink, f"{base}/doomed"),
        "rmdir": attempt(os.rmdir, f"{base}/empty"),
        "write to a FIFO": attempt(put, f"{base}/fifo", os.O_RDWR),
        "read": attempt(lambda: open(f"{base}/there").close()),
        "list": attempt(os.listdir, base),
    }


def main() -> None:
    tmp, writable, outside, abstract, victim = sys.argv[1:6]
    facts: dict[str, Any] = {
        "tmp": places(tmp),
        "writable": places(writable),
        "outside": places(outside),
        "rename out": attempt(os.rename, f"{writable}/there", f"{outside}/moved"),
        "rename between": attempt(os.rename, f"{writable}/new", f"{tmp}/moved"),
        "others' abstract socket": attempt(unix, f"\0{abstract}"),
        "others' socket below what is writable": attempt(unix, f"{writable}/others.sock"),
        "others' socket elsewhere": attempt(unix, f"{outside}/others.sock"),
        "others' process": attempt(os.kill, int(victim), 0),
        "own sockets": attempt(own_sockets, tmp),
        "own signals": attempt(own_signals),
        "terminal": attempt(terminal),
        "null": attempt(put, "/dev/null", os.O_WRONLY | os.O_TRUNC),
        "own memory": attempt(put, f"/proc/self/fd/{os.memfd_create('x')}", os.O_WRONLY | os.O_TRUNC),
        "comm": attempt(say, "/proc/self/comm", "renamed"),
        "oom_score_adj": attempt(say, "/proc/self/oom_score_adj", "1000"),
        "execute": attempt(subprocess.run, ["/bin/true"]),
    }
    with socket.socket() as one:
        facts["TCP bind"] = attempt(one.bind, ("127.0.0.1", 0))
    with socket.socket() as one:
        facts["TCP connect"] = attempt(one.connect, ("127.0.0.1", 1))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        facts["UDP bind"] = attempt(one.bind, ("127.0.0.1", 0))
    facts["UDP send"] = attempt(datagram, 9)
    json.dump(facts, sys.stdout)


main()
