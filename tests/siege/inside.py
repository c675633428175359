"""What hostile execs run, and what is waited for from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from immured.client.sandbox import Exec, Sandbox
from immured.client.sandbox_facts import ExecFacts
from tests.sandboxes.waiting import until

__all__ = ["GIVES", "KEEPS", "STOPS_ALL", "begun", "over", "program"]


def program(code: str, *arguments: str) -> Sequence[str]:
    return ["/usr/bin/python3", "-BEsS", "-c", code, *arguments]


KEEPS: Final = """
import os, socket, sys, threading
server = socket.socket(socket.AF_UNIX)
server.bind("/tmp/keeps")
server.listen(16)
print("begun", flush=True)

def write(peer, fds):
    peer.recv(1)
    while sys.argv[1] == "writes":
        for fd in fds:
            try:
                os.write(fd, b"x" * 65536)
            except OSError:
                return

kept = []
while True:
    peer, _ = server.accept()
    _, fds, _, _ = socket.recv_fds(peer, 16, 8)
    kept.append(fds)
    threading.Thread(target=write, args=(peer, fds), daemon=True).start()
    peer.send(b"taken")
"""
"""Takes descriptors, and keeps them; `writes`: into them, from the end of who gave them on, and without one."""

GIVES: Final = """
import socket
peer = socket.socket(socket.AF_UNIX)
peer.connect("/tmp/keeps")
socket.send_fds(peer, [b"."], [1, 2])
peer.recv(16)
"""
"""Gives its output to who keeps descriptors, and ends."""

STOPS_ALL: Final = """
import os, signal
print("begun", flush=True)
while True:
    try:
        os.kill(-1, signal.SIGSTOP)
    except OSError:
        pass
"""
"""Stops whatever it may send a signal to, again and again."""


def begun(sandbox: Sandbox, argv: Sequence[str], **options: object) -> Exec:
    """A detached exec that has said so."""
    one = sandbox.start(argv, **options)  # type: ignore[arg-type]
    until(lambda: b"begun" in one.logs().output)
    return one


def over(one: Exec) -> ExecFacts:
    """How it ended, once it has, within what a test waits for."""
    found: list[ExecFacts] = []

    def ended() -> bool:
        facts = one.facts()
        assert facts is not None
        found[:] = [facts]
        return not facts.live

    until(ended)
    return found[0]
