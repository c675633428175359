"""A real file system that is really full: a small tmpfs in a mount namespace of a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S

pytestmark = pytest.mark.needs_root

SCRIPT = """
import json, os, subprocess, sys
from pathlib import Path
from immured.errors import Refused, ConfigurationError
from immured.ledger import Ledger, create
from immured.ledger.ledger import load_vkeys
from immured.ledger.verify import verify_file

place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=0700", "tmpfs", str(place)], check=True)
create(place, "ed25519:" + "0" * 32)
ACTOR = {"key": "k"}
said = {}


def fill():
    with open(place / "filler", "ab", buffering=0) as file:
        size = 65536
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


ledger = Ledger.open(place)
runs = [ledger.entry("run.accepted", ACTOR, {"sandbox": n}, reserves_outcome=True).wait() for n in range(20)]
fill()
more = 0
try:
    while more < 10000:
        runs.append(ledger.entry("run.accepted", ACTOR, {"sandbox": more}, reserves_outcome=True).wait())
        more += 1
except Refused as refused:
    said["intent"] = [refused.code, refused.remedy]
fill()
for run in runs:
    ledger.entry("run.finished", ACTOR, {"streams": ["x" * 1000] * 60}, outcome_of=run.seq).wait()
said["runs"] = len(runs)
# Where the writer's thread asks for more than there is, it holds for a moment what there was.
while "denial" not in said or said["free"]:
    fill()
    said["free"] = os.statvfs(place).f_bavail
    try:
        ledger.entry("command.denied", ACTOR, {"message": "x" * 1000}).wait()
    except Refused as refused:
        said["denial"] = refused.code
ledger.entry("daemon.stopped", ACTOR, {"reason": "signal"}, closing=True).wait()
ledger.close()
finished = []
(place / "filler").unlink()
Ledger.open(place, visit=lambda entry: finished.append(entry.type)).close()
said["finished"] = finished.count("run.finished")
said["last"] = finished[-1]
keys = load_vkeys(place / "keys/ledger.vkey")
report = verify_file(place / "ledger/current.jsonl", place / "ledger/checkpoints", keys)
said["whole"] = report.whole
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What happened on the full disk."""
    place = tmp_path_factory.mktemp("full")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", SCRIPT, str(place)],
        capture_output=True,
        env=environment,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert not list(Path(place).iterdir()), "the mount was seen outside"
    result: dict[str, object] = json.loads(done.stdout)
    return result


def test_a_full_disk_refuses_intents_and_still_takes_outcomes(said: dict[str, object]) -> None:
    assert said["intent"][0] == "ledger_unavailable"  # type: ignore[index]
    assert said["finished"] == said["runs"]


def test_the_refusal_names_the_disk(said: dict[str, object]) -> None:
    assert "/ledger" in said["intent"][1]  # type: ignore[index]


def test_a_full_disk_refuses_denials_too(said: dict[str, object]) -> None:
    assert said["denial"] == "ledger_unavailable"


def test_the_disk_was_full(said: dict[str, object]) -> None:
    assert said["free"] == 0


def test_the_last_words_are_there(said: dict[str, object]) -> None:
    assert said["last"] == "daemon.stopped"


def test_the_ledger_is_whole_afterwards(said: dict[str, object]) -> None:
    assert said["whole"] is True
