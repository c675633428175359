"""Manifests that came inline, in the ledger: each once a start, before the first intent that names it.

So what ran can be made again from the ledger alone. The map itself where an entry holds it as it came; else the bytes
that its digest is of, in pieces. Pure but for `Inline.enter`, which queues entries.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Final

from immured.ledger import Ledger, entry_types
from immured.ledger.entry import MAX_INTEGER, MAX_TEXT
from immured.manifest.read import inline_bytes

__all__ = ["Inline", "entries_of"]

_MOST: Final = 16_384
"""Digests that are remembered. When there are more all are forgotten, and entered once more."""
_WHOLE: Final = 48 * 1024
"""Bytes of JSON, every character that is not ASCII escaped, of a map that stands in one entry."""
_PIECE: Final = 744
"""Bytes that are 992 characters of base64: a text that enters as itself."""
_PIECES: Final = 48
_SOON_S: Final = 0.05


class Inline:
    """Which were entered by this daemon since it started."""

    def __init__(self, ledger: Ledger, actor: Callable[[], Mapping[str, object]]) -> None:
        self._ledger = ledger
        self._actor = actor
        self._entered: dict[str, int] = {}
        self._offered: tuple[str, object] = "", None

    def offer(self, digest: str, values: object) -> None:
        """A command names it; if there comes an intent of it, then before anything else is waited for."""
        if digest not in self._entered:
            self._offered = digest, values

    def enter(self, digest: str) -> int:
        """The index of its entry, which goes with the next one that anybody waits for. Raises LookupError where it was
        not offered just now; Refused `ledger_unavailable`."""
        seq = self._entered.get(digest)
        if seq is not None:
            return seq
        offered, values = self._offered
        if offered != digest:
            raise LookupError(digest)
        actor = self._actor()
        queued = [
            self._ledger.entry(entry_types.MANIFEST_INLINE, actor, data, unhurried=True)
            for data in entries_of(digest, values)
        ]
        if len(self._entered) >= _MOST:
            self._entered.clear()
        self._entered[digest] = first = queued[0].receipt.seq
        self._offered = "", None
        with contextlib.suppress(RuntimeError):  # the intent takes it along; were there none, it would wait for one
            asyncio.get_running_loop().call_later(_SOON_S, self._ledger.flush)
        return first


def entries_of(digest: str, values: object) -> list[dict[str, object]]:
    """`data` of its entries, in order: mostly one."""
    if _as_it_is(values) and len(json.dumps(values)) <= _WHOLE:
        return [{"digest": digest, "manifest": values}]
    packed = inline_bytes(values)
    pieces = [base64.b64encode(packed[at : at + _PIECE]).decode() for at in range(0, len(packed), _PIECE)]
    parts = [pieces[at : at + _PIECES] for at in range(0, len(pieces), _PIECES)]
    return [{"digest": digest, "packed": part, "part": index, "parts": len(parts)} for index, part in enumerate(parts)]


def _as_it_is(value: object) -> bool:
    """Whether an entry holds that as it is: no bytes, no long text, no large number."""
    if isinstance(value, str):
        return len(value) * 4 <= MAX_TEXT or (value.isascii() and len(value) <= MAX_TEXT)
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -MAX_INTEGER <= value <= MAX_INTEGER
    if isinstance(value, list):
        return all(map(_as_it_is, value))
    return isinstance(value, dict) and all(
        isinstance(name, str) and _as_it_is(name) and _as_it_is(one) for name, one in value.items()
    )
