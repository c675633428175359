"""Reading a ledger: what matches, the last few, what comes; and nothing in it can play with a terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from immured.ledger.entry import build_line, encode_body, parse_line
from immured.ledger.segments import segment_name
from immured.ledger.show import BadLine, Selection, entries, follow, last, one_line
from immured.ledger.timestamps import timestamp
from tests.ledger.sample import ACTOR, START_NS, laid_out, lines, rotated_lines, text

LINES = lines(200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "current.jsonl"
    file.write_bytes(text(LINES))
    return file


def seqs(path: Path, **conditions: object) -> list[int]:
    return [entry.seq for entry in entries(path, Selection(**conditions))]  # type: ignore[arg-type]


def test_all_of_it(path: Path) -> None:
    assert seqs(path) == list(range(200))


@pytest.mark.parametrize("pattern", ["ledger.created", "ledger.*", "*.created"])
def test_by_type(path: Path, pattern: str) -> None:
    assert seqs(path, types=(pattern,)) == [0]


def test_by_one_of_two_types(path: Path) -> None:
    assert seqs(path, types=("run.accepted", "ledger.*"), end=4) == [0, 1, 3]


def test_by_index(path: Path) -> None:
    assert seqs(path, first=5, end=8) == [5, 6, 7]


def test_by_time(path: Path) -> None:
    since, until = (timestamp(START_NS + seq * 1_000_003) for seq in (3, 6))
    assert seqs(path, since=since, until=until) == [3, 4, 5]


def test_by_the_beginning_of_a_time(path: Path) -> None:
    assert seqs(path, since="2026-09-21", until="2026-09-22") == list(range(200))


@pytest.mark.parametrize("who", [ACTOR["key"], "1000"])
def test_by_actor(path: Path, who: str) -> None:
    assert seqs(path, actor=who, end=3) == [1, 2]


@pytest.mark.parametrize("who", ["acme", "session-1", "user:7", "sha256:bb"])
def test_by_what_the_actor_carried(tmp_path: Path, who: str) -> None:
    first, plain = LINES[1], LINES[2]
    values = json.loads(first)
    values["actor"] |= {
        "tenant": "acme", "session": "session-1", "sub": "user:7", "chain": ["sha256:aa", "sha256:bb"],
    }  # fmt: skip
    file = tmp_path / "some.jsonl"
    file.write_bytes(json.dumps(values).encode() + b"\n" + plain + b"\n")
    assert seqs(file, actor=who) == [1]


def test_by_sandbox(path: Path) -> None:
    assert seqs(path, sandbox="s7") == [7]


def test_a_line_that_is_being_written_is_left_out(path: Path) -> None:
    path.write_bytes(text(LINES)[:-10])
    assert seqs(path)[-1] == 198
    assert [entry.seq for entry in last(path, 1)] == [198]


def test_a_bad_line_is_named(path: Path) -> None:
    path.write_bytes(text([*LINES[:3], b"{}", *LINES[4:]]))
    with pytest.raises(BadLine, match="line 4"):
        seqs(path)


def test_a_file_without_newlines_is_not_read_into_memory(path: Path) -> None:
    path.write_bytes(text(LINES[:2]) + b"x" * 1_000_000)
    with pytest.raises(BadLine, match="line 3"):
        seqs(path)


@pytest.mark.parametrize("count", [0, 1, 7, 199, 200, 500])
def test_the_last_few(path: Path, count: int) -> None:
    assert [entry.seq for entry in last(path, count)] == list(range(200))[max(0, 200 - count) :]


def test_the_last_few_that_match(path: Path) -> None:
    assert [entry.seq for entry in last(path, 2, Selection(types=("run.accepted",)))] == [197, 199]


def test_the_last_of_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    assert last(tmp_path / "f", 3) == []


def test_what_comes_is_followed(path: Path) -> None:
    path.write_bytes(text(LINES[:50]))
    steps = iter([text(LINES[50:52]) + LINES[52][:9], LINES[52][9:] + b"\n", b""])

    def pause() -> bool:
        piece = next(steps)
        with path.open("ab") as file:
            file.write(piece)
        return bool(piece)

    assert [entry.seq for entry in follow(path, pause=pause)] == [50, 51, 52]


def test_following_can_begin_after_an_entry(path: Path) -> None:
    assert [entry.seq for entry in follow(path, after=196, pause=lambda: False)] == [197, 198, 199]


def test_following_can_begin_at_the_beginning(path: Path) -> None:
    assert len(list(follow(path, after=-1, pause=lambda: False))) == 200


def shown(data: dict[str, object], actor: dict[str, object] | None = None) -> str:
    return one_line(
        parse_line(build_line(7, timestamp(START_NS), encode_body("run.accepted", actor or {}, data), "0" * 64))
    )


def test_an_entry_on_one_line() -> None:
    line = shown({"sandbox": "s1", "argv": ["/bin/echo", "two words"], "detach": True}, {"key": "k"})
    assert line == (
        "       7  2026-09-21T14:13:20.000Z  run.accepted     key=k  "
        "sandbox=s1 argv=[/bin/echo 'two words'] detach=true"
    )


@pytest.mark.parametrize("char", ["\n", "\r", "\x1b", "\x9b", "\u202e", "\u2028", "\u200b"])
@pytest.mark.parametrize("where", ["value", "key", "nested key", "actor"])
def test_no_character_moves_the_cursor(char: str, where: str) -> None:
    text = f"a{char}b"
    data: dict[str, dict[str, object]] = {"value": {"x": text}, "key": {text: 1}, "nested key": {"x": {text: 1}}}
    assert char not in shown(data.get(where, {}), {"sub": text} if where == "actor" else {})


def test_what_ran_is_not_cut_for_the_sake_of_digests() -> None:
    data: dict[str, object] = {
        "cmd": "run",
        "nonce": "n" * 32,
        "payload": "p" * 64,
        "iat": 1,
        "exp": 2,
        "sandbox": "s1",
    }
    assert "  cmd=run sandbox=s1 argv=[make test] nonce=" in shown({**data, "argv": ["make", "test"]})


def test_long_data_is_cut() -> None:
    assert len(shown({"argv": ["x" * 1000]})) < 250


# --- of many files


FILES = rotated_lines(70, 1, 60, 69)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return laid_out(tmp_path / "ledger", FILES)


def test_all_files_are_one_ledger(folder: Path) -> None:
    assert seqs(folder) == list(range(200))
    assert seqs(folder, first=69, end=73) == [69, 70, 71, 72]
    assert seqs(folder, types=("ledger.rotated",)) == [70, 71, 131]


def test_what_is_before_is_not_read(folder: Path) -> None:
    (folder / segment_name(0)).write_bytes(b"?\n" * 3)
    assert seqs(folder, first=131) == list(range(131, 200))


def test_the_last_ones_of_many_files(folder: Path) -> None:
    assert [entry.seq for entry in last(folder, 72)] == list(range(128, 200))
    assert [entry.seq for entry in last(folder, 500)] == list(range(200))
    assert [entry.seq for entry in last(folder, 2, Selection(types=("ledger.rotated",)))] == [71, 131]


def test_of_what_is_kept(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "kept", FILES[2:], 71)
    assert seqs(folder) == list(range(71, 200))
    assert [entry.seq for entry in last(folder, 500)] == list(range(71, 200))


def test_a_bad_line_is_named_in_its_file(folder: Path) -> None:
    path = folder / segment_name(71)
    path.write_bytes(path.read_bytes().replace(b'"seq":73,', b'"seq":073,'))
    for read in (lambda: seqs(folder), lambda: last(folder, 200)):
        with pytest.raises(BadLine, match=f"{segment_name(71)} line 3"):
            read()


def test_following_goes_through_rotations(tmp_path: Path) -> None:
    folder = laid_out(tmp_path / "ledger", FILES[:1])

    def rotate(number: int) -> None:
        (folder / "next.jsonl").write_bytes(text(FILES[number]))
        (folder / "current.jsonl").rename(folder / segment_name(sum(map(len, FILES[: number - 1]))))
        (folder / "next.jsonl").rename(folder / "current.jsonl")

    steps = iter((1, 2, 3))

    def pause() -> bool:
        number = next(steps, 0)
        if number:
            rotate(number)
        return bool(number)

    assert [entry.seq for entry in follow(folder, after=65, pause=pause)] == list(range(66, 200))
