"""One authenticated command on its way through the daemon, and the one answer that it gets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from immured.identity.actor import Actor
from immured.identity.policy.warrant import Warrant
from immured.identity.replay import Claim
from immured.service.channel import Channel
from immured.wire.messages import Command, Receipt

__all__ = ["Answer", "Descriptors", "Request"]


class Descriptors:
    """What came along with a frame. Whoever ends up with it closes it, by `dispose`; twice is once."""

    __slots__ = ("_dispose", "fds")

    def __init__(self, fds: tuple[int, ...], dispose: Callable[[Iterable[int]], None]) -> None:
        self.fds = fds
        self._dispose = dispose

    def __bool__(self) -> bool:
        return bool(self.fds)

    def close(self) -> None:
        """Close them all."""
        fds, self.fds = self.fds, ()
        self._dispose(fds)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command came to. `receipt` is the durable ledger entry that holds the outcome, `intent` a run's first."""

    result: Mapping[str, object]
    receipt: Receipt | None = None
    intent: Receipt | None = None


class Request:
    """A command whose signature, window, peer and nonce are in order. `digest` is the SHA-256 of its payload bytes.

    `acted` is set at the first effect: from then on no refusal gives the nonce back. `admitted` is set once policy
    allowed the command. `refused` is the entry of its refusal, where its handler made one that says more.
    """

    __slots__ = ("acted", "actor", "admitted", "channel", "claim", "command", "descriptors", "digest", "refused")

    def __init__(
        self, channel: Channel, command: Command, digest: bytes, actor: Actor, claim: Claim, descriptors: Descriptors
    ) -> None:
        self.channel = channel
        self.command = command
        self.digest = digest
        self.actor = actor
        self.claim = claim
        self.descriptors = descriptors
        self.acted = False
        self.admitted: Warrant | None = None
        self.refused: Receipt | None = None

    @property
    def warrant(self) -> Warrant:
        """What its handler asks whether this may be done to that."""
        assert self.admitted is not None  # noqa: S101 - no handler is called before
        return self.admitted

    def to_map(self) -> dict[str, object]:
        """What the ledger says of a command: enough to rebuild the replay record, and to tie an entry to its bytes."""
        command, admitted = self.command, self.admitted
        return {
            "cmd": command.cmd,
            "nonce": command.nonce.hex(),
            "payload": self.digest.hex(),
            "iat": command.iat,
            "exp": command.exp,
            **({} if admitted is None else admitted.to_map()),
            **({} if admitted is None or admitted.consent is None else {"consent": admitted.consent}),
            **self.actor.counted(),
        }
