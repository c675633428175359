"""A ledger that waits for no disk says so itself, in every way that it can be asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from immured.errors import ConfigurationError
from immured.ledger.ledger import Ledger, create
from immured.ledger.posix_log import PosixLog
from immured.service.config import parse_config
from tests.ledger.sample import DAEMON
from tests.patience import PATIENCE_S


def modes(directory: Path) -> list[str]:
    """What the ledger says of it, in order."""
    lines = (directory / "ledger" / "current.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    return [entry["data"]["mode"] for entry in entries if entry["type"] == "ledger.durability"]


def test_a_ledger_that_syncs_says_nothing(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    for _ in range(2):
        with Ledger.open(tmp_path) as ledger:
            assert ledger.status().durability == "full"
    assert modes(tmp_path) == []


def test_one_that_does_not_says_so_at_each_open_and_when_it_does_again(tmp_path: Path) -> None:
    create(tmp_path, DAEMON)
    for mode in ("none", "none", "full", "full", "none"):
        with Ledger.open(tmp_path, durability=mode) as ledger:
            assert ledger.status().durability == mode
    assert modes(tmp_path) == ["none", "none", "full", "none"]


COUNTING = """
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd)
{
  int note = open(getenv("SYNCS"), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (note < 0 || write(note, "s", 1) != 1 || close(note) != 0)
    abort();
  return (int)syscall(SYS_fdatasync, fd);
}
"""
APPENDS = """
import sys
from pathlib import Path
from immured.ledger.ledger import Ledger
with Ledger.open(Path(sys.argv[1]), durability=sys.argv[2]) as ledger:
    for number in range(int(sys.argv[3])):
        ledger.entry("run.accepted", {}, {}, alone=number % 2 == 1).wait(120)
"""


def test_it_syncs_no_line(tmp_path: Path) -> None:
    """Seen from below: what the process asks of the C library."""
    (tmp_path / "counting.c").write_text(COUNTING)
    library, noted = tmp_path / "counting.so", tmp_path / "syncs"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "counting.c"], check=True)
    create(tmp_path, DAEMON)

    def syncs(durability: str, entries: int) -> int:
        noted.write_bytes(b"")
        command = [sys.executable, "-c", APPENDS, str(tmp_path), durability, str(entries)]
        environment = os.environ | {"LD_PRELOAD": str(library), "SYNCS": str(noted)}
        subprocess.run(command, env=environment, check=True, timeout=PATIENCE_S)
        return noted.stat().st_size

    syncs("full", 0)
    opening = syncs("full", 0)
    assert syncs("full", 4) == opening + 4
    syncs("none", 0)
    assert syncs("none", 4) == syncs("none", 0)


def test_a_stream_is_synced_unless_somebody_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create(tmp_path, DAEMON)
    synced: list[int] = []
    monkeypatch.setattr("immured.ledger.posix_log.os.fdatasync", synced.append)
    log = PosixLog(tmp_path / "ledger")
    log.sync()
    log.close()
    assert len(synced) == 1


def test_there_is_no_other() -> None:
    assert parse_config("").durability == "full"
    assert parse_config('[ledger]\ndurability = "none"\n').durability == "none"
    with pytest.raises(ConfigurationError, match="full or none"):
        parse_config('[ledger]\ndurability = "some"\n')
