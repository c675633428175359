"""What the warrants of commands about keys, grants, proposals and sessions are asked about."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from immured.errors import Refused
from immured.identity.actor import Actor
from immured.identity.authority import Authority
from immured.identity.grants import Grant
from immured.identity.keyring import KeyRecord
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.schema import DEFAULT_PROJECT, DEFAULT_TENANT
from immured.identity.policy.warrant import HOST, Target, Warrant
from immured.identity.proposals import Proposal
from immured.identity.sessions import Session

__all__ = ["NO_PROJECT", "covers_all", "of_grant", "of_key", "of_proposal", "of_session", "seen"]

NO_PROJECT: Final = ""
"""Of what is the host's: no key that is bound to projects reaches it."""


def of_key(authority: Authority, actor: Actor, record: KeyRecord) -> tuple[Target, ...]:
    """Of a key one in each tenant and project that it is bound to: who may do something to it may in all of them. One
    whose role reaches beyond its tenants is the host's; to itself it stands where it acts."""
    if record.id in actor.identities:
        return (Target(actor.tenant, actor.project, (record.id,)),)
    if authority.is_hosts(record):
        return (Target(HOST, NO_PROJECT, (record.id,)),)
    return tuple(
        Target(tenant, project, (record.id,))
        for tenant in sorted(record.tenants or {DEFAULT_TENANT})
        for project in sorted(record.projects or _projects(authority, tenant))
    )


def _projects(authority: Authority, tenant: str) -> Collection[str]:
    declared = authority.policy.tenants.get(tenant)
    return {DEFAULT_PROJECT} if declared is None else declared.projects


def of_grant(actor: Actor, grant: Grant) -> tuple[Target, ...]:
    """Whose it is: who issued it, and for whom."""
    return (_placed(actor, grant.cmd, grant.tenant, grant.project or DEFAULT_PROJECT, (*grant.issuers, grant.key)),)


def of_proposal(actor: Actor, proposal: Proposal) -> tuple[Target, ...]:
    """Whose it is: who proposed it."""
    return (_placed(actor, proposal.cmd, proposal.tenant, proposal.project, proposal.owners),)


def of_session(session: Session) -> tuple[Target, ...]:
    """Whose it is: who opened it."""
    return (Target(session.tenant, session.project, session.owners),)


def covers_all(warrant: Warrant, targets: Collection[Target]) -> bool:
    """Whether the warrant covers every one."""
    return all(warrant.covers(target) for target in targets)


def seen(warrant: Warrant, targets: Collection[Target], show: str, hidden: Refused) -> None:
    """May it be done to that? Raises Refused `denied`; or `hidden`, where one may not so much as `show` it."""
    for target in targets:
        if not warrant.covers(target):
            if all(warrant.holds(show, one) for one in targets):
                warrant.check(target)
            raise hidden


def _placed(actor: Actor, cmd: str, tenant: str, project: str, owners: tuple[str, ...]) -> Target:
    """What is about a command that acts on the host is the host's to see; to its owner it is the tenant's."""
    hosts = PERMISSIONS.get(cmd) is TargetKind.HOST and not any(one in owners for one in actor.identities)
    return Target(HOST, NO_PROJECT, owners) if hosts else Target(tenant, project, owners)
