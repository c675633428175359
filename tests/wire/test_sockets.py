"""Frames and descriptors over a real pair of sockets: whose a descriptor is must never be in doubt."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from immured.errors import Refused
from immured.wire.frames import MAX_FRAME, Frame, FrameReader, encode_frame
from immured.wire.sockets import EndOfStream, close_all, receive_some, send_some
from tests.descriptors import descriptors
from tests.patience import PATIENCE_S

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A client's end and a server's end."""
    client, server = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with client, server:
        client.settimeout(PATIENCE_S)
        server.settimeout(PATIENCE_S)
        yield client, server


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends."""
    ends = os.pipe()
    yield ends
    close_all(ends)


def receive(server: socket.socket, reader: FrameReader) -> Frame:
    while (frame := receive_some(server, reader)) is None:
        pass
    return frame


def send(sock: socket.socket, data: bytes, fds: Sequence[int] = ()) -> None:
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    assert sock.sendmsg([data], ancillary) == len(data)


def same_file(one: int, other: int) -> bool:
    return os.path.sameopenfile(one, other)


def test_descriptors_come_with_the_frame_that_they_were_sent_with(pair: Pair, pipe: tuple[int, int]) -> None:
    client, server = pair
    send(client, encode_frame(b"before"))
    send(client, encode_frame(b"with"), pipe)
    send(client, encode_frame(b"after"))
    reader = FrameReader()
    frames = [receive(server, reader) for _ in range(3)]
    with_counts = [(frame.body, len(frame.fds)) for frame in frames]
    belongs = [same_file(got, sent) for got, sent in zip(frames[1].fds, pipe, strict=True)]
    close_all(frames[1].fds)
    assert (with_counts, belongs) == ([(b"before", 0), (b"with", 2), (b"after", 0)], [True, True])


def test_received_descriptors_are_close_on_exec(pair: Pair, pipe: tuple[int, int]) -> None:
    client, server = pair
    send(client, encode_frame(b"x"), pipe[:1])
    frame = receive(server, FrameReader())
    inheritable = os.get_inheritable(frame.fds[0])
    close_all(frame.fds)
    assert not inheritable


@pytest.mark.parametrize("at", [1, 4, 6], ids=["in the header", "with the body's first byte", "in the body"])
def test_descriptors_after_a_frame_s_first_byte_are_refused_and_dropped(
    pair: Pair, pipe: tuple[int, int], at: int
) -> None:
    client, server = pair
    data, reader, before = encode_frame(b"0123456789"), FrameReader(), descriptors()
    send(client, data[:at])
    while reader.at_boundary or at > 4:
        receive_some(server, reader)
        at -= 4
    send(client, data[at:], pipe)
    with pytest.raises(Refused, match="bad_descriptor"):
        receive(server, reader)
    assert descriptors() - before == set()


def test_more_than_three_descriptors_are_refused_and_dropped(pair: Pair, pipe: tuple[int, int]) -> None:
    client, server = pair
    before = descriptors()
    send(client, encode_frame(b"x"), [pipe[0]] * 4)
    with pytest.raises(Refused, match="bad_descriptor"):
        receive(server, FrameReader())
    assert descriptors() - before == set()


@pytest.mark.parametrize("header", [bytes(4), b"\xff" * 4])
def test_the_descriptors_of_a_refused_frame_are_given_up_once(pair: Pair, pipe: tuple[int, int], header: bytes) -> None:
    """Closed twice, the second time is somebody else's: closing one may take long, and its number is free meanwhile."""
    client, server = pair
    given: list[int] = []
    send_some(client, header, [pipe[0], pipe[1]])
    with pytest.raises(Refused):
        receive_some(server, FrameReader(), close=given.extend)
    assert len(given) == len(set(given)) == 2
    close_all(given)


def test_the_descriptors_of_a_torn_frame_are_closed(pair: Pair, pipe: tuple[int, int]) -> None:
    client, server = pair
    before = descriptors()
    send(client, encode_frame(b"torn")[:6], pipe)
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(EndOfStream):
        receive(server, FrameReader())
    assert descriptors() - before == set()


def test_a_stream_that_ends_between_frames_is_not_torn(pair: Pair) -> None:
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(EndOfStream) as ended:
        receive(server, FrameReader())
    assert ended.value.torn is False


def test_a_stream_that_ends_inside_a_frame_is_torn(pair: Pair) -> None:
    client, server = pair
    client.send(b"\0\0\0\x05ab")
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(EndOfStream) as ended:
        receive(server, FrameReader())
    assert ended.value.torn is True


def test_a_stream_out_of_step_is_read_no_further() -> None:
    reader = FrameReader()
    with pytest.raises(Refused):
        reader.feed(b"\0\0\0\0")
    with pytest.raises(ValueError, match="out of step"):
        reader.feed(b"\0")


def test_a_declared_megabyte_is_not_allocated_before_it_comes() -> None:
    reader = FrameReader()
    reader.feed(MAX_FRAME.to_bytes(4, "big"))
    assert reader.wanted() <= 66_000


def test_a_send_that_would_wait_says_so(pair: Pair) -> None:
    client, _ = pair
    client.settimeout(None)
    sent = 0
    with pytest.raises(BlockingIOError):  # noqa: PT012 - which send is the first that would wait, the kernel decides
        while sent < 1 << 30:
            sent += send_some(client, bytes(65_536), wait=False)
