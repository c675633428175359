"""The names of the entries that the daemon writes. docs/ledger.md says what the `data` of each holds."""

from __future__ import annotations

from typing import Final

LEDGER_CREATED: Final = "ledger.created"
LEDGER_RECOVERED: Final = "ledger.recovered"
CLOCK_STEPPED: Final = "clock.stepped"

DAEMON_STARTED: Final = "daemon.started"
DAEMON_STOPPED: Final = "daemon.stopped"

RUN_ACCEPTED: Final = "run.accepted"
RUN_FINISHED: Final = "run.finished"
RUN_LOST: Final = "run.lost"

COMMAND_DONE: Final = "command.done"
COMMAND_DENIED: Final = "command.denied"
PEER_MISBEHAVED: Final = "peer.misbehaved"
KEY_ADDED: Final = "key.added"
