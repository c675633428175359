"""System calls inside and outside: what the filter costs each, and what being explained costs an open for writing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Final

from bench.bars import Shown
from bench.figures import difference
from bench.ground import Ground, Part
from bench.programs import compiled
from immured import Client

__all__ = ["JUDGED", "added_by_explanation", "measure"]

JUDGED: Final = "pread"
"""What "a system call that is always allowed" is here: one that does something. Beside it stand the others, and what a
filter of one instruction adds without a sandbox: 7 to 9 ns, a tenth of a call that only returns a number."""
BATCHES: Final = "25"
OUTSIDE: Final = "/dev/shm"
"""A tmpfs, as /tmp is inside."""
LEAST: Final = ", least"
Figures = Mapping[str, float]


def measure(ground: Ground) -> Part:
    program = compiled("calls")
    taken: dict[str, list[Figures]] = {}
    with ground.daemon.client() as client:
        places: dict[str, Callable[[], str]] = {
            "outside": lambda: _outside(program),
            "outside, a filter of one instruction": lambda: _outside(program, "filtered"),
            "bwrap": lambda: ground.equal.output(
                ["--ro-bind", str(program), "/tmp/calls", "--chdir", "/tmp", "/tmp/calls", BATCHES]
            ),
            "immured": lambda: _inside(client, program),
        }
        for _ in range(ground.effort.batches):
            for name, run in places.items():
                taken.setdefault(name, []).append(parse(run()))
        explains = _explains(client)
    calls = [name for name in taken["outside"][0] if not name.endswith(LEAST)]
    rows = ["| ns a call | " + " | ".join(calls) + " |", "|---|" + "---:|" * len(calls)]
    rows += [
        f"| {name} | " + " | ".join(f"{median(one[call] for one in figures):.1f}" for call in calls) + " |"
        for name, figures in taken.items()
    ]
    return Part("System calls", [_call(taken), _open(taken, explains=explains)], "\n".join(rows))


def parse(text: str) -> Figures:
    """`name median least` lines, in nanoseconds; the least is called `name, least`."""
    figures: dict[str, float] = {}
    for name, middle, least in (line.split() for line in text.splitlines()):
        figures |= {name: float(middle), name + LEAST: float(least)}
    return figures


def added_by_explanation(ours: list[Figures], theirs: list[Figures], kind: str = "") -> float:
    """Microseconds: how much more an open for writing costs than one for reading, here over there.

    There is the same filter without explanation; what else makes opens dearer (Landlock, a mount more) is in both.
    """
    here = [one["open-write" + kind] - one["open-read" + kind] for one in ours]
    there = [one["open-write" + kind] - one["open-read" + kind] for one in theirs]
    return difference(here, there) / 1000


def _call(taken: Mapping[str, list[Figures]]) -> Shown:
    def ratio(name: str, call: str) -> float:
        return median(one[call] / out[call] for one, out in zip(taken[name], taken["outside"], strict=True))

    control = ratio("outside, a filter of one instruction", JUDGED)
    how = (
        f"{JUDGED} of 4 KiB; a filter of one instruction, without any sandbox, {control:.2f}; "
        f"getppid, which only returns a number, {ratio('immured', 'getppid'):.2f} (that filter: "
        f"{ratio('outside, a filter of one instruction', 'getppid'):.2f})"
    )
    figures: dict[str, object] = {name: list(map(dict, batches)) for name, batches in taken.items()}
    return Shown("call", ratio("immured", JUDGED), how, figures)


def _open(taken: Mapping[str, list[Figures]], *, explains: bool) -> Shown:
    if not explains:
        return Shown("open", None, "this daemon does not explain: a refused write left no violation in the result")
    writes = {name: [one["open-write"] for one in taken[name]] for name in ("immured", "bwrap")}
    whole = difference(writes["immured"], writes["bwrap"]) / 1000
    least = added_by_explanation(taken["immured"], taken["bwrap"], LEAST)
    how = (
        f"beyond what an open for reading differs from bwrap's by; an open for writing differs by {whole:.2f} us; by "
        f"the quickest batch of each round, when nobody else wanted a processor, {least:.2f} us"
    )
    return Shown("open", added_by_explanation(taken["immured"], taken["bwrap"]), how, {"least_us": least})


def _outside(program: Path, *filtered: str) -> str:
    command = [str(program), BATCHES, *filtered]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, cwd=OUTSIDE).stdout


def _inside(client: Client, program: Path) -> str:
    result = client.run(["/tmp/calls", BATCHES], files={"/tmp/calls": program.read_bytes()}, cwd="/tmp")
    if result.exit_code != 0:
        raise RuntimeError(f"the calls do not run inside: {result}")
    return result.stdout.decode()


def _explains(client: Client) -> bool:
    """Whether a write that a wall refuses is named."""
    result = client.run(["/bin/sh", "-c", "echo > /usr/refused"])
    return len(result.violations) > 0
