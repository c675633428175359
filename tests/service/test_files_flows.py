"""What flows is given up when it stands still, and not before."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from immured.errors import Refused
from immured.service import files_flows
from immured.service.files_arguments import MOST, FileArguments


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_flows, "_LOOK_S", 0.02)
    monkeypatch.setattr(files_flows, "_IDLE_S", 0.1)


def test_what_stands_still_is_given_up() -> None:
    async def work() -> None:
        with pytest.raises(Refused) as refused:
            await files_flows._until(asyncio.Event(), lambda: 5, "nothing came")
        assert refused.value.code == "stuck"

    asyncio.run(work())


def test_what_grows_is_waited_for() -> None:
    async def work() -> None:
        over, seen = asyncio.Event(), 0

        def grow() -> int:
            nonlocal seen
            seen += 1
            if seen == 30:
                over.set()
            return seen

        await files_flows._until(over, grow, "nothing came")
        assert seen == 30

    asyncio.run(work())


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"path": "x"}, "bad_path"), ({"path": ""}, "bad_path"), ({"path": b"/\0"}, "bad_path"),
        ({"path": "/" + "x" * 4095}, "bad_path"), ({"path": "/a/../b"}, "path_escapes"),
        ({"path": b"/.."}, "path_escapes"), ({"path": 1}, "bad_argument"), ({"path": ["/"]}, "bad_argument"),
        ({}, "bad_argument"), ({"path": "/x", "more": 1}, "unknown_field"), ({"path": "/\ud800"}, "bad_argument"),
    ],
)  # fmt: skip
def test_paths_that_are_refused_before_anything_is_asked(args: dict[str, object], code: str) -> None:
    with pytest.raises(Refused) as refused:
        FileArguments({"sandbox": "s", **args}, ())
    assert refused.value.code == code


@pytest.mark.parametrize("path", ["/", "//", "/..x", "/x..", "/...", "/a/./b", "/ ", "/\n", b"/\xff"])
def test_paths_that_are_taken_as_they_are(path: str | bytes) -> None:
    taken = FileArguments({"sandbox": "s", "path": path}, ()).path
    assert taken == (path.encode() if isinstance(path, str) else path)


def test_modes_and_bounds() -> None:
    arguments = FileArguments({"sandbox": "s", "path": "/", "mode": 0o4755, "most": 5}, ("mode", "most"))
    with pytest.raises(Refused) as refused:
        arguments.mode(0o777)
    assert refused.value.code == "setid_refused"
    assert arguments.most() == 5
    assert FileArguments({"sandbox": "s", "path": "/"}, ()).most() == MOST


def test_words_are_as_the_header_has_them() -> None:
    """What is packed by hand has the size that the C compiler gives it."""
    from immured._abi import ffi
    from immured.isolation import files_words

    for name, layout in (
        ("ask", files_words._ASK), ("answer", files_words._ANSWER), ("row", files_words._ROW),
    ):  # fmt: skip
        assert ffi.sizeof(f"struct imd_files_{name}") == layout.size
    assert ffi.sizeof("struct imd_header") == files_words._HEADER.size
    header = Path(__file__).parents[2] / "native/launcher/clerk_files_words.h"
    for enum in (files_words.FilesOp, files_words.FilesFlag, files_words.FilesRefusal):
        assert all(f"IMD_FILES_{name}" in header.read_text() for name in enum.__members__)


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_clerk_that_lies_is_not_believed(cut: int) -> None:
    from immured.isolation.files_words import _ANSWER, _HEADER, _ROW, FilesOp, WordsError, parse_files_answer

    body = _ROW.pack(1, 2, 3, 0o100644, 1, 1, 1, 3, 0, 0) + b"abc"
    packet = _HEADER.pack(FilesOp.STAT, _HEADER.size + _ANSWER.size + len(body), 0)
    packet += _ANSWER.pack(0, 0, 0, 1, 0, 0, 0, 0) + body
    assert parse_files_answer(FilesOp.STAT, packet).rows[0].name == b"abc"
    for wrong in (packet[:-cut], packet + bytes(cut), bytes([99]) + packet[1:]):
        with pytest.raises(WordsError):
            parse_files_answer(FilesOp.STAT, wrong)
    longer = _HEADER.pack(FilesOp.STAT, len(packet) + cut, 0) + packet[_HEADER.size :] + bytes(cut)
    with pytest.raises(WordsError):
        parse_files_answer(FilesOp.STAT, longer)
