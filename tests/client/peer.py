"""A daemon that does as a test scripts it, on a real socket: what does a client do with what none should send?"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from immured.wire.envelope import decode_envelope, encode_envelope, seal
from immured.wire.frames import Frame, FrameReader, encode_frame
from immured.wire.keys import PrivateKey
from immured.wire.messages import (
    DATA,
    HELLO,
    REPLY,
    Command,
    Data,
    Hello,
    Receipt,
    Reply,
    data_body,
    parse_command,
    parse_data,
)
from immured.wire.sockets import EndOfStream, receive_some
from tests.patience import PATIENCE_S

__all__ = ["DAEMON", "USER", "Peer", "Served", "record", "result_of"]

DAEMON = PrivateKey(b"\xda" * 32)
USER = PrivateKey(b"\xa1" * 32)


def record(data: bytes) -> dict[str, object]:
    """A stream's record in a result."""
    return {"length": len(data), "sha256": hashlib.sha256(data).digest()}


def result_of(**fields: object) -> dict[str, object]:
    """A run's result: it exited with 0 and said nothing."""
    empty = record(b"")
    return {
        "sandbox": "s1", "cause": "exited", "exit_code": 0, "stdout": b"", "stderr": b"",
        "streams": {"stdout": empty, "stderr": empty}, "usage": {"wall_ms": 1}, "events": {}, "violations": [],
        "enforcement": {}, **fields,
    }  # fmt: skip


class Served:
    """One connection, as the script sees it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self._reader = FrameReader()
        sock.settimeout(PATIENCE_S)

    def hello(self, key: PrivateKey = DAEMON) -> None:
        hello = Hello(key.id, b"boot", 1, "0", {"more": True})
        self.body(seal(HELLO, hello.to_payload(), [key]))

    def body(self, body: bytes) -> None:
        self.sock.sendall(encode_frame(body))

    def frame(self) -> Frame:
        while (frame := receive_some(self.sock, self._reader)) is None:
            pass
        return frame

    def command(self) -> tuple[Command, bytes, Frame]:
        """The next command, the digest of its payload, and its frame; data frames before it are passed over."""
        while True:
            frame = self.frame()
            envelope = decode_envelope(frame.body)
            if envelope.type != DATA:
                return parse_command(envelope.payload), hashlib.sha256(envelope.payload).digest(), frame

    def stdin(self) -> bytes:
        """All standard input up to its end."""
        found = b""
        while (data := self.data_in()).data:
            found += data.data
        return found

    def data_in(self) -> Data:
        return parse_data(decode_envelope(self.frame().body).payload, strict=True)

    def data(self, command: Command, stream: str, data: bytes) -> None:
        self.body(data_body(command.nonce, stream, data))

    def reply(
        self, command: Command, digest: bytes, result: Mapping[str, object] | None = None, key: PrivateKey = DAEMON
    ) -> None:
        reply = Reply(
            True, result_of() if result is None else result, re=command.nonce, req=digest,
            receipt=Receipt(2, b"\2" * 32), intent=Receipt(1, b"\1" * 32),
        )  # fmt: skip
        self.body(seal(REPLY, reply.to_payload(), [key]))

    def refuse(self, code: str, *, re: bytes | None = None, req: bytes | None = None) -> None:
        error = {"code": code, "message": "because", "remedy": "so", "details": {}}
        self.body(seal(REPLY, Reply(False, error=error, re=re, req=req).to_payload(), [DAEMON]))

    def unsigned(self, payload: bytes) -> None:
        self.body(encode_envelope(REPLY, payload))


class Peer:
    """Listens at `socket`, and lets `script` serve each connection, one after the other, in a thread."""

    def __init__(self, directory: Path, script: Callable[[Served], None]) -> None:
        self.socket = directory / "immured.sock"
        (directory / "daemon.pub").write_bytes(DAEMON.public.to_pem())
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listener.bind(str(self.socket))
            self._listener.listen()
        except OSError:
            self._listener.close()
            raise
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.trouble: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE_S)
        self._listener.close()
        if kind is None and self.trouble is not None:
            raise self.trouble

    def _serve(self) -> None:
        number = 0
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            number += 1
            with sock:
                try:
                    self._script(Served(sock, number))
                except (ConnectionError, EndOfStream):
                    continue  # the client has what it wanted
                except BaseException as error:  # shown to the test when it ends
                    self.trouble = error
