"""Requests as they may arrive, and everything else that may."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger.witness import MAX_BODY
from immured.ledger.witness_http import MAX_HEAD, HttpError, Reader, Request, response

POST = b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /x HTTP/1.1\r\nhost: w\r\nConnection: close\r\n\r\n"


def read(data: bytes) -> list[Request]:
    return list(Reader().feed(data))


def status(data: bytes) -> int:
    with pytest.raises(HttpError) as raised:
        read(data)
    return raised.value.status


def test_requests_one_after_the_other() -> None:
    assert read(POST + GET) == [
        Request("POST", "/add-checkpoint", b"hello", keep=True),
        Request("GET", "/x", b"", keep=False),
    ]


def test_http_1_0_closes_unless_it_asks_otherwise() -> None:
    assert [one.keep for one in read(b"GET / HTTP/1.0\r\n\r\n")] == [False]
    assert [one.keep for one in read(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")] == [True]


def test_who_waits_for_a_continue_is_known() -> None:
    reader = Reader()
    head = b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
    assert list(reader.feed(head)) == []
    assert reader.expects
    assert [one.body for one in reader.feed(b"hello")] == [b"hello"]
    assert not reader.expects


@pytest.mark.parametrize(
    ("wanted", "data"),
    [
        (400, b"GET / HTTP/1.1\nHost: w\n\n"),
        (400, b"GET / HTTP/2.0\r\nHost: w\r\n\r\n"),
        (400, b"get / HTTP/1.1\r\nHost: w\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: w\r\n\r\n"),
        (400, b"GET /\xc3\xa4 HTTP/1.1\r\nHost: w\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost : w\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: w\r\n folded: x\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: w\r\nhost: v\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: w\r\nA: \x00\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: +5\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 05\r\n\r\n"),
        (400, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5, 5\r\n\r\n"),
        (411, b"POST / HTTP/1.1\r\nHost: w\r\n\r\n"),
        (413, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)),
        (413, b"GET / HTTP/1.1\r\nHost: w\r\nContent-Length: 999999999\r\n\r\n"),
        (417, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nExpect: magic\r\n\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: w\r\nA: " + b"x" * MAX_HEAD),
        (431, b"GET / HTTP/1.1\r\nHost: w\r\n" + b"A: x\r\n" * 65 + b"\r\n"),
        (431, b"x" * MAX_HEAD),
        (501, b"POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (501, b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(wanted: int, data: bytes) -> None:
    assert status(data) == wanted


def test_blanks_cost_no_time() -> None:
    begun = time.process_time()
    assert status(b"GET / HTTP/1.1\r\nHost: w\r\nA:" + b" \t" * 3900 + b"\x01\r\n\r\n") == 400
    assert time.process_time() - begun < 1


@given(st.lists(st.sampled_from([POST, GET]), min_size=1, max_size=5), st.lists(st.integers(1, 40), min_size=1))
def test_it_does_not_matter_in_what_pieces_they_come(sent: list[bytes], cuts: list[int]) -> None:
    data, reader, found, at, turn = b"".join(sent), Reader(), [], 0, 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        found += list(reader.feed(data[at : at + step]))
        at, turn = at + step, turn + 1
    assert found == read(data)
    assert len(found) == len(sent)
    assert not reader.begun


@settings(max_examples=300)
@given(st.binary(max_size=300), st.data())
def test_whatever_comes_is_a_request_or_an_error(noise: bytes, data: st.DataObject) -> None:
    changed = bytearray(POST)
    at = data.draw(st.integers(0, len(changed)))
    changed[at:at] = noise
    for sent in (noise, bytes(changed)):
        with contextlib.suppress(HttpError):
            assert all(len(one.body) <= MAX_BODY for one in read(sent))


def test_a_response_says_how_long_it_is() -> None:
    assert response(409, b"13\n", "text/x.tlog.size", keep=True) == (
        b"HTTP/1.1 409 Conflict\r\nContent-Type: text/x.tlog.size\r\nContent-Length: 3\r\n"
        b"X-Content-Type-Options: nosniff\r\nConnection: keep-alive\r\n\r\n13\n"
    )
