"""Of each ledger entry, what a later start needs it for and how long. Sans-I/O.

The counterpart of `recovery`, which takes what is needed: what one of them knows of an entry type, the other has to
know too (tests/service/test_needed.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import immured
from immured.ledger import entry_types
from immured.ledger.keeping import Keep, Keyed, Op, Tie
from immured.wire.messages import SKEW_MS

__all__ = ["DAY_MS", "RULES", "keep"]

RULES: Final = f"{immured.__version__}/3"
"""Change the last number with what is decided here, or with what `recovery` takes from an entry."""
DAY_MS: Final = 24 * 3600 * 1000
"""How long what ended by itself is remembered after that: told apart from what never was."""

_NEVER: Final = Keep()


def keep(type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
    """As `Keeper.keep`. What no daemon wrote is needed for nothing here: `recovery` refuses it."""
    decide = _KINDS.get(type_)
    kept = decide(actor, data) if decide is not None else None
    if "session" in actor or "grant" in data or "proposal" in data or "counted" in data:
        return kept if type_ in _REFUSED else _besides(kept or _NEVER, actor, data)
    return kept


def _besides(kept: Keep, actor: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    """What any entry may say besides: who was there, and what its command used."""
    keyed = [Keyed(Op.DROP, f"{name}:{data[name]}") for name in ("grant", "proposal") if name in data]
    if "session" in actor:
        keyed.append(Keyed(Op.SEEN, f"session:{actor['session']}"))
    counted = data.get("counted")
    ends = [end for end in counted.values() if type(end) is int] if isinstance(counted, Mapping) else []
    return kept._replace(keyed=(*kept.keyed, *keyed), counts=max(ends, default=0))


def _until(data: Mapping[str, Any]) -> int:
    """How long its nonce could be used again."""
    ends = data.get("exp")
    return ends + SKEW_MS if type(ends) is int else 0


def _opens(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    return Keep(_until(data), True)


def _batch_opens(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep | None:
    if isinstance(data.get("batch"), str) and type(data.get("runs")) is int:
        return Keep(_until(data), True)
    return None  # it says more of the one before


def _tied(tie: Tie) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Keep | None]:
    def decide(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep | None:
        intent = data.get("intent")
        return Keep(0, False, tie, intent) if isinstance(intent, int) else None

    return decide


def _command_done(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    intent = data.get("intent")
    return Keep(0, False, Tie.OUTCOME, intent) if isinstance(intent, int) else Keep(_until(data))


def _once(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    return Keep(_until(data))


def _forever(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    return Keep(_until(data), forever=True)


def _last(*keys: tuple[str, str]) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Keep]:
    """Of those with the same value of a member the last one counts, for each name by itself."""

    def decide(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
        keyed = tuple(Keyed(Op.REPLACE, f"{name}:{data.get(member)}") for name, member in keys)
        return Keep(_until(data), keyed=keyed)

    return decide


def _begins(name: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Keep]:
    """A record that ends by itself."""

    def decide(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
        record = data.get("record")
        if not isinstance(record, Mapping):
            return Keep(_until(data))
        return Keep(_until(data), keyed=(Keyed(Op.REPLACE, f"{name}:{record.get(name)}", _over(record)),))

    return decide


def _over(record: Mapping[str, Any]) -> int:
    ends = record.get("expires_ms")
    return ends + DAY_MS if type(ends) is int else 0


def _does(op: Op, name: str, member: str) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Keep]:
    """What an entry does to such a record, which `member` names."""

    def decide(_: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
        return Keep(_until(data), keyed=(Keyed(op, f"{name}:{data.get(member)}"),))

    return decide


_WHOSE: Final = ("key", "uid", "tenant", "project", "persona", "sub", "session")


def _consent(actor: Mapping[str, Any], data: Mapping[str, Any]) -> Keep:
    whose = (data.get("manifest"), *(actor.get(name) for name in _WHOSE))
    return Keep(_until(data), keyed=(Keyed(Op.REPLACE, f"consent:{whose!r}", _over(data)),))


_KINDS: Final[dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Keep | None]]] = {
    **dict.fromkeys(
        (
            *(entry_types.RUN_ACCEPTED, entry_types.SANDBOX_CREATED),
            *(entry_types.EXEC_ACCEPTED, entry_types.COMMAND_ACCEPTED),
        ),
        _opens,
    ),
    entry_types.BATCH_ACCEPTED: _batch_opens,
    entry_types.BATCH_PROGRESS: _tied(Tie.PART),
    entry_types.SANDBOX_READY: _tied(Tie.FACT),
    **dict.fromkeys(
        (
            *(entry_types.RUN_FINISHED, entry_types.RUN_LOST),
            *(entry_types.BATCH_FINISHED, entry_types.BATCH_LOST),
            *(entry_types.SANDBOX_ENDED, entry_types.SANDBOX_LOST, entry_types.SANDBOX_CHANGED),
            *(entry_types.EXEC_FINISHED, entry_types.EXEC_LOST, entry_types.COMMAND_LOST),
        ),
        _tied(Tie.OUTCOME),
    ),
    entry_types.COMMAND_DONE: _command_done,
    **dict.fromkeys((entry_types.COMMAND_DENIED, entry_types.MANIFEST_REFUSED, entry_types.PREFLIGHT_DONE), _once),
    **dict.fromkeys(
        (
            *(entry_types.KEY_ADDED, entry_types.KEY_CHANGED, entry_types.KEY_ROTATED, entry_types.KEY_BARRED),
            *(entry_types.POLICY_CHANGED, entry_types.CONSENT_TEXT, entry_types.LEDGER_KEY_ROTATED),
        ),
        _forever,
    ),
    entry_types.GRANT_ISSUED: _begins("grant"),
    entry_types.GRANT_REVOKED: _does(Op.DROP, "grant", "revoked"),
    entry_types.PROPOSAL_CREATED: _begins("proposal"),
    entry_types.PROPOSAL_APPROVED: _does(Op.EXTEND, "proposal", "approved"),
    entry_types.PROPOSAL_WITHDRAWN: _does(Op.DROP, "proposal", "withdrawn"),
    entry_types.SESSION_OPENED: _begins("session"),
    entry_types.SESSION_CLOSED: _does(Op.EXTEND, "session", "closed"),
    **dict.fromkeys((entry_types.CONSENT_ACCEPTED, entry_types.CONSENT_DECLINED), _consent),
    entry_types.MANIFEST_LOADED: _last(("manifest", "digest")),
    entry_types.MANIFEST_REVOKED: _last(("revoked", "digest")),
    entry_types.DAEMON_KEY_ROTATED: _last(("daemon_key", "")),
    entry_types.EXPORT_BEGAN: _last(("export", "destination"), ("began", "destination")),
    **dict.fromkeys((entry_types.EXPORT_FAILED, entry_types.EXPORT_RECOVERED), _last(("export", "destination"))),
    **dict.fromkeys(
        (entry_types.WITNESS_REFUSED, entry_types.WITNESS_FAILED, entry_types.WITNESS_RECOVERED),
        _last(("witness", "witness")),
    ),
    **dict.fromkeys((entry_types.AUDIT_UNHEALTHY, entry_types.AUDIT_RECOVERED), _last(("audit", "part"))),
}
_REFUSED: Final = frozenset({entry_types.COMMAND_DENIED, entry_types.MANIFEST_REFUSED})
"""What used nothing up that its command would have taken."""
