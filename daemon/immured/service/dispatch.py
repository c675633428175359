"""From a whole frame to the one answer of its command.

    envelope -> signature over the exact bytes -> payload, parsed once -> window and audience -> the peer may present
    that key, under these names -> the nonce is new -> policy allows this -> the command's handler, which asks about
    what it acts on

What fails before a signature verified is counted against the peer's uid; what fails after is a decision, and in the
ledger before it is answered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any, Final

from immured.errors import ImmuredError, Refused
from immured.identity.actor import Actor, Caller, bind
from immured.identity.policy.permissions import TargetKind
from immured.identity.replay import AlreadyDone, Claim, Held, InProgress
from immured.isolation.messages import Peer
from immured.ledger import entry_types
from immured.service.channel import Channel
from immured.service.commands import CommandSpec
from immured.service.context import Service, log
from immured.service.decided import only_looked
from immured.service.request import Answer, Descriptors, Request
from immured.service.shares import monotonic_ms
from immured.wire.certificate import CERTIFICATE
from immured.wire.envelope import Envelope, decode_envelope, seal, verify
from immured.wire.frames import MAX_FRAME, Frame
from immured.wire.messages import (
    COMMAND,
    DATA,
    REPLY,
    Command,
    Data,
    Receipt,
    Reply,
    check_window,
    nonce_in,
    parse_command,
    parse_data,
)
from immured.wire.strict import nearest, shown

__all__ = ["Dispatcher"]

_STOPPING: Final = frozenset({"key.suspend", "key.revoke"})
_INTERNAL: Final = "the daemon made a mistake; its log has the details"


class Dispatcher:
    """Takes whole frames. `commands` is by name; `in_flight` bounds the requests of one connection."""

    def __init__(
        self,
        service: Service,
        commands: Mapping[str, CommandSpec],
        *,
        in_flight: int,
    ) -> None:
        self._service = service
        self._commands = commands
        self._in_flight = in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: set[Request] = set()
        self._decided = service.decided
        self._decided.of(commands)

    def frame(self, channel: Channel, frame: Frame) -> None:
        """One whole frame. Its descriptors are ours from here on."""
        descriptors = Descriptors(frame.fds, channel.dispose)
        try:
            envelope = decode_envelope(frame.body)
            if envelope.type == COMMAND:
                self._command(channel, envelope, descriptors)
                return
            if descriptors:
                raise Refused(
                    "bad_descriptor", "descriptors with what is no command", "only `run` takes them, with `fds`"
                )
            if envelope.type == CERTIFICATE:
                self._certificate(channel, envelope)
                return
            if envelope.type != DATA:
                raise Refused("bad_type", f"a message of the type {shown(envelope.type)}", f"requests are {COMMAND}")
            self._feed(channel, parse_data(envelope.payload, strict=True))
        except Refused as error:
            descriptors.close()
            self._service.misbehaviour.add(channel.peer.uid, error.code)
            channel.failed()
            self._send(channel, Reply.refusal(error))
            if error.code != "bad_type":
                channel.close_when_sent()
        except Exception:  # noqa: BLE001 - one frame's accident is not everybody's
            log.exception("a frame could not be dealt with")
            descriptors.close()
            channel.close()

    async def finish(self) -> None:
        """Wait for every command that is on its way."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _feed(self, channel: Channel, data: Data) -> None:
        """A client's data frame: the stdin of the run that it names, or nobody's."""
        if data.stream == "stdin" and (fed := self._service.feeds.get((channel, data.re))) is not None:
            fed.feed(data.data)
        else:
            channel.stray()

    def _certificate(self, channel: Channel, envelope: Envelope) -> None:
        """A link of the chain by which a key acts on this connection. Nothing is answered where it holds: what it gives
        is asked at each command."""
        service = self._service
        try:
            channel.presented.add(
                envelope, service.authority.find, service.clock(), service.audiences, service.authority.barred
            )
        except Refused as error:
            service.misbehaviour.add(channel.peer.uid, error.code)
            channel.failed()
            self._send(channel, Reply.refusal(error, req=hashlib.sha256(envelope.payload).digest()))
        else:
            channel.stray()  # a recorded one verifies too: it proves nothing

    # -- a command's way in

    def _command(self, channel: Channel, envelope: Envelope, descriptors: Descriptors) -> None:
        service = self._service
        digest = hashlib.sha256(envelope.payload).digest()
        try:
            key_id = verify(
                envelope, lambda key: service.authority.public_key(key) or channel.presented.public_key(key)
            )
            _check_one_record(key_id, service, channel)
        except Refused as error:
            descriptors.close()
            service.misbehaviour.add(channel.peer.uid, error.code)
            channel.failed()
            self._send(channel, Reply.refusal(error, req=digest))
            return
        record, chain, anchor = service.authority.find(key_id), None, None
        if record is None:
            chain = channel.presented.chain(key_id)
            assert chain is not None  # noqa: S101 - verify() looked it up a moment ago, on this thread
            anchor = service.authority.find(chain.root)
            assert anchor is not None  # noqa: S101 - no key leaves the keyring
            record = channel.presented.record(key_id, anchor)
        links = () if chain is None else chain.links
        caller = caller_of(channel.peer)
        actor = Actor(record, caller, record.role, chain=links, anchor=anchor)
        command: Command | None = None
        try:
            command = parse_command(envelope.payload)
            now = service.clock()
            check_window(command, now, service.audiences)
            if channel.in_flight >= self._in_flight:
                raise Refused("busy", f"{channel.in_flight} requests are in flight on this connection", "wait for one")
            actor = bind(
                record,
                caller,
                service.authority.names,
                now,
                persona=command.persona,
                tenant=command.tenant,
                project=command.project,
                sub=command.sub if chain is None else chain.behalf(command.sub),
                session=command.session,
                chain=links,
                anchor=anchor,
            )
            account, steady = actor.root.id, monotonic_ms()
            service.rates.check(account, actor.uid, actor.tenant, steady)
            verdict = service.replay.claim(
                key_id, command.nonce, digest, actor.uid, command.exp, now, steady=steady, account=account
            )
        except Refused as error:
            descriptors.close()
            if not error.retry or error.code == "rate_limited":
                channel.failed()
            nonce = nonce_in(envelope.payload) if command is None else command.nonce
            self._decided.begin(digest)
            self._spawn(channel, self._turn_away(channel, error, actor, command, nonce, digest))
            return
        channel.proven()
        if isinstance(verdict, Claim):
            request = Request(channel, command, digest, actor, verdict, descriptors)
            self._under_way.add(request)
            self._decided.begin(digest)
            self._spawn(channel, self._serve(request, self._begin(request)))
            return
        descriptors.close()
        self._answer_again(channel, command, digest, verdict)

    def _answer_again(
        self, channel: Channel, command: Command, digest: bytes, verdict: Held | InProgress | AlreadyDone
    ) -> None:
        if isinstance(verdict, Held):
            channel.send(verdict.reply)
            return
        if isinstance(verdict, InProgress):
            error = Refused("in_progress", "this very command is running", "wait for its reply, or ask again later")
            reply = Reply.refusal(error, re=command.nonce, req=digest, intent=verdict.intent)
        else:
            error = Refused(
                "already_done", "this very command was done; its reply is no longer held", "the ledger has the outcome"
            )
            reply = Reply.refusal(error, re=command.nonce, req=digest, receipt=verdict.outcome, intent=verdict.intent)
        self._send(channel, reply)

    async def _turn_away(
        self,
        channel: Channel,
        error: Refused,
        actor: Actor,
        command: Command | None,
        nonce: bytes | None,
        digest: bytes,
    ) -> None:
        """Refused before its nonce was claimed: anybody may be repeating somebody's signed bytes."""
        receipt, counted = None, self._decided
        if error.retry:
            counted.undecided += 1
        elif self._service.denials.admit(actor.uid, digest):
            said: dict[str, object] = {"payload": digest.hex()}
            if command is not None:
                said |= {"cmd": command.cmd, "nonce": command.nonce.hex()}
            receipt = await self._enter_denial(error, actor, said)
            counted.decided("" if command is None else command.cmd, digest)
        else:
            counted.bounded += 1
            self._service.misbehaviour.add(actor.uid, error.code)
        counted.end(digest)
        self._send(channel, Reply.refusal(error, re=nonce, req=digest, receipt=receipt))

    async def _serve(self, request: Request, work: Awaitable[Answer]) -> None:
        service = self._service
        command, claim = request.command, request.claim
        re, req = command.nonce, request.digest
        try:
            answer = await work
            if not request.warrant.checked:
                raise _UnaskedError(command.cmd)
            if not request.acted and request.warrant.to_map():
                answer = await self._tell(request, answer)
            self._count(request, read=not request.acted and only_looked(command.cmd, answer.result))
            reply = Reply(ok=True, result=answer.result, receipt=answer.receipt, intent=answer.intent, re=re, req=req)
        except Refused as error:
            if error.retry and not request.acted:
                self._count(request, decided=False)
                service.replay.release(claim)
                self._send(request.channel, Reply.refusal(error, re=re, req=req))
                return
            receipt = request.refused or claim.outcome
            if not request.acted and request.refused is None:
                receipt = await self._enter_denial(error, request.actor, request.to_map())
            self._count(request)
            reply = Reply.refusal(error, receipt=receipt, intent=claim.intent, re=re, req=req)
        except ImmuredError as error:
            self._count(request, decided=request.acted)
            reply = Reply.refusal(error, receipt=claim.outcome, intent=claim.intent, re=re, req=req)
        except Exception:  # noqa: BLE001 - one command's accident is not everybody's
            log.exception("%s failed", command.cmd)
            self._count(request, decided=request.acted)
            reply = Reply.refusal(
                Refused("internal", _INTERNAL, "report it"), receipt=claim.outcome, intent=claim.intent, re=re, req=req
            )
        finally:
            self._under_way.discard(request)
            request.descriptors.close()
            if request.admitted is not None:
                service.authority.conclude(request.admitted, request.acted)
        sealed = self._seal(reply)
        service.replay.finish(claim, sealed, reply.receipt)
        request.channel.send(sealed)
        if reply.ok and command.cmd in _STOPPING:
            self._cut_off(request.channel)

    def _count(self, request: Request, *, decided: bool = True, read: bool = False) -> None:
        """It is answered now, as nothing that needs an entry, or as what has one."""
        counted = self._decided
        if read:
            counted.reads += 1
        elif decided:
            counted.decided(request.command.cmd, request.digest)
        else:
            counted.undecided += 1
        counted.end(request.digest)

    def _cut_off(self, asking: Channel) -> None:
        """A key was stopped: what it has under way ends, as its connections do. Who asked is answered first."""
        for channel in {one.channel for one in self._under_way if self._service.authority.stopped(one.actor)}:
            if channel is asking:
                channel.close_when_sent()
            else:
                channel.close()

    async def _tell(self, request: Request, answer: Answer) -> Answer:
        """What only reads has no entry; under a grant or a proposal it has one, so that those are used up by it."""
        ledger = self._service.ledger
        done = await ledger.entry(entry_types.COMMAND_DONE, request.actor.to_map(), request.to_map()).durable()
        request.acted = True
        request.claim.outcome = receipt = Receipt(done.seq, done.leaf)
        return Answer(answer.result, receipt)

    def _begin(self, request: Request) -> Awaitable[Answer]:
        """What a handler does before it first waits, now: what follows on the connection comes after it."""
        try:
            return self._handle(request)
        except Exception as error:  # noqa: BLE001 - raised again where it is answered
            return _raise(error)

    def _handle(self, request: Request) -> Awaitable[Answer]:
        name = request.command.cmd
        spec = self._commands.get(name)
        if spec is None:
            near = nearest(name, self._commands)
            raise Refused(
                "unknown_command",
                f"no command is called {shown(name)}",
                f"did you mean {near!r}?" if near else f"known are {', '.join(sorted(self._commands))}",
            )
        service = self._service
        request.admitted = warrant = service.authority.admit(request.actor, request.command, service.clock())
        if spec.target in (TargetKind.NOTHING, TargetKind.HOST):
            warrant.check_command()
        if service.health is not None:
            service.health.check(name)
        if request.descriptors and not spec.takes_descriptors:
            raise Refused("bad_descriptor", f"{name} takes no descriptors", "only `run` takes them, with `fds`")
        return spec.handle(service, request)

    # -- answers

    async def _enter_denial(self, error: Refused, actor: Actor, said: Mapping[str, object]) -> Receipt | None:
        """The denial in the ledger, durable. None where the ledger is what fails: nothing ran all the same."""
        data = {**said, "code": error.code, "message": error.message}
        try:
            receipt = await self._service.ledger.entry(entry_types.COMMAND_DENIED, actor.to_map(), data).durable()
        except Refused:
            return None
        return Receipt(receipt.seq, receipt.leaf)

    def _send(self, channel: Channel, reply: Reply) -> None:
        channel.send(self._seal(reply))

    def _seal(self, reply: Reply) -> bytes:
        """The reply as a frame's body; one that cannot be sent is replaced by an error that can, receipts and all."""
        try:
            sealed = seal(REPLY, reply.to_payload(), self._service.keys.signing)
            if len(sealed) <= MAX_FRAME:
                return sealed
            said = Refused(
                "frame_too_large", f"the answer has {len(sealed)} bytes; a frame holds {MAX_FRAME}", "ask less"
            )
        except Refused:
            log.exception("a reply could not be packed")
            said = Refused("internal", _INTERNAL, "report it")
        smaller = Reply.refusal(said, re=reply.re, req=reply.req, receipt=reply.receipt, intent=reply.intent)
        return seal(REPLY, smaller.to_payload(), self._service.keys.signing)

    def _spawn(self, channel: Channel, work: Coroutine[Any, Any, None]) -> None:
        channel.begin()
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(channel, done))

    def _done(self, channel: Channel, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        channel.end()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a command's task failed", exc_info=error)


def caller_of(peer: Peer) -> Caller:
    """The peer of a connection, as an actor's caller."""
    return Caller(peer.uid, peer.gid, peer.pid, peer.groups, peer.exe.decode("utf-8", "backslashreplace") or None)


def _check_one_record(key_id: str, service: Service, channel: Channel) -> None:
    """Anybody who may add keys may add this one, as what he likes: whoever said by certificate as whom he acts must
    not act as somebody else from then on. Raises Refused `bad_certificate`."""
    if channel.presented.chain(key_id) is not None and service.authority.find(key_id) is not None:
        raise Refused(
            "bad_certificate",
            f"{key_id} was put into the keyring meanwhile, and acts by a certificate here",
            "sign with it as it is, on another connection; or certify another key",
        )


class _UnaskedError(Exception):
    """A handler answered and had asked nobody whether it might: a mistake in this package."""


async def _raise(error: Exception) -> Answer:
    raise error
