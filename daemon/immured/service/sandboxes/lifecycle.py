"""A sandbox's life, from its intent to its end, and what is entered of each step.

intent (sandbox.created) -----+ at the same time
CREATE, to a parked cell -----+
it lives -> sandbox.ready, durable -> the reply
it ends, of whatever -> sandbox.ended
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Awaitable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import ImmuredError, Refused
from immured.identity.actor import DEFAULT
from immured.isolation.abi import Cause, Stage
from immured.isolation.launcher import LauncherLostError
from immured.isolation.messages import Failed
from immured.isolation.outcome import result_fields
from immured.ledger import entry_types
from immured.service.context import Service, log
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import LIVE, State
from immured.wire.messages import Receipt

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled
    from immured.isolation.launcher_runs import Creation, Outcome
    from immured.ledger import Pending
    from immured.service.request import Request

__all__ = [
    "Birth",
    "end",
    "end_all",
    "failure_of",
    "freeze",
    "give_back",
    "kill",
    "until_over",
    "watch",
    "write_record",
]

OUTCOME_BYTES: Final = 8 << 10
"""Kept in the ledger for each live sandbox's last entry: it holds figures and a failure's message, no output."""
KILL_WAIT_S: Final = 15.0
_READY_WITHIN_S: Final = 0.05
"""So long sandbox.ready waits for an entry that it can go with."""
_ENDING: Final = ("cause", "reason", "usage", "events", "failure")


class Birth:
    """One sandbox on its way, once everything that can refuse it has been asked but the ledger and the launcher."""

    def __init__(self, service: Service, request: Request, sandbox: Sandbox, compiled: Compiled) -> None:
        self.sandbox = sandbox
        self._service = service
        self._request = request
        self._compiled = compiled
        self._creation: Creation | None = None
        self._unsent: Exception | None = None
        self._intent: Pending | None = None
        self._refused: Exception | None = None

    def begin(self, *, alone: bool) -> None:
        """Send the plan and queue the intent. Raises nothing."""
        service, sandbox = self._service, self.sandbox
        service.sandboxes.add(sandbox)
        record = sandbox.record
        assert record is not None  # noqa: S101 - made with the sandbox
        try:
            record.write(sandbox)  # whoever finds the sandbox finds out whose it is; the intent's index the ledger has
            self._creation = service.launcher.create(
                sandbox.number, self._request.channel.number, self._compiled.plan.pack(), record.fd
            )
        except (LauncherLostError, OSError) as error:
            self._unsent = error
        try:
            self._intent = service.ledger.entry(
                entry_types.SANDBOX_CREATED,
                self._request.actor.to_map(),
                {**self._request.to_map(), **created_data(sandbox)},
                reserves_outcome=OUTCOME_BYTES,
                alone=alone,
            )
            sandbox.intent = self._intent.receipt.seq
        except Exception as error:  # noqa: BLE001 - raised again once the cell is called off
            self._refused = error

    async def accepted(self) -> Receipt:
        """The intent is durable. Raises Refused where it never will be; then nothing of it is left."""
        try:
            if self._intent is None or self._refused is not None:
                raise self._refused or AssertionError
            await self._intent.durable()
        except Exception:
            await self._call_off()
            raise
        if self._creation is not None:
            watch(self._service, self.sandbox, self._creation.ended)
        return Receipt(*self._intent.receipt)

    async def finish(self) -> None:
        """It lives, and the entry that says so is on its way; or it does not, and `sandbox.ending` says why.

        The decision is the intent's, which is durable: nobody waits for this one, and every exec's own stands after it
        in the file. So it takes no sync of its own where another follows soon, as the first exec's does. Raises
        LauncherLostError, once the ledger holds it.
        """
        service, sandbox = self._service, self.sandbox
        if self._creation is None:
            error = self._unsent
            if isinstance(error, OSError):
                report = Failed(Stage.CELL, None, error.errno or errno.EIO, os.strerror(error.errno or errno.EIO))
                await end(service, sandbox, result_fields(report))
                return
            await end(service, sandbox, lost=str(error))
            raise error or AssertionError
        if not await self._creation.created or sandbox.state is not State.CREATING:
            await sandbox.over.wait()
            return
        sandbox.move(State.READY)
        with contextlib.suppress(Refused):  # then every exec is refused too
            data = {"sandbox": sandbox.id, "intent": sandbox.intent}
            service.ledger.entry(entry_types.SANDBOX_READY, service.actor, data, unhurried=True)
            asyncio.get_running_loop().call_later(_READY_WITHIN_S, service.ledger.flush)

    async def _call_off(self) -> None:
        sandbox, service = self.sandbox, self._service
        if self._creation is not None:
            service.launcher.kill(sandbox.number)
            with contextlib.suppress(LauncherLostError):
                (await self._creation.ended).close()
        sandbox.move(State.FAILED)
        service.sandboxes.ended(sandbox)
        service.sandboxes.forget(sandbox)
        give_back(sandbox)
        sandbox.over.set()


def created_data(sandbox: Sandbox) -> dict[str, object]:
    """What sandbox.created says. Of the environment only the names: values may be secrets."""
    data: dict[str, object] = {
        "sandbox": sandbox.id,
        "number": str(sandbox.number),  # 64 bits; the ledger's integers have 53
        "tenant": sandbox.tenant,
        "manifest": sandbox.manifest.digest,
        **({} if sandbox.manifest_entry is None else {"manifest_entry": sandbox.manifest_entry}),
        "plan": sandbox.plan,
        "enforcement": sandbox.enforcement,
        "ttl_ms": sandbox.expires_ms - sandbox.created_ms,
        "restart": sandbox.restart.value,
    }
    if sandbox.manifest.given:
        data["parameters"] = dict(sandbox.manifest.given)
    if sandbox.name is not None:
        data["name"] = sandbox.name
    if sandbox.project != DEFAULT:
        data["project"] = sandbox.project
    if sandbox.labels:
        data["labels"] = sandbox.labels
    if sandbox.env:
        data["env"] = tuple(sandbox.env)
    return data


def watch(service: Service, sandbox: Sandbox, ending: Awaitable[Outcome]) -> None:
    """See it to its end, and enter that."""
    service.spawn(_see_to_its_end(service, sandbox, ending))


async def _see_to_its_end(service: Service, sandbox: Sandbox, ending: Awaitable[Outcome]) -> None:
    try:
        outcome = await ending
    except LauncherLostError as error:
        await end(service, sandbox, lost=error.message)
        return
    outcome.close()
    await end(service, sandbox, result_fields(outcome.report))


async def end(
    service: Service, sandbox: Sandbox, measured: Mapping[str, object] | None = None, *, lost: str | None = None
) -> None:
    """It is over: `measured` says how, or it is `lost`, and why. The entry is durable, or never will be, after this."""
    if not sandbox.live:
        return
    measured = dict(measured or {})
    if measured.get("cause") == "timeout":
        measured["cause"] = "expired"
    if measured.get("cause") == "killed" and sandbox.reason is not None:
        measured["reason"] = sandbox.reason
    ending: dict[str, object] = {name: measured[name] for name in _ENDING if name in measured}
    if lost is not None:
        ending = {"cause": "lost", "reason": lost}
    sandbox.ending = ending
    sandbox.ended_ms = service.clock()
    sandbox.move(State.FAILED if measured.get("cause") == "setup_failed" else State.ENDED)
    service.sandboxes.ended(sandbox)
    give_back(sandbox)
    kind = entry_types.SANDBOX_ENDED if lost is None else entry_types.SANDBOX_LOST
    data = {"sandbox": sandbox.id, "intent": sandbox.intent, **ending}
    try:
        entry = service.ledger.entry(kind, service.actor, data, outcome_of=sandbox.intent)
        durable = await entry.durable()
    except Refused as error:
        log.error("the end of %s is not in the ledger: %s", sandbox.id, error.message)
    else:
        sandbox.outcome = Receipt(durable.seq, durable.leaf)
    finally:
        sandbox.over.set()


def kill(service: Service, sandbox: Sandbox, reason: str) -> None:
    """Have it end. Nothing happens where it is over or told so already; the ledger cannot keep anybody from it."""
    if sandbox.state not in LIVE or sandbox.state is State.ENDING:
        return
    sandbox.reason = reason
    sandbox.move(State.ENDING)
    with contextlib.suppress(LauncherLostError):
        service.launcher.kill(sandbox.number, Cause.KILLED)


async def until_over(sandboxes: Iterable[Sandbox], seconds: float = KILL_WAIT_S) -> list[Sandbox]:
    """Wait until they are over, all together so long at most. Those that are not yet."""
    sandboxes = list(sandboxes)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for one in sandboxes:
                await one.over.wait()
    return [one for one in sandboxes if not one.over.is_set()]


async def end_all(service: Service, reason: str) -> None:
    """The daemon stops, and its sandboxes with it."""
    living = [one for one in service.sandboxes if one.live]
    for one in living:
        kill(service, one, reason)
    left = await until_over(living)
    if left:
        log.error("%d sandboxes did not end in time; the next start records them as lost", len(left))


def failure_of(sandbox: Sandbox) -> ImmuredError:
    """Why it never lived, as an error."""
    failure = sandbox.ending.get("failure")
    if isinstance(failure, Mapping):
        details = {"sandbox": sandbox.id, **{name: failure[name] for name in ("stage", "path") if name in failure}}
        return Refused(str(failure["code"]), str(failure["message"]), str(failure["remedy"]), details=details)
    return Refused(
        "wrong_state",
        f"the sandbox {sandbox.id} ended before it was ready",
        "`sandbox.show` says why; create another",
        details={"sandbox": sandbox.id},
    )


async def freeze(service: Service, sandbox: Sandbox, *, on: bool) -> None:
    """Stop its processes, or let them go on, and its state is what it was; call it within `Sandbox.still`.

    Raises Refused `wrong_state` where it ended meanwhile, ImmuredError where the kernel would not.
    """
    try:
        await service.launcher.freeze(sandbox.number, on)
    except LookupError:
        raise sandbox.ended_meanwhile() from None
    except OSError as error:
        raise ImmuredError(
            "internal", f"{sandbox.id} could not be {'paused' if on else 'resumed'}: {error.strerror}", "try again"
        ) from error
    sandbox.frozen = on
    sandbox.require(State.READY, State.PAUSED)


def write_record(sandbox: Sandbox) -> None:
    """How it is now, for a later broker. Where the host has no memory for that, what was written before stands."""
    try:
        if sandbox.record is not None:
            sandbox.record.write(sandbox)
    except OSError as error:
        log.error("the record of %s could not be written: %s", sandbox.id, error)


def give_back(sandbox: Sandbox) -> None:
    """What it held while it lived. Twice is once."""
    if sandbox.record is not None:
        sandbox.record.close()
        sandbox.record = None
    if sandbox.lease is not None:
        sandbox.lease.release()
    for one in sandbox.on_over:
        one()
    sandbox.on_over.clear()
