"""Execs in sandboxes that live: those that end with their connection, and those that are kept.

An attached one is executed as a run is (`service.execution`). A kept one's warden writes its output into a log; it is
answered as soon as it may run, and seen to its end here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Cause
from immured.isolation.compile_sandbox import ExecSpec, compile_exec
from immured.isolation.launcher import LauncherLostError
from immured.isolation.outcome import result_fields
from immured.isolation.violations import violation_rows
from immured.ledger import entry_types
from immured.manifest.limits import tighten
from immured.service.context import Service, log
from immured.service.descriptors import check_descriptors
from immured.service.executables import executables
from immured.service.execution import Execution, Words
from immured.service.request import Answer, Request
from immured.service.run_records import bounded_violations, intent_data
from immured.service.sandboxes.arguments import ExecArguments
from immured.service.sandboxes.exec import Exec, ExecState, new_id
from immured.service.sandboxes.keyboard import Keyboard
from immured.service.sandboxes.lifecycle import write_record
from immured.service.sandboxes.logs import Log
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import State
from immured.service.streams import open_streams
from immured.service.terminals import TerminalStreams
from immured.wire.messages import Receipt, data_body
from immured.wire.sockets import close_all

if TYPE_CHECKING:
    from immured.isolation.compile import Compiled
    from immured.isolation.launcher_runs import KeptFds, Outcome, Pinned
    from immured.service.conclusion import PayloadStreams

__all__ = ["MAX_EXECS", "begin", "conclude_kept", "find"]

MAX_EXECS: Final = 256
"""That live in one sandbox at a time."""
KEPT_ENDED: Final = 32
"""Of those that are over, whose results and logs stay to be asked for."""

_WORDS: Final = Words(entry_types.EXEC_ACCEPTED, entry_types.EXEC_FINISHED, entry_types.EXEC_LOST)
_NOT_HELD: Final = ("stdout", "stderr", "files")
_ENDING: Final = ("cause", "exit_code", "signal", "usage", "events", "failure")


@dataclass(slots=True, eq=False)
class LiveExec:
    """See `execution.Live`."""

    service: Service
    sandbox: Sandbox
    exec: Exec
    detach: bool = False

    @property
    def number(self) -> int:
        """The launcher's name for it."""
        return self.exec.number

    @property
    def killed(self) -> bool:
        """Whether it was told to end."""
        return self.exec.killed

    @property
    def names(self) -> Mapping[str, str]:
        """What entries and results call it."""
        return {"sandbox": self.sandbox.id, "exec": self.exec.id}

    def kill(self, cause: Cause = Cause.KILLED) -> None:
        """End it; nothing happens once it is over."""
        self.exec.killed = True
        if self.exec.live:
            with contextlib.suppress(LauncherLostError):
                self.service.launcher.kill(self.exec.number, cause)

    def let_go(self) -> None:
        """Its intent is durable."""
        self.exec.state = ExecState.RUNNING

    def close(self, result: Mapping[str, object] | None) -> None:
        """It is over."""
        one = self.exec
        one.state = ExecState.ENDED
        one.ended_ms = self.service.clock()
        one.result = {name: value for name, value in (result or {}).items() if name not in _NOT_HELD}
        one.over.set()
        if one.log is not None:
            one.log.wake()
        one.let_go_of_log()
        _forget_oldest(self.sandbox)


def begin(service: Service, request: Request, sandbox: Sandbox, arguments: ExecArguments) -> Awaitable[Answer]:
    """Send its plan and queue its intent; what follows on the connection finds it there. Raises Refused where nothing
    was begun."""
    actor = request.actor
    sandbox.require(State.READY)
    sandbox.require_free()
    run = arguments.run
    check_descriptors(request.descriptors.fds, run.fds)
    if sum(one.live for one in sandbox.execs.values()) >= MAX_EXECS:
        raise Refused("busy", f"{MAX_EXECS} execs live in {sandbox.id}, which is the bound", "wait until some ended")
    name = new_id()
    env = {**sandbox.env, **({b"TERM": arguments.term} if arguments.terminal else {}), **run.env}
    spec = ExecSpec(
        sandbox=sandbox.id,
        exec=name,
        argv=run.argv,
        tenant=sandbox.tenant,
        persona=actor.persona,
        env=env,
        cwd=sandbox.cwd if run.cwd is None else run.cwd,
        collect=tuple(path.encode() for path in run.collect),
        limits=run.limits,
        passed=frozenset(run.fds),
        terminal=arguments.terminal,
    )
    compiled = compile_exec(sandbox.manifest, spec, service.launcher.facts, profiles=service.state.config.profiles)
    if run.detach and compiled.manifest.limits.output is not None:
        raise Refused(
            "unsupported_limit",
            "limits.output cannot be enforced on a detached exec: its log overwrites what is oldest, and never ends it",
            "leave limits.output out, or stay attached",
            details={"field": "limits.output"},
        )
    service.shares.exec(sandbox.tenant, compiled.manifest.limits)
    one = Exec(
        number=service.launcher.new_number(),
        id=name,
        key_id=actor.key_id,
        uid=actor.uid,
        command=run.shown,
        started_ms=service.clock(),
        kept=run.detach,
        terminal=arguments.terminal is not None,
        enforcement=compiled.enforcement,
        limits=run.limits,
    )
    live = LiveExec(service, sandbox, one)
    if run.detach:
        return _keep(service, request, arguments, compiled, live)
    return _attach(service, request, arguments, compiled, live)


def find(sandbox: Sandbox, name: str) -> Exec:
    """Raises Refused `not_found`."""
    one = sandbox.execs.get(name)
    if one is None:
        raise Refused(
            "not_found",
            f"no exec of {sandbox.id} is called {name[:64]!r}",
            "`sandbox.execs` shows those that there are",
            details={"sandbox": sandbox.id, "exec": name[:64]},
        )
    return one


def _attach(
    service: Service, request: Request, arguments: ExecArguments, compiled: Compiled, live: LiveExec
) -> Awaitable[Answer]:
    run = replace(arguments.run, stream=True) if live.exec.terminal else arguments.run
    streams: PayloadStreams
    limit = compiled.manifest.limits.output
    if live.exec.terminal:
        terminal = streams = TerminalStreams(
            request.channel,
            request.command.nonce,
            limit=limit,
            on_limit=lambda: live.kill(Cause.OUTPUT_LIMIT),
            feeds=service.feeds,
        )
        terminal.type(run.stdin or b"")
    else:
        terminal = None
        streams = open_streams(service.feeds, request, run, limit, lambda: live.kill(Cause.OUTPUT_LIMIT))
    if run.stream:
        request.channel.send(data_body(request.command.nonce, "exec", live.exec.id.encode()))
    live.sandbox.execs[live.exec.id] = live.exec

    def send() -> Awaitable[Outcome]:
        ending = service.launcher.exec(
            live.exec.number,
            live.sandbox.number,
            compiled.plan.pack(),
            streams.payload_ends,
            ours=() if terminal is not None else [place for place in (0, 1, 2) if place not in run.fds],
        )
        if terminal is not None:
            terminal.expect(service.launcher.terminal(live.exec.number))
        return ending

    execution = Execution(
        service,
        request,
        run,
        compiled,
        live,
        streams,
        words=_WORDS,
        data=_intent_data(request, arguments, compiled, live),
        send=send,
    )
    execution.begin()
    return execution.finish()


def _intent_data(request: Request, arguments: ExecArguments, compiled: Compiled, live: LiveExec) -> dict[str, object]:
    data = intent_data(request, arguments.run, compiled, live.names, live.sandbox.manifest_entry)
    if live.exec.terminal:
        data["terminal"] = True
    if live.exec.kept:
        data["number"] = str(live.exec.number)  # 64 bits; the ledger's integers have 53
    return data


# -- kept ones


def _keep(
    service: Service, request: Request, arguments: ExecArguments, compiled: Compiled, live: LiveExec
) -> Awaitable[Answer]:
    one, run = live.exec, arguments.run
    one.log = Log.make()
    ends: list[int] = []
    keyboard = None
    try:
        keyboard, fds, kept = _kept_ends(one, run.stdin, ends)
        ending = service.launcher.exec(
            one.number,
            live.sandbox.number,
            compiled.plan.pack(),
            fds,
            ours=() if one.terminal else (0, 1, 2),
            kept=kept,
        )
    except BaseException as error:
        one.log.close()
        if keyboard is not None:
            keyboard.close()
        if isinstance(error, OSError):
            raise Refused("busy", f"no exec can be begun: {error.strerror}", "try again in a moment") from error
        raise
    finally:
        close_all(ends)
    pinned = service.launcher.pinned(one.number) if compiled.manifest.command.pin else None
    one.keyboard = keyboard
    live.sandbox.execs[one.id] = one
    if one.terminal:
        keyboard.expect(service.launcher.terminal(one.number))
    service.at_work += 1
    return _begin_kept(service, request, arguments, compiled, live, ending, pinned)


def _kept_ends(one: Exec, stdin: bytes | None, ends: list[int]) -> tuple[Keyboard, list[int], KeptFds]:
    """What feeds it, its 0, 1 and 2, and what its warden is given besides. All but the first is for `ends` to close."""
    from immured.isolation.launcher_runs import KeptFds

    assert one.log is not None  # noqa: S101 - made a moment ago
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    ends.append(null)
    if one.terminal:
        keyboard = Keyboard(None, ends_input=False)
        keyboard.feed(stdin or b"")
        return keyboard, [null] * 3, KeptFds(one.log.fd, one.log.event, null, null, null)
    pairs = []
    for _ in range(3 if stdin != b"" else 2):
        pair = os.pipe2(os.O_CLOEXEC)
        pairs.append(pair)
        ends += pair
    out, err = pairs[0], pairs[1]
    if len(pairs) == 2:
        keyboard, theirs, fed = Keyboard(None), null, null
    else:
        theirs, fed = pairs[2]
        keyboard = Keyboard(os.dup(fed))
        if stdin:
            keyboard.feed(stdin)
    return keyboard, [theirs, out[1], err[1]], KeptFds(one.log.fd, one.log.event, out[0], err[0], fed)


async def _begin_kept(
    service: Service,
    request: Request,
    arguments: ExecArguments,
    compiled: Compiled,
    live: LiveExec,
    ending: Awaitable[Outcome],
    pinned: Awaitable[Pinned | None] | None,
) -> Answer:
    one, sandbox = live.exec, live.sandbox
    live.detach = True
    said: dict[str, object] = {}
    try:
        try:
            if pinned is not None:
                found = await executables(service.digests, compiled, pinned) or ()
                said["executables"] = [file.to_map() for file in found]
            intent = service.ledger.entry(
                entry_types.EXEC_ACCEPTED,
                request.actor.to_map(),
                {**_intent_data(request, arguments, compiled, live), **said},
                reserves_outcome=True,
                alone=service.alone,
            )
            await intent.durable()
        except BaseException:
            live.kill()
            with contextlib.suppress(LauncherLostError):
                (await ending).close()
            live.close(None)
            sandbox.execs.pop(one.id, None)
            one.forget()
            _let_go(one)
            raise
        request.acted = True
        request.claim.intent = receipt = Receipt(*intent.receipt)
        one.intent = receipt.seq
        # Before it is let go: whoever comes after a crash knows it, and what it is to be ended with.
        write_record(sandbox)
        if not live.killed:
            live.let_go()
            service.launcher.go(one.number)
        if one.keyboard is not None and arguments.run.stdin is not None and not one.terminal:
            one.keyboard.end_when_fed(lambda: _close_stdin(service, one))
        service.spawn(conclude_kept(service, sandbox, one, ending, compiled))
        return Answer({"sandbox": sandbox.id, "exec": one.id, **said}, receipt, receipt)
    finally:
        service.at_work -= 1


async def conclude_kept(
    service: Service, sandbox: Sandbox, one: Exec, ending: Awaitable[Outcome], compiled: Compiled | None = None
) -> None:
    """See a kept exec to its end, and enter that."""
    live = LiveExec(service, sandbox, one, detach=True)
    try:
        outcome = await ending
    except LauncherLostError as error:
        await enter_lost(service, sandbox.id, one.id, one.intent, error.message)
        live.close({**live.names, "cause": "lost"})
        _let_go(one)
        return
    outcome.close()
    measured = result_fields(outcome.report, () if compiled is None else compiled.plan.steps)
    limits = sandbox.manifest if one.limits is None else tighten(sandbox.manifest, one.limits)
    result: dict[str, object] = {**live.names, **measured}
    result["streams"] = _streams(one)
    result["violations"] = violation_rows(outcome.report, limits, service.state.config.profiles)
    result["enforcement"] = dict(one.enforcement)
    data: dict[str, object] = {**live.names, "intent": one.intent}
    data |= {name: result[name] for name in _ENDING if name in result}
    data["streams"] = {
        name: {key: value.hex() if isinstance(value, bytes) else value for key, value in stream.items()}
        for name, stream in _streams(one).items()
    }
    if violations := bounded_violations(result["violations"]):
        data["violations"] = violations
    try:
        finished = await service.ledger.entry(
            entry_types.EXEC_FINISHED, service.actor, data, outcome_of=one.intent
        ).durable()
    except Refused as error:
        log.error("the end of %s is not in the ledger: %s", one.id, error.message)
    else:
        one.outcome = Receipt(finished.seq, finished.leaf)
    live.close(result)
    _let_go(one)
    if sandbox.live:
        write_record(sandbox)


async def enter_lost(service: Service, sandbox: str, name: str, intent: int | None, reason: str) -> Receipt | None:
    """exec.lost, durable; None where the ledger takes none."""
    data = {"sandbox": sandbox, "exec": name, "intent": intent, "reason": reason}
    try:
        receipt = await service.ledger.entry(entry_types.EXEC_LOST, service.actor, data, outcome_of=intent).durable()
    except Refused:
        return None
    return Receipt(receipt.seq, receipt.leaf)


def _streams(one: Exec) -> dict[str, dict[str, object]]:
    """Lengths, and a digest of each where the log has all of it."""
    import hashlib

    if one.log is None:
        return {}
    totals = dict(zip(("stdout", "stderr"), one.log.totals, strict=True))
    page = one.log.read(0, sum(totals.values()))
    found: dict[str, dict[str, object]] = {}
    for name, length in totals.items():
        if one.terminal and name == "stderr":
            continue
        found[name] = {"length": length}
        kept = b"".join(piece.data for piece in page.pieces if piece.stream == name)
        if len(kept) == length:
            found[name]["sha256"] = hashlib.sha256(kept).digest()
        else:
            found[name]["truncated"] = True
    return found


def _close_stdin(service: Service, one: Exec) -> None:
    with contextlib.suppress(LauncherLostError):
        service.launcher.close_stdin(one.number)


def _let_go(one: Exec) -> None:
    if one.keyboard is not None:
        one.keyboard.close()
        one.keyboard = None


def _forget_oldest(sandbox: Sandbox) -> None:
    over = [one for one in sandbox.execs.values() if not one.live]
    for one in over[: max(0, len(over) - KEPT_ENDED)]:
        del sandbox.execs[one.id]
        one.forget()
