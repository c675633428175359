"""`sandbox.exec` and what goes with it: commands in a sandbox that lives, their signals, terminals and logs."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.isolation.abi import Cause
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.manifests import admit_again
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes import execs
from immured.service.sandboxes.arguments import parse_exec
from immured.service.sandboxes.attachment import Attachment
from immured.service.sandboxes.exec import Exec
from immured.service.sandboxes.sandbox import Sandbox
from immured.wire.strict import Fields, take

if TYPE_CHECKING:
    from immured.service.sandboxes.logs import Log

__all__ = ["COMMANDS"]

_SIGKILL: Final = 9
_MAX_SIGNAL: Final = 64
_PAGE: Final = 256 * 1024
_MAX_PAGE: Final = 512 * 1024
_MAX_OFFSET: Final = 2**53 - 1


def exec_in(service: Service, request: Request) -> Awaitable[Answer]:
    """args and result: docs/protocol.md, sandbox.exec."""
    if service.stopping:
        raise Refused("stopping", "the daemon is stopping", "ask again when it is back")
    arguments = parse_exec(request.command.args)
    sandbox = service.sandboxes.find(request.warrant, arguments.sandbox)
    admit_again(service, request.warrant, sandbox.manifest)
    return execs.begin(service, request, sandbox, arguments)


async def list_execs(service: Service, request: Request) -> Answer:
    """args: `sandbox`. result: `execs`, rows: those that live, and the last that do not."""
    name = take(request.command.args, "args", ("sandbox",)).required("sandbox", str)
    sandbox = service.sandboxes.find(request.warrant, name)
    return Answer({"sandbox": sandbox.id, "execs": [one.to_map() for one in sandbox.execs.values()]})


async def signal(service: Service, request: Request) -> Answer:
    """args: `sandbox`, `exec`, `signal` (a number), `everybody`. result: `sandbox`, `exec`.

    It goes to the exec's first process, or its terminal's foreground group; with `everybody` to all its processes.
    SIGKILL ends the exec with all that is in it.
    """
    fields, sandbox, one = _named(service, request, "signal", "everybody")
    number = fields.integer("signal", 1, _MAX_SIGNAL)
    if number is None:
        raise fields.wrong("signal", "is missing")
    everybody = fields.optional("everybody", bool) or False
    _require_live(one)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        _require_live(one)
        if number == _SIGKILL:
            one.killed = True
            service.launcher.kill(one.number, Cause.KILLED)
        else:
            service.launcher.signal(one.number, number, everybody)
        named = {"sandbox": sandbox.id, "exec": one.id}
        return named, {**named, "signal": number}

    data: dict[str, object] = {"sandbox": sandbox.id, "exec": one.id, "signal": number}
    if everybody:
        data["everybody"] = True
    return await recorded(service, request, data, act)


async def resize(service: Service, request: Request) -> Answer:
    """args: `sandbox`, `exec`, `rows`, `columns`. result: `sandbox`, `exec`."""
    fields, sandbox, one = _named(service, request, "rows", "columns")
    rows, columns = fields.integer("rows", 1, 9999), fields.integer("columns", 1, 9999)
    if rows is None or columns is None:
        raise fields.wrong("columns" if rows else "rows", "is missing")
    if not one.terminal:
        raise Refused("wrong_state", f"the exec {one.id} has no terminal", "begin one with `terminal`")
    _require_live(one)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        _require_live(one)
        service.launcher.resize(one.number, rows, columns)
        named = {"sandbox": sandbox.id, "exec": one.id}
        return named, {**named, "rows": rows, "columns": columns}

    return await recorded(
        service, request, {"sandbox": sandbox.id, "exec": one.id, "rows": rows, "columns": columns}, act
    )


async def logs(service: Service, request: Request) -> Answer:
    """args: `sandbox`, `exec`, `from`, `limit`. result: docs/protocol.md, sandbox.logs."""
    fields, sandbox, one = _named(service, request, "from", "limit")
    start = fields.integer("from", 0, _MAX_OFFSET) or 0
    limit = fields.integer("limit", 1, _MAX_PAGE) or _PAGE
    log = _log_of(one)

    async def act() -> tuple[Mapping[str, object], Mapping[str, object]]:
        live = one.live
        page = log.read(start, limit)
        digest = hashlib.sha256()
        records = []
        for piece in page.pieces:
            digest.update(piece.data)
            records.append({"time_ms": piece.time_ms, "stream": piece.stream, "data": piece.data})
        length = page.next - page.start
        result: dict[str, object] = {
            "sandbox": sandbox.id,
            "exec": one.id,
            "from": page.start,
            "next": page.next,
            "lost": page.lost,
            "live": live,
            "records": records,
        }
        return result, {
            "sandbox": sandbox.id,
            "exec": one.id,
            "from": page.start,
            "length": length,
            "sha256": digest.hexdigest(),
        }

    with one.reading():
        return await recorded(service, request, {"sandbox": sandbox.id, "exec": one.id, "from": start}, act)


def attach(service: Service, request: Request) -> Awaitable[Answer]:
    """args: `sandbox`, `exec`, `from`, `input`, `output`. result: the exec's, once it is over."""
    fields, sandbox, one = _named(service, request, "from", "input", "output")
    start = fields.integer("from", 0, _MAX_OFFSET) or 0
    fed = fields.optional("input", bool) or False
    output = fields.optional("output", bool)
    attachment = Attachment(service, request, one, _log_of(one), start, output=output is not False)
    if fed:
        attachment.feed_by(functools.partial(_end_stdin, service, one))
    data: dict[str, object] = {"sandbox": sandbox.id, "exec": one.id, "from": start}
    if fed:
        data["input"] = True
    return _attached(service, request, data, attachment)


async def _attached(service: Service, request: Request, data: Mapping[str, object], attachment: Attachment) -> Answer:
    try:
        return await recorded(service, request, data, attachment.follow)
    finally:
        attachment.close()


def _end_stdin(service: Service, one: Exec) -> None:
    service.launcher.close_stdin(one.number)


def _named(service: Service, request: Request, *more: str) -> tuple[Fields, Sandbox, Exec]:
    fields = take(request.command.args, "args", ("sandbox", "exec", *more))
    sandbox = service.sandboxes.find(request.warrant, fields.required("sandbox", str))
    return fields, sandbox, execs.find(sandbox, fields.required("exec", str))


def _require_live(one: Exec) -> None:
    if not one.live:
        raise Refused("wrong_state", f"the exec {one.id} is over", "`sandbox.execs` shows how it ended")


def _log_of(one: Exec) -> Log:
    if one.log is None:
        raise Refused(
            "wrong_state",
            f"the exec {one.id} has no log: its output goes to the connection that began it",
            "begin one with `detach`",
        )
    return one.log


COMMANDS: Final = (
    CommandSpec("sandbox.exec", "sandbox.exec", exec_in, takes_descriptors=True),
    CommandSpec("sandbox.execs", "sandbox.execs", list_execs),
    CommandSpec("sandbox.signal", "sandbox.signal", signal),
    CommandSpec("sandbox.resize", "sandbox.resize", resize),
    CommandSpec("sandbox.logs", "sandbox.logs", logs),
    CommandSpec("sandbox.attach", "sandbox.attach", attach),
)
