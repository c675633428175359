"""A command that acts, between its two entries: the intent durable before the effect, the outcome before the reply."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from immured.errors import ImmuredError, Refused
from immured.ledger import entry_types
from immured.service.context import Service
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt

__all__ = ["Act", "recorded"]

Act = Callable[[], Awaitable[tuple[Mapping[str, object], Mapping[str, object]]]]
"""Does it. Answers with the reply's result, and what the outcome's entry says of it."""


async def recorded(
    service: Service,
    request: Request,
    data: Mapping[str, object],
    act: Act,
    *,
    outcome: str = entry_types.COMMAND_DONE,
) -> Answer:
    """`command.accepted` with `data`, durable; `act`; `outcome`, durable (`command.done` where `act` failed).

    Check all that can be checked before: what is refused here is an intent and an outcome. Raises Refused
    `ledger_unavailable` with nothing done; what `act` raises, once the ledger holds it (`error`); ImmuredError where it
    was done and the ledger could not be told.
    """
    service.at_work += 1
    try:
        return await _between(service, request, data, act, outcome)
    finally:
        service.at_work -= 1


async def _between(service: Service, request: Request, data: Mapping[str, object], act: Act, outcome: str) -> Answer:
    intent = service.ledger.entry(
        entry_types.COMMAND_ACCEPTED,
        request.actor.to_map(),
        {**request.to_map(), **data},
        reserves_outcome=True,
        alone=service.alone,
    )
    await intent.durable()
    request.acted = True
    request.claim.intent = accepted = Receipt(*intent.receipt)
    try:
        result, done = await act()
    except ImmuredError as error:
        await _conclude(service, request, accepted, {"error": {"code": error.code, "message": error.message}})
        raise
    except Exception as error:
        await _conclude(service, request, accepted, {"error": {"code": "internal", "message": type(error).__name__}})
        raise
    receipt = await _conclude(service, request, accepted, done, outcome)
    return Answer(result, receipt, accepted)


async def _conclude(
    service: Service,
    request: Request,
    accepted: Receipt,
    done: Mapping[str, object],
    kind: str = entry_types.COMMAND_DONE,
) -> Receipt:
    name = request.command.cmd
    try:
        pending = service.ledger.entry(
            kind,
            service.actor,
            {"cmd": name, "intent": accepted.seq, **done},
            outcome_of=accepted.seq,
            alone=service.alone,
        )
        durable = await pending.durable()
    except Refused as error:
        raise ImmuredError(
            error.code, f"{name} was done, and the ledger was not told: {error.message}", error.remedy
        ) from error
    request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
    return receipt
