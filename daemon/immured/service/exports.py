"""The copies of the ledger, as the broker sees them: what each was told, what it said, since when it says nothing.

Each new head of the ledger is copied to every destination; one that fails is tried again. Nothing here is waited for by
a run. What fails, and what is well again, is an entry, once each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgpack

from immured.errors import Refused
from immured.ledger import entry_types
from immured.ledger.exports.head import Head, folder_of
from immured.service.context import log
from immured.service.exporting import MAX_MESSAGE

if TYPE_CHECKING:
    from immured.ledger import Entry, Ledger
    from immured.service.exporting import Exporter

__all__ = ["PROBE_S", "Export", "ExportHistory", "Exports", "Failure"]

PROBE_S: Final = 5.0
"""A destination that takes longer to write, sync and read 64 KiB is not reachable."""
_RETRY_S: Final = 30.0
_SILENCE_S: Final = 30.0
_FRESH_S: Final = 1.0  # pieces of a copy that come so often are as good as a probe
_STOP_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a destination has not what it should. `code`: docs/ledger.md, Exports."""

    code: str
    message: str
    remedy: str = ""

    @property
    def of_the_copy(self) -> bool:
        """Whether the copy itself is not right, however well it can be reached."""
        return self.code in _OF_THE_COPY


_OF_THE_COPY: Final = frozenset({"export_differs", "export_ahead", "export_missing", "export_insecure"})


class ExportHistory:
    """What the ledger says of its copies: where one was begun, and which had failed. Fed every entry in order."""

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.failed: dict[str, int] = {}
        """The `seq` of each destination's last export.failed that nothing came after."""

    def visit(self, entry: Entry) -> None:
        """Take one entry of a type that begins with `export.`."""
        destination = entry.data.get("destination")
        if not isinstance(destination, str):
            return
        if entry.type == entry_types.EXPORT_FAILED:
            self.failed[destination] = entry.seq
            return
        self.failed.pop(destination, None)
        if entry.type == entry_types.EXPORT_BEGAN:
            self.begun.add(destination)


@dataclass(slots=True, eq=False)
class Export:
    """One destination. `entries`, `bytes`: what it is known to hold; `failure`: why it has no more."""

    exporter: Exporter
    begun: bool
    failed: int | None
    entries: int = 0
    bytes: int = 0
    failure: Failure | None = None
    copied: bool = False
    """Whether it was brought up to date since the daemon started."""
    op: str = ""
    """The order that is under way."""
    heard: float = 0.0
    piece: float = float("-inf")
    """When a piece of a copy was last done there: written, synced, read again."""
    probes: list[asyncio.Future[Failure | None]] = field(default_factory=list)
    again: asyncio.TimerHandle | None = None
    watch: asyncio.TimerHandle | None = None
    ended: bool = False
    """Its process is gone."""
    over: bool = False
    """The daemon stops, and the last try failed."""

    due: float = float("-inf")
    """Before when it need not be copied to again."""

    @property
    def name(self) -> str:
        """What the ledger and `status` call it."""
        return self.exporter.place.name

    @property
    def silent_s(self) -> float:
        """How long an order has been under way without a word; 0 where none is."""
        return time.monotonic() - self.heard if self.op else 0.0


class Exports:
    """All of them. Everything but `head` is called on the event loop."""

    def __init__(
        self,
        exporters: Iterable[Exporter],
        ledger: Ledger,
        actor: Callable[[], Mapping[str, object]],
        history: ExportHistory,
        vkeys: bytes,
    ) -> None:
        self._ledger = ledger
        self._actor = actor
        self._vkeys = vkeys
        self._loop = asyncio.get_running_loop()
        self._wanted: Head | None = None
        self._stopping = False
        self._news = asyncio.Event()
        self.all: Sequence[Export] = [
            Export(one, one.place.name in history.begun, history.failed.get(one.place.name)) for one in exporters
        ]

    def start(self) -> None:
        """Copy what there is, and from now on all that comes."""
        if self.all:
            for one in self.all:
                self._loop.add_reader(one.exporter.socket.fileno(), self._readable, one)
            self._ledger.on_head(self._head)

    async def probe(self, one: Export, deadline_s: float = PROBE_S) -> Failure | None:
        """Whether it can be written to now, and its copy stands; what is wrong, if anything. By the deadline."""
        until = self._loop.time() + deadline_s
        if one.ended:
            return one.failure
        if one.op != "copy" or time.monotonic() - one.piece > _FRESH_S:
            failure = await self._probe(one, deadline_s)
            if failure is not None:
                return failure
        if one.failure is not None:
            self._hurry(one)
            await self._until(lambda: not one.op or one.failure is None, until)
        elif not one.copied:
            # What was there before this daemon is not looked at yet: it may be another ledger's, or more than this one.
            await self._until(lambda: not one.op or one.copied, until)
        return one.failure

    async def _probe(self, one: Export, deadline_s: float) -> Failure | None:
        told: asyncio.Future[Failure | None] = self._loop.create_future()
        one.probes.append(told)
        self._next(one)
        try:
            return await asyncio.wait_for(told, deadline_s)
        except TimeoutError:
            if one.op == "copy" and time.monotonic() - one.piece < deadline_s:
                return None  # it had no turn: pieces of a copy are being written, synced and read
            self._fail(one, failure := self._silence(one, deadline_s))
            return failure

    async def finish(self) -> None:
        """The ledger is closed: have the rest copied, by who answers in time; then let them go."""
        self._stopping = True
        for one in self.all:
            self._hurry(one)
        self._take(self._ledger.head)
        deadline = self._loop.time() + _STOP_S
        await asyncio.gather(*(self._finished(one, deadline) for one in self.all))
        for one in self.all:
            if self._wanted is not None and one.entries < self._wanted.size:
                why = one.failure.message if one.failure is not None else "there was no time"
                log.error("%s has %d of %d entries: %s", one.name, one.entries, self._wanted.size, why)
            self._let_go(one)

    async def _finished(self, one: Export, deadline: float) -> None:
        while one.op and self._loop.time() < deadline:
            quiet = self._loop.time() + PROBE_S - one.silent_s
            if not await self._until(lambda: not one.op, min(deadline, quiet)) and one.silent_s >= PROBE_S:
                return

    async def _until(self, so: Callable[[], bool], deadline: float) -> bool:
        """Wait for what the exporters say, until it is so."""
        while not so():
            self._news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._news.wait()
            except TimeoutError:
                return so()
        return True

    def held(self) -> int | None:
        """How many entries every destination is known to hold, since this daemon looked; None: there is no destination,
        so nobody has to hold any."""
        return min((one.entries if one.copied else 0 for one in self.all), default=None)

    def to_map(self) -> list[dict[str, object]]:
        """For `status`."""
        return [_shown(one) for one in self.all]

    # --- orders

    def _head(self, head: Head) -> None:
        """On any thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, head)
        except RuntimeError:
            return  # the loop is closed, and with it everything

    def _take(self, head: Head | None) -> None:
        if head is not None and (self._wanted is None or head.size > self._wanted.size):
            self._wanted = head
        for one in self.all:
            self._next(one)

    def _next(self, one: Export) -> None:
        """The next order, if none is under way: a probe before a copy, as somebody waits for it."""
        if one.op or one.ended or one.over:
            return
        if one.probes:
            self._order(one, "probe", {})
            return
        head = self._wanted
        if head is None or (one.copied and one.entries >= head.size) or one.again is not None:
            return
        wait = one.due - time.monotonic()
        if wait > 0 and not self._stopping:
            one.again = self._loop.call_later(wait, self._retry, one)
            return
        self._order(one, "copy", {"size": head.size, "end": head.end, "vkeys": self._vkeys})

    def _order(self, one: Export, op: str, more: Mapping[str, object]) -> None:
        said = {"op": op, "origin": self._ledger.origin, "begun": one.begun, **more}
        try:
            one.exporter.socket.sendall(msgpack.packb(said))
        except OSError:
            self._lost(one)
            return
        one.op, one.heard = op, time.monotonic()
        self._watch(one)

    def _watch(self, one: Export) -> None:
        """Look whether it has said anything, for as long as an order is under way."""
        if one.watch is not None:
            one.watch.cancel()
            one.watch = None
        if not one.op:
            return
        if one.silent_s >= _SILENCE_S:
            self._fail(one, self._silence(one, _SILENCE_S))
            return  # it is heard of when it answers
        one.watch = self._loop.call_later(_SILENCE_S - one.silent_s + 0.01, self._watch, one)

    def _hurry(self, one: Export) -> None:
        """Try now what would be tried later."""
        if one.again is not None:
            one.again.cancel()
            self._retry(one)

    def _retry(self, one: Export) -> None:
        one.again = None
        self._next(one)

    # --- answers

    def _readable(self, one: Export) -> None:
        try:
            answer = one.exporter.socket.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            answer = b""
        if not answer:
            self._lost(one)
            return
        said: dict[str, Any] = msgpack.unpackb(answer)
        one.heard = time.monotonic()
        if "op" not in said:
            one.piece = one.heard
            return
        one.op, failure = "", None
        if "done" not in said:
            failure = Failure(str(said["code"]), str(said["message"]), str(said["remedy"]))
            self._fail(one, failure)
        if said["op"] == "probe":
            _resolve(one, failure)
        elif failure is None:
            self._copied(one, said)
        self._watch(one)
        self._next(one)
        self._news.set()

    def _copied(self, one: Export, said: Mapping[str, Any]) -> None:
        one.entries, one.bytes, one.copied, one.failure = int(said["entries"]), int(said["bytes"]), True, None
        one.due = time.monotonic() + one.exporter.place.every_ms / 1000
        if said["began"] or not one.begun:
            # Not only when it began: that may have been at a stop, when the ledger was closed.
            self._tell(one, entry_types.EXPORT_BEGAN, {"folder": folder_of(self._ledger.origin)})
            one.begun = True
        if one.failed is not None:
            data = {"failed": one.failed, "entries": one.entries}
            if self._tell(one, entry_types.EXPORT_RECOVERED, data) is not None:
                one.failed = None

    def _fail(self, one: Export, failure: Failure) -> None:
        before, one.failure = one.failure, failure
        one.over = self._stopping
        if one.again is None and not one.ended and not self._stopping:
            one.copied = False
            one.again = self._loop.call_later(_RETRY_S, self._retry, one)
        if before is None or one.failed is None or (failure.of_the_copy and before.code != failure.code):
            data = {"code": failure.code, "message": failure.message, "entries": one.entries}
            one.failed = self._tell(one, entry_types.EXPORT_FAILED, data)

    def _lost(self, one: Export) -> None:
        """Its process ended, and there is nobody to start another: the broker may not."""
        if one.ended:
            return
        self._let_go(one)
        message = f"the process that copies to {one.name} ended"
        failure = Failure("export_ended", message, "restart the daemon; its log says why, if it could tell")
        self._fail(one, failure)
        _resolve(one, failure)
        self._news.set()

    def _let_go(self, one: Export) -> None:
        if one.ended:
            return
        one.ended, one.op = True, ""
        for timer in (one.watch, one.again):
            if timer is not None:
                timer.cancel()
        one.watch = one.again = None
        self._loop.remove_reader(one.exporter.socket.fileno())
        one.exporter.close()

    def _silence(self, one: Export, waited_s: float) -> Failure:
        return Failure(
            "export_silent",
            f"{one.name} has not answered for {max(waited_s, one.silent_s):.0f} s",
            "see to what holds it: a server or a disk that hangs; what is missing is copied when it answers",
        )

    def _tell(self, one: Export, kind: str, data: Mapping[str, object]) -> int | None:
        """The entry's index; None where the ledger takes none: it is told the next time."""
        said = {"destination": one.name, **data}
        try:
            return self._ledger.entry(kind, self._actor(), said).receipt.seq
        except Refused:
            return None


def _resolve(one: Export, failure: Failure | None) -> None:
    """Tell who waits for a probe."""
    for told in one.probes:
        if not told.done():
            told.set_result(failure)
    one.probes.clear()


def _shown(one: Export) -> dict[str, object]:
    shown: dict[str, object] = {"destination": one.name, "entries": one.entries, "bytes": one.bytes}
    if one.failure is not None:
        shown["failure"] = one.failure.message
        shown["code"] = one.failure.code
    return shown
