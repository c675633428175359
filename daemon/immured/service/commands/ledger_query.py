"""`ledger.query`: entries of the ledger, to whom they are shown; a page at a time."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Final

from immured.errors import Refused
from immured.identity.policy.warrant import HOST, Target
from immured.ledger.entry import Entry, LineError
from immured.ledger.query import NoIndexError
from immured.ledger.selection import Selection
from immured.ledger.show import BadLine
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.entry_targets import target_of
from immured.service.queries import Behind, Candidates
from immured.service.request import Answer, Request
from immured.wire.strict import Fields, take

__all__ = ["COMMANDS"]

_MAX_SEQ: Final = 2**53 - 1
_MAX_PAGE: Final = 500
_PAGE: Final = 100
_BYTES: Final = 512 << 10
"""Of lines in an answer, but for the last of them."""
_LOOKED_AT: Final = 2_000
"""Entries, for one answer: whoever may see few of many goes on asking."""
_TYPE: Final = re.compile(r"[a-z0-9_.*?]{1,64}")
_TIME: Final = re.compile(r"[0-9TZ:.-]{0,30}")
_NAMES: Final = ("types", "actor", "sandbox", "since", "until", "tenant", "first", "limit")


async def query(service: Service, request: Request) -> Answer:
    """args, all optional: `types` (names, or patterns such as `run.*`), `actor`, `sandbox`, `since`, `until` (time
    stamps, or the beginnings of such), `tenant` (a name; empty: the host's), `first` (the index to begin at), `limit`.
    result: `entries` (array of the ledger's own lines, bin), `next` (the `first` to go on with; absent when that was
    all). `query_unavailable` while the index is being made."""
    fields = take(request.command.args, "args", _NAMES)
    limit = fields.integer("limit", 1, _MAX_PAGE) or _PAGE
    chosen = _selection(fields)
    covers = request.warrant.covers
    covers(request.warrant.place())
    if not covers(Target(HOST, "", ())):
        if chosen.tenant not in (None, request.actor.tenant):
            return Answer({"entries": []})
        chosen = replace(chosen, tenant=request.actor.tenant)
    lines: list[bytes] = []
    size, looked_at = _BYTES, 0
    while True:
        found = await _some(service, chosen, min(limit - len(lines), _LOOKED_AT - looked_at), size)
        for entry in found.entries:
            if _is_shown(request, entry, found):
                lines.append(entry.line)
                size -= len(entry.line)
        looked_at += len(found.entries)
        if found.over:
            return Answer({"entries": lines})
        chosen = replace(chosen, first=found.entries[-1].seq + 1)
        if len(lines) >= limit or size <= 0 or looked_at >= _LOOKED_AT:
            return Answer({"entries": lines, "next": chosen.first})


async def _some(service: Service, chosen: Selection, count: int, size: int) -> Candidates:
    try:
        return await service.queries.some(chosen, count, size)
    except Behind as error:
        raise Refused(
            "query_unavailable", str(error), "ask again in a minute", details={"known": error.known}
        ) from error
    except ImportError as error:
        raise Refused(
            "query_unavailable",
            f"what reads the ledger's index cannot be loaded: {error}",
            "have the operator restart the daemon",
        ) from error
    except (NoIndexError, BadLine, LineError, OSError) as error:
        raise Refused(
            "query_unavailable", "the ledger cannot be searched", "have the operator run `immure ledger verify`"
        ) from error


def _is_shown(request: Request, entry: Entry, found: Candidates) -> bool:
    def find(intent: int) -> Entry:
        return found.begun[intent]

    try:
        return request.warrant.covers(target_of(entry, request.actor, find))
    except KeyError:  # what it is the outcome of is not kept any more
        return request.warrant.covers(Target(HOST, "", ()))


def _selection(fields: Fields) -> Selection:
    types = fields.sized("types", list, 0, 16) or []
    if not all(isinstance(one, str) and _TYPE.fullmatch(one) for one in types):
        raise fields.wrong("types", "holds something that no type is called", "run.accepted, or run.*")
    since, until = (fields.sized(name, str, 0, 30) or "" for name in ("since", "until"))
    for name, value in (("since", since), ("until", until)):
        if not _TIME.fullmatch(value):
            raise fields.wrong(name, "is no beginning of a time stamp", "2026-01-31T12")
    return Selection(
        types=tuple(types),
        since=since,
        until=until,
        first=fields.integer("first", 0, _MAX_SEQ) or 0,
        actor=fields.sized("actor", str, 0, 256) or "",
        sandbox=fields.sized("sandbox", str, 0, 256) or "",
        tenant=fields.sized("tenant", str, 0, 256),
    )


COMMANDS: Final = (CommandSpec("ledger.query", "ledger.query", query),)
