"""Has the ledger let go of what is older than the operator keeps, once every copy has it. Runs never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.ledger.retention import CannotRetire
from immured.service.context import log

if TYPE_CHECKING:
    from immured.ledger import Ledger

__all__ = ["Retaining"]

_EVERY_S: Final = 3_600.0
_AGAIN_S: Final = 60.0
_LEAST_S: Final = 0.25


class Retaining:
    """Looks once an hour, or four times in the time that is kept; sooner where something was in the way."""

    def __init__(
        self, ledger: Ledger, retain_ms: int | None, held: Callable[[], int | None], unfixed: str = ""
    ) -> None:
        """`retain_ms`: None for everything. `held`: how many entries every copy has; None where there are no copies.
        `unfixed`: why what is sealed could not be made append-only."""
        self.unfixed = unfixed
        self._ledger, self._retain_ms, self._held = ledger, retain_ms, held
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.failure = ""
        """Why what is older is still there; empty where it is not."""

    def start(self) -> None:
        """Begin, on the running loop."""
        if self._retain_ms is not None:
            self._task = asyncio.get_running_loop().create_task(self._look(self._retain_ms))

    async def stop(self) -> None:
        """End, after the file that is being removed."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _look(self, retain_ms: int) -> None:
        every = max(_LEAST_S, min(_EVERY_S, retain_ms / 4_000))
        pause = min(every, _AGAIN_S)  # the copies are looked at first
        while not await self._stopped_within(pause):
            self._note(await self._retire(retain_ms))
            pause = min(every, _AGAIN_S) if self.failure else every

    async def _retire(self, retain_ms: int) -> str:
        before = time.time_ns() - retain_ms * 1_000_000
        try:
            gone = await asyncio.to_thread(self._ledger.retire, before, self._held(), self._going_on)
        except (CannotRetire, OSError) as error:
            return str(error)
        except Refused as refused:
            return refused.message
        if gone:
            log.info("removed %d sealed files of the ledger, up to %s", len(gone), gone[-1])
        return ""

    def _note(self, failure: str) -> None:
        if failure and failure != self.failure:
            log.warning("what is older than [ledger] retain stays in the ledger: %s", failure)
        self.failure = failure

    def _going_on(self) -> bool:
        return not self._stopping.is_set()

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()
