"""`sandbox.*`: sandboxes that live, from their creation to their end. What runs in them is `commands.exec`'s."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, Final, TypeVar

from immured.errors import Refused
from immured.isolation.compile_sandbox import SandboxSpec, compile_sandbox
from immured.isolation.filesystem import Grants, Saved
from immured.isolation.outcome import usage_of
from immured.ledger import entry_types
from immured.manifest.schema import Manifest
from immured.service import storage
from immured.service.commands import CommandSpec
from immured.service.commands.template import create_from_template
from immured.service.context import Service
from immured.service.manifests import admit
from immured.service.recorded import Act, recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes.arguments import CreateArguments, labels_of, parse_create
from immured.service.sandboxes.lifecycle import (
    Birth,
    failure_of,
    freeze,
    give_back,
    kill,
    until_over,
    write_record,
)
from immured.service.sandboxes.record import Record
from immured.service.sandboxes.sandbox import Restart, Sandbox, new_id
from immured.service.sandboxes.state import State
from immured.wire.messages import Receipt
from immured.wire.strict import shown, take

__all__ = ["COMMANDS", "check_ttl", "conceive"]

T = TypeVar("T")

_PAGE: Final = 1000
_IDS_PER_ENTRY: Final = 1000


async def create(service: Service, request: Request) -> Answer:
    """args and result: docs/protocol.md, sandbox.create. Every sandbox has an intent of its own, all in one sync."""
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    if "template" in request.command.args:
        return await create_from_template(service, request)
    arguments, warrant = parse_create(request.command.args), request.warrant
    manifest = admit(service, warrant, arguments.manifest, arguments.labels, arguments.parameters)
    saved: tuple[Saved, ...] = ()
    if arguments.snapshot is not None:
        saved = service.storage.snapshots.saved(warrant, arguments.snapshot, manifest)
    births = conceive(service, request, arguments, manifest, storage.grants(service, request.actor, manifest, saved))
    alone = len(births) == 1 and service.alone
    for birth in births:
        birth.begin(alone=alone)
    accepted = await _each([birth.accepted() for birth in births])
    refused = [one for one in accepted if isinstance(one, BaseException)]
    intents = [one for one in accepted if isinstance(one, Receipt)]
    if intents:
        request.acted = True
        request.claim.intent = intents[0]
    if refused:
        for birth, one in zip(births, accepted, strict=True):
            if isinstance(one, Receipt):
                kill(service, birth.sandbox, "the ledger did not take all of what was asked for")
        raise refused[0]
    ready = await _each([birth.finish() for birth in births])
    made = [birth.sandbox for birth in births]
    request.claim.outcome = receipt = made[0].outcome or intents[0]
    failed = [one for one in ready if one is not None]
    if failed:
        raise failed[0]
    if len(made) == 1 and not made[0].live:
        raise failure_of(made[0])
    return Answer({"sandboxes": [one.to_map() for one in made]}, receipt, intents[0])


async def _each(work: Sequence[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
    """What each came to, or raised. One alone needs no task of its own."""
    if len(work) > 1:
        return list(await asyncio.gather(*work, return_exceptions=True))
    try:
        return [await work[0]]
    except Exception as error:  # noqa: BLE001 - raised again by who asked
        return [error]


def conceive(
    service: Service,
    request: Request,
    arguments: CreateArguments,
    manifest: Manifest,
    grants: Grants,
    *,
    kept_ready: bool = False,
) -> list[Birth]:
    """All that can be refused is, before there is anything. `kept_ready`: for whoever takes it later."""
    actor, config = request.actor, service.state.config
    ttl_ms = config.sandboxes_ttl if arguments.ttl_ms is None else arguments.ttl_ms
    check_ttl(service, ttl_ms)
    service.sandboxes.check_room(arguments.count)
    service.check_cells(arguments.count)
    if arguments.name is not None:
        service.sandboxes.check_name(actor.tenant, actor.project, arguments.name)
    volumes = storage.volume_names(manifest)
    entry = service.manifests.enter(manifest)
    now = service.clock()
    births: list[Birth] = []
    try:
        for _ in range(arguments.count):
            name = new_id()
            spec = SandboxSpec(
                sandbox=name,
                ttl_ns=ttl_ms * 1_000_000,
                tenant=actor.tenant,
                persona=actor.persona,
                env=arguments.env,
                cwd=arguments.cwd,
                files=arguments.files,
                limits=arguments.limits,
            )
            compiled = compile_sandbox(
                manifest, spec, service.launcher.facts, grants, profiles=service.state.config.profiles
            )
            sandbox = Sandbox(
                number=service.launcher.new_number(),
                id=name,
                tenant=actor.tenant,
                key_id=actor.key_id,
                uid=actor.uid,
                manifest=compiled.manifest,
                manifest_entry=entry,
                plan=compiled.plan.digest,
                enforcement=compiled.enforcement,
                created_ms=now,
                expires_ms=now + ttl_ms,
                name=arguments.name,
                project=actor.project,
                owners=actor.owners,
                persona=actor.persona,
                labels=arguments.labels,
                env=arguments.env,
                cwd=arguments.cwd,
                snapshot=arguments.snapshot,
                restart=arguments.restart or Restart(config.sandboxes_on_restart),
                record=Record.make(),
            )
            births.append(Birth(service, request, sandbox, compiled))
            limits = compiled.manifest.limits
            if len(births) == 1 and arguments.count > 1:
                service.shares.check_sandboxes(actor.tenant, limits, 0 if kept_ready else ttl_ms, arguments.count)
            sandbox.lease = (
                service.shares.kept_ready(actor.tenant, limits)
                if kept_ready
                else service.shares.sandbox(actor.tenant, limits, ttl_ms)
            )
            if volumes:
                service.storage.volumes.hold(actor.tenant, volumes, name)
                sandbox.on_over.append(functools.partial(service.storage.volumes.release, name))
            if arguments.snapshot is not None:
                service.storage.snapshots.hold(actor.tenant, arguments.snapshot, name)
                sandbox.on_over.append(functools.partial(service.storage.snapshots.release, name))
    except BaseException:
        for birth in births:
            give_back(birth.sandbox)
        raise
    return births


def check_ttl(service: Service, ttl_ms: int) -> None:
    most = service.state.config.sandboxes_max_ttl
    if ttl_ms > most:
        raise Refused(
            "bad_argument",
            f"args.ttl_ms is {ttl_ms}; a sandbox lives at most {most} ms from now on",
            "ask for less, and extend it later",
            details={"field": "args.ttl_ms", "most": most},
        )


async def list_sandboxes(service: Service, request: Request) -> Answer:
    """args: `labels`, `state`, `after`, `limit`. result: `sandboxes`, the rows of those that the actor may see; `next`
    where there are more. Where the command names a tenant or a project, those of that one."""
    fields = take(request.command.args, "args", ("labels", "state", "after", "limit"))
    named = fields.optional("state", str)
    if named is not None and named not in list(State):
        raise fields.wrong("state", f"is {shown(named)}", f"known are {', '.join(State)}")
    after = fields.optional("after", str)
    if after is not None and (not after.isascii() or not after.isdigit() or len(after) > 18):
        raise fields.wrong("after", f"is {shown(after)}", "what a reply called `next`")
    limit = fields.integer("limit", 1, _PAGE) or _PAGE
    found = service.sandboxes.of(
        request.warrant,
        tenant=request.command.tenant,
        project=request.command.project,
        labels=labels_of(fields),
        state=None if named is None else State(named),
    )
    found = [one for one in found if one.ordinal > int(after or "0")]
    result: dict[str, object] = {"sandboxes": [one.to_map(brief=True) for one in found[:limit]]}
    if len(found) > limit:
        result["next"] = str(found[limit - 1].ordinal)
    return Answer(result)


async def show(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: its row."""
    return Answer(_named(service, request).to_map())


async def pause(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: its row. No process of its execs runs from now on, nor does their wall time."""
    return await _turn(service, request, State.READY, State.PAUSED, "paused")


async def resume(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: its row."""
    return await _turn(service, request, State.PAUSED, State.READY, "resumed")


async def _turn(service: Service, request: Request, now: State, then: State, change: str) -> Answer:
    sandbox = _named(service, request)
    sandbox.require(now)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        sandbox.require(now)
        await freeze(service, sandbox, on=then is State.PAUSED)
        sandbox.move(then)
        write_record(sandbox)
        return sandbox.to_map(), {"sandbox": sandbox.id, "change": change}

    with sandbox.still(change):
        return await _changed(service, request, sandbox, change, act)


async def extend(service: Service, request: Request) -> Answer:
    """args: `sandbox`, `ttl_ms`: so long it lives from now on, more or less than before. result: its row."""
    fields = take(request.command.args, "args", ("sandbox", "ttl_ms"))
    sandbox = service.sandboxes.find(request.warrant, fields.required("sandbox", str))
    ttl_ms = fields.integer("ttl_ms", 1, 2**53 - 1)
    if ttl_ms is None:
        raise fields.wrong("ttl_ms", "is missing")
    check_ttl(service, ttl_ms)
    service.shares.may_live(sandbox.tenant, ttl_ms)
    sandbox.require(State.READY, State.PAUSED)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        sandbox.require(State.READY, State.PAUSED)
        try:
            service.launcher.extend(sandbox.number, ttl_ms * 1_000_000)
        except LookupError:
            raise sandbox.ended_meanwhile() from None
        sandbox.expires_ms = service.clock() + ttl_ms
        service.shares.lives(sandbox.lease, ttl_ms)
        write_record(sandbox)
        return sandbox.to_map(), {"sandbox": sandbox.id, "change": "extended", "ttl_ms": ttl_ms}

    return await _changed(service, request, sandbox, "extended", act, ttl_ms=ttl_ms)


async def kill_sandbox(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: `sandbox`, `ended`. It stays listed until it is removed."""
    sandbox = _named(service, request)
    receipt = await _end(service, request, [sandbox])
    return Answer({"sandbox": sandbox.id, "ended": not sandbox.live}, receipt)


async def remove(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: `sandbox`, `ended`. It is listed no more, and ended first where it lives."""
    sandbox = _named(service, request)
    receipt = await _end(service, request, [sandbox])
    if not sandbox.live:
        service.sandboxes.forget(sandbox)
    return Answer({"sandbox": sandbox.id, "ended": not sandbox.live}, receipt)


async def prune(service: Service, request: Request) -> Answer:
    """args: `labels`, `alive`. result: `removed`, ids: one's own that are over; with `alive` those that live too."""
    fields = take(request.command.args, "args", ("labels", "alive"))
    labels, alive = labels_of(fields), fields.optional("alive", bool) or False
    project = request.command.project
    found = service.sandboxes.of(request.warrant, project=project, labels=labels)
    found = [one for one in found if request.actor.owns(one.target)]
    chosen = [one for one in found if alive or not one.live]
    receipt = await _end(service, request, chosen)
    over = [one for one in chosen if not one.live]
    for one in over:
        service.sandboxes.forget(one)
    return Answer({"removed": [one.id for one in over]}, receipt)


async def stats(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: `sandbox`, `state`, `usage` since its creation, and what it holds now."""
    sandbox = _named(service, request)
    sandbox.require(State.READY, State.PAUSED)
    try:
        measures = await service.launcher.measure(sandbox.number)
    except LookupError:
        raise sandbox.ended_meanwhile() from None
    result: dict[str, object] = {
        "sandbox": sandbox.id,
        "state": sandbox.state.value,
        "usage": usage_of(measures.so_far),
        "execs": sum(one.live for one in sandbox.execs.values()),
        "disk_bytes": measures.disk_used,
        "disk_files": measures.disk_files,
    }
    controllers = service.launcher.facts.controllers
    if "memory" in controllers:
        result["memory_bytes"] = measures.memory_now
    if "pids" in controllers:
        result["pids"] = measures.pids_now
    return Answer(result)


async def _changed(
    service: Service, request: Request, sandbox: Sandbox, change: str, act: Act, **more: object
) -> Answer:
    data = {"sandbox": sandbox.id, "change": change, **more}
    return await recorded(service, request, data, act, outcome=entry_types.SANDBOX_CHANGED)


async def _end(service: Service, request: Request, sandboxes: Sequence[Sandbox]) -> Receipt | None:
    """End what of them lives, all at once, and say who wanted it. A ledger that takes no entries keeps nobody from
    ending a sandbox: then there is no receipt.
    """
    request.acted = True
    for one in sandboxes:
        kill(service, one, f"{request.command.cmd} by the key {request.actor.record.name}")
    await until_over(sandboxes)
    receipt = None
    ids = [one.id for one in sandboxes]
    try:
        parts = [ids[start : start + _IDS_PER_ENTRY] for start in range(0, len(ids), _IDS_PER_ENTRY)] or [[]]
        entries = [
            service.ledger.entry(
                entry_types.COMMAND_DONE,
                request.actor.to_map(),
                {**request.to_map(), **({"sandbox": part[0]} if len(ids) == 1 else {"sandboxes": part})},
            )
            for part in parts
        ]
        for entry in entries:
            durable = await entry.durable()
            receipt = Receipt(durable.seq, durable.leaf)
    except Refused:
        return None
    request.claim.outcome = receipt
    return receipt


def _named(service: Service, request: Request) -> Sandbox:
    name = take(request.command.args, "args", ("sandbox",)).required("sandbox", str)
    return service.sandboxes.find(request.warrant, name)


COMMANDS: Final = (
    CommandSpec("sandbox.create", "sandbox.create", create),
    CommandSpec("sandbox.list", "sandbox.list", list_sandboxes),
    CommandSpec("sandbox.show", "sandbox.show", show),
    CommandSpec("sandbox.pause", "sandbox.pause", pause),
    CommandSpec("sandbox.resume", "sandbox.resume", resume),
    CommandSpec("sandbox.extend", "sandbox.extend", extend),
    CommandSpec("sandbox.kill", "sandbox.kill", kill_sandbox),
    CommandSpec("sandbox.remove", "sandbox.remove", remove),
    CommandSpec("sandbox.prune", "sandbox.prune", prune),
    CommandSpec("sandbox.stats", "sandbox.stats", stats),
)
