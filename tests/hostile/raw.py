"""A connection of bytes: sends anything, reads frames, and knows only msgpack and signatures."""

from __future__ import annotations

import array
import os
import socket
import struct
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgpack

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey
from tests.patience import PATIENCE_S

__all__ = ["COMMAND", "Connection", "Talk", "command", "sealed"]

COMMAND = "application/vnd.immured.command.v1+msgpack"
REPLY = "application/vnd.immured.reply.v1+msgpack"


def command(daemon_id: str, **changes: Any) -> dict[str, Any]:
    """A valid `run` of /bin/true, with `changes`; a change to None removes the key."""
    now = time.time_ns() // 1_000_000
    fields = {
        "aud": daemon_id,
        "cmd": "run",
        "args": {"argv": ["/bin/true"]},
        "nonce": os.urandom(16),
        "iat": now,
        "exp": now + 240_000,  # not before a host that is frozen for a while has read it
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def sealed(payload: bytes, keys: Sequence[PrivateKey], type: str = COMMAND) -> bytes:
    """A frame's body, signed over exactly these bytes, whatever they are."""
    body: bytes = msgpack.packb([1, type, payload, [[key.id, key.sign(pae(type, payload))] for key in keys]])
    return body


class Connection:
    def __init__(self, daemon: ThrowawayDaemon) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.socket.settimeout(PATIENCE_S)
            self.socket.connect(str(daemon.socket))
            self.hello = self._payload(self.read())
        except BaseException:
            self.socket.close()
            raise
        self.daemon_id: str = self.hello["daemon"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, data: bytes, fds: Sequence[int] = ()) -> None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sent = self.socket.sendmsg([data], ancillary)
        if sent < len(data):  # even an empty send fails where the daemon has closed by now
            self.socket.sendall(data[sent:])

    def frame(self, body: bytes, fds: Sequence[int] = ()) -> None:
        self.send(struct.pack(">I", len(body)) + body, fds)

    def read(self) -> list[Any] | None:
        """The next frame's envelope, or None when the daemon closed."""
        header = self._exactly(4)
        if header is None:
            return None
        body = self._exactly(struct.unpack(">I", header)[0])
        assert body is not None, "closed inside a frame"
        envelope = msgpack.unpackb(body)
        assert isinstance(envelope, list)
        return envelope

    def reply(self) -> dict[str, Any] | None:
        """The next reply's payload; data frames are passed over. None when the daemon closed."""
        while (envelope := self.read()) is not None:
            if envelope[1] == REPLY:
                return self._payload(envelope)
        return None

    def ask(self, payload: dict[str, Any], key: PrivateKey) -> dict[str, Any]:
        self.frame(sealed(msgpack.packb(payload), [key]))
        reply = self.reply()
        assert reply is not None, "closed without a reply"
        return reply

    def closed(self) -> bool:
        """Whether the daemon closes after what it has said."""
        while self.read() is not None:
            pass
        return True

    @staticmethod
    def _payload(envelope: list[Any] | None) -> dict[str, Any]:
        assert envelope is not None
        payload = msgpack.unpackb(envelope[2])
        assert isinstance(payload, dict)
        return payload

    def _exactly(self, size: int) -> bytes | None:
        data = b""
        while len(data) < size:
            try:
                part = self.socket.recv(size - len(data))
            except ConnectionResetError:
                return None
            if not part:
                return None
            data += part
        return data


class Talk:
    """Commands of one key on one connection; answers are asked for by the nonces that went out."""

    def __init__(self, daemon: ThrowawayDaemon, key: PrivateKey, **said: Any) -> None:
        self.connection = Connection(daemon)
        self._key, self._said = key, said
        self._early: dict[bytes, dict[str, Any]] = {}

    def send(self, cmd: str, **args: Any) -> bytes:
        return self.send_at_once((cmd, args))[0]

    def send_at_once(self, *asked: tuple[str, dict[str, Any]]) -> list[bytes]:
        """All of them in one go: nothing of ours is between one and the next."""
        payloads = [command(self.connection.daemon_id, cmd=cmd, args=args, **self._said) for cmd, args in asked]
        bodies = [sealed(msgpack.packb(payload), [self._key]) for payload in payloads]
        self.connection.send(b"".join(struct.pack(">I", len(body)) + body for body in bodies))
        return [bytes(payload["nonce"]) for payload in payloads]

    def answer(self, nonce: bytes) -> dict[str, Any]:
        while nonce not in self._early:
            reply = self.connection.reply()
            assert reply is not None, "closed without a reply"
            self._early[reply["re"]] = reply
        return self._early.pop(nonce)

    def code(self, nonce: bytes) -> str:
        reply = self.answer(nonce)
        return "ok" if reply["ok"] else str(reply["error"]["code"])

    def ask(self, cmd: str, **args: Any) -> dict[str, Any]:
        reply = self.answer(self.send(cmd, **args))
        assert reply["ok"], reply["error"]
        return dict(reply["result"])
