"""What the ledger says, for whoever believes a key and not a word: proofs of entries, and its signed heads.

with Client() as client:
    done = client.run(["make"])
    shown = client.prove(done.receipt)
    Path("make.tlog-proof").write_bytes(shown.proof.encode())     # for others: immure ledger check-proof
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from immured.client.errors import UntrustedReply
from immured.client.outcome import Answer
from immured.client.question import Question, reading
from immured.ledger.checkpoint import CosignKey, NoteError, VerifierKey, Witnessed, open_witnessed
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.proof import Proof, ProofError, Proven
from immured.wire.messages import Receipt
from immured.wire.strict import Fields

__all__ = ["LedgerHead", "ledger_checkpoint", "prove"]


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """The ledger's newest signed head: `note` is the file, `opened` what it says; `witnessed` the newest that the
    ledger's witnesses cosigned, as they did, where there is one; `keys` the verifier keys, newest last."""

    note: bytes
    opened: Witnessed
    witnessed: bytes | None
    keys: tuple[VerifierKey, ...]


def prove(
    entry: Receipt | int,
    keys: Iterable[VerifierKey] | KeyHistory | None = None,
    witnesses: Iterable[CosignKey] = (),
    require: int = 0,
) -> Question[Proven]:
    """That an entry is in the ledger: checked against the receipt, if that is what is given; under `keys`, else those
    that the daemon names; cosigned by `require` of `witnesses`."""
    seq = entry if isinstance(entry, int) else entry.seq
    leaf = None if isinstance(entry, int) else entry.leaf

    def read(said: Answer) -> Proven:
        fields = reading(said)
        history = keys if isinstance(keys, KeyHistory) else KeyHistory(_keys(fields) if keys is None else keys)
        try:
            shown = Proof.parse(fields.required("proof", bytes)).check(history, witnesses, require)
        except ProofError as error:
            raise UntrustedReply(f"the proof of entry {seq} proves nothing: {error}") from None
        if shown.entry.seq != seq or leaf not in (None, shown.entry.leaf):
            raise UntrustedReply(f"the proof is of another entry than {seq}, or of another ledger's")
        return shown

    return Question("ledger.prove", {"seq": seq}, read)


def ledger_checkpoint(keys: Iterable[VerifierKey] | None = None) -> Question[LedgerHead]:
    """The newest signed head, opened by `keys`, else by those that the daemon names."""

    def read(said: Answer) -> LedgerHead:
        fields = reading(said)
        named, note = _keys(fields), fields.required("checkpoint", bytes)
        try:
            opened = open_witnessed(note, named if keys is None else tuple(keys), ())
        except NoteError as error:
            raise UntrustedReply(f"the ledger's signed head is none: {error}") from None
        return LedgerHead(note, opened, fields.optional("witnessed", bytes), named)

    return Question("ledger.checkpoint", {}, read)


def _keys(fields: Fields) -> tuple[VerifierKey, ...]:
    try:
        return tuple(VerifierKey.parse(str(one)) for one in fields.required("keys", list))
    except NoteError as error:
        raise UntrustedReply(f"the ledger's keys are none: {error}") from None
