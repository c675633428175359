"""The caller's groups, below what it binds and nowhere else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.isolation.abi import BindFlag
from tests.warden.cell import SLOT_BASE, Cell, Peer, Wish, bind
from tests.warden.places import ALICE, BOB, STAFF, directory, shell, text

PEER = Peer(ALICE.uid, ALICE.gid, (ALICE.gid, STAFF, 61011))
OTHER = 61012


@pytest.fixture
def mine() -> Iterator[Path]:
    """A directory of the caller's that anybody may enter."""
    above = Path(tempfile.mkdtemp(prefix="immured-groups-"))
    above.chmod(0o755)
    yield directory(above / "mine", ALICE.uid)
    shutil.rmtree(above)


def test_what_only_a_group_of_the_callers_may_read_is_read(cell: Cell, mine: Path) -> None:
    below = directory(mine / "staff", BOB, 0o750, STAFF)
    text(below / "note", BOB, 0o640, gid=STAFF)
    assert cell.run(shell("cat /m/staff/note", bind(mine, "/m")), PEER).succeeded() == "content\n"


def test_what_a_group_of_the_callers_may_not_read_is_not_read_as_others_may(cell: Cell, mine: Path) -> None:
    text(mine / "note", BOB, 0o604, gid=STAFF)
    run = cell.run(shell("cat /m/note", bind(mine, "/m")), PEER)
    assert (run.stdout, b"Permission denied" in run.stderr) == (b"", True)


def test_what_another_group_may_read_stays_shut(cell: Cell, mine: Path) -> None:
    text(mine / "note", BOB, 0o640, gid=OTHER)
    run = cell.run(shell("cat /m/note", bind(mine, "/m")), PEER)
    assert b"Permission denied" in run.stderr


def test_a_group_gives_no_right_to_write_what_is_anothers(cell: Cell, mine: Path) -> None:
    text(mine / "note", BOB, 0o664, gid=STAFF)
    run = cell.run(shell("echo x > /m/note", bind(mine, "/m", BindFlag.WRITE)), PEER)
    assert (b"Permission denied" in run.stderr, (mine / "note").read_text()) == (True, "content\n")


def test_inside_they_are_of_the_cells_own_range(cell: Cell) -> None:
    """So what the host gives a group (a container engine's socket, a disk) it does not give the payload."""
    program = "import os; print(sorted(os.getgroups()), open('/proc/self/status').read().count('Groups:\\t2000 2001'))"
    assert cell.run(Wish(["/usr/bin/python3", "-I", "-c", program]), PEER).succeeded() == "[2000, 2001] 1\n"


def test_on_the_host_they_are_ids_of_nobodys(cell: Cell) -> None:
    read, write = os.pipe()
    said, say = os.pipe()
    null = os.open("/dev/null", os.O_RDWR)
    cell.order(shell("echo ready; read line").packed(), [read, say, null], PEER)
    os.close(say)
    cell.go()
    assert os.read(said, 16) == b"ready\n"
    groups = {line for status in payloads(cell.slot_base) for line in status if line.startswith("Groups:")}
    cell.kill()
    cell.outcome()
    for fd in (read, write, said, null):
        os.close(fd)
    assert groups >= {f"Groups:\t{cell.slot_base + 2000} {cell.slot_base + 2001} "}


def payloads(slot_base: int) -> Iterator[list[str]]:
    """Processes with the payload's id of that cell."""
    assert slot_base >= SLOT_BASE
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        if any(line.startswith("Uid:") and line.split()[1] == str(slot_base + 1000) for line in status):
            yield status


def test_none_can_be_given_up(cell: Cell) -> None:
    """A group that is refused where others are let in must stay."""
    program = "import os\ntry: os.setgroups([])\nexcept PermissionError: print('no')"
    assert cell.run(Wish(["/usr/bin/python3", "-I", "-c", program]), PEER).succeeded() == "no\n"


def test_what_such_a_group_may_read_can_be_collected(cell: Cell, mine: Path) -> None:
    text(directory(mine / "staff", BOB, 0o750, STAFF) / "note", BOB, 0o640, gid=STAFF)
    run = cell.run(shell("true", bind(mine, "/m"), collect=["/m/staff/note"]), PEER)
    with os.fdopen(run.files[0]) as note:
        assert note.read() == "content\n"


def test_what_such_a_group_may_not_read_cannot_be_collected(cell: Cell, mine: Path) -> None:
    text(mine / "note", BOB, 0o604, gid=STAFF)
    assert cell.run(shell("true", bind(mine, "/m"), collect=["/m/note"]), PEER).files == []


def test_a_caller_without_further_groups_gives_none(cell: Cell) -> None:
    program = "import os; print(os.getgroups())"
    assert cell.run(Wish(["/usr/bin/python3", "-I", "-c", program]), ALICE).succeeded() == "[]\n"
