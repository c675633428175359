"""The blocking client."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar, Unpack

from immured.client import sandbox_questions as questions
from immured.client.batch import Batch
from immured.client.batch_questions import BatchOptions, OneRun, Part, parts
from immured.client.elevation import PROPOSING, propose
from immured.client.errors import ConnectionLost, Proposed
from immured.client.link import Deadline, Link, connect_socket
from immured.client.manifests import Manifests
from immured.client.order import Order, RunOptions, Text, arguments
from immured.client.outcome import Answer, Collector, RunResult, Sink
from immured.client.preflight import Preflight, preflight
from immured.client.pump import Pump
from immured.client.question import Asked, Progress, Question, Taken
from immured.client.retry import Backoff
from immured.client.sandbox import Sandbox
from immured.client.sandbox_facts import SandboxFacts
from immured.client.sandbox_questions import CreateOptions
from immured.client.session import Behalf, Call, Request, sign
from immured.client.trust import Chain, ChainSource, KeySource, PublicKeySource, certificates, public_key, resolve
from immured.errors import ImmuredError
from immured.wire.messages import Data, Hello, Reply

if TYPE_CHECKING:
    from immured.client.ledger import LedgerHead
    from immured.ledger.checkpoint import CosignKey, VerifierKey
    from immured.ledger.entry import Entry
    from immured.ledger.key_rotation import KeyHistory
    from immured.ledger.proof import Proven
    from immured.wire.messages import Receipt

__all__ = ["Client", "Run"]

T = TypeVar("T")


class Client:
    """Gives a daemon signed orders and believes signed replies alone.

        with Client(socket=..., key=...) as client:
            result = client.run(["/usr/bin/python3", "-c", "print(6 * 7)"], limits={"memory": "256M"})

    `socket` is a path [IMMURE_SOCKET, then the system's]; `key` the caller's private key, PEM or its path [IMMURE_KEY,
    then ~/.config/immure/key.pem]; `daemon_key` the daemon's public key [IMMURE_DAEMON_KEY, then daemon.pub beside the
    socket]. Without a daemon key nothing is sent, unless `insecure` says that replies are not to be verified at all.
    `timeout` bounds every call, in seconds; None waits for ever. `persona`, `tenant`, `project`, `sub` and `session` go
    into every command. `certificate`: the chain by which the key acts, where it is in no keyring [IMMURE_CERTIFICATE].
    `propose`: why; then commands are proposed for others to approve, and none is done (each raises Proposed).

    One connection, opened at first use, reopened after a loss. Safe for threads: calls are in flight at the same time.
    A call whose data nobody takes pauses the others once 4 MiB wait. Errors are ImmuredError: Refusal (the daemon's),
    ConnectionLost, NoReply, UntrustedReply, StreamMismatch, ConfigurationError.
    """

    def __init__(
        self,
        socket: str | os.PathLike[str] | None = None,
        key: KeySource | None = None,
        daemon_key: PublicKeySource | None = None,
        *,
        timeout: float | None = None,
        insecure: bool = False,
        persona: str | None = None,
        tenant: str | None = None,
        sub: str | None = None,
        project: str | None = None,
        session: str | None = None,
        certificate: ChainSource | None = None,
        propose: str | None = None,
    ) -> None:
        self._trust: Final = resolve(socket, key, daemon_key, insecure=insecure)
        self._chain = certificates(certificate)
        self._timeout = timeout
        self._behalf = Behalf(persona, tenant, sub, project, session)
        self._propose = propose
        self._lock = threading.Lock()
        self._link: Link | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._trust.socket}, {self._trust.key.id})"

    @property
    def key_id(self) -> str:
        """The id of the key that signs."""
        return self._trust.key.id

    @property
    def manifests(self) -> Manifests:
        """Manifests that the daemon has loaded: `client.manifests.Manifests`."""
        return Manifests(self)

    def connect(self) -> Hello:
        """Connects, where that is not yet done, and gives the daemon's hello. It may be a replayed one: only a reply
        shows that the daemon is there."""
        deadline = self._deadline(None)
        link = self._connected(deadline)
        return link.hello(deadline)

    def close(self) -> None:
        """Ends the connection; a run that was not detached is killed by that. The client may be used again."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def renew(self, certificate: ChainSource, *, timeout: float | None = None) -> None:
        """Acts by another chain from now on, which ends in the same key: before the one at hand expires. What is under
        way goes on."""
        chain = certificates(certificate)
        with self._lock:
            self._chain, link = chain, self._link
        if link is not None and link.usable:
            self._present(link, chain, self._deadline(timeout))

    def run(
        self,
        argv: Sequence[Text],
        *,
        stream: bool = False,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        timeout: float | None = None,
        retries: int = 0,
        **options: Unpack[RunOptions],
    ) -> RunResult:
        """Runs a command in a sandbox and waits for its end; `options` are RunOptions.

        `stream` brings the whole output, where a reply alone carries 256 KiB of each; `on_stdout` and `on_stderr` are
        called with it piece by piece instead, in this thread, before anything vouches for it. `timeout` bounds this
        wait (the run has its own: limits `wall`). `retries`: how often the same bytes are sent again after a lost
        connection or a refusal that may pass (`busy`); the daemon runs them once; input from a file is not sent again.

        Raises as the class says; a command that fails is a result.
        """
        order = arguments(argv, stream=stream or on_stdout is not None or on_stderr is not None, **options)
        return self.execute(order, on_stdout, on_stderr, timeout=timeout, retries=retries)

    def execute(
        self,
        order: Order,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
        *,
        timeout: float | None = None,
        retries: int = 0,
    ) -> RunResult:
        """An order of any kind that ends in a run's result, as `run` says."""
        sinks = {name: sink for name, sink in (("stdout", on_stdout), ("stderr", on_stderr)) if sink is not None}
        kept = {"stdout", "stderr"} - sinks.keys()
        self._check_done(order.cmd, order.args)
        deadline = self._deadline(timeout)
        backoff = Backoff(retries if order.repeatable else 0)
        request: Request | None = None
        while True:
            try:
                link = self._connected(deadline)
                request = request or self._sign(link, order.cmd, order.args)
                with Run(link, request, order, deadline, keep=kept, retried=backoff.used) as run:
                    for stream_name, data in run:
                        if stream_name in sinks:
                            sinks[stream_name](data)
                    return run.result
            except ImmuredError as error:
                time.sleep(backoff.delay(error, request))

    def start(self, argv: Sequence[Text], *, timeout: float | None = None, **options: Unpack[RunOptions]) -> Run:
        """Like `run`, and gives the output as it comes:

        with client.start(["make"]) as run:
            for stream, data in run:
                ...
        print(run.result.cause)
        """
        return self.begin(arguments(argv, stream=True, **options), timeout=timeout)

    def begin(self, order: Order, *, timeout: float | None = None) -> Run:
        """An order of any kind that ends in a run's result, as `start` says."""
        self._check_done(order.cmd, order.args)
        deadline = self._deadline(timeout)
        link = self._connected(deadline)
        return Run(link, self._sign(link, order.cmd, order.args), order, deadline)

    def batch(
        self,
        runs: Iterable[Sequence[Text] | OneRun],
        *,
        concurrency: int | None = None,
        timeout: float | None = None,
        **options: Unpack[BatchOptions],
    ) -> Batch:
        """Many runs under one signature, each in a sandbox of its own, so many at a time:

            for index, result in client.batch([["/bin/true"]] * 1000):
                ...

        A run is a list of words, or a map of what is its own (OneRun); `options` are what all share. More than one
        command holds (1,024 runs, 768 KiB) are several, one after the other. `timeout` bounds the whole.
        """
        deadline = self._deadline(timeout)

        def sign_part(part: Part) -> tuple[Link, Request]:
            self._check_done("run.batch", part.args)
            link = self._connected(deadline)
            return link, self._sign(link, "run.batch", part.args)

        return Batch(parts(runs, concurrency=concurrency, **options), sign_part, deadline)

    def plan(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> Mapping[str, object]:
        """What `run` would do with these arguments, step by step, and what would enforce each limit. Runs nothing."""
        order = arguments(argv, **options)
        return self.call("plan", order.args).result

    def sandbox(self, *, keep: bool = False, **options: Unpack[CreateOptions]) -> Sandbox:
        """Makes a sandbox that lives until it is removed, or its time to live (`ttl`) is over; `options` are
        CreateOptions. As a context manager it is removed when left, unless `keep`."""
        (facts,) = self.ask(questions.create(**options))
        return Sandbox(self, facts, keep=keep)

    def create(self, count: int, **options: Unpack[CreateOptions]) -> list[Sandbox]:
        """Makes many that are alike, under one signature."""
        return [Sandbox(self, facts) for facts in self.ask(questions.create(count=count, **options))]

    def open(self, word: str) -> Sandbox:
        """The sandbox with this id or name."""
        return Sandbox(self, self.ask(questions.show(word)), keep=True)

    def at(self, word: str) -> Sandbox:
        """The sandbox with this id or name. Nothing is asked yet: its `facts` are empty until `refresh`."""
        return Sandbox(self, SandboxFacts.unasked(word), keep=True)

    def sandboxes(self, *, labels: Mapping[str, str] | None = None, state: str | None = None) -> list[Sandbox]:
        """The caller's, oldest first: those that live, and the last that do not."""
        found: list[Sandbox] = []
        after: str | None = None
        while True:
            rows, after = self.ask(questions.page(labels=labels, state=state, after=after))
            found += [Sandbox(self, facts, keep=True) for facts in rows]
            if after is None:
                return found

    def prune(self, *, alive: bool = False, labels: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Lists those of the caller's no more that are over; `alive` ends the others first. Gives their ids."""
        return self.ask(questions.prune(alive=alive, labels=labels))

    def status(self) -> Mapping[str, object]:
        """The daemon's facts: version, live runs, controllers, enforcement, the ledger's size."""
        return self.call("status").result

    def preflight(
        self,
        *,
        manifest: str | Mapping[str, object] | None = None,
        raw: bytes | None = None,
        signatures: bytes | None = None,
        argv: Sequence[Text] | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> Preflight:
        """Whether a run would be let in now, and held by what its manifest asks for; nothing runs. `manifest` as for
        `run`; or `raw` and `signatures`: the bytes of a file, loaded or not, and of its detached signatures."""
        asked = preflight(manifest=manifest, raw=raw, signatures=signatures, argv=argv, parameters=parameters)
        return self.ask(asked)

    def kill(self, sandbox: str) -> Mapping[str, object]:
        """Ends a live sandbox; its run's cause is `killed`."""
        return self.call("kill", {"sandbox": sandbox}).result

    def key_add(
        self, name: str, public: PublicKeySource, *, role: str = "runner", **bindings: object
    ) -> Mapping[str, object]:
        """Lets the owner of a key in. `public` is a PublicKey, its PEM, or the PEM's path; `bindings` are `uids`,
        `personas`, `tenants`: lists that the key is bound to."""
        return self.call("key.add", {"name": name, "public": public_key(public).raw, "role": role, **bindings}).result

    def key_list(self) -> Mapping[str, object]:
        """The keys that are let in, as `keys`. `client.keys.Keys` has all that can be done with them."""
        return self.call("key.list").result

    def whoami(self) -> Mapping[str, object]:
        """As whom the daemon takes the caller: `key`, `name`, `role`, `tenant`, `permissions`, ..."""
        return self.call("whoami").result

    def daemon_rotate(self, *, overlap_ms: int | None = None) -> Mapping[str, object]:
        """Gives the daemon another key: `daemon` and `public` are the new one's, `previous` signs along until
        `until_ms`. By then whoever pins it has the new `daemon.pub`."""
        return self.call("daemon.rotate", {} if overlap_ms is None else {"overlap_ms": overlap_ms}).result

    def prove(
        self,
        entry: Receipt | int,
        *,
        keys: Iterable[VerifierKey] | KeyHistory | None = None,
        witnesses: Iterable[CosignKey] = (),
        require: int = 0,
    ) -> Proven:
        """Shows that an entry is in the ledger: by its receipt, or its `seq`. What comes back was checked, against the
        receipt too, and `proof.encode()` is a file that others check without the daemon (`immure ledger check-proof`).

        `keys`: the ledger's, as kept elsewhere; without them those that the daemon names. `require` of `witnesses` must
        have cosigned. Raises UntrustedReply for a proof that proves nothing; Refusal `not_found`, `proof_unavailable`.
        """
        from immured.client.ledger import prove

        return self.ask(prove(entry, keys, witnesses, require))

    def ledger_checkpoint(self, *, keys: Iterable[VerifierKey] | None = None) -> LedgerHead:
        """The ledger's newest signed head. Whoever keeps it elsewhere will see whether anything before it is changed
        (`immure ledger consistency`). `keys` as for `prove`."""
        from immured.client.ledger import ledger_checkpoint

        return self.ask(ledger_checkpoint(keys))

    def metrics(self) -> Mapping[str, object]:
        """`audit_ok`: of what was decided and executed, how much is in the ledger; `sec_inc`: security incidents, by
        class and severity (docs/metrics.md)."""
        return self.call("metrics").result

    def ledger_query(
        self,
        *,
        types: Collection[str] = (),
        actor: str = "",
        sandbox: str = "",
        since: str = "",
        until: str = "",
        tenant: str | None = None,
        first: int = 0,
    ) -> Iterator[Entry]:
        """The ledger's entries that one may see and that match, oldest first, asked for a page at a time. `types` may
        be patterns (`run.*`), `since` and `until` the beginnings of time stamps, `tenant` one that one reaches (empty:
        the host's). What the daemon says is its word: `prove` shows that an entry is in the ledger."""
        from immured.client.ledger_query import ledger_query

        asked = first or None
        while True:
            page = self.ask(ledger_query(types, actor, sandbox, since, until, tenant, asked))
            yield from page.entries
            if page.next is None:
                return
            asked = page.next

    def ledger_rotate_key(self) -> Mapping[str, object]:
        """Gives the ledger another key for its signed heads: `old` and `new` are verifier keys."""
        return self.call("ledger.rotate_key").result

    def call(
        self,
        cmd: str,
        args: Mapping[str, object] | None = None,
        *,
        fds: Sequence[int] = (),
        timeout: float | None = None,
        retries: int = 0,
    ) -> Answer:
        """Any command. Raises Refusal when the daemon says no."""
        return self.ask(Question(cmd, args or {}, lambda said: said, tuple(fds)), timeout=timeout, retries=retries)

    def ask(
        self,
        question: Question[T],
        *,
        sink: Taken | None = None,
        progress: Progress | None = None,
        timeout: float | None = None,
        retries: int = 0,
    ) -> T:
        """Asks, and gives what the answer comes to. `sink` takes what comes as data, in this thread; `progress` may be
        told in another one. Raises as the class says."""
        self._check_done(question.cmd, question.args)
        deadline = self._deadline(timeout)
        backoff = Backoff(retries if question.repeatable else 0)
        request: Request | None = None
        while True:
            try:
                link = self._connected(deadline)
                request = request or self._sign(link, question.cmd, question.args)
                return self._converse(link, request, question, Asked(question, sink, progress), deadline)
            except ImmuredError as error:
                time.sleep(backoff.delay(error, request))

    def _converse(self, link: Link, request: Request, question: Question[T], asked: Asked[T], deadline: Deadline) -> T:
        call = link.open(request)
        pump: Pump | None = None
        try:
            link.send(request.body, question.fds, deadline)
            if question.source is not None:
                pump = Pump(link, call, question.source, asked.sending, question.into)
            while True:
                event = link.next(call, deadline)
                if isinstance(event, Reply):
                    return asked.finish(event)
                asked.data(event)
        finally:
            if pump is not None:
                pump.stop()
            link.forget(call)

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _sign(self, link: Link, cmd: str, args: Mapping[str, object]) -> Request:
        now_ms = time.time_ns() // 1_000_000
        return sign(self._trust.key, link.session.audience, cmd, args, now_ms=now_ms, behalf=self._behalf)

    def _connected(self, deadline: Deadline) -> Link:
        with self._lock:
            if self._link is not None and not self._link.usable:
                self._link.close()
                self._link = None
            if self._link is None:
                self._link = self._open(deadline)
            link = self._link
        if self._trust.daemon is None:
            link.hello(deadline)  # it alone says whom commands are for
        return link

    def _open(self, deadline: Deadline) -> Link:
        link = Link(connect_socket(self._trust.socket, deadline), self._trust.daemon)
        try:
            self._present(link, self._chain, deadline)
        except BaseException:
            link.close()
            raise
        return link

    @staticmethod
    def _present(link: Link, chain: Chain, deadline: Deadline) -> None:
        link.session.present(envelope for _, envelope in chain)
        for body, _ in chain:
            link.send(body, (), deadline)

    def _check_done(self, cmd: str, args: Mapping[str, object]) -> None:
        """Where commands are proposed, this one is: raises Proposed, or what refuses that."""
        if self._propose is not None and not cmd.startswith(PROPOSING):
            raise Proposed(self.ask(propose(cmd, args, self._propose)))


class Run:
    """A run in flight: iterate it for `(stream, data)`, then read `result`. Leaving its `with` early ends the reading,
    not the run."""

    def __init__(
        self,
        link: Link,
        request: Request,
        order: Order,
        deadline: Deadline,
        *,
        keep: Collection[str] = (),
        retried: bool = False,
    ) -> None:
        self._link = link
        self._deadline = deadline
        self._retried = retried
        self._collector = Collector(order, keep=keep)
        self._pump: Pump | None = None
        self._result: RunResult | None = None
        call = link.open(request)
        self._call: Call | None = call
        try:
            link.send(request.body, order.fds, deadline)
            if order.source is not None:
                self._pump = Pump(link, call, order.source, self._collector.sending)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        while self._call is not None:
            try:
                event = self._link.next(self._call, self._deadline)
            except BaseException:
                self.close()
                raise
            if isinstance(event, Data):
                if self._collector.data(event):
                    yield event.stream, event.data
                continue
            self.close()
            self._result = self._collector.finish(event, retried=self._retried)

    @property
    def exec(self) -> str | None:
        """Of an exec in a sandbox: its id, once it has come; before its output."""
        return self._collector.exec

    @property
    def offset(self) -> int | None:
        """Of an attached log: the offset behind what was given out last."""
        return self._collector.offset

    @property
    def result(self) -> RunResult:
        """The result; waits for it, and passes over output that was not iterated."""
        for _ in self:
            pass
        if self._result is None:
            raise ConnectionLost("the run was left before its result came", "iterate it to its end")
        return self._result

    def close(self) -> None:
        """Stops taking part. The run itself ends with the connection, or by `Client.kill`."""
        call, self._call = self._call, None
        if self._pump is not None:
            self._pump.stop()
        if call is not None:
            self._link.forget(call)
