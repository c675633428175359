"""A process that appends from many threads is killed over and over, and nothing that it acknowledged is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS, FEWEST, PATIENCE_S = 40, 20, 280
"""A thousand take some minutes: `make crash`."""


def test_as_many_kills_as_the_time_allows_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.ledger.kills", str(tmp_path / "state")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [*command, "--kills", "1000", "--seconds", str(SECONDS), "--fewest", str(FEWEST)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] >= FEWEST
    assert found["acknowledged"] > 100
    assert found["entries"] >= found["acknowledged"]
    assert found["segments"] > 0
