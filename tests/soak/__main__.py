"""`make soak`: mixed load, and after each minute of it what the daemon holds at rest. Exits 1 where something grew."""

from __future__ import annotations

import argparse
import sys
import time

from immured.client.throwaway import ThrowawayDaemon
from tests.soak.figures import Held, held
from tests.soak.load import Load

MEMORY_SLACK_KIB = 4096
"""An allocator's pools and the kernel's lazily freed pages differ by so much from one look to the next."""


def main() -> int:
    options = argparse.ArgumentParser(prog="soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=30)
    options.add_argument("--rest", type=float, default=5, help="seconds of rest before each look")
    chosen = options.parse_args()
    looks, load = soak(max(3, round(chosen.minutes)), chosen.minutes * 60, chosen.rest, say=print)
    print(f"acts: {dict(load.acts)}")
    problems = [*grown(looks), *sorted(set(load.failures))]
    print("\n".join(problems) or "nothing grew")
    return 1 if problems else 0


def soak(rounds: int, seconds: float, rest: float, say: object = None) -> tuple[list[Held], Load]:
    """Load for `seconds` in all, in `rounds` parts; what was held after each, the first of which is the warm-up's."""
    looks: list[Held] = []
    with ThrowawayDaemon() as daemon:
        load = Load(daemon)
        for number in range(rounds):
            load.run(seconds / rounds)
            time.sleep(rest)
            looks.append(at_rest(daemon, min((look.processes for look in looks), default=0)))
            if callable(say):
                say(f"{number + 1}/{rounds}: {looks[-1].to_map()}", flush=True)
        # Nobody was answered by those: what they left undone may be too little to be seen to grow.
        load.failures += [line for line in daemon.log.read_text().splitlines() if "a task failed" in line]
    return looks, load


def at_rest(daemon: ThrowawayDaemon, processes: int) -> Held:
    """What it holds once no more of its cells live than at a rest before; as it is, where that does not come. On a busy
    host a cell that is on its way out, or one that is parked too many, has more descriptors than a leak."""
    until = time.monotonic() + 20
    while (look := held(daemon.state, daemon.pid)).processes > processes > 0 and time.monotonic() < until:
        time.sleep(0.5)
    return look


def grown(looks: list[Held], memory_slack: int = MEMORY_SLACK_KIB) -> list[str]:
    """What was more in each of the last looks than in all the early ones. A pool that once was larger is no growth."""
    third = max(1, len(looks) // 3)
    early, late = looks[:third], looks[-third:]
    found = []
    for name, slack in (
        ("memory", memory_slack),
        ("descriptors", 8),
        ("threads", 2),
        ("processes", 4),
        ("cgroups", 4),
        ("mounts", 0),
        ("disk", 65_536),
    ):
        most, least = max(getattr(one, name) for one in early), min(getattr(one, name) for one in late)
        if least > most + slack:
            found.append(f"{name} grew: at most {most} early, at least {least} late")
    return found


if __name__ == "__main__":
    sys.exit(main())
