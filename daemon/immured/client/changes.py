"""What a sandbox wrote to its captured directories: the blocking object and its asyncio twin over `changes_questions`.

seen = sandbox.changes.list()
for change in seen:
    print(change.kind, change.path)
print(sandbox.changes.diff("/srv/project/app.py").text())
sandbox.changes.accept(as_listed=seen)
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.client import changes_questions as questions
from immured.client.changes_questions import Accepted, Change, Discarded
from immured.errors import Refused

if TYPE_CHECKING:
    from immured.client.aiosandbox import AsyncSandbox
    from immured.client.order import Text
    from immured.client.sandbox import Sandbox

__all__ = ["AsyncChanges", "ChangeSet", "Changes", "Diff"]

_TEXT_BYTES: Final = 1 << 20
_TEXT_LINES: Final = 20_000
"""Beyond these, on either side, a text is not compared line by line: it was written to be slow."""


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Every change, by path, as it was at one moment. `sets`: of each captured directory, the digest of its changes."""

    changes: tuple[Change, ...]
    sets: Mapping[str, bytes]

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def digest(self, target: Text | None) -> bytes:
        """Of one captured directory's; of the only one, where `target` is None. Raises Refused `bad_argument`."""
        if target is None and len(self.sets) == 1:
            return next(iter(self.sets.values()))
        name = os.fspath(target) if target is not None else ""
        found = self.sets.get(name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name)
        if found is None:
            raise Refused("bad_argument", "this change set is of several directories", "name one of them (`target`)")
        return found


@dataclass(frozen=True, slots=True)
class Diff:
    """One change with the content of both sides; None where that side is no file."""

    change: Change
    before: bytes | None
    after: bytes | None

    def text(self, context: int = 3) -> str:
        """As a unified diff where both sides are text of a size to be read, else in a line. Hostile content is no more
        than text here: whoever prints it to a terminal escapes it (`immure changes diff` does)."""
        head = _head(self.change)
        old, new = _lines(self.before), _lines(self.after)
        if self.before is None and self.after is None:
            return head
        if old is None or new is None:
            return f"{head}\n{_size(self.before)} and {_size(self.after)}, not text (or too much of it) to compare"
        before = "/dev/null" if self.before is None else _shown(self.change.former or self.change.path)
        after = "/dev/null" if self.after is None else _shown(self.change.path)
        return "\n".join([head, *difflib.unified_diff(old, new, before, after, n=context, lineterm="")])


class Changes:
    """The changes of one sandbox. Every call is a signed command and in the ledger."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def list(self, target: Text | None = None) -> ChangeSet:
        """Every change, of one captured directory (its place inside) or of all. Raises Refused `changed_since` where
        they change while they are listed: pause the sandbox."""
        gathered = _Gathered()
        while gathered.more:
            gathered.add(self._sandbox.ask(questions.page(self._sandbox.id, target, gathered.after)))
        return gathered.set()

    def diff(self, path: Text) -> Diff:
        """One change, with the content of both sides (at most 8 MiB each)."""
        sides = _Sides()
        return sides.diff(self._sandbox.ask(questions.diff(self._sandbox.id, path), sink=sides.take))

    def accept(
        self,
        *paths: Text,
        target: Text | None = None,
        skip: tuple[Text, ...] = (),
        as_listed: ChangeSet | bytes | None = None,
        force: bool = False,
    ) -> Accepted:
        """Applies changes to the host as you, all or none: those at and beneath `paths` (none: all) but not those at
        and beneath `skip`. With `as_listed` only if they are still what was listed. `force` replaces what changed on
        the host meanwhile."""
        return self._sandbox.ask(
            questions.accept(
                self._sandbox.id, paths, target=target, skip=skip, as_listed=_digest(as_listed, target), force=force
            )
        )

    def discard(self, *paths: Text, target: Text | None = None) -> Discarded:
        """Throws changes away, so that the host's files show again: those at and beneath `paths` (none: all)."""
        return self._sandbox.ask(questions.discard(self._sandbox.id, paths, target=target))


class AsyncChanges:
    """`Changes`, for asyncio."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox

    async def list(self, target: Text | None = None) -> ChangeSet:
        """As `Changes.list`."""
        gathered = _Gathered()
        while gathered.more:
            gathered.add(await self._sandbox.ask(questions.page(self._sandbox.id, target, gathered.after)))
        return gathered.set()

    async def diff(self, path: Text) -> Diff:
        """As `Changes.diff`."""
        sides = _Sides()
        return sides.diff(await self._sandbox.ask(questions.diff(self._sandbox.id, path), sink=sides.take))

    async def accept(
        self,
        *paths: Text,
        target: Text | None = None,
        skip: tuple[Text, ...] = (),
        as_listed: ChangeSet | bytes | None = None,
        force: bool = False,
    ) -> Accepted:
        """As `Changes.accept`."""
        return await self._sandbox.ask(
            questions.accept(
                self._sandbox.id, paths, target=target, skip=skip, as_listed=_digest(as_listed, target), force=force
            )
        )

    async def discard(self, *paths: Text, target: Text | None = None) -> Discarded:
        """As `Changes.discard`."""
        return await self._sandbox.ask(questions.discard(self._sandbox.id, paths, target=target))


class _Gathered:
    """The pages of one list, which must all be of one and the same change set."""

    def __init__(self) -> None:
        self.more = True
        self.after: str | bytes | None = None
        self._changes: list[Change] = []
        self._sets: Mapping[str, bytes] | None = None

    def add(self, page: questions.ChangePage) -> None:
        if self._sets is not None and page.sets != self._sets:
            raise Refused("changed_since", "the changes changed while they were listed", "pause the sandbox first")
        self._sets = page.sets
        self._changes += page.changes
        self.after = page.next
        self.more = page.next is not None

    def set(self) -> ChangeSet:
        return ChangeSet(tuple(self._changes), dict(self._sets or {}))


class _Sides:
    def __init__(self) -> None:
        self._came: dict[str, bytearray] = {}

    def take(self, stream: str, data: bytes) -> None:
        self._came.setdefault(stream, bytearray()).extend(data)

    def diff(self, change: Change) -> Diff:
        def side(name: str, it: questions.Side | None) -> bytes | None:
            return bytes(self._came.get(name, b"")) if it is not None and it.kind == "file" else None

        return Diff(change, side("before", change.before), side("after", change.after))


def _digest(listed: ChangeSet | bytes | None, target: Text | None) -> bytes | None:
    return listed.digest(target) if isinstance(listed, ChangeSet) else listed


def _lines(content: bytes | None) -> list[str] | None:
    """None where it is not to be compared line by line."""
    if content is None:
        return []
    if len(content) > _TEXT_BYTES or b"\0" in content:
        return None
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError:
        return None
    if lines and not lines[-1]:
        lines.pop()
    elif lines:
        lines[-1] += "\n\\ No newline at end of file"
    return lines if len(lines) <= _TEXT_LINES else None


def _head(change: Change) -> str:
    words = f"{change.kind} {_shown(change.path)}"
    if change.former is not None:
        words += f" from {_shown(change.former)}"
    if change.before is not None and change.after is not None and change.before.mode != change.after.mode:
        words += f" mode {change.before.mode:04o} to {change.after.mode:04o}"
    for side, arrow in ((change.before, "was"), (change.after, "->")):
        if side is not None and side.link is not None:
            words += f" {arrow} {_shown(side.link)}"
    return words + (f" ({change.trouble})" if change.trouble else "")


def _shown(path: str | bytes) -> str:
    return path.decode("utf-8", "backslashreplace") if isinstance(path, bytes) else path


def _size(content: bytes | None) -> str:
    return "nothing" if content is None else f"{len(content)} bytes"
