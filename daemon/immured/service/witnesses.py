"""The ledger's witnesses, as the broker sees them: what each was asked, what it said, since when it says nothing.

They are asked in rounds, all for the same checkpoint, so that one note carries all their cosignatures: k of n are of
one head. A round begins with the newest head, no sooner than a second after the one before, and does not wait for who
fails: he is asked for the newest again when it is his time. Nothing here is waited for by a run.

What fails, and what is well again, is an entry, once each. `witness.refused` is another thing than `witness.failed`:
the witness answers, and says that it saw another history of this ledger.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from immured.errors import Refused
from immured.ledger import entry_types
from immured.ledger.checkpoint import NoteError, add_lines, file_name, open_witnessed
from immured.ledger.note_keys import parse_vkeys
from immured.ledger.recovery import CHECKPOINTS, checkpoint_names
from immured.service.context import log
from immured.service.files import read_bounded, write_whole

if TYPE_CHECKING:
    from immured.ledger import Entry, Ledger
    from immured.ledger.exports.head import Head
    from immured.service.offshoot import Offshoot
    from immured.service.witness_places import WitnessPlace

__all__ = ["WITNESSED", "Asked", "WitnessFailure", "WitnessHistory", "Witnesses"]

WITNESSED: Final = "witnessed"
_MAX_NOTE: Final = 1 << 16
_LOOKED_AT: Final = 16  # of the newest notes, for where a witness was
_SPACING_S: Final = 1.0
_ROUND_S: Final = 5.0
_RETRY_S: Final = (5.0, 30.0, 60.0, 300.0)
_SILENCE_S: Final = 60.0  # an exchange is given up after 10 s each; name servers have time of their own
_STOP_S: Final = 5.0
_STOP_FAILING_S: Final = 1.0
_REFUSED: Final = frozenset({"witness_forked", "witness_ahead"})


@dataclass(frozen=True, slots=True)
class WitnessFailure:
    """Why a witness has not cosigned what it should. `code`: docs/witness.md."""

    code: str
    message: str
    remedy: str = ""

    @property
    def refused(self) -> bool:
        """Whether it says that it saw another history."""
        return self.code in _REFUSED


class WitnessHistory:
    """What the ledger says of its witnesses: which failed, or refused, and nothing came after. Fed every entry of a
    type that begins with `witness.`, in order."""

    def __init__(self) -> None:
        self.told: dict[str, tuple[int, str]] = {}
        """By name: the last entry's `seq`, and its code."""

    def visit(self, entry: Entry) -> None:
        """Take one."""
        name, code = entry.data.get("witness"), entry.data.get("code")
        if not isinstance(name, str):
            return
        if entry.type == entry_types.WITNESS_RECOVERED:
            self.told.pop(name, None)
        elif isinstance(code, str):
            self.told[name] = (entry.seq, code)


@dataclass(slots=True, eq=False)
class Asked:
    """One witness. `size`, `time_s`: the newest head that it cosigned, and when; `failure`: why not a newer one."""

    place: WitnessPlace
    offshoot: Offshoot
    told: tuple[int, str] | None
    size: int = 0
    time_s: int = 0
    failure: WitnessFailure | None = None
    op: int = 0
    """The size that it is being asked for."""
    since: float = 0.0
    attempts: int = 0
    """That failed, one after the other."""
    again: asyncio.TimerHandle | None = None
    watch: asyncio.TimerHandle | None = None
    ended: bool = False
    """Its process is gone."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


class Witnesses:
    """All of them. Everything but what `Ledger.on_head` calls is called on the event loop."""

    def __init__(
        self,
        collectors: Iterable[tuple[WitnessPlace, Offshoot]],
        ledger: Ledger,
        directory: Path,
        actor: Callable[[], Mapping[str, object]],
        history: WitnessHistory,
        vkeys: Callable[[], bytes],
    ) -> None:
        """`directory` is the ledger's, `vkeys` what ledger.vkey holds now."""
        self._ledger, self._directory, self._actor, self._vkeys = ledger, directory, actor, vkeys
        self._loop = asyncio.get_running_loop()
        self._writing = threading.Lock()
        self._wanted = 0
        self._round = 0
        self._begun = float("-inf")
        self._turn: asyncio.TimerHandle | None = None
        self._stopping = self._started = False
        self.all: Sequence[Asked] = [Asked(place, one, history.told.get(place.name)) for place, one in collectors]

    def start(self) -> None:
        """Have what there is cosigned, and from now on all that comes."""
        if self.all:
            self._started = True
            for one in self.all:
                self._loop.add_reader(one.offshoot.socket.fileno(), self._readable, one)
            self._loop.run_in_executor(None, self._remember).add_done_callback(self._remembered)

    async def finish(self) -> None:
        """The ledger is closed: have its last head cosigned, by who answers in time; then let them go."""
        self._stopping = True
        if self._started and self._ledger.head is not None:
            self._wanted = max(self._wanted, self._ledger.head.size)
            self._begin()
            now = self._loop.time()
            for one in self.all:
                deadline = now + (_STOP_S if one.failure is None else _STOP_FAILING_S)
                await self._until(one, deadline)  # of an earlier head, perhaps
                if one.failure is None:
                    self._next(one)
                    await self._until(one, deadline)
        for one in self.all:
            self._let_go(one)

    async def settle(self, one: Asked, deadline_s: float) -> WitnessFailure | None:
        """What is wrong with it, if anything: one that failed is asked again now, and may take so long to answer."""
        if one.failure is not None and not one.op:
            self._hurry(one)
        if one.failure is not None or not one.size:
            await self._until(one, self._loop.time() + deadline_s)
        return one.failure

    def to_map(self) -> list[dict[str, object]]:
        """For `status`."""
        return [_shown(one) for one in self.all]

    async def _until(self, one: Asked, deadline: float) -> None:
        """Wait for the answer that is due."""
        while one.op:
            one.news.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await one.news.wait()
            except TimeoutError:
                return

    # --- where they were

    def _remember(self) -> None:
        """In a thread: what the newest notes say of each."""
        try:
            names = checkpoint_names(path.name for path in (self._directory / WITNESSED).iterdir())
            keys = parse_vkeys(self._vkeys().decode())
        except (OSError, ValueError):
            return
        for name in reversed(names[-_LOOKED_AT:]):
            try:
                note = read_bounded(self._directory / WITNESSED / name, _MAX_NOTE)
                found = open_witnessed(note, keys, [one.place.key for one in self.all])
            except (OSError, ValueError):
                continue
            for cosignature in found.cosignatures:
                for one in self.all:
                    if one.place.key == cosignature.key and not one.size:
                        one.size, one.time_s = found.checkpoint.size, cosignature.time_s

    def _remembered(self, _: asyncio.Future[None]) -> None:
        if not self._stopping:
            self._ledger.on_head(self._head)

    # --- rounds

    def _head(self, head: Head) -> None:
        """On any thread."""
        try:
            self._loop.call_soon_threadsafe(self._take, head.size)
        except RuntimeError:
            return  # the loop is closed, and with it everything

    def _take(self, size: int) -> None:
        self._wanted = max(self._wanted, size)
        self._advance()

    def _advance(self) -> None:
        """Begin the next round, when there is something new and it is time."""
        if self._wanted <= self._round or self._stopping:
            return
        waited = self._loop.time() - self._begun
        busy = any(one.op == self._round for one in self.all)
        due = _ROUND_S if busy else _SPACING_S
        if waited >= due:
            self._begin()
        elif self._turn is None:
            self._turn = self._loop.call_later(due - waited + 0.001, self._turned)

    def _turned(self) -> None:
        self._turn = None
        self._advance()

    def _begin(self) -> None:
        self._round, self._begun = self._wanted, self._loop.time()
        for one in self.all:
            self._next(one)

    def _next(self, one: Asked) -> None:
        """Ask it for the round's checkpoint, unless it is being asked, has cosigned it, or has to wait."""
        if one.op or one.ended or one.size >= self._round or (one.again is not None and not self._stopping):
            return
        try:
            said = {"op": "cosign", "size": self._round, "known": one.size, "vkeys": self._vkeys().decode()}
            one.offshoot.order(said)
        except OSError:
            self._lost(one)
            return
        one.op, one.since = self._round, self._loop.time()
        one.watch = self._loop.call_later(_SILENCE_S, self._silent, one)

    def _hurry(self, one: Asked) -> None:
        """Try now what would be tried later."""
        if one.again is not None:
            one.again.cancel()
            self._retry(one)

    def _retry(self, one: Asked) -> None:
        one.again = None
        self._advance()
        self._next(one)

    # --- answers

    def _readable(self, one: Asked) -> None:
        try:
            said = one.offshoot.answer()
        except BlockingIOError:
            return
        if said is None:
            self._lost(one)
            return
        one.op = 0
        if one.watch is not None:
            one.watch.cancel()
            one.watch = None
        if "line" in said:
            # Until it is written it counts as being asked.
            one.op = int(said["size"])
            work = self._loop.run_in_executor(None, self._write, one.place, one.op, bytes(said["line"]))
            work.add_done_callback(lambda done: self._written(one, int(said["size"]), int(said["time_s"]), done))
            return
        self._fail(one, WitnessFailure(str(said["code"]), str(said["message"]), str(said["remedy"])), said)
        self._answered(one)

    def _write(self, place: WitnessPlace, size: int, line: bytes) -> None:
        """In a thread: put the line below the note. Raises OSError, NoteError."""
        keys = parse_vkeys(self._vkeys().decode())
        name = file_name(size)
        with self._writing:
            (self._directory / WITNESSED).mkdir(mode=0o700, exist_ok=True)
            path = self._directory / WITNESSED / name
            try:
                note = read_bounded(path, _MAX_NOTE)
                open_witnessed(note, keys, ())
            except (FileNotFoundError, NoteError):
                note = read_bounded(self._directory / CHECKPOINTS / name, _MAX_NOTE)
            # What came over the network is verified here too, by who has the keys and no network.
            open_witnessed(note + line, keys, [place.key], 1)
            write_whole(path, add_lines(note, [line]), 0o600)

    def _written(self, one: Asked, size: int, time_s: int, done: asyncio.Future[None]) -> None:
        one.op = 0
        error = done.exception()
        if error is None:
            one.size, one.time_s, one.failure, one.attempts = size, time_s, None, 0
            if one.told is not None:
                data = {"failed": one.told[0], "entries": size}
                if self._tell(one, entry_types.WITNESS_RECOVERED, data) is not None:
                    one.told = None
        elif isinstance(error, NoteError):
            message = f"its process gave what is no cosignature of its own: {error}"
            self._fail(one, WitnessFailure("witness_bad_answer", message, "restart the daemon, and find out why"))
        else:
            message = f"{WITNESSED}/{file_name(size)} cannot be written: {getattr(error, 'strerror', '') or error}"
            self._fail(one, WitnessFailure("witness_unwritten", message, "see to the disk of the ledger"))
        self._answered(one)

    def _answered(self, one: Asked) -> None:
        one.news.set()
        if not self._stopping:
            self._next(one)
            self._advance()

    def _fail(self, one: Asked, failure: WitnessFailure, said: Mapping[str, Any] | None = None) -> None:
        one.failure = failure
        delay = _RETRY_S[min(one.attempts, len(_RETRY_S) - 1)]
        one.attempts += 1
        if one.again is None and not one.ended and not self._stopping:
            one.again = self._loop.call_later(delay, self._retry, one)
        if failure.code == "witness_no_proof" and self._ledger.tree is not None:
            self._ledger.tree.amiss()
        if one.told is None or (failure.refused and one.told[1] != failure.code):
            self._alarm(one, failure, said or {})

    def _alarm(self, one: Asked, failure: WitnessFailure, said: Mapping[str, Any]) -> None:
        data: dict[str, object] = {"code": failure.code, "message": failure.message, "entries": one.size}
        kind = entry_types.WITNESS_FAILED
        if failure.refused:
            kind = entry_types.WITNESS_REFUSED
            theirs = said.get("theirs")
            if isinstance(theirs, Mapping):
                data["theirs"] = {"size": theirs["size"], "root": bytes(theirs["root"]).hex(), "note": theirs["note"]}
            log.error("the witness %s: %s", one.place.name, failure.message)
        seq = self._tell(one, kind, data)
        if seq is not None:
            one.told = (seq, failure.code)

    def _silent(self, one: Asked) -> None:
        one.watch = None
        message = f"it has not answered for {self._loop.time() - one.since:.0f} s"
        self._fail(
            one, WitnessFailure("witness_silent", message, "see to the name servers and the network of this host")
        )
        one.news.set()

    def _lost(self, one: Asked) -> None:
        """Its process ended, and there is nobody to start another: the broker may not."""
        if one.ended:
            return
        self._let_go(one)
        message = "the process that asks it ended"
        self._fail(
            one, WitnessFailure("witness_ended", message, "restart the daemon; its log says why, if it could tell")
        )
        one.news.set()

    def _let_go(self, one: Asked) -> None:
        if one.ended:
            return
        one.ended, one.op = True, 0
        for timer in (one.watch, one.again, self._turn):
            if timer is not None:
                timer.cancel()
        one.watch = one.again = self._turn = None
        self._loop.remove_reader(one.offshoot.socket.fileno())
        one.offshoot.close()

    def _tell(self, one: Asked, kind: str, data: Mapping[str, object]) -> int | None:
        """The entry's index; None where the ledger takes none: it is told the next time."""
        said = {"witness": one.place.name, "url": one.place.url, **data}
        try:
            return self._ledger.entry(kind, self._actor(), said).receipt.seq
        except Refused:
            return None


def _shown(one: Asked) -> dict[str, object]:
    shown: dict[str, object] = {"witness": one.place.name, "url": one.place.url, "entries": one.size}
    if one.time_s:
        shown["cosigned_ms"] = one.time_s * 1000
    if one.failure is not None:
        shown["failure"] = one.failure.message
        shown["code"] = one.failure.code
    return shown
