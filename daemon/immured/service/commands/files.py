"""`file.*`: the files of a sandbox that lives, as its own user sees them. Every one is an intent and an outcome.

A clerk in the sandbox does it (native/launcher/clerk_files.h); what is decided here is whose sandbox it is, and what
is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from immured.errors import Refused
from immured.isolation.files_words import NO_FLAGS, FilesFlag, FilesOp, FilesRow, name_on_wire
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.files_arguments import NEW_MODE, FileArguments
from immured.service.files_clerk import FilesClerk
from immured.service.files_flows import Incoming, Passed, archive, extract, get, put
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import State
from immured.wire.messages import StreamRecord

__all__ = ["COMMANDS"]

_PAGE: Final = 1000
_MAX_PAGE: Final = 4000
_REPLY_BYTES: Final = 640 << 10
"""Of rows, in one reply."""
_MAX_FOUND: Final = 4000
_AT_ONCE: Final = 16
"""Clerks for files that one sandbox has at a time."""
_REMOVALS: Final = 1500
"""Questions that one removal takes at most: ten minutes."""

Result = tuple[Mapping[str, object], Mapping[str, object]]
Act = Callable[[FilesClerk], Awaitable[Result]]

_busy: dict[str, int] = {}


def _find(service: Service, request: Request, arguments: FileArguments) -> Sandbox:
    sandbox = service.sandboxes.find(request.warrant, arguments.sandbox)
    sandbox.require(State.READY, State.PAUSED)
    if _busy.get(sandbox.id, 0) >= _AT_ONCE:
        raise Refused("busy", f"{_AT_ONCE} requests for the files of {sandbox.id} are on their way", "wait for one")
    return sandbox


async def _serve(service: Service, request: Request, sandbox: Sandbox, act: Act, said: Mapping[str, object]) -> Answer:
    """The intent, the clerk's work, the outcome."""
    _busy[sandbox.id] = _busy.get(sandbox.id, 0) + 1
    try:

        async def acted() -> Result:
            async with await FilesClerk.of(service, request, sandbox) as clerk:
                result, done = await act(clerk)
                return {"sandbox": sandbox.id, **result}, {"sandbox": sandbox.id, **done}

        return await recorded(service, request, {"sandbox": sandbox.id, **said}, acted)
    finally:
        left = _busy[sandbox.id] - 1
        if left:
            _busy[sandbox.id] = left
        else:
            del _busy[sandbox.id]


def _path_said(arguments: FileArguments) -> dict[str, object]:
    return {"path": name_on_wire(arguments.path)}


def _content(record: StreamRecord) -> dict[str, object]:
    """What the ledger says of contents."""
    return {"length": record.length, "sha256": record.sha256.hex()}


# -- one file, one word


async def stat(service: Service, request: Request) -> Answer:
    """args: path, follow. result: `file`."""
    arguments = FileArguments(request.command.args, ("follow",))
    flags = FilesFlag.FOLLOW if arguments.said("follow") else NO_FLAGS

    async def act(clerk: FilesClerk) -> Result:
        answer = await clerk.ask(FilesOp.STAT, arguments.path, flags=flags)
        row = _only(answer.rows)
        return {"file": row.to_map()}, {"kind": row.kind, "length": row.size}

    return await _serve(service, request, _find(service, request, arguments), act, _path_said(arguments))


async def listing(service: Service, request: Request) -> Answer:
    """args: path, after, limit. result: `entries`, in no order, and `next` where there are more."""
    arguments = FileArguments(request.command.args, ("after", "limit"))
    limit = arguments.fields.integer("limit", 1, _MAX_PAGE) or _PAGE
    after = arguments.fields.integer("after", 0, 2**63 - 1) or 0

    async def act(clerk: FilesClerk) -> Result:
        rows: list[FilesRow] = []
        position, size, more = after, 0, True
        while more and len(rows) < limit and size < _REPLY_BYTES:
            answer = await clerk.ask(FilesOp.LIST, arguments.path, numbers=(position, limit - len(rows)))
            rows += answer.rows
            size += sum(len(row.name) + len(row.target) + 120 for row in answer.rows)
            position = answer.numbers[0]
            more = FilesFlag.MORE in answer.flags
        result: dict[str, object] = {"entries": [row.to_map() for row in rows]}
        if more:
            result["next"] = position
        return result, {"entries": len(rows)}

    return await _serve(service, request, _find(service, request, arguments), act, _path_said(arguments))


async def mkdir(service: Service, request: Request) -> Answer:
    """args: path, mode, parents."""
    arguments = FileArguments(request.command.args, ("mode", "parents"))
    mode = arguments.mode(0o1777)
    flags = arguments.flags()

    async def act(clerk: FilesClerk) -> Result:
        await clerk.ask(FilesOp.MKDIR, arguments.path, flags=flags, mode=0o755 if mode is None else mode)
        return {}, {}

    return await _serve(service, request, _find(service, request, arguments), act, _path_said(arguments))


async def move(service: Service, request: Request) -> Answer:
    """args: path, to, replace."""
    arguments = FileArguments(request.command.args, ("to", "replace"))
    to = arguments.path_of("to")
    flags = arguments.flags()

    async def act(clerk: FilesClerk) -> Result:
        await clerk.ask(FilesOp.MOVE, arguments.path, to, flags=flags)
        return {}, {}

    said = {**_path_said(arguments), "to": name_on_wire(to)}
    return await _serve(service, request, _find(service, request, arguments), act, said)


async def remove(service: Service, request: Request) -> Answer:
    """args: path, recursive."""
    arguments = FileArguments(request.command.args, ("recursive",))
    recursive = arguments.said("recursive")

    async def act(clerk: FilesClerk) -> Result:
        flags = FilesFlag.RECURSIVE if recursive else NO_FLAGS
        for _ in range(_REMOVALS):
            answer = await clerk.ask(FilesOp.REMOVE, arguments.path, flags=flags)
            if FilesFlag.MORE not in answer.flags:
                return {}, {}
        raise Refused("raced", "it is filled as fast as it is emptied", "pause the sandbox, and try again")

    said = {**_path_said(arguments), **({"recursive": True} if recursive else {})}
    return await _serve(service, request, _find(service, request, arguments), act, said)


async def chmod(service: Service, request: Request) -> Answer:
    """args: path, mode."""
    arguments = FileArguments(request.command.args, ("mode",))
    mode = arguments.mode(0o1777)
    if mode is None:
        raise arguments.fields.wrong("mode", "is missing")

    async def act(clerk: FilesClerk) -> Result:
        await clerk.ask(FilesOp.CHMOD, arguments.path, mode=mode)
        return {}, {}

    said = {**_path_said(arguments), "mode": mode}
    return await _serve(service, request, _find(service, request, arguments), act, said)


async def glob(service: Service, request: Request) -> Answer:
    """args: path (the pattern), limit. result: `entries`, whose names are paths, and `truncated`."""
    arguments = FileArguments(request.command.args, ("limit",))
    limit = arguments.fields.integer("limit", 1, _MAX_FOUND) or _PAGE

    async def act(clerk: FilesClerk) -> Result:
        answer = await clerk.ask(FilesOp.GLOB, arguments.path, numbers=(0, limit))
        rows, cut = list(answer.rows), FilesFlag.CUT in answer.flags
        size = 0
        while FilesFlag.MORE in answer.flags and size < _REPLY_BYTES:
            answer = await clerk.ask(FilesOp.FOUND)
            rows += answer.rows
            size += sum(len(row.name) + len(row.target) + 120 for row in answer.rows)
        cut |= FilesFlag.MORE in answer.flags
        result: dict[str, object] = {"entries": [row.to_map() for row in rows]}
        if cut:
            result["truncated"] = True
        return result, {"entries": len(rows)}

    return await _serve(service, request, _find(service, request, arguments), act, _path_said(arguments))


def _only(rows: tuple[FilesRow, ...]) -> FilesRow:
    if len(rows) != 1:
        raise Refused("clerk_lost", "the process that serves the files said nothing of the file", "ask again")
    return rows[0]


# -- contents


def _source(service: Service, request: Request, arguments: FileArguments, content: bytes | None) -> Passed | Incoming:
    """Where they come from. Made at once: data frames follow the command."""
    if arguments.said("passed"):
        if content is not None:
            raise arguments.fields.wrong("data", "is given, and a descriptor is passed too", "choose one")
        return Passed(request, written=False)
    if request.descriptors:
        raise Refused("bad_descriptor", "a descriptor came along that `passed` says nothing of", "say `passed`")
    return Incoming(request, service.feeds, content)


def _target(request: Request, arguments: FileArguments) -> Passed | None:
    if arguments.said("passed"):
        return Passed(request, written=True)
    if request.descriptors:
        raise Refused("bad_descriptor", "a descriptor came along that `passed` says nothing of", "say `passed`")
    return None


async def _with(source: Passed | Incoming, work: Awaitable[Answer]) -> Answer:
    try:
        return await work
    finally:
        if isinstance(source, Incoming):
            source.close()


def put_file(service: Service, request: Request) -> Awaitable[Answer]:
    """args: path, one of data (bin), passed (a descriptor comes along) or neither (data frames follow); mode, parents,
    replace. result: `length`, `sha256`, `file`."""
    arguments = FileArguments(request.command.args, ("data", "passed", "mode", "parents", "replace"))
    content = arguments.fields.optional("data", bytes)
    mode = arguments.mode(0o777)
    flags = arguments.flags(replace=True) | (FilesFlag.KEEP_MODE if mode is None else NO_FLAGS)
    sandbox = _find(service, request, arguments)
    source = _source(service, request, arguments, content)

    async def act(clerk: FilesClerk) -> Result:
        copied, committed, found = await put(
            clerk, arguments.path, source, flags=flags, mode=NEW_MODE if mode is None else mode
        )
        result: dict[str, object] = {
            "length": copied.length,
            "sha256": copied.sha256,
            "file": _only(committed.rows).to_map(),
        }
        if FilesFlag.IN_PLACE in found:
            result["in_place"] = True
        return result, {**_path_said(arguments), **_content(StreamRecord(copied.length, copied.sha256))}

    return _with(source, _serve(service, request, sandbox, act, _path_said(arguments)))


async def get_file(service: Service, request: Request) -> Answer:
    """args: path, passed (into the descriptor that came along; else as data frames on stdout), most. result: `length`,
    `sha256`, `file`; `streams` where data was sent."""
    arguments = FileArguments(request.command.args, ("passed", "most"))
    most = arguments.most()
    sandbox = _find(service, request, arguments)
    target = _target(request, arguments)

    async def act(clerk: FilesClerk) -> Result:
        record, opened = await get(clerk, request, arguments.path, target, most=most)
        result: dict[str, object] = {"file": _only(opened.rows).to_map(), **_sent(record, target)}
        return result, {**_path_said(arguments), **_content(record)}

    return await _serve(service, request, sandbox, act, _path_said(arguments))


async def archive_files(service: Service, request: Request) -> Answer:
    """args: path, passed, most: as file.get. result: `length`, `sha256`, `entries`, `bytes`; `left_out`, `changed`."""
    arguments = FileArguments(request.command.args, ("passed", "most"))
    most = arguments.most()
    sandbox = _find(service, request, arguments)
    target = _target(request, arguments)

    async def act(clerk: FilesClerk) -> Result:
        record, told = await archive(clerk, request, arguments.path, target, most=most)
        counts: dict[str, object] = {"bytes": told.numbers[0], "entries": told.numbers[1]}
        if told.numbers[2]:
            counts["left_out"] = told.numbers[2]
            counts["left_out_first"] = name_on_wire(told.rows[0].name) if told.rows else ""
        if told.numbers[3]:
            counts["changed"] = told.numbers[3]
        return {**counts, **_sent(record, target)}, {**_path_said(arguments), **counts, **_content(record)}

    return await _serve(service, request, sandbox, act, _path_said(arguments))


def extract_files(service: Service, request: Request) -> Awaitable[Answer]:
    """args: path (the directory), data | passed | neither: as file.put; parents, replace, most. result: `length`,
    `sha256`, `entries`, `bytes`."""
    arguments = FileArguments(request.command.args, ("data", "passed", "parents", "replace", "most"))
    content = arguments.fields.optional("data", bytes)
    most = arguments.most()
    flags = arguments.flags(replace=True)
    sandbox = _find(service, request, arguments)
    source = _source(service, request, arguments, content)

    async def act(clerk: FilesClerk) -> Result:
        copied, told = await extract(clerk, arguments.path, source, flags=flags, most=most)
        counts = {"bytes": told.numbers[0], "entries": told.numbers[1]}
        record = StreamRecord(copied.length, copied.sha256)
        return (
            {**counts, "length": copied.length, "sha256": copied.sha256},
            {**_path_said(arguments), **counts, **_content(record)},
        )

    return _with(source, _serve(service, request, sandbox, act, _path_said(arguments)))


def _sent(record: StreamRecord, target: Passed | None) -> dict[str, Any]:
    sent: dict[str, Any] = {"length": record.length, "sha256": record.sha256}
    if target is None:
        sent["streams"] = {"stdout": record.to_map()}
    return sent


def _spec(name: str, handle: Callable[[Service, Request], Awaitable[Answer]]) -> CommandSpec:
    takes = name in ("put", "get", "archive", "extract")
    return CommandSpec(f"file.{name}", f"file.{name}", handle, takes_descriptors=takes)


COMMANDS: Final = (
    _spec("put", put_file),
    _spec("get", get_file),
    _spec("list", listing),
    _spec("stat", stat),
    _spec("mkdir", mkdir),
    _spec("move", move),
    _spec("remove", remove),
    _spec("chmod", chmod),
    _spec("glob", glob),
    _spec("archive", archive_files),
    _spec("extract", extract_files),
)
