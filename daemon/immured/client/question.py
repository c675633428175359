"""A command as values: what is sent, and how its answer is read. What both clients share; neither waits in here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from immured.client.errors import StreamMismatch, UntrustedReply
from immured.client.outcome import Answer, answer
from immured.errors import Refused
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.order import Stdin
    from immured.wire.messages import Data, Reply

__all__ = ["PROGRESS", "Asked", "Progress", "Question", "Taken", "page", "reading", "rows"]

T = TypeVar("T")

PROGRESS: Final = "progress"
"""The stream on which the daemon says how many bytes it has done so far, in decimal ASCII."""

Progress = Callable[[int], object]
"""Told how many bytes of a transfer are done. Unsigned: for a person's eyes."""

Taken = Callable[[str, bytes], object]
"""Takes a stream's name and a piece of it, as it comes, before anything vouches for it."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """`cmd` and `args` to sign, `fds` to send along, `read`: what the answer comes to (it raises Refused for one that
    cannot be read).

    `source` travels as data frames on the stream `into` (None: the daemon expects none). Data on `streamed` is the
    caller's; the reply signs the digest of each under `streams`.
    """

    cmd: str
    args: Mapping[str, object]
    read: Callable[[Answer], T]
    fds: tuple[int, ...] = ()
    source: Stdin | None = None
    into: str = "stdin"
    streamed: frozenset[str] = field(default_factory=frozenset)

    @property
    def repeatable(self) -> bool:
        """Whether the very same bytes can be sent again: nothing was read away, nothing is half taken."""
        return not self.streamed and (self.source is None or isinstance(self.source, bytes | bytearray | memoryview))


class Asked(Generic[T]):
    """A question in flight: its data, counted and digested as it comes, then its reply."""

    def __init__(self, question: Question[T], sink: Taken | None, progress: Progress | None) -> None:
        self._question = question
        self._sink = sink
        self._progress = progress
        self._came: dict[str, tuple[int, hashlib._Hash]] = {}
        self._sent = 0

    def data(self, data: Data) -> object:
        """Takes one piece. Gives what the caller's function returned, which may want to be awaited."""
        if data.stream == PROGRESS:
            done = data.data
            return self._progress(int(done)) if self._progress and done.isdigit() and len(done) < 20 else None
        if data.stream not in self._question.streamed or not data.data:
            return None
        length, digest = self._came.get(data.stream) or (0, hashlib.sha256())
        digest.update(data.data)
        self._came[data.stream] = (length + len(data.data), digest)
        return self._sink(data.stream, data.data) if self._sink is not None else None

    def sending(self, chunk: bytes) -> None:
        """Notes a piece of the source that is about to go out."""
        self._sent += len(chunk)
        if self._progress is not None:
            self._progress(self._sent)

    def finish(self, reply: Reply) -> T:
        """What it comes to. Raises Refusal, StreamMismatch, UntrustedReply."""
        said = answer(reply)
        try:
            self._check(Fields(said.result, "result", "bad_reply"))
            return self._question.read(said)
        except Refused as error:
            raise UntrustedReply(f"the answer to {self._question.cmd} cannot be read: {error.message}") from None

    def _check(self, fields: Fields) -> None:
        if not self._question.streamed:
            return
        records = fields.optional("streams", dict) or {}
        for name in sorted(self._question.streamed):
            length, digest = self._came.get(name) or (0, hashlib.sha256())
            record = records.get(name)
            inner = Fields(record if isinstance(record, dict) else {}, f"result.streams.{name}", "bad_reply")
            signed = inner.optional("length", int) or 0
            if signed != length or (length and inner.optional("sha256", bytes) != digest.digest()):
                raise StreamMismatch(name, f"{length} bytes came, and they are not the {signed} that are signed")


def reading(said: Answer) -> Fields:
    """The answer's fields, for a `read`: by name and kind, raising what `Asked.finish` turns into UntrustedReply."""
    return Fields(said.result, "result", "bad_reply")


def rows(said: Answer, name: str, read: Callable[[Fields], T]) -> list[T]:
    """The answer's list of that name, each of its maps read."""
    found: list[T] = []
    for row in reading(said).required(name, list):
        if not isinstance(row, Mapping):
            raise Refused("bad_reply", f"result.{name} holds what is no map")
        found.append(read(Fields(row, f"result.{name}", "bad_reply")))
    return found


def page(said: Answer, name: str, read: Callable[[Fields], T]) -> tuple[list[T], str | None]:
    """`rows`, and behind which one there are more; None: it is the last page."""
    return rows(said, name, read), reading(said).optional("next", str)
