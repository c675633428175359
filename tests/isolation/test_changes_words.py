"""What a clerk for change sets says is a stranger's: taken strictly, or not at all."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.isolation.changes_words import (
    ChangesRefusal,
    ChangesVerb,
    ChangesWord,
    WordsError,
    pack_question,
    parse_changes_answer,
)

_SET = bytes(range(32))


def _packet(word: int, body: bytes = b"", *, count: int = 0, code: int = 0, size: int = 0, off: int = 0) -> bytes:
    answer = struct.pack("=IIIi32s", count, code, size, 0, _SET) + body
    return struct.pack("=IIQ", word, 16 + len(answer) + off, 0) + answer


def _row(*, kind: int = 1, trouble: int = 0, path: bytes = b"x", more: int = 0, lengths: tuple[int, ...] = ()) -> bytes:
    texts = path + bytes(-len(path) % 8)
    head = struct.pack("=IIIIIIQQ32s32s", 0, kind, trouble, 0, 0, 0o100644, 0, 1, bytes(32), _SET)
    head += struct.pack("=IIII", *(lengths or (len(path), 0, 0, 0)))
    return struct.pack("=I", len(head) + len(texts) + more) + head[4:] + texts


def test_what_a_clerk_says_is_read() -> None:
    answer = parse_changes_answer(_packet(ChangesWord.ROWS, _row(path=b"a") + _row(path=b"b/\xff"), count=2))
    assert [one.path for one in answer.changes] == [b"a", b"b/\xff"]
    assert answer.digest == _SET
    refused = parse_changes_answer(_packet(ChangesWord.REFUSED, b"why", code=ChangesRefusal.FAILED, size=3))
    assert (refused.refusal, refused.text) == (ChangesRefusal.FAILED, b"why")
    staged = struct.pack("=Q32s40s", 7, _SET, b".immured-0123456789abcdef")
    begun = parse_changes_answer(_packet(ChangesWord.BEGUN, staged)).begun
    assert begun is not None
    assert (begun.inode, begun.journal, begun.staging) == (7, _SET, b".immured-0123456789abcdef")


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        _packet(ChangesWord.DONE)[:-1],
        _packet(ChangesWord.DONE, off=1),
        _packet(99),
        _packet(0),
        _packet(ChangesWord.ROWS, b"x"),
        _packet(ChangesWord.ROWS, _row()[:-1]),
        _packet(ChangesWord.ROWS, _row(kind=0)),
        _packet(ChangesWord.ROWS, _row(kind=77)),
        _packet(ChangesWord.ROWS, _row(trouble=77)),
        _packet(ChangesWord.ROWS, _row(more=8)),
        _packet(ChangesWord.ROWS, _row(more=-16)),
        _packet(ChangesWord.ROWS, _row(lengths=(1, 0, 0, 9))),
        _packet(ChangesWord.ROWS, _row(lengths=(1 << 31, 1 << 31, 0, 0))),
        _packet(ChangesWord.ROWS, struct.pack("=I", 0) + _row()[4:]),
        _packet(ChangesWord.REFUSED, b"why", code=1, size=4),
        _packet(ChangesWord.REFUSED, b"why", code=0, size=3),
        _packet(ChangesWord.REFUSED, b"why", code=99, size=3),
        _packet(ChangesWord.BEGUN),
        _packet(ChangesWord.BEGUN, bytes(81)),
    ],
)
def test_what_is_no_answer_is_none(packet: bytes) -> None:
    with pytest.raises(WordsError):
        parse_changes_answer(packet)


@given(st.sampled_from(list(ChangesWord)), st.binary(max_size=400), st.integers(0, 40), st.integers(0, 400))
def test_any_bytes_are_an_answer_or_none(word: ChangesWord, body: bytes, code: int, size: int) -> None:
    try:
        parse_changes_answer(_packet(word, body, code=code, size=size))
    except WordsError:
        return


def test_more_than_a_question_holds_is_not_sent() -> None:
    with pytest.raises(ValueError, match="more paths"):
        pack_question(ChangesVerb.LIST, b"/x", paths=[b"y" * 4000] * 2000)
