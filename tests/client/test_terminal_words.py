"""What a person's keys ask of the client itself, and which modes of the terminal a program leaves behind."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as some

from immured.client.terminal_words import Keys, Modes, Wish


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[low:high] for low, high in pairwise(edges)]


@pytest.mark.parametrize(
    ("typed", "heard"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"~.", [Wish.LEAVE]),
        (b"ls\r~.", [b"ls\r", Wish.LEAVE]),
        (b"ls ~.", [b"ls ~."]),
        (b"~~.", [b"~."]),
        (b"~a", [b"~a"]),
        (b"~\x1a", [Wish.SUSPEND]),
        (b"~?~?x", [Wish.HELP, Wish.HELP, b"x"]),
        (b"~~\r~.", [b"~\r", Wish.LEAVE]),
        (b"x\n~.y", [b"x\n", Wish.LEAVE, b"y"]),
    ],
)
def test_an_escape_at_the_start_of_a_line_is_the_client_s(typed: bytes, heard: list[bytes | Wish]) -> None:
    assert Keys().feed(typed) == heard


def test_an_escape_waits_for_its_second_key() -> None:
    keys = Keys()
    assert (keys.feed(b"~"), keys.feed(b".")) == ([], [Wish.LEAVE])


def test_without_an_escape_every_key_is_the_program_s() -> None:
    assert Keys(b"").feed(b"~.~\x1a") == [b"~.~\x1a"]


@given(some.text("~.\r\nab?\x1a").map(str.encode), some.lists(some.integers(0, 99)))
def test_how_keys_are_cut_makes_no_difference(typed: bytes, places: list[int]) -> None:
    def heard(pieces: list[bytes]) -> list[bytes | Wish]:
        keys, joined = Keys(), list[bytes | Wish]()
        for piece in pieces:
            for one in keys.feed(piece):
                if joined and isinstance(one, bytes) and isinstance(last := joined[-1], bytes):
                    joined[-1] = last + one
                else:
                    joined.append(one)
        return joined

    assert heard(cut(typed, places)) == heard([typed])


VIM = b"\x1b[?1049h\x1b[22;0;0t\x1b[>4;2m\x1b[?1h\x1b=\x1b[?2004h\x1b[1;24r\x1b[?12h\x1b[?25l\x1b[31mtext"
VIM_LEFT = b"\x1b[m\x1b[r\x1b[?2004l\x1b[>4;m\x1b[?1l\x1b>\x1b[?25h\x1b[?1049l"


@pytest.mark.parametrize(
    ("written", "undone"),
    [
        (b"plain \x1b[1mbold\x1b[0m\r\n", b""),
        (b"\x1b[?25l", b"\x1b[?25h"),
        (b"\x1b[?1049h\x1b[?1000;1006h", b"\x1b[?1006l\x1b[?1000l\x1b[?1049l"),
        (b"\x1b[?1049h\x1b[?1049l", b""),
        (b"\x1b[32mgreen", b"\x1b[m"),
        (b"\x1b[?1049h\x1bc", b""),
        (b"\x1b[?7l\x1b[?12h", b""),
        (VIM, b"\x1b7\x1b[r\x1b8\x1b[?2004l\x1b[?1l\x1b[?1049l\x1b>\x1b[>4m\x1b[?25h\x1b[m"),
        (VIM + VIM_LEFT, b""),
    ],
)
def test_what_a_program_leaves_behind_is_taken_back(written: bytes, undone: bytes) -> None:
    modes = Modes()
    modes.feed(written)
    assert modes.undo() == undone


@given(some.lists(some.integers(0, 999)))
def test_how_output_is_cut_makes_no_difference(places: list[int]) -> None:
    whole, pieces = Modes(), Modes()
    whole.feed(VIM)
    for piece in cut(VIM, places):
        pieces.feed(piece)
    assert pieces.undo() == whole.undo()


@given(some.binary())
def test_any_output_at_all_can_be_looked_at(written: bytes) -> None:
    modes = Modes()
    modes.feed(b"\x1b" + written)
    modes.undo()
