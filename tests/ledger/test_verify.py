"""Every way to alter a ledger is found, and the first bad line is named; what only a checkpoint can find is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from immured.ledger.checkpoint import Checkpoint, VerifierKey, file_name
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.reader import Problem, scan
from immured.ledger.timestamps import timestamp
from immured.ledger.verify import Report, verify_file
from tests.ledger.memory import Bytes
from tests.ledger.sample import ACTOR, START_NS, head, lines, signer, text

LINES = lines(5)
WHOLE = text(LINES)
HEADS = {size: head(LINES, size) for size in (1, 5)}
OTHER = build_line(9, timestamp(START_NS), encode_body("run.accepted", ACTOR, {}), leaf_hash(LINES[4]).hex())
STARTS = [len(text(LINES[:n])) for n in range(6)]


def look(content: bytes, heads: dict[int, Checkpoint] | None = None) -> Problem | None:
    return scan(Bytes(content), len(content), HEADS if heads is None else heads).problem


def line_of(position: int) -> int:
    """The number, from 1, of the line that this byte belongs to."""
    return next(n for n in range(1, 6) if position < STARTS[n])


def rechained(made: list[bytes], at: int, changed: bytes) -> list[bytes]:
    """A forger's work: line `at` replaced and everything after it linked anew."""
    forged = [*made[:at], changed]
    for seq in range(at + 1, len(made)):
        body = encode_body("run.finished", ACTOR, {"forged": seq})
        forged.append(build_line(seq, timestamp(START_NS), body, leaf_hash(forged[-1]).hex()))
    return forged


def test_a_whole_ledger_has_no_problem() -> None:
    assert look(WHOLE) is None


def test_every_flipped_bit_is_found_and_its_line_named() -> None:
    for position in range(len(WHOLE)):
        for bit in range(8):
            flipped = bytearray(WHOLE)
            flipped[position] ^= 1 << bit
            problem = look(bytes(flipped))
            assert problem is not None, f"byte {position}, bit {bit}"
            assert problem.line == line_of(position), f"byte {position}, bit {bit}: {problem}"


def test_without_checkpoints_only_a_flip_in_the_last_line_goes_unnoticed() -> None:
    for position in range(len(WHOLE)):
        flipped = bytearray(WHOLE)
        flipped[position] ^= 1
        if look(bytes(flipped), {}) is None:
            assert line_of(position) == 5


def test_every_truncation_is_found() -> None:
    for length in range(len(WHOLE)):
        problem = look(WHOLE[:length])
        assert problem is not None
        assert problem.line == (1 if length == 0 else line_of(length))


def test_only_a_checkpoint_shows_that_lines_at_the_end_are_missing() -> None:
    assert look(text(LINES[:3]), {}) is None
    problem = look(text(LINES[:3]))
    assert problem is not None
    assert (problem.code, problem.line) == ("missing_lines", 4)


@pytest.mark.parametrize("gone", range(4))
def test_a_line_taken_out_is_found(gone: int) -> None:
    problem = look(text(LINES[:gone] + LINES[gone + 1 :]), {})
    assert problem is not None
    assert (problem.code, problem.line) == ("bad_seq", gone + 1)


@pytest.mark.parametrize("twice", range(5))
def test_a_line_put_in_twice_is_found(twice: int) -> None:
    problem = look(text(LINES[: twice + 1] + LINES[twice:]))
    assert problem is not None
    assert problem.line == twice + 2


@pytest.mark.parametrize(("one", "other"), [(a, b) for a in range(5) for b in range(a + 1, 5)])
def test_two_lines_that_changed_places_are_found(one: int, other: int) -> None:
    swapped = LINES.copy()
    swapped[one], swapped[other] = swapped[other], swapped[one]
    problem = look(text(swapped))
    assert problem is not None
    assert problem.line == one + 1


@pytest.mark.parametrize("at", range(6))
@pytest.mark.parametrize("what", [b"", b"{}", b"\x00" * 40, b"null", OTHER])
def test_a_line_put_in_is_found(at: int, what: bytes) -> None:
    problem = look(text([*LINES[:at], what, *LINES[at:]]))
    assert problem is not None
    assert problem.line == at + 1


@given(st.integers(0, len(WHOLE)), st.binary(min_size=1, max_size=40))
def test_bytes_put_in_anywhere_are_found(position: int, extra: bytes) -> None:
    assert look(WHOLE[:position] + extra + WHOLE[position:]) is not None


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 400))
def test_bytes_taken_out_anywhere_are_found(position: int, count: int) -> None:
    assert look(WHOLE[:position] + WHOLE[position + count :]) is not None


@pytest.mark.parametrize("at", range(1, 5))
def test_only_a_checkpoint_shows_a_history_that_was_written_anew(at: int) -> None:
    body = encode_body("run.accepted", ACTOR, {"sandbox": "never"})
    forged = rechained(LINES, at, build_line(at, timestamp(START_NS), body, leaf_hash(LINES[at - 1]).hex()))
    assert look(text(forged), {}) is None
    problem = look(text(forged))
    assert problem is not None
    assert problem.code == "not_as_signed"


def test_lines_after_a_checkpoint_that_disagrees_put_the_blame_after_the_last_that_agreed() -> None:
    body = encode_body("run.accepted", ACTOR, {"sandbox": "never"})
    forged = rechained(LINES, 2, build_line(2, timestamp(START_NS), body, leaf_hash(LINES[1]).hex()))
    problem = look(text(forged), {1: head(LINES, 1), 2: head(LINES, 2), 4: head(LINES, 4)})
    assert problem is not None
    assert (problem.line, problem.offset) == (3, STARTS[2])


def test_another_ledgers_checkpoint_is_named_as_such() -> None:
    problem = look(WHOLE, {5: Checkpoint("immured/" + "0" * 32, 5, HEADS[5].root)})
    assert problem is not None
    assert problem.code == "other_ledger"


def test_a_file_that_never_ends_its_line_is_read_no_further() -> None:
    class Endless:
        asked = 0

        def read(self, offset: int, length: int) -> bytes:
            self.asked += length
            return b"x" * length

    endless = Endless()
    problem = scan(endless, 1 << 40, {}).problem
    assert problem is not None
    assert problem.code == "line_too_long"
    assert endless.asked <= 2 << 20


def test_good_lines_end_where_the_problem_begins() -> None:
    flipped = bytearray(WHOLE)
    flipped[STARTS[2] + 200] ^= 1
    found = scan(Bytes(bytes(flipped)), len(flipped), HEADS)
    assert found.problem is not None
    assert (found.end, found.problem.offset, found.problem.seq) == (STARTS[2], STARTS[2], 2)


# --- the files ---


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "current.jsonl").write_bytes(WHOLE)
    for size, one in HEADS.items():
        (tmp_path / "checkpoints" / file_name(size)).write_bytes(signer(one.origin).sign(one))
    return tmp_path


KEYS: tuple[VerifierKey, ...] = (signer(HEADS[1].origin).verifier,)


def verify(ledger: Path) -> Report:
    return verify_file(ledger / "current.jsonl", ledger / "checkpoints", KEYS, pause=lambda _: None)


def test_a_whole_ledger_is_reported_as_such(ledger: Path) -> None:
    report = verify(ledger)
    assert report.whole
    assert (report.entries, report.bytes, report.covered, report.checkpoints) == (5, len(WHOLE), 5, 2)
    assert (report.origin, report.root) == (HEADS[5].origin, HEADS[5].root.hex())


def test_one_flipped_byte_is_found_and_its_line_named(ledger: Path) -> None:
    flipped = bytearray(WHOLE)
    flipped[STARTS[3] + 150] ^= 0x01
    (ledger / "current.jsonl").write_bytes(flipped)
    report = verify(ledger)
    assert not report.whole
    assert report.problem is not None
    assert report.problem.line == 4
    assert report.as_dict()["problem"] == {
        "line": 4,
        "seq": 3,
        "offset": STARTS[3],
        "code": report.problem.code,
        "message": report.problem.message,
        "expected": report.problem.expected,
    }


def test_a_flipped_checkpoint_is_named(ledger: Path) -> None:
    path = ledger / "checkpoints" / file_name(1)
    path.write_bytes(path.read_bytes().replace(b"immured/", b"immurec/"))
    report = verify(ledger)
    assert not report.whole
    assert [bad.file for bad in report.bad_checkpoints] == [file_name(1)]


def test_a_checkpoint_under_another_size_is_named(ledger: Path) -> None:
    (ledger / "checkpoints" / file_name(1)).rename(ledger / "checkpoints" / file_name(2))
    assert [bad.file for bad in verify(ledger).bad_checkpoints] == [file_name(2)]


def test_entries_after_the_newest_checkpoint_are_counted_as_unsigned(ledger: Path) -> None:
    (ledger / "checkpoints" / file_name(5)).unlink()
    report = verify(ledger)
    assert report.whole
    assert (report.entries, report.covered) == (5, 1)


def test_a_chain_can_be_verified_without_keys(ledger: Path) -> None:
    report = verify_file(ledger / "current.jsonl")
    assert report.whole
    assert report.covered == 0


def test_a_line_that_is_being_written_is_waited_for(ledger: Path) -> None:
    path = ledger / "current.jsonl"
    path.write_bytes(WHOLE[:-100])
    report = verify_file(path, ledger / "checkpoints", KEYS, pause=lambda _: (path.write_bytes(WHOLE), None)[1])
    assert report.whole


def test_a_last_line_that_stays_torn_is_a_problem(ledger: Path) -> None:
    (ledger / "current.jsonl").write_bytes(WHOLE[:-1])
    report = verify(ledger)
    assert report.problem is not None
    assert (report.problem.code, report.problem.line) == ("torn_line", 5)


def test_an_empty_file_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "current.jsonl").write_bytes(b"")
    report = verify_file(tmp_path / "current.jsonl")
    assert report.problem is not None
    assert (report.problem.code, report.problem.line) == ("empty", 1)


def test_a_first_line_that_begins_no_ledger_is_a_problem() -> None:
    problem = look(build_line(0, timestamp(0), encode_body("run.accepted", {}, {}), "0" * 64) + b"\n", {})
    assert problem is not None
    assert problem.code == "bad_first_line"
