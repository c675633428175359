"""A sandbox's files, from outside: the blocking object and its asyncio twin over `files_questions`.

    sandbox.files.put("data.bin", "/tmp/data.bin")
    sandbox.files.write("/tmp/config", b"a = 1\n")
    for one in sandbox.files.list("/tmp"):
        print(one.name, one.size)

A local regular file goes as a descriptor that the daemon reads or writes itself; anything else travels as data.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import stat as modes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from immured.client import files_questions as questions
from immured.client.errors import Refusal
from immured.client.order import Readable

if TYPE_CHECKING:
    from immured.client.aiosandbox import AsyncSandbox
    from immured.client.files_questions import Archive, Content, FileInfo, Found
    from immured.client.order import Bytes, Text
    from immured.client.question import Progress, Question, Taken
    from immured.client.sandbox import Sandbox

__all__ = ["AsyncFiles", "Files"]

T = TypeVar("T")


class Files:
    """The files of one sandbox. Paths inside are absolute. Every call is a signed command and in the ledger."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def put(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        path: Text,
        *,
        mode: int | None = None,
        parents: bool = False,
        replace: bool = True,
        progress: Progress | None = None,
    ) -> Content:
        """Puts a local file (its path), bytes or a binary file's content at `path`: whole, or not at all. `mode` is by
        default that of what is replaced, else 0644; `parents` makes directories that are missing."""

        def ask(what: Bytes | Readable | int) -> Question[Content]:
            return questions.put(self._sandbox.id, path, what, mode=mode, parents=parents, replace=replace)

        return self._give(source, ask, progress)

    def write(
        self, path: Text, content: Bytes, *, mode: int | None = None, parents: bool = False, replace: bool = True
    ) -> Content:
        """Puts these bytes there."""
        return self.put(content, path, mode=mode, parents=parents, replace=replace)

    def get(
        self,
        path: Text,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Content:
        """Brings a file back: to a local path, whole or not at all, or into a binary file. `most`: bytes [8 GiB]."""
        return self._take(target, lambda fd: questions.get(self._sandbox.id, path, fd, most=most), progress)

    def read(self, path: Text, *, most: int | None = None) -> bytes:
        """A file's content."""
        taken = io.BytesIO()
        self.get(path, taken, most=most)
        return taken.getvalue()

    def list(self, path: Text) -> tuple[FileInfo, ...]:
        """What is in a directory, by name."""
        found: list[FileInfo] = []
        after: int | None = None
        while True:
            page = self._sandbox.ask(questions.page(self._sandbox.id, path, after))
            found += page.entries
            after = page.next
            if after is None:
                return _sorted(found)

    def stat(self, path: Text, *, follow: bool = False) -> FileInfo:
        """One file; a link itself, unless `follow`."""
        return self._sandbox.ask(questions.stat(self._sandbox.id, path, follow=follow))

    def glob(self, pattern: Text, *, limit: int | None = None) -> Found:
        """What matches: `*`, `?`, `[...]` within a name, `**` for any directories between. Hidden files only where the
        pattern says the dot."""
        return self._sandbox.ask(questions.glob(self._sandbox.id, pattern, limit))

    def mkdir(self, path: Text, *, mode: int | None = None, parents: bool = False) -> None:
        """Makes a directory; with `parents` those above it too, and one that is there is fine."""
        self._sandbox.ask(questions.mkdir(self._sandbox.id, path, mode=mode, parents=parents))

    def move(self, path: Text, to: Text, *, replace: bool = False) -> None:
        """Renames, within one file system."""
        self._sandbox.ask(questions.move(self._sandbox.id, path, to, replace=replace))

    def remove(self, path: Text, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Removes a file or an empty directory; with `recursive` all that is in it; no link is followed."""
        with _forgiving(missing_ok):
            self._sandbox.ask(questions.remove(self._sandbox.id, path, recursive=recursive))

    def chmod(self, path: Text, mode: int) -> None:
        """Permissions of a file or directory, never through a link."""
        self._sandbox.ask(questions.chmod(self._sandbox.id, path, mode))

    def archive(
        self,
        path: Text,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Archive:
        """Brings a directory, or a file, back as a tar archive."""
        return self._take(target, lambda fd: questions.archive(self._sandbox.id, path, fd, most=most), progress)

    def extract(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        path: Text,
        *,
        parents: bool = False,
        replace: bool = True,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Archive:
        """Unpacks a tar archive below a directory. A hostile name in it refuses the rest; what came before it stays."""

        def ask(what: Bytes | Readable | int) -> Question[Archive]:
            return questions.extract(self._sandbox.id, path, what, parents=parents, replace=replace, most=most)

        return self._give(source, ask, progress)

    def _give(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        ask: Callable[[Bytes | Readable | int], Question[T]],
        progress: Progress | None,
    ) -> T:
        with _opened(source) as (what, fd):
            if fd is not None:
                with _as_data_else():
                    return self._sandbox.ask(ask(fd), progress=progress)
            return self._sandbox.ask(ask(what), progress=progress)

    def _take(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        ask: Callable[[int | None], Question[T]],
        progress: Progress | None,
    ) -> T:
        with _made(target) as (file, fd):
            if fd is not None:
                with _as_data_else():
                    return self._sandbox.ask(ask(fd), progress=progress)
            return self._sandbox.ask(ask(None), sink=_writer(file, progress))


class AsyncFiles:
    """The same for asyncio. Local files are opened, and data written to them, on the event loop."""

    def __init__(self, sandbox: AsyncSandbox) -> None:
        self._sandbox = sandbox

    async def put(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        path: Text,
        *,
        mode: int | None = None,
        parents: bool = False,
        replace: bool = True,
        progress: Progress | None = None,
    ) -> Content:
        """As Files.put."""

        def ask(what: Bytes | Readable | int) -> Question[Content]:
            return questions.put(self._sandbox.id, path, what, mode=mode, parents=parents, replace=replace)

        return await self._give(source, ask, progress)

    async def write(
        self, path: Text, content: Bytes, *, mode: int | None = None, parents: bool = False, replace: bool = True
    ) -> Content:
        """Puts these bytes there."""
        return await self.put(content, path, mode=mode, parents=parents, replace=replace)

    async def get(
        self,
        path: Text,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Content:
        """As Files.get."""
        return await self._take(target, lambda fd: questions.get(self._sandbox.id, path, fd, most=most), progress)

    async def read(self, path: Text, *, most: int | None = None) -> bytes:
        """A file's content."""
        taken = io.BytesIO()
        await self.get(path, taken, most=most)
        return taken.getvalue()

    async def list(self, path: Text) -> tuple[FileInfo, ...]:
        """What is in a directory, by name."""
        found: list[FileInfo] = []
        after: int | None = None
        while True:
            page = await self._sandbox.ask(questions.page(self._sandbox.id, path, after))
            found += page.entries
            after = page.next
            if after is None:
                return _sorted(found)

    async def stat(self, path: Text, *, follow: bool = False) -> FileInfo:
        """As Files.stat."""
        return await self._sandbox.ask(questions.stat(self._sandbox.id, path, follow=follow))

    async def glob(self, pattern: Text, *, limit: int | None = None) -> Found:
        """As Files.glob."""
        return await self._sandbox.ask(questions.glob(self._sandbox.id, pattern, limit))

    async def mkdir(self, path: Text, *, mode: int | None = None, parents: bool = False) -> None:
        """As Files.mkdir."""
        await self._sandbox.ask(questions.mkdir(self._sandbox.id, path, mode=mode, parents=parents))

    async def move(self, path: Text, to: Text, *, replace: bool = False) -> None:
        """As Files.move."""
        await self._sandbox.ask(questions.move(self._sandbox.id, path, to, replace=replace))

    async def remove(self, path: Text, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """As Files.remove."""
        with _forgiving(missing_ok):
            await self._sandbox.ask(questions.remove(self._sandbox.id, path, recursive=recursive))

    async def chmod(self, path: Text, mode: int) -> None:
        """As Files.chmod."""
        await self._sandbox.ask(questions.chmod(self._sandbox.id, path, mode))

    async def archive(
        self,
        path: Text,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Archive:
        """As Files.archive."""
        return await self._take(target, lambda fd: questions.archive(self._sandbox.id, path, fd, most=most), progress)

    async def extract(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        path: Text,
        *,
        parents: bool = False,
        replace: bool = True,
        most: int | None = None,
        progress: Progress | None = None,
    ) -> Archive:
        """As Files.extract."""

        def ask(what: Bytes | Readable | int) -> Question[Archive]:
            return questions.extract(self._sandbox.id, path, what, parents=parents, replace=replace, most=most)

        return await self._give(source, ask, progress)

    async def _give(
        self,
        source: str | os.PathLike[str] | Bytes | Readable,
        ask: Callable[[Bytes | Readable | int], Question[T]],
        progress: Progress | None,
    ) -> T:
        with _opened(source) as (what, fd):
            if fd is not None:
                with _as_data_else():
                    return await self._sandbox.ask(ask(fd), progress=progress)
            return await self._sandbox.ask(ask(what), progress=progress)

    async def _take(
        self,
        target: str | os.PathLike[str] | BinaryIO,
        ask: Callable[[int | None], Question[T]],
        progress: Progress | None,
    ) -> T:
        with _made(target) as (file, fd):
            if fd is not None:
                with _as_data_else():
                    return await self._sandbox.ask(ask(fd), progress=progress)
            return await self._sandbox.ask(ask(None), sink=_writer(file, progress))


def _sorted(found: list[FileInfo]) -> tuple[FileInfo, ...]:
    return tuple(sorted(found, key=lambda one: one.path.encode() if isinstance(one.path, str) else one.path))


@contextlib.contextmanager
def _forgiving(missing_ok: bool) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        if not missing_ok or refusal.code != "no_such_file":
            raise


@contextlib.contextmanager
def _as_data_else() -> Iterator[None]:
    """A file that the daemon does not take as a descriptor, as a network's: then nothing was done."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code != "bad_descriptor":
            raise


@contextlib.contextmanager
def _opened(
    source: str | os.PathLike[str] | Bytes | Readable,
) -> Iterator[tuple[Bytes | Readable, int | None]]:
    """What travels as data, and the descriptor to pass instead where there is one."""
    if isinstance(source, bytes | bytearray | memoryview) or not isinstance(source, str | os.PathLike):
        yield source, None
        return
    with Path(source).open("rb", buffering=0) as file:
        regular = modes.S_ISREG(os.fstat(file.fileno()).st_mode)
        yield file, file.fileno() if regular else None


@contextlib.contextmanager
def _made(target: str | os.PathLike[str] | BinaryIO) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file to be written, and its descriptor where it may be passed. A path gets it only once all is well."""
    if not isinstance(target, str | os.PathLike):
        yield target, None
        return
    path = Path(target)
    if path.exists() and not path.is_file():
        with path.open("wb", buffering=0) as file:  # a device, a pipe with a name
            yield file, None
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb", buffering=0) as file:
            yield file, file.fileno()
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


def _writer(file: BinaryIO, progress: Progress | None) -> Taken:
    done = 0

    def take(_stream: str, data: bytes) -> None:
        nonlocal done
        view = memoryview(data)
        while view:
            view = view[file.write(view) or 0 :]
        done += len(data)
        if progress is not None:
            progress(done)

    return take
