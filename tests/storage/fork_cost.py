"""A fork's cost by the size of what was saved: `sudo .venv/bin/python -m tests.storage.fork_cost` (docs/storage.md).

Processor time of the daemon, the launcher and all that they started, from creation to removal: no wall clock.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from immured import Client
from immured.client.snapshots import Snapshots
from immured.client.throwaway import ThrowawayDaemon
from tests.storage.conftest import PEER, as_peer
from tests.storage.forks import do, make_image, manifest_of

FORKS = 20
ROUNDS = 3
SIZES = (10, 1000, 10_000)
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def processor_ms(root: int) -> float:
    """What `root` and its descendants have used, with those that they have waited for."""
    used: dict[int, int] = {}
    parents: dict[int, int] = {}
    for one in Path("/proc").iterdir():
        if one.name.isdigit():
            try:
                fields = (one / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(one.name)] = int(fields[1])
            used[int(one.name)] = sum(int(field) for field in fields[11:15])
    below = {root}
    while grown := {one for one, parent in parents.items() if parent in below} - below:
        below |= grown
    return sum(used.get(one, 0) for one in below) * TICK_MS


def cost(daemon: ThrowawayDaemon, act: Callable[[], None], count: int) -> float:
    """Milliseconds of one, the least of ROUNDS: what else a host does can only add."""
    assert daemon.process is not None
    found = []
    for _ in range(ROUNDS):
        before = processor_ms(daemon.process.pid)
        for _ in range(count):
            act()
        found.append((processor_ms(daemon.process.pid) - before) / count)
    return min(found)


def fork(client: Client, manifest: dict[str, Any], snapshot: str | None) -> None:
    client.sandbox(manifest=manifest, snapshot=snapshot).remove()


def layered(daemon: ThrowawayDaemon, client: Client, scratch: Path) -> None:
    manifest = manifest_of(make_image(daemon, scratch, {"w": None}))
    print(f"layered root, nothing saved: {cost(daemon, lambda: fork(client, manifest, None), FORKS):.1f} ms")
    for size in SIZES:
        with client.sandbox(manifest=manifest) as sandbox:
            assert do(sandbox, [("mkdir", "/w/f", ""), ("fill", "/w/f", str(size))]) == ["done"] * 2
            Snapshots(client).save(sandbox.id, f"l{size}")
        used = cost(daemon, lambda: fork(client, manifest, f"l{size}"), FORKS)  # noqa: B023
        print(f"layered root, {size} files: {used:.1f} ms")

        def again() -> None:
            Snapshots(client).save(held.id, "again")
            Snapshots(client).remove("again")

        with client.sandbox(manifest=manifest, snapshot=f"l{size}") as held:
            print(f"layered root, {size} files: {cost(daemon, again, 2):.1f} ms for a save of a fork, and its removal")


def captured(daemon: ThrowawayDaemon) -> None:
    project = Path(tempfile.mkdtemp(prefix="immured-project-"))
    os.chown(project, PEER, PEER)
    manifest = {"schema": 1, "filesystem": {"capture": [{"path": str(project), "target": "/project"}]}}
    fill = 'i=0; while [ $i -lt "$0" ]; do d=/project/$((i / 100)); mkdir -p $d; echo $i > $d/$i; i=$((i + 1)); done'
    try:
        with as_peer(daemon) as peer:
            for size in SIZES:
                with peer.sandbox(manifest=manifest) as sandbox:
                    assert sandbox.exec(["/bin/sh", "-c", fill, str(size)]).exit_code == 0
                    sandbox.snapshot(f"c{size}")
                count = FORKS if size < 1000 else 5
                used = cost(daemon, lambda: fork(peer, manifest, f"c{size}"), count)  # noqa: B023
                print(f"captured directory, {size} files: {used:.1f} ms")
    finally:
        shutil.rmtree(project)


def main() -> None:
    with ThrowawayDaemon() as daemon, daemon.client() as client, tempfile.TemporaryDirectory() as scratch:
        layered(daemon, client, Path(scratch))
        captured(daemon)


if __name__ == "__main__":
    main()
