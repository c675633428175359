"""What the blocking client believes, refuses, and does when the other side does not behave."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from immured import Client, RemoteError
from immured.client import ConnectionLost, NoReply, Refusal, RunFailed, StreamMismatch, UntrustedReply
from immured.client.session import QUEUE_BYTES
from immured.wire.envelope import decode_envelope
from immured.wire.frames import MAX_FRAME
from immured.wire.keys import PrivateKey
from immured.wire.messages import DATA, MAX_DATA, Reply, parse_command, parse_data
from immured.wire.sockets import EndOfStream
from tests.client.conftest import Serving
from tests.client.peer import USER, Peer, Served, record, result_of
from tests.descriptors import descriptors
from tests.patience import PATIENCE_S

STRANGER = PrivateKey(b"\x5e" * 32)


def client(peer: Peer) -> Client:
    return Client(peer.socket, USER, timeout=PATIENCE_S)


def until_closed(served: Served) -> None:
    try:
        while True:
            served.frame()
    except (EndOfStream, ConnectionError):
        return


def echo(served: Served) -> None:
    """Serves runs that copy their input to their output, until the client leaves."""
    served.hello()
    try:
        while True:
            command, digest, _ = served.command()
            if command.args.get("stream"):
                served.data(command, "stdout", served.stdin())
            given = command.args.get("stdin", b"")
            assert isinstance(given, bytes)
            served.reply(command, digest, result_of(stdout=given, streams={"stdout": record(given)}))
    except (EndOfStream, ConnectionError):
        return


def answering(result: dict[str, object], *data: tuple[str, bytes]) -> Callable[[Served], None]:
    """A script that sends data, then a result."""

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        for stream, piece in data:
            served.data(command, stream, piece)
        served.reply(command, digest, result)
        until_closed(served)

    return script


def test_a_result_is_typed(serving: Serving) -> None:
    failure = {"code": "path_denied", "stage": "open", "message": "no", "remedy": "yes"}
    said = result_of(cause="setup_failed", failure=failure, files={"/a": b"b"}, events={"oom": 1}, uncollected=["/c"])
    del said["exit_code"]
    with client(serving(answering(said))) as connected:
        result = connected.run(["/bin/true"])
    assert (result.cause, result.exit_code, result.failure, result.files, result.events, result.uncollected) == (
        "setup_failed", None, failure, {"/a": b"b"}, {"oom": 1}, ("/c",),
    )  # fmt: skip


def test_fields_of_a_later_version_are_passed_over_and_kept(serving: Serving) -> None:
    with client(serving(answering(result_of(weather="fine")))) as connected:
        assert connected.run(["/bin/true"]).raw["weather"] == "fine"


def test_what_did_not_exit_with_0_is_an_error_only_where_asked(serving: Serving) -> None:
    with (
        client(serving(answering(result_of(exit_code=3)))) as connected,
        pytest.raises(RunFailed, match="exit status 3"),
    ):
        connected.run(["/bin/false"]).check()


def test_a_refusal_carries_the_daemon_s_words(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.refuse("denied", re=command.nonce, req=digest)
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(RemoteError) as refused:
        connected.status()
    assert (refused.value.code, refused.value.message, refused.value.remedy) == ("denied", "because", "so")


def test_a_refusal_that_could_not_read_the_nonce_finds_its_call_by_the_digest(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        _, digest, _ = served.command()
        served.refuse("unknown_key", req=digest)
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(Refusal, match="unknown_key"):
        connected.status()


def test_a_refusal_of_the_connection_itself_reaches_the_caller(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        served.refuse("too_many_connections")

    with client(serving(script)) as connected, pytest.raises(Refusal, match="too_many_connections"):
        connected.status()


# -- whom to believe


def test_a_reply_signed_by_another_key_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.reply(command, digest, key=STRANGER)
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply):
        connected.run(["/bin/true"])


def test_an_unsigned_reply_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.unsigned(Reply(True, {}, re=command.nonce, req=digest).to_payload())
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply):
        connected.run(["/bin/true"])


def test_another_daemon_s_hello_ends_the_connection(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello(STRANGER)
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply):
        connected.connect()


def test_a_reply_with_this_digest_and_another_nonce_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        _, digest, _ = served.command()
        served.refuse("denied", re=bytes(16), req=digest)
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply, match="another nonce"):
        connected.status()


def test_a_genuine_reply_to_somebody_else_s_command_is_passed_over(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.reply(command, bytes(32), result_of(exit_code=9))
        served.reply(command, digest)
        until_closed(served)

    with client(serving(script)) as connected:
        assert connected.run(["/bin/true"]).exit_code == 0


def test_a_run_without_receipts_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        from immured.wire.envelope import seal
        from immured.wire.messages import REPLY
        from tests.client.peer import DAEMON

        served.hello()
        command, digest, _ = served.command()
        served.body(seal(REPLY, Reply(True, result_of(), re=command.nonce, req=digest).to_payload(), [DAEMON]))
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply, match="without receipts"):
        connected.run(["/bin/true"])


def test_the_insecure_client_takes_the_audience_from_the_hello(serving: Serving) -> None:
    with Client(serving(echo).socket, USER, insecure=True, timeout=PATIENCE_S) as connected:
        assert connected.run(["/bin/cat"], stdin=b"x").stdout == b"x"


# -- streams


def test_streamed_output_comes_whole_and_checked(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"onetwo"), "stderr": record(b"")})
    script = answering(said, ("stdout", b"one"), ("stdout", b"two"), ("stdout", b""), ("stderr", b""))
    with client(serving(script)) as connected:
        assert connected.run(["/bin/true"], stream=True).stdout == b"onetwo"


@pytest.mark.parametrize(
    "data",
    [[], [("stdout", b"one")], [("stdout", b"onetwo"), ("stdout", b"!")], [("stdout", b"twoone")]],
    ids=["none", "less", "more", "other"],
)
def test_output_that_is_not_what_was_signed_is_an_error(serving: Serving, data: list[tuple[str, bytes]]) -> None:
    said = result_of(streams={"stdout": record(b"onetwo"), "stderr": record(b"")})
    with client(serving(answering(said, *data))) as connected, pytest.raises(StreamMismatch):
        connected.run(["/bin/true"], stream=True)


def test_a_large_collected_file_comes_as_data_and_is_checked(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b""), "stderr": record(b""), "file:/big": record(b"big")})
    with client(serving(answering(said, ("file:/big", b"big"), ("file:/big", b"")))) as connected:
        assert connected.run(["/bin/true"], collect=["/big"]).files == {"/big": b"big"}


def test_a_collected_file_that_was_tampered_with_is_an_error(serving: Serving) -> None:
    said = result_of(streams={"file:/big": record(b"big")})
    with client(serving(answering(said, ("file:/big", b"bad")))) as connected, pytest.raises(StreamMismatch):
        connected.run(["/bin/true"], collect=["/big"])


def test_a_file_whose_collection_was_given_up_is_named_and_not_half_there(serving: Serving) -> None:
    said = result_of(uncollected=["/slow"])
    with client(serving(answering(said, ("file:/slow", b"half")))) as connected:
        result = connected.run(["/bin/true"], collect=["/slow"])
    assert (result.files, result.uncollected) == ({}, ("/slow",))


def test_callbacks_get_the_output_and_the_result_does_not_hold_it_twice(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"out"), "stderr": record(b"err")})
    heard: list[bytes] = []
    with client(serving(answering(said, ("stdout", b"out"), ("stderr", b"err")))) as connected:
        result = connected.run(["/bin/true"], on_stdout=heard.append)
    assert (heard, result.stdout, result.stderr) == ([b"out"], b"", b"err")


def test_a_run_can_be_iterated(serving: Serving) -> None:
    said = result_of(streams={"stdout": record(b"out"), "stderr": record(b"err")})
    with client(serving(answering(said, ("stdout", b"out"), ("stderr", b"err")))) as connected:
        with connected.start(["/bin/true"]) as run:
            heard = list(run)
        assert (heard, run.result.cause) == ([("stdout", b"out"), ("stderr", b"err")], "exited")


@pytest.mark.parametrize("size", [0, 1, MAX_DATA, 300_000, 5 << 20])
def test_standard_input_arrives_whole_whatever_its_size(serving: Serving, size: int) -> None:
    data = os.urandom(size)
    heard: list[bytes] = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        given = command.args.get("stdin")
        heard.append(given if isinstance(given, bytes) else served.stdin())
        served.reply(command, digest)
        until_closed(served)

    with client(serving(script)) as connected:
        connected.run(["/bin/cat"], stdin=data)
    assert heard == [data]


@pytest.mark.parametrize("buffered", [True, False])
def test_standard_input_from_a_file_arrives_whole(serving: Serving, tmp_path: Path, buffered: bool) -> None:
    data = os.urandom(200_000)
    (tmp_path / "input").write_bytes(data)
    with (
        (tmp_path / "input").open("rb", buffering=-1 if buffered else 0) as file,
        client(serving(streaming_echo)) as connected,
    ):
        assert connected.run(["/bin/cat"], stdin=file).stdout == data


def streaming_echo(served: Served) -> None:
    """Copies data frames back one by one, then signs what went through."""
    served.hello()
    command, digest, _ = served.command()
    through = b""
    while (data := served.data_in()).data:
        through += data.data
        served.data(command, "stdout", data.data)
    served.reply(command, digest, result_of(streams={"stdin": record(through), "stdout": record(through)}))
    until_closed(served)


def test_input_and_output_larger_than_any_buffer_pass_each_other(serving: Serving) -> None:
    data = os.urandom(8 << 20)
    with client(serving(streaming_echo)) as connected:
        assert connected.run(["/bin/cat"], stdin=data).stdout == data


def test_input_of_which_others_are_signed_is_an_error(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.stdin()
        served.reply(command, digest, result_of(streams={"stdin": record(b"other")}))
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(StreamMismatch, match="stdin"):
        connected.run(["/bin/cat"], stdin=io.BytesIO(b"these"))


def test_a_command_may_end_before_it_has_read_its_input(serving: Serving) -> None:
    read, write = os.pipe()  # nobody ever writes

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.reply(command, digest)
        until_closed(served)

    with open(read, "rb") as file, open(write, "wb"), client(serving(script)) as connected:
        assert connected.run(["/bin/true"], stdin=file).ok


def test_what_the_input_raises_the_caller_sees(serving: Serving) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise RuntimeError("the input is broken")

    def script(served: Served) -> None:
        served.hello()
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(RuntimeError, match="the input is broken"):
        connected.run(["/bin/cat"], stdin=Broken())


# -- many at once


def test_replies_in_another_order_reach_their_callers(serving: Serving) -> None:
    count = 16

    def script(served: Served) -> None:
        served.hello()
        for command, digest, _ in reversed([served.command() for _ in range(count)]):
            argv = command.args["argv"]
            assert isinstance(argv, list)
            served.reply(command, digest, result_of(stdout=argv[1].encode()))
        until_closed(served)

    got: dict[int, bytes] = {}
    with client(serving(script)) as connected:

        def ask(number: int) -> None:
            got[number] = connected.run(["/bin/echo", str(number)]).stdout

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert got == {number: str(number).encode() for number in range(count)}


def flood(served: Served) -> None:
    """Far more output than a client holds, and another command's reply behind it."""
    served.hello()
    first, first_digest, _ = served.command()
    piece, total = bytes(MAX_DATA), 3 * QUEUE_BYTES
    for _ in range(total // MAX_DATA):
        served.data(first, "stdout", piece)
    second, second_digest, _ = served.command()
    served.reply(second, second_digest, {})
    served.reply(first, first_digest, result_of(streams={"stdout": record(bytes(total))}))
    until_closed(served)


def test_a_callback_may_make_calls_of_its_own(serving: Serving) -> None:
    with client(serving(flood)) as connected:
        asked: list[object] = []

        def sink(data: bytes) -> None:
            if not asked:
                asked.append(connected.status())

        connected.run(["/bin/yes"], on_stdout=sink)
    assert asked == [{}]


def says_much_before_it_reads(served: Served) -> None:
    """More than a client holds goes out before one more byte is read; then a command that is no run is answered, and
    the run once both the end of its input and that command came."""
    served.hello()
    run, run_digest, _ = served.command()
    output = bytes(3 * QUEUE_BYTES)
    for at in range(0, len(output), MAX_DATA):
        served.data(run, "stdout", output[at : at + MAX_DATA])
    taken, ended, asked = b"", False, False
    while not (ended and asked):
        envelope = decode_envelope(served.frame().body)
        if envelope.type == DATA:
            piece = parse_data(envelope.payload, strict=True).data
            taken, ended = taken + piece, not piece
        else:
            command, digest = parse_command(envelope.payload), hashlib.sha256(envelope.payload).digest()
            served.reply(command, digest, {"which": "within"})
            asked = True
    served.reply(run, run_digest, result_of(streams={"stdin": record(taken), "stdout": record(output)}))
    until_closed(served)


def test_a_call_made_amid_output_waits_for_no_input_that_waits_for_it(serving: Serving) -> None:
    answers: list[Mapping[str, object]] = []
    with client(serving(says_much_before_it_reads)) as connected:
        with connected.start(["/bin/cat"], stdin=bytes(2 * QUEUE_BYTES)) as run:
            for _ in run:
                if not answers:
                    answers.append(connected.status())
        assert run.result.ok
    assert answers == [{"which": "within"}]


def test_output_that_nobody_takes_does_not_fill_the_memory(serving: Serving) -> None:
    with client(serving(flood)) as connected, connected.start(["/bin/yes"]) as run:
        asked: list[object] = []
        other = threading.Thread(target=lambda: asked.append(connected.status()))
        other.start()
        call = run._call
        assert call is not None
        other.join(0.5)
        assert call.queued <= QUEUE_BYTES + MAX_DATA
        assert run.result.ok
        other.join(PATIENCE_S)
    assert asked == [{}]


# -- loss


def test_a_closed_connection_is_an_error_and_the_next_call_opens_another(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        if served.number > 1:
            served.reply(command, digest)
            until_closed(served)

    with client(serving(script)) as connected:
        with pytest.raises(ConnectionLost):
            connected.run(["/bin/true"])
        assert connected.run(["/bin/true"]).ok


def test_a_lost_reply_is_asked_for_with_the_very_same_bytes(serving: Serving) -> None:
    bodies: list[bytes] = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, frame = served.command()
        bodies.append(frame.body)
        if served.number == 2:
            served.refuse("in_progress", re=command.nonce, req=digest)
            command, digest, frame = served.command()
            bodies.append(frame.body)
            served.reply(command, digest)
            until_closed(served)

    with client(serving(script)) as connected:
        result = connected.run(["/bin/true"], retries=1)
    assert (result.ok, len(bodies), len(set(bodies))) == (True, 3, 1)


def test_nothing_is_sent_twice_unasked(serving: Serving) -> None:
    seen: list[int] = []

    def script(served: Served) -> None:
        served.hello()
        served.command()
        seen.append(served.number)

    with client(serving(script)) as connected, pytest.raises(ConnectionLost):
        connected.run(["/bin/true"])
    assert seen == [1]


def test_a_refusal_that_may_pass_is_tried_again_where_asked(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        served.refuse("busy", re=command.nonce, req=digest)
        command, digest, _ = served.command()
        served.reply(command, digest)
        until_closed(served)

    with client(serving(script)) as connected:
        assert connected.run(["/bin/true"], retries=1).ok


def test_after_a_retry_lost_output_is_named_and_not_an_error(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        if served.number == 2:
            served.reply(command, digest, result_of(streams={"stdout": record(b"lost")}))
            until_closed(served)

    with client(serving(script)) as connected:
        assert connected.run(["/bin/true"], stream=True, retries=1).missing == ("stdout",)


def test_a_torn_frame_is_a_lost_connection(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        served.command()
        served.sock.sendall(b"\0\0\1\0torn")

    with client(serving(script)) as connected, pytest.raises(ConnectionLost, match="inside a frame"):
        connected.status()


def test_a_frame_of_4_gib_is_a_lost_connection(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.sock.sendall(b"\xff\xff\xff\xff")
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(ConnectionLost, match="limit"):
        connected.connect()


def test_a_frame_that_is_no_envelope_is_not_believed(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.body(b"\xc1")
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(UntrustedReply):
        connected.connect()


def test_no_reply_in_time_is_an_error_of_its_own(serving: Serving) -> None:
    def script(served: Served) -> None:
        served.hello()
        until_closed(served)

    with client(serving(script)) as connected, pytest.raises(NoReply):
        connected.call("status", timeout=0.05)


def test_a_late_reply_is_dropped(serving: Serving) -> None:
    release = threading.Event()

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        if command.cmd == "late":  # a busy host may not even have sent it in its time
            release.wait(PATIENCE_S)
            served.reply(command, digest, {"which": "late"})
            command, digest, _ = served.command()
        served.reply(command, digest, {"which": "next"})
        until_closed(served)

    with client(serving(script)) as connected:
        connected.connect()
        with pytest.raises(NoReply):
            connected.call("late", timeout=0.2)
        release.set()
        assert connected.status() == {"which": "next"}


def test_a_daemon_that_reads_nothing_does_not_hold_a_sender_beyond_its_time(serving: Serving) -> None:
    release = threading.Event()

    def script(served: Served) -> None:
        served.hello()
        release.wait(PATIENCE_S)

    with client(serving(script)) as connected:
        with pytest.raises((NoReply, ConnectionLost)):
            connected.call("status", {"x": bytes(MAX_FRAME - 4096)}, timeout=0.2)
        release.set()


def test_close_wakes_whoever_waits(serving: Serving) -> None:
    arrived = threading.Event()

    def script(served: Served) -> None:
        served.hello()
        served.command()
        arrived.set()
        until_closed(served)

    connected = client(serving(script))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            connected.status()
        except ConnectionLost as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    arrived.wait(PATIENCE_S)
    connected.close()
    thread.join(PATIENCE_S)
    assert [type(error) for error in caught] == [ConnectionLost]


def test_nobody_listening_is_a_lost_connection_with_a_remedy(tmp_path: Path) -> None:
    with Client(tmp_path / "none.sock", USER, USER.public) as connected, pytest.raises(ConnectionLost) as lost:
        connected.status()
    assert "IMMURE_SOCKET" in lost.value.remedy


# -- descriptors


def test_descriptors_ride_with_the_command_in_their_order(serving: Serving) -> None:
    read, write = os.pipe()
    seen: list[object] = []

    def script(served: Served) -> None:
        served.hello()
        command, digest, frame = served.command()
        seen.append(command.args["fds"])
        seen.append([os.path.sameopenfile(fd, sent) for fd, sent in zip(frame.fds, (read, write), strict=True)])
        for fd in frame.fds:
            os.close(fd)
        passed = {"passed": True}
        served.reply(command, digest, result_of(streams={"stdin": passed, "stdout": passed}))
        until_closed(served)

    with client(serving(script)) as connected:
        result = connected.run(["/bin/cat"], fds={1: write, 0: read})
    os.close(read)
    os.close(write)
    assert (seen, result.streams["stdout"].passed) == ([[0, 1], [True, True]], True)


def test_a_descriptor_from_the_daemon_is_not_kept(serving: Serving) -> None:
    import array

    from immured.wire.frames import encode_frame

    def script(served: Served) -> None:
        served.hello()
        served.command()
        data = encode_frame(b"\x94\x01\xa1x\xc4\x00\x90")
        with socket.socket() as sent:
            rights = array.array("i", [sent.fileno()])
            served.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        served.refuse("denied")
        until_closed(served)

    with client(serving(script)) as connected:
        connected.connect()
        before = descriptors()
        with pytest.raises(Refusal):
            connected.status()
        assert descriptors() - before == set()


@pytest.mark.parametrize("patience", [None, PATIENCE_S])
def test_a_daemon_that_says_nothing_is_left(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, patience: float | None
) -> None:
    monkeypatch.setattr("immured.client.link.HELLO_SECONDS", 0.2)
    peer = serving(until_closed)
    with (
        Client(peer.socket, USER, timeout=patience) as silent,
        pytest.raises(ConnectionLost, match=r"no hello within 0\.2 s"),
    ):
        silent.run(["true"])


def test_a_daemon_that_takes_nothing_and_says_nothing_is_left(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immured.client.link.HELLO_SECONDS", 0.2)
    leave = threading.Event()

    def script(_: Served) -> None:
        leave.wait(PATIENCE_S)

    peer = serving(script)
    try:
        with Client(peer.socket, USER) as silent, pytest.raises(ConnectionLost, match="no hello"):
            silent.run(["true"], stdin=bytes(4 << 20))
    finally:
        leave.set()


def test_a_daemon_that_accepts_nobody_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("immured.client.link.HELLO_SECONDS", 0.2)
    (tmp_path / "daemon.pub").write_bytes(USER.public.to_pem())
    path = tmp_path / "immured.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        with Client(path, USER) as unheard, pytest.raises(ConnectionLost, match="no connection within"):
            unheard.run(["true"])
        with Client(path, USER, timeout=0.05) as hurried, pytest.raises(NoReply):
            hurried.run(["true"])


def test_a_hello_in_time_leaves_a_run_all_the_time(serving: Serving) -> None:
    with client(serving(echo)) as patient:
        patient.connect()
        assert patient._link is not None
        patient._link._hello_due = 0.0
        assert patient.run(["true"]).ok
