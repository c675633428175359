"""Whether a policy could still be changed, and its controls fulfilled, by the keys that there are. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import KeyRecord
from immured.identity.policy.decide import Decider, in_force
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.identity.policy.rights import EVERYWHERE, persons, reaches
from immured.identity.policy.schema import Control, Policy

__all__ = ["check_lockout", "lockouts"]

CODE: Final = "lockout"


def check_lockout(policy: Policy, records: Iterable[KeyRecord], now_ms: int) -> None:
    """Raises Refused `lockout`, the first of `lockouts`."""
    for refusal in lockouts(policy, records, now_ms):
        raise refusal


def lockouts(policy: Policy, records: Iterable[KeyRecord], now_ms: int) -> Iterator[Refused]:
    """That none of these keys could put another policy in force for as long as it stands; and every command that some
    key may give, under a control that no keys could fulfil. Their `details` tell them apart.

    Keys that end by themselves do not count for what would be lost with them: the policy itself.
    """
    decider = Decider(policy)
    keys = [record for record in records if record.standing(now_ms) == "active"]
    staying = [record for record in keys if record.expires_ms is None]
    if not any(_is_able(decider, record, "policy.set", now_ms) for record in staying):
        yield Refused(
            CODE,
            "under this policy no active key without an end could change the policy again",
            "have a rule without an end, of scope host, allow 'policy.set' to a role that such a key has",
            details={"permission": "policy.set"},
        )
    for control in policy.controls:
        for permission in sorted(control.permissions):
            of = staying if permission == "policy.set" else keys
            if (refusal := _unfulfilled(decider, control, of, permission, now_ms)) is not None:
                yield refusal


def _unfulfilled(
    decider: Decider, control: Control, keys: list[KeyRecord], permission: str, now_ms: int
) -> Refused | None:
    """What some of these keys may do, some of them must be able to propose, and enough others than who gives it and who
    proposed it to approve."""
    whole = PERMISSIONS[permission] is TargetKind.HOST  # then so are proposals of it, to all but those who make them
    voices = {
        _line(record)
        for record in keys
        if _approves(decider, record, control) and _is_able(decider, record, "proposal.approve", now_ms, whole=whole)
    }
    givers = _able(decider, keys, permission, voices, now_ms)
    if not givers:
        return None
    details = {"control": control.name, "permission": permission, "approvals": control.approvals}
    if len(voices) - int(givers <= voices) < control.approvals:
        return Refused(
            CODE,
            f"the control {control.name!r} asks for {control.approvals} approvals of {permission!r} by others than who "
            "gives the command, and there are not so many active keys that could give them",
            "add keys first whose roles are among its `approvers`, and may 'proposal.approve'",
            details=details,
        )
    proposers = _able(decider, keys, "proposal.create", voices, now_ms)
    if not proposers or len(voices) - _fewest_lost(voices, givers, proposers) < control.approvals:
        return Refused(
            CODE,
            f"{permission!r} is under the control {control.name!r}, and nobody could propose it whose approval is not "
            "needed",
            "have a rule allow 'proposal.create' to who may give it, or to others",
            details=details,
        )
    return None


def _able(decider: Decider, keys: list[KeyRecord], permission: str, voices: set[str], now_ms: int) -> set[str]:
    """The lines of keys that may do it: all that are among these voices; but if one is not, that one will do."""
    for record in keys:
        if _line(record) not in voices and _is_able(decider, record, permission, now_ms):
            return {_line(record)}
    return {
        _line(record) for record in keys if _line(record) in voices and _is_able(decider, record, permission, now_ms)
    }


def _fewest_lost(voices: set[str], givers: set[str], proposers: set[str]) -> int:
    """How many of these voices are, at best, the giver's or the proposer's, who may be one."""
    lost = int(givers <= voices) + int(proposers <= voices)
    return 1 if lost == 2 and givers & proposers else lost


def _line(record: KeyRecord) -> str:
    """The first key of its line: keys that took one another's place are one voice."""
    return record.predecessors[-1] if record.predecessors else record.id


def _approves(decider: Decider, record: KeyRecord, control: Control) -> bool:
    return any(decider.roles(person.role) & control.approvers for person in persons(decider, record))


def _is_able(decider: Decider, record: KeyRecord, permission: str, now_ms: int, *, whole: bool | None = None) -> bool:
    """Whether that key may do it, now and for as long as the policy stands; host-wide (`whole`), if it acts on the
    host."""
    if whole is None:
        whole = PERMISSIONS[permission] is TargetKind.HOST
    for person in persons(decider, record):
        about = decider.about(person, permission)
        if whole and any(not rule.allow and (rule.until_ms is None or rule.until_ms > now_ms) for rule in about):
            continue
        lasting = {rule.name for rule in about if rule.allow and rule.until_ms is None and in_force(rule, now_ms)}
        for reach in reaches(decider, person, now_ms, (permission,), later=False):
            if reach.rule not in lasting or (reach.session and not _opens(decider, record, now_ms)):
                continue
            if not whole or (reach.tenant == EVERYWHERE and reach.projects is None):
                return True
    return False


def _opens(decider: Decider, record: KeyRecord, now_ms: int) -> bool:
    """Whether that key could open a session, without being in one."""
    return any(
        not reach.session
        for person in persons(decider, record)
        for reach in reaches(decider, person, now_ms, ("session.open",), later=False)
    )
