"""The append-only ledger: entries, group commit, the Merkle tree and its checkpoints, recovery, verification.

docs/ledger.md specifies the files, for readers in any language. Nothing here knows what a run is.
"""

from immured.ledger.entry import Entry, LineError
from immured.ledger.ledger import Ledger, LedgerStatus, create
from immured.ledger.pending import Pending, Receipt

__all__ = ["Entry", "Ledger", "LedgerStatus", "LineError", "Pending", "Receipt", "create"]
