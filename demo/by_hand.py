"""One signed command as bytes, and a socket to send them on: what an attacker with a recording has."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from immured.wire.envelope import decode_envelope, seal, verify
from immured.wire.frames import FrameReader, encode_frame
from immured.wire.messages import COMMAND, REPLY, Command, Reply, new_nonce, parse_reply
from immured.wire.sockets import receive_some

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from immured.wire.keys import PrivateKey, PublicKey

__all__ = ["exchange", "signed"]

PATIENCE = 60.0
LIFETIME_MS = 60_000


def signed(
    key: PrivateKey, daemon: PublicKey, cmd: str, args: Mapping[str, object], nonce: bytes | None = None
) -> tuple[bytes, bytes]:
    """(nonce, the envelope's bytes) of a command that is valid from now on."""
    now = time.time_ns() // 1_000_000
    command = Command(daemon.id, cmd, args, nonce or new_nonce(), now, now + LIFETIME_MS)
    return command.nonce, seal(COMMAND, command.to_payload(), [key])


def exchange(path: Path, daemon: PublicKey, body: bytes) -> tuple[bytes, Reply]:
    """Send one frame on a connection of its own; the reply's own bytes, and what they say, verified.

    Data frames in between are passed over. Raises OSError, EndOfStream or Refused when no such reply comes.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        sock.sendall(encode_frame(body))
        reader = FrameReader()
        while True:
            frame = receive_some(sock, reader)
            if frame is None:
                continue
            envelope = decode_envelope(frame.body)
            if envelope.type == REPLY:
                verify(envelope, lambda keyid: daemon if keyid == daemon.id else None)
                return frame.body, parse_reply(envelope.payload)
