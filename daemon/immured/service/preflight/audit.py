"""The channel that the record goes by: an entry that is durable now, room for the next, every copy of the ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from immured.errors import Refused
from immured.ledger import entry_types
from immured.service.preflight.rows import FAIL, Row, failed, passed, warned
from immured.wire.messages import Receipt

if TYPE_CHECKING:
    from immured.ledger import LedgerStatus
    from immured.service.context import Service
    from immured.service.exports import Export, Failure
    from immured.service.request import Request

__all__ = ["append", "exports", "space"]


async def append(service: Service, request: Request, data: Mapping[str, object]) -> tuple[Row, Receipt | None]:
    """Enter what was found, which is the test. Never raises Refused: what fails is the row."""
    begun = time.monotonic()
    try:
        entry = {**request.to_map(), **data}
        pending = service.ledger.entry(entry_types.PREFLIGHT_DONE, request.actor.to_map(), entry, alone=service.alone)
        durable = await pending.durable()
    except Refused as error:
        return failed("audit", error), None
    request.acted = True
    request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
    took = (time.monotonic() - begun) * 1000
    return passed("audit", f"the ledger took this as entry {receipt.seq}, durable in {took:.1f} ms"), receipt


def space(service: Service) -> Iterator[Row]:
    """Whether a run's intent would be let in, and what is said of checkpoints."""
    try:
        service.ledger.admit()
    except Refused as error:
        yield failed("audit", error)
    if service.health is not None and (fault := service.health.refusing) is not None:
        words = f"nothing new is begun: [audit] require names {fault.part!r}, which is not well ({fault.code})"
        yield Row("audit", FAIL, words, "the operator sees why by `immure status`", "audit_unhealthy")
    standing: LedgerStatus = service.ledger.status()
    if standing.checkpoint_failure:
        yield warned(
            "audit",
            f"entries are not signed since {standing.checkpoint}: {standing.checkpoint_failure}",
            "see to the state directory's disk; it is tried again",
        )


async def exports(service: Service, *, everything: bool) -> Sequence[Row]:
    """Every destination, tried at the same time, each by a deadline. `everything`: whoever asks may know which."""
    if service.exports is None or not service.exports.all:
        return (passed("audit", "no copies of the ledger are configured ([audit] exports)"),)
    there = service.exports.all
    found = await asyncio.gather(*(service.exports.probe(one) for one in there))
    rows = []
    for number, (one, failure) in enumerate(zip(there, found, strict=True), 1):
        name = one.name if everything else f"export {number} of {len(there)}"
        rows.append(_row(service, one, failure, name, everything=everything))
    return rows


def _row(service: Service, one: Export, failure: Failure | None, name: str, *, everything: bool) -> Row:
    if failure is not None:
        words = failure.message if everything else f"{name} is not what it should be ({failure.code})"
        return Row("audit", FAIL, words, failure.remedy if everything else "ask the operator", failure.code)
    behind = service.ledger.status().checkpoint - one.entries
    if one.copied and behind <= 0:
        return passed("audit", f"{name} takes what is written, and holds every signed entry, {one.entries}")
    if one.copied:
        return passed("audit", f"{name} takes what is written; {behind} entries are being copied there")
    return warned("audit", f"{name} takes what is written, and was not looked at whole yet", "ask again in a while")
