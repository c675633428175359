"""A bar on stderr for what takes long: how much, how fast, how much longer. Nothing where nobody looks."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self

from immured.cli.say import printable
from immured.cli.table import size_text, span_text

__all__ = ["Bar", "bar_text"]

PATIENCE_S = 0.5
"""What is done by then needs no bar."""
_EVERY_S = 0.1
_WIDTH = 24


def bar_text(label: str, done: int, total: int | None, seconds: float, columns: int) -> str:
    """One line of at most `columns` - 1 characters. `total` in bytes; None where nobody knows it. Pure."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [label]
    if total:
        share = min(1.0, done / total)
        filled = int(share * _WIDTH)
        parts.append(f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {share:4.0%}")
        parts.append(f"{size_text(done)} of {size_text(total)}")
    else:
        parts.append(size_text(done))
    parts.append(f"{size_text(rate)}/s")
    if total and rate and done < total:
        parts.append(f"{span_text(int(1000 * (total - done) / rate))} left")
    while len(line := "  ".join(parts)) >= columns and len(parts) > 2:
        parts.pop()  # what is said last is missed least
    if len(line) >= columns and total:
        line = f"{done / total:4.0%}  {label}"
    return line[: max(0, columns - 1)]


class Bar:
    """`with Bar("put a.tar", total) as bar: client.ask(..., progress=bar.at)`. Shown on a terminal alone, after half a
    second, and wiped when it is over. `at` may be called from any one thread."""

    def __init__(self, label: str, total: int | None = None, *, quiet: bool = False) -> None:
        self._label = printable(label)
        self._total = total
        self._seen = not quiet and sys.stderr.isatty()
        self._start = self._last = time.monotonic()
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def at(self, done: int) -> None:
        """So many bytes are done."""
        if not self._seen:
            return
        now = time.monotonic()
        if now - self._start < PATIENCE_S or now - self._last < _EVERY_S:
            return
        self._last = now
        try:
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or 80
        except OSError:
            columns = 80
        line = bar_text(self._label, done, self._total, now - self._start, columns)
        sys.stderr.write(f"\r{line}\x1b[K")
        sys.stderr.flush()
        self._drawn = True
