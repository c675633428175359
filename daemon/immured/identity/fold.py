"""What each ledger entry changes in the authority: at once when it is durable, and again at every start. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import ConfigurationError
from immured.identity import folded
from immured.identity.grants import Grant
from immured.identity.keyring import KeyRecord
from immured.identity.proposals import Approval, Proposal
from immured.identity.sessions import Session
from immured.ledger import entry_types

if TYPE_CHECKING:
    from immured.identity.authority import Authority

__all__ = ["apply"]


def apply(authority: Authority, kind: str, data: Mapping[str, object], seq: int) -> None:
    """Types that change nothing here are passed over. Raises ValueError for `data` that no daemon wrote."""
    change = _CHANGES.get(kind)
    if change is not None:
        change(authority, data, seq)


def _key_added(authority: Authority, data: Mapping[str, object], seq: int) -> None:
    ring = authority.keyring
    if seq > ring.as_of:  # the file may hold it already; and what somebody took out of the file stays out
        record = _record(data)
        known = ring.find(record.id) is not None
        authority.keyring = ring.at(seq) if known else ring.with_key(record, as_of=seq)


def _key_changed(authority: Authority, data: Mapping[str, object], seq: int) -> None:
    ring = authority.keyring
    if seq > ring.as_of:
        record = _record(data)
        known = ring.find(record.id) is not None
        authority.keyring = ring.with_change(record, as_of=seq) if known else ring.at(seq)


def _key_rotated(authority: Authority, data: Mapping[str, object], seq: int) -> None:
    ring = authority.keyring
    if seq > ring.as_of:
        new, old = _record(data), _record(data, "old")
        fits = ring.find(old.id) is not None and ring.find(new.id) is None
        authority.keyring = ring.with_successor(old, new, as_of=seq) if fits else ring.at(seq)


def _key_barred(authority: Authority, data: Mapping[str, object], _: int) -> None:
    key, issuer = folded.text(data, "key"), folded.optional_text(data, "issuer")
    (authority.barred if issuer is None else authority.barred_under.setdefault(issuer, set())).add(key)


def _grant_issued(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.grants.add(Grant.from_map(_inner(data)))


def _grant_revoked(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.grants.remove(folded.text(data, "revoked"))


def _proposal_created(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.proposals.add(Proposal.from_map(_inner(data)))


def _proposal_approved(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.proposals.approve(folded.text(data, "approved"), Approval.from_map(_inner(data)))


def _proposal_withdrawn(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.proposals.remove(folded.text(data, "withdrawn"))


def _session_opened(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.sessions.add(Session.from_map(_inner(data)))


def _session_closed(authority: Authority, data: Mapping[str, object], _: int) -> None:
    authority.sessions.close(folded.text(data, "closed"), folded.whole(data, "at_ms"))


_CHANGES: Final[dict[str, Callable[[Authority, Mapping[str, object], int], None]]] = {
    entry_types.KEY_ADDED: _key_added,
    entry_types.KEY_CHANGED: _key_changed,
    entry_types.KEY_ROTATED: _key_rotated,
    entry_types.KEY_BARRED: _key_barred,
    entry_types.GRANT_ISSUED: _grant_issued,
    entry_types.GRANT_REVOKED: _grant_revoked,
    entry_types.PROPOSAL_CREATED: _proposal_created,
    entry_types.PROPOSAL_APPROVED: _proposal_approved,
    entry_types.PROPOSAL_WITHDRAWN: _proposal_withdrawn,
    entry_types.SESSION_OPENED: _session_opened,
    entry_types.SESSION_CLOSED: _session_closed,
}


def _inner(data: Mapping[str, object], name: str = "record") -> Mapping[str, object]:
    value = data.get(name)
    if not isinstance(value, dict):
        raise ValueError(f"`{name}` is no map")  # noqa: TRY004 - every fault is of one kind
    return value


def _record(data: Mapping[str, object], name: str = "record") -> KeyRecord:
    try:
        return KeyRecord.from_map(_inner(data, name))
    except ConfigurationError as error:
        raise ValueError(f"`{name}` is no key's record: {error.message.partition(': ')[2]}") from error
