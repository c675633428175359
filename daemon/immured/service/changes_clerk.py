"""A captured directory's changes, as the broker asks for them: every refusal of the clerk as a typed one."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.isolation.abi import Clerk
from immured.isolation.changes_words import (
    GO,
    NO_SET,
    Change,
    ChangesAnswer,
    ChangesFlag,
    ChangesRefusal,
    ChangesVerb,
    ChangesWord,
    Staged,
    WordsError,
    pack_question,
    parse_changes_answer,
)
from immured.service.accepting import Begun
from immured.service.context import Service
from immured.service.request import Request
from immured.service.sandboxes.sandbox import Sandbox
from immured.wire.sockets import close_all
from immured.wire.strict import shown

__all__ = ["Told", "ask_changes"]

log = logging.getLogger("immured")

_WITHIN_S: Final = 300.0
"""Every file that was written is read once, what it replaces too, and what is accepted is copied and synced."""
_ROWS_WITH_REFUSAL: Final = 32
_NAMED: Final = 8
"""Of them, in the message."""

_REFUSALS: Final[dict[ChangesRefusal, tuple[str, str, str]]] = {
    ChangesRefusal.BAD_QUESTION: ("internal", "the clerk did not understand", "report it"),
    ChangesRefusal.NOBODY: ("internal", "the clerk was told of no caller", "report it"),
    ChangesRefusal.NO_PLACE: ("no_such_change", "", "`changes.list` shows what there is"),
    ChangesRefusal.MOVED: (
        "directory_moved",
        "the captured directory is not where it was",
        "put it back, or bring what was written out with `file.archive`",
    ),
    ChangesRefusal.DENIED: ("path_denied", "the caller may not", "ask as the user that captured it"),
    ChangesRefusal.ROOT_OWNED: (
        "root_owned",
        "nothing is written to what root owns, nor as root",
        "capture it as the user that owns it (--as USER), or bring what was written out with `file.archive`",
    ),
    ChangesRefusal.CONFLICT: (
        "conflict",
        "changed on the host as well",
        "look at both (`changes.diff`); then leave these out (`skip`), discard them, or replace the host's (`force`)",
    ),
    ChangesRefusal.PROTECTED: (
        "protected",
        "the manifest protects it",
        "leave it out (`skip`), or put it there yourself once you have read it",
    ),
    ChangesRefusal.UNACCEPTABLE: (
        "unacceptable",
        "it is nothing that a change set carries",
        "leave it out (`skip`), or discard it; `trouble` says what it is",
    ),
    ChangesRefusal.DIFFERENT: (
        "changed_since",
        "it is not what was listed",
        "list it again; pause the sandbox, if it goes on writing",
    ),
    ChangesRefusal.INCOMPLETE: ("incomplete", "one change needs another", "choose both, or neither"),
    ChangesRefusal.TOO_MANY: (
        "too_many_changes",
        "more than a change set holds",
        "discard what is not needed, or bring it out with `file.archive`",
    ),
    ChangesRefusal.BUSY: ("in_use", "something in the sandbox, or mounted there, holds it", "end its execs first"),
    ChangesRefusal.FAILED: (
        "not_applied",
        "the file system refused; everything is as it was",
        "mend that, and try again",
    ),
    ChangesRefusal.TORN: (
        "half_applied",
        "the file system refused, and did not take it back either",
        "docs/changes.md says how to put back what the message names",
    ),
}


@dataclass(frozen=True, slots=True)
class Told:
    """What the clerk came to. `fds`: of OPEN, the sides that there are, before first; the receiver's to close."""

    count: int
    digest: bytes
    changes: tuple[Change, ...]
    fds: tuple[int, ...] = ()


async def ask_changes(
    service: Service,
    request: Request,
    sandbox: Sandbox,
    verb: ChangesVerb,
    target: bytes,
    *,
    paths: Sequence[bytes] = (),
    skips: Sequence[bytes] = (),
    protects: Sequence[bytes] = (),
    flags: ChangesFlag | None = None,
    digest: bytes = NO_SET,
) -> Told:
    """Asks a clerk, which acts as the request's caller. Raises Refused."""
    packet, texts = pack_question(verb, target, paths=paths, skips=skips, protects=protects, flags=flags, digest=digest)
    own = [] if verb is ChangesVerb.DISCARD else await _recover(service, request, sandbox, verb, target)
    told = await _ask(service, request, sandbox, target, packet, texts)
    for staging in own:
        await asyncio.to_thread(service.storage.accepting.over, staging)
    return told


async def _recover(service: Service, request: Request, sandbox: Sandbox, verb: ChangesVerb, target: bytes) -> list[str]:
    """What a crash left half accepted in this directory by another sandbox is undone, or finished. Returns those of
    this one: its next clerk knows of them, and sees to them before all else."""
    own = []
    accepting = service.storage.accepting
    directory, uid = _source(sandbox, target), request.channel.peer.uid
    for begun in await asyncio.to_thread(accepting.left, directory, uid):
        if begun.sandbox == sandbox.id:
            own.append(begun.staging)
            continue
        staged = Staged(begun.inode, bytes.fromhex(begun.journal), begun.staging.encode())
        packet, texts = pack_question(ChangesVerb.RECOVER, target, staged=staged)
        try:
            await _ask(service, request, sandbox, target, packet, texts)
        except Refused as refusal:
            # Another directory of that name; or one that is at it now, which is no matter to who only looks.
            if refusal.code == "no_such_change" or verb is not ChangesVerb.ACCEPT:
                continue
            raise
        await asyncio.to_thread(accepting.over, begun.staging)
    return own


def _source(sandbox: Sandbox, target: bytes) -> str:
    """The captured directory on the host, as a record has it."""
    for bind in sandbox.manifest.filesystem.capture:
        if bind.target == target:
            return bind.source.decode("utf-8", "backslashreplace")
    return ""


async def _ask(
    service: Service, request: Request, sandbox: Sandbox, target: bytes, packet: bytes, texts: bytes
) -> Told:
    accepting = service.storage.accepting
    staging = None
    deadline = asyncio.get_running_loop().time() + _WITHIN_S
    rows: list[Change] = []
    async with await service.sandboxes.clerk(sandbox, Clerk.CHANGES, request.channel.number) as link:
        memfd = os.memfd_create("immured-question", os.MFD_CLOEXEC)
        try:
            os.write(memfd, texts)
            await link.send(packet, (memfd,))
        finally:
            os.close(memfd)
        while True:
            data, fds = await link.receive(within=max(0.0, deadline - asyncio.get_running_loop().time()))
            try:
                answer = parse_changes_answer(data)
            except WordsError:
                close_all(fds)
                raise Refused("internal", "the clerk for change sets said what is no answer", "report it") from None
            rows += answer.changes
            if answer.word is ChangesWord.CONTENT:
                return Told(answer.count, answer.digest, tuple(rows), tuple(fds))
            close_all(fds)
            if answer.begun is not None:
                staging = answer.begun.staging.decode("ascii", "backslashreplace")
                begun = Begun(
                    _source(sandbox, target), answer.begun.inode, request.channel.peer.uid, staging,
                    answer.begun.journal.hex(), sandbox.id,
                )  # fmt: skip
                try:
                    await asyncio.to_thread(accepting.begin, begun)
                except (OSError, ValueError):
                    log.exception("an acceptance could not be noted")
                    await link.send(b"no")
                else:
                    await link.send(GO)
                continue
            if staging is not None and answer.refusal is not ChangesRefusal.TORN:
                await asyncio.to_thread(accepting.over, staging)
            if answer.word is ChangesWord.DONE:
                return Told(answer.count, answer.digest, tuple(rows))
            if answer.word is ChangesWord.REFUSED:
                raise _refused(answer, rows, target)


def _refused(answer: ChangesAnswer, rows: Sequence[Change], target: bytes) -> Refused:
    assert answer.refusal is not None  # noqa: S101 - the parser saw to it
    code, why, remedy = _REFUSALS[answer.refusal]
    what = answer.text.decode("utf-8", "backslashreplace")
    if rows:
        named = [shown(_inside(one, target)) for one in rows[:_NAMED]]
        what = ", ".join(named)
        if answer.count > len(named):
            what += f", and {answer.count - len(named)} more"
    details: dict[str, object] = {}
    if answer.error:
        details["errno"] = errno.errorcode.get(answer.error, str(answer.error))
    if answer.count:
        details["count"] = answer.count
    if rows:
        details["changes"] = [_brief(one, target) for one in rows[:_ROWS_WITH_REFUSAL]]
    return Refused(code, f"{what}: {why}" if why else what, remedy, details=details)


def _inside(change: Change, target: bytes) -> str:
    return (target + b"/" + change.path if change.path else target).decode("utf-8", "backslashreplace")


def _brief(change: Change, target: bytes) -> dict[str, object]:
    whole = change.to_map(target)
    path = whole["path"]
    shown: dict[str, object] = {"kind": whole["kind"], "path": path[:512] if isinstance(path, str | bytes) else ""}
    if "trouble" in whole:
        shown["trouble"] = whole["trouble"]
    return shown
