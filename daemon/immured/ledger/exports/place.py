"""Where a copy goes, and how, as an operator says it. No I/O, and nothing secret: that is read by whoever connects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

__all__ = ["LINES", "TILES", "Bucket", "Place", "bucket_of", "check_endpoint"]

LINES: Final = "lines"
TILES: Final = "tiles"
_S3: Final = "s3://"
# What S3 takes as a bucket's name, and what needs no escape in a key.
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(?:/[A-Za-z0-9!_.*'()-]+)*")


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where in S3: `prefix` is empty, or keys begin with it and a slash."""

    name: str
    prefix: str

    def key(self, name: str) -> str:
        """The key of one object."""
        return f"{self.prefix}/{name}" if self.prefix else name


@dataclass(frozen=True, slots=True)
class Place:
    """One destination. `to`: an absolute path, or `s3://BUCKET[/PREFIX]`."""

    to: str
    format: str = LINES
    every_ms: int = 0
    """Not more often than this; 0: after each signed head."""
    lock_ms: int = 0
    """How long each object may neither be replaced nor removed; 0: what the bucket says."""
    lock_mode: str = "compliance"
    """`compliance`: nobody can shorten that; `governance`: whoever has a right of its own."""
    endpoint: str = ""
    """Of an S3 that is not AWS's: `https://HOST[:PORT]`."""
    region: str = ""
    credentials: Path | None = None
    """A file of root's alone, as AWS's own tools have it; None: what they look for."""

    @property
    def name(self) -> str:
        """What the ledger, `status` and messages call it."""
        return self.to if self.format == LINES else f"{self.to} (tiles)"

    @property
    def directory(self) -> Path | None:
        """Where it is a directory."""
        return None if self.to.startswith(_S3) else Path(self.to)

    @property
    def port(self) -> int:
        """Which TCP port its server listens on."""
        if not self.endpoint:
            return 443
        parts = urlsplit(self.endpoint)
        return parts.port or (443 if parts.scheme == "https" else 80)


def bucket_of(to: str) -> Bucket:
    """`s3://BUCKET[/PREFIX]`. Raises ValueError, saying what is wrong with it."""
    if not to.startswith(_S3):
        raise ValueError(f"{to!r} does not begin with {_S3}")
    name, _, prefix = to[len(_S3) :].partition("/")
    prefix = prefix.rstrip("/")
    if _BUCKET.fullmatch(name) is None or ".." in name:
        raise ValueError(f"{name!r} is no bucket's name")
    if prefix and (_PREFIX.fullmatch(prefix) is None or len(prefix) > 512 or ".." in prefix.split("/")):
        raise ValueError(f"the prefix {prefix!r} has more than letters, digits, !_.*'()- and single slashes")
    return Bucket(name, prefix)


def check_endpoint(endpoint: str) -> None:
    """Raises ValueError: it is no `http[s]://HOST[:PORT]`. Secrets have no place in it."""
    parts = urlsplit(endpoint)
    port = parts.port  # raises ValueError itself
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.username is not None
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or port == 0
    ):
        raise ValueError(f"{endpoint!r} is not http[s]://HOST[:PORT]")
