#!/usr/bin/env python3
"""An agent's loop: create a sandbox, write code, run it, read the error, fix it, and accept what came of it.

    examples/agent.py PROJECT        # IMMURE_SOCKET and IMMURE_KEY say which daemon, and who you are

PROJECT is a directory of yours with a `numbers.txt` in it, a number a line.
The agent works in a sandbox that has it as a captured directory: what is written there goes to a layer of the sandbox's
own, and nothing of yours changes before the last step, which shows the change set and applies it as a whole. Whatever
the code does on the way, it does inside: no network, 256 MiB, ten seconds a run.

The `model` is a function from what it has seen to what it writes next. The one here is no language model: it writes a
program with two mistakes, reads Python's error messages, and takes Python's own advice ("Did you mean: ..."). Put yours
in its place.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from immured import Client
from immured.client import RunResult, Sandbox
from immured.errors import ImmuredError

ROUNDS = 5
LIMITS = {"memory": "256M", "wall": "10s", "pids": 64}

TASK = "report.py: print the mean and the largest of the numbers in numbers.txt, one a line"

FIRST_TRY = """\
import statistics
from pathlib import Path

numbers = [float(line) for line in Path("numbers.txt").read_text().split()]
print("mean", statistics.meen(numbers))
print("largest", mx(numbers))
"""


@dataclass(frozen=True)
class Attempt:
    """What was written, and how it ran."""

    code: str
    status: int | None
    output: str
    error: str


Model = Callable[[str, list[Attempt]], str]
"""The task, and all attempts so far, to the next code."""


def advised(task: str, attempts: list[Attempt]) -> str:  # noqa: ARG001 - a better model would read the task
    """Writes a first try, then follows the interpreter's advice. Raises RuntimeError where it has none."""
    if not attempts:
        return FIRST_TRY
    last = attempts[-1]
    wrong = re.search(r"(?:name|attribute) '(\w+)'.*Did you mean: '(\w+)'\?", last.error)
    if wrong is None:
        raise RuntimeError(f"no advice in: {last.error}")
    return re.sub(rf"\b{wrong[1]}\b", wrong[2], last.code)


def work(sandbox: Sandbox, project: Path, task: str, model: Model, say: Callable[[str], None] = print) -> list[Attempt]:
    """Attempts, until one runs. Everything happens in the sandbox. Raises RuntimeError after ROUNDS."""
    attempts: list[Attempt] = []
    program = project / "report.py"
    for round_ in range(1, ROUNDS + 1):
        code = model(task, attempts)
        sandbox.files.write(str(program), code.encode())
        result: RunResult = sandbox.exec(["python3", program.name], cwd=str(project), limits=LIMITS)
        attempts.append(Attempt(code, result.exit_code, result.stdout.decode(), result.stderr.decode()))
        if result.ok:
            say(f"round {round_}: it runs")
            return attempts
        last_line = attempts[-1].error.strip().rpartition("\n")[2]
        say(f"round {round_}: {result.cause}, {result.summary}: {last_line}")
    raise RuntimeError(f"no program that runs after {ROUNDS} rounds")


def main(project: Path, client: Client, say: Callable[[str], None] = print) -> str:
    """The whole of it; gives what the program printed."""
    manifest = {"schema": 1, "name": "agent", "class": "default", "filesystem": {"capture": [str(project)]}}
    with client.sandbox(manifest=manifest, labels={"made-by": "agent"}, ttl="15m") as sandbox:
        attempts = work(sandbox, project, TASK, advised, say)
        changes = sandbox.changes.list()
        for change in changes:
            say(sandbox.changes.diff(change.path).text())
        accepted = sandbox.changes.accept(as_listed=changes)
        say(f"accepted: {accepted.total} change(s)")
    return attempts[-1].output


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} PROJECT")
    try:
        with Client() as connected:
            print(main(Path(sys.argv[1]).resolve(), connected), end="")
    except RuntimeError as stuck:
        sys.exit(f"{stuck}\nThe project is as it was.")
    except ImmuredError as refused:
        sys.exit(f"{refused.code}: {refused.message}\nremedy: {refused.remedy}")
