"""The blocking client."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, Unpack

from immured.client.errors import ConnectionLost
from immured.client.link import Deadline, Link, connect_socket
from immured.client.order import Order, RunOptions, Text, arguments
from immured.client.outcome import Answer, Collector, RunResult, Sink, answer
from immured.client.pump import Pump
from immured.client.retry import Backoff
from immured.client.session import Behalf, Call, Request, sign
from immured.client.trust import KeySource, PublicKeySource, public_key, resolve
from immured.errors import ImmuredError
from immured.wire.messages import Data, Hello, Reply

__all__ = ["Client", "Run"]


class Client:
    """Gives a daemon signed orders and believes signed replies alone.

        with Client(socket=..., key=...) as client:
            result = client.run(["/usr/bin/python3", "-c", "print(6 * 7)"], limits={"memory": "256M"})

    `socket` is a path [IMMURE_SOCKET, then the system's]; `key` the caller's private key, PEM or its path [IMMURE_KEY,
    then ~/.config/immure/key.pem]; `daemon_key` the daemon's public key [IMMURE_DAEMON_KEY, then daemon.pub beside the
    socket]. Without a daemon key nothing is sent, unless `insecure` says that replies are not to be verified at all.
    `timeout` bounds every call, in seconds; None waits for ever. `persona`, `tenant` and `sub` go into every command.

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
    ) -> None:
        self._trust: Final = resolve(socket, key, daemon_key, insecure=insecure)
        self._timeout = timeout
        self._behalf = Behalf(persona, tenant, sub)
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
        sinks = {name: sink for name, sink in (("stdout", on_stdout), ("stderr", on_stderr)) if sink is not None}
        order = arguments(argv, stream=stream or bool(sinks), **options)
        kept = {"stdout", "stderr"} - sinks.keys()
        deadline = self._deadline(timeout)
        backoff = Backoff(retries if order.repeatable else 0)
        request: Request | None = None
        while True:
            try:
                link = self._connected(deadline)
                request = request or self._sign(link, "run", order.args)
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
        order = arguments(argv, stream=True, **options)
        deadline = self._deadline(timeout)
        link = self._connected(deadline)
        return Run(link, self._sign(link, "run", order.args), order, deadline)

    def plan(self, argv: Sequence[Text], **options: Unpack[RunOptions]) -> Mapping[str, object]:
        """What `run` would do with these arguments, step by step, and what would enforce each limit. Runs nothing."""
        order = arguments(argv, **options)
        return self.call("plan", order.args).result

    def status(self) -> Mapping[str, object]:
        """The daemon's facts: version, live runs, controllers, enforcement, the ledger's size."""
        return self.call("status").result

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
        """The keys that are let in, as `keys`."""
        return self.call("key.list").result

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
        deadline = self._deadline(timeout)
        backoff = Backoff(retries)
        request: Request | None = None
        while True:
            try:
                link = self._connected(deadline)
                request = request or self._sign(link, cmd, args or {})
                return answer(self._exchange(link, request, fds, deadline))
            except ImmuredError as error:
                time.sleep(backoff.delay(error, request))

    def _deadline(self, timeout: float | None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _exchange(self, link: Link, request: Request, fds: Sequence[int], deadline: Deadline) -> Reply:
        call = link.open(request)
        try:
            link.send(request.body, fds, deadline)
            while True:
                event = link.next(call, deadline)
                if isinstance(event, Reply):
                    return event
        finally:
            link.forget(call)

    def _sign(self, link: Link, cmd: str, args: Mapping[str, object]) -> Request:
        now_ms = time.time_ns() // 1_000_000
        return sign(self._trust.key, link.session.audience, cmd, args, now_ms=now_ms, behalf=self._behalf)

    def _connected(self, deadline: Deadline) -> Link:
        with self._lock:
            if self._link is not None and not self._link.usable:
                self._link.close()
                self._link = None
            if self._link is None:
                self._link = Link(connect_socket(self._trust.socket, deadline), self._trust.daemon)
            link = self._link
        if self._trust.daemon is None:
            link.hello(deadline)  # it alone says whom commands are for
        return link


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
                self._pump = Pump(link, call, order.source, self._collector)
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
