"""What a connection bears: bad frames, slow ones, too many, stray descriptors, a client that stalls."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from immured.service.limits import Budget, Limits
from immured.service.shares import monotonic_ms
from immured.service.turnstile import ATTEMPT, BAD_FRAMES
from immured.wire.envelope import decode_envelope, encode_envelope, verify
from immured.wire.frames import MAX_FRAME, encode_frame
from immured.wire.messages import COMMAND, DATA, HELLO, data_body, parse_hello
from tests.descriptors import descriptors
from tests.service.harness import Client, Harness, closed_but, serving, until


async def error_of(client: Client) -> str:
    reply = await client.reply()
    assert reply is not None
    assert reply.error is not None
    return str(reply.error["code"])


async def still_serves(harness: Harness) -> None:
    assert (await harness.connect().ask("status", {})).ok


def test_the_hello_is_signed_by_the_daemon(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        body = client._exactly(int.from_bytes(client._exactly(4) or b"", "big"))
        assert body is not None
        envelope = decode_envelope(body)
        assert envelope.type == HELLO
        assert verify(envelope, lambda _: harness.state.key.public) == harness.state.key.id
        assert parse_hello(envelope.payload).boot == harness.service.boot

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\0\0\0\0", "bad_frame"),
        ((MAX_FRAME + 1).to_bytes(4, "big"), "frame_too_large"),
        (b"\xff\xff\xff\xff", "frame_too_large"),
        (encode_frame(b"\xc1"), "bad_msgpack"),
        (encode_frame(b"\x90"), "bad_envelope"),
        (encode_frame(encode_envelope(DATA, b"\x80")), "bad_command"),
    ],
    ids=["of no bytes", "one byte too large", "of four gigabytes", "no msgpack", "no envelope", "empty data"],
)
def test_a_bad_frame_gets_one_typed_error_and_the_end(tmp_path: Path, data: bytes, code: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1000)
        await client.send_raw(data)
        assert await error_of(client) == code
        assert await client.reply() is None
        await still_serves(harness)
        assert harness.service.misbehaviour.take() == [{"uid": 1000, "count": 1, "codes": {code: 1}}]

    serving(tmp_path, scenario)


def test_a_frame_of_an_unknown_type_keeps_the_connection(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(encode_envelope("application/json", b"{}"))
        assert await error_of(client) == "bad_type"
        assert (await client.ask("status", {})).ok

    serving(tmp_path, scenario)


def test_a_torn_frame_is_told_and_the_connection_closed(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send_raw(b"\0\0\1\0abc")
        client.sock.shutdown(socket.SHUT_WR)
        assert await error_of(client) == "bad_frame"
        assert await client.reply() is None

    serving(tmp_path, scenario)


def test_a_frame_that_never_ends_is_given_up(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send_raw(b"\0\0\1\0abc")
        assert await error_of(client) == "slow_frame"
        assert await client.reply() is None

    serving(tmp_path, scenario, limits=Limits(frame_deadline_s=0.1))


def test_a_frame_that_waits_for_its_turn_is_not_a_slow_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1000)
        frame = encode_frame(client.envelope("status", {}))
        await client.send_raw(frame[:100])
        await until(lambda: harness.server.unfinished.taken > 0)
        turnstile, now = harness.server.turnstile, monotonic_ms()
        turnstile._clock = lambda: now  # no credit comes back by itself, however slow the machine
        turnstile.take(1000, BAD_FRAMES * ATTEMPT)
        await client.send_raw(frame[100:])
        await until(lambda: len(turnstile) == 1)
        harness.server.limits = replace(harness.server.limits, frame_deadline_s=0.0)
        looks, look = 0, harness.server._check

        def counted() -> None:
            nonlocal looks
            look()
            looks += 1

        monkeypatch.setattr(harness.server, "_check", counted)
        await until(lambda: looks >= 2)  # who waits is looked at every second
        assert len(turnstile) == 1
        turnstile.take(1000, -ATTEMPT)
        reply = await client.reply()
        assert reply is not None
        assert reply.ok

    serving(tmp_path, scenario, limits=Limits(frame_deadline_s=600.0))


def test_a_frame_byte_by_byte_is_a_frame(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        for byte in encode_frame(client.envelope("status", {})):
            await client.send_raw(bytes([byte]))
        reply = await client.reply()
        assert reply is not None
        assert reply.ok

    serving(tmp_path, scenario)


def test_unfinished_frames_share_a_bound(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        hoarders = [harness.connect() for _ in range(3)]
        for client in hoarders[:2]:
            await client.send_raw((1000).to_bytes(4, "big") + b"x" * 400)
        await until(lambda: harness.server.unfinished.taken == 800)
        await hoarders[2].send_raw((1000).to_bytes(4, "big") + b"x" * 400)
        assert await error_of(hoarders[2]) == "busy"
        for client in hoarders:
            client.close()
        await until(lambda: harness.server.unfinished.taken == 0)

    serving(tmp_path, scenario, limits=Limits(unfinished=1700))


def test_one_user_leaves_the_others_their_part_of_a_bound() -> None:
    bound = Budget(1000)
    assert bound.take(1, 500)
    assert not bound.take(1, 1)
    assert bound.take(2, 250)
    assert not bound.take(2, 1)
    assert bound.take(3, 125)


def test_what_is_given_back_is_free_for_all() -> None:
    bound = Budget(1000)
    assert bound.take(1, 500)
    assert bound.take(1, -500)
    assert bound.take(2, 500)


@contextlib.contextmanager
def null_device() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.mark.parametrize("count", [1, 3])
def test_descriptors_that_no_command_takes_are_refused_and_closed(tmp_path: Path, count: int) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        with null_device() as null:
            before = descriptors()
            reply = await client.ask("status", {}, fds=[null] * count)
            assert reply.error is not None
            assert reply.error["code"] == "bad_descriptor"
            await closed_but(before)

    serving(tmp_path, scenario)


@pytest.mark.parametrize("place", ["four of them", "in the middle of a frame", "with data", "with garbage"])
def test_descriptors_where_none_belong_end_the_connection(tmp_path: Path, place: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        with null_device() as null:
            before = descriptors()
            status = encode_frame(client.envelope("status", {}))
            if place == "four of them":
                await client.send_raw(status, [null] * 4)
            elif place == "in the middle of a frame":
                await client.send_raw(status[:20])
                await client.send_raw(status[20:], [null])
            elif place == "with data":
                await client.send_raw(encode_frame(data_body(b"n" * 16, "stdin", b"x")), [null])
            else:
                await client.send_raw(encode_frame(b"\xc1"), [null])
            assert await error_of(client) == ("bad_msgpack" if place == "with garbage" else "bad_descriptor")
            assert await client.reply() is None
            client.close()
            await until(lambda: len(harness.server) == 0)
            await closed_but(before)

    serving(tmp_path, scenario)


def test_one_user_has_a_bounded_number_of_connections(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        kept = [harness.connect(uid=1000) for _ in range(3)]
        refused = harness.connect(uid=1000)
        assert await error_of(refused) == "too_many_connections"
        assert await refused.reply() is None
        assert (await kept[0].ask("status", {})).ok
        assert (await harness.connect(uid=1001).ask("status", {})).ok

    serving(tmp_path, scenario, limits=Limits(connections_per_uid=3))


def test_a_closed_connection_makes_room(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        for _ in range(5):
            client = harness.connect(uid=1000)
            assert (await client.ask("status", {})).ok
            client.close()
            await until(lambda: len(harness.server) == 0)
        assert harness.launcher.forgotten == [1, 2, 3, 4, 5]

    serving(tmp_path, scenario, limits=Limits(connections_per_uid=1))


def test_ten_thousand_connections_are_survived(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        attempts = 10_000
        for number in range(attempts):
            client = harness.connect(uid=1000)
            if number >= 256:
                client.close()
                harness.clients.pop()
        assert len(harness.server) == 256
        await still_serves(harness)
        [entry] = harness.service.misbehaviour.take()
        assert entry["codes"] == {"too_many_connections": attempts - 256}
        # Some were told why; then the launcher is, about once a second, and nobody is signed anything any more.
        assert harness.launcher.away
        assert set(harness.launcher.away) == {(1000, 1000)}

    serving(tmp_path, scenario)


def test_a_client_that_half_closes_still_gets_its_reply(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/bin/sleep", "0.2"]}))
        client.sock.shutdown(socket.SHUT_WR)
        reply = await client.reply()
        assert reply is not None
        assert reply.result is not None
        assert reply.result["exit_code"] == 0
        assert await client.reply() is None

    serving(tmp_path, scenario)


def test_a_client_that_takes_nothing_is_let_go(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await client.send(client.envelope("run", {"argv": ["/usr/bin/yes"], "stream": True, "stdin": b""}))
        await until(lambda: len(harness.service.registry) == 1)
        await until(lambda: len(harness.server) == 0)
        await until(lambda: len(harness.service.registry) == 0)
        assert harness.server.waiting.taken == 0

    serving(tmp_path, scenario, limits=Limits(stuck_deadline_s=0.2, high_water=1 << 16, low_water=1 << 14))


def test_a_slow_reader_holds_up_the_payload_and_not_the_memory(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        most = 0
        await client.send(
            client.envelope("run", {"argv": ["/usr/bin/head", "-c", "8000000", "/dev/zero"], "stream": True})
        )
        received = 0
        while True:
            most = max(most, harness.server.waiting.taken)
            frame = await client.read()
            assert frame is not None
            if frame[0] == HELLO:
                continue
            if frame[0] != DATA:
                break
            received += len(frame[1].data)
        assert received == 8_000_000
        assert most < 1 << 19

    serving(tmp_path, scenario, limits=Limits(high_water=1 << 18, low_water=1 << 17))


def test_requests_in_flight_are_bounded(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        for _ in range(2):
            await client.send(client.envelope("run", {"argv": ["/bin/sleep", "30"]}))
        await until(lambda: len(harness.launcher.gone) == 2)
        assert (await client.ask("status", {})).error is not None
        for run in harness.service.registry:
            run.kill()
        for _ in range(2):
            assert await client.reply() is not None
        assert (await client.ask("status", {})).ok

    serving(tmp_path, scenario, limits=Limits(requests_per_connection=2))


def test_a_peer_is_who_the_launcher_says(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1234)
        await client.run("/bin/true")
        [entry] = harness.of_type("run.accepted")
        assert entry["actor"]["uid"] == 1234

    serving(tmp_path, scenario)


def test_what_is_no_command_is_refused_before_its_payload_is_read(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect(uid=1000)
        await client.send(encode_envelope(COMMAND, b"\xc1", []))
        assert await error_of(client) == "unsigned"

    serving(tmp_path, scenario)


def test_a_client_that_vanishes_while_its_input_is_held_up_takes_its_run_along(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        args = {"argv": ["/bin/sleep", "60"], "stream": True}
        await client.send(client.envelope("run", args, nonce=b"n" * 16))
        for _ in range(5):
            await client.send(data_body(b"n" * 16, "stdin", bytes(65_536)))
        await until(lambda: len(harness.launcher.gone) == 1)
        client.close()
        await until(lambda: len(harness.service.registry) == 0)
        assert len(harness.server) == 0

    serving(tmp_path, scenario)


def test_an_answer_too_large_for_a_frame_is_an_error_that_fits(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        reply = await harness.connect().ask("plan", {"argv": ["/bin/echo", *[b"\xff" * 1000] * 400]})
        assert reply.error is not None
        assert reply.error["code"] == "frame_too_large"

    serving(tmp_path, scenario)


def test_an_accident_with_one_frame_is_not_everybodys(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        harness.dispatcher._command = None  # type: ignore[assignment,method-assign]
        await client.send(client.envelope("status", {}))
        assert await client.reply() is None
        del harness.dispatcher._command
        await still_serves(harness)

    serving(tmp_path, scenario)


def test_connections_of_all_users_together_are_bounded_and_root_gets_in(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        for uid in range(1000, 1005):
            harness.connect(uid=uid)
        assert await error_of(harness.connect(uid=2000)) == "too_many_connections"
        assert (await harness.connect(uid=0).ask("status", {})).ok

    serving(tmp_path, scenario, limits=Limits(connections=5))
