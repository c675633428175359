"""What the host of a virtual machine must allow, as it is raised before and as it shows inside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run_tests import WANTED_MAPS, more_maps

ROOT = Path(__file__).parents[2]
TOUCHED = 320 << 20
SCATTERED = f"""
import mmap, random
area = mmap.mmap(-1, {TOUCHED})
order = list(range(0, {TOUCHED}, mmap.PAGESIZE))
random.shuffle(order)
for at in order:
    area[at] = 1
"""


def test_a_process_may_touch_its_memory_in_any_order() -> None:
    """Where a guest's every page is a mapping of its host's, too few of those are a fault without end."""
    touching = subprocess.Popen([sys.executable, "-c", SCATTERED], stdin=subprocess.DEVNULL)
    try:
        assert touching.wait(120) == 0
    finally:
        touching.kill()
        touching.wait(20)


def test_the_bound_on_mappings_is_raised_and_said(tmp_path: Path) -> None:
    bound = tmp_path / "max_map_count"
    bound.write_text("65530\n")
    assert "65530" in more_maps(bound)
    assert int(bound.read_text()) == WANTED_MAPS


def test_a_bound_that_is_enough_stays(tmp_path: Path) -> None:
    bound = tmp_path / "max_map_count"
    bound.write_text(f"{WANTED_MAPS + 1}\n")
    assert more_maps(bound) == ""
    assert int(bound.read_text()) == WANTED_MAPS + 1


def test_a_bound_that_cannot_be_raised_comes_with_its_remedy(tmp_path: Path) -> None:
    assert f"sysctl -w vm.max_map_count={WANTED_MAPS}" in more_maps(tmp_path / "nowhere")


FILES, PIECE = 30_000, 6_000
READS = f"""
from pathlib import Path
import itertools, os, subprocess, sys
sys.path.insert(0, {str(ROOT)!r})
from tests.conftest import forget_files
files = (Path(top) / name for top, _, names in os.walk("/usr") for name in names)
read = 0
for path in itertools.islice((one for one in files if one.is_file() and not one.is_symlink()), {FILES}):
    with path.open("rb") as file:
        file.read(1)
    read += 1
    if read % {PIECE} == 0:
        forget_files()
subprocess.run(["/bin/true"], check=True)
"""


@pytest.mark.needs_throwaway_host
def test_a_guest_may_read_more_files_than_its_host_may_have_open() -> None:
    subprocess.run([sys.executable, "-c", READS], check=True, cwd=ROOT, stdin=subprocess.DEVNULL, timeout=200)
