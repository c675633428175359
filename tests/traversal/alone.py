"""The files' clerk alone, driven as the broker drives it: its root is a directory, and it is uid 1000 in there."""

from __future__ import annotations

import array
import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from immured.isolation.abi import MAX_PACKET
from immured.isolation.files_words import (
    NO_FLAGS,
    FilesAnswer,
    FilesFlag,
    FilesOp,
    FilesRefusal,
    pack_question,
    parse_files_answer,
)
from immured.wire.sockets import close_all
from tests.patience import PATIENCE_S

MOST = 1 << 40
OWNER = 1000


class Refusal(Exception):
    """The clerk said no."""

    def __init__(self, answer: FilesAnswer) -> None:
        super().__init__(answer.text)
        self.why = answer.refusal or FilesRefusal.FAILED
        self.error = answer.error


class Alone:
    """One clerk. Its methods are the daemon's commands, in as many questions as those take."""

    def __init__(self, program: Path, root: Path) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(PATIENCE_S)
        with theirs, ExitStack() as unless_it_began:
            unless_it_began.callback(self._ours.close)
            self.process = subprocess.Popen(
                [program, str(theirs.fileno()), str(root)], pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL
            )
            unless_it_began.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ours.close()
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            raise

    def patience(self, seconds: float) -> None:
        """How long an answer is waited for."""
        self._ours.settimeout(seconds)

    def exchange(self, packet: bytes, op: FilesOp, fds: Sequence[int] = ()) -> tuple[FilesAnswer, list[int]]:
        """Any packet, and what comes back."""
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._ours.sendmsg([packet], control)
        data, ancillary, _, _ = self._ours.recvmsg(MAX_PACKET, socket.CMSG_SPACE(64), socket.MSG_CMSG_CLOEXEC)
        if not data:
            raise EOFError(f"the clerk ended: {self.process.wait(PATIENCE_S)}")
        came = array.array("i")
        for _, _, held in ancillary:
            came.frombytes(held)
        return parse_files_answer(op, data), list(came)

    def open(
        self,
        op: FilesOp,
        path: bytes = b"",
        second: bytes = b"",
        *,
        flags: FilesFlag = NO_FLAGS,
        mode: int = 0,
        numbers: tuple[int, int] = (0, 0),
        fds: Sequence[int] = (),
    ) -> tuple[FilesAnswer, list[int]]:
        """One question. Raises Refusal."""
        packet = pack_question(op, path, second, flags=flags, mode=mode, numbers=numbers)
        answer, came = self.exchange(packet, op, fds)
        if answer.refusal is not None:
            close_all(came)
            raise Refusal(answer)
        return answer, came

    def ask(
        self,
        op: FilesOp,
        path: bytes = b"",
        second: bytes = b"",
        *,
        flags: FilesFlag = NO_FLAGS,
        mode: int = 0,
        numbers: tuple[int, int] = (0, 0),
        fds: Sequence[int] = (),
    ) -> FilesAnswer:
        """The same, without descriptors back."""
        answer, came = self.open(op, path, second, flags=flags, mode=mode, numbers=numbers, fds=fds)
        close_all(came)
        return answer

    def get(self, path: bytes, *, most: int = MOST) -> bytes:
        self.ask(FilesOp.GET, path, numbers=(most, 0))
        return self._poured(FilesOp.POUR, b"")

    def get_by_descriptor(self, path: bytes) -> bytes:
        answer, came = self.open(FilesOp.GET, path, numbers=(MOST, 0))
        try:
            return os.pread(came[0], answer.rows[0].size, 0)
        finally:
            close_all(came)

    def put(
        self, path: bytes, content: bytes = b"put", *, flags: FilesFlag = FilesFlag.REPLACE, mode: int = 0o644
    ) -> FilesAnswer:
        self.ask(FilesOp.PUT, path, flags=flags, mode=mode)
        self._fed(FilesOp.FILL, b"", content)
        return self.ask(FilesOp.COMMIT, numbers=(len(content), 0))

    def archive(self, path: bytes, *, most: int = MOST) -> bytes:
        return self._poured(FilesOp.ARCHIVE, path, most=most)

    def extract(
        self, path: bytes, content: bytes, *, flags: FilesFlag = FilesFlag.REPLACE, most: int = MOST
    ) -> FilesAnswer:
        return self._fed(FilesOp.EXTRACT, path, content, flags=flags, most=most)

    def remove(self, path: bytes, *, recursive: bool = False) -> None:
        flags = FilesFlag.RECURSIVE if recursive else NO_FLAGS
        while FilesFlag.MORE in self.ask(FilesOp.REMOVE, path, flags=flags).flags:
            pass

    def names(self, path: bytes) -> dict[bytes, str]:
        """Names and kinds."""
        found: dict[bytes, str] = {}
        after = 0
        while True:
            answer = self.ask(FilesOp.LIST, path, numbers=(after, 4000))
            found |= {row.name: row.kind for row in answer.rows}
            after = answer.numbers[0]
            if FilesFlag.MORE not in answer.flags:
                return found

    def glob(self, pattern: bytes, limit: int = 4000) -> list[bytes]:
        """Paths."""
        answer = self.ask(FilesOp.GLOB, pattern, numbers=(0, limit))
        found = [row.name for row in answer.rows]
        while FilesFlag.MORE in answer.flags:
            answer = self.ask(FilesOp.FOUND)
            found += [row.name for row in answer.rows]
        return found

    def _poured(self, op: FilesOp, path: bytes, *, most: int = MOST) -> bytes:
        reader, writer = os.pipe()
        with os.fdopen(reader, "rb") as pipe:
            try:
                self.ask(op, path, numbers=(most, 0), fds=(writer,))
            finally:
                os.close(writer)
            content = pipe.read()
        self.ask(FilesOp.DONE)
        return content

    def _fed(
        self, op: FilesOp, path: bytes, content: bytes, *, flags: FilesFlag = NO_FLAGS, most: int = MOST
    ) -> FilesAnswer:
        reader, writer = os.pipe()
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            try:
                self.ask(op, path, flags=flags, numbers=(most, 0), fds=(reader,))
            finally:
                os.close(reader)
            try:
                view = memoryview(content)
                while view:
                    view = view[pipe.write(view) or 0 :]
            except BrokenPipeError:
                pass  # it took no more, and DONE says why
        return self.ask(FilesOp.DONE)
