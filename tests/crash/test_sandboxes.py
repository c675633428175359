"""`kill -9` at random moments while sandboxes live: each is adopted or ended as its policy says, none is forgotten."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.sandbox import Exec, Sandbox
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.crash.leftovers import leftovers
from tests.crash.test_kill import wait_for
from tests.patience import PATIENCE_S

pytestmark = [pytest.mark.needs_root, pytest.mark.slow, pytest.mark.timeout(550)]

ROUNDS, FEWEST = 200, 40
LONG_ENOUGH_S = 300
"""A slow machine (a virtual one takes six times as long) makes fewer rounds, and not fewer than `FEWEST`: all of them
are `make crash`."""
SEED = int(os.environ.get("IMMURED_SEED", "11"))
MOST_ALIVE = 8
MOST_ACTS = 12
"""Of all clients together, before a kill."""
ACTS = ("_create", "_exec", "_file", "_pause", "_run", "_remove")
UNHURRIED = {"schema": 1, "limits": {"wall": "none"}}
"""What counts goes on for as many rounds as its sandbox does, however long they take: the default is a minute."""
COUNTING = ("/bin/bash", "-c", "i=0; while :; do i=$((i+1)); echo $i; read -rt 0.02; done")
"""Its input is open and empty, so it waits: were it a process for each number, a slow machine would do nothing else."""
ENDS = ("sandbox.ended", "sandbox.lost", "sandbox.failed")


@dataclass
class Known:
    """What clients were told of one sandbox, and so must find again."""

    id: str
    restart: str
    counter: str | None = None
    """The detached exec that counts, once its start was acknowledged."""


@dataclass
class Believed:
    """What was acknowledged, over all daemons so far."""

    alive: dict[str, Known] = field(default_factory=dict)
    acts: Counter[str] = field(default_factory=Counter)
    """That were done, by kind: not those that were refused."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def some(self, choose: random.Random) -> Known | None:
        with self.lock:
            return choose.choice(list(self.alive.values())) if self.alive else None


class Load:
    """Clients that make, use, pause and remove sandboxes until the daemon is gone."""

    def __init__(self, daemon: ThrowawayDaemon, believed: Believed, seed: int) -> None:
        self._daemon = daemon
        self._believed = believed
        self._before = believed.acts.total()
        self._refusals: list[Refusal] = []
        self._threads = [threading.Thread(target=self._work, args=(seed * 10 + number,)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def wait_for_acts(self, number: int) -> None:
        """Until so many are done: how long that takes is the machine's business."""
        wait_for(lambda: self._believed.acts.total() - self._before >= number or self._refusals)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a client hangs on a daemon that is dead"
        assert not self._refusals, self._refusals

    def _work(self, seed: int) -> None:
        choose = random.Random(seed)
        acts = (self._create, self._exec, self._exec, self._file, self._pause, self._run, self._remove)
        try:
            with self._daemon.client() as client:
                while True:
                    act = choose.choice(acts)
                    if act(client, choose):
                        self._believed.acts[act.__name__] += 1
        except Refusal as refusal:
            self._refusals.append(refusal)
        except (OSError, ImmuredError, EOFError):
            return  # the daemon is gone, as intended

    def _create(self, client: Client, choose: random.Random) -> bool:
        if len(self._believed.alive) >= MOST_ALIVE:
            self._remove(client, choose)
        restart = choose.choice(("adopt", "adopt", "adopt", "end"))
        sandbox = client.sandbox(restart=restart, ttl="2h", manifest=UNHURRIED)
        known = Known(sandbox.id, restart)
        with self._believed.lock:
            self._believed.alive[sandbox.id] = known

        def count() -> None:
            known.counter = sandbox.start(COUNTING).id

        return self._gently(known, count)

    def _exec(self, client: Client, choose: random.Random) -> bool:
        known = self._believed.some(choose)
        return known is not None and self._gently(known, lambda: client.open(known.id).exec(["/bin/echo", "hello"]))

    def _file(self, client: Client, choose: random.Random) -> bool:
        known = self._believed.some(choose)
        return known is not None and self._gently(
            known, lambda: client.open(known.id).files.write("/tmp/file", os.urandom(10_000))
        )

    def _pause(self, client: Client, choose: random.Random) -> bool:
        known = self._believed.some(choose)
        if known is None:
            return False
        paused = self._gently(known, lambda: client.open(known.id).pause())
        return self._gently(known, lambda: client.open(known.id).resume()) and paused

    def _run(self, client: Client, _: random.Random) -> bool:
        return client.run(["/bin/true"]).exit_code == 0

    def _remove(self, client: Client, choose: random.Random) -> bool:
        known = self._believed.some(choose)
        if known is None:
            return False
        with self._believed.lock:
            # Asked for: whether it came to pass, nobody was told.
            self._believed.alive.pop(known.id, None)
        return self._gently(known, lambda: client.open(known.id).remove())

    def _gently(self, known: Known, act: Callable[[], object]) -> bool:
        """Whether it was done. Two clients may have chosen one sandbox: what is refused then is not what is tried."""
        try:
            act()
        except Refusal as refusal:
            if refusal.code not in {"not_found", "wrong_state", "busy"} and known.id in self._believed.alive:
                raise
            return False
        return True


def look(client: Client, believed: Believed, *, launcher_died: bool) -> None:
    """What clients were told is so, or ended as its policy says."""
    found = {one.id: one.facts for one in client.sandboxes()}
    for known in list(believed.alive.values()):
        facts = found.get(known.id)
        lives = facts is not None and facts.state in ("ready", "paused")
        assert lives == (known.restart == "adopt" and not launcher_died), f"{known}: {facts}"
        if not lives:
            del believed.alive[known.id]
            continue
        _still_works(client.open(known.id), known)


def _still_works(sandbox: Sandbox, known: Known) -> None:
    if sandbox.refresh().state == "paused":
        sandbox.resume()
    assert sandbox.exec(["/bin/true"]).exit_code == 0
    if known.counter is None:
        return
    counter = sandbox.find(known.counter)
    page = counter.logs(limit=1 << 19)
    numbers = [int(line) for line in page.output.split()]
    wait_for(lambda: counter.logs(page.next).output or _is_over(counter))
    numbers += [int(line) for line in counter.logs(page.next).output.split()]
    facts = (sandbox.refresh(), counter.facts())
    assert len(numbers) > len(page.output.split()), f"it counts no further: {facts}"
    assert numbers == list(range(1, len(numbers) + 1)), f"the log has a gap: {facts}"


def _is_over(counter: Exec) -> bool:
    facts = counter.facts()
    return facts is None or facts.state != "running"


def of(state: Path) -> list[int]:
    """The broker and the launcher that serve it, the broker first."""
    found = {}
    for process in psutil.process_iter(["name", "cmdline", "ppid"]):
        command = " ".join(process.info["cmdline"] or ())
        if process.info["name"].startswith("immured-launch") and f"{state}/immured.sock" in command:
            found[process.pid] = 1
        elif f"--state {state} " in command:
            found[process.pid] = 0
    return sorted(found, key=found.__getitem__)


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    """A launcher without sandboxes may have ended of itself by then, as its broker did."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def held(pid: int, state: Path) -> int:
    """Descriptors that it has open, but for the ledger's own files: those of its tree come with its length."""
    ledger, count = f"{state / 'ledger'}/", 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += not os.readlink(entry).startswith(ledger)
    return count


@contextlib.contextmanager
def served(state: Path) -> Iterator[Path]:
    """A state directory whose daemon and launcher end with the context, in whatever way that ends."""
    ThrowawayDaemon.immure("init", "--state", str(state))
    try:
        yield state
    finally:
        send(signal.SIGTERM, of(state))


def test_many_kills_forget_no_sandbox_and_leave_nothing(tmp_path: Path) -> None:
    with served(tmp_path / "state") as state:
        kill_often(state, ROUNDS, seconds=LONG_ENOUGH_S)


def kill_often(
    state: Path, rounds: int, *, seconds: float = math.inf, say: Callable[[str], object] = lambda _: None
) -> dict[str, object]:
    """So many rounds, or as many as fit the time, and what was counted. Raises AssertionError."""
    before = leftovers(state)
    moments = random.Random(SEED)
    believed = Believed()
    launcher_died = False
    descriptors = adopted = 0
    number = 0
    long_enough = time.monotonic() + seconds
    while number < min(FEWEST, rounds) or (number < rounds and time.monotonic() < long_enough):
        daemon = ThrowawayDaemon(state=state).start()
        try:
            descriptors = descriptors or held(daemon.pid, state)
            with daemon.client() as client:
                look(client, believed, launcher_died=launcher_died)
            adopted += len(believed.alive)
            load = Load(daemon, believed, SEED * 1000 + number)
            load.wait_for_acts(moments.randint(0, MOST_ACTS))
            time.sleep(moments.uniform(0.0, 0.05))  # into the middle of the next
            launcher_died = number % 10 == 9
            send(signal.SIGKILL, of(state) if launcher_died else [daemon.pid])
            load.join()
        finally:
            daemon.kill()
        if launcher_died:  # its cgroups are swept by the next
            wait_for(lambda: not leftovers(state).processes)
            say(f"{number + 1} of {rounds} kills: {adopted} times adopted, {dict(believed.acts)}")
        number += 1

    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:
        look(client, believed, launcher_died=launcher_died)
        client.prune(alive=True)
        assert not client.sandboxes()
        assert client.run(["/bin/true"]).exit_code == 0
        with contextlib.suppress(AssertionError):  # answers do not wait for what is closed after them
            wait_for(lambda: held(daemon.pid, state) <= descriptors + 2)
        assert held(daemon.pid, state) <= descriptors + 2, "what was adopted is still held"
    send(signal.SIGTERM, of(state))  # the last broker found a launcher that was there before it, and left it alone
    wait_for(lambda: not leftovers(state).beyond(before))
    assert ThrowawayDaemon.immure("ledger", "verify", "--state", str(state)).returncode == 0

    entries = [json.loads(line) for line in (state / "ledger" / "current.jsonl").read_bytes().splitlines()]
    created = {
        entry["data"]["number"]: entry["data"]["sandbox"] for entry in entries if entry["type"] == "sandbox.created"
    }
    ends = [entry["data"] for entry in entries if entry["type"] in ENDS]
    ended = Counter(data["sandbox"] for data in ends)
    assert set(created.values()) <= set(ended), "a sandbox has no end"
    # A cell that was on its way when its intent was not durable yet: the launcher's word against the ledger's.
    unheard = {data["sandbox"] for data in ends if data["sandbox"] not in created.values()}
    assert unheard <= {entry["data"]["sandbox"] for entry in entries if entry["type"] == "sandbox.lost"}
    assert set(ended.values()) == {1}, "a sandbox ended twice"
    begun = {entry["data"]["exec"] for entry in entries if entry["type"] == "exec.accepted"}
    over = Counter(
        entry["data"]["exec"]
        for entry in entries
        if entry["type"] in ("exec.finished", "exec.lost") and "intent" in entry["data"]
    )
    assert begun == set(over), "an exec has no end"
    assert set(over.values()) == {1}, "an exec ended twice"
    assert min(believed.acts[kind] for kind in ACTS) > number // 4, f"there was hardly any load: {believed.acts}"
    return {
        "kills": number,
        "of them the launcher too": number // 10,
        "acts": dict(believed.acts),
        "times adopted": adopted,
        "sandboxes": len(created),
        "ends": dict(Counter(entry["type"] for entry in entries if entry["type"] in ENDS)),
        "execs": len(begun),
        "entries": len(entries),
    }
