"""The files of manifests, in DIR/manifests: what is written, what is read, and by what a change of it shows. I/O alone.

<sha256>.toml              the manifest, as it was signed
<sha256>.signatures        the detached signatures that came with it; a built-in one has none
<sha256>.signatures.next   those that will be, until the ledger has said so
<sha256>.sig               the daemon's own signature, made once it is in force: a line a key

A manifest that was half loaded by a daemon that died has no .sig and no entry, and is none. Whether one is as it was
loaded is found out by reading all of it; that nothing was written since, by what the kernel says of its files.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.manifest.read import MAX_TEXT
from immured.manifest.signature import MAX_TEXT as MAX_SIGNATURES_TEXT
from immured.service.files import sync_directory, write_whole
from immured.wire.envelope import pae
from immured.wire.keys import PrivateKey, PublicKey

__all__ = [
    "Copy",
    "DamagedError",
    "Identity",
    "ManifestFiles",
    "check_own",
    "digest_of",
    "identity_of",
    "own_signatures",
]

MANIFEST_TYPE: Final = "application/vnd.immured.manifest.v1+toml"
_STEM: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MAX_OWN: Final = 1024
_RACY_NS: Final = 2 * 10**9
"""A file that was changed so little before it was read may be changed again without its times showing that."""

Identity = tuple[int, ...]


class DamagedError(Exception):
    """A file is not as it should be. `file` is its name, `why` says it in words."""

    def __init__(self, file: str, why: str) -> None:
        super().__init__(f"{file}: {why}")
        self.file = file
        self.why = why


@dataclass(frozen=True, slots=True)
class Copy:
    """What lies on the disk of one manifest, and how the kernel told the files apart from any later ones. `settled`:
    they are old enough for that to hold. `signatures` None: there is no such file, as of a built-in one."""

    raw: bytes
    own: bytes
    signatures: bytes | None
    identity: Identity
    settled: bool


class ManifestFiles:
    """The directory. Stems are the hex digits of digests."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def stems(self) -> Iterator[str]:
        """Of everything that looks like a manifest. Raises OSError."""
        with os.scandir(self._directory) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            stem = name.removesuffix(".toml")
            if name != stem and _STEM.fullmatch(stem):
                yield stem

    def names(self, stem: str, *, detached: bool) -> tuple[str, ...]:
        """The paths of its files, for `identity`."""
        ends = ("toml", "sig", "signatures") if detached else ("toml", "sig")
        return tuple(os.fspath(self._directory / f"{stem}.{end}") for end in ends)

    def has(self, stem: str, end: str) -> bool:
        """Whether there is anything of that name."""
        return os.path.lexists(self._directory / f"{stem}.{end}")

    # -- read

    def read(self, stem: str, *, detached: bool) -> Copy:
        """All of it, unverified. Raises DamagedError for what is no file of ours."""
        now = time.time_ns()
        contents: list[bytes] = []
        identity: list[int] = []
        settled = True
        for path, limit in zip(
            self.names(stem, detached=detached), (MAX_TEXT, _MAX_OWN, MAX_SIGNATURES_TEXT), strict=False
        ):
            try:
                data, facts = _read(path, limit)
            except FileNotFoundError:
                raise DamagedError(path.rpartition("/")[2], "it is missing") from None
            contents.append(data)
            identity += _identity(facts)
            settled = settled and facts.st_ctime_ns <= now - _RACY_NS
        return Copy(contents[0], contents[1], contents[2] if detached else None, tuple(identity), settled)

    # -- written

    def add_built_in(self, keys: Sequence[PrivateKey], raw: bytes) -> str:
        """Put a built-in one there, signed. Returns its stem. Raises OSError."""
        stem = hashlib.sha256(raw).hexdigest()
        self._write(stem, "sig", own_signatures(keys, raw))
        self._write(stem, "toml", raw)
        return stem

    def mend_built_in(self, keys: Sequence[PrivateKey], raw: bytes) -> DamagedError | None:
        """Have a built-in one there as it should be. What was wrong with it, if it was there. Raises OSError."""
        stem = hashlib.sha256(raw).hexdigest()
        wrong: DamagedError | None = None
        if self.has(stem, "toml"):
            try:
                copy = self.read(stem, detached=False)
                if copy.raw != raw:
                    raise DamagedError(f"{stem}.toml", "its name is not its digest")
                check_own(f"{stem}.sig", raw, copy.own, [key.public for key in keys])
            except DamagedError as error:
                wrong = error
            else:
                return None
        self.add_built_in(keys[:1], raw)
        return wrong

    def stage(self, raw: bytes, signatures: bytes) -> str:
        """Before the entry: durable, and in force for nobody. Returns its stem. Raises OSError."""
        stem = hashlib.sha256(raw).hexdigest()
        self._write(stem, "toml", raw)
        self._write(stem, "signatures.next", signatures)
        return stem

    def unstage(self, stem: str, *, loaded: bool) -> None:
        """There was no entry. `loaded`: there is one of before, and its file stays. Raises OSError."""
        for end in ("signatures.next",) if loaded else ("signatures.next", "toml"):
            with contextlib.suppress(FileNotFoundError):
                (self._directory / f"{stem}.{end}").unlink()
        sync_directory(self._directory)

    def finish(self, stem: str, signatures: str, keys: Sequence[PrivateKey], *, starting: bool = False) -> None:
        """After the entry: the signatures of that digest get their name, and the daemon signs. `starting`: what a
        daemon that died left to do; what has its name by then stays as it is. Raises OSError, DamagedError.
        """
        following = self._directory / f"{stem}.signatures.next"
        with contextlib.suppress(FileNotFoundError):
            if digest_of(_read(os.fspath(following), MAX_SIGNATURES_TEXT)[0]) == signatures:
                following.rename(self._directory / f"{stem}.signatures")
                sync_directory(self._directory)
        if starting and self.has(stem, "sig"):
            return
        with contextlib.suppress(FileNotFoundError):
            raw, _ = _read(os.fspath(self._directory / f"{stem}.toml"), MAX_TEXT)
            if hashlib.sha256(raw).hexdigest() == stem:
                self._write(stem, "sig", own_signatures(keys, raw))

    def sign_anew(self, keys: Sequence[PrivateKey], known: Iterable[PublicKey]) -> None:
        """Have everything that the daemon signed signed by these keys, and no others. `known`: by which it may be
        signed now; what is not as they signed it stays as it is, to be found. Raises OSError."""
        publics = tuple(known)
        for stem in self.stems():
            try:
                raw, _ = _read(os.fspath(self._directory / f"{stem}.toml"), MAX_TEXT)
                own, _ = _read(os.fspath(self._directory / f"{stem}.sig"), _MAX_OWN)
                if hashlib.sha256(raw).hexdigest() != stem:
                    continue
                check_own(f"{stem}.sig", raw, own, publics)
            except (DamagedError, FileNotFoundError):
                continue
            signed = own_signatures(keys, raw)
            if own != signed:
                self._write(stem, "sig", signed)

    def _write(self, stem: str, end: str, data: bytes) -> None:
        path = self._directory / f"{stem}.{end}"
        with contextlib.suppress(OSError, DamagedError):
            if _read(os.fspath(path), len(data))[0] == data:
                return
        write_whole(path, data, 0o644)


def identity_of(names: Iterable[str]) -> Identity:
    """How the kernel tells these files apart from others, and from themselves as they were. Raises OSError."""
    found: list[int] = []
    for name in names:
        found += _identity(os.lstat(name))
    return tuple(found)


def digest_of(data: bytes) -> str:
    """`sha256:<hex>`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def own_signatures(keys: Iterable[PrivateKey], raw: bytes) -> bytes:
    """The daemon's own: a line a key, its id, and its signature in base64."""
    signed = pae(MANIFEST_TYPE, raw)
    return b"".join(f"{key.id} {base64.b64encode(key.sign(signed)).decode()}\n".encode() for key in keys)


def check_own(file: str, raw: bytes, own: bytes, known: Iterable[PublicKey]) -> None:
    """Raises DamagedError unless every line of it is one of these keys', over these bytes, as they write it."""
    keys = {key.id: key for key in known}
    signed = pae(MANIFEST_TYPE, raw)
    lines = own.split(b"\n")
    if lines.pop() or not lines:
        raise DamagedError(file, "it is not whole lines")
    for line in lines:
        signer, _, encoded = line.decode("ascii", "replace").partition(" ")
        try:
            signature = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise DamagedError(file, "it is not as this daemon writes it") from None
        if base64.b64encode(signature).decode() != encoded:
            raise DamagedError(file, "it is not as this daemon writes it")
        key = keys.pop(signer, None)
        if key is None or not key.verify(signature, signed):
            raise DamagedError(file, "the signature is not this daemon's")


def _read(path: str, limit: int) -> tuple[bytes, os.stat_result]:
    """A regular file with one name, at most so many bytes; and what it was before it was read.

    Raises DamagedError, FileNotFoundError.
    """
    name = path.rpartition("/")[2]
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DamagedError(name, error.strerror or "it cannot be read") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise DamagedError(name, "it is no regular file")
        data = b""
        while len(data) <= limit and (more := os.read(fd, limit + 1 - len(data))):
            data += more
    except OSError as error:
        raise DamagedError(name, error.strerror or "it cannot be read") from error
    finally:
        os.close(fd)
    if len(data) > limit:
        raise DamagedError(name, f"it holds more than {limit} bytes")
    return data, facts


def _identity(facts: os.stat_result) -> Identity:
    return (
        facts.st_dev,
        facts.st_ino,
        facts.st_mode,
        facts.st_size,
        facts.st_mtime_ns,
        facts.st_ctime_ns,
    )
