"""What the ledger says lives: sandboxes, execs and commands that were begun, and of whose end it does not know.

One pass, as `service.recovery`; what is here grows with what lived, not with the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.identity.replay import Claim
from immured.ledger import Entry, entry_types
from immured.wire.messages import Receipt

__all__ = ["OpenEntries", "OpenEntry"]


@dataclass(slots=True)
class OpenEntry:
    """An intent without its outcome. `number`: the launcher's name for it, where the entry has one."""

    seq: int
    data: Mapping[str, object]
    claim: Claim | None
    number: int | None = None
    ready: bool = False

    def text(self, name: str) -> str:
        """A field of its data."""
        value = self.data.get(name)
        return value if isinstance(value, str) else ""

    def settle(self, receipt: Receipt) -> None:
        """What became of it is durable: whoever asks for the command again gets this receipt."""
        if self.claim is not None and self.claim.outcome is None:
            self.claim.outcome = receipt


@dataclass(slots=True)
class OpenEntries:
    """By the index of their intents, oldest first. `restore` puts an entry's nonce into the replay record."""

    restore: Callable[[Entry], Claim | None]
    sandboxes: dict[int, OpenEntry] = field(default_factory=dict)
    execs: dict[int, OpenEntry] = field(default_factory=dict)
    commands: dict[int, OpenEntry] = field(default_factory=dict)

    def visit(self, entry: Entry) -> bool:
        """Take one entry. Whether it was one of these."""
        for kind, opens, closes in _KINDS:
            found: dict[int, OpenEntry] = getattr(self, kind)
            if entry.type == opens:
                found[entry.seq] = OpenEntry(entry.seq, entry.data, self.restore(entry), _number(entry))
                return True
            if entry.type in closes:
                intent = entry.data.get("intent")
                if entry.type == entry_types.COMMAND_DONE and not isinstance(intent, int):
                    return False  # one that stands alone
                done = found.pop(intent, None) if isinstance(intent, int) else None
                if done is not None:
                    done.settle(Receipt(entry.seq, entry.leaf))
                return True
        if entry.type == entry_types.SANDBOX_READY:
            intent = entry.data.get("intent")
            one = self.sandboxes.get(intent) if isinstance(intent, int) else None
            if one is not None:
                one.ready = True
                one.settle(Receipt(entry.seq, entry.leaf))
            return True
        return False


_KINDS: Final = (
    ("sandboxes", entry_types.SANDBOX_CREATED, (entry_types.SANDBOX_ENDED, entry_types.SANDBOX_LOST)),
    ("execs", entry_types.EXEC_ACCEPTED, (entry_types.EXEC_FINISHED, entry_types.EXEC_LOST)),
    (
        "commands",
        entry_types.COMMAND_ACCEPTED,
        (entry_types.COMMAND_DONE, entry_types.COMMAND_LOST, entry_types.SANDBOX_CHANGED),
    ),
)


def _number(entry: Entry) -> int | None:
    value = entry.data.get("number")
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 21 else None
