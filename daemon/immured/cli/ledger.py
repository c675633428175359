"""`immure ledger`: verify and read a ledger's files. No daemon, no key; root only where the files are root's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from immured.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ledger"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "verify": ("immured.cli.ledger_verify:verify", "Check every line, every link, and every signed head."),
    "show": ("immured.cli.ledger_show:show", "Print entries, one a line."),
    "tail": ("immured.cli.ledger_show:tail", "Print the last entries, and with -f those that come."),
    "query": ("immured.cli.ledger_query:query", "Print entries that one may see, from the daemon."),
    "prove": ("immured.cli.ledger_prove:prove", "Write a proof that an entry is in the ledger."),
    "checkpoint": ("immured.cli.ledger_head:checkpoint", "Write the newest signed head, from the daemon."),
    "rotate-key": ("immured.cli.ledger_head:rotate_key", "Give the ledger another key for its signed heads."),
    "check-proof": ("immured.cli.ledger_prove:check_proof", "Check such a proof, offline, and print the entry."),
    "consistency": ("immured.cli.ledger_prove:consistency", "Write a proof that one signed head goes on from another."),
    "check-consistency": ("immured.cli.ledger_prove:check_consistency", "Check such a proof against what was kept."),
    "export": ("immured.cli.ledger_export:export", "Copy what is signed, or write some of it as JSON lines."),
    "check-export": ("immured.cli.ledger_export:check_export", "Check each line of such a file by its proof."),
    "compare": ("immured.cli.ledger_compare:compare", "Find the first difference from what was kept elsewhere."),
    "repair": ("immured.cli.ledger_repair:repair", "Explain what the next start makes of a ledger; changes nothing."),
    "witness": ("immured.cli.ledger_witness:witness", "Cosign the checkpoints of other hosts' ledgers."),
}


@click.group(cls=LazyGroup, table=COMMANDS, no_args_is_help=True)
def ledger() -> None:
    """Verify and read a ledger, without the daemon. docs/ledger.md specifies the file."""
