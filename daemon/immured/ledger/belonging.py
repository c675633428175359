"""Whose an entry is: one tenant's, or the host's. No I/O.

    belonging = Belonging()
    for entry in entries: tenant = belonging.of(entry)     # every entry, in order

An entry is a tenant's when it is of a kind that tells of a tenant's own work, whoever caused it is of that tenant (or
is the daemon, on its behalf), and everything that it names is the tenant's too. Whatever is left is the host's: an
operator's act on somebody's sandbox, keys, policies, what strangers did; a refused command, whose tenant is what its
sender claimed. So what is shown to a tenant shows no other's, and an entry that this cannot place is shown to nobody
but the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from immured.ledger import entry_types as types

if TYPE_CHECKING:
    from immured.ledger.entry import Entry

__all__ = ["DEFAULT", "HOST", "Belonging"]

HOST: Final = ""
DEFAULT: Final = "default"
"""The tenant of whoever names none."""

_OWN: Final = frozenset({
    *(types.PREFLIGHT_DONE, types.RUN_ACCEPTED, types.RUN_FINISHED, types.RUN_LOST),
    *(types.BATCH_ACCEPTED, types.BATCH_PINNED, types.BATCH_PROGRESS, types.BATCH_FINISHED, types.BATCH_LOST),
    *(types.SANDBOX_CREATED, types.SANDBOX_READY, types.SANDBOX_CHANGED, types.SANDBOX_ENDED, types.SANDBOX_LOST),
    *(types.SANDBOX_ADOPTED, types.EXEC_ACCEPTED, types.EXEC_FINISHED, types.EXEC_LOST, types.EXEC_ADOPTED),
    *(types.COMMAND_ACCEPTED, types.COMMAND_DONE, types.COMMAND_LOST),
    *(types.CONSENT_ACCEPTED, types.CONSENT_DECLINED, types.SESSION_OPENED, types.SESSION_CLOSED),
    types.MANIFEST_INLINE,
})  # fmt: skip
_BEGIN: Final = frozenset({types.RUN_ACCEPTED, types.BATCH_ACCEPTED, types.SANDBOX_CREATED, types.EXEC_ACCEPTED})
_INTENTS: Final = _BEGIN | {types.COMMAND_ACCEPTED}
_ENDS: Final = frozenset({
    *(types.RUN_FINISHED, types.RUN_LOST, types.BATCH_FINISHED, types.BATCH_LOST, types.SANDBOX_ENDED),
    *(types.SANDBOX_LOST, types.EXEC_FINISHED, types.EXEC_LOST, types.COMMAND_DONE, types.COMMAND_LOST),
    types.SANDBOX_CHANGED,
})  # fmt: skip


class Belonging:
    """What is known of intents that have no outcome yet, and of sandboxes."""

    def __init__(self, *, whole: bool = True) -> None:
        """`whole`: it sees the ledger from its first entry. Else what was begun before what is kept is nobody's."""
        self._whole = whole
        self._intents: dict[int, str] = {}
        self._sandboxes: dict[str, str] = {}

    def of(self, entry: Entry) -> str:
        """The tenant's name, or HOST. Every entry is to be given, in order."""
        owner = self._owner(entry)
        if entry.type in _INTENTS:
            self._intents[entry.seq] = owner
        if entry.type in _BEGIN:
            for sandbox in _sandboxes(entry):
                self._sandboxes.setdefault(sandbox, owner)
        if entry.type in _ENDS and isinstance(intent := entry.data.get("intent"), int):
            self._intents.pop(intent, None)
        return owner

    def _owner(self, entry: Entry) -> str:
        if entry.type not in _OWN:
            return HOST
        said = set(self._named(entry))
        if "key" in entry.actor:
            tenant = entry.actor.get("tenant", DEFAULT)
            said.add(tenant if isinstance(tenant, str) else HOST)
        # The daemon's own word is of whoever the thing is that it speaks of, if there is one.
        return said.pop() if len(said) == 1 else HOST

    def _named(self, entry: Entry) -> Iterator[str]:
        """Whose each thing is that it names."""
        data = entry.data
        if "intent" in data:
            intent = data["intent"]
            yield self._intents.get(intent, HOST) if isinstance(intent, int) else HOST
        if "tenant" in data:
            yield data["tenant"] if isinstance(data["tenant"], str) else HOST
        for sandbox in _sandboxes(entry):
            known = self._sandboxes.get(sandbox)
            if known is not None:
                yield known
            elif entry.type not in _BEGIN and not self._whole:
                yield HOST


def _sandboxes(entry: Entry) -> Iterator[str]:
    one, many = entry.data.get("sandbox"), entry.data.get("sandboxes")
    if isinstance(one, str):
        yield one
    if isinstance(many, list):
        yield from (each for each in many if isinstance(each, str))
