"""A connection on which commands are signed by hand and sent in heaps: nothing of the client's is on the way."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from immured.wire.envelope import decode_envelope, encode_envelope, pae, seal
from immured.wire.frames import encode_frame
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, HELLO, REPLY, Command, Reply, parse_hello, parse_reply
from tests.patience import PATIENCE_S

__all__ = ["Order", "Raw", "code", "order", "result", "words"]

WINDOW: Final = 64
"""Commands under way at a time: half of what a connection may have."""


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Order:
    """A signed command, as a frame's body. `digest` is of its payload: what its reply names."""

    body: bytes
    digest: bytes


class Raw:
    """`aud` is what the daemon's hello called itself."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(os.fspath(path))
            hello = decode_envelope(self._frame())
            assert hello.type == HELLO
            self.aud = parse_hello(hello.payload).daemon
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Raw:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def order(self, key: PrivateKey, cmd: str, args: Mapping[str, object] | None = None, **names: Any) -> Order:
        """Signed now."""
        return order(self.aud, key, cmd, args, **names)

    def ask(self, orders: Iterable[Order]) -> list[Reply]:
        """The reply of each, in their order. As many are under way as a window holds."""
        wanted = list(orders)
        places = {one.digest: at for at, one in enumerate(wanted)}
        assert len(places) == len(wanted), "one command stands there twice"
        replies: dict[int, Reply] = {}
        sent = 0
        while len(replies) < len(wanted):
            upto = min(len(wanted), len(replies) + WINDOW)
            if upto - sent >= WINDOW // 4 or upto == len(wanted):
                if upto > sent:
                    self._socket.sendall(b"".join(encode_frame(one.body) for one in wanted[sent:upto]))
                sent = upto
            reply = self._reply()
            assert reply.req is not None, reply
            replies[places.pop(reply.req)] = reply
        return [replies[at] for at in range(len(wanted))]

    def one(self, key: PrivateKey, cmd: str, args: Mapping[str, object] | None = None, **names: Any) -> Reply:
        """One command's reply."""
        [reply] = self.ask([self.order(key, cmd, args, **names)])
        return reply

    def send(self, one: Order) -> None:
        """Without waiting for its reply."""
        self._socket.sendall(encode_frame(one.body))

    def _reply(self) -> Reply:
        while True:
            envelope = decode_envelope(self._frame())
            if envelope.type == REPLY:
                return parse_reply(envelope.payload)

    def _frame(self) -> bytes:
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            part = self._socket.recv(length - len(parts))
            assert part, "the daemon hung up"
            parts += part
        return bytes(parts)


def order(
    aud: str,
    key: PrivateKey,
    cmd: str,
    args: Mapping[str, object] | None = None,
    *,
    forger: PrivateKey | None = None,
    now_ms: int | None = None,
    **names: Any,
) -> Order:
    """`forger` signs in the key's name; `names` are tenant, project, persona, sub, session."""
    now = _now() if now_ms is None else now_ms
    payload = Command(aud, cmd, args or {}, os.urandom(16), now, now + 240_000, **names).to_payload()
    if forger is None:
        body = seal(COMMAND, payload, [key])
    else:
        body = encode_envelope(COMMAND, payload, [(key.id, forger.sign(pae(COMMAND, payload)))])
    return Order(body, hashlib.sha256(payload).digest())


def code(reply: Reply) -> str:
    """`ok`, or the refusal's code."""
    return "ok" if reply.error is None else str(reply.error["code"])


def result(reply: Reply) -> Mapping[str, Any]:
    """Of a command that was done."""
    assert reply.result is not None, reply.error
    return reply.result


def words(reply: Reply, *ids: str) -> str:
    """All that a reply says, without the names that were asked for."""
    said = repr(sorted((reply.error or reply.result or {}).items()))
    for one in sorted(ids, key=len, reverse=True):
        said = said.replace(one, "THAT")
    return said
