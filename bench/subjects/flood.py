"""A user who sends what no key signed, as fast as it is taken, and what of it there is to send."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgpack

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey
from immured.wire.messages import COMMAND, DATA

__all__ = ["KINDS", "Flood"]

_FRAMES: Final = 256
_PROGRAM: Final = Path(__file__).parents[1] / "programs" / "flood.py"


def _unsigned(_: PrivateKey) -> bytes:
    return _envelope(_command(), [])


def _unknown(_: PrivateKey) -> bytes:
    return _envelope(_command(), [["ed25519:" + "0" * 32, os.urandom(31) + b"\0" + os.urandom(31) + b"\0"]])


def _wrong(known: PrivateKey) -> bytes:
    """A signature that looks like one: nothing but the whole arithmetic tells."""
    return _envelope(_command(), [[known.id, known.sign(os.urandom(32))]])


def _repeated(known: PrivateKey) -> bytes:
    """Somebody's, recorded ten minutes ago."""
    payload = _command(before_s=600)
    return _envelope(payload, [[known.id, known.sign(pae(COMMAND, payload))]])


def _stray(_: PrivateKey) -> bytes:
    return _envelope(msgpack.packb({"re": os.urandom(16), "stream": "stdin", "data": b"x" * 256}), [], DATA)


def _garbage(_: PrivateKey) -> bytes:
    return os.urandom(300)


KINDS: Final = {
    "unsigned": _unsigned,
    "unknown key": _unknown,
    "wrong signature": _wrong,
    "repeated": _repeated,
    "stray data": _stray,
    "garbage": _garbage,
}


class Flood:
    """Sends for as long as the block lasts. `known`: a key that the daemon knows, by id or recorded commands alone.
    Afterwards `offered` is how many frames it got rid of, `answered` how many were told no, `lasted` seconds."""

    def __init__(
        self,
        daemon: ThrowawayDaemon,
        kind: str,
        known: PrivateKey,
        *,
        uid: int,
        connections: int = 200,
        how: str = "stay",
    ) -> None:
        bodies = [KINDS[kind](known) for _ in range(_FRAMES)]
        size = min(map(len, bodies))
        assert max(map(len, bodies)) == size, "frames of one size are counted by their bytes"
        self._frames = b"".join(struct.pack(">I", len(body)) + body for body in bodies)
        self._arguments = [str(daemon.socket), str(uid), str(connections), str(size + 4), how]
        self.offered = self.answered = 0
        self.lasted = 0.0

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_PROGRAM), *self._arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._frames)
        self._process.stdin.close()
        if self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("the flood did not begin; it said why above")
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdout is not None
        self._process.terminate()
        words = self._process.stdout.readline().split()
        self.lasted = time.monotonic() - self._began
        self._process.stdout.close()
        self._process.wait(30)
        if len(words) != 2:
            raise RuntimeError("the flood broke off; it said why above")
        self.offered, self.answered = int(words[0]), int(words[1])


def _command(before_s: int = 0) -> bytes:
    now = time.time_ns() // 1_000_000 - 1000 * before_s
    fields = {"aud": "ed25519:" + "0" * 32, "cmd": "run", "args": {"argv": ["/bin/true"]}}
    payload: bytes = msgpack.packb({**fields, "nonce": os.urandom(16), "iat": now, "exp": now + 60_000})
    return payload


def _envelope(payload: bytes, signatures: list[list[object]], kind: str = COMMAND) -> bytes:
    body: bytes = msgpack.packb([1, kind, payload, signatures])
    return body
