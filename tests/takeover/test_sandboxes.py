"""A taken-over broker, and what it may say of sandboxes that live: launcher and keepers do what is theirs to do, or
refuse, and serve on.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import immured
from immured.host.cgroup import cgroup2_mount
from immured.isolation import messages
from immured.isolation.abi import Cause, Clerk, Message, Op, PlanKind, Stage
from immured.isolation.messages import HEADER
from immured.isolation.plan import Plan, Step
from tests.launcher.harness import exec_plan
from tests.patience import PATIENCE_S
from tests.takeover.test_socket import SLOT_BASE, SLOTS, Takeover

NUMBERS = itertools.count(1 << 32)
FOR_EVER = (1 << 64) - 1
LIFE_NS = 600 * 10**9  # of a sandbox: more than any test of it takes
NUMBERS_OF_NOTE = (0, 1, 2, 3, 5, 40, 4096, 1 << 31, (1 << 32) - 1)


def sandbox_plan(*mounts: Step, name: str) -> bytes:
    steps = (
        Step(Op.DEADLINES, (LIFE_NS, 0, 0)),
        Step(Op.CGROUP, (0, 0, 0, 0, 0, 0), (b"t", name.encode())),
        *mounts,
        Step(Op.SEAL_ROOT),
        Step(Op.LOOPBACK),
        Step(Op.IDENTITY, (1000, 1000)),
    )
    return Plan(steps, kind=PlanKind.SANDBOX).pack()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Takeover]:
    state, directory = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("launcher")
    for name in ("volumes", "snapshots", "images"):
        (state / name / "t").mkdir(parents=True)
    secret = state / "secret"
    secret.mkdir()
    (secret / "data").mkdir()
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    broker = Takeover(
        *(program, directory),
        slot_base=SLOT_BASE + 4 * SLOTS * 65536,
        slot_count=SLOTS,
        cgroup=f"{cgroup2_mount()}/immured-takeover-s-{os.getpid()}",
        storage=state,
    )
    with contextlib.closing(broker):
        broker.ready()
        yield broker


@pytest.fixture
def launcher(own: Takeover) -> Iterator[Takeover]:
    yield own
    own.honest()


def create(launcher: Takeover, *mounts: Step, connection: int = 0) -> tuple[int, str]:
    number = next(NUMBERS)
    name = f"s-{number}"
    launcher.create(number, sandbox_plan(*mounts, name=name), connection=connection)
    return number, name


@pytest.fixture
def sandbox(launcher: Takeover) -> Iterator[tuple[int, str]]:
    number, name = create(launcher)
    assert launcher.of_run(number).type == Message.CREATED
    yield number, name
    launcher.send(messages.encode_kill(number, Cause.KILLED))
    while launcher.of_run(number).type not in (Message.EXITED, Message.FAILED):
        pass


def serves(launcher: Takeover, sandbox: tuple[int, str]) -> None:
    number = next(NUMBERS)
    read, write = os.pipe()
    out_read, out_write = os.pipe()
    plan = exec_plan("/bin/echo", "lives", sandbox=sandbox[1], name=f"e-{number}")
    data = messages.encode_exec(number, sandbox[0], plan, in_memfd=False)
    launcher.send(data, [launcher.null, out_write, launcher.null, read])
    os.close(read)
    os.close(out_write)
    os.write(write, b"g")
    os.close(write)
    packet = launcher.of_run(number)
    assert packet.type == Message.EXITED, packet.failed
    with os.fdopen(out_read, "rb") as output:
        assert output.read() == b"lives\n"


UPWARDS = (b"../secret", b"t/..", b"t/../../secret", b"/t/n", b"t/", b"t//n", b".", b"", b"t/.gone-1", b"t/n/../..")


@pytest.mark.parametrize("name", UPWARDS)
@pytest.mark.parametrize("kind", [Op.VOLUME, Op.RESTORE, Op.IMAGE])
def test_no_name_of_what_is_kept_leads_out_of_its_collection(launcher: Takeover, kind: Op, name: bytes) -> None:
    step = {
        Op.VOLUME: Step(Op.VOLUME, (0, 1 << 24, 256), (name, b"/v")),
        Op.RESTORE: Step(Op.RESTORE, (0, 1 << 24, 256), (name, b"/v")),
        Op.IMAGE: Step(Op.IMAGE, (0, 0, 0), (name,)),
    }[kind]
    number, _ = create(launcher, step)
    assert launcher.of_run(number).failed.stage in (Stage.PLAN, Stage.LAYER)


def _nothing() -> None:
    pass


def odd(kind: str, launcher: Takeover) -> tuple[int, Callable[[], None]]:
    """A descriptor, and what to do once it is sent."""
    if kind == "a pipe":
        read, write = os.pipe()
        return read, lambda: os.close(write)
    if kind == "a stream":
        ours, theirs = socket.socketpair()
        return theirs.detach(), ours.close
    if kind == "a file":
        return os.open("/etc/passwd", os.O_RDONLY), _nothing
    if kind == "an epoll":
        with select.epoll() as poll:
            return os.dup(poll.fileno()), _nothing
    return os.open("/", os.O_PATH), _nothing


@pytest.mark.parametrize("kind", ["a pipe", "a stream", "a file", "an epoll", "a path"])
@pytest.mark.parametrize("clerk", list(Clerk))
def test_a_clerk_on_what_is_no_packet_socket_serves_nobody(
    launcher: Takeover, sandbox: tuple[int, str], clerk: Clerk, kind: str
) -> None:
    fd, after = odd(kind, launcher)
    launcher.send(messages.encode_ask(sandbox[0], clerk, 0), [fd])
    os.close(fd)
    after()
    serves(launcher, sandbox)


@pytest.mark.parametrize("connection", [1 << 40, FOR_EVER])
def test_a_clerk_on_nobodys_number_is_an_end_of_file(
    launcher: Takeover, sandbox: tuple[int, str], connection: int
) -> None:
    for clerk in Clerk:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        launcher.send(messages.encode_ask(sandbox[0], clerk, connection), [theirs.fileno()])
        theirs.close()
        ours.settimeout(PATIENCE_S)
        assert ours.recv(100) == b""
        ours.close()


def test_whatever_a_clerk_is_asked_the_sandbox_lives(launcher: Takeover, sandbox: tuple[int, str]) -> None:
    rng = random.Random(7)
    for clerk in Clerk:
        for _ in range(40):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            launcher.send(messages.encode_ask(sandbox[0], clerk, 0), [theirs.fileno()])
            theirs.close()
            for _ in range(3):
                words = struct.pack("=8I", *(rng.choice(NUMBERS_OF_NOTE) for _ in range(8)))
                with_names = words + rng.choice([b"", b"t/x\0", b"../..\0", b"/etc/passwd\0", rng.randbytes(200)])
                try:
                    ours.send(with_names[: rng.randrange(1, len(with_names) + 1)])
                except OSError:
                    break
            ours.close()
    serves(launcher, sandbox)


def test_a_life_extended_for_ever_is_ended_all_the_same(launcher: Takeover, sandbox: tuple[int, str]) -> None:
    for ns in (FOR_EVER, FOR_EVER - 1, 1 << 63, 10**18):
        launcher.send(messages.encode_extend(sandbox[0], ns))
    serves(launcher, sandbox)


def test_a_flood_of_orders_is_obeyed_or_ends_its_own_sandbox(launcher: Takeover, sandbox: tuple[int, str]) -> None:
    other, _ = create(launcher)
    assert launcher.of_run(other).type == Message.CREATED
    flood = [
        messages.encode_extend(other, LIFE_NS),
        messages.encode_resize(other, 1, 1),
        messages.encode_signal(next(NUMBERS), 9, everybody=True),
        messages.encode_close_stdin(other),
        messages.encode_measure(other),
    ]
    deadline = time.monotonic() + PATIENCE_S
    for index in range(10_000):
        launcher.send(flood[index % len(flood)])
        assert time.monotonic() < deadline
    launcher.send(messages.encode_kill(other, Cause.KILLED))
    while launcher.of_run(other).type not in (Message.EXITED, Message.FAILED):
        pass
    serves(launcher, sandbox)


ANY = (
    *(Message.SIGNAL, Message.FREEZE, Message.EXTEND, Message.MEASURE, Message.RESIZE, Message.CLOSE_STDIN),
    *(Message.ASK, Message.EXEC, Message.CREATE),
)


@pytest.mark.parametrize("kind", ANY)
def test_to_numbers_of_others_and_of_nobody_there_is_nothing_to_say(
    launcher: Takeover, sandbox: tuple[int, str], kind: Message
) -> None:
    """As long as its kind is; a run's number, a connection's, one that is over."""
    sizes = {
        Message.SIGNAL: 8,
        Message.FREEZE: 8,
        Message.EXTEND: 8,
        Message.MEASURE: 0,
        Message.RESIZE: 8,
        Message.CLOSE_STDIN: 0,
        Message.ASK: 16,
        Message.EXEC: 16,
        Message.CREATE: 16,
    }
    rng = random.Random(int(kind))
    with launcher.connection() as connection:
        for number in (connection, next(NUMBERS), FOR_EVER, 0):
            body = rng.randbytes(sizes[kind])
            launcher.send(HEADER.pack(kind, HEADER.size + len(body), number) + body)
            if kind in (Message.EXEC, Message.CREATE):
                assert launcher.of_run(number).failed.stage in (Stage.PLAN, Stage.SANDBOX)
    serves(launcher, sandbox)
