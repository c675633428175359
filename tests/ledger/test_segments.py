"""Many files, one stream: offsets that never change, whatever is sealed, retired or copied while somebody reads."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.ledger.checkpoint import Checkpoint
from immured.ledger.reader import MAX_BATCH, Problem, Scan, Standing, begin, scan
from immured.ledger.segments import Files, segment_name, segment_names
from tests.descriptors import descriptors
from tests.ledger.sample import head, laid_out, lines, rotated_at, rotated_lines, text

FILES = rotated_lines(7, 5, 6)
MADE = [line for made in FILES for line in made]
WHOLE = text(MADE)
SEAMS = [0, 7, 12]
STARTS = [len(text(MADE[:seam])) for seam in SEAMS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return laid_out(tmp_path / "ledger", FILES)


def heads(*sizes: int) -> dict[int, Checkpoint]:
    return {size: head(MADE, size) for size in sizes}


def scanned(path: Path, known: dict[int, Checkpoint] | None = None) -> Scan | Problem:
    with Files.at(path) as files:
        begun = begin(files, files.start, known or {})
        if isinstance(begun, Problem):
            return files.placed(begun)
        found = scan(files, files.size(), known or {}, None, begun)
        if found.problem is not None:
            return files.placed(found.problem)
        return found


# --- the stream


def test_the_files_are_one_stream(folder: Path) -> None:
    with Files.open(folder) as files:
        assert (files.start, files.first, files.size()) == (0, 0, len(WHOLE))
        assert [(part.first, part.offset) for part in files.parts] == list(zip(SEAMS, STARTS, strict=True))
        for offset in range(0, len(WHOLE) + 40, 37):
            for length in (0, 1, 36, 700, 5_000, len(WHOLE)):
                assert files.read(offset, length) == WHOLE[offset : offset + length]


def test_a_byte_has_a_file(folder: Path) -> None:
    with Files.open(folder) as files:
        assert files.locate(STARTS[1] - 1) == (segment_name(0), STARTS[1] - 1)
        assert files.locate(STARTS[1]) == (segment_name(7), 0)
        assert files.locate(STARTS[2] + 3) == ("current.jsonl", 3)
        assert files.locate(len(WHOLE) + 9) == ("current.jsonl", len(WHOLE) + 9 - STARTS[2])


def test_an_entry_has_a_file_to_look_in(folder: Path) -> None:
    with Files.open(folder) as files:
        assert [files.before(seq).first for seq in (0, 6, 7, 11, 12, 99)] == [0, 0, 7, 7, 12, 12]


@pytest.mark.parametrize("kept", [1, 2])
def test_what_was_retired_takes_no_offset_with_it(tmp_path: Path, kept: int) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[kept:], SEAMS[kept])
    with Files.open(folder) as files:
        assert (files.start, files.first, files.size()) == (STARTS[kept], SEAMS[kept], len(WHOLE))
        assert files.read(files.start, 1 << 20) == WHOLE[STARTS[kept] :]
        with pytest.raises(OSError, match="kept from byte"):
            files.read(files.start - 1, 1)


def test_a_copy_is_the_same_stream(tmp_path: Path) -> None:
    (tmp_path / "current.jsonl").write_bytes(WHOLE)
    with Files.open(tmp_path) as files:
        assert (files.start, files.first, files.size(), files.read(0, len(WHOLE))) == (0, 0, len(WHOLE), WHOLE)


def test_one_segment_by_itself_knows_where_it_stood(folder: Path) -> None:
    with Files.at(folder / segment_name(7)) as files:
        assert (files.start, files.first, files.size()) == (STARTS[1], 7, STARTS[2])
        assert files.locate(STARTS[1]) == (segment_name(7), 0)
        assert not files.refresh()


def test_by_descriptor_too(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with Files.open(fd) as files:
            assert files.read(0, len(WHOLE)) == WHOLE
        os.fstat(fd)  # it is still the caller's
    finally:
        os.close(fd)


def test_without_a_ledger(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"current\.jsonl"):
        Files.open(tmp_path)


def test_segments_without_what_is_written_now_are_no_ledger(folder: Path) -> None:
    (folder / "current.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"current\.jsonl"):
        Files.open(folder)


def test_no_descriptor_is_left(folder: Path) -> None:
    before = descriptors()
    with Files.open(folder) as files:
        files.read(0, len(WHOLE))
        files.refresh()
    (folder / "current.jsonl").unlink()
    with pytest.raises(FileNotFoundError):
        Files.open(folder)
    assert descriptors() - before == set()


def test_of_many_segments_few_are_held_open(tmp_path: Path) -> None:
    made = rotated_lines(*[2] * 30)
    folder = laid_out(tmp_path / "ledger", made)
    whole = text([line for each in made for line in each])
    before = descriptors()
    with Files.open(folder) as files:
        assert files.read(0, len(whole)) == whole
        assert len(descriptors() - before) < 12
        assert b"".join(files.read(at, 1) for at in range(len(whole) - 1, -1, -97)) == whole[::-97]


@pytest.mark.parametrize("name", ["current.jsonl", segment_name(0)])
def test_nothing_but_files_is_read(folder: Path, name: str) -> None:
    (folder / name).rename(folder / "elsewhere")
    (folder / name).symlink_to(folder / "elsewhere")
    with pytest.raises(OSError, match="levels of symbolic links"):
        Files.open(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(OSError, match="not a regular file") as caught:
        Files.open(folder)
    assert caught.value.errno == errno.EINVAL


def test_what_is_no_segment_is_passed_over(folder: Path) -> None:
    for name in ("x.jsonl", "00000000000000000003.jsonl.tmp", "3.jsonl"):
        (folder / name).write_text("x")
    with Files.open(folder) as files:
        assert files.size() == len(WHOLE)


# --- while it is rotated


def test_a_reader_goes_on_through_a_rotation(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[:1])
    with Files.open(folder) as files:
        read = files.read(0, MAX_BATCH)
        (folder / "next.jsonl").write_bytes(text(FILES[1]))
        assert not files.refresh()
        (folder / "current.jsonl").rename(folder / segment_name(0))
        assert files.read(len(read), MAX_BATCH) == b""  # the file that it knew has ended
        assert files.refresh()
        read += files.read(len(read), MAX_BATCH)
        assert read == text(FILES[0] + FILES[1])
        assert [part.name for part in files.parts] == [segment_name(0), "next.jsonl"]
        (folder / "next.jsonl").rename(folder / "current.jsonl")
        assert files.refresh()
        assert [part.name for part in files.parts] == [segment_name(0), "current.jsonl"]
        assert files.read(0, MAX_BATCH) == read
        assert not files.refresh()


class Between(Files):
    """Something happens between two steps of a look: after a file was missed, or after all were found."""

    then: Callable[[], object] | None = None

    def _opened(self, name: str) -> int:
        try:
            return super()._opened(name)
        except FileNotFoundError:
            self._now()
            raise

    def _settled(self) -> tuple[int, str, list[str]]:
        found = super()._settled()
        self._now()
        return found

    def _now(self) -> None:
        then, self.then = self.then, None
        if then is not None:
            then()


def test_a_rotation_ends_just_after_the_file_was_missed(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[:1])
    files = Between(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), str(folder))
    with files:
        (folder / "next.jsonl").write_bytes(text(FILES[1]))
        (folder / "current.jsonl").rename(folder / segment_name(0))
        files.then = lambda: (folder / "next.jsonl").rename(folder / "current.jsonl")
        assert files.refresh()
        assert files.read(0, MAX_BATCH) == text(FILES[0] + FILES[1])


def test_a_segment_is_retired_just_after_it_was_found(folder: Path) -> None:
    files = Between(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), str(folder))
    with files:
        shutil.copy(folder / "current.jsonl", folder / "other")
        (folder / "other").rename(folder / "current.jsonl")  # so that there is something to look for
        files.then = (folder / segment_name(0)).unlink
        assert files.refresh()
        assert files.start == STARTS[1]


def test_what_grows_needs_no_second_look(folder: Path) -> None:
    with Files.open(folder) as files, (folder / "current.jsonl").open("ab") as file:
        file.write(b"more\n")
        file.flush()
        assert files.size() == len(WHOLE) + 5
        assert files.read(len(WHOLE), 100) == b"more\n"


def test_a_next_file_that_is_not_needed_is_passed_over(folder: Path) -> None:
    (folder / "next.jsonl").write_bytes(text([rotated_at(MADE, 12)]))
    with Files.open(folder) as files:
        assert files.size() == len(WHOLE)


@pytest.mark.parametrize("content", [b"", b"x", text(FILES[0]), text(FILES[1])])
def test_a_next_file_that_does_not_go_on_takes_nothing_s_place(folder: Path, content: bytes) -> None:
    (folder / "current.jsonl").unlink()
    (folder / "next.jsonl").write_bytes(content)
    with pytest.raises(FileNotFoundError, match=r"current\.jsonl"):
        Files.open(folder)


def test_a_copy_of_either_side_of_a_rotation_has_nothing_twice(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[:2])
    shutil.copy(folder / "current.jsonl", folder / segment_name(7))
    with (folder / segment_name(7)).open("ab") as file:
        file.write(b"what came in between\n")
    with Files.open(folder) as files:
        assert files.read(0, len(WHOLE)) == text(FILES[0] + FILES[1]) + b"what came in between\n"
        assert [part.name for part in files.parts] == [segment_name(0), segment_name(7)]


def test_a_damaged_first_line_hides_no_file(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[:2])
    log = bytearray((folder / "current.jsonl").read_bytes())
    log[0] ^= 1
    (folder / "current.jsonl").write_bytes(log)
    with Files.open(folder) as files:
        assert files.size() == len(text(FILES[0] + FILES[1]))
        assert [part.first for part in files.parts] == [0, 1]


def test_a_segment_that_is_gone_is_said_to_be(folder: Path) -> None:
    with Files.open(folder) as files:
        (folder / segment_name(0)).unlink()
        assert files.read(STARTS[1], 10) == WHOLE[STARTS[1] :][:10]
        with pytest.raises(FileNotFoundError, match=segment_name(0)):
            files.read(0, 10)
        assert files.refresh()
        assert files.first == 7


def test_the_names(folder: Path, tmp_path: Path) -> None:
    for path, names in ((folder, [segment_name(0), segment_name(7)]), (tmp_path, [])):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            assert segment_names(fd) == names
        finally:
            os.close(fd)


# --- verified as one


def test_the_chain_runs_through(folder: Path) -> None:
    found = scanned(folder, heads(3, 7, 12, 18))
    assert isinstance(found, Scan)
    assert (found.chain.size, found.covered, found.end) == (18, 18, len(WHOLE))


@pytest.mark.parametrize("kept", [1, 2])
def test_a_kept_part_is_whole_under_its_anchor(tmp_path: Path, kept: int) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[kept:], SEAMS[kept])
    found = scanned(folder, heads(SEAMS[kept], 18))
    assert isinstance(found, Scan)
    assert (found.chain.size, found.covered) == (18, 18)
    assert found.chain.origin == head(MADE, 1).origin
    assert found.chain.tree.root() == head(MADE, 18).root


def test_a_kept_part_without_any_key_is_chained(tmp_path: Path) -> None:
    found = scanned(laid_out(tmp_path / "ledger", FILES[1:], 7))
    assert isinstance(found, Scan)
    assert (found.chain.size, found.covered) == (18, 0)


def test_a_kept_part_whose_anchor_is_missing_says_so(tmp_path: Path) -> None:
    found = scanned(laid_out(tmp_path / "ledger", FILES[1:], 7), heads(6, 12, 18))
    assert isinstance(found, Problem)
    assert (found.code, found.file, found.line, found.seq) == ("anchor_missing", segment_name(7), 1, 7)


def test_a_kept_part_that_is_not_what_was_signed(tmp_path: Path) -> None:
    signed = head(lines(7), 7)
    other = Checkpoint(head(MADE, 1).origin, 7, head(MADE, 6).root)
    assert signed.size == 7
    found = scanned(laid_out(tmp_path / "ledger", FILES[1:], 7), {7: other})
    assert isinstance(found, Problem)
    assert (found.code, found.line, found.seq) == ("not_as_signed", 1, 7)
    found = scanned(tmp_path / "ledger", {7: Checkpoint("immured/" + "0" * 32, 7, head(MADE, 7).root)})
    assert isinstance(found, Problem)
    assert found.code == "other_ledger"


def test_a_missing_segment_is_missed_where_it_was(folder: Path) -> None:
    (folder / segment_name(7)).unlink()
    found = scanned(folder)
    assert isinstance(found, Problem)
    assert (found.code, found.file, found.line, found.seq) == ("bad_seq", "current.jsonl", 1, 7)


def test_exchanged_segments(folder: Path) -> None:
    one, other = folder / segment_name(0), folder / segment_name(7)
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    found = scanned(folder, heads(7, 12))
    assert isinstance(found, Problem)
    assert found.file == segment_name(7)


@pytest.mark.parametrize("seq", range(17))  # of the last line only a checkpoint tells
def test_a_problem_has_its_file_and_line(folder: Path, seq: int) -> None:
    with Files.open(folder) as files:
        name, at = files.locate(len(text(MADE[:seq])))
    content = bytearray((folder / name).read_bytes())
    content[at + len(MADE[seq]) // 2] ^= 1
    (folder / name).write_bytes(content)
    found = scanned(folder)
    assert isinstance(found, Problem)
    begins = max(seam for seam in SEAMS if seam <= seq)
    assert (found.file, found.line, found.seq) == (name, seq - begins + 1, seq)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", "immured/" + "0" * 32),
        ("size", 6),
        ("bytes", 1),
        ("root", "0" * 64),
        ("frontier", ["0" * 64] * 3),
        ("frontier", []),
    ],
)
def test_what_a_new_file_says_of_all_before_has_to_be_so(name: str, value: object) -> None:
    lying = [*FILES[0], rotated_at(FILES[0], 0, **{name: value})]
    log = text(lying)

    class Readable:
        def read(self, offset: int, length: int) -> bytes:
            return log[offset : offset + length]

    found = scan(Readable(), len(log), {})
    assert found.problem is not None
    assert (found.problem.code, found.problem.seq) == ("bad_rotation", 7)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", 7),
        ("size", 6),
        ("root", "0" * 64),
        ("frontier", "0" * 64),
        ("frontier", ["0" * 64] * 2),
        ("frontier", ["0" * 62] * 3),
        ("frontier", ["zz"] * 3),
        ("frontier", [7] * 3),
    ],
)
def test_a_kept_part_begins_with_what_can_be_begun_with(tmp_path: Path, name: str, value: object) -> None:
    (tmp_path / "current.jsonl").write_bytes(text([rotated_at(FILES[0], 0, **{name: value})]))
    found = scanned(tmp_path, heads(7))
    assert isinstance(found, Problem)
    assert (found.code, found.seq, found.line) == ("bad_rotation", 7, 1)


def test_an_ordinary_line_is_no_beginning(tmp_path: Path) -> None:
    (tmp_path / "current.jsonl").write_bytes(text(MADE[3:]))
    found = scanned(tmp_path)
    assert isinstance(found, Problem)
    assert (found.code, found.line) == ("bad_seq", 1)


def test_an_old_ledger_begins_at_its_beginning(tmp_path: Path) -> None:
    (tmp_path / "current.jsonl").write_bytes(text(lines(4)))
    with Files.at(tmp_path) as files:
        begun = begin(files, files.start, heads(1))
        assert isinstance(begun, Standing)
        assert (begun.end, begun.chain.size, begun.covered) == (0, 0, 0)
    assert isinstance(scanned(tmp_path), Scan)
