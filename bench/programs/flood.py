"""A flood: as one user, the same frames over so many connections, as fast as they are taken. No other package needed.

flood.py SOCKET UID CONNECTIONS SIZE HOW: frames of SIZE bytes each come on stdin, to be sent again and again. HOW is
`stay` (a connection is used for as long as it is open), `leave` (one frame a connection, then the next one) or `drip`
(`stay`, byte by byte). Says `ready` before the first byte, and when SIGTERM comes how many frames it got rid of (what
lies in a socket's buffer counts, and every connection of `leave`) and how many were answered.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time


class Flood:
    """What is sent where, and how much went."""

    def __init__(self, path: str, connections: int, size: int, how: str, frames: bytes) -> None:
        self.sent = 0
        self.answered = 0
        self._path, self._size, self._how, self._frames = path, size, how, frames
        self._most = 1 if how == "drip" else len(frames)
        self._sockets: list[tuple[socket.socket, int] | None] = [None] * connections
        self.stopped = False

    def frames_sent(self) -> int:
        """Whole ones."""
        return self.sent // self._size

    def go_round(self) -> bool:
        """One turn over all connections. Whether anything could be sent."""
        moved = False
        for index, known in enumerate(self._sockets):
            there = known or self._connect()
            if there is None:
                return moved
            sent = self._send(*there)
            if sent is None:
                self._sockets[index] = None
                moved = True
                continue
            moved |= sent > 0
            self._sockets[index] = (there[0], (there[1] + sent) % len(self._frames))
        return moved

    def wait(self) -> None:
        """Until some connection takes something again, or says something, or a little while."""
        there = [known[0] for known in self._sockets if known is not None]
        select.select(there, there, [], 0.05)
        time.sleep(0.001)

    def _connect(self) -> tuple[socket.socket, int] | None:
        connected = socket.socket(socket.AF_UNIX)
        connected.setblocking(False)
        try:
            connected.connect(self._path)
        except BlockingIOError:  # as many wait as may
            connected.close()
            return None
        return connected, 0

    def _send(self, connected: socket.socket, start: int) -> int | None:
        try:
            if self._how == "leave":
                connected.send(self._frames[: self._size])
                self.sent += self._size
                connected.close()
                return None
            try:
                while said := connected.recv(1 << 16):
                    self.answered += said.count(b"immured.reply.v1")
            except BlockingIOError:
                sent = connected.send(self._frames[start : start + self._most])
                self.sent += sent
                return sent
        except BlockingIOError:
            return 0
        except OSError:
            pass
        connected.close()
        return None


def main() -> None:
    """See above."""
    path, uid, connections, size, how = sys.argv[1:]
    flood = Flood(path, int(connections), int(size), how, sys.stdin.buffer.read())
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))

    def stop(_signal: int, _frame: object) -> None:
        flood.stopped = True

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while not flood.stopped:
        if not flood.go_round():
            flood.wait()
    print(flood.frames_sent(), flood.answered, flush=True)


if __name__ == "__main__":
    main()
