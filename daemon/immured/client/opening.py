"""What is awaited for something that is used in a block: `await` gives it, and `async with` gives it for the block."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Generic, TypeVar

__all__ = ["Opening"]

T = TypeVar("T", bound=AbstractAsyncContextManager[Any])


class Opening(Coroutine[Any, Any, T], Generic[T]):
    """A coroutine, in every way, that `async with` awaits by itself: its result is entered, and left."""

    def __init__(self, opened: Coroutine[Any, Any, T]) -> None:
        self._opened = opened
        self._left = AsyncExitStack()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opened.__await__()

    def send(self, value: Any) -> Any:
        return self._opened.send(value)

    def throw(self, *error: Any) -> Any:
        return self._opened.throw(*error)

    def close(self) -> None:
        self._opened.close()

    async def __aenter__(self) -> T:
        opened = await self._opened
        await self._left.enter_async_context(opened)
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._left.__aexit__(kind, error, trace)
