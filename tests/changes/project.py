"""What the tests of change sets say often."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from immured.client.changes_questions import Change
from immured.client.errors import Refusal
from immured.client.sandbox import Sandbox
from tests.held import Traced, asked_before_opening, traced
from tests.patience import PATIENCE_S, until

CALLER: Final = 4242
OTHER: Final = 4243
_COARSE: Final = 5  # CLOCK_REALTIME_COARSE


def own(path: Path, uid: int = CALLER) -> None:
    """The whole tree becomes `uid`'s."""
    os.lchown(path, uid, uid)
    if path.is_dir() and not path.is_symlink():
        for one in path.iterdir():
            own(one, uid)


def later() -> None:
    """Past the tick of the clock that file times are taken from."""
    now = time.clock_gettime_ns(_COARSE)
    until(lambda: time.clock_gettime_ns(_COARSE) > now)


@dataclass(frozen=True)
class Captured:
    """A sandbox and the host's directory that it captured."""

    sandbox: Sandbox
    path: Path

    def sh(self, script: str) -> bytes:
        """A script in the directory, inside."""
        result = self.sandbox.exec(["/bin/sh", "-c", script], cwd=str(self.path))
        assert result.exit_code == 0, result.stderr.decode("utf-8", "backslashreplace")
        return result.stdout

    def python(self, script: str) -> bytes:
        result = self.sandbox.exec(["/usr/bin/python3", "-c", script], cwd=str(self.path))
        assert result.exit_code == 0, result.stderr.decode("utf-8", "backslashreplace")
        return result.stdout

    def inside(self, name: str) -> str:
        return f"{self.path}/{name}"

    def rows(self) -> dict[str, Change]:
        """The changes, by path from the directory."""
        return {self.name(one.path): one for one in self.sandbox.changes.list()}

    def once_free(self) -> dict[str, str]:
        """`kinds`, once a clerk that was killed, or left alone, is gone: it holds what it was at until then."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return self.kinds()
            except Refusal as refusal:
                if refusal.code not in {"busy", "in_use"} or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def kinds(self) -> dict[str, str]:
        return {name: one.kind for name, one in self.rows().items()}

    def name(self, path: str | bytes) -> str:
        return os.fsdecode(path)[len(str(self.path)) + 1 :]

    def accept(self, *names: str, skip: tuple[str, ...] = (), **options: Any) -> list[str]:
        """What was applied, by path from the directory."""
        done = self.sandbox.changes.accept(
            *map(self.inside, names), skip=tuple(self.inside(one) for one in skip), **options
        )
        return [self.name(one.path) for one in done.changes]

    def refused(self, *names: str, **options: Any) -> Refusal:
        """Why nothing was applied; nothing was, and nothing of ours is left."""
        before = tree(self.path)
        with pytest.raises(Refusal) as caught:
            self.accept(*names, **options)
        assert tree(self.path) == before, caught.value
        return caught.value


@contextlib.contextmanager
def accepting(captured: Captured, accept: Callable[[], object] | None = None) -> Iterator[Traced]:
    """The clerk that accepts its changes, "a.txt" among them, as it begins to look at them. It goes on as the test has
    it go on; afterwards it is let go, and what comes of it is waited for: nothing, or a refusal."""

    def work() -> None:
        with contextlib.suppress(Exception):
            (accept or captured.accept)()

    worker = threading.Thread(target=work)
    with asked_before_opening(captured.path / "a.txt") as asked:
        worker.start()
        found = asked.who(over=lambda: not worker.is_alive())
        assert found, "it was refused before it was looked at"
        pid, opened = found
        with traced(pid) as clerk:
            asked.let(opened)
            asked.close()
            yield clerk
    worker.join()


def tree(path: Path) -> dict[str, object]:
    """Everything there is: kind and mode, and content or link."""
    found: dict[str, object] = {}
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            one = Path(directory, name)
            mode = one.lstat().st_mode
            content = os.readlink(one) if one.is_symlink() else one.read_bytes() if one.is_file() else None
            found[str(one.relative_to(path))] = (oct(mode), one.lstat().st_uid, content)
    return found
