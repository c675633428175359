"""What the ledger says lives, against what the launcher says lives: at a daemon's start, before anybody is served.

Every difference is an entry. A sandbox that both know is adopted, or ended where its policy says so; one that the
launcher alone knows is ended; of one that the ledger alone knows the end is entered, measured where it was told
meanwhile, else as lost. Execs likewise.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from immured.errors import ImmuredError, Refused
from immured.isolation.launcher import LauncherLostError
from immured.isolation.outcome import result_fields
from immured.ledger import entry_types
from immured.service.context import Service, log
from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.execs import conclude_kept, enter_lost
from immured.service.sandboxes.keyboard import Keyboard
from immured.service.sandboxes.lifecycle import freeze, kill, watch, write_record
from immured.service.sandboxes.logs import Log
from immured.service.sandboxes.record import Record, RecordError, read_record, restore
from immured.service.sandboxes.recovery import OpenEntries, OpenEntry
from immured.service.sandboxes.sandbox import Restart, Sandbox
from immured.service.sandboxes.state import State
from immured.service.storage import volume_names
from immured.wire.messages import Receipt
from immured.wire.sockets import close_all

if TYPE_CHECKING:
    from immured.isolation.launcher_runs import KeptExec, KeptSandbox

__all__ = ["reconcile"]

_NOT_KEPT: Final = "it ended while no daemon was there"
_GO_ON_S: Final = 6.0
"""How long clients wait for those that go on: a keeper answers within 5 s (FREEZE_MS). One that does not is `busy`."""


async def reconcile(service: Service, opened: OpenEntries) -> None:
    """`opened`: what the ledger says. Call it once, with the launcher connected and nobody served yet."""
    launcher = service.launcher
    opened_by_id = {one.text("sandbox"): one for one in opened.sandboxes.values()}
    execs_by_id = {one.text("exec"): one for one in opened.execs.values()}
    still: list[asyncio.Task[None]] = []
    for kept in launcher.kept:
        await _meet(service, kept, opened_by_id, execs_by_id, still)
    for one in execs_by_id.values():
        await _exec_is_gone(service, one)
    for one in opened_by_id.values():
        await _sandbox_is_gone(service, one)
    for one in opened.commands.values():
        await _command_is_lost(service, one)
    launcher.adopted_all()
    if still:
        await asyncio.wait(still, timeout=_GO_ON_S)


async def _meet(
    service: Service,
    kept: KeptSandbox,
    opened: dict[str, OpenEntry],
    execs: dict[str, OpenEntry],
    still: list[asyncio.Task[None]],
) -> None:
    """One that the launcher knows. `still` gets who has it go on, where it stands still and nobody paused it."""
    try:
        record, values = read_record(kept.record)
    except RecordError as error:
        await _end_unknown(service, kept, None, error.message)
        return
    name = str(values.get("id"))
    entry = opened.pop(name, None)
    try:
        if entry is None:
            raise RecordError("names a sandbox that the ledger does not say lives")
        sandbox = _restored(service, kept, record, values, entry)
    except RecordError as error:
        record.close()
        if entry is not None:
            opened[name] = entry
        await _end_unknown(service, kept, name, error.message)
        return
    told = {one.number: one for one in kept.execs}
    written = {one.number: one for one in sandbox.execs.values()}
    sandbox.execs.clear()
    service.sandboxes.add(sandbox)
    ttl_ms = max(0, sandbox.expires_ms - service.clock())
    sandbox.lease = service.shares.adopted(sandbox.tenant, sandbox.manifest.limits, ttl_ms)
    volumes = volume_names(sandbox.manifest)
    if volumes:
        service.storage.volumes.hold(sandbox.tenant, volumes, sandbox.id)
        sandbox.on_over.append(lambda: service.storage.volumes.release(sandbox.id))
    if sandbox.snapshot is not None:
        service.storage.snapshots.hold(sandbox.tenant, sandbox.snapshot, sandbox.id)
        sandbox.on_over.append(lambda: service.storage.snapshots.release(sandbox.id))
    ending = sandbox.restart is Restart.END
    await _enter(
        service,
        entry_types.SANDBOX_ADOPTED,
        {
            "sandbox": sandbox.id,
            "intent": sandbox.intent,
            "state": sandbox.state.value,
            "restart": sandbox.restart.value,
            "ttl_ms": ttl_ms,
        },
    )
    watch(service, sandbox, service.launcher.adopt(sandbox.number))
    for number, one in written.items():
        intent = execs.get(one.id)
        if number in told and intent is not None:
            del execs[one.id]
            await _adopt_exec(service, sandbox, one, told.pop(number))
    for left in told.values():  # begun, and its intent never became durable: it was not let go
        close_all([left.log, left.event, left.stdin])
        service.launcher.kill(left.number)
        unknown = {
            "sandbox": sandbox.id,
            "number": str(left.number),
            "reason": "its intent was not durable; it was ended",
        }
        await _enter(service, entry_types.EXEC_LOST, unknown)
    if ending:
        kill(service, sandbox, "the daemon was restarted, and its policy is `end`")
        return
    if kept.frozen and sandbox.state is State.READY:
        still.append(service.task(_go_on(service, sandbox)))
    # What was cut off between a deed and its note (a resume) is not found so by the next daemon again.
    write_record(sandbox)


async def _go_on(service: Service, sandbox: Sandbox) -> None:
    """It stood still for what the daemon before did with it (a save, a pause half done), and nobody paused it.

    Where the kernel would not let it go on, it is paused, as it stands: then its owner can try.
    """
    with sandbox.still("resumed"):
        try:
            await freeze(service, sandbox, on=False)
        except Refused:
            return  # it ended meanwhile
        except ImmuredError as error:
            log.error("%s: %s", error.code, error.message)
            if sandbox.state is State.READY:
                sandbox.move(State.PAUSED)
                write_record(sandbox)


def _restored(
    service: Service, kept: KeptSandbox, record: Record, values: Mapping[str, Any], entry: OpenEntry
) -> Sandbox:
    sandbox = restore(values, kept.number)
    sandbox.record = record
    sandbox.intent = entry.seq
    sandbox.frozen = kept.frozen
    sandbox.state = State.PAUSED if kept.frozen and values.get("paused", True) else State.READY
    sandbox.expires_ms = service.clock() + (kept.ends_ns - time.monotonic_ns()) // 1_000_000
    return sandbox


async def _adopt_exec(service: Service, sandbox: Sandbox, one: Exec, kept: KeptExec) -> None:
    ending = service.launcher.adopt(kept.number)
    try:
        one.log = Log(kept.log, kept.event)
    except (OSError, ValueError) as error:
        os.close(kept.stdin)
        service.launcher.kill(kept.number)
        await enter_lost(service, sandbox.id, one.id, one.intent, f"its log cannot be read: {error}; it was ended")
        return
    sandbox.execs[one.id] = one
    if one.terminal:
        os.close(kept.stdin)
        one.keyboard = Keyboard(None, ends_input=False)
        one.keyboard.expect(service.launcher.terminal(one.number))
    else:
        one.keyboard = Keyboard(kept.stdin)
    await _enter(
        service,
        entry_types.EXEC_ADOPTED,
        {"sandbox": sandbox.id, "exec": one.id, "intent": one.intent},
    )
    # One that has not started was let go, and begins as soon as it gets to run (a busy host, a pause): its start was
    # acknowledged. Where GO never came, the end of the broker that would have said it ends it, as the end of the pipe.
    service.spawn(conclude_kept(service, sandbox, one, ending))


async def _end_unknown(service: Service, kept: KeptSandbox, name: str | None, why: str) -> None:
    """The launcher has what nobody can answer for."""
    for one in kept.execs:
        close_all([one.log, one.event, one.stdin])
    data: dict[str, object] = {"number": str(kept.number), "reason": f"{why}; it was ended"}
    if name is not None:
        data["sandbox"] = name
    log.warning("a sandbox of an earlier daemon was ended: %s", why)
    service.launcher.kill(kept.number)
    await _enter(service, entry_types.SANDBOX_LOST, data)


async def _sandbox_is_gone(service: Service, entry: OpenEntry) -> None:
    """The ledger alone knows it."""
    measured = None
    if entry.number is not None and entry.number in service.launcher.told:
        try:
            with await service.launcher.adopt(entry.number) as outcome:
                measured = result_fields(outcome.report)
        except (LookupError, LauncherLostError):
            measured = None
    data: dict[str, object] = {"sandbox": entry.text("sandbox"), "intent": entry.seq}
    if measured is None:
        kind, data["reason"] = entry_types.SANDBOX_LOST, _NOT_KEPT
    else:
        kind = entry_types.SANDBOX_ENDED
        data |= {name: measured[name] for name in ("cause", "usage", "events", "failure") if name in measured}
        if data.get("cause") == "timeout":
            data["cause"] = "expired"
    receipt = await _enter(service, kind, data, entry.seq)
    if receipt is not None:
        entry.settle(receipt)


async def _exec_is_gone(service: Service, entry: OpenEntry) -> None:
    receipt = None
    name, sandbox = entry.text("exec"), entry.text("sandbox")
    if entry.number is not None and entry.number in service.launcher.told:
        try:
            with await service.launcher.adopt(entry.number) as outcome:
                measured = result_fields(outcome.report)
        except (LookupError, LauncherLostError):
            measured = {}
        if measured:
            data: dict[str, object] = {"sandbox": sandbox, "exec": name, "intent": entry.seq}
            named = ("cause", "exit_code", "signal", "usage", "events", "failure")
            data |= {one: measured[one] for one in named if one in measured}
            receipt = await _enter(service, entry_types.EXEC_FINISHED, data, entry.seq)
    if receipt is None:
        receipt = await enter_lost(service, sandbox, name, entry.seq, "the daemon ended before the exec did")
    if receipt is not None:
        entry.settle(receipt)


async def _command_is_lost(service: Service, entry: OpenEntry) -> None:
    data = {
        "cmd": entry.text("cmd"),
        "intent": entry.seq,
        "reason": "the daemon ended before it was done; what of it was done is not known",
    }
    receipt = await _enter(service, entry_types.COMMAND_LOST, data, entry.seq)
    if receipt is not None:
        entry.settle(receipt)


async def _enter(service: Service, kind: str, data: Mapping[str, object], intent: int | None = None) -> Receipt | None:
    try:
        receipt = await service.ledger.entry(kind, service.actor, data, outcome_of=intent).durable()
    except Refused as error:
        log.error("%s: %s", error.code, error.message)
        return None
    return Receipt(receipt.seq, receipt.leaf)
