"""A daemon that lies: neither half of `immure run` believes it, and both say so with the same words."""

from __future__ import annotations

import socket
import struct
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgpack
import pytest

from immured.wire.envelope import encode_envelope, seal
from immured.wire.keys import PrivateKey
from immured.wire.messages import DATA, HELLO, REPLY, Hello, Receipt, Reply, data_body
from tests.cli.conftest import PYTHON, Both
from tests.client.peer import DAEMON, Served, record, result_of

Scripted = Callable[[Callable[[Served], None]], list[str]]
Script = Callable[[Served], None]

STRANGER = PrivateKey(b"\x5e" * 32)
BOOT = Hello(DAEMON.id, b"boot", 1, "0", {})
HOSTILE = "\x1b]0;x\x07\r\n\u202e\x9b31m \u200b größer 大きい \U0001f600 \U000e0001 \u00ad \x7f ''"


def end(served: Served) -> None:
    """Closes, but not before all that the client sent is read: the kernel would tell it of a broken connection."""
    served.sock.shutdown(socket.SHUT_WR)
    while served.sock.recv(65536):
        pass


def hello_of(body: bytes) -> Script:
    """A first frame, and nothing else."""

    def script(served: Served) -> None:
        served.body(body)
        served.command()

    return script


def bytes_of(data: bytes) -> Script:
    """Bytes that need be no frame, then the end."""

    def script(served: Served) -> None:
        served.command()
        served.sock.sendall(data)
        end(served)

    return script


def payload_of(kind: str, payload: object) -> Script:
    """A signed envelope of any payload: bytes, or a value."""
    data = payload if isinstance(payload, bytes) else msgpack.packb(payload)

    def script(served: Served) -> None:
        served.hello()
        served.command()
        served.body(encode_envelope(kind, data) if kind == DATA else seal(kind, data, [DAEMON]))
        end(served)

    return script


def reply_of(receipts: bool = True, **fields: object) -> Script:
    """A whole answer with a result of one's own."""

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        receipt = Receipt(2, b"\2" * 32) if receipts else None
        reply = Reply(True, {**result_of(), **fields}, re=command.nonce, req=digest, receipt=receipt, intent=receipt)
        served.body(seal(REPLY, reply.to_payload(), [DAEMON]))

    return script


def streams_of(*data: tuple[str, bytes], **streams: object) -> Script:
    """Output, and what the reply signs of it."""

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        for name, piece in data:
            served.data(command, name, piece)
        if "stdin" in streams:
            served.stdin()
        served.reply(command, digest, result_of(streams=streams))

    return script


def refusal_of(**error: object) -> Script:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        reply = Reply(False, error=error, re=command.nonce, req=digest)
        served.body(seal(REPLY, reply.to_payload(), [DAEMON]))

    return script


def signed_by(*keys: PrivateKey, spoiled: bool = False) -> Script:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        receipt = Receipt(2, b"\2" * 32)
        reply = Reply(True, result_of(), re=command.nonce, req=digest, receipt=receipt, intent=receipt)
        body = bytearray(seal(REPLY, reply.to_payload(), list(keys)))
        if spoiled:
            body[-1] ^= 1
        served.body(bytes(body))

    return script


def another(**changes: bytes | None) -> Script:
    """A reply that names another request than ours, then the end."""

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        named = {"re": command.nonce, "req": digest} | changes
        served.body(seal(REPLY, Reply(True, result_of(), **named).to_payload(), [DAEMON]))  # type: ignore[arg-type]
        end(served)

    return script


def deep(levels: int) -> bytes:
    return b"\x81\xa1x" * levels + b"\x01"


LIES: dict[str, tuple[str, Script]] = {
    "no hello but the end": ("connection_lost", end),
    "a stranger's hello": ("untrusted_reply", lambda served: served.hello(STRANGER)),
    "an unsigned hello": ("untrusted_reply", hello_of(encode_envelope(HELLO, BOOT.to_payload()))),
    "a hello without fields": ("untrusted_reply", hello_of(seal(HELLO, msgpack.packb({}), [DAEMON]))),
    "a hello that is no map": ("untrusted_reply", hello_of(seal(HELLO, msgpack.packb([1]), [DAEMON]))),
    "a hello of another time": (
        "untrusted_reply",
        hello_of(seal(HELLO, msgpack.packb({"daemon": "d", "boot": b"", "time_ms": -1}), [DAEMON])),
    ),
    "a hello without a name": (
        "untrusted_reply", hello_of(seal(HELLO, msgpack.packb({"daemon": "", "boot": b""}), [DAEMON])),
    ),
    "a torn header": ("connection_lost", bytes_of(b"\0\0")),
    "a torn frame": ("connection_lost", bytes_of(struct.pack(">I", 100) + b"x" * 50)),
    "a frame of nothing": ("connection_lost", bytes_of(bytes(4))),
    "a frame too large": ("connection_lost", bytes_of(struct.pack(">I", (1 << 20) + 1))),
    "the largest frame, of rubbish": ("untrusted_reply", bytes_of(struct.pack(">I", 1 << 20) + b"\xc1" * (1 << 20))),
    "no msgpack": ("untrusted_reply", bytes_of(struct.pack(">I", 1) + b"\xc1")),
    "nil": ("untrusted_reply", bytes_of(struct.pack(">I", 1) + b"\xc0")),
    "an envelope of three": ("untrusted_reply", bytes_of(struct.pack(">I", 4) + b"\x93\x01\xa1x\xc4")),
    "another version": ("untrusted_reply", hello_of(msgpack.packb([2, "x", b"", []]))),
    "too many signatures": ("untrusted_reply", hello_of(msgpack.packb([1, "x", b"", [["k", b""]] * 9]))),
    "a key that signs twice": ("untrusted_reply", hello_of(msgpack.packb([1, "x", b"", [["k'", b""]] * 2]))),
    "a type without a name": ("untrusted_reply", hello_of(msgpack.packb([1, "", b"", []]))),
    "a type too long": ("untrusted_reply", hello_of(msgpack.packb([1, "ü" * 129, b"", []]))),
    "a reply by a stranger": ("untrusted_reply", signed_by(STRANGER)),
    "a reply by a stranger too, spoiled": ("untrusted_reply", signed_by(STRANGER, DAEMON, spoiled=True)),
    "a reply with a spoiled signature": ("untrusted_reply", signed_by(DAEMON, spoiled=True)),
    "a reply to nobody": ("untrusted_reply", another(req=None)),
    "a reply to another nonce": ("untrusted_reply", another(re=b"\0" * 16)),
    "a reply to another request": ("connection_lost", another(req=b"\0" * 32)),
    "a reply that is no map": ("untrusted_reply", payload_of(REPLY, [])),
    "a reply without ok": ("untrusted_reply", payload_of(REPLY, {})),
    "a reply whose ok is a number": ("untrusted_reply", payload_of(REPLY, {"ok": 1})),
    "a reply without a result": ("untrusted_reply", payload_of(REPLY, {"ok": True})),
    "a reply with a short digest": ("untrusted_reply", payload_of(REPLY, {"ok": True, "result": {}, "req": b"x"})),
    "a reply with half a receipt": (
        "untrusted_reply", payload_of(REPLY, {"ok": True, "result": {}, "req": b"x" * 32, "receipt": {"seq": 1}}),
    ),
    "a reply with a negative receipt": (
        "untrusted_reply", payload_of(REPLY, {"ok": True, "result": {}, "receipt": {"seq": -5, "leaf": b"x" * 32}}),
    ),
    "a reply with a float": ("untrusted_reply", payload_of(REPLY, {"ok": 1.5})),
    "a reply with a key twice": ("untrusted_reply", payload_of(REPLY, b"\x82\xa2ok\xc3\xa2ok\xc3")),
    "a reply with a longer key twice": ("untrusted_reply", payload_of(REPLY, b"\x82\xa2ok\xc3\xd9\x02ok\xc3")),
    "a reply with a number as a key": ("untrusted_reply", payload_of(REPLY, b"\x81\x01\xc3")),
    "a reply that is no UTF-8": ("untrusted_reply", payload_of(REPLY, b"\x81\xa3\xed\xa0\x80\xc3")),
    "a reply that is too deep": ("untrusted_reply", payload_of(REPLY, deep(9))),
    "a reply that is deep": ("untrusted_reply", payload_of(REPLY, deep(8))),
    "a reply with bytes behind it": ("untrusted_reply", payload_of(REPLY, b"\x80\x80")),
    "a reply that ends early": ("untrusted_reply", payload_of(REPLY, b"\x81\xa2ok\xdb\0\0\0\xff")),
    "a reply with too many values": ("untrusted_reply", payload_of(REPLY, b"\xdd\0\1\0\0" + bytes(65536))),
    "a reply that declares too much": ("untrusted_reply", payload_of(REPLY, b"\xdd\xff\xff\xff\xff")),
    "data without its request": ("untrusted_reply", payload_of(DATA, {"stream": "stdout", "data": b""})),
    "data too large": ("untrusted_reply", payload_of(DATA, {"re": b"\0" * 16, "stream": "x", "data": bytes(65537)})),
    "data of no stream": ("untrusted_reply", payload_of(DATA, {"re": b"\0" * 16, "data": b""})),
    "output of others is passed over": ("connection_lost", payload_of(
        DATA, {"re": b"\0" * 16, "stream": "stdout", "data": b"not ours"},
    )),
    "another output than is signed": (
        "stream_mismatch", streams_of(("stdout", b"evil"), stdout=record(b"good"), stderr=record(b"")),
    ),
    "more output than is signed": ("stream_mismatch", streams_of(("stderr", b"evil"), stdout=record(b""))),
    "less output than is signed": ("stream_mismatch", streams_of(stdout=record(b"good"), stderr=record(b""))),
    "other input than was sent": ("stream_mismatch", streams_of(stdin=record(b"more than was sent"))),
    "the input's length in other bytes": ("stream_mismatch", streams_of(stdin=record(b"INPUT"))),
    "a stream that is no map": ("untrusted_reply", reply_of(streams={"x": 1})),
    "a stream of a negative length": ("untrusted_reply", reply_of(streams={"stdout": {"length": -1}})),
    "a stream with a short digest": ("untrusted_reply", reply_of(streams={"stdout": {"length": 0, "sha256": b""}})),
    "a result without receipts": ("untrusted_reply", reply_of(receipts=False)),
    "a result without a cause": ("untrusted_reply", reply_of(cause=1)),
    "a result whose failure is text": ("untrusted_reply", reply_of(failure="x")),
    "a result whose status is text": ("untrusted_reply", reply_of(exit_code="0")),
    "a refusal of the connection": ("too_many_connections", lambda served: served.refuse("too_many_connections")),
    "a hostile refusal": (
        "b\\x1b[2Jad", refusal_of(code="b\x1b[2Jad", message=HOSTILE, remedy=HOSTILE, details={}),
    ),
    "a refusal without words": ("internal", refusal_of()),
    "a long refusal": ("long", refusal_of(code="long", message="x" * 100_000, remedy="\x1b" * 20_000)),
    "a hostile failure": (
        "b\\x9bad", reply_of(cause="setup_failed", failure={"code": "b\x9bad", "message": HOSTILE, "remedy": HOSTILE}),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_both_refuse_alike(scripted: Scripted, both: Both, name: str) -> None:
    code, script = LIES[name]
    status, _, err = both("run", *scripted(script), "--", "true", stdin=b"input")
    assert (status, err.split(b": ")[1].decode()) == (125, code)
    assert err.decode().replace("\n", "").isprintable()


def with_news(served: Served) -> None:
    served.body(encode_envelope("application/vnd.immured.news.v9+msgpack", b"\xc1"))
    served.hello()
    command, digest, _ = served.command()
    served.body(encode_envelope(DATA, msgpack.packb({"re": command.nonce, "stream": "news", "data": b"x", "more": 1})))
    served.body(data_body(command.nonce, "stdout", b""))
    served.reply(command, digest)


def without_status(served: Served) -> None:
    served.hello()
    command, digest, _ = served.command()
    served.reply(command, digest, {name: value for name, value in result_of().items() if name != "exit_code"})


def refused(**row: object) -> dict[str, object]:
    return {"kind": "write", "syscall": "openat", "path": "/usr/x", "rule": "read-only", **row}


VIOLATIONS: dict[str, list[object]] = {
    "one": [refused()],
    "nine": [refused(path=f"/usr/{number}") for number in range(9)],
    "with counts": [
        refused(),
        refused(kind="connect", path=b"", address="10.0.0.1:80"),
        {"kind": "write", "count": 70},
    ],
    "counted twice": [refused(kind="syscall", path=""), {"kind": "write", "count": 7}, {"kind": "write", "count": 8}],
    "hostile": [
        refused(syscall="x\x1b[m \n", path=HOSTILE + " \t"),
        refused(path=b"/\xff\xe2\x82 \xc3\xbc\x1b "),
        refused(path=3),
    ],
    "empty": [{}, refused(path=3), refused(path=""), {"path": "x"}, {"syscall": "y "}],
    "others": [1, "x", ["y"], {"count": "many"}, {"count": True}],
}


@pytest.mark.parametrize("quiet", [[], ["-q"]])
@pytest.mark.parametrize("name", VIOLATIONS)
def test_both_tell_what_was_refused_alike(scripted: Scripted, both: Both, name: str, quiet: list[str]) -> None:
    told = both("run", *scripted(reply_of(exit_code=1, violations=VIOLATIONS[name])), *quiet, "--", "true")
    assert (told[0], bool(told[2])) == (1, not quiet and name != "others")
    assert told[2].decode().replace("\n", "").isprintable()


def test_a_command_that_ended_well_had_no_need_of_what_was_refused(scripted: Scripted, both: Both) -> None:
    assert both("run", *scripted(reply_of(violations=VIOLATIONS["nine"])), "--", "true") == (0, b"", b"")


TRUTHS: dict[str, tuple[int, Script]] = {
    "messages of a later version": (0, with_news),
    "fields of a later version": (0, reply_of(news={"deep": [{"x": [1, -7, 2**64 - 1, True]}]}, streams={})),
    "a reply by two": (0, signed_by(STRANGER, DAEMON)),
    "an exit status": (7, reply_of(exit_code=7)),
    "no exit status": (125, without_status),
    "a signal": (139, reply_of(cause="signaled", signal=11)),
    "a cause of a later version": (137, reply_of(cause="evaporated")),
    "an unnamed failure": (125, reply_of(cause="setup_failed")),
    "no program": (126, reply_of(cause="setup_failed", failure={"code": "not_executable"})),
    "less input taken than was sent": (0, streams_of(stdin=record(b"inp"))),
}  # fmt: skip
for _cause in ("timeout", "cpu_time", "oom", "pids", "output_limit", "violation", "killed"):
    TRUTHS[f"the cause {_cause}"] = (124 if _cause == "timeout" else 137, reply_of(cause=_cause))


@pytest.mark.parametrize("name", TRUTHS)
def test_both_end_alike(scripted: Scripted, both: Both, name: str) -> None:
    expected, script = TRUTHS[name]
    assert both("run", *scripted(script), "--", "true", stdin=b"input")[0] == expected


@pytest.mark.parametrize("piece", [1, 3, 7])
def test_bytes_that_come_one_by_one_are_frames_all_the_same(scripted: Scripted, both: Both, piece: int) -> None:
    def script(served: Served) -> None:
        sent: list[bytes] = []
        send, served.body = served.body, lambda body: sent.append(struct.pack(">I", len(body)) + body)  # type: ignore[method-assign]
        served.hello()
        command, digest, _ = served.command()
        served.data(command, "stdout", b"out\n")
        served.reply(command, digest, result_of(streams={"stdout": record(b"out\n"), "stderr": record(b"")}))
        served.body = send  # type: ignore[method-assign]
        whole = b"".join(sent)
        for start in range(0, len(whole), piece):
            served.sock.sendall(whole[start : start + piece])

    assert both("run", *scripted(script), "--", "true") == (0, b"out\n", b"")


def test_frames_that_come_all_at_once_are_taken_one_by_one(scripted: Scripted, both: Both) -> None:
    pieces = [bytes([65 + number % 26]) * (number * 997 % 65_000) for number in range(60)]

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        for piece in pieces:
            served.data(command, "stdout", piece)
        served.reply(command, digest, result_of(streams={"stdout": record(b"".join(pieces)), "stderr": record(b"")}))

    assert both("run", *scripted(script), "--", "true") == (0, b"".join(pieces), b"")


@pytest.mark.slow
def test_a_daemon_that_says_nothing_is_left_in_the_end(scripted: Scripted, native: list[str], tmp_path: Path) -> None:
    """Neither one that accepts and is mute, nor one that says half a hello."""

    def script(served: Served) -> None:
        served.sock.sendall(b"\0\0\0\x40half")
        while served.sock.recv(65536):
            pass

    mute = scripted(script)

    def run(half: list[str]) -> tuple[int, bytes, float]:
        began = time.monotonic()
        done = subprocess.run(
            [*half, "run", *mute, "--", "true"], stdin=subprocess.DEVNULL, capture_output=True, timeout=100, check=False
        )
        return done.returncode, done.stderr, time.monotonic() - began

    with ThreadPoolExecutor() as pool:
        # The scripted daemon serves one after the other: for who comes second it is mute, and says not even half.
        (code, said, seconds), (other_code, other_said, _) = pool.map(run, [native, PYTHON])
    assert (code, other_code) == (125, 125)
    assert said == other_said
    assert said.startswith(b"immure: connection_lost: the daemon said no hello within 10 s\n")
    assert 9 < seconds < 60
