"""`immure sandbox` against a real daemon, from making one to its end; and the SDK's too."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from immured import AsyncClient, Client
from immured.client import Refusal, Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.cli.conftest import PYTHON, Said, say
from tests.patience import PATIENCE_S, until

pytestmark = pytest.mark.needs_root


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.fixture(scope="module")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with daemon.client() as connected:
        yield connected


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(ttl="10m") as made:
        yield made


@pytest.fixture
def immure(daemon: ThrowawayDaemon) -> Callable[..., Said]:
    def run(verb: str, *words: str, stdin: bytes = b"") -> Said:
        return say([*PYTHON, "sandbox", verb, "--state", str(daemon.state), *words], stdin=stdin)

    return run


def test_a_life(immure: Callable[..., Said]) -> None:
    status, made, _ = immure("create", "--name", "life", "--label", "kind=test", "--ttl", "5m", "--pids", "50")
    name = made.decode().strip()
    assert (status, name[0], len(name)) == (0, "s", 21)
    assert immure("exec", "life", "--", "sh", "-c", "echo out; echo err >&2; cat; exit 3", stdin=b"in") == (
        3, b"out\nin", b"err\n",
    )  # fmt: skip
    assert immure("exec", "--shell", "/bin/sh", "life", "--", 'echo "$0 $1"', "a  b") == (0, b"/bin/sh a  b\n", b"")
    assert immure("exec", "life", "--shell", "/bin/sh", "--", 'echo "$1"', "--", "b") == (0, b"--\n", b"")
    assert immure("exec", "life", "echo", "--json", "--", "-t") == (0, b"--json -- -t\n", b"")
    assert immure("exec", "life", "--", "no-such-program")[0] == 127
    (row,) = json.loads(immure("list", "--json", "--label", "kind=test")[1])["sandboxes"]
    assert (row["sandbox"], row["name"], row["state"]) == (name, "life", "ready")
    assert immure("pause", "life") == (0, b"life is paused\n", b"")
    assert immure("exec", "life", "--", "true")[0] == 125
    assert immure("resume", "life") == (0, b"life is ready\n", b"")
    assert immure("extend", "life", "1h") == (0, b"life lives for 1h\n", b"")
    assert b"life" in immure("stats", "life")[1]
    assert immure("kill", "life") == (0, b"life is ended\n", b"")
    assert b"ended (killed)" in immure("list", "--all", "--label", "kind=test")[1]
    assert immure("prune", "--label", "kind=test") == (0, made, b"")
    assert immure("show", "life")[0] == 1


def test_a_detached_exec(immure: Callable[..., Said], sandbox: Sandbox) -> None:
    line = "echo one; read word; echo got $word >&2; exit 6"
    status, started, _ = immure("exec", "--detach", sandbox.id, "--", "sh", "-c", line)
    name = started.decode().strip()
    assert (status, name[0], len(name)) == (0, "e", 21)
    assert immure("attach", sandbox.id, name, stdin=b"this\n") == (6, b"one\n", b"got this\n")
    assert immure("attach", sandbox.id) == (6, b"one\n", b"got this\n")
    assert immure("logs", sandbox.id) == (0, b"one\n", b"got this\n")
    assert immure("logs", "--from", "4", sandbox.id, name) == (0, b"", b"got this\n")
    assert b"exited 6" in immure("execs", sandbox.id)[1]


def test_who_stops_attending_leaves_it_running(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    started = sandbox.start(["sh", "-c", "echo ready; sleep 600"])
    words = ["sandbox", "attach", "--no-input", "--state", str(daemon.state), sandbox.id, started.id]
    with subprocess.Popen([*PYTHON, *words], stdout=subprocess.PIPE) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == b"ready\n"
        os.kill(attached.pid, signal.SIGINT)
        assert attached.wait(PATIENCE_S) == 130
    facts = started.facts()
    assert facts is not None
    assert facts.live
    started.signal("TERM")
    assert started.wait().signal == signal.SIGTERM


def test_an_exec_ends_with_its_connection(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    words = ["sandbox", "exec", "--state", str(daemon.state), sandbox.id, "--", "sh", "-c", "echo ready; sleep 600"]
    with subprocess.Popen([*PYTHON, *words], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as attached:
        assert attached.stdout is not None
        assert attached.stdout.readline() == b"ready\n"
        attached.kill()
    until(lambda: all(not one.live for one in sandbox.execs()))


def test_a_log_is_followed_through_lost_connections(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    line = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.01; done"
    started = sandbox.start(["sh", "-c", line])
    with daemon.client() as another:
        following = another.at(sandbox.id).find(started.id).follow()
        done, came = threading.Event(), threading.Event()

        def break_it() -> None:
            while not done.wait(0.2):
                if came.is_set():  # else nothing would ever come where a connection takes longer
                    came.clear()
                    another.close()

        breaker = threading.Thread(target=break_it)
        breaker.start()
        try:
            found = b""
            for _, data in following:
                found += data
                came.set()
            assert following.result.exit_code == 0
        finally:
            done.set()
            breaker.join()
    assert found == b"".join(b"line %d\n" % number for number in range(200))


def test_many_execs_at_once(daemon: ThrowawayDaemon) -> None:
    async def work() -> None:
        async with (
            AsyncClient(daemon.socket, daemon.admin_key, timeout=PATIENCE_S) as client,
            await client.sandbox() as sandbox,
        ):
            results = await asyncio.gather(*(sandbox.exec(["sh", "-c", f"echo {n}; exit {n}"]) for n in range(20)))
            assert [(one.exit_code, one.stdout) for one in results] == [(n, b"%d\n" % n) for n in range(20)]
            started = await sandbox.start(["sh", "-c", "echo a; sleep 0.1; echo b"])
            following = started.follow()
            assert b"".join([data async for _, data in following]) == b"a\nb\n"
            assert (await following.result()).ok
            assert (await started.logs()).output == b"a\nb\n"

    asyncio.run(work())


def test_many_that_are_alike(client: Client) -> None:
    made = client.create(3, labels={"many": "yes"})
    assert {one.id for one in client.sandboxes(labels={"many": "yes"})} == {one.id for one in made}
    assert set(client.prune(alive=True, labels={"many": "yes"})) == {one.id for one in made}
    assert client.sandboxes(labels={"many": "yes"}) == []


def test_a_name_is_one_s(client: Client) -> None:
    with client.sandbox(name="only"), pytest.raises(Refusal, match="only"):
        client.sandbox(name="only")


@pytest.mark.parametrize(
    "words",
    ["file put {} /no/such /tmp/x", "file get {} /etc/hostname /no/such/place", "file put {} /proc/1/mem /tmp/x"],
)
def test_a_file_of_ours_that_cannot_be_had_is_said_as_any_error(
    words: str, daemon: ThrowawayDaemon, sandbox: Sandbox
) -> None:
    name, verb, *rest = words.format(sandbox.id).split()
    status, _, said = say([*PYTHON, name, verb, "--state", str(daemon.state), "--as", "nobody", *rest])
    assert (status, said.count(b"\n")) == (1, 2), said.decode()
    assert said.startswith(b"immure: input_output: /"), said.decode()
    assert b"\nremedy: " in said, said.decode()
