"""A batch in flight, for threads."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Self

from immured.client.batch_questions import Part, Reader, Summary
from immured.client.link import Deadline, Link
from immured.client.outcome import RunResult
from immured.client.session import Request
from immured.wire.messages import Data

__all__ = ["Batch"]


class Batch:
    """Iterate it for `(index, result)`, in the order in which runs end; or take `results`, all of them in the order in
    which they were asked for. What is iterated is signed only once a part's reply has come: then StreamMismatch is
    raised where it is not what the daemon signed."""

    def __init__(self, parts: Iterable[Part], sign: Callable[[Part], tuple[Link, Request]], deadline: Deadline) -> None:
        self._parts = iter(parts)
        self._sign = sign
        self._deadline = deadline
        self._results: dict[int, RunResult] = {}
        self._coming = self._all()
        self.summaries: list[Summary] = []
        """One for each command that it took, once its reply has come."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[int, RunResult]]:
        return self

    def __next__(self) -> tuple[int, RunResult]:
        return next(self._coming)

    @property
    def results(self) -> list[RunResult]:
        """Every run's result that there is, by index; waits for the end. A batch that was ended has fewer."""
        for _ in self._coming:
            pass
        return [self._results[index] for index in sorted(self._results)]

    @property
    def whole(self) -> bool:
        """Whether every run has begun and ended, as far as replies have come."""
        return all(one.ended is None for one in self.summaries)

    def close(self) -> None:
        """Stops taking part. The part that runs goes on, until the connection's end or `Client.kill`."""
        self._coming.close()

    def _all(self) -> Generator[tuple[int, RunResult], None, None]:
        for part in self._parts:
            yield from self._one(part)
            if self.summaries[-1].ended is not None:
                return

    def _one(self, part: Part) -> Iterator[tuple[int, RunResult]]:
        link, request = self._sign(part)
        reader = Reader(part)
        call = link.open(request)
        try:
            link.send(request.body, (), self._deadline)
            while True:
                event = link.next(call, self._deadline)
                if not isinstance(event, Data):
                    self.summaries.append(reader.finish(event))
                    return
                for index, result in reader.data(event):
                    self._results[index] = result
                    yield index, result
        finally:
            link.forget(call)
