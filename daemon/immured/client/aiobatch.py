"""A batch in flight, for asyncio."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from immured.client.aiolink import AsyncLink
from immured.client.batch_questions import Part, Reader, Summary
from immured.client.outcome import RunResult
from immured.client.session import Request
from immured.wire.messages import Data

__all__ = ["AsyncBatch"]


class AsyncBatch:
    """`Batch` for asyncio: iterate it with `async for`, or await `results()`."""

    def __init__(self, parts: Iterable[Part], sign: Callable[[Part], Awaitable[tuple[AsyncLink, Request]]]) -> None:
        self._parts = iter(parts)
        self._sign = sign
        self._results: dict[int, RunResult] = {}
        self._coming = self._all()
        self.summaries: list[Summary] = []
        """As `Batch.summaries`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, RunResult]:
        return await anext(self._coming)

    async def results(self) -> list[RunResult]:
        """As `Batch.results`."""
        async for _ in self._coming:
            pass
        return [self._results[index] for index in sorted(self._results)]

    @property
    def whole(self) -> bool:
        """As `Batch.whole`."""
        return all(one.ended is None for one in self.summaries)

    async def close(self) -> None:
        """As `Batch.close`."""
        await self._coming.aclose()

    async def _all(self) -> AsyncGenerator[tuple[int, RunResult], None]:
        for part in self._parts:
            link, request = await self._sign(part)
            reader = Reader(part)
            call = link.open(request)
            try:
                await link.send(request.body, ())
                while isinstance(event := await link.next(call), Data):
                    for index, result in reader.data(event):
                        self._results[index] = result
                        yield index, result
                self.summaries.append(reader.finish(event))
            finally:
                link.forget(call)
            if self.summaries[-1].ended is not None:
                return
