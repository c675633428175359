"""Runs a second of one user's, while another floods the daemon with frames that no key signed, and while none does."""

from __future__ import annotations

from statistics import median
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from bench.rows.throughput import rate
from bench.subjects.daemon import native_client
from bench.subjects.flood import Flood
from immured.wire.keys import PrivateKey

__all__ = ["measure"]

KINDS: Final = ("unsigned", "wrong signature")
UID: Final = 4246
AT_LEAST: Final = 50_000
LONG_MS: Final = 1000
"""So long it takes to offer that many."""


def measure(ground: Ground) -> Part:
    known = PrivateKey.from_pem(ground.daemon.admin_key.read_bytes())
    client = native_client(ground.daemon)
    slice_ms = max(LONG_MS, ground.effort.slice_ms)
    alone: list[float] = []
    beside: dict[str, list[float]] = {kind: [] for kind in KINDS}
    offered: dict[str, int] = {}
    try:
        rate([client], 200)
        for turn in range(ground.effort.rounds):
            for number, kind in enumerate(KINDS):
                alone.append(rate([client], slice_ms))
                # Each time another user, who has all his credit.
                with Flood(ground.daemon, kind, known, uid=UID + 2 * turn + number) as flood:
                    beside[kind].append(rate([client], slice_ms))
                offered[kind] = max(flood.offered, offered.get(kind, 0))
    finally:
        client.end()
    worst = min(KINDS, key=lambda kind: median(beside[kind]))
    value = median(beside[worst]) / median(alone)
    how = f"{median(beside[worst]):.0f} against {median(alone):.0f} a second ({worst}, {offered[worst]} frames offered)"
    rows = "\n".join(f"| {kind}, {offered[kind]} frames offered | {median(beside[kind]):.0f} |" for kind in KINDS)
    text = f"| | runs a second |\n|---|---:|\n| nobody floods | {median(alone):.0f} |\n{rows}"
    failed = max(offered.values()) < AT_LEAST
    if failed:
        how = f"only {max(offered.values())} frames were offered; {AT_LEAST} make a flood"
    shown = Shown("flood", None if failed else value, how, {"alone": alone, "beside": beside}, failed=failed)
    return Part("Beside a flood", [shown], text)
