"""A client written from docs/protocol.md alone: nothing of immured is imported.

    python client_from_protocol.py COMMAND [ARGUMENT...] < INPUT

IMMURE_SOCKET, IMMURE_KEY and IMMURE_DAEMON_KEY say where, as whom, and whom to believe. Standard input is sent, output
comes out, the receipt goes to stderr, and the exit status is the command's: 125 where nothing ran, or nothing can be
believed. Standard library and Ed25519 primitives; its msgpack is its own.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

HELLO, COMMAND, REPLY, DATA = (
    f"application/vnd.immured.{name}.v1+msgpack" for name in ("hello", "command", "reply", "data")
)
L = 2**252 + 27742317777372353535851937790883648493


class ProtocolError(Exception):
    """The other side did not keep to the protocol, or is not who it should be."""


# -- Values


def encode(value: Any) -> bytes:
    """msgpack, as far as the protocol has it."""
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xd3" + value.to_bytes(8, "big", signed=True)
    if isinstance(value, str):
        data = value.encode()
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(encode, value))
    if isinstance(value, dict):
        pairs = (encode(key) + encode(one) for key, one in value.items())
        return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pairs)
    raise TypeError(type(value))


class Decoder:
    """One msgpack value out of bytes that may be anything."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def whole(self) -> Any:
        value = self.value(0)
        if self.position != len(self.data):
            raise ProtocolError("bytes behind the value")
        return value

    def take(self, size: int) -> bytes:
        taken = self.data[self.position : self.position + size]
        if len(taken) != size:
            raise ProtocolError("the value ends early")
        self.position += size
        return taken

    def number(self, size: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "big", signed=signed)

    def value(self, depth: int) -> Any:
        first = self.number(1)
        if first < 0x80 or first >= 0xE0:
            return first if first < 0x80 else first - 256
        if 0xA0 <= first <= 0xBF:
            return self.take(first & 0x1F).decode()
        if 0x80 <= first <= 0x9F:
            return self.items(first & 0x0F, depth, of_map=first < 0x90)
        if first in (0xC2, 0xC3):
            return first == 0xC3
        if 0xC4 <= first <= 0xC6:
            return self.take(self.number(1 << (first - 0xC4)))
        if 0xCC <= first <= 0xD3:
            return self.number(1 << (first & 3), signed=first >= 0xD0)
        if 0xD9 <= first <= 0xDB:
            return self.take(self.number(1 << (first - 0xD9))).decode()
        if 0xDC <= first <= 0xDF:
            return self.items(self.number(2 << (first & 1)), depth, of_map=first >= 0xDE)
        raise ProtocolError(f"the byte {first:02x} begins no value here")

    def items(self, count: int, depth: int, *, of_map: bool) -> Any:
        if depth == 8:
            raise ProtocolError("nested too deep")
        if not of_map:
            return [self.value(depth + 1) for _ in range(count)]
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                raise ProtocolError("a key that is no str, or stands twice")
            found[key] = self.value(depth + 1)
        return found


# -- Keys and envelopes


def raw_of(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes_raw()


def key_id(key: Ed25519PublicKey) -> str:
    return "ed25519:" + hashlib.sha256(raw_of(key)).hexdigest()[:32]


def pre_authentication(kind: str, payload: bytes) -> bytes:
    name = kind.encode()
    return b" ".join((b"DSSEv1", str(len(name)).encode(), name, str(len(payload)).encode(), payload))


def open_envelope(body: bytes) -> tuple[str, bytes, list[Any]]:
    envelope = Decoder(body).whole()
    if not isinstance(envelope, list) or len(envelope) != 4 or envelope[0] != 1:
        raise ProtocolError("no envelope of version 1")
    kind, payload, signatures = envelope[1:]
    if not isinstance(kind, str) or not isinstance(payload, bytes) or not isinstance(signatures, list):
        raise ProtocolError("an envelope of another shape")
    return kind, payload, signatures


def believe(kind: str, payload: bytes, signatures: list[Any], daemon: Ed25519PublicKey) -> Any:
    """The payload, once it is known to be the daemon's."""
    mine = [signature for keyid, signature in signatures if keyid == key_id(daemon)]
    if len(mine) != 1 or len(mine[0]) != 64 or int.from_bytes(mine[0][32:], "little") >= L:
        raise ProtocolError("not signed by the pinned daemon")
    try:
        daemon.verify(mine[0], pre_authentication(kind, payload))
    except InvalidSignature:
        raise ProtocolError("the signature does not verify") from None
    return Decoder(payload).whole()


# -- Frames


class Connection:
    """Frames over a Unix socket."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)

    def send(self, kind: str, payload: bytes, signatures: list[Any]) -> None:
        body = encode([1, kind, payload, signatures])
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def receive(self) -> tuple[str, bytes, list[Any]]:
        (size,) = struct.unpack(">I", self._exactly(4))
        if not 0 < size <= 1 << 20:
            raise ProtocolError(f"a frame of {size} bytes")
        return open_envelope(self._exactly(size))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ProtocolError("the daemon closed the connection")
            data += part
        return data


# -- One run


class Stream:
    """Length and digest of what went by."""

    def __init__(self) -> None:
        self.length = 0
        self.digest = hashlib.sha256()

    def note(self, data: bytes) -> None:
        self.length += len(data)
        self.digest.update(data)

    def check(self, name: str, said: dict[str, Any]) -> None:
        if (said["length"], said["sha256"]) != (self.length, self.digest.digest()):
            raise ProtocolError(f"what passed on {name} is not what was signed")


def send_input(connection: Connection, nonce: bytes, source: int, sent: Stream) -> None:
    """Standard input as data, piece by piece, then its end."""
    piece = b"more"
    while piece:
        piece = os.read(source, 65_536)
        sent.note(piece)
        try:
            connection.send(DATA, encode({"re": nonce, "stream": "stdin", "data": piece}), [])
        except OSError:
            return  # the run is over, and the connection with it


def run(argv: list[str], path: str, key: Ed25519PrivateKey, daemon: Ed25519PublicKey, source: int) -> dict[str, Any]:
    """Runs a command, passes input and output on, and gives the verified reply."""
    connection = Connection(path)
    kind, payload, signatures = connection.receive()
    hello = believe(kind, payload, signatures, daemon)
    if kind != HELLO or hello["daemon"] != key_id(daemon):
        raise ProtocolError("no hello of the pinned daemon")

    now, nonce = time.time_ns() // 1_000_000, os.urandom(16)
    args = {"argv": argv, "stream": True}
    command = {"aud": key_id(daemon), "cmd": "run", "args": args, "nonce": nonce, "iat": now, "exp": now + 60_000}
    payload = encode(command)
    connection.send(COMMAND, payload, [[key_id(key.public_key()), key.sign(pre_authentication(COMMAND, payload))]])
    sent = Stream()
    sender = threading.Thread(target=send_input, args=(connection, nonce, source, sent), daemon=True)
    sender.start()

    got = {"stdout": Stream(), "stderr": Stream()}
    reply = until_reply(connection, nonce, hashlib.sha256(payload).digest(), daemon, got)
    if reply["ok"]:
        streams = reply["result"]["streams"]
        for name, stream in got.items():
            stream.check(name, streams[name])
        # What the command left unread is not in the daemon's digest.
        if "stdin" in streams and not sender.is_alive() and streams["stdin"]["length"] == sent.length:
            sent.check("stdin", streams["stdin"])
    return reply


def until_reply(
    connection: Connection, nonce: bytes, request: bytes, daemon: Ed25519PublicKey, got: dict[str, Stream]
) -> dict[str, Any]:
    """Passes output on until the verified reply to the request of that digest."""
    outputs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    while True:
        kind, payload, signatures = connection.receive()
        if kind == DATA:
            data = Decoder(payload).whole()
            if data["re"] == nonce and data["stream"] in got:
                got[data["stream"]].note(data["data"])
                outputs[data["stream"]].write(data["data"])
                outputs[data["stream"]].flush()
        elif kind == REPLY:
            reply: dict[str, Any] = believe(kind, payload, signatures, daemon)
            if reply.get("req", request) == request and reply.get("re", nonce) == nonce:
                return reply


def main() -> int:
    key = load_pem_private_key(Path(os.environ["IMMURE_KEY"]).read_bytes(), password=None)
    daemon = load_pem_public_key(Path(os.environ["IMMURE_DAEMON_KEY"]).read_bytes())
    if not isinstance(key, Ed25519PrivateKey) or not isinstance(daemon, Ed25519PublicKey):
        raise SystemExit("the keys are to be Ed25519 keys")
    try:
        reply = run(sys.argv[1:], os.environ["IMMURE_SOCKET"], key, daemon, sys.stdin.fileno())
    except ProtocolError as doubt:
        print(f"not believed: {doubt}", file=sys.stderr)
        return 125
    if not reply["ok"]:
        error = reply["error"]
        print(f"refused: {error['code']}: {error['message']}", file=sys.stderr)
        return 125
    result, receipt = reply["result"], reply["receipt"]
    print(f"receipt {receipt['seq']} {receipt['leaf'].hex()}", file=sys.stderr)
    if result["cause"] == "setup_failed":
        print(f"{result['failure']['code']}: {result['failure']['message']}", file=sys.stderr)
        return 125
    return int(result["exit_code"]) if "exit_code" in result else 128 + int(result["signal"])


if __name__ == "__main__":
    sys.exit(main())
