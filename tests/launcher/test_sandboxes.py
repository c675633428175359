"""What the launcher carries between brokers and the keepers of sandboxes that live; the keeper is the tests' own."""

from __future__ import annotations

import os
import socket

import pytest

from immured.isolation import messages
from immured.isolation.abi import BindFlag, Cause, Clerk, Message, Op, PlanKind, Stage
from immured.isolation.plan import Plan, Step
from tests.launcher.harness import Broker, exec_plan, plan_for, sandbox_plan
from tests.patience import PATIENCE_S

S, E = 11, 12
KNOWN = "type {} of {} bytes, {} descriptors"


def live(broker: Broker, number: int = S, sandbox: str = "s-1") -> int:
    broker.create(number, sandbox_plan(sandbox))
    assert broker.of_run(number).type == Message.CREATED
    return number


def heard(broker: Broker, number: int) -> str:
    """What the keeper says that it was told of this number."""
    return broker.of_run(number).failed.text


def test_a_sandbox_lives_until_it_is_killed(broker: Broker) -> None:
    live(broker)
    broker.kill(S)
    assert broker.of_run(S).exited.cause == Cause.KILLED


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (messages.encode_freeze(S, on=True), Message.FREEZE, 24),
        (messages.encode_extend(S, 10**9), Message.EXTEND, 24),
        (messages.encode_measure(S), Message.MEASURE, 16),
    ],
)
def test_what_is_said_to_a_sandbox_comes_to_its_keeper(broker: Broker, data: bytes, kind: int, size: int) -> None:
    live(broker)
    broker.send(data)
    assert heard(broker, S) == KNOWN.format(kind, size, 0)


@pytest.mark.parametrize(
    ("data", "kind", "size"),
    [
        (messages.encode_signal(E, 15, everybody=True), Message.SIGNAL, 24),
        (messages.encode_resize(E, 24, 80), Message.RESIZE, 24),
        (messages.encode_close_stdin(E), Message.CLOSE_STDIN, 16),
    ],
)
def test_what_is_said_to_an_exec_comes_to_its_keeper(broker: Broker, data: bytes, kind: int, size: int) -> None:
    live(broker)
    plan = exec_plan("/bin/true")
    broker.exec(E, S, plan)
    assert heard(broker, E) == KNOWN.format(int(Message.EXEC), 32 + len(plan), 4)
    broker.send(data)
    assert heard(broker, E) == KNOWN.format(int(kind), size, 0)


def test_what_is_said_of_somebody_else_goes_to_nobody(broker: Broker) -> None:
    live(broker)
    for data in (
        messages.encode_signal(99, 9, everybody=False),
        messages.encode_freeze(99, on=True),
        messages.encode_signal(S, 9, everybody=False),
        messages.encode_freeze(E, on=True),
    ):
        broker.send(data)
    broker.send(messages.encode_measure(S))
    assert heard(broker, S) == KNOWN.format(int(Message.MEASURE), 16, 0)


def test_a_clerk_is_asked_for_with_who_asks(broker: Broker) -> None:
    live(broker)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, broker.connection() as connection:
        with theirs:
            broker.send(messages.encode_ask(S, Clerk.FILES, connection), [theirs.fileno()])
        size = 16 + 16 + 4 * len(os.getgroups())
        assert heard(broker, S) == KNOWN.format(130, size, 1)


@pytest.mark.parametrize(("sandbox", "connection"), [(S, 77), (99, 0)])
def test_a_clerk_that_nobody_can_have_is_an_end_of_file(broker: Broker, sandbox: int, connection: int) -> None:
    live(broker)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            broker.send(messages.encode_ask(sandbox, Clerk.FILES, connection), [theirs.fileno()])
        ours.settimeout(PATIENCE_S)
        assert ours.recv(10) == b""


def test_an_exec_that_is_over_leaves_its_sandbox(broker: Broker) -> None:
    live(broker)
    broker.exec(E, S, exec_plan("/bin/true"))
    heard(broker, E)
    broker.kill(E)
    assert broker.of_run(E).failed.stage == Stage.KILLED
    broker.exec(E + 1, S, exec_plan("/bin/true"))
    assert heard(broker, E + 1).startswith("type")


def test_a_keeper_that_dies_is_told_with_its_execs(broker: Broker) -> None:
    live(broker, sandbox="dies")
    broker.exec(E, S, exec_plan("/bin/true", sandbox="dies"))
    assert broker.of_run(E).failed.stage == Stage.LOST
    assert broker.of_run(S).failed.stage == Stage.LOST


def test_an_exec_needs_a_sandbox_that_lives(broker: Broker) -> None:
    live(broker)
    broker.exec(E, 99, exec_plan("/bin/true"))
    assert broker.of_run(E).failed.stage == Stage.SANDBOX
    broker.kill(S)
    broker.exec(E + 1, S, exec_plan("/bin/true"))
    assert broker.of_run(E + 1).failed.stage == Stage.SANDBOX


def test_a_run_is_no_sandbox(broker: Broker) -> None:
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("never-prepared"))
        broker.exec(E, run, exec_plan("/bin/true"))
        assert broker.of_run(E).failed.stage == Stage.SANDBOX
        broker.kill(run)
        assert broker.of_run(run).failed.stage == Stage.KILLED


def test_each_order_takes_its_own_kind_of_plan(broker: Broker) -> None:
    live(broker)
    broker.create(21, plan_for("true"))
    broker.exec(22, S, sandbox_plan())
    with broker.connection() as connection:
        broker.prepare(connection, exec_plan("/bin/true"), run=23)
        for number in (21, 22, 23):
            failed = broker.of_run(number).failed
            assert (failed.stage, "where one of kind" in failed.text) == (Stage.PLAN, True)


def test_on_nobodys_authority_no_callers_path_is_opened(broker: Broker) -> None:
    def plan(flags: int) -> bytes:
        return Plan(
            (
                Step(Op.DEADLINES, (60 * 10**9, 0, 0)),
                Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"t", b"s-9")),
                Step(Op.BIND, (flags,), (b"/etc", b"/etc")),
                Step(Op.SEAL_ROOT),
                Step(Op.IDENTITY, (1000, 1000)),
            ),
            kind=PlanKind.SANDBOX,
        ).pack()

    broker.create(S, plan(0))
    failed = broker.of_run(S).failed
    assert (failed.stage, failed.text) == (Stage.PLAN, "step 2 names a caller's path, and there is no connection")
    broker.create(S, plan(BindFlag.GRANTED))
    assert broker.of_run(S).type == Message.CREATED


@pytest.mark.parametrize("first", ["sandbox", "exec"])
def test_a_number_in_use_ends_the_trust(broker: Broker, first: str) -> None:
    live(broker)
    broker.exec(E, S, exec_plan("/bin/true"))
    broker.create(S if first == "sandbox" else E, sandbox_plan("s-2"))
    assert broker.process.wait(PATIENCE_S) == 1


@pytest.mark.parametrize("kind", [Message.SIGNAL, Message.FREEZE, Message.EXTEND, Message.RESIZE, Message.ASK])
def test_a_message_cut_short_ends_the_trust(broker: Broker, kind: Message) -> None:
    broker.send(messages.HEADER.pack(kind, messages.HEADER.size, S))
    assert broker.process.wait(PATIENCE_S) == 1
