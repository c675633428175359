"""`make crash`: each kill that `make test` makes only as many of as fit its time. Exits 1 where anything was found, and
keeps what it was found in."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from immured.ledger.disk import set_append_only
from tests.crash.test_sandboxes import ROUNDS, kill_often, served

KILLS = 1000
ROOT = Path(__file__).parents[2]


def main() -> int:
    options = argparse.ArgumentParser(prog="crash", description=__doc__)
    options.add_argument("--rounds", type=int, default=ROUNDS, help="kills of the daemon while sandboxes live")
    options.add_argument("--kills", type=int, default=KILLS, help="kills of a process that appends to a ledger")
    chosen = options.parse_args()
    parts = {
        "the daemon, while sandboxes live": lambda directory: kill_daemons(directory, chosen.rounds),
        "what appends to a ledger": lambda directory: kill_writers(directory, chosen.kills),
    }
    failed = [name for name, part in parts.items() if not passed(name, part)]
    return 1 if failed else 0


def passed(name: str, part: Callable[[Path], object]) -> bool:
    """Says what it counted, or what went wrong and where that can be looked at."""
    directory = Path(tempfile.mkdtemp(prefix="immured-crash-"))
    directory.chmod(0o711)
    begun = time.monotonic()
    print(f"kill -9 of {name}", flush=True)
    try:
        found = part(directory)
    except Exception:  # whatever it is: the other part is still tried
        traceback.print_exc()
        print(f"FAILED after {time.monotonic() - begun:.0f} s; kept: {directory}", flush=True)
        return False
    print(f"nothing was lost or left in {time.monotonic() - begun:.0f} s: {found}", flush=True)
    for sealed in directory.rglob("*.jsonl"):
        with contextlib.suppress(OSError), sealed.open("rb") as file:
            set_append_only(file.fileno(), wanted=False)
    shutil.rmtree(directory)
    return True


def kill_daemons(directory: Path, rounds: int) -> object:
    with served(directory / "state") as state:
        return kill_often(state, rounds, say=lambda line: print(line, flush=True))


def kill_writers(directory: Path, kills: int) -> object:
    """In a process of its own, which forks."""
    command = [sys.executable, "-m", "tests.ledger.kills", str(directory / "state"), "--kills", str(kills)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=environment)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
