"""`changes.*`: what was written to a sandbox's captured directories: shown, accepted, discarded (docs/changes.md).

A clerk does it (native/launcher/clerk_changes.h), on the host's side as the caller and with no right besides. What is
decided here is whose sandbox it is, which directory is meant, and what of it the manifest protects.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.isolation.changes_words import NO_SET, Change, ChangesFlag, ChangesVerb, Side, shown_map
from immured.manifest.protect import protected_in_captures
from immured.service.changes_clerk import ask_changes
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.recorded import recorded
from immured.service.request import Answer, Request
from immured.service.sandboxes.sandbox import Sandbox
from immured.service.sandboxes.state import State
from immured.wire.data_frames import DataFrames
from immured.wire.messages import MAX_DATA, StreamRecord
from immured.wire.sockets import close_all
from immured.wire.strict import Fields, kind_of, shown, take

__all__ = ["COMMANDS"]

_PAGE: Final = 1000
_MAX_PAGE: Final = 4000
_REPLY_BYTES: Final = 640 << 10
_MAX_PATHS: Final = 4096
_MAX_PATH: Final = 4095
_ENTRY_BYTES: Final = 24 << 10
"""Of changes that an entry names one by one; the digest is over all of them."""
_DIFF_BYTES: Final = 8 << 20
"""Of either side of a diff."""

_busy: set[str] = set()


@dataclass(frozen=True, slots=True)
class _Asked:
    """One captured directory of a sandbox, and which of its changes are meant (from there; none: all)."""

    sandbox: Sandbox
    target: bytes
    protects: tuple[bytes, ...]
    paths: tuple[bytes, ...]
    skips: tuple[bytes, ...] = ()

    def said(self) -> dict[str, object]:
        """For the ledger."""
        said: dict[str, object] = {"sandbox": self.sandbox.id, "target": _text(self.target)}
        for name, paths in (("paths", self.paths), ("skip", self.skips)):
            if paths:
                said[name] = [_text(one)[:256] for one in paths[:32]]
                said[f"{name}_count"] = len(paths)
        return said


async def listing(service: Service, request: Request) -> Answer:
    """args: sandbox, target, after, limit. result: `changes`, by path; `sets`, a digest for each directory; `next`."""
    fields = take(request.command.args, "args", ("sandbox", "target", "after", "limit"))
    sandbox = _find(service, request, fields)
    chosen = _raw(fields, "target")
    targets = [chosen] if chosen is not None else [bind.target for bind in sandbox.manifest.filesystem.capture]
    after = _raw(fields, "after")
    limit = fields.integer("limit", 1, _MAX_PAGE) or _PAGE
    asked = [_Asked(sandbox, target, _protects(sandbox, target), ()) for target in sorted(targets)]

    async def act() -> tuple[dict[str, object], dict[str, object]]:
        sets: dict[str, object] = {}
        rows: list[tuple[bytes, dict[str, object]]] = []
        for one in asked:
            told = await ask_changes(service, request, sandbox, ChangesVerb.LIST, one.target, protects=one.protects)
            sets[_text(one.target)] = told.digest
            rows += [(one.target + b"/" + change.path, change.to_map(one.target)) for change in told.changes]
        rows.sort(key=lambda row: row[0])
        result: dict[str, object] = {"sandbox": sandbox.id, "sets": sets, "total": len(rows)}
        result["changes"], following = _page([row for row in rows if after is None or row[0] > after], limit)
        if following is not None:
            result["next"] = following
        digests = {name: value.hex() for name, value in sets.items() if isinstance(value, bytes)}
        return result, {"sandbox": sandbox.id, "changes": len(rows), "sets": digests}

    with _alone(sandbox):
        return await recorded(
            service, request, {"sandbox": sandbox.id, "targets": [_text(one) for one in targets]}, act
        )


async def diff(service: Service, request: Request) -> Answer:
    """args: sandbox, path. result: `change`, `streams`: what came before as data, on `before` and `after`."""
    fields = take(request.command.args, "args", ("sandbox", "path"))
    sandbox = _find(service, request, fields)
    path = _raw(fields, "path")
    if path is None:
        raise fields.wrong("path", "is missing")
    asked = _choose(sandbox, fields, [path], [])

    async def act() -> tuple[dict[str, object], dict[str, object]]:
        told = await ask_changes(
            service, request, sandbox, ChangesVerb.OPEN, asked.target, paths=asked.paths, protects=asked.protects
        )
        fds = list(told.fds)
        try:
            change = told.changes[0]
            streams = await _send_sides(request, change, fds)
        finally:
            close_all(fds)
        sent = {name: record.to_map() for name, record in streams.items()}
        result: dict[str, object] = {"sandbox": sandbox.id, "change": change.to_map(asked.target), "streams": sent}
        return result, {"sandbox": sandbox.id, "streams": {name: dict(shown_map(one)) for name, one in sent.items()}}

    with _alone(sandbox):
        return await recorded(service, request, asked.said(), act)


async def accept(service: Service, request: Request) -> Answer:
    """args: sandbox, target, paths, skip, set, force. result: `changes`, those that were applied: all, or none."""
    fields = take(request.command.args, "args", ("sandbox", "target", "paths", "skip", "set", "force"))
    sandbox = _find(service, request, fields)
    asked = _choose(sandbox, fields, _list(fields, "paths"), _list(fields, "skip"))
    digest = fields.sized("set", bytes, 32, 32)
    flags = ChangesFlag(0)
    if fields.optional("force", bool):
        flags |= ChangesFlag.OVER_CONFLICTS
    if digest is not None:
        flags |= ChangesFlag.AS_LISTED

    async def act() -> tuple[dict[str, object], dict[str, object]]:
        told = await ask_changes(
            service,
            request,
            sandbox,
            ChangesVerb.ACCEPT,
            asked.target,
            paths=asked.paths,
            skips=asked.skips,
            protects=asked.protects,
            flags=flags,
            digest=digest or NO_SET,
        )
        rows = [(asked.target + b"/" + change.path, change.to_map(asked.target)) for change in told.changes]
        page, cut = _page(rows, _MAX_PAGE)
        result: dict[str, object] = {"sandbox": sandbox.id, "target": _text(asked.target), "total": told.count}
        result["changes"] = page
        if cut is not None:
            result["cut"] = True
        return result, {"sandbox": sandbox.id, "target": _text(asked.target), **_entered(told.changes)}

    said = {**asked.said(), "force": bool(flags & ChangesFlag.OVER_CONFLICTS)}
    if digest is not None:
        said["set"] = digest.hex()
    with _alone(sandbox):
        return await recorded(service, request, said, act)


async def discard(service: Service, request: Request) -> Answer:
    """args: sandbox, target, paths. result: `removed`, how many files of the layer went."""
    fields = take(request.command.args, "args", ("sandbox", "target", "paths"))
    sandbox = _find(service, request, fields)
    asked = _choose(sandbox, fields, _list(fields, "paths"), [])
    if any(one.live for one in sandbox.execs.values()):
        raise Refused(
            "in_use",
            f"execs of {sandbox.id} live, and may have open what is to go",
            "end them first (`sandbox.signal`), or wait",
            details={"sandbox": sandbox.id},
        )

    async def act() -> tuple[dict[str, object], dict[str, object]]:
        told = await ask_changes(service, request, sandbox, ChangesVerb.DISCARD, asked.target, paths=asked.paths)
        done: dict[str, object] = {"sandbox": sandbox.id, "target": _text(asked.target), "removed": told.count}
        return done, done

    with _alone(sandbox):
        return await recorded(service, request, asked.said(), act)


# -- what is meant


def _find(service: Service, request: Request, fields: Fields) -> Sandbox:
    sandbox = service.sandboxes.find(request.warrant, fields.required("sandbox", str))
    sandbox.require(State.READY, State.PAUSED)
    if not sandbox.manifest.filesystem.capture:
        raise Refused(
            "not_captured",
            f"{sandbox.id} has no captured directory",
            "name some in the manifest (`capture`) or with --capture when it is created",
            details={"sandbox": sandbox.id},
        )
    return sandbox


def _protects(sandbox: Sandbox, target: bytes) -> tuple[bytes, ...]:
    found = protected_in_captures(sandbox.manifest.filesystem)
    if target not in found:
        raise Refused(
            "not_captured",
            f"{shown(_text(target))} is not captured",
            "captured are " + ", ".join(map(_text, found)),
            details={"sandbox": sandbox.id},
        )
    return found[target]


def _choose(sandbox: Sandbox, fields: Fields, paths: Sequence[bytes], skips: Sequence[bytes]) -> _Asked:
    targets = [bind.target for bind in sandbox.manifest.filesystem.capture]
    target = _raw(fields, "target") if "target" in fields.values else None
    if target is None and paths:
        target = max((one for one in targets if _beneath(paths[0], one)), key=len, default=None)
        if target is None:
            raise fields.wrong("paths", f"holds {shown(_text(paths[0]))}, which is in no captured directory")
    if target is None:
        if len(targets) > 1:
            raise fields.wrong("target", "is missing", "several directories are captured: name one")
        target = targets[0]
    protects = _protects(sandbox, target)
    chosen = []
    for name, given in (("paths", paths), ("skip", skips)):
        for one in given:
            if not _beneath(one, target):
                raise fields.wrong(name, f"holds {shown(_text(one))}, which does not lie in {_text(target)}")
        chosen.append(tuple(one[len(target) :].strip(b"/") for one in given))
    return _Asked(sandbox, target, protects, *chosen)


def _beneath(path: bytes, target: bytes) -> bool:
    return path == target or path.startswith(target.rstrip(b"/") + b"/")


def _list(fields: Fields, name: str) -> list[bytes]:
    values = fields.sized(name, list, 0, _MAX_PATHS) or []
    return [_path(fields, name, value) for value in values]


def _raw(fields: Fields, name: str) -> bytes | None:
    return _path(fields, name, fields.values[name]) if name in fields else None


def _path(fields: Fields, name: str, value: object) -> bytes:
    try:
        path = value.encode() if isinstance(value, str) else value
    except UnicodeEncodeError:
        raise fields.wrong(name, "holds a lone surrogate", "send bytes that are no text as bin") from None
    if not isinstance(path, bytes):
        raise fields.wrong(name, f"holds {kind_of(value)}, not a str or bin")
    parts = path.split(b"/")
    if not path.startswith(b"/") or len(path) > _MAX_PATH or b"\0" in path or b".." in parts or b"." in parts:
        raise fields.wrong(
            name, f"holds {shown(_text(path))}", "paths are absolute, as inside, without `.` and `..` in them"
        )
    return path


class _alone:  # noqa: N801 - read as a word
    """One question about a sandbox's changes at a time: a second could only find them half applied."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._id = sandbox.id
        if self._id in _busy:
            raise Refused("busy", f"the changes of {self._id} are being looked at already", "try again")

    def __enter__(self) -> None:
        _busy.add(self._id)

    def __exit__(self, *_: object) -> None:
        _busy.discard(self._id)


# -- what is told


def _page(rows: Sequence[tuple[bytes, dict[str, object]]], limit: int) -> tuple[list[dict[str, object]], bytes | None]:
    page: list[dict[str, object]] = []
    size, last = 0, None
    for path, row in rows:
        size += 3 * len(path) + 400
        if len(page) == limit or (page and size > _REPLY_BYTES):
            return page, last
        page.append(row)
        last = path
    return page, None


def _entered(changes: Sequence[Change]) -> dict[str, object]:
    """What an entry says of what was applied: how much, the digest of all, and as many by name as it holds."""
    digest = hashlib.sha256()
    named: list[Mapping[str, object]] = []
    size = 0
    for change in changes:
        for part in (
            change.kind.name.encode(),
            change.path,
            change.former,
            _digest(change.before),
            _digest(change.after),
        ):
            digest.update(len(part).to_bytes(4, "big") + part)
        size += len(change.path) + len(change.former) + 300
        if size <= _ENTRY_BYTES:
            row: dict[str, object] = {"kind": change.kind.name.lower(), "path": _text(change.path)}
            if change.former:
                row["from"] = _text(change.former)
            if change.after is not None and any(change.after.digest):
                row["sha256"] = change.after.digest.hex()
            named.append(row)
    return {"changes": len(changes), "sha256": digest.hexdigest(), "named": named}


def _digest(side: Side | None) -> bytes:
    return b"" if side is None else side.mode.to_bytes(4, "big") + side.digest + side.link


async def _send_sides(request: Request, change: Change, fds: Sequence[int]) -> dict[str, StreamRecord]:
    sides = [("before", change.before), ("after", change.after)]
    regular = [(name, side) for name, side in sides if side is not None and side.kind == "file"]
    if len(regular) != len(fds):
        raise Refused("internal", "the clerk for change sets opened something else", "report it")
    for name, side in regular:
        if side.size > _DIFF_BYTES:
            raise Refused(
                "too_large",
                f"{name} has {side.size} bytes, and a diff shows {_DIFF_BYTES} of either side",
                "take it out with `file.get`; the host's is yours to read",
                details={"size": side.size},
            )
    return {name: await _send(request, name, fd) for (name, _), fd in zip(regular, fds, strict=True)}


async def _send(request: Request, name: str, fd: int) -> StreamRecord:
    """A file's content, as it is now, bounded."""
    frames = DataFrames(request.command.nonce, name)
    digest, length = hashlib.sha256(), 0
    while length < _DIFF_BYTES:
        data = await asyncio.to_thread(os.pread, fd, min(MAX_DATA, _DIFF_BYTES - length), length)
        if not data or request.channel.closed:
            break
        request.channel.send_parts(frames.parts(data))
        digest.update(data)
        length += len(data)
        if request.channel.congested:
            drained = asyncio.Event()
            request.channel.when_drained(drained.set)
            await drained.wait()
    return StreamRecord(length, digest.digest())


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


COMMANDS: Final = (
    CommandSpec("changes.list", "changes.list", listing),
    CommandSpec("changes.diff", "changes.diff", diff),
    CommandSpec("changes.accept", "changes.accept", accept),
    CommandSpec("changes.discard", "changes.discard", discard),
)
