"""Whose an entry of the ledger is: what the warrant of a command about one entry is asked about.

One key's own is what it caused, and what the daemon entered of the outcome. Beyond that a tenant has what was begun in
it: runs, batches, sandboxes, sessions, consents. Whatever else there is may tell of other tenants, and is the host's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from immured.identity.actor import Actor
from immured.identity.policy.schema import DEFAULT_PROJECT, DEFAULT_TENANT
from immured.identity.policy.warrant import HOST, Target
from immured.ledger import entry_types as types
from immured.ledger.entry import Entry

__all__ = ["target_of"]

_BEGUN: Final = frozenset(
    {
        *(types.RUN_ACCEPTED, types.BATCH_ACCEPTED, types.SANDBOX_CREATED, types.PREFLIGHT_DONE),
        *(types.CONSENT_ACCEPTED, types.CONSENT_DECLINED, types.SESSION_OPENED, types.SESSION_CLOSED),
        types.MANIFEST_INLINE,
    }
)


def target_of(entry: Entry, actor: Actor, find: Callable[[int], Entry]) -> Target:
    """What to ask about `entry`, for `actor`. `find` gives the entry of an index; it may raise what it likes."""
    intent = entry.data.get("intent")
    if "key" not in entry.actor and isinstance(intent, int) and 0 <= intent < entry.seq:
        begun = find(intent)
        return target_of(begun, actor, find) if "key" in begun.actor else Target(HOST, "", ())
    key, root = entry.actor.get("key"), entry.actor.get("root")
    owners = tuple(one for one in (key, root) if isinstance(one, str))
    tenant, project = (
        entry.actor.get("tenant", DEFAULT_TENANT),
        entry.actor.get("project", DEFAULT_PROJECT),
    )
    if not owners or not isinstance(tenant, str) or not isinstance(project, str):
        return Target(HOST, "", owners)
    if entry.type in _BEGUN or any(one in owners for one in actor.identities):
        return Target(tenant, project, owners)
    return Target(HOST, "", owners)
