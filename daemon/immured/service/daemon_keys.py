"""The daemon's own key, and how another takes its place.

DIR/keys/daemon.next.pem is on the disk, and manifests carry both keys' signatures, before the ledger says
`daemon.key_rotated`; after that it is renamed to daemon.pem. So at every moment of a crash the ledger names the key,
and its file is there: a start finishes what was begun. DIR/keys/daemon.former.pem is the old one, which signs beside
the new one until the overlap is over, for clients that have pinned it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from immured.errors import ConfigurationError
from immured.identity import folded
from immured.service.files import read_bounded, sync_directory, write_whole
from immured.service.manifest_files import ManifestFiles
from immured.service.state import Paths, State
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey, PublicKey

__all__ = ["ROTATION", "DaemonKeys", "Rotation", "begin", "discard", "drop_former", "finish", "settle"]

ROTATION: Final = "application/vnd.immured.daemon-key.v1"
"""As which both keys sign the rotation: the old one's 32 bytes, the new one's, and `until_ms` (8 bytes, big-endian)."""
_MAX_PEM: Final = 4096


class DaemonKeys:
    """The keys that a daemon signs with: the current one, and in an overlap the former one. `upcoming`: by which
    manifests may be signed too, as one of them was, or is, to take the current one's place."""

    __slots__ = ("current", "former", "signing", "until_ms", "upcoming")

    def __init__(self, current: PrivateKey, former: PrivateKey | None = None, until_ms: int = 0) -> None:
        self.upcoming: tuple[PublicKey, ...] = ()
        self.take(current, former, until_ms)

    def take(self, current: PrivateKey, former: PrivateKey | None = None, until_ms: int = 0) -> None:
        """These from now on."""
        self.current = current
        self.former = former
        self.until_ms = until_ms
        self.signing: tuple[PrivateKey, ...] = (current,) if former is None else (current, former)

    @property
    def id(self) -> str:
        """The current one's."""
        return self.current.id

    @property
    def known(self) -> tuple[PublicKey, ...]:
        """By which a manifest may be signed."""
        return (*(key.public for key in self.signing), *self.upcoming)

    @property
    def ids(self) -> frozenset[str]:
        """Whom a command may be addressed to."""
        return frozenset(key.id for key in self.signing)


@dataclass(frozen=True, slots=True)
class Rotation:
    """What `daemon.key_rotated` says: `key` took the place of `previous`, which signs on until `until_ms`."""

    key: PublicKey
    previous: PublicKey
    until_ms: int

    def to_map(self, new: PrivateKey, old: PrivateKey) -> dict[str, object]:
        """As the entry has it, signed by both."""
        signed = pae(ROTATION, self.previous.raw + self.key.raw + self.until_ms.to_bytes(8, "big"))
        return {
            "key": self.key.id,
            "public": self.key.raw.hex(),
            "previous": self.previous.id,
            "previous_public": self.previous.raw.hex(),
            "until_ms": self.until_ms,
            "signed_by_previous": old.sign(signed).hex(),
            "signed_by_key": new.sign(signed).hex(),
        }

    @classmethod
    def from_map(cls, given: Mapping[str, object]) -> Rotation:
        """The inverse. Raises ValueError, ConfigurationError `bad_key`."""
        raw = bytes.fromhex(folded.text(given, "public"))
        previous = bytes.fromhex(folded.text(given, "previous_public"))
        return cls(PublicKey(raw), PublicKey(previous), folded.whole(given, "until_ms"))


def begin(paths: Paths, old: PrivateKey, new: PrivateKey, known: Sequence[PublicKey] = ()) -> None:
    """Before the entry: the new key is on the disk, and every manifest carries both signatures. `known`: by which they
    may be signed besides. Raises OSError."""
    write_whole(paths.daemon_next, new.to_pem(), 0o600)
    ManifestFiles(paths.manifests).sign_anew((new, old), (old.public, *known))


def discard(paths: Paths) -> None:
    """There was no entry: the new key is none. Raises OSError."""
    paths.daemon_next.unlink(missing_ok=True)
    sync_directory(paths.keys)


def finish(paths: Paths, old: PrivateKey, new: PrivateKey, *, overlap: bool) -> None:
    """After the entry: the new key takes the old one's name. Raises OSError."""
    if overlap:
        write_whole(paths.daemon_former, old.to_pem(), 0o600)
    paths.daemon_next.replace(paths.daemon_key)
    sync_directory(paths.keys)
    _tidy(paths, new, (new.public, old.public))


def drop_former(paths: Paths) -> None:
    """The overlap is over. Raises OSError."""
    paths.daemon_former.unlink(missing_ok=True)
    sync_directory(paths.keys)


def settle(state: State, last: Rotation | None, now_ms: int) -> tuple[State, DaemonKeys]:
    """At a start: the keys as the ledger's last rotation has them, and what a crash cut off finished.

    Raises ConfigurationError `daemon_key_mismatch`, OSError.
    """
    paths = state.paths
    begun = _read(paths, "daemon.next.pem")
    unfinished = () if begun is None else (begun.public,)
    if last is None:
        _tidy(paths, state.key, (state.key.public, *unfinished))
        discard(paths)
        return state, DaemonKeys(state.key)
    overlap = now_ms < last.until_ms
    if state.key.id != last.key.id:
        new = begun
        if new is None or new.id != last.key.id or state.key.id != last.previous.id:
            raise ConfigurationError(
                "daemon_key_mismatch",
                f"{paths.daemon_key} is {state.key.id}, and by the ledger the daemon's key is {last.key.id}",
                "restore keys/ and ledger/ from one backup",
            )
        finish(paths, state.key, new, overlap=overlap)
        state = replace(state, key=new)
    else:
        _tidy(paths, state.key, (state.key.public, last.previous, *unfinished))
        discard(paths)
    former = _read(paths, "daemon.former.pem") if overlap else None
    if former is None or former.id != last.previous.id:
        drop_former(paths)
        former = None
    return state, DaemonKeys(state.key, former, last.until_ms)


def _tidy(paths: Paths, key: PrivateKey, known: Sequence[PublicKey]) -> None:
    """What is public, and what was signed by one of those, is that key's alone."""
    ManifestFiles(paths.manifests).sign_anew((key,), known)
    public = key.public.to_pem()
    if not paths.daemon_public.exists() or paths.daemon_public.read_bytes() != public:
        write_whole(paths.daemon_public, public, 0o644)


def _read(paths: Paths, name: str) -> PrivateKey | None:
    try:
        return PrivateKey.from_pem(read_bounded(paths.keys / name, _MAX_PEM))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigurationError("bad_key", f"{paths.keys / name}: {error}", "restore it from a backup") from error
