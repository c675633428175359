"""Bytes that are no frame, no msgpack, no envelope."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time

import msgpack
import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.hostile.raw import COMMAND, Connection, command, sealed
from tests.patience import PATIENCE_S, until

BOMBS = {
    "deep arrays": b"\x91" * 100_000,
    "deep maps": b"\x81\xa1a" * 50_000,
    "an array of four billion": b"\xdd\xff\xff\xff\xff",
    "a map of four billion": b"\xdf\xff\xff\xff\xff",
    "a string of four billion": b"\xdb\xff\xff\xff\xff",
    "a binary of four billion": b"\xc6\xff\xff\xff\xff",
    "an ext": b"\xc7\x01\x01a",
    "a timestamp": b"\xd6\xff\x00\x00\x00\x00",
    "nil": b"\xc0",
    "a float": b"\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
    "never used": b"\xc1",
    "not UTF-8": b"\xa2\xff\xfe",
    "two values": b"\x01\x02",
    "cut short": b"\x94\x01",
    "text": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_in_a_frame_gets_one_typed_error(connection: Connection, bomb: str) -> None:
    connection.frame(BOMBS[bomb])
    reply = connection.reply()
    assert reply is not None
    assert reply["ok"] is False
    assert reply["error"]["code"] in ("bad_msgpack", "bad_envelope")
    assert connection.closed()


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_as_a_signed_payload_gets_a_typed_error(connection: Connection, admin: PrivateKey, bomb: str) -> None:
    connection.frame(sealed(BOMBS[bomb], [admin]))
    reply = connection.reply()
    assert reply is not None
    assert reply["ok"] is False
    assert reply["error"]["code"] in ("bad_msgpack", "bad_command")


@pytest.mark.parametrize(
    ("length", "code"), [(0, "bad_frame"), ((1 << 20) + 1, "frame_too_large"), (0xFFFFFFFF, "frame_too_large")]
)
def test_a_length_out_of_bounds_is_named_and_ends_the_connection(
    connection: Connection, length: int, code: str
) -> None:
    connection.send(struct.pack(">I", length))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == code
    assert connection.closed()


def test_a_frame_cut_off_by_its_sender_hurts_nobody(connection: Connection) -> None:
    connection.send(struct.pack(">I", 1000) + b"x" * 10)
    connection.socket.shutdown(socket.SHUT_WR)
    assert connection.closed()


@pytest.mark.slow
def test_a_frame_that_never_ends_is_ended(connection: Connection) -> None:
    connection.send(struct.pack(">I", 1000) + b"x")
    begun = time.monotonic()
    reply = connection.reply()
    assert reply is None or reply["error"]["code"] == "slow_frame"
    assert time.monotonic() - begun < PATIENCE_S / 2  # it had ten seconds


@pytest.mark.parametrize(
    "envelope",
    [
        [2, COMMAND, b"", []],
        [1, COMMAND, b""],
        [1, COMMAND, b"", [], 1],
        [1, COMMAND, "text", []],
        [1, b"bytes", b"", []],
        [1, COMMAND, b"", [["id"]]],
        [1, COMMAND, b"", [["id", "text"]]],
        {"v": 1},
        7,
    ],
    ids=str,
)
def test_a_frame_that_is_no_envelope_gets_a_typed_error(connection: Connection, envelope: object) -> None:
    connection.frame(msgpack.packb(envelope))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_envelope"


def test_an_unknown_type_is_named(connection: Connection, admin: PrivateKey) -> None:
    connection.frame(sealed(msgpack.packb(command(connection.daemon_id)), [admin], type="application/unheard-of"))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_type"


def test_four_descriptors_are_too_many(connection: Connection, admin: PrivateKey) -> None:
    connection.frame(sealed(msgpack.packb(command(connection.daemon_id)), [admin]), fds=[0, 0, 0, 0])
    assert connection.closed()


def test_descriptors_inside_a_frame_end_the_connection(connection: Connection, admin: PrivateKey) -> None:
    body = sealed(msgpack.packb(command(connection.daemon_id)), [admin])
    connection.send(struct.pack(">I", len(body)) + body[:10])
    time.sleep(0.1)  # the header has been read by then; where it has not, they ride with a boundary all the same
    read, write = os.pipe()
    with contextlib.suppress(BrokenPipeError):  # ended already: a frame may not take for ever
        connection.send(body[10:], fds=[read])
    os.close(read)
    os.close(write)
    assert connection.closed()


def test_a_byte_at_a_time_is_understood(connection: Connection, admin: PrivateKey) -> None:
    body = sealed(msgpack.packb(command(connection.daemon_id)), [admin])
    for byte in struct.pack(">I", len(body)) + body:
        connection.send(bytes([byte]))
    reply = connection.reply()
    assert reply is not None
    assert reply["ok"] is True


def serves(daemon: ThrowawayDaemon, key: PrivateKey) -> bool:
    """Whether a new connection is heard, and not one too many."""
    try:
        with Connection(daemon) as connected:
            return connected.ask(command(connected.daemon_id), key)["ok"] is True
    except (BrokenPipeError, ConnectionResetError):
        return False


def test_ten_thousand_idle_connections_are_bounded_with_a_reason(daemon: ThrowawayDaemon, admin: PrivateKey) -> None:
    """Each that is over the bound is told so; those below it cost the daemon next to nothing."""
    held: list[Connection] = []
    refused = 0
    try:
        for _ in range(10_000):
            connected = Connection(daemon)
            held.append(connected)
            if len(held) > 1024:
                held.pop(0).socket.close()
            if len(held) > 300:
                reply = connected.reply()
                if reply is not None:
                    assert reply["error"]["code"] == "too_many_connections"
                    refused += 1
                    connected.socket.close()
                    held.remove(connected)
                if refused >= 50:
                    break
    finally:
        for connected in held:
            connected.socket.close()
    assert refused >= 50
    until(lambda: serves(daemon, admin))  # once the daemon has seen them close
