"""Opens the ledger of a state directory as a daemon does, with all that one learns from it: how long that took, and the
most memory that this process ever held.

    python -m bench.programs.opening STATE    # {"seconds": ..., "before_kib": ..., "peak_kib": ...}
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from immured.identity.authority import Authority
from immured.identity.keyring import Keyring
from immured.identity.replay import ReplayRecord
from immured.ledger.ledger import Ledger
from immured.service.policies import shipped_policy
from immured.service.recovery import Recovery


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Print what it took."""
    state = Path(sys.argv[1])
    recovery = Recovery(ReplayRecord(), Authority(Keyring(()), shipped_policy()), lambda: time.time_ns() // 1_000_000)
    before = _peak_kib()
    began = time.perf_counter()
    ledger = Ledger.open(state, keeper=recovery)
    took = time.perf_counter() - began
    peak = _peak_kib()
    ledger.close()
    sys.stdout.write(json.dumps({"seconds": took, "before_kib": before, "peak_kib": peak}) + "\n")


if __name__ == "__main__":
    main()
