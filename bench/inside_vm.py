"""`python -m bench.inside_vm`: what needs a whole cgroup v2. Prints one line of JSON last."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from bench import measure
from bench.ground import Effort, Ground
from bench.programs import compiled
from bench.report import comparison
from bench.subjects import Subject, bubblewrap, others
from bench.subjects.daemon import Immured
from bench.subjects.spawned import floor
from bench.walls import table
from immured import Client
from immured.client.throwaway import ThrowawayDaemon

CALLER: Final = 65534
SETTLE_S: Final = 15.0


def main() -> int:
    """Both parts, one after the other."""
    options = argparse.ArgumentParser(prog="bench.inside_vm", description=__doc__)
    options.add_argument("--runs", type=int, default=10_000, help="runs that write files")
    options.add_argument(
        "--runners", action=argparse.BooleanOptionalAction, default=True, help="compare runners as well"
    )
    chosen = options.parse_args()
    with ExitStack() as stack:
        compared = runners(Ground(Effort.quick(), stack)) if chosen.runners else ""
        figures = {**dying(chosen.runs), "table": compared}
    print(json.dumps(figures))
    return 0


def dying(runs: int) -> dict[str, int]:
    """Runs that each leave a file of 16 KiB on a disk, and the cgroups that are there, or gone and not freed, then."""
    with ThrowawayDaemon() as daemon, daemon.client() as client, writable() as place:
        host = client.status()["host"]
        assert isinstance(host, dict)
        tenants = Path(str(host["cgroup"])) / "tenants"
        write_as_caller(daemon, place, runs)
        left = groups(tenants)
        deadline = time.monotonic() + SETTLE_S
        while left["dying"] > 0 and time.monotonic() < deadline:
            time.sleep(0.5)
            left = groups(tenants)
    return {**left, "runs": runs}


def groups(tenants: Path) -> dict[str, int]:
    """How many cgroups of our subtree live, and how many are removed but not freed."""
    figures = dict(line.split() for line in (tenants / "cgroup.stat").read_text().splitlines())
    return {"live": int(figures["nr_descendants"]), "dying": int(figures["nr_dying_descendants"])}


@contextmanager
def writable() -> Iterator[Path]:
    """A directory of the caller's on a disk, with the writer in it."""
    base = Path(tempfile.mkdtemp(prefix="immured-bench-", dir="/var/lib"))
    try:
        shutil.copy(compiled("writer"), base / "writer")
        os.chown(base, CALLER, CALLER)
        yield base
    finally:
        shutil.rmtree(base)


def write_as_caller(daemon: ThrowawayDaemon, place: Path, runs: int) -> None:
    """In a child: a tree of root's is never writable inside."""
    key = daemon.admin_key.read_bytes()
    child = os.fork()
    if child != 0:
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
            raise RuntimeError("the runs that write failed; they said why above")
        return
    status = 1
    try:
        os.setgroups([])
        os.setresgid(CALLER, CALLER, CALLER)
        os.setresuid(CALLER, CALLER, CALLER)
        manifest = {"schema": 1, "name": "writer", "filesystem": {"write": [str(place)]}}
        with Client(socket=str(daemon.socket), key=key, daemon_key=str(daemon.daemon_key)) as client:
            for number in range(runs):
                result = client.run([str(place / "writer"), str(place / f"file-{number}")], manifest=manifest)
                if result.exit_code != 0:
                    raise RuntimeError(f"{result.cause}: {result.failure or result.stderr.decode()}")
        status = 0
    except BaseException as error:  # noqa: BLE001 - a forked child reports and goes no further, whatever it was
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def runners(ground: Ground) -> str:
    """The runners that want a unified hierarchy, beside bwrap and the daemon: ratios, not times."""
    running, refused, _ = others.found(ground.stack)
    subjects: list[Subject] = [
        floor(),
        ground.equal,
        bubblewrap.bare(ground.bwrap),
        Immured(ground.daemon, native=True),
        *running,
    ]
    looked = ground.looked(subjects)
    entered = [ground.stack.enter_context(one) for one in subjects]
    series = measure.burst(entered, runs=30, block=10, longest_ns=5 * measure.LONGEST_BLOCK_NS)
    return "\n\n".join(
        [
            comparison("burst", series, "bwrap", looked),
            table(looked[1:]),
            *(f"* {one.name} refuses: {one.words}" for one in refused),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
