"""Questions to a ledger: by its index where that is worth it, by reading every line where it is not. One answer.

    for entry in find(DIR / "ledger", Selection(tenant="acme")): ...

The index is made and kept up by whoever asks, and may write beside the lines; whoever may not reads the lines. What is
wrong with an index, or with the ledger, never shows in an answer: an index that does not fit is made anew once, and
then passed over, and the lines are read from the first one that was not shown yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from immured.ledger import show
from immured.ledger.entry import Entry
from immured.ledger.index import INDEX, Index, StaleIndex, is_broken
from immured.ledger.segments import Files
from immured.ledger.selection import Selection

if TYPE_CHECKING:
    import sqlite3
else:
    from immured.ledger import sqlite as sqlite3

__all__ = ["WORTH_IT", "NoIndexError", "Progress", "find", "is_worth_it", "newest"]

WORTH_IT: Final = 8 << 20
"""Bytes of ledger: fewer are read sooner than an index is made."""
_TRIES: Final = 2

Progress = Callable[[int], None]
"""Told how many entries the index knows by now, while it is being made."""


class NoIndexError(Exception):
    """There is none that answers, and not all lines are to be read for it."""


def is_worth_it(path: Path, chosen: Selection) -> bool:
    """Whether an index answers sooner: a directory of some size, and a question about few of its entries. Raises
    OSError."""
    narrows = chosen.types or chosen.actor or chosen.sandbox or chosen.since or chosen.until
    if not path.is_dir() or (not narrows and chosen.tenant is None):
        return False
    with Files.at(path) as files:
        return files.size() - files.start > WORTH_IT


def find(
    path: Path,
    chosen: Selection,
    progress: Progress = lambda _: None,
    *,
    index: bool = True,
    lines: bool = True,
) -> Iterator[Entry]:
    """Every entry that matches, in order, each once. Without `index` none is made or asked; without `lines` not all of
    a large ledger's are read. Raises BadLine, OSError: the ledger cannot be read; NoIndexError; what `progress` does.
    """
    if index and is_worth_it(path, chosen):
        behind = chosen.first
        for _ in range(_TRIES):
            try:
                with _caught_up(path, progress) as known:
                    for entry in known.select(replace(chosen, first=behind)):
                        behind = entry.seq + 1
                        yield entry
                    return
            except (StaleIndex, sqlite3.Error, OSError) as error:
                if not _forgotten(path, error):
                    break
        if not lines:
            raise NoIndexError
        chosen = replace(chosen, first=behind)
    yield from show.entries(path, chosen)


def newest(
    path: Path, count: int, chosen: Selection, progress: Progress = lambda _: None, *, index: bool = True
) -> list[Entry]:
    """The last `count` entries that match, oldest first. Raises as `find`."""
    if not count:
        return []
    if index and is_worth_it(path, chosen):
        for _ in range(_TRIES):
            try:
                with _caught_up(path, progress) as known:
                    return known.last(chosen, count)
            except (StaleIndex, sqlite3.Error, OSError) as error:
                if not _forgotten(path, error):
                    break
    return show.last(path, count, chosen)


def _caught_up(path: Path, progress: Progress) -> Index:
    """Raises StaleIndex, sqlite3.Error, OSError: it cannot answer for all of the ledger."""
    index = Index.open(path)
    try:
        if index.catch_up(progress) is not None:
            raise OSError("a line is none, which whoever reads the lines is told")
    except BaseException:
        index.close()
        raise
    return index


def _forgotten(path: Path, error: Exception) -> bool:
    """Whether another try can do better: the index did not fit, and is gone."""
    if not isinstance(error, StaleIndex) and not (isinstance(error, sqlite3.Error) and is_broken(error)):
        return False
    try:
        (path / INDEX).unlink(missing_ok=True)
    except OSError:
        return False
    return True
