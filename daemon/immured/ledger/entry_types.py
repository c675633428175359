"""The names of the entries that the daemon writes. docs/ledger.md says what the `data` of each holds."""

from __future__ import annotations

from typing import Final

LEDGER_CREATED: Final = "ledger.created"
LEDGER_DURABILITY: Final = "ledger.durability"
LEDGER_KEY_ROTATED: Final = "ledger.key_rotated"
LEDGER_RECOVERED: Final = "ledger.recovered"
LEDGER_RETIRED: Final = "ledger.retired"
LEDGER_ROTATED: Final = "ledger.rotated"
CLOCK_STEPPED: Final = "clock.stepped"

EXPORT_BEGAN: Final = "export.began"
EXPORT_FAILED: Final = "export.failed"
EXPORT_RECOVERED: Final = "export.recovered"

WITNESS_REFUSED: Final = "witness.refused"
WITNESS_FAILED: Final = "witness.failed"
WITNESS_RECOVERED: Final = "witness.recovered"

AUDIT_UNHEALTHY: Final = "audit.unhealthy"
AUDIT_RECOVERED: Final = "audit.recovered"

PREFLIGHT_DONE: Final = "preflight.done"

DAEMON_STARTED: Final = "daemon.started"
DAEMON_STOPPED: Final = "daemon.stopped"
DAEMON_KEY_ROTATED: Final = "daemon.key_rotated"

RUN_ACCEPTED: Final = "run.accepted"
RUN_FINISHED: Final = "run.finished"
RUN_LOST: Final = "run.lost"

BATCH_ACCEPTED: Final = "batch.accepted"
BATCH_PINNED: Final = "batch.pinned"
BATCH_PROGRESS: Final = "batch.progress"
BATCH_FINISHED: Final = "batch.finished"
BATCH_LOST: Final = "batch.lost"

SANDBOX_CREATED: Final = "sandbox.created"
SANDBOX_READY: Final = "sandbox.ready"
SANDBOX_CHANGED: Final = "sandbox.changed"
SANDBOX_ENDED: Final = "sandbox.ended"
SANDBOX_LOST: Final = "sandbox.lost"
SANDBOX_ADOPTED: Final = "sandbox.adopted"

EXEC_ACCEPTED: Final = "exec.accepted"
EXEC_FINISHED: Final = "exec.finished"
EXEC_LOST: Final = "exec.lost"
EXEC_ADOPTED: Final = "exec.adopted"

COMMAND_ACCEPTED: Final = "command.accepted"
COMMAND_DONE: Final = "command.done"
COMMAND_LOST: Final = "command.lost"
COMMAND_DENIED: Final = "command.denied"
PEER_MISBEHAVED: Final = "peer.misbehaved"
KEY_ADDED: Final = "key.added"
KEY_CHANGED: Final = "key.changed"
KEY_ROTATED: Final = "key.rotated"
KEY_BARRED: Final = "key.barred"

POLICY_CHANGED: Final = "policy.changed"
POLICY_REFUSED: Final = "policy.refused"

MANIFEST_LOADED: Final = "manifest.loaded"
MANIFEST_REFUSED: Final = "manifest.refused"
MANIFEST_REVOKED: Final = "manifest.revoked"
MANIFEST_DAMAGED: Final = "manifest.damaged"
MANIFEST_INLINE: Final = "manifest.inline"

GRANT_ISSUED: Final = "grant.issued"
GRANT_REVOKED: Final = "grant.revoked"
PROPOSAL_CREATED: Final = "proposal.created"
PROPOSAL_APPROVED: Final = "proposal.approved"
PROPOSAL_WITHDRAWN: Final = "proposal.withdrawn"
SESSION_OPENED: Final = "session.opened"
SESSION_CLOSED: Final = "session.closed"

CONSENT_ACCEPTED: Final = "consent.accepted"
CONSENT_DECLINED: Final = "consent.declined"
CONSENT_TEXT: Final = "consent.text"
