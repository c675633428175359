"""The ledger as the daemon uses it: give an entry its place at once, learn later that it is durable.

    ledger = Ledger.open(directory)
    for entry in ledger.replay(): ...
    intent = ledger.entry("run.accepted", actor, data, reserves_outcome=True)
    await intent.durable()
    outcome = ledger.entry("run.finished", actor, data, outcome_of=intent.receipt.seq)

An entry's index and hash are fixed when `entry` returns; until it is durable it may still be lost, with all after it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured._ledger_write import Entrance, Places
from immured.errors import ConfigurationError, Refused
from immured.ledger.checking import DAY_S, Checking, Stream
from immured.ledger.checkpoint import Signer, VerifierKey
from immured.ledger.creation import create, create_in, first_line
from immured.ledger.durable import CHECKPOINT_ENTRIES, CHECKPOINT_SECONDS, Durable, Signs
from immured.ledger.entry import Entry, LineError, parse_line
from immured.ledger.entry_types import (
    CLOCK_STEPPED,
    LEDGER_DURABILITY,
    LEDGER_RECOVERED,
    LEDGER_RETIRED,
    LEDGER_ROTATED,
)
from immured.ledger.exports.head import Head
from immured.ledger.keeping import Keep, Keeper, Keeping
from immured.ledger.key_change import BothKeys, finish, rotated_to
from immured.ledger.keys import PRIVATE_KEY, VERIFIER_KEYS, KeyFiles, load_private, load_vkeys
from immured.ledger.pending import Completion, Pending, Receipt, again
from immured.ledger.reader import read_lines
from immured.ledger.recovery import WHOLE_BYTES, Recovered, recover
from immured.ledger.reserve import CLOSING_BYTES, OUTCOME_BYTES
from immured.ledger.retention import CannotRetire, Retention
from immured.ledger.rotation import DEFAULT_LIMITS, ROOM_BYTES, CannotRotate, Limits, Rotation, rotated, unchanged
from immured.ledger.saving import DEFAULT_PACE, Pace, Saving
from immured.ledger.sealing import BUDGETS, encode, seal
from immured.ledger.segments import Files
from immured.ledger.space import Space
from immured.ledger.storage import LOG, LogFile, PosixStorage, Storage
from immured.ledger.timestamps import parse_timestamp, timestamp
from immured.ledger.tree_keeper import TreeKeeper
from immured.ledger.writer import GroupCommit

__all__ = [
    "CHECKPOINT_ENTRIES",
    "CHECKPOINT_SECONDS",
    "Ledger",
    "LedgerStatus",
    "Scrubber",
    "create",
    "create_in",
    "first_line",
    "load_vkeys",
]


_WITHOUT_MEMORY: Final = Refused(
    "ledger_unavailable", "the ledger failed, and there is no memory to say why", "restart the daemon: it recovers"
)


class Scrubber(Protocol):
    """Who keeps secrets out: it stands at the door."""

    def scrub(
        self, actor: Mapping[str, object], data: Mapping[str, object]
    ) -> tuple[Mapping[str, object], Mapping[str, object]]:
        """The same without what must not enter."""


@dataclass(frozen=True, slots=True)
class LedgerStatus:
    """What an operator asks about: durable entries, bytes of the file, size of the newest checkpoint."""

    origin: str
    entries: int
    bytes: int
    checkpoint: int
    outstanding: int
    """Outcomes that space is kept for."""
    failure: str
    """Why everything is refused; empty when nothing is."""
    checkpoint_failure: str
    """Why the newest checkpoint is older than it should be; empty when it is not."""
    rotation_failure: str
    """Why the file that is written was not sealed when it should have been; empty when it was."""
    first: int
    """The first entry that is kept."""
    segments: int
    """Sealed files."""
    durability: str
    """"full"; or "none": what is acknowledged may be lost with the power."""


class Ledger:
    """An open ledger. There is one in a process, and one process; every method may be called from any thread."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        visit: Callable[[Entry], None] | None = None,
        keeper: Keeper | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        limits: Limits = DEFAULT_LIMITS,
        whole_bytes: int = WHOLE_BYTES,
        durability: str = "full",
        pace: Pace = DEFAULT_PACE,
    ) -> Ledger:
        """Open the ledger of a state directory, recovering what a crash left. `visit` sees every entry it holds,
        `keeper` those that he needs. `whole_bytes`: how large it may be to be verified whole before this returns.
        `durability`: with "none" nothing waits for the disk, and the ledger itself says so. `pace`: how often its state
        is saved.

        Raises ConfigurationError: ledger_damaged (naming the line), ledger_in_use, ledger_missing,
        ledger_key_unreadable, ledger_key_mismatch, ledger_unavailable.
        """
        keys = directory / "keys"
        private, key_files = load_private(keys / PRIVATE_KEY), KeyFiles(keys)
        upcoming, files = key_files.upcoming(), directory / "ledger"
        ledger = cls.open_in(
            PosixStorage(files, synced=durability == "full"),
            private,
            load_vkeys(keys / VERIFIER_KEYS),
            clock=clock,
            visit=visit,
            keeper=keeper,
            checkpoint_seconds=checkpoint_seconds,
            limits=limits,
            keep_tree=lambda durable: TreeKeeper.of(files, durable),
            upcoming=upcoming,
            stream=lambda: Files.open(files),
            whole_bytes=whole_bytes,
            durability=durability,
            pace=pace,
        )
        if upcoming is None:
            return ledger
        try:
            if isinstance(ledger.durable.signer, BothKeys):
                finish(ledger, key_files)
            else:
                key_files.discard()
        except OSError as error:
            ledger.close()
            raise _unopened(PosixStorage(files), error) from error
        return ledger

    @classmethod
    def open_in(
        cls,
        storage: Storage,
        private: Ed25519PrivateKey,
        vkeys: Iterable[VerifierKey],
        *,
        clock: Callable[[], int] = time.time_ns,
        visit: Callable[[Entry], None] | None = None,
        keeper: Keeper | None = None,
        checkpoint_entries: int = CHECKPOINT_ENTRIES,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        limits: Limits = DEFAULT_LIMITS,
        keep_tree: Callable[[Durable], TreeKeeper] | None = None,
        whole_bytes: int = WHOLE_BYTES,
        pace: Pace = DEFAULT_PACE,
        stream: Callable[[], Stream] | None = None,
        check_s: float = DAY_S,
        durability: str = "full",
        upcoming: Ed25519PrivateKey | None = None,
    ) -> Ledger:
        """The same over any storage and keys. `keep_tree` stores the tree's hashes beside the lines; `whole_bytes`: how
        large it may be to be verified whole before this returns; `pace`: how often its state is saved; `upcoming`: the
        key that is to take the place of `private`, if an entry says so.
        With `stream`, which opens it to be read by another thread, it is verified whole every `check_s` seconds, and
        soon where that was not done before this returns.
        """
        keys = tuple(vkeys)
        try:
            storage.lock()
        except OSError as error:
            raise _unopened(storage, error) from error
        try:
            log = storage.open_log()
            try:
                recovered = recover(storage, log, keys, clock(), visit, keeper, whole_bytes)
                signer = Signer(private, recovered.chain.origin)
                if signer.verifier not in keys:
                    raise ConfigurationError(
                        "ledger_key_mismatch",
                        f"keys/{VERIFIER_KEYS} does not list {signer.verifier.encode()}, as keys/{PRIVATE_KEY} signs",
                        "restore the ledger's own keys, or add that line if the key was changed on purpose",
                    )
                signs = signer if upcoming is None else _both(signer, upcoming, log, recovered)
                ledger = cls(
                    storage, log, recovered, signs, clock, checkpoint_entries, checkpoint_seconds, limits, keep_tree
                )
                if keeper is not None and recovered.keeping is not None:
                    ledger._keep_for(keeper, recovered.keeping, private, recovered, pace)
            except BaseException:
                log.close()
                raise
        except BaseException as error:
            storage.unlock()
            if isinstance(error, OSError):
                raise _unopened(storage, error) from error
            raise
        try:
            ledger._record(recovered, durability)
            if stream is not None and keeper is not None:
                ledger._check_with(stream, check_s, now=recovered.unread > log.parts()[0].offset)
        except BaseException as error:
            ledger.close()
            if isinstance(error, Refused):
                raise ConfigurationError(error.code, error.message, error.remedy, details=error.details) from error
            raise
        return ledger

    def __init__(
        self,
        storage: Storage,
        log: LogFile,
        recovered: Recovered,
        signer: Signs,
        clock: Callable[[], int],
        checkpoint_entries: int,
        checkpoint_seconds: float,
        limits: Limits,
        keep_tree: Callable[[Durable], TreeKeeper] | None,
    ) -> None:
        chain = recovered.chain
        self._storage, self._log, self._clock = storage, log, clock
        self.origin = chain.origin
        self._actor = {"ledger": chain.origin}
        self._replay_end = recovered.end
        self.scrubber: Scrubber | None = None
        self.keeping: Keeping | None = None
        """Which lines a later start needs; None where nobody said."""
        self._keep: Callable[[str, Mapping[str, Any], Mapping[str, Any]], Keep | None] | None = None
        self._saving: Saving | None = None
        self._checking: Checking | None = None
        self._durability = "full"
        self._retention: Retention | None = None

        self._lock = threading.Lock()  # what follows changes under it
        self._places = Places(
            chain.size,
            bytes.fromhex(chain.last_leaf),
            parse_timestamp(chain.last_ts),
            recovered.end,
            budgets=BUDGETS,
            receipt=Receipt,
            outcome_bytes=OUTCOME_BYTES,
            closing_bytes=CLOSING_BYTES,
        )
        self._closed = False
        self._space = Space(log, storage, self._places)

        # For whoever has the writer's turn.
        self.durable = Durable(
            storage, chain, recovered.end, recovered.signed, signer, checkpoint_entries, checkpoint_seconds
        )
        self.durable.covered = recovered.resumed
        self.tree = keep_tree(self.durable) if keep_tree is not None else None
        """The stored hashes, of which proofs are made."""
        if self.tree is not None:
            self.durable.followers.append(self.tree)
        self._rotation = Rotation(log, limits, clock)
        self._rotating = False  # whoever has the turn holds the lock too
        self._completion = Completion(chain.size, again)
        self._writer = GroupCommit(log, recovered.end, self, self._completion)
        self._entrance = Entrance(self._places, self._writer.queue, self._lock, clock, self._check_open, self._enter)
        self._writer.start()

    def _keep_for(
        self, keeper: Keeper, keeping: Keeping, private: Ed25519PrivateKey, recovered: Recovered, pace: Pace
    ) -> None:
        """Before the first entry: from now on it is known which lines that one needs."""
        self.keeping, self._keep = keeping, keeper.keep
        self._entrance.keeping = keeping
        self._retention = Retention(
            self._storage,
            self._log,
            keeping,
            self._writer.turn,
            lambda data: self.entry(LEDGER_RETIRED, self._actor, data),
            self.cover,
            self._clock,
        )
        self._saving = Saving(
            self._storage,
            private,
            self.durable,
            keeping,
            keeper.rules,
            bytes.fromhex(recovered.chain.last_leaf),
            0 if recovered.resumed is None else recovered.resumed[0].size,
            self._clock,
            pace,
        )
        self.durable.followers.append(self._saving)

    def _check_with(self, stream: Callable[[], Stream], every_s: float, *, now: bool) -> None:
        """From now on it is verified whole every so often, beside its work."""
        where, durable = self._storage.where(), self.durable
        self._checking = Checking(where, stream, lambda: durable.covered, self._writer.condemn, every_s)
        self._checking.start(now=now)

    # --- writing ---

    def entry(
        self,
        type_: str,
        actor: Mapping[str, object],
        data: Mapping[str, object],
        *,
        reserves_outcome: bool | int = False,
        outcome_of: int | None = None,
        part_of: int | None = None,
        closing: bool = False,
        alone: bool = False,
        unhurried: bool = False,
    ) -> Pending:
        """Queue an entry; its index and hash are fixed when this returns, its durability is the Pending's to say.

        `alone` is for a caller beside whom nobody works, on a swift disk: it is then durable, or has failed, when this
        returns, for the price of one sync in this thread. `unhurried` is for one that nobody waits for: it goes with
        the next entry, or with `flush`, which must follow soon.

        `reserves_outcome` marks an intent: it is let in only when space is kept for its outcome, which is the entry
        that names the intent's index as `outcome_of` and never lacks space. A number of bytes (lines with their
        newlines) keeps so much for an outcome of several entries: all but the last name the index as `part_of`.
        `closing` marks the daemon's last words, for which a little is kept as well. Raises
        Refused("ledger_unavailable") and nothing is queued; ValueError for what no entry can hold (`encode_body`).
        """
        if self.scrubber is not None:
            actor, data = self.scrubber.scrub(actor, data)
        keep = self._keep(type_, actor, data) if self._keep is not None else None
        rouse = not (alone or unhurried)
        pending = self._entrance.enter(type_, actor, data, keep, reserves_outcome, outcome_of, part_of, closing, rouse)
        if alone:
            self._writer.commit_here()
        return pending

    def _enter(
        self,
        type_: str,
        actor: Mapping[str, object],
        data: Mapping[str, object],
        keep: Keep | None,
        now: int,
        wanted: bool | int,
        outcome_of: int | None,
        part_of: int | None,
        closing: bool,
        rouse: bool,
    ) -> Receipt:
        """What the entrance does, where that declines; it holds the lock. What fails changes nothing."""
        members = encode(type_, actor, data)
        places, queue = self._places, self._writer.queue
        seq, prev, start = places.seq, places.prev, places.end
        step, stepped = b"", b""
        if now < places.last_ns:
            moved = {"from": timestamp(places.last_ns), "to": timestamp(now)}
            step, stepped = seal(seq, now, CLOCK_STEPPED, encode(CLOCK_STEPPED, self._actor, moved), prev)
            seq, prev = seq + 1, stepped
        line, leaf = seal(seq, now, type_, members, prev)
        begins = start + len(step)
        receipt = Receipt(seq, leaf)
        weighed = self._space.weigh(
            seq, start, begins + len(line), wanted=wanted, outcome_of=outcome_of, part_of=part_of, closing=closing
        )
        try:
            if step:
                places.enter(step, stepped, now, queue, rouse)
            if keep is not None and self.keeping is not None:
                self.keeping.placed(seq, begins, leaf, now, keep)
            places.enter(line, leaf, now, queue, rouse)
        except BaseException:
            self._space.forget(weighed)
            if self.keeping is not None:
                self.keeping.withdrawn(seq)
            raise
        self._space.take(weighed)
        return receipt

    def turn(self) -> AbstractContextManager[None]:
        """Nobody writes, or signs, meanwhile: entries are taken, and wait. For moments only."""
        return self._writer.turn()

    def cover(self, seq: int) -> bool:
        """Have a checkpoint cover entry `seq` now, if it is durable. Whether one does."""
        if self.durable.signed <= seq < self._completion.count:
            with self.turn():  # in which the tree has all that is durable
                if self._completion.failure is None:
                    self.durable.sign()
        return self.durable.signed > seq

    @property
    def end(self) -> int:
        """Where the last entry ends, durable or not: a moment's view."""
        return self._places.end

    def flush(self) -> None:
        """Have what is queued written soon, if it is not under way already."""
        self._writer.rouse()

    def admit(self, n: int = 1) -> None:
        """Whether `n` more intents would be let in now. Raises Refused("ledger_unavailable"); keeps nothing."""
        with self._lock:
            self._check_open()
            self._space.admit(n)

    def release(self, intent: int) -> None:
        """Stop keeping space for an intent's outcome: there will be none from this process."""
        with self._lock:
            self._space.release(intent)

    def _check_open(self) -> None:
        failure = self._completion.failure
        if failure is not None:
            raise Refused(failure.code, failure.message, failure.remedy, details=failure.details)
        if self._closed:
            raise Refused(
                "ledger_unavailable", "the ledger is closed: the daemon is stopping", "ask again when it is back"
            )

    def _record(self, recovered: Recovered, durability: str) -> None:
        """Say in the ledger itself what was set aside, and where what is acknowledged may not be durable."""
        self._durability = durability
        pending = [
            self.entry(
                LEDGER_RECOVERED,
                self._actor,
                {"file": torn.file, "len": torn.length, "sha256": torn.sha256, "at": torn.at},
                closing=True,
            )
            for torn in recovered.unrecorded
        ]
        if durability != (recovered.durability or "full") or durability != "full":
            pending.append(self.entry(LEDGER_DURABILITY, self._actor, {"mode": durability}, closing=True))
        for one in pending:
            one.wait()
        if self._saving is not None:
            said = "" if not recovered.durability and durability == "full" else durability
            self._saving.begin((*recovered.recorded, *(torn.file for torn in recovered.unrecorded)), said)

    # --- reading ---

    def replay(self) -> Iterator[Entry]:
        """Every entry that the file held when it was opened, in order; memory does not grow with their number.

        Raises ConfigurationError("ledger_damaged") when the file was changed since.
        """
        first = self._log.parts()[0]
        for number, (_, line) in enumerate(read_lines(self._log, first.offset, self._replay_end), first.first + 1):
            try:
                yield parse_line(line.removesuffix(b"\n"))
            except LineError as error:
                raise ConfigurationError(
                    "ledger_damaged",
                    f"{self._storage.where()}/{LOG}: line {number} was changed while the daemon ran: {error}",
                    "find out who else writes there",
                ) from None

    def status(self) -> LedgerStatus:
        """Figures for an operator; a moment's view."""
        parts = self._log.parts()
        failure = self._completion.failure
        return LedgerStatus(
            self.origin,
            self._completion.count,
            self.durable.end,
            self.durable.signed,
            self._space.outstanding,
            failure.message if failure is not None else "",
            self.durable.failure,
            self._rotation.failure,
            parts[0].first,
            len(parts) - 1,
            self._durability,
        )

    @property
    def failure(self) -> Refused | None:
        """What every append is refused with, once a write or a sync has failed; None while all is well."""
        return self._completion.failure

    @property
    def head(self) -> Head | None:
        """How far it is signed; None before the first checkpoint, where a crash left entries without."""
        return self.durable.head

    def on_head(self, told: Callable[[Head], None]) -> None:
        """Have `told` called with each new head, on whatever thread signed it, and with the present one now. It may be
        told of one twice."""
        self.durable.on_head(told)

    def retire(self, before_ns: int, held: int | None = None, going_on: Callable[[], bool] = lambda: True) -> list[str]:
        """Remove sealed files whose entries are all from before that time, and among the `held` that every copy has
        (None: there are no copies), one after the other while `going_on`. Their names. May take long; entries go on
        meanwhile.

        Raises retention.CannotRetire, Refused, OSError.
        """
        if self._retention is None:
            raise CannotRetire("nobody said which lines are needed again")
        return self._retention.retire(before_ns, held, going_on)

    # --- closing ---

    def close(self) -> None:
        """Write what is queued, sign a checkpoint, let others in. Further entries are refused. Never raises OSError."""
        with self._lock:
            if self._closed:
                return
            self._closed = self._entrance.shut = True
        if self._checking is not None:
            self._checking.close()
        self._writer.stop()
        self._completion.close()
        self._rotation.close()
        if self._completion.failure is None:
            self.durable.sign()
            self._space.close()
        self.durable.close()
        try:
            self._log.close()
        finally:
            self._storage.unlock()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- on the writer's thread ---

    def committed(self, leaves: bytes, length: int) -> None:
        """These entries are durable."""
        self.durable.extend(leaves, length)
        self._completion.advance(self.durable.tree.size)
        self.durable.follow(leaves)

    def failed(self, error: BaseException) -> None:
        """Nothing more will be durable: what is queued fails, and so does all that comes."""
        if isinstance(error, Refused):
            self._completion.fail(error)
            return
        try:
            self._completion.fail(self._failure(error))
        except MemoryError:
            self._completion.fail(_WITHOUT_MEMORY)

    def _failure(self, error: BaseException) -> Refused:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        where = self._storage.where()
        return Refused(
            "ledger_unavailable",
            f"writing {where}/{LOG} failed: {reason}",
            f"see to the disk under {where} (space, kernel log), then restart the daemon: it recovers",
            details={"path": where, "reason": "write_failed"},
        )

    def full(self) -> bool:
        """A write met a full disk."""
        with contextlib.nullcontext() if self._rotating else self._lock:
            return self._space.yield_space()

    def until(self) -> int | None:
        """Where the file that is written is long enough to be sealed."""
        return self._rotation.until(self.durable.end)

    def idle(self) -> float | None:
        """Keep space in advance, sign a checkpoint and seal the file when that is due; seconds until more is."""
        with self._lock:
            end, kept = self._places.end, self._places.kept
        self._space.top_up(end, kept)
        pause = self.durable.rest()
        size, end = self.durable.tree.size, self.durable.end
        try:
            if self._rotation.ready(size, end):
                self._rotate()
                pause = self.durable.rest()
        except CannotRotate as error:
            self._rotation.failed(str(error))
        later = self._rotation.pause(self.durable.tree.size, self.durable.end)
        return min((one for one in (pause, later) if one is not None), default=None)

    def _rotate(self) -> None:
        """Seal the file that is written and go on in another. Appends wait meanwhile: for about ten syncs.

        Raises CannotRotate, and nothing is changed; OSError, after which nothing more can be written.
        """
        with self._lock:
            self._rotating = True
            try:
                with self._writer.drained():
                    line, leaf = self._turn()
                    self.committed(leaf, len(line))  # before whatever comes after it
            finally:
                self._rotating = False
        self._rotation.done()

    def _turn(self) -> tuple[bytes, bytes]:
        now, durable, first = self._clock(), self.durable, self._rotation.first
        if now < self._places.last_ns:
            raise CannotRotate("the clock went back, which the next entry has to say first")
        if not durable.sign():
            raise CannotRotate(durable.failure)
        room = self._space.kept + ROOM_BYTES
        with unchanged():
            digest = self._rotation.digest(durable.end)
            data = rotated(self.origin, durable.tree, first, durable.end, digest)
            members = encode(LEDGER_ROTATED, self._actor, data)
            line, leaf = seal(self._places.seq, now, LEDGER_ROTATED, members, self._places.prev)
            self._log.prepare(line, room)
        self._log.turn()
        self._places.enter(line, leaf, now)
        self._space.moved(self._places.end, room)
        self._writer.moved(len(line))
        return line, leaf


def _both(signer: Signer, upcoming: Ed25519PrivateKey, log: LogFile, recovered: Recovered) -> Signs:
    """Whoever signs, where a change of keys was begun: `upcoming` too, if the ledger says so."""
    new = Signer(upcoming, signer.verifier.name)
    seq = rotated_to(log, log.parts()[0].offset, recovered.end, new.verifier)
    return signer if seq is None else BothKeys(signer, new, seq)


def _unopened(storage: Storage, error: OSError) -> ConfigurationError:
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(
            "ledger_missing",
            f"no ledger in {storage.where()}",
            "restore it from a backup; a new ledger begins with a new state directory (`immure init`)",
        )
    return ConfigurationError(
        "ledger_unavailable",
        f"cannot open the ledger in {storage.where()}: {error.strerror or error}",
        f"see to the file system of {storage.where()} (space, permissions, kernel log), then start again",
    )
