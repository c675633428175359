"""A manifest's file and the signatures beside it, as the command line reads and writes them."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from immured.cli.bounded import read_file
from immured.errors import ConfigurationError, Refused
from immured.manifest import signature
from immured.manifest.builtin import parse_toml
from immured.manifest.read import MAX_TEXT

if TYPE_CHECKING:
    from immured.manifest.schema import Manifest

__all__ = ["DIGEST", "beside", "digest_of", "parse", "read_manifest", "read_signatures", "write_new", "write_whole"]

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def read_manifest(path: Path) -> bytes:
    """The file's bytes. Raises ConfigurationError `bad_manifest`."""
    return read_file(path, MAX_TEXT, "bad_manifest", "name a TOML file")


def read_signatures(path: Path) -> bytes:
    """A signature file's bytes. Raises ConfigurationError `no_signatures`."""
    remedy = "sign it: immure manifest sign F; or name the file: --signatures FILE"
    return read_file(path, signature.MAX_TEXT, "no_signatures", remedy)


def beside(path: Path) -> Path:
    """Where the signatures of that file stand: `F.sig`."""
    return path.with_name(path.name + ".sig")


def parse(path: Path, raw: bytes) -> Manifest:
    """The manifest, by the same rules as the daemon's. Raises Refused, naming the file."""
    try:
        return parse_toml(raw)
    except Refused as refused:
        raise Refused(
            refused.code,
            f"{path}: {refused.message}",
            refused.remedy or f"immure manifest lint {path}",
            details=refused.details,
        ) from None


def digest_of(raw: bytes) -> str:
    """`sha256:<hex>` of the file's bytes."""
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not be there yet. Raises ConfigurationError `exists` or `cannot_write`."""
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise ConfigurationError("exists", f"{path} exists", "choose another place: --out FILE") from None
    except OSError as failed:
        raise ConfigurationError("cannot_write", f"{path}: {failed.strerror}", "choose another place") from failed


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in the place of whatever is there, in one step. Raises ConfigurationError `cannot_write`."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fchmod(handle, 0o644)
                os.fsync(handle)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as failed:
        raise ConfigurationError("cannot_write", f"{path}: {failed.strerror}", "choose another place") from failed
