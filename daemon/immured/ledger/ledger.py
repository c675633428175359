"""The ledger as the daemon uses it: give an entry its place at once, learn later that it is durable.

    ledger = Ledger.open(directory)
    for entry in ledger.replay(): ...
    intent = ledger.entry("run.accepted", actor, data, reserves_outcome=True)
    await intent.durable()
    outcome = ledger.entry("run.finished", actor, data, outcome_of=intent.receipt.seq)

An entry's index and hash are fixed when `entry` returns; until it is durable it may still be lost, with all after it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import ConfigurationError, Refused
from immured.ledger.checkpoint import (
    Checkpoint,
    NoteError,
    Signer,
    VerifierKey,
    file_name,
    origin_of,
    parse_vkeys,
)
from immured.ledger.entry import NO_LEAF, Entry, LineError, build_line, encode_body, leaf_hash, parse_line
from immured.ledger.entry_types import CLOCK_STEPPED, LEDGER_CREATED, LEDGER_RECOVERED
from immured.ledger.pending import Completion, Pending, Receipt
from immured.ledger.reader import read_lines
from immured.ledger.recovery import CHECKPOINTS, Recovered, recover
from immured.ledger.reserve import CLOSING_BYTES, OUTCOME_BYTES, NoSpace, open_reserve
from immured.ledger.storage import LOG, LogFile, PosixStorage, Storage
from immured.ledger.timestamps import parse_timestamp, timestamp
from immured.ledger.tree import Frontier
from immured.ledger.writer import GroupCommit

__all__ = ["CHECKPOINT_ENTRIES", "CHECKPOINT_SECONDS", "Ledger", "LedgerStatus", "create"]

CHECKPOINT_ENTRIES: Final = 1_024
CHECKPOINT_SECONDS: Final = 300.0
_RETRY_SECONDS: Final = 30.0

_PRIVATE_KEY: Final = "ledger.pem"
_VERIFIER_KEYS: Final = "ledger.vkey"


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


def first_line(daemon_key: str, public_key: bytes, random: bytes, now_ns: int) -> bytes:
    """Line 0, without its newline: it names the daemon and the ledger's first key, and is like no other's."""
    data = {"random": random.hex(), "daemon": daemon_key, "ledger_key": public_key.hex()}
    return build_line(0, timestamp(now_ns), encode_body(LEDGER_CREATED, {"daemon": daemon_key}, data), NO_LEAF)


def create_in(storage: Storage, signer_of: Callable[[str], Signer], line: bytes) -> None:
    """Make the files of a new ledger that begins with `line`. Raises FileExistsError, OSError."""
    storage.create_log(line + b"\n")
    leaf = leaf_hash(line)
    head = Checkpoint(origin_of(leaf), 1, Frontier([leaf]).root())
    storage.write_whole(f"{CHECKPOINTS}/{file_name(1)}", signer_of(head.origin).sign(head))


def create(
    directory: Path,
    daemon_key: str,
    *,
    clock: Callable[[], int] = time.time_ns,
    entropy: Callable[[int], bytes] = os.urandom,
) -> None:
    """Begin a ledger in a state directory: `ledger/`, `keys/ledger.pem` and `keys/ledger.vkey`.

    `daemon_key` is the daemon's key id. An existing `keys/ledger.pem` is kept. Raises
    ConfigurationError("ledger_exists") where there is a ledger already, OSError.
    """
    keys, files = directory / "keys", directory / "ledger"
    keys.mkdir(mode=0o711, parents=True, exist_ok=True)
    for folder in (files, files / CHECKPOINTS, files / "quarantine"):
        folder.mkdir(mode=0o700, exist_ok=True)
    key_storage, storage = PosixStorage(keys), PosixStorage(files)
    if (keys / _PRIVATE_KEY).exists():
        private = _load_private(keys / _PRIVATE_KEY)
    else:
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_storage.write_whole(_PRIVATE_KEY, pem)
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    line = first_line(daemon_key, public, entropy(16), clock())
    storage.lock()
    try:
        if os.path.lexists(files / LOG):
            raise FileExistsError
        # The key's name is the ledger's, so this file is written anew until there is a ledger to go with it.
        vkey = VerifierKey(origin_of(leaf_hash(line)), public).encode() + "\n"
        key_storage.write_whole(_VERIFIER_KEYS, vkey.encode(), 0o644)
        create_in(storage, lambda name: Signer(private, name), line)
    except FileExistsError:
        raise ConfigurationError(
            "ledger_exists",
            f"{files / LOG} is there already",
            "a ledger is never replaced; choose another state directory",
        ) from None
    finally:
        storage.unlock()


def _load_private(path: Path) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(
            "ledger_key_unreadable", f"{path}: {error}", "restore the file; it signs the ledger's checkpoints"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("ledger_key_unreadable", f"{path} is no Ed25519 key", "restore the file")
    return key


def load_vkeys(path: Path) -> tuple[VerifierKey, ...]:
    """The verifier keys of a file. Raises ConfigurationError("ledger_key_unreadable")."""
    try:
        return parse_vkeys(path.read_text())
    except (OSError, UnicodeDecodeError, NoteError) as error:
        raise ConfigurationError(
            "ledger_key_unreadable", f"{path}: {error}", "restore the file; it verifies the ledger's checkpoints"
        ) from None


class Ledger:
    """An open ledger. There is one in a process, and one process; every method may be called from any thread."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Callable[[], int] = time.time_ns,
        visit: Callable[[Entry], None] | None = None,
    ) -> Ledger:
        """Open the ledger of a state directory, recovering what a crash left. `visit` sees every entry it holds.

        Raises ConfigurationError: ledger_damaged (naming the line), ledger_in_use, ledger_missing,
        ledger_key_unreadable, ledger_key_mismatch, ledger_unavailable.
        """
        keys = directory / "keys"
        private = _load_private(keys / _PRIVATE_KEY)
        return cls.open_in(
            PosixStorage(directory / "ledger"), private, load_vkeys(keys / _VERIFIER_KEYS), clock=clock, visit=visit
        )

    @classmethod
    def open_in(
        cls,
        storage: Storage,
        private: Ed25519PrivateKey,
        vkeys: Iterable[VerifierKey],
        *,
        clock: Callable[[], int] = time.time_ns,
        visit: Callable[[Entry], None] | None = None,
        checkpoint_entries: int = CHECKPOINT_ENTRIES,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
    ) -> Ledger:
        """The same over any storage and keys."""
        keys = tuple(vkeys)
        try:
            storage.lock()
        except OSError as error:
            raise _unopened(storage, error) from error
        try:
            log = storage.open_log()
            try:
                recovered = recover(storage, log, keys, clock(), visit)
                signer = Signer(private, recovered.chain.origin)
                if signer.verifier not in keys:
                    raise ConfigurationError(
                        "ledger_key_mismatch",
                        f"keys/{_VERIFIER_KEYS} does not list {signer.verifier.encode()}, as keys/{_PRIVATE_KEY} signs",
                        "restore the ledger's own keys, or add that line if the key was changed on purpose",
                    )
                ledger = cls(storage, log, recovered, signer, clock, checkpoint_entries, checkpoint_seconds)
            except BaseException:
                log.close()
                raise
        except BaseException as error:
            storage.unlock()
            if isinstance(error, OSError):
                raise _unopened(storage, error) from error
            raise
        try:
            ledger._record(recovered)
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
        signer: Signer,
        clock: Callable[[], int],
        checkpoint_entries: int,
        checkpoint_seconds: float,
    ) -> None:
        chain = recovered.chain
        self._storage, self._log, self._signer, self._clock = storage, log, signer, clock
        self.origin = chain.origin
        self._actor = {"ledger": chain.origin}
        self._replay_end = recovered.end

        self._lock = threading.Lock()  # what follows changes under it
        self._next_seq = chain.size
        self._prev = chain.last_leaf
        self._last_ns = parse_timestamp(chain.last_ts)
        self._end = recovered.end
        self._outstanding: set[int] = set()
        self._closed = False

        # For whoever has the writer's turn: the tree over what is durable, and what of it is signed.
        self._tree = chain.tree.copy()
        self._durable_bytes = recovered.end
        self._signed = recovered.signed
        self._checkpoint_entries, self._checkpoint_seconds = checkpoint_entries, checkpoint_seconds
        self._checkpoint_due = time.monotonic()
        self._checkpoint_failure = ""

        self._completion = Completion(chain.size)
        self._reserve = open_reserve(log, storage, recovered.end)
        self._writer = GroupCommit(log, recovered.end, self)
        self._writer.start()

    # --- writing ---

    def entry(
        self,
        type_: str,
        actor: Mapping[str, object],
        data: Mapping[str, object],
        *,
        reserves_outcome: bool = False,
        outcome_of: int | None = None,
        closing: bool = False,
        alone: bool = False,
    ) -> Pending:
        """Queue an entry; its index and hash are fixed when this returns, its durability is the Pending's to say.

        `alone` is for a caller beside whom nobody works, on a swift disk: it is then durable, or has failed, when this
        returns, for the price of one sync in this thread.

        `reserves_outcome` marks an intent: it is let in only when space is kept for its outcome, which is the entry
        that names the intent's index as `outcome_of` and never lacks space. `closing` marks the daemon's last words,
        for which a little is kept as well. Raises Refused("ledger_unavailable") and nothing is queued; ValueError for
        what no entry can hold (see `encode_body`).
        """
        body = encode_body(type_, actor, data)
        with self._lock:
            self._check_open()
            seq, prev, now = self._next_seq, self._prev, self._clock()
            ts, step = timestamp(now), b""
            if now < self._last_ns:
                moved = {"from": timestamp(self._last_ns), "to": ts}
                step = build_line(seq, ts, encode_body(CLOCK_STEPPED, self._actor, moved), prev)
                seq, prev = seq + 1, leaf_hash(step).hex()
            line = build_line(seq, ts, body, prev)
            leaf = leaf_hash(line)
            end = self._end + len(line) + 1 + (len(step) + 1 if step else 0)
            outstanding = len(self._outstanding) + reserves_outcome - (outcome_of in self._outstanding)
            self._admit(end, outstanding * OUTCOME_BYTES + (0 if closing else CLOSING_BYTES))
            if reserves_outcome:
                self._outstanding.add(seq)
            if outcome_of is not None:
                self._outstanding.discard(outcome_of)
            self._last_ns, self._end, self._next_seq, self._prev = now, end, seq + 1, leaf.hex()
            if step:
                self._writer.submit(step + b"\n", leaf_hash(step), rouse=not alone)
            self._writer.submit(line + b"\n", leaf, rouse=not alone)
        if alone:
            self._writer.commit_here()
        return Pending(Receipt(seq, leaf), self._completion)

    def admit(self, n: int = 1) -> None:
        """Whether `n` more intents would be let in now. Raises Refused("ledger_unavailable"); keeps nothing."""
        with self._lock:
            self._check_open()
            kept = (len(self._outstanding) + n) * OUTCOME_BYTES + CLOSING_BYTES
            self._admit(self._end + n * OUTCOME_BYTES, kept)

    def release(self, intent: int) -> None:
        """Stop keeping space for an intent's outcome: there will be none from this process."""
        with self._lock:
            self._outstanding.discard(intent)

    def _check_open(self) -> None:
        failure = self._completion.failure
        if failure is not None:
            raise Refused(failure.code, failure.message, failure.remedy)
        if self._closed:
            raise Refused(
                "ledger_unavailable", "the ledger is closed: the daemon is stopping", "ask again when it is back"
            )

    def _admit(self, end: int, kept: int) -> None:
        try:
            self._reserve.admit(end, kept)
        except NoSpace:
            raise Refused(
                "ledger_unavailable",
                f"the disk that holds {self._storage.where()} is full: no room for this entry beside what is kept "
                f"for the outcomes of {len(self._outstanding)} runs",
                f"free space on the file system of {self._storage.where()}, then ask again",
                details={"path": self._storage.where(), "reason": "disk_full"},
            ) from None
        except OSError as error:
            raise Refused(
                "ledger_unavailable",
                f"cannot take disk space in {self._storage.where()}: {error.strerror}",
                f"look at the file system of {self._storage.where()}, then ask again",
                details={"path": self._storage.where(), "reason": "io_error"},
            ) from error

    def _record(self, recovered: Recovered) -> None:
        """Say in the ledger itself what was set aside."""
        pending = [
            self.entry(
                LEDGER_RECOVERED,
                self._actor,
                {"file": torn.file, "len": torn.length, "sha256": torn.sha256, "at": torn.at},
                closing=True,
            )
            for torn in recovered.unrecorded
        ]
        for one in pending:
            one.wait()

    # --- reading ---

    def replay(self) -> Iterator[Entry]:
        """Every entry that the file held when it was opened, in order; memory does not grow with their number.

        Raises ConfigurationError("ledger_damaged") when the file was changed since.
        """
        for number, (_, line) in enumerate(read_lines(self._log, 0, self._replay_end), 1):
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
        failure = self._completion.failure
        return LedgerStatus(
            self.origin,
            self._completion.count,
            self._durable_bytes,
            self._signed,
            len(self._outstanding),
            failure.message if failure is not None else "",
            self._checkpoint_failure,
        )

    @property
    def failure(self) -> Refused | None:
        """What every append is refused with, once a write or a sync has failed; None while all is well."""
        return self._completion.failure

    # --- closing ---

    def close(self) -> None:
        """Write what is queued, sign a checkpoint, let others in. Further entries are refused. Never raises OSError."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._writer.stop()
        if self._completion.failure is None:
            self._checkpoint()
            self._reserve.close()
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

    def committed(self, leaves: list[bytes], length: int) -> None:
        """These entries are durable."""
        if self._tree.size == self._signed:
            self._checkpoint_due = time.monotonic() + self._checkpoint_seconds
        for leaf in leaves:
            self._tree.append(leaf)
        self._durable_bytes += length
        self._completion.advance(self._tree.size)

    def failed(self, error: BaseException) -> None:
        """Nothing more will be durable: what is queued fails, and so does all that comes."""
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        where = self._storage.where()
        self._completion.fail(
            Refused(
                "ledger_unavailable",
                f"writing {where}/{LOG} failed: {reason}",
                f"see to the disk under {where} (space, kernel log), then restart the daemon: it recovers",
                details={"path": where, "reason": "write_failed"},
            )
        )

    def full(self) -> bool:
        """A write met a full disk."""
        with self._lock:
            return self._reserve.yield_space()

    def idle(self) -> float | None:
        """Keep space in advance, sign a checkpoint when one is due; seconds until the next is."""
        with self._lock:
            end, kept = self._end, len(self._outstanding) * OUTCOME_BYTES + CLOSING_BYTES
        self._reserve.top_up(end, kept)
        fresh = self._tree.size - self._signed
        if not fresh:
            return None
        now = time.monotonic()
        if now >= self._checkpoint_due or (fresh >= self._checkpoint_entries and not self._checkpoint_failure):
            self._checkpoint()
        return None if self._tree.size == self._signed else max(0.0, self._checkpoint_due - time.monotonic())

    def _checkpoint(self) -> None:
        """Sign the tree of what is durable. A failure is noted and tried again later: the entries are safe without."""
        size = self._tree.size
        if size == self._signed:
            return
        note = self._signer.sign(Checkpoint(self.origin, size, self._tree.root()))
        try:
            self._storage.write_whole(f"{CHECKPOINTS}/{file_name(size)}", note)
        except OSError as error:
            self._checkpoint_failure = f"checkpoint {size}: {error.strerror}"
            self._checkpoint_due = time.monotonic() + min(_RETRY_SECONDS, self._checkpoint_seconds)
            return
        self._signed, self._checkpoint_failure = size, ""


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
