"""One daemon a state directory, one a block of host ids."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.host.cgroup import parse_mount, parse_own
from immured.host.ids import SLOT_BASE
from immured.service.locks import lock_slots, lock_state, wait_for_launcher
from tests.patience import PATIENCE_S


def test_a_second_daemon_is_told_who_the_first_is(tmp_path: Path) -> None:
    held = lock_state(tmp_path / "lock")
    with pytest.raises(ConfigurationError, match=f"process {os.getpid()}") as caught:
        lock_state(tmp_path / "lock")
    assert caught.value.code == "state_in_use"
    os.close(held)
    os.close(lock_state(tmp_path / "lock"))


def test_a_launcher_that_still_clears_up_is_waited_for(tmp_path: Path) -> None:
    held = wait_for_launcher(tmp_path / "lock", 0)
    timer = threading.Timer(0.2, os.close, (held,))
    timer.start()
    os.close(wait_for_launcher(tmp_path / "lock", PATIENCE_S))
    timer.join()


def test_a_launcher_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    held = wait_for_launcher(tmp_path / "lock", 0)
    with pytest.raises(ConfigurationError) as caught:
        wait_for_launcher(tmp_path / "lock", 0.1)
    assert caught.value.code == "launcher_busy"
    os.close(held)


def test_daemons_side_by_side_share_no_host_ids(tmp_path: Path) -> None:
    held = [lock_slots(tmp_path, 3) for _ in range(8)]
    bases = sorted(base for base, _ in held)
    assert bases[0] == SLOT_BASE
    assert all(later - earlier == 511 * 65_536 for earlier, later in itertools.pairwise(bases))
    with pytest.raises(ConfigurationError) as caught:
        lock_slots(tmp_path, 0)
    assert caught.value.code == "no_slots"
    for _, fd in held:
        os.close(fd)


MOUNTS = """\
25 1 0:22 / /sys rw - sysfs sysfs rw
41 31 0:38 /user.slice /mnt/part rw - cgroup2 cgroup2 rw
42 31 0:38 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw
"""


def test_the_whole_hierarchy_is_preferred_to_a_part_of_it() -> None:
    assert parse_mount(MOUNTS) == Path("/sys/fs/cgroup/uni fied")


def test_a_host_without_cgroup_v2_has_no_mount() -> None:
    assert parse_mount("25 1 0:22 / /sys rw - sysfs sysfs rw\n") is None


def test_our_own_cgroup_is_the_unified_line() -> None:
    assert parse_own("4:memory:/x\n0::/system.slice/immured.service\n") == "/system.slice/immured.service"
