"""A sandbox's files, as the broker asks for them: every refusal of the clerk as a typed one."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from types import TracebackType
from typing import Final

from immured.errors import Refused
from immured.isolation.abi import Clerk
from immured.isolation.files_words import (
    NO_FLAGS,
    FilesAnswer,
    FilesFlag,
    FilesOp,
    FilesRefusal,
    WordsError,
    pack_question,
    parse_files_answer,
)
from immured.service.context import Service
from immured.service.request import Request
from immured.service.sandboxes.clerks import ANSWER_S, Link
from immured.service.sandboxes.sandbox import Sandbox
from immured.wire.sockets import close_all

__all__ = ["FilesClerk", "refused"]

_REFUSALS: Final[dict[FilesRefusal, tuple[str, str]]] = {
    FilesRefusal.OUTSIDE: ("path_escapes", "name the file itself, by its path from the sandbox's root, without `..`"),
    FilesRefusal.LINK: ("link_refused", "name what the link points to"),
    FilesRefusal.KIND: ("wrong_kind", "`file.stat` says what is there"),
    FilesRefusal.KERNEL: ("kernel_files", "what the kernel says of the sandbox, an exec in it can read"),
    FilesRefusal.SETID: ("setid_refused", "permissions are 0 to 0777, and 01777 for directories"),
    FilesRefusal.DEEP: ("too_deep", "take a directory further down"),
    FilesRefusal.LARGE: ("too_large", "allow more with `most`, or take less at once"),
    FilesRefusal.MALFORMED: ("bad_archive", "send an uncompressed tar archive (POSIX or GNU)"),
    FilesRefusal.NAME: ("bad_path", "paths are absolute; names in an archive are relative and lead down"),
    FilesRefusal.EXISTS: ("exists", "remove it first, or say `replace` or `recursive`"),
    FilesRefusal.ACROSS: ("across_places", "copy it by an exec in the sandbox, or get it and put it"),
    FilesRefusal.MOUNTED: ("mounted", "what the manifest mounted stays where it is"),
    FilesRefusal.RACED: ("raced", "something in the sandbox replaces it all the time; try again, or pause the sandbox"),
    FilesRefusal.SHORT: ("cut_short", "send all of it"),
    FilesRefusal.ORDER: ("internal", "report it"),
}
_ERRNOS: Final[dict[int, tuple[str, str]]] = {
    errno.ENOENT: ("no_such_file", "`file.list` shows what there is"),
    errno.ENOTDIR: ("no_such_file", "what is on the way is no directory"),
    errno.EACCES: ("file_denied", "the sandbox's own user may not; `file.stat` shows the permissions"),
    errno.EPERM: ("file_denied", "the sandbox's own user may not"),
    errno.EROFS: ("read_only", "the manifest makes it readable alone: `write` or `tmpfs` make it writable"),
    errno.ENOSPC: ("no_space", "remove something, or give the sandbox more (limits `disk` and `memory`)"),
    errno.EDQUOT: ("no_space", "remove something, or raise the quota"),
    errno.EFBIG: ("no_space", "no file may be so large here"),
    errno.ENOTEMPTY: ("exists", "say `recursive` to remove what is in it too"),
    errno.EISDIR: ("wrong_kind", "a directory is there"),
    errno.ENAMETOOLONG: ("bad_path", "a name has at most 255 bytes, a path 4,095"),
}


def refused(answer: FilesAnswer) -> Refused:
    """A clerk's refusal."""
    assert answer.refusal is not None  # noqa: S101 - the caller looked
    details: dict[str, object] = {}
    if answer.refusal is FilesRefusal.FAILED:
        code, remedy = _ERRNOS.get(answer.error, ("file_failed", "`file.stat` shows what is there"))
    else:
        code, remedy = _REFUSALS[answer.refusal]
    if answer.error:
        details["errno"] = errno.errorcode.get(answer.error, str(answer.error))
    if answer.refusal is FilesRefusal.LARGE and answer.numbers[0]:
        details |= {"size": answer.numbers[0], "allocated": answer.numbers[1]}
    return Refused(code, answer.text or os.strerror(answer.error), remedy, details=details)


class FilesClerk:
    """`async with await FilesClerk.of(...) as clerk:`; it ends when that is left."""

    def __init__(self, link: Link, sandbox: str) -> None:
        self._link = link
        self._sandbox = sandbox

    @classmethod
    async def of(cls, service: Service, request: Request, sandbox: Sandbox) -> FilesClerk:
        """One that serves the request. Raises Refused as `Sandboxes.clerk` does."""
        return cls(await service.sandboxes.clerk(sandbox, Clerk.FILES, request.channel.number), sandbox.id)

    async def __aenter__(self) -> FilesClerk:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._link.close()

    async def ask(
        self,
        op: FilesOp,
        path: bytes = b"",
        second: bytes = b"",
        *,
        flags: FilesFlag = NO_FLAGS,
        mode: int = 0,
        numbers: tuple[int, int] = (0, 0),
        fds: Sequence[int] = (),
        within: float = ANSWER_S,
    ) -> FilesAnswer:
        """The answer. Raises Refused; what came along as a descriptor is closed."""
        answer, came = await self._exchange(
            pack_question(op, path, second, flags=flags, mode=mode, numbers=numbers), op, fds, within
        )
        close_all(came)
        return answer

    async def open(
        self,
        op: FilesOp,
        path: bytes,
        *,
        flags: FilesFlag = NO_FLAGS,
        mode: int = 0,
        most: int = 0,
    ) -> tuple[FilesAnswer, int | None]:
        """GET and PUT: the answer, and a descriptor of the file where the broker may touch it, the
        caller's to close."""
        question = pack_question(op, path, flags=flags, mode=mode, numbers=(most, 0))
        answer, came = await self._exchange(question, op, (), ANSWER_S)
        if FilesFlag.LOCAL in answer.flags and len(came) == 1:
            return answer, came[0]
        close_all(came)
        return answer, None

    async def _exchange(
        self, question: bytes, op: FilesOp, fds: Sequence[int], within: float
    ) -> tuple[FilesAnswer, list[int]]:
        packet, came = await self._link.ask(question, fds, within=within)
        try:
            answer = parse_files_answer(op, packet)
            if answer.refusal is not None:
                raise refused(answer)
        except WordsError as wrong:
            close_all(came)
            self._link.close()
            raise Refused(
                "clerk_lost", f"the process that serves {self._sandbox} said what it cannot mean: {wrong}", "ask again"
            ) from None
        except Refused:
            close_all(came)
            raise
        return answer, came
