"""A storage in memory that forgets what was not synced, and fails where a test says so."""

from __future__ import annotations

import contextlib
import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from immured.errors import ConfigurationError
from immured.ledger.segments import LOG, Part, begins_at, segment_name

SECTOR = 512


class PowerFailure(BaseException):
    """The machine stops at this very operation."""


class Bytes:
    """A ledger's file as a value, to be read."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def read(self, offset: int, length: int) -> bytes:
        return self._content[offset : offset + length]


class MemoryStorage:
    """What the cache shows, and what the disk would hold if the power failed now.

    `before` is called with the name of each operation that changes something, before it does; what it raises happens.
    """

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self.before = before
        self.files: dict[str, bytes] = {}
        self.sealed: list[Part] = []
        self.retired = 0  # bytes of the stream that are not kept any more
        self.fixed: set[str] = set()
        self.next: bytes | None = None
        self.turned: MemoryStorage | None = None  # what the disk has while a rotation's renames are not synced
        self.cache: bytearray | None = None
        self.disk: bytearray | None = None
        self.capacity: int | None = None
        self.allocated = 0
        self.can_allocate = True
        self.largest_write = 1 << 30
        self.syncs = 0
        self.locked = False

    # --- what a crash leaves ---

    def after_crash(self, chance: random.Random) -> MemoryStorage:
        """A machine that starts again with what the disk holds: each sector that was not synced is there or is not."""
        if self.turned is not None and chance.random() < 0.5:
            return self.turned.after_crash(chance)
        survivor = MemoryStorage()
        survivor.files, survivor.sealed, survivor.retired = dict(self.files), list(self.sealed), self.retired
        if self.cache is None or self.disk is None:
            return survivor
        small, large = sorted((len(self.disk), len(self.cache)))
        size = chance.choice([len(self.disk), len(self.cache), chance.randint(small, large)])
        content = self.disk[:size].ljust(size, b"\x00")
        for start in range(0, len(content), SECTOR):
            if chance.random() < 0.5:
                fresh = bytes(self.cache[start : min(start + SECTOR, len(content))])
                content[start : start + len(fresh)] = fresh
        survivor.cache, survivor.disk = bytearray(content), bytearray(content)
        return survivor

    def content(self) -> bytes:
        assert self.cache is not None
        return b"".join(self.files[part.name] for part in self.sealed) + self.cache

    @property
    def base(self) -> int:
        """Where in the stream the file begins that is written."""
        return self.sealed[-1].end if self.sealed else self.retired

    # --- Storage ---

    def where(self) -> str:
        return "/memory/ledger"

    def lock(self) -> None:
        if self.locked:
            raise ConfigurationError("ledger_in_use", "taken")
        self.locked = True

    def unlock(self) -> None:
        self.locked = False

    def open_log(self) -> MemoryStorage:
        if self.cache is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return self

    def create_log(self, first: bytes) -> None:
        self.before("create_log")
        if self.cache is not None:
            raise FileExistsError
        self.cache, self.disk = bytearray(first), bytearray(first)

    def write_whole(self, name: str, data: bytes, mode: int = 0o600) -> None:
        self.before(f"write_whole {name}")
        self.files[name] = data

    def read_whole(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.files[name]

    def names(self, folder: str) -> Sequence[str]:
        return sorted(name.partition("/")[2] for name in self.files if name.startswith(f"{folder}/"))

    def fill(self, name: str, size: int) -> None:
        self.before(f"fill {name}")
        if self.capacity is not None and size > self.capacity - self.size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.files[name] = bytes(size)

    def remove(self, name: str) -> None:
        self.before(f"remove {name}")
        self.files.pop(name, None)

    # --- LogFile ---

    def direct(self) -> None:
        return None

    def parts(self) -> Sequence[Part]:
        assert self.cache is not None
        first = begins_at(bytes(self.cache).partition(b"\n")[0])[0]
        return (*self.sealed, Part(LOG, first, self.base, len(self.cache)))

    def prepare(self, line: bytes, room: int) -> None:
        self.before("prepare")
        if self.capacity is not None and len(line) + room > self.capacity - self.size():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.next = line

    def turn(self) -> None:
        self.before("turn")
        assert self.next is not None
        assert self.cache is not None
        was = MemoryStorage()
        was.files, was.sealed, was.retired = dict(self.files), list(self.sealed), self.retired
        was.cache, was.disk = bytearray(self.cache), self.disk
        self.turned = was
        part = self.parts()[-1]
        name = segment_name(part.first)
        self.files[name] = bytes(self.cache)
        self.sealed.append(replace(part, name=name))
        self.cache, self.disk, self.next, self.allocated = bytearray(self.next), bytearray(self.next), None, 0
        self.before("turned")
        self.turned = None

    @contextlib.contextmanager
    def beside(self) -> Iterator[MemoryStorage]:
        yield self

    def is_fixed(self, name: str) -> bool:
        return name in self.fixed

    def retire(self, name: str) -> None:
        self.before(f"retire {name}")
        part = self.sealed.pop(0)
        assert part.name == name
        self.retired = part.end
        del self.files[name]

    def look(self) -> None:
        return

    def size(self) -> int:
        assert self.cache is not None
        return self.base + len(self.cache)

    def read(self, offset: int, length: int) -> bytes:
        assert offset >= self.retired
        return self.content()[offset - self.retired : offset - self.retired + length]

    def write(self, offset: int, data: bytes) -> int:
        self.before("write")
        assert self.cache is not None
        data = data[: self.largest_write]
        offset -= self.base
        if self.capacity is not None:
            ballast = sum(len(content) for name, content in self.files.items() if "/" not in name)
            room = max(self.allocated, self.capacity - ballast) - offset
            if room <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            data = data[:room]
        self.cache[offset : offset + len(data)] = data
        return len(data)

    def sync(self) -> None:
        self.before("sync")
        assert self.cache is not None
        self.disk = bytearray(self.cache)
        self.syncs += 1

    def allocate(self, offset: int, length: int) -> None:
        if not self.can_allocate:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        offset -= self.base
        if self.capacity is not None and offset + length > max(self.capacity, self.allocated):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.allocated = max(self.allocated, offset + length)

    def truncate(self, size: int) -> None:
        self.before("truncate")
        assert self.cache is not None
        assert size >= self.base
        del self.cache[size - self.base :]
        self.allocated = size - self.base

    def drop_cache(self) -> None:
        return

    def close(self) -> None:
        return
