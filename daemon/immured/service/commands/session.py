"""`session.*`: what a key opens for a person or an agent; commands that carry it are attributed to it."""

from __future__ import annotations

import secrets
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import check_note
from immured.identity.sessions import DEFAULT_IDLE_MS, DEFAULT_TTL_MS, MAX_TTL_MS, Session
from immured.ledger import entry_types
from immured.service import targets
from immured.service.commands import CommandSpec
from immured.service.context import Service
from immured.service.deciding import decide, deciding
from immured.service.request import Answer, Request
from immured.wire.strict import Fields, shown, take

__all__ = ["COMMANDS"]

_PAGE: Final = 1000


async def open_session(service: Service, request: Request) -> Answer:
    """args: `idle_ms` (default an hour), `ttl_ms` (default 12 hours, at most 30 days), `note`. result: the session."""
    fields = take(request.command.args, "args", ("idle_ms", "ttl_ms", "note"))
    ttl = fields.integer("ttl_ms", 1, MAX_TTL_MS) or DEFAULT_TTL_MS
    idle = fields.integer("idle_ms", 1, MAX_TTL_MS) or DEFAULT_IDLE_MS
    actor = request.actor
    async with deciding(service, request):
        now = service.clock()
        session = Session(
            id=f"session-{secrets.token_hex(8)}",
            owners=actor.owners,
            tenant=actor.tenant,
            project=actor.project,
            opened_ms=now,
            expires_ms=now + ttl,
            idle_ms=min(idle, ttl),
            used_ms=now,
            note=check_note(fields.optional("note", str) or "", "args.note"),
            sub=actor.sub,
        )
        for target in targets.of_session(session):
            request.warrant.check(target)
        service.authority.sessions.check_room(actor.key_id, now)
        receipt = await decide(service, request, entry_types.SESSION_OPENED, {"record": session.to_map()})
    return Answer(_shown(service, session), receipt)


async def close(service: Service, request: Request) -> Answer:
    """args: `session`. result: the session that was."""
    fields = take(request.command.args, "args", ("session",))
    async with deciding(service, request):
        session, now = _find(service, request, fields), service.clock()
        if now >= session.over_ms():
            details = {"over_ms": session.over_ms()}
            raise Refused("wrong_state", f"the session {session.id} is over", "nothing is to be done", details=details)
        entered = {"closed": session.id, "at_ms": now}
        receipt = await decide(service, request, entry_types.SESSION_CLOSED, entered)
    return Answer(_shown(service, session), receipt)


async def list_sessions(service: Service, request: Request) -> Answer:
    """args: `after` (a session's id), `limit` (1 to 1,000). result: `sessions`, those that are open and that one may
    see, oldest first; `next` where there are more."""
    fields = take(request.command.args, "args", ("after", "limit"))
    after, limit = fields.optional("after", str), fields.integer("limit", 1, _PAGE) or _PAGE
    warrant = request.warrant
    warrant.covers(warrant.place())
    tenant = None if warrant.anywhere else request.actor.tenant
    found: list[dict[str, object]] = []
    begun = after is None
    for session in service.authority.sessions.open_ones(service.clock(), tenant, after):
        if not begun:
            begun = session.id == after and targets.covers_all(warrant, targets.of_session(session))
        elif targets.covers_all(warrant, targets.of_session(session)):
            if len(found) == limit:
                return Answer({"sessions": found, "next": found[-1]["session"]})
            found.append(_shown(service, session))
    if not begun:
        raise fields.wrong("after", "is the id of no session")
    return Answer({"sessions": found})


async def show(service: Service, request: Request) -> Answer:
    """args: `session`. result: the session, also for a day after it was over."""
    fields = take(request.command.args, "args", ("session",))
    return Answer(_shown(service, _find(service, request, fields)))


def _find(service: Service, request: Request, fields: Fields) -> Session:
    given = fields.required("session", str)
    hidden = Refused("not_found", f"no session is called {shown(given)}", "`immure session list` shows them")
    session = service.authority.sessions.get(given)
    if session is None:
        raise hidden
    targets.seen(request.warrant, targets.of_session(session), "session.show", hidden)
    return session


def _shown(service: Service, session: Session) -> dict[str, object]:
    over = session.over_ms()
    return {**session.to_map(), "over_ms": over, "open": service.clock() < over}


COMMANDS: Final = (
    CommandSpec("session.open", "session.open", open_session),
    CommandSpec("session.close", "session.close", close),
    CommandSpec("session.list", "session.list", list_sessions),
    CommandSpec("session.show", "session.show", show),
)
