"""The native writer under the sanitizers, without Python: what is durable is in the file, and all hear of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LEAKS_SEEN_ELSEWHERE = "detect_leaks=0"  # under a tracer the leak check cannot run


def built(source: str, place: Path, sanitizer: str, *linked: str) -> Path:
    """With ASan and UBSan (`address`), or with TSan (`thread`)."""
    sys.path.insert(0, str(ROOT / "native"))
    try:
        import launcher_build  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    sources = [HERE / source, ROOT / "native/core/ledger_awaited.c", ROOT / "native/core/ledger_writer.c"]
    sanitizers = launcher_build.SANITIZERS if sanitizer == "address" else ["-fsanitize=thread", "-g", "-O1"]
    flags = [*launcher_build.DIALECT, *launcher_build.WARNINGS, "-Werror", "-pthread", *sanitizers, *linked]
    made = place / source.removesuffix(".c")
    command = ["gcc", *flags, f"-I{ROOT / 'native/core'}", *map(str, sources), "-o", str(made)]
    subprocess.run(command, check=True)
    return made


@pytest.fixture(scope="module", params=["address", "thread"])
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many threads at it."""
    return built("drive_writer.c", tmp_path_factory.mktemp("native_writer"), request.param)


def test_whatever_allocation_fails_the_lines_are_those_that_were_queued(tmp_path: Path) -> None:
    program = built("check_writer.c", tmp_path, "address", "-Wl,--wrap=calloc,--wrap=realloc")
    environment = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": LEAKS_SEEN_ELSEWHERE}
    subprocess.run([program], env=environment, check=True, timeout=120)


def driven(program: Path, file: Path, threads: int, lines: int, limit: int) -> tuple[int, int]:
    """How many callers heard that theirs is durable, and how many entries are."""
    environment = os.environ | {"UBSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": LEAKS_SEEN_ELSEWHERE}
    command = [str(program), str(file), str(threads), str(lines), str(limit)]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, timeout=120).stdout.split()
    return int(said[0]), int(said[1])


@pytest.mark.parametrize(("threads", "lines"), [(1, 50), (40, 25)])
def test_everybody_is_told_and_the_order_is_kept(program: Path, tmp_path: Path, threads: int, lines: int) -> None:
    assert driven(program, tmp_path / "file", threads, lines, 0) == (threads * lines, threads * lines)
    numbers = [int(line.split()[0]) for line in (tmp_path / "file").read_text().splitlines()]
    assert numbers == list(range(threads * lines))


def test_after_a_write_that_failed_nothing_is_written_and_all_hear_of_it(program: Path, tmp_path: Path) -> None:
    told, durable = driven(program, tmp_path / "file", 20, 20, 2_000)
    assert told == durable
    whole = (tmp_path / "file").read_text().split("\n")[:-1]
    assert durable <= len(whole) < 400
    assert [int(line.split()[0]) for line in whole] == list(range(len(whole)))
