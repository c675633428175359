"""The command line from a shell's point of view: the whole of `immure run -- true`, beside the whole of bwrap."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from bench import measure as take
from bench.bars import Shown
from bench.ground import Ground, Part
from bench.report import comparison
from bench.subjects import Subject, bubblewrap
from bench.subjects.spawned import Spawned

__all__ = ["measure"]


def measure(ground: Ground) -> Part:
    beside = Path(sys.executable).with_name("immure")
    executable = str(beside) if beside.exists() else shutil.which("immure")
    if executable is None:
        return Part(
            "The command line",
            [Shown("command", None, "no `immure` beside this Python, and none on PATH", failed=True)],
        )
    os.environ.update(  # of the C parent, and so of the command
        IMMURE_SOCKET=str(ground.daemon.socket),
        IMMURE_KEY=str(ground.daemon.admin_key),
        IMMURE_DAEMON_KEY=str(ground.daemon.daemon_key),
    )
    immure = Spawned("immure run", lambda command: [executable, "run", "--", *command], how=f"`{executable} run --`")
    subjects: list[Subject] = [ground.equal, bubblewrap.bare(ground.bwrap), immure]
    entered = [ground.stack.enter_context(subject) for subject in subjects]
    series = take.burst(entered, runs=ground.effort.commands, block=20)
    bwrap, bare, ours = series
    how = f"{ours.p50:.2f} ms against {bwrap.p50:.2f}; {ours.p50 / bare.p50:.2f} x `bwrap, bare`"
    shown = Shown("command", ours.p50 / bwrap.p50, how, {one.name: one.walls for one in series})
    text = comparison("from a shell", series, "bwrap") + "\n\nCPU: of `immure run` the command's own alone."
    return Part("The command line", [shown], text, {"command line": series})
