"""Two virtual machines share what meets the kernel: nothing is left out, nothing runs twice."""

from __future__ import annotations

from pathlib import Path

from scripts.run_tests import FIRST_SHARD, NOT_IN_VM, left_out

TESTS = Path(__file__).parents[1]
FOLDERS = {path.name for path in TESTS.iterdir() if any(path.glob("test_*.py"))}


def halves(folders: set[str]) -> tuple[set[str], set[str]]:
    first, second = left_out(folders)
    return folders - set(first), folders - set(second)


def test_each_folder_runs_in_one_of_them_or_is_named_as_left_out() -> None:
    first, second = halves(FOLDERS)
    assert first | second | set(NOT_IN_VM) >= FOLDERS
    assert first.isdisjoint(second)
    assert (first | second).isdisjoint(NOT_IN_VM)


def test_a_new_folder_runs_in_the_second() -> None:
    first, second = halves({*FOLDERS, "brand_new"})
    assert "brand_new" in second - first


def test_files_that_are_left_out_are_left_out_of_both() -> None:
    files = {name for name in NOT_IN_VM if "/" in name}
    assert all(files <= set(without) for without in left_out(FOLDERS))


def test_what_is_named_is_there() -> None:
    assert [name for name in (*FIRST_SHARD, *NOT_IN_VM) if not (TESTS / name).exists()] == []
