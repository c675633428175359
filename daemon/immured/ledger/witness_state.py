"""What a witness keeps: its key, whom it trusts for which log, and the last checkpoint of each.

    DIR/witness.pem                 its private key (PKCS#8 PEM, Ed25519)
    DIR/witness.vkey                its verifier key, public
    DIR/lock                        flock()ed by the one process that serves; `.changes`: by who changes the rest
    DIR/logs/<SHA-256 of the origin, hexadecimal>/
        keys                        verifier keys that the log may sign with, one a line
        checkpoint                  the last one that was cosigned: a note with the log's signatures and the witness's
        conflicts/<size>-<root>     others of a size that was cosigned, which the log signed too: evidence

A checkpoint is replaced whole, and durable when `keep` returns: file, name and folder. Whoever restores an older copy
of DIR has a witness that would sign a second history: make a new key instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import Checkpoint, NoteError, VerifierKey
from immured.ledger.note_keys import NAME, Cosigner, parse_vkeys, parse_witness_keys

__all__ = ["Known", "StateDamaged", "WitnessState", "init_witness", "origin_hash"]

_PRIVATE: Final = "witness.pem"
_PUBLIC: Final = "witness.vkey"
_LOCK: Final = "lock"
_CHANGES: Final = ".changes"
_LOGS: Final = "logs"
_KEYS: Final = "keys"
_CHECKPOINT: Final = "checkpoint"
_CONFLICTS: Final = "conflicts"
_MAX_SMALL: Final = 1 << 20
_MAX_CONFLICTS: Final = 16
_HASH: Final = re.compile(r"[0-9a-f]{64}")


class StateDamaged(ValueError):
    """Something in the directory is not as the witness left it."""


@dataclass(frozen=True, slots=True)
class Known:
    """A log that is trusted. `note`: the last checkpoint of it, as it is kept; `conflicts`: names of the evidence."""

    origin: str
    keys: tuple[VerifierKey, ...]
    note: bytes | None
    conflicts: tuple[str, ...]


def origin_hash(origin: str) -> str:
    """What a log is called in paths and URLs: SHA-256 of its origin, 64 hexadecimal digits."""
    return hashlib.sha256(origin.encode()).hexdigest()


def init_witness(directory: Path, name: str) -> Cosigner:
    """Make a state directory with a new key of this name. Raises ConfigurationError, OSError."""
    if NAME.fullmatch(name) is None or len(name) > 256 or not name.isprintable():
        raise ConfigurationError(
            "bad_witness_name",
            f"{name[:64]!r} is no name for a witness: it would be ambiguous in a note",
            "take a URL without its scheme, without spaces and `+`, such as witness.example.org/w1",
        )
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    (directory / _LOGS).mkdir(mode=0o700, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    made = Cosigner(private, name)
    with _locked(directory / _CHANGES):
        if os.path.lexists(directory / _PRIVATE):
            raise ConfigurationError(
                "witness_exists", f"{directory} has a witness's key already", "name another directory, or use this one"
            )
        # The public half first: a private key without its name would be taken for a whole directory.
        _write_whole(directory, _PUBLIC, made.verifier.encode().encode() + b"\n", 0o644)
        _write_whole(directory, _PRIVATE, pem, 0o600)
    return made


class WitnessState:
    """One such directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock: int | None = None

    # --- the witness's own key

    def cosigner(self) -> Cosigner:
        """The witness's key. Raises ConfigurationError."""
        try:
            pem = _read(self.directory / _PRIVATE)
            keys = parse_witness_keys(_read(self.directory / _PUBLIC).decode())
            private = serialization.load_pem_private_key(pem, None)
        except FileNotFoundError as error:
            raise ConfigurationError(
                "no_witness",
                f"{error.filename} is not there",
                "make a witness: immure ledger witness init --state DIR --name NAME",
            ) from error
        except (NoteError, ValueError, TypeError) as error:
            raise self._damaged(f"the witness's key: {error}") from error
        if not isinstance(private, Ed25519PrivateKey) or len(keys) != 1:
            raise self._damaged("it holds no Ed25519 key, or more than one verifier key")
        made = Cosigner(private, keys[0].name)
        if made.verifier != keys[0]:
            raise self._damaged(f"{_PUBLIC} is not of {_PRIVATE}")
        return made

    def lock(self) -> None:
        """Be the only one that serves from here. Raises ConfigurationError `witness_in_use`, OSError."""
        fd = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigurationError(
                "witness_in_use", f"another process serves from {self.directory}", "stop it, or name another directory"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        self._lock = fd
        self._sweep()

    def _sweep(self) -> None:
        """Remove what a crash left of files that were not given their name."""
        for place in (self.directory / _LOGS).glob(f"*/.{_CHECKPOINT}.*"):
            place.unlink(missing_ok=True)

    def unlock(self) -> None:
        """Let others serve."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # --- logs

    def trust(self, keys: Iterable[VerifierKey]) -> Sequence[str]:
        """Have the logs that these keys name cosigned, beside what is trusted already; their origins.

        A key's name is its log's origin. Raises OSError, StateDamaged.
        """
        by_origin: dict[str, list[VerifierKey]] = {}
        for key in keys:
            by_origin.setdefault(key.name, []).append(key)
        with _locked(self.directory / _CHANGES):
            for origin, more in by_origin.items():
                place = self.where(origin_hash(origin))
                place.mkdir(mode=0o700, exist_ok=True)
                _sync(place.parent)
                there = dict.fromkeys([*self.keys(origin), *more])
                _write_whole(place, _KEYS, "".join(f"{key.encode()}\n" for key in there).encode(), 0o600)
        return tuple(by_origin)

    def keys(self, origin: str) -> tuple[VerifierKey, ...]:
        """What the log may sign with; none: it is not trusted. Read each time: `trust` needs no restart. Raises
        OSError, StateDamaged."""
        return tuple(key for key in self._keys(origin_hash(origin)) if key.name == origin)

    def _keys(self, hashed: str) -> tuple[VerifierKey, ...]:
        try:
            return parse_vkeys(_read(self.where(hashed) / _KEYS).decode())
        except FileNotFoundError:
            return ()
        except ValueError as error:  # NoteError, and what is not UTF-8
            raise StateDamaged(f"{self.where(hashed) / _KEYS}: {error}") from None

    def note(self, hashed: str) -> bytes | None:
        """The last checkpoint of a log that was cosigned; None: there is none. Raises OSError, StateDamaged."""
        if _HASH.fullmatch(hashed) is None:
            return None
        try:
            return _read(self.where(hashed) / _CHECKPOINT)
        except FileNotFoundError:
            return None

    def keep(self, hashed: str, note: bytes) -> None:
        """Put it in the place of the last one; durable when this returns. Raises OSError: one or the other is there."""
        _write_whole(self.where(hashed), _CHECKPOINT, note, 0o600)

    def keep_conflict(self, hashed: str, checkpoint: Checkpoint, note: bytes) -> None:
        """Keep what a log signed beside what was cosigned: the first so many. Raises OSError."""
        place = self.where(hashed) / _CONFLICTS
        place.mkdir(mode=0o700, exist_ok=True)
        name = f"{checkpoint.size:020d}-{checkpoint.root.hex()[:16]}"
        if name not in (names := _names(place)) and len(names) < _MAX_CONFLICTS:
            _write_whole(place, name, note, 0o600)

    def known(self) -> Iterator[Known]:
        """Every log, by its origin. Raises OSError, StateDamaged."""
        found = []
        for hashed in _names(self.directory / _LOGS):
            keys = self._keys(hashed) if _HASH.fullmatch(hashed) else ()
            if keys:
                conflicts = tuple(_names(self.where(hashed) / _CONFLICTS))
                found.append(Known(keys[0].name, keys, self.note(hashed), conflicts))
        yield from sorted(found, key=lambda one: one.origin)

    def where(self, hashed: str) -> Path:
        """The folder of a log."""
        return self.directory / _LOGS / hashed

    def _damaged(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            "witness_damaged",
            f"{self.directory}: {why}",
            "if the key is lost, make a new witness in another directory, and have the logs ask that one",
        )


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(fd, "rb") as file:
        data = file.read(_MAX_SMALL + 1)
    if len(data) > _MAX_SMALL:
        raise StateDamaged(f"{path} holds more than {_MAX_SMALL} bytes")
    return data


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One who changes at a time; the others wait."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _names(directory: Path) -> list[str]:
    try:
        return sorted(one.name for one in directory.iterdir() if not one.name.startswith("."))
    except FileNotFoundError:
        return []


def _write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def _write_whole(directory: Path, name: str, data: bytes, mode: int) -> None:
    temporary = directory / f".{name}.{secrets.token_hex(8)}"
    try:
        _write_new(temporary, data, mode)
        temporary.rename(directory / name)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    _sync(directory)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
