"""What can go wrong on the client's side of the socket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from immured.errors import ImmuredError, RemoteError

if TYPE_CHECKING:
    from immured.client.elevation import Proposal
    from immured.client.outcome import RunResult
    from immured.wire.messages import Receipt, Reply

__all__ = ["ConnectionLost", "NoReply", "Proposed", "Refusal", "RunFailed", "StreamMismatch", "UntrustedReply"]


class ConnectionLost(ImmuredError):
    """The connection ended before the reply. The command may have been done: send the same bytes again to learn it."""

    def __init__(self, message: str, remedy: str = "look whether the daemon runs: immure status") -> None:
        super().__init__("connection_lost", message, remedy)


class NoReply(ImmuredError, TimeoutError):
    """The client's own `timeout` passed. The command goes on as long as the connection is open."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            "no_reply",
            f"no reply within {seconds:g} s",
            "allow more time, or bound the run itself: limits={'wall': ...}",
        )


class UntrustedReply(ImmuredError):
    """What came is not the pinned daemon's word on this command."""

    def __init__(self, message: str) -> None:
        super().__init__("untrusted_reply", message, "check that daemon.pub is this daemon's")


class StreamMismatch(ImmuredError):
    """The data that came is not the data that the signed reply speaks of."""

    def __init__(self, stream: str, message: str) -> None:
        super().__init__(
            "stream_mismatch", f"{stream}: {message}", "trust nothing of this stream", details={"stream": stream}
        )


class Refusal(RemoteError):
    """The daemon's signed refusal. `receipt` and `intent` are set where the ledger holds what the refusal speaks of."""

    def __init__(self, reply: Reply) -> None:
        said: Mapping[str, object] = reply.error or {}
        details = said.get("details")
        super().__init__(
            str(said.get("code", "internal")),
            str(said.get("message", "")),
            str(said.get("remedy", "")),
            details=details if isinstance(details, dict) else {},
        )
        self.reply = reply

    @property
    def receipt(self) -> Receipt | None:
        """The ledger's entry of the outcome or the denial."""
        return self.reply.receipt

    @property
    def intent(self) -> Receipt | None:
        """The ledger's entry of the intent."""
        return self.reply.intent


class RunFailed(ImmuredError):
    """Raised by `RunResult.check` alone: the command did not exit with 0."""

    def __init__(self, result: RunResult) -> None:
        super().__init__("run_failed", f"{result.cause}: {result.summary}")
        self.result = result


class Proposed(ImmuredError):
    """Of a client that proposes: the command was recorded for others to approve, and not done."""

    def __init__(self, proposal: Proposal) -> None:
        super().__init__(
            "proposed",
            f"{proposal.cmd} was proposed as {proposal.id}, and is not done yet",
            f"have it approved (immure proposal approve {proposal.id}), then give the same command again",
            details={"proposal": proposal.id, "digest": proposal.digest},
        )
        self.proposal = proposal
