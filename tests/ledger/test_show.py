"""Reading a ledger: what matches, the last few, what comes; and nothing in it can play with a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest

from immured.ledger.entry import build_line, encode_body, parse_line
from immured.ledger.show import BadLine, Selection, entries, follow, last, one_line
from immured.ledger.timestamps import timestamp
from tests.ledger.sample import ACTOR, START_NS, lines, text

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
