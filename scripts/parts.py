"""Parts of a run: commands, whose output goes to a file each and is shown as it comes, or whole once all are over."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Ended", "Part", "at_once", "processors", "shown"]

LOOK_S = 0.1
STOP_S = 10.0
_READ = 1 << 20


@dataclass(frozen=True)
class Part:
    """One command, and what its environment has besides ours."""

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """How a part ended, in words and as an exit status, and all that it said."""

    verdict: str
    status: int
    output: str


class _Running:
    """Its output is a file without a name and no pipe: who waits for its end does not wait for what it left behind."""

    def __init__(self, part: Part, root: Path) -> None:
        self._title = part.title
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this object
        self._shown = 0
        self._begun = time.monotonic()
        print(f"== {part.title}", flush=True)
        self._process = subprocess.Popen(
            part.command,
            cwd=root,
            env={**os.environ, **part.environment},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    @property
    def over(self) -> bool:
        return self._process.poll() is not None

    def show(self) -> None:
        """What was not shown yet."""
        while data := os.pread(self._log.fileno(), _READ, self._shown):
            self._shown += len(data)
            sys.stdout.buffer.write(data)
        sys.stdout.flush()

    def ended(self) -> Ended:
        """Once it is over."""
        status = self._process.wait()
        how = "passed" if status == 0 else f"exit {status}"
        verdict = f"== {self._title}: {how} in {time.monotonic() - self._begun:.0f} s"
        output = os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, 0)
        return Ended(verdict, status, output.decode(errors="replace"))

    def close(self) -> None:
        """Ends it, where it is not over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            if not self.over:
                self._process.terminate()
                self._process.wait(STOP_S)
        if not self.over:
            self._process.kill()
            self._process.wait()
        self._log.close()


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def shown(part: Part, root: Path) -> Ended:
    """Runs a part, and shows what it says as it comes."""
    with _running([part], root) as (one,):
        while not one.over:
            one.show()
            time.sleep(LOOK_S)
        one.show()
        ended = one.ended()
    print(ended.verdict, flush=True)
    return ended


def at_once(parts: Sequence[Part], root: Path, most: int) -> list[Ended]:
    """Runs parts side by side, at most so many, and shows what each said, whole, when those are over."""
    done: list[Ended] = []
    for start in range(0, len(parts), most):
        with _running(parts[start : start + most], root) as group:
            told: dict[int, Ended] = {}
            while len(told) < len(group):
                time.sleep(LOOK_S)
                for n, one in enumerate(group):
                    if n not in told and one.over:
                        told[n] = one.ended()
                        print(told[n].verdict, flush=True)
            for n, one in enumerate(group):
                print(f"\n== what it said: {parts[start + n].title}", flush=True)
                one.show()
                done.append(told[n])
    return done


@contextlib.contextmanager
def _running(parts: Sequence[Part], root: Path) -> Iterator[list[_Running]]:
    with contextlib.ExitStack() as stack:
        group: list[_Running] = []
        for part in parts:
            group.append(_Running(part, root))
            stack.callback(group[-1].close)
        yield group
