"""Exhaustively, over a small ledger of three files: whatever is done to it is found, and the right line is named.

What only something kept elsewhere can find is in the table of docs/ledger.md, and tried here row by row.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from immured.ledger.checkpoint import Checkpoint, add_lines, file_name
from immured.ledger.entry import build_line, encode_body, leaf_hash
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.note_keys import Cosigner
from immured.ledger.reader import Problem
from immured.ledger.scan import swift
from immured.ledger.segments import Files
from immured.ledger.timestamps import timestamp
from immured.ledger.verify import Report, check, verify_file
from immured.ledger.verify_heads import Heads, Note
from tests.independent.verify_ledger import verify as written_from_the_page
from tests.ledger import sample
from tests.ledger.damaged import COUNTS, SIZES, Small
from tests.ledger.memory import Bytes
from tests.ledger.sample import ACTOR, KEY, START_NS, head, signer, text

TOTAL = sum(COUNTS)
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "ledger.md"


@pytest.fixture(params=[0, 1, 2], ids=["whole", "kept from 5", "kept from 9"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Small:
    return Small.write(tmp_path / "ledger", keep=request.param)


def look(small: Small, heads: Mapping[int, Checkpoint]) -> Problem | None:
    """What is wrong, with the file that it is in and the line there."""
    with Files.at(small.directory) as files:
        found = check(files, files.size(), heads)
        return files.placed(found.problem) if found.problem is not None else None


def named(problem: Problem | None, small: Small, seq: int) -> bool:
    """Whether this entry is named, by its index, its file and its line there."""
    return problem is not None and (problem.seq, (problem.file, problem.line)) == (seq, small.place(seq))


def bytes_of(small: Small) -> Iterator[tuple[Path, int, int]]:
    """Every byte of every file: the file, where in it, and the entry whose line (with its newline) it belongs to."""
    seq = small.first
    for name, lines in zip(small.names, small.files, strict=True):
        at = 0
        for line in lines:
            for position in range(at, at + len(line) + 1):
                yield small.directory / name, position, seq
            at += len(line) + 1
            seq += 1


def test_as_it_was_written_nothing_is_wrong(small: Small) -> None:
    assert look(small, small.heads()) is None
    assert look(small, {}) is None


@pytest.mark.slow
@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit(small: Small, bit: int) -> None:
    heads = small.heads()
    for path, position, seq in bytes_of(small):
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << bit
        path.write_bytes(content)
        problem = look(small, heads)
        assert named(problem, small, seq), f"{path.name}, byte {position}, of entry {seq}: {problem}"
        content[position] ^= 1 << bit
        path.write_bytes(content)


def test_the_verifier_that_was_written_from_the_page_names_the_same_lines() -> None:
    made = sample.lines(9)
    heads = {size: head(made, size) for size in (1, 4, 5, 7, 9)}
    plain = {size: (one.origin, one.root) for size, one in heads.items()}
    content = text(made)
    for position in range(len(content)):
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        ours = swift(Bytes(bytes(altered)), len(altered), heads).problem
        theirs = written_from_the_page(bytes(altered), plain)
        assert ours is not None
        assert theirs is not None
        assert ours.line == theirs[0], f"byte {position}: {ours}, {theirs}"


@pytest.mark.parametrize("bit", [0, 5])
def test_without_heads_every_flipped_bit_but_in_the_last_line(small: Small, bit: int) -> None:
    unseen = 0
    for path, position, seq in bytes_of(small):
        content = bytearray(path.read_bytes())
        content[position] ^= 1 << bit
        path.write_bytes(content)
        problem = look(small, {})
        if problem is None:
            assert seq == TOTAL - 1
            unseen += 1
        elif seq == TOTAL - 1 and problem.code == "missing_lines":
            assert small.first  # what explains that the oldest files are gone is no longer there to be read
        elif seq == small.first:
            assert (problem.file, problem.line) == small.place(seq)
        elif seq < TOTAL - 2:
            assert named(problem, small, seq), f"{path.name}, byte {position}, of entry {seq}: {problem}"
        else:
            assert problem.seq >= TOTAL - 2  # of the last two lines nothing says which of them was altered
        content[position] ^= 1 << bit
        path.write_bytes(content)
    assert unseen


def test_every_truncation_of_every_file(small: Small) -> None:
    heads = small.heads()
    for path, position, seq in bytes_of(small):
        content = path.read_bytes()
        path.write_bytes(content[:position])
        problem = look(small, heads)
        assert problem is not None
        if path.name == "current.jsonl" and seq == small.first:
            assert (problem.file, problem.line) == small.place(seq)  # what is left does not say which entry it was
        else:
            assert problem.seq == seq, f"{path.name}, cut at byte {position}: {problem}"
        if position and content[position - 1 : position] != b"\n":
            assert (problem.file, problem.line) == small.place(seq)
        path.write_bytes(content)


def test_every_two_lines_that_changed_places(small: Small) -> None:
    heads = small.heads()
    for one in range(small.first, TOTAL):
        for other in range(one + 1, TOTAL):
            lines = small.lines
            a, b = one - small.first, other - small.first
            lines[a], lines[b] = lines[b], lines[a]
            write(small, lines)
            assert named(look(small, heads), small, one), f"{one} and {other}"
            assert named(look(small, {}), small, one) or one == small.first > 0, f"{one} and {other}"


def test_every_line_that_is_gone(small: Small) -> None:
    for gone in range(small.first, TOTAL):
        for name, lines in zip(small.names, small.files, strict=True):
            kept = [line for line in lines if line is not small.lines[gone - small.first]]
            (small.directory / name).write_bytes(text(kept))
        problem = look(small, small.heads())
        assert problem is not None
        # A file that lost its last line: the next that there is stands in another file.
        assert problem.seq == gone, f"{gone}: {problem}"
        if small.first < gone < TOTAL - 1:
            problem = look(small, {})
            assert problem is not None
            assert problem.seq == gone
        small.restore()


def test_every_line_that_is_put_in(small: Small) -> None:
    heads = small.heads()
    others = [b"", b"{}", b"null", b"\x00" * 100, *small.lines, forged(TOTAL, small.lines[-1])]
    for name, lines in zip(small.names, small.files, strict=True):
        began = next(seq for seq in range(small.first, TOTAL) if small.place(seq) == (name, 1))
        for at in range(len(lines) + 1):
            for other in others:
                (small.directory / name).write_bytes(text([*lines[:at], other, *lines[at:]]))
                problem = look(small, heads)
                # A line before itself is the line, and then once more.
                at_end = began + at == TOTAL and other is others[-1]
                seq = began + at
                seq += seq < TOTAL and other == small.lines[seq - small.first]
                if at_end:
                    assert problem is None  # it goes on from the last: another entry, which no head covers
                else:
                    assert problem is not None, f"{other[:60]!r} before entry {began + at}"
                    assert problem.seq == seq, f"{other[:60]!r} before entry {began + at}: {problem}"
        small.restore()


def test_every_file_that_is_gone(small: Small) -> None:
    for number, name in enumerate(small.names[:-1]):
        path = small.directory / name
        content = path.read_bytes()
        path.unlink()
        for heads in (small.heads(), {}):
            problem = look(small, heads)
            assert problem is not None, name
            gone = small.first + sum(len(lines) for lines in small.files[:number])
            if number == 0:
                follows = small.first + len(small.files[0])
                assert (problem.code, problem.seq, problem.file) == ("missing_lines", follows, small.names[1])
            else:
                assert problem.seq == gone
        path.write_bytes(content)


@pytest.mark.parametrize("name", [file_name(size) for size in SIZES])
def test_every_flipped_bit_of_every_head(name: str, tmp_path: Path) -> None:
    small = Small.write(tmp_path / "ledger")
    keys = KeyHistory((signer(head(small.lines, 1).origin).verifier,))
    content = (small.directory / "checkpoints" / name).read_bytes()
    for position in range(len(content)):
        for bit in range(8):
            flipped = bytearray(content)
            flipped[position] ^= 1 << bit
            heads = Heads.read([Note(name, bytes(flipped), name)], keys, ())
            assert [bad.file for bad in heads.bad] == [name], f"byte {position}, bit {bit}"
            assert not heads.by_size
    assert Heads.read([Note(name, content, name)], keys, ()).bad == ()


def test_heads_that_changed_places(small: Small) -> None:
    one, other = (small.directory / "checkpoints" / file_name(size) for size in SIZES[-2:])
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert [bad.file for bad in verified(small.directory).bad_checkpoints] == [one.name, other.name]


def test_the_head_under_which_a_kept_part_begins_has_to_be_there(small: Small) -> None:
    if small.first:
        (small.directory / "checkpoints" / file_name(small.first)).unlink()
        problem = verified(small.directory).problem
        assert problem is not None
        assert (problem.code, problem.seq) == ("anchor_missing", small.first)


def write(small: Small, lines: list[bytes]) -> None:
    """These lines, as many in each file as there were."""
    at = 0
    for name, part in zip(small.names, small.files, strict=True):
        (small.directory / name).write_bytes(text(lines[at : at + len(part)]))
        at += len(part)


def forged(seq: int, before: bytes) -> bytes:
    body = encode_body("run.accepted", ACTOR, {"sandbox": "never"})
    return build_line(seq, timestamp(START_NS + seq), body, leaf_hash(before).hex())


def verified(directory: Path, **more: object) -> Report:
    key = signer(head(Small.write(directory.parent / "again").lines, 1).origin).verifier
    shutil.rmtree(directory.parent / "again")
    settings: dict[str, object] = {"pause": lambda _: None, "threads": 1, **more}
    return verify_file(directory, directory / "checkpoints", (key,), **settings)  # type: ignore[arg-type]


# --- docs/ledger.md's table: what is found by the chain alone, by the ledger's own heads, by what is kept elsewhere


@dataclass
class Copy:
    """A ledger that somebody alters who may write all files; `has_key`: he has ledger.pem, too."""

    small: Small
    unsigned: int = 0
    """Lines at the end that no head covers yet."""

    @property
    def folder(self) -> Path:
        return self.small.directory / "checkpoints"

    def cut(self, lines: int) -> None:
        """Take lines off the end."""
        path = self.small.directory / self.small.names[-1]
        path.write_bytes(text(path.read_bytes().splitlines()[:-lines]))

    def rewrite(self, at: int) -> None:
        """Write line `at`, and all after it, anew, each linked to the one before."""
        made = self.small.lines[:at]
        while len(made) < TOTAL + self.unsigned:
            made.append(forged(len(made), made[-1]))
        lines = [*made[: sum(COUNTS[:-1])]]
        write(self.small, lines)
        (self.small.directory / self.small.names[-1]).write_bytes(text(made[len(lines) :]))

    def drop_heads(self, beyond: int) -> None:
        for size in SIZES:
            if size > beyond:
                (self.folder / file_name(size)).unlink()

    def sign(self, size: int) -> None:
        """Sign as the ledger does, with its key."""
        made = [line for name in self.small.names for line in (self.small.directory / name).read_bytes().splitlines()]
        one = head(made, size)
        (self.folder / file_name(size)).write_bytes(signer(one.origin).sign(one))


def _alter_last(copy: Copy) -> None:
    path = copy.small.directory / copy.small.names[-1]
    path.write_bytes(path.read_bytes().replace(b'"n":11', b'"n":10'))


def _rewritten(copy: Copy) -> None:
    copy.rewrite(10)


def _rewritten_without_heads(copy: Copy) -> None:
    copy.rewrite(10)
    copy.drop_heads(10)


def _rewritten_and_signed(copy: Copy) -> None:
    copy.rewrite(10)
    copy.sign(TOTAL)


def _cut_without_heads(copy: Copy) -> None:
    copy.cut(2)
    copy.drop_heads(10)


def _add_unsigned(copy: Copy) -> None:
    path = copy.small.directory / copy.small.names[-1]
    path.write_bytes(path.read_bytes() + forged(TOTAL, copy.small.lines[-1]) + b"\n")


def _flip_inside(copy: Copy) -> None:
    path = copy.small.directory / copy.small.names[0]
    path.write_bytes(path.read_bytes().replace(b'"n":2', b'"n":3'))


def _remove_inside(copy: Copy) -> None:
    path = copy.small.directory / copy.small.names[0]
    path.write_bytes(text(path.read_bytes().splitlines()[:2] + path.read_bytes().splitlines()[3:]))


def _oldest_gone(copy: Copy) -> None:
    (copy.small.directory / copy.small.names[0]).unlink()


def _heads_gone(copy: Copy) -> None:
    copy.drop_heads(0)


ROWS: dict[str, Callable[[Copy], None]] = {
    "a bit flipped, bytes cut out or put in, before the last line": _flip_inside,
    "lines taken out, put in, doubled or exchanged": _remove_inside,
    "the oldest files removed, and nothing retired": _oldest_gone,
    "the last line altered": _alter_last,
    "lines cut off at the end": lambda copy: copy.cut(2),
    "all from some line on written anew": _rewritten,
    "lines cut off at the end, and the checkpoints of them": _cut_without_heads,
    "all from some line on written anew, and the checkpoints of it removed": _rewritten_without_heads,
    "all from some line on written anew, and signed anew with the ledger's key": _rewritten_and_signed,
    "all checkpoints removed": _heads_gone,
    "a line added, or the last one altered or cut off, beyond every checkpoint that anybody has": _add_unsigned,
}
COLUMNS = ("chain", "checkpoints", "kept elsewhere")


def documented() -> dict[str, tuple[str, ...]]:
    """The table of docs/ledger.md: what was done, and by which column it is found."""
    rows = re.findall(r"^\| ([^|]+) \| (found|-) \| (found|-) \| (found|-) \|$", DOCUMENT.read_text(), re.MULTILINE)
    return {what: tuple(found) for what, *found in rows}


def test_the_table_has_the_rows_that_are_tried() -> None:
    assert list(documented()) == list(ROWS)


@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("row", ROWS)
def test_the_table_says_what_is_found_by_what(row: str, column: str, tmp_path: Path) -> None:
    small = Small.write(tmp_path / "ledger")
    anchor = tmp_path / "kept"
    anchor.write_bytes((small.directory / "checkpoints" / file_name(TOTAL)).read_bytes())
    ROWS[row](Copy(small))
    if column == "chain":
        report = verify_file(small.directory, pause=lambda _: None)
    elif column == "checkpoints":
        report = verified(small.directory)
    else:
        report = verified(small.directory, anchors=[anchor])
    assert report.whole is (documented()[row][COLUMNS.index(column)] == "-"), report


WITNESS = Cosigner(KEY, "witness.example/w1")


@pytest.mark.parametrize("row", ROWS)
def test_a_cosigned_checkpoint_is_an_anchor(row: str, tmp_path: Path) -> None:
    """What the witness kept, as somebody fetched it from there."""
    small = Small.write(tmp_path / "ledger")
    note = (small.directory / "checkpoints" / file_name(TOTAL)).read_bytes()
    anchor = tmp_path / "kept"
    anchor.write_bytes(add_lines(note, [WITNESS.line(head(small.lines, TOTAL).text(), 1_800_000_000)]))
    ROWS[row](Copy(small))
    report = verified(small.directory, anchors=[anchor], witnesses=(WITNESS.verifier,), require=1)
    assert report.whole is (documented()[row][2] == "-")
    if report.whole:
        assert [(one.size, one.time_s) for one in report.seen] == [(TOTAL, 1_800_000_000)]
        assert report.witnessed == TOTAL


def test_a_ledger_that_no_witness_saw_is_not_whole_where_one_is_required(tmp_path: Path) -> None:
    small = Small.write(tmp_path / "ledger")
    report = verified(small.directory, witnesses=(WITNESS.verifier,), require=1)
    assert not report.whole
    assert report.unwitnessed
    assert verified(small.directory, witnesses=(WITNESS.verifier,), require=0).whole
