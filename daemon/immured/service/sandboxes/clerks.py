"""A clerk, as the broker talks to it: a short-lived process in a sandbox, one packet asked, one answered.

    async with await service.sandboxes.clerk(sandbox, Clerk.FILES, channel.number) as link:
        data, fds = await link.ask(packet)

The clerk ends when its link is closed.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from immured.errors import Refused
from immured.isolation import abi
from immured.wire.sockets import close_all

__all__ = ["ANSWER_S", "Link"]

ANSWER_S: Final = 30.0
_MAX_DESCRIPTORS: Final = 16


class Link:
    """A SEQPACKET socket whose other end a clerk has. `sock` is owned; one question at a time."""

    __slots__ = ("_loop", "_sandbox", "_sock")

    def __init__(self, sock: socket.socket, sandbox: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._sandbox = sandbox
        self._sock: socket.socket | None = sock
        sock.setblocking(False)

    async def ask(self, data: bytes, fds: Sequence[int] = (), *, within: float = ANSWER_S) -> tuple[bytes, list[int]]:
        """One packet with borrowed descriptors, and the one that answers it: its bytes, and descriptors that are the
        caller's to close. Raises Refused as `receive` does."""
        await self.send(data, fds, within=within)
        return await self.receive(within=within)

    async def send(self, data: bytes, fds: Sequence[int] = (), *, within: float = ANSWER_S) -> None:
        """One packet. Raises Refused as `receive` does; ValueError for one that is no packet."""
        if not 0 < len(data) <= abi.MAX_PACKET:
            raise ValueError(f"a packet of {len(data)} bytes")
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        deadline = self._loop.time() + within
        while True:
            sock = self._open()
            try:
                sock.sendmsg([data], control, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                await self._wait(sock, deadline, writing=True)
            except OSError:
                raise self._gone() from None
            else:
                return

    async def receive(self, *, within: float = ANSWER_S) -> tuple[bytes, list[int]]:
        """The next packet, and its descriptors, which are the caller's.

        Raises Refused `path_timeout` after `within` seconds: a file system does not answer, and the clerk with it, so
        the link is closed; `clerk_lost` where the clerk ended.
        """
        deadline = self._loop.time() + within
        while True:
            sock = self._open()
            try:
                data, ancillary, flags, _ = sock.recvmsg(
                    abi.MAX_PACKET,
                    socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS),
                    socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC,
                )
            except (BlockingIOError, InterruptedError):
                await self._wait(sock, deadline, writing=False)
                continue
            except OSError:
                raise self._gone() from None
            fds = _descriptors(ancillary)
            if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                close_all(fds)
                raise self._gone()
            return data, fds

    def close(self) -> None:
        """The clerk ends. Twice is once."""
        sock, self._sock = self._sock, None
        if sock is not None:
            sock.close()

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> socket.socket:
        if self._sock is None:
            raise self._gone()
        return self._sock

    async def _wait(self, sock: socket.socket, deadline: float, *, writing: bool) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        add, remove = (
            (self._loop.add_writer, self._loop.remove_writer)
            if writing
            else (self._loop.add_reader, self._loop.remove_reader)
        )
        add(sock, _resolve, ready)
        try:
            async with asyncio.timeout_at(deadline):
                await ready
        except TimeoutError:
            pass
        else:
            return
        finally:
            remove(sock)
        self.close()
        raise Refused(
            "path_timeout",
            f"the files of {self._sandbox} did not answer in time",
            "a file system behind the sandbox does not answer: mend it, or leave that path alone",
            details={"sandbox": self._sandbox},
        )

    def _gone(self) -> Refused:
        self.close()
        return Refused(
            "clerk_lost",
            f"the process that serves {self._sandbox} ended before it answered",
            "`sandbox.show` says whether the sandbox still lives; if it does, ask again",
            details={"sandbox": self._sandbox},
        )


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _descriptors(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
