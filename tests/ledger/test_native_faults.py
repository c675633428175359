"""The disk fails, falls short, or is the last thing that a process sees, at every single write and sync of a ledger
that is written natively, in a real directory: as test_faults.py has it for a storage in memory. Whatever it was: what
was acknowledged is there with its hash, nobody is left waiting, what recovery leaves verifies, and after a failure for
good the file was not touched."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from immured.ledger.ledger import create
from tests.ledger.failing import SWIFT_S
from tests.ledger.kills import check
from tests.ledger.sample import DAEMON
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.slow

HERE: Final = Path(__file__).parent
PWRITE, FDATASYNC = 0, 1
NOTHING, HALF, ALL = 0, -1, -2
HANGS_S: Final = 2 * PATIENCE_S + 20


@dataclass(frozen=True)
class Fault:
    """See fault_arm in failing.c. `refuses`: what is not acknowledged is refused, and the file touched no more."""

    call: int
    take: int = NOTHING
    error: int = 0
    signal: int = 0
    on: bool = False
    refuses: bool = False
    ballast: bool = False
    hold_ms: int = 0
    lone: bool = False

    def order(self, directory: Path, number: int) -> dict[str, object]:
        final = self.refuses and not self.on
        arm = [self.call, number, self.on, self.take, self.error, self.signal, final, self.hold_ms]
        return {
            "directory": str(directory),
            "arm": [int(one) for one in arm],
            "no_room_ahead": self.ballast,
            "lone": self.lone,
        }


FAULTS: Final = {
    "a write falls short by all but one byte": Fault(PWRITE, take=1),
    "a write falls short by half": Fault(PWRITE, take=HALF),
    "every write falls short": Fault(PWRITE, take=97, on=True),
    "a write takes nothing": Fault(PWRITE, refuses=True),
    "a write fails": Fault(PWRITE, error=errno.EIO, refuses=True),
    "a write fails in the middle": Fault(PWRITE, take=HALF, error=errno.EIO, refuses=True),
    "a write fails late": Fault(PWRITE, error=errno.EIO, refuses=True, hold_ms=60),
    "a write is interrupted": Fault(PWRITE, error=errno.EINTR),
    "a disk is full": Fault(PWRITE, error=errno.ENOSPC, refuses=True),
    "a disk is full late": Fault(PWRITE, error=errno.ENOSPC, refuses=True, hold_ms=60),
    "a disk is full until space is yielded": Fault(PWRITE, error=errno.ENOSPC, ballast=True),
    "a quota is used up until space is yielded": Fault(PWRITE, error=errno.EDQUOT, ballast=True),
    "a disk is full whatever is yielded": Fault(PWRITE, error=errno.ENOSPC, on=True, refuses=True, ballast=True),
    "a sync fails": Fault(FDATASYNC, error=errno.EIO, refuses=True),
    "a sync fails late": Fault(FDATASYNC, take=ALL, error=errno.EIO, refuses=True, hold_ms=60),
    "a sync is full": Fault(FDATASYNC, error=errno.ENOSPC, refuses=True, ballast=True),
    "a sync is interrupted": Fault(FDATASYNC, error=errno.EINTR),
    "death before a write": Fault(PWRITE, signal=signal.SIGKILL),
    "death in the middle of a write": Fault(PWRITE, take=HALF, signal=signal.SIGKILL),
    "death after a write": Fault(PWRITE, take=ALL, signal=signal.SIGKILL),
    "death before a sync": Fault(FDATASYNC, signal=signal.SIGKILL),
    "death after a sync": Fault(FDATASYNC, take=ALL, signal=signal.SIGKILL),
}


class Lives:
    """The process that they are forked from."""

    def __init__(self, library: Path) -> None:
        environment = os.environ | {
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        command = [sys.executable, "-m", "tests.ledger.failing"]
        self._process = subprocess.Popen(
            command, cwd=HERE.parents[1], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def one(self, order: dict[str, object]) -> list[str]:
        """What was said of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        said = bytearray()
        until = time.monotonic() + HANGS_S
        while not said.rpartition(b"\n")[0].rpartition(b"\n")[2].startswith(b"ended"):
            if not select.select([self._process.stdout], [], [], until - time.monotonic())[0]:
                raise AssertionError(f"it hangs: {said.decode()[-300:]}")
            more = os.read(self._process.stdout.fileno(), 65_536)
            assert more, "the process that they are forked from has died"
            said += more
        return said.decode().splitlines()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    library = tmp_path_factory.mktemp("failing") / "failing.so"
    strict = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run(["gcc", *strict, "-o", library, HERE / "failing.c"], check=True)
    made = Lives(library)
    yield made
    made.close()


@dataclass(frozen=True)
class Seen:
    """A life, as it was told and as it was noted."""

    told: dict[int, bytes]
    refused: list[str]
    rest: list[str]
    status: int
    notes: str


def lived(lives: Lives, directory: Path, fault: Fault, number: int) -> Seen:
    shutil.rmtree(directory, ignore_errors=True)
    begun = directory.with_name("begun")
    if not begun.exists():
        create(begun, DAEMON)
    shutil.copytree(begun, directory)
    told: dict[int, bytes] = {}
    refused: list[str] = []
    rest: list[str] = []
    *said, ended = lives.one(fault.order(directory, number))
    for kind, _, what in (line.partition(" ") for line in said):
        if kind == "told":
            seq, _, leaf = what.partition(" ")
            told[int(seq)] = bytes.fromhex(leaf)
        else:
            (refused if kind == "refused" else rest).append(what)
    return Seen(told, refused, rest, int(ended.removeprefix("ended ")), (directory / "notes").read_text())


def test_a_life_has_all_of_it(lives: Lives, tmp_path: Path) -> None:
    seen = lived(lives, tmp_path / "state", Fault(PWRITE), 1_000_000)
    assert (len(seen.told), seen.refused, seen.status) == (29, [], 0)
    assert int(seen.rest[0]) >= 1
    assert len(list((tmp_path / "state/ledger/checkpoints").iterdir())) > 2
    assert 10 <= seen.notes.count("s") < 40


@pytest.mark.parametrize("named", FAULTS)
def test_at_every_write_and_sync(lives: Lives, tmp_path: Path, named: str) -> None:
    fault = FAULTS[named]
    number = 0
    while True:
        number += 1
        seen = lived(lives, tmp_path / "state", fault, number)
        where = f"the {number}th: {seen}"
        assert not [one for one in seen.rest if not one.removeprefix("-").isdigit()], where
        assert set(seen.refused) <= {"ledger_unavailable"}, where
        assert seen.status == (-fault.signal if "F" in seen.notes else 0), where
        assert not {"P", "S"} & set(seen.notes), where
        check(tmp_path / "state", seen.told)
        if "F" not in seen.notes:
            break
        if fault.refuses:
            assert seen.refused, where
        elif not fault.signal:
            assert len(seen.told) == 29, where
            assert not seen.refused, where
    assert number > 8


def test_after_a_slow_sync_who_is_alone_syncs_himself_again(tmp_path: Path, lives: Lives) -> None:
    seen = lived(lives, tmp_path / "life", Fault(FDATASYNC, hold_ms=round(2000 * SWIFT_S), lone=True), 10)
    assert seen.rest == ["again"]
    assert seen.status == 0
