"""Signatures, windows, nonces: what is refused, with which code, and what it costs the nonce."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import msgpack
import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey
from tests.entries import entries_in
from tests.hostile.raw import COMMAND, Connection, command, sealed
from tests.patience import UNHURRIED
from tests.sandboxes.waiting import runs, until

ORDER = 2**252 + 27742317777372353535851937790883648493


def test_an_honest_command_is_done(connection: Connection, admin: PrivateKey) -> None:
    reply = connection.ask(command(connection.daemon_id), admin)
    assert reply["ok"] is True
    assert reply["result"]["cause"] == "exited"
    assert {"seq", "leaf"} <= set(reply["receipt"])


def test_an_unsigned_command_is_refused(connection: Connection) -> None:
    connection.frame(sealed(msgpack.packb(command(connection.daemon_id)), []))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "unsigned"


def test_an_unknown_key_is_refused(connection: Connection) -> None:
    reply = connection.ask(command(connection.daemon_id), PrivateKey.generate())
    assert reply["error"]["code"] == "unknown_key"


Bend = Callable[[bytes], bytes]
BENDS: dict[str, Bend] = {
    "one bit": lambda s: bytes([s[0] ^ 1]) + s[1:],
    "the last bit": lambda s: s[:-1] + bytes([s[-1] ^ 0x80]),
    "short": lambda s: s[:-1],
    "long": lambda s: s + b"\0",
    "empty": lambda s: b"",
    "S + L": lambda s: s[:32] + (int.from_bytes(s[32:], "little") + ORDER).to_bytes(32, "little"),
    "zeros": lambda s: bytes(64),
}


@pytest.mark.parametrize("bend", BENDS)
def test_a_bent_signature_is_refused(connection: Connection, admin: PrivateKey, bend: str) -> None:
    payload = msgpack.packb(command(connection.daemon_id))
    signature = BENDS[bend](admin.sign(pae(COMMAND, payload)))
    connection.frame(msgpack.packb([1, COMMAND, payload, [[admin.id, signature]]]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] in ("bad_signature", "bad_envelope")


def test_a_signature_over_other_bytes_is_refused(connection: Connection, admin: PrivateKey) -> None:
    signed = msgpack.packb(command(connection.daemon_id))
    sent = msgpack.packb(command(connection.daemon_id, args={"argv": ["/bin/false"]}))
    connection.frame(msgpack.packb([1, COMMAND, sent, [[admin.id, admin.sign(pae(COMMAND, signed))]]]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_signature"


def test_a_signature_for_another_type_is_refused(connection: Connection, admin: PrivateKey) -> None:
    payload = msgpack.packb(command(connection.daemon_id))
    connection.frame(msgpack.packb([1, COMMAND, payload, [[admin.id, admin.sign(pae("application/other", payload))]]]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_signature"


def test_a_known_keys_bad_signature_refuses_even_beside_a_good_one(
    connection: Connection, admin: PrivateKey, daemon: ThrowawayDaemon
) -> None:
    payload = msgpack.packb(command(connection.daemon_id))
    good = admin.sign(pae(COMMAND, payload))
    connection.frame(msgpack.packb([1, COMMAND, payload, [[admin.id, good], [admin.id, BENDS["one bit"](good)]]]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] in ("bad_envelope", "bad_signature")


def test_a_foreign_signature_beside_a_good_one_is_passed_over(connection: Connection, admin: PrivateKey) -> None:
    connection.frame(sealed(msgpack.packb(command(connection.daemon_id)), [PrivateKey.generate(), admin]))
    reply = connection.reply()
    assert reply is not None
    assert reply["ok"] is True


def test_nine_signatures_are_too_many(connection: Connection, admin: PrivateKey) -> None:
    keys = [PrivateKey.generate() for _ in range(8)]
    connection.frame(sealed(msgpack.packb(command(connection.daemon_id)), [*keys, admin]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_envelope"


def milliseconds(ago: float) -> int:
    return int((time.time() - ago) * 1000)


WRONG: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "another daemon's": (lambda: {"aud": "ed25519:" + "0" * 32}, "wrong_audience"),
    "expired": (lambda: {"iat": milliseconds(400), "exp": milliseconds(200)}, "expired"),
    "of the future": (lambda: {"iat": milliseconds(-200), "exp": milliseconds(-300)}, "not_yet_valid"),
    "valid for too long": (lambda: {"iat": milliseconds(0), "exp": milliseconds(-301)}, "bad_command"),
    "ending before it begins": (lambda: {"iat": milliseconds(0), "exp": milliseconds(100)}, "bad_command"),
    "with a short nonce": (lambda: {"nonce": b"short"}, "bad_command"),
    "with a text for a nonce": (lambda: {"nonce": "0123456789abcdef"}, "bad_command"),
    "without a nonce": (lambda: {"nonce": None}, "bad_command"),
    "without a command": (lambda: {"cmd": None}, "bad_command"),
    "with an unknown field": (lambda: {"nonse": b"x"}, "unknown_field"),
    "with an unknown command": (lambda: {"cmd": "rum"}, "unknown_command"),
    "with an unknown argument": (lambda: {"args": {"argv": ["/bin/true"], "stdn": b""}}, "unknown_field"),
    "with a wrong type": (lambda: {"args": {"argv": "/bin/true"}}, "bad_argument"),
    "with an empty argv": (lambda: {"args": {"argv": []}}, "bad_argument"),
    "with an empty argv[0]": (lambda: {"args": {"argv": [""]}}, "bad_argument"),
    "with NUL in argv": (lambda: {"args": {"argv": ["/bin/true", "a\0b"]}}, "bad_argument"),
    "with NUL in the environment": (lambda: {"args": {"argv": ["/bin/true"], "env": {"A": "b\0"}}}, "bad_argument"),
    "with = in a variable's name": (lambda: {"args": {"argv": ["/bin/true"], "env": {"A=B": "c"}}}, "bad_argument"),
    "with an over-long argument": (lambda: {"args": {"argv": ["/bin/true", "x" * 200_000]}}, "bad_argument"),
    "with too many arguments": (lambda: {"args": {"argv": ["/bin/true"] * 60_000}}, "bad_argument"),
    "with a relative cwd": (lambda: {"args": {"argv": ["/bin/true"], "cwd": "here"}}, "bad_argument"),
    "with a looser limit": (lambda: {"args": {"argv": ["/bin/true"], "limits": {"wall": "900h"}}}, "bad_argument"),
    "with an unknown limit": (lambda: {"args": {"argv": ["/bin/true"], "limits": {"memry": 1}}}, "unknown_field"),
    "with an unknown manifest": (
        lambda: {"args": {"argv": ["/bin/true"], "manifest": "sha256:" + "0" * 64}},
        "unknown_manifest",
    ),
    "with a bad manifest": (lambda: {"args": {"argv": ["/bin/true"], "manifest": {"schema": 2}}}, "manifest_invalid"),
    "naming descriptors that did not come": (lambda: {"args": {"argv": ["/bin/true"], "fds": [1]}}, "bad_descriptor"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_command_gets_its_code_and_a_remedy(connection: Connection, admin: PrivateKey, kind: str) -> None:
    changes, code = WRONG[kind]
    reply = connection.ask(command(connection.daemon_id, **changes()), admin)
    assert reply["ok"] is False
    assert reply["error"]["code"] == code
    assert reply["error"]["message"]


def test_a_misspelt_name_is_answered_with_the_nearest(connection: Connection, admin: PrivateKey) -> None:
    reply = connection.ask(command(connection.daemon_id, args={"argv": ["/bin/true"], "limts": {}}), admin)
    assert "limits" in reply["error"]["message"] + reply["error"]["remedy"]


def test_a_nonce_that_can_be_read_is_in_the_refusal(connection: Connection, admin: PrivateKey) -> None:
    nonce = os.urandom(16)
    assert connection.ask(command(connection.daemon_id, nonce=nonce, nonse=b"x"), admin)["re"] == nonce


def test_a_client_that_says_no_more_has_ended_its_input(connection: Connection, admin: PrivateKey) -> None:
    connection.frame(
        sealed(msgpack.packb(command(connection.daemon_id, args={"argv": ["/bin/cat"], "stream": True})), [admin])
    )
    connection.socket.shutdown(socket.SHUT_WR)
    reply = connection.reply()
    assert reply is not None
    assert reply["result"]["cause"] == "exited"


def test_duplicate_keys_in_a_payload_are_refused(connection: Connection, admin: PrivateKey) -> None:
    payload = msgpack.packb(command(connection.daemon_id))
    doubled = bytes([payload[0] + 1]) + payload[1:] + msgpack.packb("cmd") + msgpack.packb("run")
    connection.frame(sealed(doubled, [admin]))
    reply = connection.reply()
    assert reply is not None
    assert reply["error"]["code"] == "bad_msgpack"


def test_a_denial_is_in_the_ledger(connection: Connection, admin: PrivateKey, daemon: ThrowawayDaemon) -> None:
    reply = connection.ask(command(connection.daemon_id, cmd="rum"), admin)
    entry = entries_in(daemon.state)[reply["receipt"]["seq"]]
    assert entry["type"] == "command.denied"
    assert entry["data"]["code"] == "unknown_command"


def test_the_same_bytes_twice_run_once(connection: Connection, admin: PrivateKey) -> None:
    body = sealed(
        msgpack.packb(
            command(connection.daemon_id, args={"argv": ["/bin/sh", "-c", "head -c 8 /dev/urandom | od -x"]})
        ),
        [admin],
    )
    connection.frame(body)
    first = connection.reply()
    connection.frame(body)
    second = connection.reply()
    assert first is not None
    assert second == first


def test_the_same_bytes_on_another_connection_run_once(
    connection: Connection, daemon: ThrowawayDaemon, admin: PrivateKey
) -> None:
    body = sealed(msgpack.packb(command(connection.daemon_id)), [admin])
    connection.frame(body)
    first = connection.reply()
    with Connection(daemon) as other:
        other.frame(body)
        assert other.reply() == first


def test_a_nonce_on_another_command_is_a_replay(connection: Connection, admin: PrivateKey) -> None:
    nonce = os.urandom(16)
    assert connection.ask(command(connection.daemon_id, nonce=nonce), admin)["ok"] is True
    reply = connection.ask(command(connection.daemon_id, nonce=nonce, args={"argv": ["/bin/echo"]}), admin)
    assert reply["error"]["code"] == "replayed"


def test_the_same_bytes_while_they_run_are_in_progress(
    connection: Connection, daemon: ThrowawayDaemon, admin: PrivateKey
) -> None:
    nonce = os.urandom(16)
    args = {"argv": ["/bin/cat"], "stream": True, "manifest": UNHURRIED}
    body = sealed(msgpack.packb(command(connection.daemon_id, nonce=nonce, args=args)), [admin])
    connection.frame(body)
    accepted_run(daemon, nonce)
    with Connection(daemon) as other:
        other.frame(body)
        again = other.reply()
    assert again is not None
    assert again["error"]["code"] == "in_progress"
    connection.socket.shutdown(socket.SHUT_WR)  # the end of its input
    first = connection.reply()
    assert first is not None
    assert (first["ok"], first["result"]["cause"]) == (True, "exited")


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["/no/such/program"], "executable_not_found"),
        (["no-such-program"], "executable_not_found"),
        (["/etc/passwd"], "not_executable"),
        (["/usr/bin"], "not_executable"),
        (["/usr/bin/true/x"], "executable_not_found"),
    ],
)
def test_what_cannot_be_executed_is_a_result_with_a_typed_failure(
    connection: Connection, admin: PrivateKey, argv: list[str], code: str
) -> None:
    reply = connection.ask(command(connection.daemon_id, args={"argv": argv}), admin)
    assert reply["ok"] is True
    assert reply["result"]["cause"] == "setup_failed"
    assert reply["result"]["failure"]["code"] == code


def test_a_missing_cwd_is_a_result_with_a_typed_failure(connection: Connection, admin: PrivateKey) -> None:
    reply = connection.ask(command(connection.daemon_id, args={"argv": ["/bin/true"], "cwd": "/no/such"}), admin)
    assert reply["result"]["failure"]["code"] == "cwd_missing"


def test_bytes_that_are_not_text_travel_as_they_are(connection: Connection, admin: PrivateKey) -> None:
    argv = ["/bin/sh", "-c", 'printf %s "$1$A"', "sh", b"\xff\xfe"]
    reply = connection.ask(command(connection.daemon_id, args={"argv": argv, "env": {"A": b"\x80"}}), admin)
    assert reply["result"]["stdout"] == b"\xff\xfe\x80"


def test_many_requests_in_flight_on_one_connection_are_all_answered(connection: Connection, admin: PrivateKey) -> None:
    sent = [command(connection.daemon_id, args={"argv": ["/bin/sleep", "0.05"]}) for _ in range(30)]
    for one in sent:
        connection.frame(sealed(msgpack.packb(one), [admin]))
    answered = {reply["re"] for reply in (connection.reply() for _ in sent) if reply is not None}
    assert answered == {one["nonce"] for one in sent}


def ledger_entries(daemon: ThrowawayDaemon, kind: str) -> list[dict[str, Any]]:
    return [entry["data"] for entry in entries_in(daemon.state) if entry["type"] == kind]


def accepted_run(daemon: ThrowawayDaemon, nonce: bytes) -> str:
    """The sandbox of the run with that nonce, once it is accepted."""
    found: list[str] = []

    def accepted() -> bool:
        entries = ledger_entries(daemon, "run.accepted")
        found.extend(one["sandbox"] for one in entries if one["nonce"] == nonce.hex())
        return bool(found)

    until(accepted)
    return found[0]


def test_a_client_that_vanishes_takes_its_run_along(daemon: ThrowawayDaemon, admin: PrivateKey) -> None:
    with Connection(daemon) as connection:
        nonce = os.urandom(16)
        seconds = f"5000.{int.from_bytes(nonce[:4], 'big')}"
        args = {"argv": ["/bin/sleep", seconds], "manifest": UNHURRIED}
        connection.frame(sealed(msgpack.packb(command(connection.daemon_id, nonce=nonce, args=args)), [admin]))
        sandbox = accepted_run(daemon, nonce)
        until(lambda: runs(f"/bin/sleep\0{seconds}\0".encode()))
    ends: list[dict[str, Any]] = []

    def ended() -> bool:
        ends.extend(one for one in ledger_entries(daemon, "run.finished") if one["sandbox"] == sandbox)
        return bool(ends)

    until(ended)
    assert ends[0]["cause"] == "killed"
