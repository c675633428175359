"""`immure ledger prove` of what no checkpoint covers yet says how one comes to be, and `--ask` has one made."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.daemon import mortal
from tests.patience import PATIENCE_S

__all__ = ["mortal"]

pytestmark = pytest.mark.needs_root

IMMURE = str(Path(sysconfig.get_path("scripts")) / "immure")


def prove(daemon: ThrowawayDaemon, seq: int, *words: str) -> subprocess.CompletedProcess[str]:
    line = [IMMURE, "ledger", "prove", str(seq), "--state", str(daemon.state), *words]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def test_the_remedy_is_one(mortal: ThrowawayDaemon) -> None:
    with mortal.client() as client:
        receipt = client.run(["/bin/true"]).receipt
    assert receipt is not None
    refused = prove(mortal, receipt.seq)
    assert refused.returncode == 1
    assert f"no checkpoint covers entry {receipt.seq} yet" in refused.stderr
    assert "prove --ask" in refused.stderr
    asked = prove(mortal, receipt.seq, "--ask")
    assert asked.returncode == 0, asked.stderr
    assert asked.stdout.startswith("c2sp.org/tlog-proof@v1\n")
