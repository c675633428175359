"""Every command in two ways: as the clerk does it, and as one would who joins a path and follows it."""

from __future__ import annotations

import glob
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from immured.isolation.files_words import FilesFlag, FilesOp
from tests.traversal.alone import Alone


def tar_of(*members: tuple[str, bytes]) -> bytes:
    """A plain archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


PLAIN = tar_of(("secret", b"overwritten"))


@dataclass(frozen=True)
class Act:
    """`rest`: what of the directory outside it is about. `clerk` and `naive` do it; what the naive one gives, or
    changes outside, is the harm."""

    name: str
    rest: tuple[str, ...]
    clerk: Callable[[Alone, bytes], object]
    naive: Callable[[Path, bytes], object]


def at(root: Path, path: bytes) -> bytes:
    return os.fsencode(root) + path


def _read(root: Path, path: bytes) -> bytes:
    with open(at(root, path), "rb") as file:
        return file.read()


def _write(root: Path, path: bytes) -> None:
    with open(at(root, path), "wb") as file:
        file.write(b"put")


def _archive(root: Path, path: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.add(os.fsdecode(at(root, path)) + "/.", arcname="top")
    return out.getvalue()


def _extract(root: Path, path: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(PLAIN)) as archive:
        archive.extractall(os.fsdecode(at(root, path)), filter="fully_trusted")


ACTS = (
    Act("get", ("secret",), Alone.get, _read),
    Act("get by descriptor", ("secret",), Alone.get_by_descriptor, _read),
    Act("put", ("secret",), Alone.put, _write),
    Act(
        "put with parents", ("new", "file"),
        lambda clerk, path: clerk.put(path, flags=FilesFlag.PARENTS | FilesFlag.REPLACE),
        lambda root, path: os.makedirs(os.path.dirname(at(root, path))),
    ),
    Act("list", (), Alone.names, lambda root, path: os.listdir(at(root, path))),
    Act("list below", ("below",), Alone.names, lambda root, path: os.listdir(at(root, path))),
    Act(
        "stat", ("secret",), lambda clerk, path: clerk.ask(FilesOp.STAT, path),
        lambda root, path: os.lstat(at(root, path)),
    ),
    Act(
        "stat, following", ("secret",), lambda clerk, path: clerk.ask(FilesOp.STAT, path, flags=FilesFlag.FOLLOW),
        lambda root, path: os.stat(at(root, path)),
    ),
    Act(
        "mkdir", ("made",), lambda clerk, path: clerk.ask(FilesOp.MKDIR, path, mode=0o755),
        lambda root, path: os.mkdir(at(root, path)),
    ),
    Act(
        "mkdir with parents", ("made", "deep"),
        lambda clerk, path: clerk.ask(FilesOp.MKDIR, path, mode=0o755, flags=FilesFlag.PARENTS),
        lambda root, path: os.makedirs(at(root, path)),
    ),
    Act(
        "move out of", ("secret",), lambda clerk, path: clerk.ask(FilesOp.MOVE, path, b"/stolen"),
        lambda root, path: os.rename(at(root, path), at(root, b"/stolen")),
    ),
    Act(
        "move into", ("planted",), lambda clerk, path: clerk.ask(FilesOp.MOVE, b"/stock/mine", path),
        lambda root, path: os.rename(at(root, b"/stock/mine"), at(root, path)),
    ),
    Act("remove", ("secret",), Alone.remove, lambda root, path: os.remove(at(root, path))),
    Act(
        "remove all", ("below",), lambda clerk, path: clerk.remove(path, recursive=True),
        lambda root, path: __import__("shutil").rmtree(at(root, path)),
    ),
    Act(
        "chmod", ("secret",), lambda clerk, path: clerk.ask(FilesOp.CHMOD, path, mode=0o600),
        lambda root, path: os.chmod(at(root, path), 0o600),
    ),
    Act("glob", ("*",), Alone.glob, lambda root, path: glob.glob(os.fsdecode(at(root, path)))),
    Act(
        "glob, any depth", ("**", "secret"), Alone.glob,
        lambda root, path: glob.glob(os.fsdecode(at(root, path)), recursive=True),
    ),
    Act("archive", (), Alone.archive, _archive),
    Act("extract", (), lambda clerk, path: clerk.extract(path, PLAIN), _extract),
    Act(
        "extract with parents", ("fresh",),
        lambda clerk, path: clerk.extract(path, PLAIN, flags=FilesFlag.REPLACE | FilesFlag.PARENTS), _extract,
    ),
)  # fmt: skip
