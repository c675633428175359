"""`proposal.*`: commands that others approve before they are given."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Mapping
from typing import Final

from immured.errors import Refused
from immured.identity.canonical import command_bytes
from immured.identity.keyring import check_label, check_note
from immured.identity.policy.schema import Control
from immured.identity.proposals import DEFAULT_TTL_MS, MAX_ARGS, MAX_TTL_MS, Approval, Proposal
from immured.ledger import entry_types
from immured.service import proposed, targets
from immured.service.commands import CommandSpec
from immured.service.commands.grant import command_in
from immured.service.context import Service
from immured.service.deciding import decide, deciding
from immured.service.request import Answer, Request
from immured.wire.strict import shown, take

__all__ = ["COMMANDS"]


async def create(service: Service, request: Request) -> Answer:
    """args: `cmd`, `args` (map), `reason`; `tenant`, `project` (default: the command's), `ttl_ms` (at most a week;
    default: the widest window of a control over `cmd`, else a day). result: the proposal, and its `controls`."""
    fields = take(request.command.args, "args", ("cmd", "args", "tenant", "project", "reason", "ttl_ms"))
    cmd, reason = command_in(fields), check_note(fields.required("reason", str), "args.reason")
    if cmd.startswith("proposal."):
        raise fields.wrong("cmd", "is about proposals, and proposals of those there are none")
    ttl = fields.integer("ttl_ms", 1, MAX_TTL_MS)
    actor = request.actor
    tenant, project = fields.optional("tenant", str), fields.optional("project", str)
    tenant = actor.tenant if tenant is None else check_label(tenant, "args.tenant")
    project = actor.project if project is None else check_label(project, "args.project")
    command = command_bytes(cmd, tenant, project, fields.required("args", dict))
    if len(command) > MAX_ARGS:
        raise fields.wrong("args", f"take {len(command)} bytes; at most {MAX_ARGS}")
    async with deciding(service, request):
        authority, now = service.authority, service.clock()
        controls = authority.decider.control(cmd)
        widest = max((control.window_ms for control in controls), default=DEFAULT_TTL_MS)
        proposal = Proposal(
            id=f"proposal-{secrets.token_hex(8)}",
            cmd=cmd,
            tenant=tenant,
            project=project,
            digest=hashlib.sha256(command).digest(),
            proposer=actor.root.id,
            owners=actor.owners,
            reason=reason,
            created_ms=now,
            expires_ms=now + (min(widest, MAX_TTL_MS) if ttl is None else ttl),
        )
        for target in targets.of_proposal(actor, proposal):
            request.warrant.check(target)
        _tidy(service)
        authority.proposals.check_room(proposal.proposer, now)
        await asyncio.to_thread(proposed.write, service.state.paths, proposal.id, command)
        try:
            receipt = await decide(service, request, entry_types.PROPOSAL_CREATED, {"record": proposal.to_map()})
        except Refused:
            proposed.remove(service.state.paths, [proposal.id])
            raise
    return Answer(_shown(service, proposal), receipt)


async def approve(service: Service, request: Request) -> Answer:
    """args: `proposal`, `digest` (32 bytes: of what one approves). result: the proposal, with the approval."""
    fields = take(request.command.args, "args", ("proposal", "digest"))
    digest = fields.sized("digest", bytes, 32, 32)
    if digest is None:
        raise fields.wrong("digest", "is missing")
    actor = request.actor
    async with deciding(service, request):
        authority = service.authority
        proposal = _find(service, request, fields.required("proposal", str))
        if proposal.digest != digest:
            raise fields.wrong("digest", "is not that of the proposal", "look at it again: `immure proposal show`")
        if authority.line(actor.root.id) == authority.line(proposal.proposer):
            raise Refused("denied", "nobody approves what he proposed himself", "have another key approve it")
        controls = authority.decider.control(proposal.cmd)
        if not any(authority.decider.roles(actor.role) & control.approvers for control in controls):
            raise Refused(
                "denied",
                f"no control over {proposal.cmd!r} has approvers of the role {actor.role!r}",
                "have it approved in one of the roles that `controls` names",
                details={"role": actor.role, "controls": _names(controls)},
            )
        authority.proposals.check_approvable(proposal)
        approval = Approval(actor.root.id, actor.role, service.clock())
        entered = {"approved": proposal.id, "digest": "sha256:" + digest.hex(), "record": approval.to_map()}
        receipt = await decide(service, request, entry_types.PROPOSAL_APPROVED, entered)
        approved = authority.proposals.get(proposal.id) or proposal
    return Answer(_shown(service, approved), receipt)


async def withdraw(service: Service, request: Request) -> Answer:
    """args: `proposal`. result: the proposal that was."""
    fields = take(request.command.args, "args", ("proposal",))
    async with deciding(service, request):
        proposal = _find(service, request, fields.required("proposal", str))
        receipt = await decide(service, request, entry_types.PROPOSAL_WITHDRAWN, {"withdrawn": proposal.id})
        proposed.remove(service.state.paths, [proposal.id])
    return Answer(_shown(service, proposal), receipt)


async def list_proposals(service: Service, request: Request) -> Answer:
    """args: none. result: `proposals`, those that are open and that one may see, oldest first."""
    take(request.command.args, "args", ())
    warrant = request.warrant
    warrant.covers(warrant.place())
    service.authority.proposals.forget(service.clock())
    found = [
        _shown(service, one)
        for one in service.authority.proposals
        if targets.covers_all(warrant, targets.of_proposal(request.actor, one))
    ]
    return Answer({"proposals": found})


async def show(service: Service, request: Request) -> Answer:
    """args: `proposal`. result: the proposal, and `args` where they are still there."""
    fields = take(request.command.args, "args", ("proposal",))
    proposal = _find(service, request, fields.required("proposal", str))
    args = await asyncio.to_thread(proposed.read_args, service.state.paths, proposal)
    return Answer({**_shown(service, proposal), **({} if args is None else {"args": args})})


def _find(service: Service, request: Request, proposal_id: str) -> Proposal:
    """The open proposal of that id. Raises Refused `not_found`, `denied`."""
    hidden = Refused("not_found", f"no proposal {shown(proposal_id)} is open", "`immure proposal list` shows them")
    service.authority.proposals.forget(service.clock())
    proposal = service.authority.proposals.get(proposal_id)
    if proposal is None:
        raise hidden
    targets.seen(request.warrant, targets.of_proposal(request.actor, proposal), "proposal.show", hidden)
    return proposal


def _tidy(service: Service) -> None:
    """In one's turn: the files of what was done or expired meanwhile go."""
    proposals = service.authority.proposals
    proposals.forget(service.clock())
    proposed.keep_only(service.state.paths, [one.id for one in proposals])


def _names(controls: tuple[Control, ...]) -> list[Mapping[str, object]]:
    return [
        {"name": one.name, "approvals": one.approvals, "approvers": sorted(one.approvers), "window_ms": one.window_ms}
        for one in controls
    ]


def _shown(service: Service, proposal: Proposal) -> dict[str, object]:
    """With the controls over its command, and how many approvals count for each by now, while another key gives it."""
    authority, now = service.authority, service.clock()
    controls = authority.decider.control(proposal.cmd)
    got = [len(authority.approvers(proposal, control, now, ())) for control in controls]
    rows = [{**row, "got": count} for row, count in zip(_names(controls), got, strict=True)]
    return {**proposal.to_map(), "controls": rows}


COMMANDS: Final = (
    CommandSpec("proposal.create", "proposal.create", create),
    CommandSpec("proposal.approve", "proposal.approve", approve),
    CommandSpec("proposal.withdraw", "proposal.withdraw", withdraw),
    CommandSpec("proposal.list", "proposal.list", list_proposals),
    CommandSpec("proposal.show", "proposal.show", show),
)
