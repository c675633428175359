"""What is measured: each subject starts a command behind some walls."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final, Protocol, Self

__all__ = ["COMMAND", "Sample", "Subject"]

COMMAND: Final = "/bin/true"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: `wall` and `cpu` in nanoseconds; `cpu` is None where only a total over many runs is known."""

    wall: int
    cpu: int | None


class Subject(Protocol):
    """`told`: the walls that its flags stand up and no look from inside can show; `how`: those flags in words."""

    name: str
    told: frozenset[str]
    how: str

    def probe(self) -> str:
        """What walls.PROBE prints behind its walls."""

    def run(self) -> Sample:
        """COMMAND, once."""

    def cpu_total(self) -> int | None:
        """CPU nanoseconds of all its processes so far, where samples do not carry them."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
