"""One command on its way through a cell, in a sandbox of its own or in one that lives: prepared while its intent goes
to the ledger, let go when that is durable, seen to its end, and its outcome recorded before it is answered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from immured.errors import ImmuredError, Refused
from immured.isolation.abi import Cause, Stage
from immured.isolation.launcher import LauncherLostError, Outcome
from immured.isolation.messages import Failed
from immured.service.conclusion import PayloadStreams, conclude
from immured.service.executables import executables
from immured.service.request import Answer
from immured.service.run_records import outcome_data
from immured.wire.messages import Receipt

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled
    from immured.isolation.launcher_runs import Pinned
    from immured.isolation.pinned import Executable
    from immured.ledger import Pending
    from immured.service.arguments import RunArguments
    from immured.service.context import Service
    from immured.service.request import Request

__all__ = ["Execution", "Live", "Words"]


class Live(Protocol):
    """What is executed, as the daemon's books have it."""

    detach: bool

    @property
    def number(self) -> int:
        """The launcher's name for it."""

    @property
    def killed(self) -> bool:
        """Whether it was told to end."""

    @property
    def names(self) -> Mapping[str, str]:
        """What entries and results call it."""

    def kill(self, cause: Cause = ...) -> None:
        """End it; nothing happens once it is over."""

    def let_go(self) -> None:
        """It may run from now on."""

    def close(self, result: Mapping[str, object] | None) -> None:
        """It is over. `result`: what is said of it; None where there is nothing to say."""


@dataclass(frozen=True, slots=True)
class Words:
    """The names of its entries."""

    accepted: str
    finished: str
    lost: str


class Execution:
    """One of them, once everything that can refuse it has been asked but the ledger.

    `send` gives the launcher the plan and the payload's ends; `data` is the intent's.
    """

    def __init__(
        self,
        service: Service,
        request: Request,
        arguments: RunArguments,
        compiled: Compiled,
        live: Live,
        streams: PayloadStreams,
        *,
        words: Words,
        data: Mapping[str, object],
        send: Callable[[], Awaitable[Outcome]],
        log: int | None = None,
    ) -> None:
        self._service = service
        self._request = request
        self._arguments = arguments
        self._compiled = compiled
        self._live = live
        self._streams = streams
        self._words = words
        self._data = data
        self._send = send
        self._log = log
        self._ending: Awaitable[Outcome] | None = None
        self._pinned: Awaitable[Pinned | None] | None = None
        self._executables: tuple[Executable, ...] = ()
        self._unsent: LauncherLostError | OSError | None = None
        self._intent: Pending | None = None
        self._allowed: Receipt | None = None
        self._refused: Exception | None = None
        self._result: dict[str, object] | None = None

    def begin(self) -> None:
        """Send the plan and queue the intent; where that is durable at once, let it go. Raises nothing.

        Of a plan with a PIN the intent names what will be executed, and so comes later.
        """
        service, request, live = self._service, self._request, self._live
        service.at_work += 1
        live.detach = self._arguments.detach
        if not live.detach:
            request.channel.on_closed[live] = live.kill
        try:
            self._ending = self._send()
            if self._compiled.manifest.command.pin:
                self._pinned = service.launcher.pinned(live.number)
        except (LauncherLostError, OSError) as error:
            self._unsent = error
        self._streams.close_payload_ends()
        request.descriptors.close()
        if self._pinned is None:
            self._enter()

    def _enter(self) -> None:
        """Queue the intent."""
        service, request = self._service, self._request
        try:
            self._intent = service.ledger.entry(
                self._words.accepted,
                request.actor.to_map(),
                self._data,
                reserves_outcome=True,
                alone=service.alone,
            )
            if self._intent.is_durable():
                self._allow(self._intent)
        except Exception as error:  # noqa: BLE001 - raised again once the cell is called off
            self._refused = error

    async def finish(self) -> Answer:
        """Go once the intent is durable; see it to its end, and the outcome into the ledger."""
        try:
            intent = await self._until_allowed()
            outcome = await self._until_over(intent)
            return await self._conclude(intent, outcome)
        finally:
            self._live.kill()  # unless it is over, as it is if nothing went wrong
            self._request.channel.on_closed.pop(self._live, None)
            self._streams.close()
            if self._log is not None:
                os.close(self._log)
            self._live.close(self._result)
            self._service.at_work -= 1

    async def _until_allowed(self) -> Receipt:
        """The intent's receipt, once it is durable. Raises Refused, and nothing will run, where it never will be."""
        try:
            if self._pinned is not None:
                self._executables = await executables(self._service.digests, self._compiled, self._pinned) or ()
                self._data = {**self._data, "executables": [one.to_map() for one in self._executables]}
                self._enter()
            if self._intent is None or self._refused is not None:
                raise self._refused or AssertionError
            await self._intent.durable()
        except Exception:
            await self._call_off()
            raise
        return self._allowed or self._allow(self._intent)

    def _allow(self, intent: Pending) -> Receipt:
        """The intent is durable: from here on the command has acted, and its payload may."""
        self._request.acted = True
        self._request.claim.intent = self._allowed = Receipt(*intent.receipt)
        if self._ending is not None and not self._live.killed:
            self._live.let_go()
            self._service.launcher.go(self._live.number)
        return self._allowed

    async def _until_over(self, intent: Receipt) -> Outcome:
        """How it ended. Raises LauncherLostError, and the ledger says so too."""
        try:
            if self._unsent is not None:
                raise self._unsent
            assert self._ending is not None  # noqa: S101 - else `_unsent` says why
            return await self._ending
        except LauncherLostError as error:
            data = {**self._live.names, "intent": intent.seq, "reason": error.message}
            with contextlib.suppress(Refused):
                lost = self._service.ledger.entry(self._words.lost, self._service.actor, data, outcome_of=intent.seq)
                durable = await lost.durable()
                self._request.claim.outcome = Receipt(durable.seq, durable.leaf)
            raise
        except OSError as error:
            return Outcome(Failed(Stage.CELL, None, error.errno or 0, os.strerror(error.errno or 0)))

    async def _call_off(self) -> None:
        """There is no durable intent, so nothing may run: have the cell torn down."""
        if self._ending is not None:
            self._live.kill()
            with contextlib.suppress(LauncherLostError):
                self._request.channel.dispose((await self._ending).files.values())

    async def _conclude(self, intent: Receipt, outcome: Outcome) -> Answer:
        service, names = self._service, self._live.names
        result, records, collected = await conclude(
            service,
            self._request.channel,
            self._request.command.nonce,
            self._arguments,
            self._compiled,
            names,
            self._streams,
            outcome,
            self._log,
        )
        data = outcome_data(intent.seq, result, records, collected, names)
        if self._executables:
            result["executables"] = [one.to_map() for one in self._executables]
        try:
            finished = await service.ledger.entry(
                self._words.finished,
                service.actor,
                data,
                outcome_of=intent.seq,
                alone=service.alone,
            ).durable()
        except Refused as error:
            raise ImmuredError(
                error.code,
                f"{' '.join(names.values())} ran and ended ({result['cause']}), and the ledger was not told: "
                f"{error.message}",
                error.remedy,
                details={**names, "cause": result["cause"]},
            ) from error
        self._result = result
        self._request.claim.outcome = receipt = Receipt(finished.seq, finished.leaf)
        return Answer(result, receipt, intent)
