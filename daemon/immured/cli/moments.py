"""Times as people write and read them: a span from now, or a moment."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

import click

from immured.cli.table import span_text
from immured.manifest.units import duration_of

__all__ = ["date_of", "left", "moment_of", "now_ms", "span_of", "stamp_option"]


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def span_of(text: str, option: str) -> int:
    """Milliseconds: `90m`, `1.5h`, `30d`. Raises BadParameter."""
    try:
        return duration_of(text) // 1_000_000
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def moment_of(text: str, option: str, now: int | None = None) -> int:
    """Milliseconds since the epoch, of a span from now (`30d`) or a moment (`2027-01-31T12:00:00Z`).

    Raises BadParameter.
    """
    try:
        return (now_ms() if now is None else now) + duration_of(text) // 1_000_000
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            "write a span from now, such as 30d, or a moment, such as 2027-01-31T12:00:00Z", param_hint=option
        ) from None
    if moment.tzinfo is None:
        raise click.BadParameter("say in which time zone: 2027-01-31T12:00:00Z", param_hint=option)
    return int(moment.timestamp() * 1000)


_STAMP = re.compile(
    r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01])(T([01]\d|2[0-3])(:[0-5]\d(:[0-5]\d(\.\d{1,9})?Z?)?)?)?)?)?",
    re.ASCII,
)


def stamp_option(ctx: click.Context, option: click.Parameter, text: str) -> str:
    """A callback of click's: a ledger's time stamp, or the beginning of one (`2026-01-31T12`). Raises BadParameter."""
    if text and not _STAMP.fullmatch(text):
        raise click.BadParameter("write a moment in UTC, or its beginning: 2026-01-31T12", ctx, option)
    return text


def left(until_ms: int | None, now: int | None = None) -> str:
    """How long until then: `1h 5m`; `-` for never, `over` where it is past."""
    if until_ms is None:
        return "-"
    span = until_ms - (now_ms() if now is None else now)
    return span_text(span) if span > 0 else "over"


def date_of(at_ms: int) -> str:
    """RFC 3339, UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
