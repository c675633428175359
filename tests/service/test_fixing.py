"""Sealed segments that can only be added to: which ones, and that what cannot be done is said."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.ledger.disk import is_append_only, set_append_only
from immured.ledger.segments import segment_name
from immured.service.broker_user import User
from immured.service.fixing import fix, let_go

pytestmark = pytest.mark.needs_root

HIM, OTHER = User(64_321, 64_321), User(64_322, 64_322)
NOW_MS = 1_790_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Path]:
    """Three segments of his, written to 3, 2 and 1 days ago, and the file that is written; where flags can be set."""
    for number in range(3):
        path = tmp_path / segment_name(number)
        path.write_bytes(b"line\n")
        os.chown(path, HIM.uid, HIM.gid)
        at = (NOW_MS - (3 - number) * DAY_MS) / 1_000
        os.utime(path, (at, at))
    (tmp_path / "current.jsonl").write_bytes(b"line\n")
    os.chown(tmp_path / "current.jsonl", HIM.uid, HIM.gid)
    yield tmp_path
    for path in tmp_path.iterdir():
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if is_append_only(file.fileno()):
                    set_append_only(file.fileno(), wanted=False)


def fixed(ledger: Path) -> list[str]:
    found = []
    for path in sorted(ledger.glob("*.jsonl")):
        with path.open("rb") as file:
            if is_append_only(file.fileno()):
                found.append(path.name)
    return found


def able(ledger: Path) -> bool:
    """Whether this file system has the flag; what is said where it has not is a test by itself."""
    why = fix(ledger, HIM, None, NOW_MS)
    assert why in ("", f"{ledger / segment_name(0)}: this file system has no chattr +a"), why
    return not why


def test_what_is_sealed_and_nothing_else(ledger: Path) -> None:
    if not able(ledger):
        assert fixed(ledger) == []
        return
    assert fixed(ledger) == [segment_name(number) for number in range(3)]
    for attempt in (Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.rename(path.with_suffix(".x"))):
        with pytest.raises(PermissionError):
            attempt(ledger / segment_name(0))
    (ledger / "current.jsonl").write_bytes(b"")


def test_what_is_older_than_is_kept_may_go(ledger: Path) -> None:
    if not able(ledger):
        return
    assert fix(ledger, HIM, int(1.5 * DAY_MS), NOW_MS) == ""
    assert fixed(ledger) == [segment_name(2)]
    assert fix(ledger, HIM, None, NOW_MS) == ""
    assert len(fixed(ledger)) == 3


def test_what_is_another_s_or_has_another_name_is_not_touched(ledger: Path) -> None:
    os.chown(ledger / segment_name(0), OTHER.uid, OTHER.gid)
    (ledger / "elsewhere").hardlink_to(ledger / segment_name(1))
    (ledger / segment_name(7)).symlink_to(ledger / segment_name(0))
    why = fix(ledger, HIM, None, NOW_MS)
    assert "symbolic links" in why or "no chattr" in why
    assert {segment_name(0), segment_name(1), segment_name(7)}.isdisjoint(fixed(ledger))


def test_a_new_user_of_the_broker_gets_them(ledger: Path) -> None:
    if not able(ledger):
        return
    let_go(ledger, HIM)
    assert len(fixed(ledger)) == 3
    let_go(ledger, OTHER)
    assert fixed(ledger) == []


def test_where_there_is_no_ledger(tmp_path: Path) -> None:
    assert "No such file" in fix(tmp_path / "none", HIM, None, NOW_MS)
    let_go(tmp_path / "none", HIM)
