"""`snapshot.save`, `.list`, `.remove`: what lies in a sandbox's own places, saved to begin with again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import check_label
from immured.isolation.abi import Clerk
from immured.isolation.snapshot_words import SnapshotAnswer, ask_packet, read_answer
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes.lifecycle import freeze
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import State
from immured.service.seen import in_project, seen
from immured.service.snapshots import Place, Snapshot
from immured.wire.strict import take

__all__ = ["COMMANDS"]

_SAVE_S: Final = 600.0
_MAX_FILES: Final = 1 << 20
_changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
"""By tenant: none waits for another's."""


async def save(service: Service, request: Request) -> Answer:
    """args: `sandbox`, `name`. result: the snapshot. Its execs stand still meanwhile."""
    fields = take(request.command.args, "args", ("sandbox", "name"))
    name = check_label(fields.required("name", str), "args.name")
    sandbox = service.sandboxes.find(request.warrant, fields.required("sandbox", str))
    sandbox.require(State.READY, State.PAUSED)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        made = await _save(service, request, sandbox, name)
        said = {"sandbox": sandbox.id, "snapshot": name, "bytes": made.bytes, "files": made.files}
        return made.to_map(), said

    async with _changing[sandbox.tenant]:
        # Those that are paused too: nobody lets them go on meanwhile.
        with sandbox.still("saved"):
            return await recorded(service, request, {"sandbox": sandbox.id, "snapshot": name}, act)


async def _save(service: Service, request: Request, sandbox: Sandbox, name: str) -> Snapshot:
    snapshots, target = service.storage.snapshots, sandbox.target
    try:
        staged, room = await asyncio.to_thread(snapshots.begin, target.tenant, name)
    except OSError as error:
        raise _failed(name, error) from error
    try:
        async with (
            _standing_still(service, sandbox),
            await service.sandboxes.clerk(sandbox, Clerk.SNAPSHOT, request.channel.number) as link,
        ):
            data, _ = await link.ask(ask_packet(staged, room, _MAX_FILES), within=_SAVE_S)
        answer = read_answer(data)
        _check(answer, name)
        service.shares.store("snapshot", target.tenant, name, sum(one.bytes for one in answer.places))
        return await asyncio.to_thread(
            lambda: snapshots.finish(
                target,
                name,
                staged,
                sandbox=sandbox.id,
                manifest=sandbox.manifest,
                now_ms=service.clock(),
                places=[Place(one.target, one.layer, one.bytes, one.files) for one in answer.places],
                skipped=answer.skipped,
            )
        )
    except BaseException as error:
        service.shares.drop("snapshot", target.tenant, name)
        try:
            await asyncio.to_thread(snapshots.discard, staged)
        except OSError as left:
            log.error("%s of the snapshots was not removed, the next start does: %s", staged, left)
        if isinstance(error, OSError):
            raise _failed(name, error) from error
        raise


@contextlib.asynccontextmanager
async def _standing_still(service: Service, sandbox: Sandbox) -> AsyncIterator[None]:
    """No exec runs within. One that stood still before stays so."""
    if sandbox.frozen:
        yield
        return
    await freeze(service, sandbox, on=True)
    try:
        yield
    finally:
        if sandbox.state is State.READY:
            with contextlib.suppress(Refused):  # it ended meanwhile
                await freeze(service, sandbox, on=False)


def _check(answer: SnapshotAnswer, name: str) -> None:
    if answer.error in (errno.EDQUOT, errno.ENOSPC):
        raise Refused(
            "over_quota",
            f"the snapshot {name!r} does not fit: {answer.text}",
            "remove others, or have [storage] snapshot_bytes raised",
        )
    if answer.error:
        raise Refused("snapshot_failed", f"the snapshot {name!r}: {answer.text}", "mend that, and save again")


async def list_snapshots(service: Service, request: Request) -> Answer:
    """args: none. result: `snapshots`, those of the tenant's that the actor may see, by name. Where the command names a
    project, that project's."""
    take(request.command.args, "args", ())
    rows = await asyncio.to_thread(service.storage.snapshots.list, request.actor.tenant)
    found = in_project(request, seen(request.warrant, rows))
    return Answer({"snapshots": [one.to_map() for one in found]})


async def remove(service: Service, request: Request) -> Answer:
    """args: `name`. result: what was removed. One that a live sandbox began with stays until that has ended."""
    fields = take(request.command.args, "args", ("name",))
    name = check_label(fields.required("name", str), "args.name")
    tenant, snapshots = request.actor.tenant, service.storage.snapshots

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        try:
            gone = await asyncio.to_thread(snapshots.remove, tenant, name)
        except OSError as error:
            raise _failed(name, error) from error
        service.shares.drop("snapshot", tenant, name)
        return gone.to_map(), {"snapshot": name}

    async with _changing[tenant]:
        request.warrant.check(snapshots.find(request.warrant, name).target)
        users = snapshots.users(tenant, name)
        if users:
            raise Refused(
                "snapshot_in_use",
                f"the snapshot {name!r} is what {users[0]} began with, and lies below it",
                "remove that sandbox first",
                details={"snapshot": name, "sandboxes": list(users[:16])},
            )
        # Nobody begins with it from here on, as nobody may have begun with it.
        with snapshots.removing(tenant, name):
            return await recorded(service, request, {"snapshot": name}, act)


def _failed(name: str, error: OSError) -> Refused:
    return Refused(
        "storage_failed",
        f"the snapshot {name!r}: {error.strerror or os.strerror(error.errno or 0)}",
        "see the state directory's file system",
    )


COMMANDS: Final = (
    CommandSpec("snapshot.save", "snapshot.save", save),
    CommandSpec("snapshot.list", "snapshot.list", list_snapshots),
    CommandSpec("snapshot.remove", "snapshot.remove", remove),
)
