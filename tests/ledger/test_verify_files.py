"""A verifier that was written from the page alone finds the vectors' segments whole, and what was done to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENCE_S
from tests.vectors.make_ledger_vectors import HERE

VERIFIER = Path(__file__).resolve().parents[1] / "independent" / "verify_files.py"
SEGMENTS: dict[str, Any] = json.loads((HERE / "segments.json").read_text())
KEYS: dict[str, Any] = json.loads((HERE / "keys.json").read_text())


def verdict(folder: Path, *arguments: object, keys: tuple[str, ...] = (SEGMENTS["key"],)) -> tuple[int, str]:
    trusted = [word for key in keys for word in ("--key", key)]
    done = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), str(folder), *trusted, *map(str, arguments)],
        capture_output=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert not done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files, with checkpoints at the ends of the sealed ones and at its own."""
    (tmp_path / "checkpoints").mkdir()
    for name, content in SEGMENTS["files"].items():
        (tmp_path / name).write_text(content)
    for size, note in SEGMENTS["checkpoints"].items():
        (tmp_path / "checkpoints" / f"{int(size):020d}").write_text(note)
    return tmp_path


def test_segments_are_whole(folder: Path) -> None:
    assert verdict(folder) == (0, "whole: 0 to 10, 10 signed, 0 cosigned, 3 files\n")


@pytest.mark.parametrize("name", sorted(SEGMENTS["files"]))
def test_a_changed_line_is_named(folder: Path, name: str) -> None:
    path = folder / name
    rows = path.read_bytes().split(b"\n")
    rows[1] = rows[1].replace(b'"v":1', b'"v": 1')
    path.write_bytes(b"\n".join(rows))
    status, said = verdict(folder)
    last = len(rows) == 3
    assert status == 1
    assert "not as signed" in said if last and name == "current.jsonl" else "broken chain" in said


def test_a_file_between_is_missed(folder: Path) -> None:
    (folder / "00000000000000000003.jsonl").unlink()
    assert verdict(folder) == (1, "bad: current.jsonl line 1: seq 8, expected 3\n")


def test_the_oldest_file_is_missed_where_nothing_says_that_it_was_retired(folder: Path) -> None:
    (folder / "00000000000000000000.jsonl").unlink()
    assert verdict(folder) == (1, "bad: what is before 3 was not retired\n")


def test_the_checkpoint_that_a_kept_part_stands_on_is_missed(folder: Path) -> None:
    (folder / "00000000000000000000.jsonl").unlink()
    (folder / "checkpoints" / f"{3:020d}").unlink()
    assert verdict(folder) == (1, "bad: no checkpoint of size 3\n")


def test_a_cut_end_is_missed(folder: Path) -> None:
    current = folder / "current.jsonl"
    current.write_bytes(current.read_bytes().split(b"\n")[0] + b"\n")
    status, said = verdict(folder)
    assert (status, "10 entries were signed, 9 are there" in said) == (1, True)


def test_a_copy_of_before_and_after_a_sealing(folder: Path) -> None:
    shutil.copy(folder / "current.jsonl", folder / f"{8:020d}.jsonl")
    assert verdict(folder)[0] == 0


def test_another_anchor_is_not_agreed_to(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = tmp_path_factory.mktemp("kept") / "anchor"
    kept.write_text(SEGMENTS["checkpoints"]["8"])
    assert verdict(folder, "--anchor", kept)[0] == 0
    kept.write_text((HERE / "checkpoints" / f"{7:020d}").read_text())
    status, said = verdict(folder, "--anchor", kept)
    assert (status, "not as signed" in said) == (1, True)


@pytest.mark.parametrize("note", KEYS["checkpoints"], ids=lambda note: f"size {note['size']}, {note['good']}")
def test_the_first_key_is_enough_where_it_gave_way(tmp_path: Path, note: dict[str, Any]) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "current.jsonl").write_text("".join(f"{line}\n" for line in KEYS["lines"]))
    (tmp_path / "checkpoints" / f"{note['size']:020d}").write_text(note["note"])
    status, said = verdict(tmp_path, keys=(KEYS["keys"][0],))
    assert status == (0 if note["good"] else 1), said
