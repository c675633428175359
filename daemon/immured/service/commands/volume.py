"""`volume.create`, `volume.list`, `volume.remove`: a tenant's directories that outlive sandboxes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from immured.errors import ImmuredError, Refused
from immured.identity.keyring import check_label
from immured.manifest.units import show_size
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.seen import in_project, seen
from immured.service.volumes import LEAST_BYTES, LEAST_FILES, Stored, unknown_volume
from immured.wire.strict import take

__all__ = ["COMMANDS"]

_BYTES: Final = 1 << 30
_MOST_BYTES: Final = 1 << 50
_BYTES_A_FILE: Final = 16 << 10
_MOST_FILES: Final = 1 << 31
_changing: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
"""By tenant: none waits for another's."""


async def create(service: Service, request: Request) -> Answer:
    """args: `name`, and optionally `bytes` (1 GiB) and `files` (one to 16 KiB): its bounds. result: the volume."""
    fields = take(request.command.args, "args", ("name", "bytes", "files"))
    name = check_label(fields.required("name", str), "args.name")
    asked = fields.optional("bytes", int)
    size = _BYTES if asked is None else asked
    if not LEAST_BYTES <= size <= _MOST_BYTES:
        raise fields.wrong(
            "bytes",
            f"is {size}; it may be {LEAST_BYTES} to {_MOST_BYTES}",
            f"a volume holds {show_size(LEAST_BYTES)} to {show_size(_MOST_BYTES)}: `immure volume create NAME --size "
            f"{show_size(LEAST_BYTES)}`",
        )
    files = fields.integer("files", LEAST_FILES, _MOST_FILES) or max(LEAST_FILES, size // _BYTES_A_FILE)
    tenant, volumes = request.actor.tenant, service.storage.volumes
    place = request.warrant.place()
    request.warrant.check(place)
    is_there = False

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        try:
            made = await asyncio.to_thread(volumes.create, place, name, size, files, service.clock())
        except OSError as error:
            raise _failed(name, error) from error
        nonlocal is_there
        is_there = True
        return made.to_map(), {"volume": name}

    async with _changing[tenant]:
        volumes.check_create(tenant, name, size)
        service.shares.store("volume", tenant, name, size)
        try:
            return await recorded(service, request, {"volume": name, "bytes": size, "files": files}, act)
        finally:
            if not is_there:
                service.shares.drop("volume", tenant, name)


async def list_volumes(service: Service, request: Request) -> Answer:
    """args: none. result: `volumes`, the tenant's by name, and by what each is bounded, its use, and who has it.
    Where the command names a project, that project's."""
    take(request.command.args, "args", ())
    rows = await asyncio.to_thread(service.storage.volumes.list, request.actor.tenant)
    found = in_project(request, seen(request.warrant, rows))
    return Answer({"volumes": [one.to_map() for one in found]})


async def remove(service: Service, request: Request) -> Answer:
    """args: `name`. result: what was removed."""
    fields = take(request.command.args, "args", ("name",))
    name = check_label(fields.required("name", str), "args.name")
    tenant, volumes = request.actor.tenant, service.storage.volumes

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        try:
            gone = await asyncio.to_thread(volumes.remove, tenant, name)
        except OSError as error:
            raise _failed(name, error) from error
        service.shares.drop("volume", tenant, name)
        return gone.to_map(), {"volume": name}

    async with _changing[tenant]:
        _find(service, request, name)
        # Nobody takes it from here on, as nobody may have it now.
        volumes.hold(tenant, [name], _REMOVER)
        try:
            return await recorded(service, request, {"volume": name}, act)
        finally:
            volumes.release(_REMOVER)


def _find(service: Service, request: Request, name: str) -> Stored:
    """One of the actor's tenant that the warrant covers. Raises Refused `unknown_volume`, for another's as for none."""
    warrant = request.warrant
    found = service.storage.volumes.find(request.actor.tenant, name)
    if not warrant.covers(found.target):
        raise unknown_volume(name)
    warrant.check(found.target)
    return found


_REMOVER: Final = "its removal"


def _failed(name: str, error: OSError) -> ImmuredError:
    return Refused(
        "storage_failed", f"the volume {name!r}: {error.strerror or error}", "see the state directory's file system"
    )


COMMANDS: Final = (
    CommandSpec("volume.create", "volume.create", create),
    CommandSpec("volume.list", "volume.list", list_volumes),
    CommandSpec("volume.remove", "volume.remove", remove),
)
