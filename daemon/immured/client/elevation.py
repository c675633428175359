"""What a key may beyond its policy, and what it may only with others: grants and proposals; and sessions. For the SDK.

with Client() as client:
    grant = Grants(client).issue("bob", "daemon.rotate", ttl_ms=3_600_000, reason="the key was copied to a laptop")
    proposal = Proposals(client).create("policy.set", {"policy": text}, reason="acme gets a second project")
    session = Sessions(client).open(idle_ms=900_000, note="review of ticket 7")
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from immured.client.question import Question, page, reading, rows
from immured.errors import Refused
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = [
    "PROPOSING",
    "Approval",
    "AsyncGrants",
    "AsyncProposals",
    "AsyncSessions",
    "Grant",
    "Grants",
    "Proposal",
    "Proposals",
    "SessionFacts",
    "Sessions",
    "propose",
]

PROPOSING: Final = "proposal."
"""Commands about proposals are given, also by a client that proposes all others."""


# -- grants


@dataclass(frozen=True, slots=True)
class Grant:
    """One command that a key may give once. `digest`: it must be this very one (`sha256:<hex>`)."""

    id: str
    key: str
    cmd: str
    tenant: str
    expires_ms: int
    issuers: tuple[str, ...] = ()
    reason: str = ""
    project: str | None = None
    digest: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class Grants:
    """A client's. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def issue(
        self,
        key: str,
        cmd: str,
        *,
        ttl_ms: int,
        reason: str,
        tenant: str | None = None,
        project: str | None = None,
        digest: str | None = None,
    ) -> Grant:
        """Allow that key one `cmd` within `ttl_ms` (at most a day); `digest`: of the very command."""
        return self._client.ask(grant_issue(key, cmd, ttl_ms, reason, tenant, project, digest))

    def list(self) -> list[Grant]:
        """Those that can still be used."""
        return self._client.ask(grant_list())

    def revoke(self, grant: str) -> Grant:
        """Take one back."""
        return self._client.ask(grant_revoke(grant))


class AsyncGrants:
    """`Grants` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def issue(
        self,
        key: str,
        cmd: str,
        *,
        ttl_ms: int,
        reason: str,
        tenant: str | None = None,
        project: str | None = None,
        digest: str | None = None,
    ) -> Awaitable[Grant]:
        """As `Grants.issue`."""
        return self._client.ask(grant_issue(key, cmd, ttl_ms, reason, tenant, project, digest))

    def list(self) -> Awaitable[list[Grant]]:
        """As `Grants.list`."""
        return self._client.ask(grant_list())

    def revoke(self, grant: str) -> Awaitable[Grant]:
        """As `Grants.revoke`."""
        return self._client.ask(grant_revoke(grant))


def grant_issue(
    key: str, cmd: str, ttl_ms: int, reason: str, tenant: str | None, project: str | None, digest: str | None
) -> Question[Grant]:
    """One more."""
    more = _given(tenant=tenant, project=project, digest=None if digest is None else digest_of(digest))
    return Question("grant.issue", {"key": key, "cmd": cmd, "ttl_ms": ttl_ms, "reason": reason} | more, _one_grant)


def grant_list() -> Question[list[Grant]]:
    """All that can be used."""
    return Question("grant.list", {}, lambda said: rows(said, "grants", _grant))


def grant_revoke(grant: str) -> Question[Grant]:
    """One less."""
    return Question("grant.revoke", {"grant": grant}, _one_grant)


# -- proposals


@dataclass(frozen=True, slots=True)
class Approval:
    """`key` (its id) agreed under `role`."""

    key: str
    role: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """A command that waits for others. `digest` (`sha256:<hex>`) is what an approval names, and what may then be given.

    `args` are there where one was shown, and may see them.
    """

    id: str
    cmd: str
    tenant: str
    project: str
    digest: str
    proposer: str
    reason: str
    created_ms: int
    expires_ms: int
    approvals: tuple[Approval, ...] = ()
    args: Mapping[str, object] | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class Proposals:
    """A client's. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self,
        cmd: str,
        args: Mapping[str, object],
        *,
        reason: str,
        ttl_ms: int | None = None,
        tenant: str | None = None,
        project: str | None = None,
    ) -> Proposal:
        """Record a command for others to approve. Once they did, give the very same."""
        return self._client.ask(propose(cmd, args, reason, ttl_ms=ttl_ms, tenant=tenant, project=project))

    def approve(self, proposal: str, digest: str) -> Proposal:
        """Agree to the command of that digest: say which one you looked at."""
        return self._client.ask(proposal_approve(proposal, digest))

    def withdraw(self, proposal: str) -> Proposal:
        """It is not to be done."""
        return self._client.ask(proposal_withdraw(proposal))

    def list(self) -> list[Proposal]:
        """Those that are open."""
        return self._client.ask(proposal_list())

    def show(self, proposal: str) -> Proposal:
        """One, with the arguments of its command."""
        return self._client.ask(proposal_show(proposal))


class AsyncProposals:
    """`Proposals` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def create(
        self,
        cmd: str,
        args: Mapping[str, object],
        *,
        reason: str,
        ttl_ms: int | None = None,
        tenant: str | None = None,
        project: str | None = None,
    ) -> Awaitable[Proposal]:
        """As `Proposals.create`."""
        return self._client.ask(propose(cmd, args, reason, ttl_ms=ttl_ms, tenant=tenant, project=project))

    def approve(self, proposal: str, digest: str) -> Awaitable[Proposal]:
        """As `Proposals.approve`."""
        return self._client.ask(proposal_approve(proposal, digest))

    def withdraw(self, proposal: str) -> Awaitable[Proposal]:
        """As `Proposals.withdraw`."""
        return self._client.ask(proposal_withdraw(proposal))

    def list(self) -> Awaitable[list[Proposal]]:
        """As `Proposals.list`."""
        return self._client.ask(proposal_list())

    def show(self, proposal: str) -> Awaitable[Proposal]:
        """As `Proposals.show`."""
        return self._client.ask(proposal_show(proposal))


def propose(
    cmd: str,
    args: Mapping[str, object],
    reason: str,
    *,
    ttl_ms: int | None = None,
    tenant: str | None = None,
    project: str | None = None,
) -> Question[Proposal]:
    """A command for others to approve. What would travel as data, or as descriptors, is no part of what they see."""
    given = {"cmd": cmd, "args": dict(args), "reason": reason}
    return Question("proposal.create", given | _given(ttl_ms=ttl_ms, tenant=tenant, project=project), _one_proposal)


def proposal_approve(proposal: str, digest: str) -> Question[Proposal]:
    """One approval more."""
    return Question("proposal.approve", {"proposal": proposal, "digest": digest_of(digest)}, _one_proposal)


def proposal_withdraw(proposal: str) -> Question[Proposal]:
    """One less."""
    return Question("proposal.withdraw", {"proposal": proposal}, _one_proposal)


def proposal_list() -> Question[list[Proposal]]:
    """All that are open."""
    return Question("proposal.list", {}, lambda said: rows(said, "proposals", _proposal))


def proposal_show(proposal: str) -> Question[Proposal]:
    """One."""
    return Question("proposal.show", {"proposal": proposal}, _one_proposal)


# -- sessions


@dataclass(frozen=True, slots=True)
class SessionFacts:
    """What a key opened for a person or an agent. It ends at `expires_ms`, or `idle_ms` after it was used last."""

    id: str
    expires_ms: int
    idle_ms: int
    tenant: str | None = None
    project: str | None = None
    opened_ms: int | None = None
    used_ms: int | None = None
    note: str = ""
    sub: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class Sessions:
    """A client's. Every method raises Refusal as the daemon refuses. `Client(session=...)` gives commands in one."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def open(self, *, idle_ms: int | None = None, ttl_ms: int | None = None, note: str | None = None) -> SessionFacts:
        """Open one."""
        return self._client.ask(session_open(idle_ms, ttl_ms, note))

    def close(self, session: str) -> Mapping[str, object]:
        """End it."""
        return self._client.ask(session_close(session))

    def list(self) -> list[SessionFacts]:
        """Those that one may see and that are not over, oldest first."""
        found: list[SessionFacts] = []
        after: str | None = None
        while True:
            rows, after = self._client.ask(session_page(after))
            found += rows
            if after is None:
                return found

    def show(self, session: str) -> SessionFacts:
        """One."""
        return self._client.ask(session_show(session))


class AsyncSessions:
    """`Sessions` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def open(
        self, *, idle_ms: int | None = None, ttl_ms: int | None = None, note: str | None = None
    ) -> Awaitable[SessionFacts]:
        """As `Sessions.open`."""
        return self._client.ask(session_open(idle_ms, ttl_ms, note))

    def close(self, session: str) -> Awaitable[Mapping[str, object]]:
        """As `Sessions.close`."""
        return self._client.ask(session_close(session))

    async def list(self) -> list[SessionFacts]:
        """As `Sessions.list`."""
        found: list[SessionFacts] = []
        after: str | None = None
        while True:
            rows, after = await self._client.ask(session_page(after))
            found += rows
            if after is None:
                return found

    def show(self, session: str) -> Awaitable[SessionFacts]:
        """As `Sessions.show`."""
        return self._client.ask(session_show(session))


def session_open(idle_ms: int | None, ttl_ms: int | None, note: str | None) -> Question[SessionFacts]:
    """One more."""
    return Question("session.open", _given(idle_ms=idle_ms, ttl_ms=ttl_ms, note=note), _one_session)


def session_close(session: str) -> Question[Mapping[str, object]]:
    """One less."""
    return Question("session.close", {"session": session}, lambda said: said.result)


def session_page(after: str | None) -> Question[tuple[list[SessionFacts], str | None]]:
    """Those behind that id, and the id behind which there are more."""
    return Question("session.list", _given(after=after), lambda said: page(said, "sessions", _session))


def session_show(session: str) -> Question[SessionFacts]:
    """One."""
    return Question("session.show", {"session": session}, _one_session)


# -- reading


def digest_of(text: str) -> bytes:
    """The 32 bytes of `sha256:<hex>`. Raises Refused `bad_argument`."""
    try:
        found = bytes.fromhex(text.removeprefix("sha256:"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise Refused(
            "bad_argument", f"{text[:80]!r} is no digest", "sha256: and 64 hex digits, as a proposal shows it"
        )
    return found


def _given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _one_grant(said: Answer) -> Grant:
    return _grant(reading(said))


def _one_proposal(said: Answer) -> Proposal:
    return _proposal(reading(said))


def _one_session(said: Answer) -> SessionFacts:
    return _session(reading(said))


def _grant(fields: Fields) -> Grant:
    return Grant(
        id=fields.required("grant", str),
        key=fields.required("key", str),
        cmd=fields.required("cmd", str),
        tenant=fields.required("tenant", str),
        expires_ms=fields.required("expires_ms", int),
        issuers=tuple(map(str, fields.optional("issuers", list) or ())),
        reason=fields.optional("reason", str) or "",
        project=fields.optional("project", str),
        digest=fields.optional("digest", str),
        raw=dict(fields.values),
    )


def _proposal(fields: Fields) -> Proposal:
    return Proposal(
        id=fields.required("proposal", str),
        cmd=fields.required("cmd", str),
        tenant=fields.required("tenant", str),
        project=fields.required("project", str),
        digest=fields.required("digest", str),
        proposer=fields.required("proposer", str),
        reason=fields.required("reason", str),
        created_ms=fields.required("created_ms", int),
        expires_ms=fields.required("expires_ms", int),
        approvals=tuple(map(_approval, fields.optional("approvals", list) or ())),
        args=fields.optional("args", dict),
        raw=dict(fields.values),
    )


def _approval(row: object) -> Approval:
    fields = Fields(row if isinstance(row, Mapping) else {}, "result.approvals", "bad_reply")
    return Approval(fields.required("key", str), fields.required("role", str), fields.required("at_ms", int))


def _session(fields: Fields) -> SessionFacts:
    return SessionFacts(
        id=fields.required("session", str),
        expires_ms=fields.required("expires_ms", int),
        idle_ms=fields.required("idle_ms", int),
        tenant=fields.optional("tenant", str),
        project=fields.optional("project", str),
        opened_ms=fields.optional("opened_ms", int),
        used_ms=fields.optional("used_ms", int),
        note=fields.optional("note", str) or "",
        sub=fields.optional("sub", str),
        raw=dict(fields.values),
    )
