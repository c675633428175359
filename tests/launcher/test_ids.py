"""A range of host ids: never root's, and used again only once nothing of its last owner is left.

One range, so that every run has the same ids: whatever the kernel keeps by id, the second run would find of the first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import immured
from immured.isolation.abi import Cause, Stage
from tests.launcher.harness import Broker, eventually, name_of, plan_for

Start = Callable[..., Broker]

BASE = 0x6400_0000
SIZE = 65_536

# In a run with every call allowed: what the first leaves, and what the second sees. ctypes and no package of ours.
LEAVE = r"""
import ctypes, json, os, platform, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[platform.machine()]
make, name = sys.argv[1] == "make", b"immured-left"
flags = 0o1666 if make else 0o666
found = {
    "shared memory": libc.shmget(0x1ed, 4096, flags) >= 0,
    "messages": libc.msgget(0x1ed, flags) >= 0,
    "semaphores": libc.semget(0x1ed, 1, flags) >= 0,
    "queue": libc.mq_open(b"/immured-left", 0o102 if make else 0o2, 0o666, None) >= 0,
}
for place in ("/dev/shm", "/tmp"):
    try: os.close(os.open(f"{place}/left", os.O_RDWR | (os.O_CREAT if make else 0))); found[place] = True
    except FileNotFoundError: found[place] = False
for ring, number in (("user keyring", -4), ("user session keyring", -5), ("session keyring", -3)):
    if make: key = libc.syscall(ADD_KEY, b"user", name, b"secret", ctypes.c_size_t(6), number)
    else: key = libc.syscall(KEYCTL, 10, number, b"user", name, 0)
    found[ring] = key > 0
with socket.socket(socket.AF_UNIX) as sock:
    address = "\0immured-left"
    try:
        if make: sock.bind(address); sock.listen()
        else: sock.connect(address)
        found["abstract socket"] = True
    except OSError: found["abstract socket"] = False
    if make:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                sock.set_inheritable(True)
                os.execv("/bin/sleep", ["sleep", "64006400"])
            os._exit(0)
        os.wait()
maps = {kind: [line.split() for line in open(f"/proc/self/{kind}_map")] for kind in ("uid", "gid")}
print(json.dumps({"found": found, "maps": maps}))
"""


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """The real launcher, with a single range."""
    program = Path(immured.__file__).parent / "_native" / "immured-launcher"
    running = Broker(program, tmp_path, slot_base=BASE, slot_count=1, pool_min=1, pool_max=1)
    running.ready()
    yield running
    running.close()


def sees(broker: Broker, connection: int, what: str, sandbox: str) -> dict[str, dict[str, object]]:
    read, write = os.pipe()
    plan = plan_for("/usr/bin/python3", "-c", LEAVE, what, sandbox=sandbox)
    run = broker.prepare(connection, plan, fds=[broker.null, write, broker.null])
    os.close(write)
    broker.go(run)
    with os.fdopen(read) as output:
        said = output.read()
    assert broker.of_run(run).exited.cause == Cause.EXITED
    told: dict[str, dict[str, object]] = json.loads(said)
    return told


def of_the_range() -> dict[int, Path]:
    """Processes that have an id of the range, by pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(_status(entry)["Uid"].split()[0]) in range(BASE, BASE + SIZE):
                found[int(entry.name)] = entry
        except OSError:
            continue
    return found


def _status(entry: Path) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines() if ":\t" in line)


def test_nothing_of_a_ranges_last_owner_is_left_for_its_next(broker: Broker) -> None:
    with broker.connection() as connection:
        first = sees(broker, connection, "make", "s-1")
        second = sees(broker, connection, "look", "s-2")
    assert all(first["found"].values()), first
    assert first["maps"] == second["maps"], "another range: nothing is shown"
    assert not any(second["found"].values()), second


def command_of(process: Path) -> bytes:
    """Empty where it ended meanwhile: a cell's own processes come and go."""
    try:
        return (process / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def test_what_was_left_is_gone_from_the_host_too(broker: Broker) -> None:
    with broker.connection() as connection:
        sees(broker, connection, "make", "s-1")
        sees(broker, connection, "look", "s-2")
    assert not [entry for entry in of_the_range().values() if b"64006400" in command_of(entry)]
    uid = f"{BASE + 1000}:"
    assert eventually(lambda: uid not in Path("/proc/key-users").read_text().replace(" ", ""))


@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_no_map_holds_roots_id_or_one_outside_the_range(broker: Broker, kind: str) -> None:
    """Of everybody in the cell, as the host sees them: the payload, PID 1, and whoever else has joined."""
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("/bin/sleep", "1000"))
        broker.go(run)
        assert eventually(lambda: "sleep" in map(name_of, of_the_range()))
        cell = of_the_range()
        rows = [
            [int(number) for number in line.split()]
            for entry in cell.values()
            for line in (entry / f"{kind}_map").read_text().splitlines()
        ]
        payload = next(one for pid, one in cell.items() if name_of(pid) == "sleep")
        status = _status(payload)
        broker.kill(run)
        broker.of_run(run)
    assert rows
    for _, outside, count in rows:
        assert outside >= BASE
        assert outside + count <= BASE + SIZE
    assert {int(number) for number in status[f"{kind.title()}"].split()} == {BASE + 1000}
    assert status["Groups"].split() == []


@pytest.mark.slow
def test_a_range_whose_last_owner_does_not_end_is_never_used_again(start: Start) -> None:
    """A process in an unkillable wait keeps its ids for good; the other range serves on."""
    broker = start(slot_base=BASE, slot_count=2, pool_min=0, pool_max=0)
    broker.ready()
    gate, hold = os.pipe()
    told, tell = os.pipe()
    with broker.connection() as connection:
        run = broker.prepare(connection, plan_for("orphan"), fds=[gate, tell, broker.null])
        os.close(gate)
        broker.go(run)
        assert os.read(told, 1) == b"o"
        assert broker.of_run(run).failed.stage == Stage.LOST
        assert "slot 0 is used no more" in broker.log.read_text()
        os.close(hold)
        bases = {broker.run(connection, plan_for("describe")).failed.text.split()[5] for _ in range(4)}
    for fd in (told, tell):
        os.close(fd)
    assert bases == {str(BASE + SIZE)}
