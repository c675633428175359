"""Rows for people: columns as wide as what is in them, and times as one says them."""

from __future__ import annotations

from collections.abc import Sequence

from immured.cli.say import printable

__all__ = ["size_text", "span_text", "table"]

_SPANS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Heads and rows as lines. What strangers named is made printable; the last column is not filled up."""
    shown = [list(heads), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in shown) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
    )


def span_text(milliseconds: int) -> str:
    """The two largest units of a span of time: `1h 5m`, `12s`, `0s`."""
    left = max(0, milliseconds)
    parts = []
    for unit, length in _SPANS:
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0s"


def size_text(size: float) -> str:
    """Bytes: `0 B`, `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
