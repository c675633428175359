"""The ledger's witnesses: who has cosigned how much of it, and who refuses to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from immured.service.preflight.rows import FAIL, Row, passed, warned

if TYPE_CHECKING:
    from immured.service.context import Service
    from immured.service.witnesses import Asked, WitnessFailure

__all__ = ["witnesses"]

_WAIT_S: Final = 5.0


async def witnesses(service: Service, *, everything: bool) -> Sequence[Row]:
    """Every witness; one that failed is asked again, at the same time as the others, by a deadline. None where none is
    configured. `everything`: whoever asks may know which."""
    if service.witnesses is None:
        return ()
    asked, there = service.witnesses, service.witnesses.all
    found = await asyncio.gather(*(asked.settle(one, _WAIT_S) for one in there))
    rows = []
    for number, (one, failure) in enumerate(zip(there, found, strict=True), 1):
        name = f"the witness {one.place.name}" if everything else f"witness {number} of {len(there)}"
        rows.append(_row(service, one, failure, name, everything=everything))
    return rows


def _row(service: Service, one: Asked, failure: WitnessFailure | None, name: str, *, everything: bool) -> Row:
    if failure is not None:
        words = f"{name}: {failure.message}" if everything else f"{name} has not cosigned ({failure.code})"
        return Row("audit", FAIL, words, failure.remedy if everything else "ask the operator", failure.code)
    signed = service.ledger.status().checkpoint
    if one.size >= signed:
        return passed("audit", f"{name} cosigned every signed entry, {one.size}")
    if one.size:
        return passed("audit", f"{name} cosigned {one.size} entries, and is asked for {signed}")
    return warned("audit", f"{name} has cosigned nothing yet", "ask again in a while")
