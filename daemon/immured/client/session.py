"""One connection's protocol state, sans-I/O: requests in flight, frames matched to them, replies verified.

The two clients differ in how they wait; what a frame means is here, once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from immured.client.errors import ConnectionLost, Refusal, UntrustedReply
from immured.errors import ImmuredError, Refused
from immured.wire.data_frames import data_in
from immured.wire.envelope import Envelope, decode_envelope, seal, verify
from immured.wire.keys import PublicKey, Signer
from immured.wire.messages import (
    COMMAND,
    DATA,
    HELLO,
    MAX_LIFETIME_MS,
    REPLY,
    Command,
    Data,
    Hello,
    Reply,
    new_nonce,
    parse_data,
    parse_hello,
    parse_reply,
)

__all__ = ["LIFETIME_MS", "QUEUE_BYTES", "Behalf", "Call", "Request", "Session", "sign"]

LIFETIME_MS: Final = 60_000
QUEUE_BYTES: Final = 4 << 20
"""A call whose unread data exceeds this stops the connection's reading, until its owner takes some."""


@dataclass(frozen=True, slots=True)
class Request:
    """A signed command: the bytes that may be sent again, and how its answer will name it."""

    nonce: bytes
    digest: bytes
    body: bytes
    exp: int


@dataclass(frozen=True, slots=True)
class Behalf:
    """Under which persona, in which tenant and project, on whose behalf and in which session a command is given."""

    persona: str | None = None
    tenant: str | None = None
    sub: str | None = None
    project: str | None = None
    session: str | None = None


def sign(
    key: Signer,
    aud: str,
    cmd: str,
    args: Mapping[str, object],
    *,
    now_ms: int,
    lifetime_ms: int = LIFETIME_MS,
    behalf: Behalf | None = None,
) -> Request:
    """A command for the daemon `aud`, valid from `now_ms` on. Raises Refused `bad_msgpack` for what cannot be sent."""
    if not 0 < lifetime_ms <= MAX_LIFETIME_MS:
        raise ValueError(f"a command lives 1 to {MAX_LIFETIME_MS} ms, not {lifetime_ms}")
    behalf = behalf or Behalf()
    command = Command(
        aud, cmd, args, new_nonce(), now_ms, now_ms + lifetime_ms,
        behalf.persona, behalf.tenant, behalf.sub, behalf.project, behalf.session,
    )  # fmt: skip
    payload = command.to_payload()
    return Request(command.nonce, hashlib.sha256(payload).digest(), seal(COMMAND, payload, [key]), command.exp)


class Call:
    """A request in flight: what has come for it and was not yet taken by `owner` (a thread, a task)."""

    __slots__ = ("events", "owner", "queued", "replied", "request")

    def __init__(self, request: Request, owner: Hashable) -> None:
        self.request = request
        self.owner = owner
        self.events: deque[Data | Reply | Exception] = deque()
        self.queued = 0
        self.replied = False

    def take(self) -> Data | Reply | Exception | None:
        """The next event, if one has come."""
        if not self.events:
            return None
        event = self.events.popleft()
        if isinstance(event, Data):
            self.queued -= len(event.data)
        return event


class Session:
    """`daemon` is the pinned key; None believes anybody (insecure). Threads that share one hold a lock."""

    def __init__(self, daemon: PublicKey | None) -> None:
        self.daemon: Final = daemon
        self.hello: Hello | None = None
        self.failure: ImmuredError | None = None
        self.waiting: dict[Hashable, int] = {}
        """Owners that wait for something now: they cannot also be taking another call's data."""
        self._by_nonce: dict[bytes, Call] = {}
        self._by_digest: dict[bytes, Call] = {}
        self._presented: frozenset[bytes] = frozenset()

    def present(self, chain: Iterable[Envelope]) -> None:
        """These certificates go out before the first command: whoever refuses one, refuses the connection's key."""
        self._presented |= {hashlib.sha256(one.payload).digest() for one in chain}

    @property
    def audience(self) -> str:
        """Whom commands are for. Raises UntrustedReply before the hello of a daemon that is not pinned."""
        if self.daemon is not None:
            return self.daemon.id
        if self.hello is None:
            raise UntrustedReply("no hello has come, and no daemon is pinned")
        return self.hello.daemon

    def open(self, request: Request, owner: Hashable) -> Call:
        """Begins to expect answers to `request`. Raises the connection's failure."""
        if self.failure is not None:
            raise self.failure
        call = Call(request, owner)
        self._by_nonce[request.nonce] = call
        self._by_digest[request.digest] = call
        return call

    def forget(self, call: Call) -> None:
        """What still comes for it is dropped."""
        self._by_nonce.pop(call.request.nonce, None)
        self._by_digest.pop(call.request.digest, None)
        call.events.clear()
        call.queued = 0

    def wait_begins(self, owner: Hashable) -> None:
        """`owner` waits: for an event, or for room to send."""
        self.waiting[owner] = self.waiting.get(owner, 0) + 1

    def wait_ends(self, owner: Hashable) -> None:
        """The end of the wait that began last."""
        left = self.waiting[owner] - 1
        if left:
            self.waiting[owner] = left
        else:
            del self.waiting[owner]

    @property
    def congested(self) -> bool:
        """Whether reading pauses: a call holds much, and its owner is free to take it. An owner that waits for another
        call, or to send, is not: pausing for that one would wait for ever."""
        return any(call.queued > QUEUE_BYTES and call.owner not in self.waiting for call in self._by_nonce.values())

    def receive(self, body: bytes) -> None:
        """One frame's body. Raises ImmuredError, `failure` from then on, when the connection is of no more use."""
        try:
            self._receive(body)
        except Refused as error:
            self.fail(UntrustedReply(f"the daemon's frame cannot be read: {error}"))
        except ImmuredError as error:
            self.fail(error)
        if self.failure is not None:
            raise self.failure

    def fail(self, error: ImmuredError) -> None:
        """Ends the connection's use for every call. The first reason stays."""
        if self.failure is None:
            self.failure = error

    def _receive(self, body: bytes) -> None:
        data = data_in(body)
        if data is not None:
            self._data(data)
            return
        envelope = decode_envelope(body)
        if envelope.type == DATA:
            self._data(parse_data(envelope.payload))
            return
        if envelope.type not in (HELLO, REPLY):
            return  # a later version's message
        if self.daemon is not None:
            daemon = self.daemon
            try:
                verify(envelope, lambda keyid: daemon if keyid == daemon.id else None)
            except Refused as error:
                raise UntrustedReply(f"not signed by the pinned daemon {daemon.id}: {error.message}") from None
        if envelope.type == HELLO:
            self.hello = parse_hello(envelope.payload)
        else:
            self._reply(parse_reply(envelope.payload))

    def _data(self, data: Data) -> None:
        call = self._by_nonce.get(data.re)
        if call is not None and not call.replied:
            call.events.append(data)
            call.queued += len(data.data)

    def _reply(self, reply: Reply) -> None:
        if reply.req is None:
            if reply.ok:
                raise UntrustedReply("a result that names no request")
            raise Refusal(reply)  # of the connection itself, or of a frame that could not be read
        call = self._by_digest.get(reply.req)
        if call is None:
            if reply.req in self._presented and not reply.ok:
                raise Refusal(reply)
            return
        if reply.re is not None and reply.re != call.request.nonce:
            raise UntrustedReply("the reply names another nonce than the request that it digests")
        call.replied = True
        call.events.append(reply)

    def ended(self, *, torn: bool) -> None:
        """The peer closed."""
        self.fail(ConnectionLost("the daemon closed the connection" + (" inside a frame" if torn else "")))
