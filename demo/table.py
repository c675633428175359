"""The table: one row per act, printed as it happens."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from dataclasses import dataclass

__all__ = ["Row", "Table"]


@dataclass(frozen=True)
class Row:
    """What was tried, what happened, whether that is what should happen, and how long it took in seconds."""

    tried: str
    happened: str
    right: bool
    seconds: float


class Table:
    """Prints rows, aligned and folded to the terminal's width; colours only on a terminal and without NO_COLOR."""

    TRIED = 34
    TOOK = 9

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        width = min(shutil.get_terminal_size((110, 24)).columns, 130)
        self._happened = max(30, width - self.TRIED - self.TOOK - 9)

    def head(self) -> None:
        """The column names."""
        self._line("", "tried", "what happened", "took")
        self._rule()

    def add(self, row: Row) -> None:
        """Print one row, and keep it for the end's reckoning."""
        self.rows.append(row)
        mark = self._paint("ok", "32") if row.right else self._paint("NO", "31;1")
        took = f"{row.seconds * 1000:.0f} ms" if row.seconds < 10 else f"{row.seconds:.1f} s"
        left = textwrap.wrap(row.tried, self.TRIED) or [""]
        right = textwrap.wrap(row.happened, self._happened) or [""]
        for number in range(max(len(left), len(right))):
            first = number == 0
            self._line(
                mark if first else "  ",
                left[number] if number < len(left) else "",
                right[number] if number < len(right) else "",
                took if first else "",
            )

    def tail(self) -> None:
        """The line under the rows."""
        self._rule()

    def say(self, text: str = "") -> None:
        """A paragraph, folded."""
        width = self.TRIED + self._happened + self.TOOK + 9
        sys.stdout.write("\n".join(textwrap.wrap(text, width)) + "\n")
        sys.stdout.flush()

    def _rule(self) -> None:
        sys.stdout.write("─" * (self.TRIED + self._happened + self.TOOK + 9) + "\n")
        sys.stdout.flush()

    def _line(self, mark: str, tried: str, happened: str, took: str) -> None:
        line = f"{mark or '  '}  {tried:{self.TRIED}}  {happened:{self._happened}}  {took:>{self.TOOK}}"
        sys.stdout.write(line.rstrip() + "\n")
        sys.stdout.flush()

    def _paint(self, text: str, code: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colour else text
