"""Asking a witness: what is sent, what its answers mean, and when one is an alarm. The sending is passed in.

    found = ask(witness_key, note, log_keys, tree, known=8402, send=send)

A witness that has seen another history of the log says so by refusing (`refused`): that the log was cut back, forked or
written anew, by whoever holds its key. What the witness shows of it, signed by the log's own key, is the evidence.
"""

from __future__ import annotations

import base64
import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from immured.errors import ImmuredError
from immured.ledger.checkpoint import Checkpoint, CosignKey, NoteError, VerifierKey, open_checkpoint, open_witnessed
from immured.ledger.merkle import is_consistent
from immured.ledger.witness_state import origin_hash

__all__ = ["Cosigned", "Response", "Send", "Tree", "WitnessError", "ask", "bad_answer"]

_SIZE: Final = re.compile(rb"(0|[1-9][0-9]{0,15})\n?")
_MAX_ATTEMPTS: Final = 4  # a size is told at most as often as somebody else moved it meanwhile
_SHOWN: Final = 200
_REACH: Final = "see that it runs, and that this host can connect to it; it is tried again"
_NO_NETWORK: Final = (
    "see to this host's routes; under systemd the unit has no network unless it says so (docs/systemd.md)"
)
_REMEDIES: Final = dict.fromkeys(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES), _NO_NETWORK
)
_SEE: Final = "see that the URL is a witness's (C2SP tlog-witness), and what it logs"


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP status and a body."""

    status: int
    body: bytes


Send = Callable[[str, str, bytes], Response]
"""Method, path below the witness's URL, body. Raises OSError, WitnessError."""


class Tree(Protocol):
    """The hashes of the log's own tree. Both raise OSError, ValueError, LookupError where they are not there."""

    def root(self, size: int, /) -> bytes:
        """Of the first `size` entries."""

    def consistency(self, old: int, new: int, /) -> Sequence[bytes]:
        """RFC 6962's proof."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The witness's line, to stand below the note, and when it was given (seconds since 1970)."""

    line: bytes
    time_s: int


class WitnessError(ImmuredError):
    """There is no cosignature. Codes: docs/witness.md.

    `refused`: the witness says that it saw another history. `theirs` is then what it shows of that, where it does: a
    checkpoint that this log's own key signed, as `note`.
    """

    def __init__(
        self, code: str, message: str, remedy: str, *, theirs: Checkpoint | None = None, note: bytes = b""
    ) -> None:
        super().__init__(code, message, remedy)
        self.theirs, self.note = theirs, note

    @property
    def refused(self) -> bool:
        return self.code in ("witness_forked", "witness_ahead")


def ask(
    witness: CosignKey, note: bytes, log_keys: Sequence[VerifierKey], tree: Tree, known: int, send: Send
) -> Cosigned:
    """Have a checkpoint cosigned. `known`: the largest size that it cosigned before, 0 where none is known of. Raises
    WitnessError."""
    try:
        ours = open_checkpoint(note, log_keys)
    except NoteError as error:
        raise _no_proof(f"the checkpoint that should be cosigned is not right: {error}") from None
    old = min(known, ours.size)
    for _ in range(_MAX_ATTEMPTS):
        response = _sent(send, "POST", "/add-checkpoint", _body(tree, old, ours, note))
        if response.status == 409:
            theirs = _told_size(response)
            if theirs > ours.size:
                raise _ahead(theirs, ours, log_keys, send)
            if theirs < old == known:
                raise _forgot(theirs, known)
            if theirs == old:
                raise bad_answer(f"it says that it is at size {old}, and refuses what begins there")
            old = theirs
            continue
        if response.status == 200:
            return _cosigned(witness, note, log_keys, response)
        if response.status == 422:
            raise _forked(old, ours, tree, log_keys, send)
        raise _failed(response)
    raise bad_answer("it names another size each time")


def _body(tree: Tree, old: int, ours: Checkpoint, note: bytes) -> bytes:
    proof: Sequence[bytes] = ()
    if 0 < old < ours.size:
        try:
            proof = tree.consistency(old, ours.size)
            whole = is_consistent(old, tree.root(old), ours.size, ours.root, proof)
        except (OSError, ValueError, LookupError) as error:
            raise _no_proof(f"the tree's hashes cannot be read: {error}") from None
        if not whole:
            raise _no_proof(f"the stored hashes do not lead from size {old} to {ours.size}")
    lines = "".join(f"{base64.b64encode(one).decode()}\n" for one in proof)
    return f"old {old}\n{lines}\n".encode() + note


def _sent(send: Send, method: str, path: str, body: bytes) -> Response:
    try:
        return send(method, path, body)
    except OSError as error:
        why = error.strerror or str(error) or type(error).__name__
        raise WitnessError("witness_unreachable", why, _REMEDIES.get(error.errno or 0, _REACH)) from error


def _told_size(response: Response) -> int:
    found = _SIZE.fullmatch(response.body)
    if found is None:
        raise bad_answer(f"409 without a size: {_shown(response.body)}")
    return int(found[1])


def _cosigned(witness: CosignKey, note: bytes, log_keys: Sequence[VerifierKey], response: Response) -> Cosigned:
    """Put the lines below the note one by one: those of other keys are no concern of ours."""
    for line in response.body.splitlines(keepends=True):
        if line.startswith(f"\u2014 {witness.name} ".encode()):
            try:
                found = open_witnessed(note + line, log_keys, (witness,), 1)
            except NoteError:
                continue
            if found.cosignatures[0].time_s > 0:
                return Cosigned(line, found.cosignatures[0].time_s)
    raise bad_answer(
        f"no signature in its answer is of the key {witness.encode()}",
        "compare it with what the witness's operator has (immure ledger witness key); mend `key` in config.toml",
    )


def _ahead(size: int, ours: Checkpoint, log_keys: Sequence[VerifierKey], send: Send) -> WitnessError:
    theirs, note = _evidence(ours.origin, log_keys, send)
    return WitnessError(
        "witness_ahead",
        f"it cosigned {size} entries of this ledger, which has {ours.size}: entries are missing here",
        "an older ledger was put back, or its end was cut off: restore what is newer (an export has it), find out who "
        "did it; only if it was you, and meant, ask the witness's operator to forget this ledger",
        theirs=theirs,
        note=note,
    )


def _forgot(theirs: int, known: int) -> WitnessError:
    return WitnessError(
        "witness_forgot",
        f"it cosigned {known} entries of this ledger, and knows of {theirs} now: an older copy of its directory was "
        "put back, or it begins anew; it would cosign a second history as well",
        "have its operator make a new witness in another directory, and put the new key into config.toml",
    )


def _forked(old: int, ours: Checkpoint, tree: Tree, log_keys: Sequence[VerifierKey], send: Send) -> WitnessError:
    theirs, note = _evidence(ours.origin, log_keys, send)
    if theirs is not None and theirs.size <= ours.size:
        try:
            agrees = tree.root(theirs.size) == theirs.root
        except (OSError, ValueError, LookupError) as error:
            return _no_proof(f"the tree's hashes cannot be read: {error}")
        if agrees:
            return bad_answer(f"it refuses the proof from {old}, and what it shows of size {theirs.size} is ours")
    proven = "shows" if theirs is not None else "says"
    return WitnessError(
        "witness_forked",
        f"it {proven} that it cosigned another ledger of this name, of {theirs.size if theirs else old} entries: this "
        "one was written anew, or another one with its key is somewhere",
        "compare the ledger with its exports (immure ledger compare), find out who else holds keys/ledger.pem",
        theirs=theirs,
        note=note,
    )


def _evidence(origin: str, log_keys: Sequence[VerifierKey], send: Send) -> tuple[Checkpoint | None, bytes]:
    """What the witness shows of this log, if our own key signed it."""
    try:
        response = send("GET", f"/{origin_hash(origin)}/checkpoint", b"")
        if response.status == 200:
            found = open_checkpoint(response.body, log_keys)
            if found.origin == origin:
                return found, response.body
    except (OSError, WitnessError, NoteError):
        pass
    return None, b""


def _failed(response: Response) -> WitnessError:
    said = _shown(response.body)
    if response.status == 404:
        return WitnessError(
            "witness_unknown_log",
            f"it does not know this ledger: {said}",
            "give its operator keys/ledger.vkey (immure ledger witness trust FILE); is the URL its own?",
        )
    if response.status == 403:
        return WitnessError(
            "witness_unknown_key",
            f"it does not trust the key that signs this ledger: {said}",
            "give its operator the newest keys/ledger.vkey (immure ledger witness trust FILE)",
        )
    if response.status == 429 or response.status >= 500:
        return WitnessError(
            "witness_busy", f"it answers {response.status}: {said}", "see to the witness; it is tried again"
        )
    return bad_answer(f"it answers {response.status}: {said}")


def bad_answer(
    why: str, remedy: str = "see that the URL is a witness's (C2SP tlog-witness), and what it logs"
) -> WitnessError:
    return WitnessError("witness_bad_answer", why, remedy)


def _no_proof(why: str) -> WitnessError:
    return WitnessError(
        "witness_no_proof", why, "see `immure ledger verify`; what is derived is made anew at a restart"
    )


def _shown(body: bytes) -> str:
    """A stranger's text for a message: one line, bounded, nothing that a terminal would act on."""
    text = body[:_SHOWN].decode(errors="replace").partition("\n")[0]
    return "".join(c if c.isprintable() else "?" for c in text) or "nothing"
