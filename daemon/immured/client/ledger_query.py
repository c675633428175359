"""What the ledger holds of one's own, or of whatever one may see: its entries, a page at a time.

with Client() as client:
    for entry in client.ledger_query(types=["run.*"], since="2026-01-31"):
        print(entry.seq, entry.type, entry.data)
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass

from immured.client.errors import UntrustedReply
from immured.client.outcome import Answer
from immured.client.question import Question, reading
from immured.ledger.entry import Entry, LineError, parse_line

__all__ = ["EntryPage", "ledger_query"]


@dataclass(frozen=True, slots=True)
class EntryPage:
    """Some entries, in order; `next`: the index to ask from for more, None where there are none."""

    entries: tuple[Entry, ...]
    next: int | None


def ledger_query(
    types: Collection[str] = (),
    actor: str = "",
    sandbox: str = "",
    since: str = "",
    until: str = "",
    tenant: str | None = None,
    first: int | None = None,
) -> Question[EntryPage]:
    """Entries that match all that is given; the lines are the ledger's own."""
    args: dict[str, object] = {"types": list(types)} if types else {}
    said = {"actor": actor, "sandbox": sandbox, "since": since, "until": until}
    args |= {name: value for name, value in said.items() if value}
    args |= {name: value for name, value in (("tenant", tenant), ("first", first)) if value is not None}

    def read(answer: Answer) -> EntryPage:
        fields = reading(answer)
        begins, goes_on = first or 0, fields.optional("next", int)
        try:
            found = tuple(parse_line(_line(one)) for one in fields.required("entries", list))
        except LineError as error:
            raise UntrustedReply(f"an entry in the answer is none: {error}") from None
        seqs = [begins - 1, *(entry.seq for entry in found), *(() if goes_on is None else (goes_on,))]
        if any(one >= other for one, other in itertools.pairwise(seqs)):
            raise UntrustedReply("the entries in the answer are not in order")
        return EntryPage(found, goes_on)

    return Question("ledger.query", args, read)


def _line(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise LineError("bad_line", "it is no bytes", "a line")
    return value
