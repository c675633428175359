"""A command started by a small C parent through vfork and exec: the floor, and every tool that is a command."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from bench.programs import Answering, compiled
from bench.subjects import COMMAND, Sample
from bench.walls import PROBE

__all__ = ["PROGRAM", "Spawned", "Words", "floor"]

Words = Callable[[Sequence[str]], list[str]]
"""Of a command: the words that run it behind the walls."""

PROGRAM = "<descriptor of the program>"
PROBE_SECONDS = 60


class Spawned:
    """`program`: what every run reads from the descriptor that stands for PROGRAM; `uid`: whose the runs are, the
    caller's by default."""

    def __init__(
        self,
        name: str,
        words: Words,
        *,
        told: Iterable[str] = (),
        how: str = "",
        program: bytes | None = None,
        uid: int | None = None,
    ) -> None:
        self.name = name
        self.told = frozenset(told)
        self.how = how
        self._words = words
        self._program = program
        self._uid = uid
        self._asked: Answering | None = None

    def probe(self) -> str:
        return self.output(["/bin/sh", "-c", PROBE])

    def output(self, command: Sequence[str]) -> str:
        """What a command prints behind these walls. CalledProcessError: they refuse it."""
        with self._opened() as descriptors:
            return subprocess.run(
                self._with(descriptors, command),
                check=True,
                capture_output=True,
                text=True,
                timeout=PROBE_SECONDS,
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                cwd="/",
                user=self._uid,
                group=self._uid,
                extra_groups=None if self._uid is None else [],
            ).stdout

    def parent(self) -> Answering:
        """One more C parent of these runs; the caller ends it."""
        with self._opened() as descriptors:
            rewound = str(descriptors[0]) if descriptors else "-"
            uid = "-" if self._uid is None else str(self._uid)
            command = [str(compiled("spawn")), rewound, uid, *self._with(descriptors, [COMMAND])]
            return Answering(self.name, command, descriptors=descriptors)

    @contextmanager
    def _opened(self) -> Iterator[list[int]]:
        """A descriptor of the program, with an offset of its own: two readers of one would each get a part."""
        if self._program is None:
            yield []
            return
        with tempfile.TemporaryFile() as file:
            file.write(self._program)
            file.flush()
            file.seek(0)
            yield [file.fileno()]

    def _with(self, descriptors: Sequence[int], command: Sequence[str]) -> list[str]:
        return [str(descriptors[0]) if word == PROGRAM else word for word in self._words(command)]

    def __enter__(self) -> Self:
        self._asked = self.parent()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._asked is not None
        self._asked.end()

    def run(self) -> Sample:
        assert self._asked is not None
        self._asked.ask()
        return Sample(*self._asked.answer())

    def cpu_total(self) -> int | None:
        return None


def floor() -> Spawned:
    """The command itself, behind no wall at all."""
    return Spawned("floor", list, how="vfork, exec, wait: the physics")
