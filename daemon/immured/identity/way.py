"""How one command gets past what its key may: under a grant, and past a control under a proposal. Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.canonical import command_digest
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.schema import Control
from immured.identity.policy.warrant import HOST, Target, Warrant
from immured.wire.messages import Command

if TYPE_CHECKING:
    from immured.identity.authority import Authority

__all__ = ["Way"]

_OWN: Final = (
    "the approval of the key that gives it, or that granted it, does not count: have another key give it, or approve it"
)


class Way:
    """One command's: the grant that covers what no rule allows, the proposal that fulfils its controls.

    Both are taken when they are first needed, and are the warrant's from then on.
    """

    __slots__ = ("_asked", "_authority", "_command", "_digest", "_warrant")

    def __init__(self, authority: Authority, warrant: Warrant, command: Command) -> None:
        self._authority = authority
        self._warrant = warrant
        self._command = command
        self._asked: list[Control] = []
        self._digest: bytes | None = None

    def digest(self) -> bytes:
        """Of the command as it was given: `canonical.command_digest`."""
        if self._digest is None:
            actor, command = self._warrant.actor, self._command
            self._digest = command_digest(command.cmd, actor.tenant, actor.project, command.args)
        return self._digest

    def granted_at_all(self) -> bool:
        """Whether some grant is for this command in the tenant that it is given under."""
        actor, command = self._warrant.actor, self._command
        fitting = self._authority.grants.fitting(
            actor.key_id, command.cmd, actor.tenant, actor.project, self.digest, self._warrant.now_ms
        )
        return bool(fitting)

    def elevate(self, target: Target) -> bool:
        """`Warrant.on_denied`: whether a grant covers that; the warrant goes under it then."""
        warrant, grants = self._warrant, self._authority.grants
        actor, cmd = warrant.actor, self._command.cmd
        if target.tenant == HOST and PERMISSIONS[cmd] is not TargetKind.HOST:
            return False  # keys that reach the host: whoever may grant that may do it himself
        tenant = actor.tenant if target.tenant == HOST else target.tenant
        if warrant.grant is not None:
            held = grants.get(warrant.grant)
            return held is not None and held.tenant == tenant and held.project in (None, target.project)
        grant = grants.reserve(actor.key_id, cmd, tenant, target.project, self.digest, warrant.now_ms)
        if grant is None:
            return False
        warrant.grant = grant.id
        return True

    def require(self, control: Control) -> None:
        """`Warrant.on_control`. Raises Refused `approval_required` unless an open proposal of this very command has
        the approvals that this control asks for, and those before it, of others than who gives it."""
        warrant, authority, now = self._warrant, self._authority, self._warrant.now_ms
        givers = self._givers()
        if control not in self._asked:
            self._asked.append(control)
        if warrant.proposal is not None:
            held = authority.proposals.get(warrant.proposal)
            if held is not None and authority.fulfils(held, control, now, givers):
                return
        found = authority.proposals.reserve(
            self.digest(), lambda one: all(authority.fulfils(one, each, now, givers) for each in self._asked), now
        )
        if found is not None:
            if warrant.proposal is not None:
                authority.proposals.release(warrant.proposal)
            warrant.proposal = found.id
            return
        there = authority.proposals.of(self.digest(), now)
        counting = [authority.approvers(one, control, now, givers) for one in there]
        own = any(
            authority.approvers(one, control, now, ()) - others for one, others in zip(there, counting, strict=True)
        )
        raise Refused(
            "approval_required",
            f"{self._command.cmd} is under the control {control.name!r}: {_others(control.approvals)} approve it first",
            _OWN if own else "propose it (`--propose REASON`), have it approved, and send it again",
            details={
                "control": control.name,
                "digest": "sha256:" + self.digest().hex(),
                "approvals": max(map(len, counting), default=0),
                "needed": control.approvals,
                "approvers": sorted(control.approvers),
                "proposals": [one.id for one in there],
            },
        )

    def _givers(self) -> tuple[str, ...]:
        """The keys by whose right it is given: their own approvals are no second voice. Of what is given under a grant,
        who granted it is one of them: else he would have it done by whom he likes, and agree to it himself."""
        warrant = self._warrant
        grant = None if warrant.grant is None else self._authority.grants.get(warrant.grant)
        return (warrant.actor.root.id, *(() if grant is None else grant.issuers))


def _others(count: int) -> str:
    return "one other must" if count == 1 else f"{count} others must"
