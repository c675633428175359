"""Execs in a sandbox that lives: side by side, each with limits, a cause and an output of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client import sandbox_questions as questions
from immured.client.question import Question
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ImmuredError
from tests.patience import PATIENCE_S, until
from tests.sandboxes.waiting import code

pytestmark = pytest.mark.needs_root

Entries = Callable[..., list[dict[str, Any]]]
SLEEP = ["/bin/sleep", "1000"]


def test_an_exec_is_two_entries_and_two_receipts(sandbox: Sandbox, entries: Entries) -> None:
    result = sandbox.exec(["/bin/echo", "hello"])
    [accepted] = entries("exec.accepted", sandbox.id)
    [finished] = entries("exec.finished", sandbox.id)
    assert result.intent is not None
    assert result.receipt is not None
    assert (result.intent.seq, result.receipt.seq) == (accepted["seq"], finished["seq"])
    assert finished["data"]["intent"] == accepted["seq"]
    assert accepted["data"]["exec"] == finished["data"]["exec"] == result.exec
    assert finished["data"]["streams"]["stdout"]["sha256"] == hashlib.sha256(b"hello\n").hexdigest()


@pytest.mark.parametrize(
    ("argv", "options", "cause"),
    [
        (["/bin/sh", "-c", "exit 7"], {}, "exited"),
        (["/bin/sh", "-c", "kill -SEGV $$"], {}, "signaled"),
        (SLEEP, {"limits": {"wall": "300ms"}}, "timeout"),
        (["/bin/sh", "-c", "while :; do :; done"], {"limits": {"cpu_time": "300ms"}}, "cpu_time"),
        (["/usr/bin/head", "-c", "100000", "/dev/zero"], {"limits": {"output": "4K"}}, "output_limit"),
        (["/no/such/program"], {}, "setup_failed"),
        (["/bin/true"], {"cwd": "/no/such/place"}, "setup_failed"),
    ],
)
def test_every_exec_has_a_cause_of_its_own(
    sandbox: Sandbox, argv: list[str], options: dict[str, Any], cause: str
) -> None:
    assert sandbox.exec(argv, **options).cause == cause
    assert sandbox.exec(["/bin/echo", "still here"]).stdout == b"still here\n"


def test_its_limits_are_within_the_sandboxs(client: Client) -> None:
    with client.sandbox(limits={"memory": "64M", "wall": "60s"}) as made:
        for limits in ({"memory": "128M"}, {"wall": "90s"}, {"wall": "none"}):
            with pytest.raises(ImmuredError) as refused:
                made.exec(["/bin/true"], limits=limits)
            assert code(refused) == "bad_argument"
        assert made.exec(["/bin/true"], limits={"memory": "32M", "wall": "50s"}).exit_code == 0


@pytest.mark.needs_cgroup2
def test_one_that_runs_out_of_memory_dies_alone(client: Client) -> None:
    eater = ["/usr/bin/python3", "-c", "x = []\nwhile True: x.append(b'x' * 1000000)"]
    with client.sandbox(limits={"memory": "256M"}) as made:
        other = made.start(SLEEP)
        assert made.exec(eater, limits={"memory": "64M"}).cause == "oom"
        assert made.exec(eater).cause in ("oom", "signaled")  # the sandbox's own limit
        assert [one.id for one in made.execs() if one.live] in ([other.id], [])
        assert made.exec(["/bin/true"]).exit_code == 0


def test_execs_run_side_by_side(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    """Each waits for the other's file: one after the other they would never end."""
    script = "touch /tmp/{0}; until [ -e /tmp/{1} ]; do sleep 0.01; done; echo {0}"
    outputs: dict[str, bytes] = {}

    def run(mine: str, other: str) -> None:
        with daemon.client() as client:
            outputs[mine] = client.open(sandbox.id).exec(["/bin/sh", "-c", script.format(mine, other)]).stdout

    threads = [threading.Thread(target=run, args=pair) for pair in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert outputs == {"a": b"a\n", "b": b"b\n"}


def test_what_an_exec_leaves_running_ends_with_it(sandbox: Sandbox) -> None:
    sandbox.exec(["/bin/sh", "-c", "sleep 1000 & sleep 1000 & exit 0"])
    assert sandbox.stats().execs == 0
    assert b"sleep" not in sandbox.exec(["/bin/sh", "-c", "cat /proc/[0-9]*/comm"]).stdout


def test_a_detached_one_outlives_its_connection(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    with daemon.client() as client:
        begun = client.open(sandbox.id).start(["/bin/sh", "-c", "sleep 0.5; echo done; exit 3"])
    one = sandbox.find(begun.id)
    assert one.wait().exit_code == 3
    assert one.logs().output == b"done\n"


def test_an_attached_one_does_not(daemon: ThrowawayDaemon, sandbox: Sandbox, entries: Entries) -> None:
    client = daemon.client()
    thread = threading.Thread(target=lambda: _swallow(client, sandbox.id))
    thread.start()
    until(lambda: any(one.live for one in sandbox.execs()))
    client.close()
    until(lambda: not any(one.live for one in sandbox.execs()))
    thread.join(PATIENCE_S)
    assert entries("exec.finished", sandbox.id)[-1]["data"]["cause"] == "killed"


def _swallow(client: Client, sandbox: str) -> None:
    with contextlib.suppress(ImmuredError, OSError, ValueError):
        client.open(sandbox).exec(SLEEP)


def test_a_log_has_both_streams_in_order_with_their_times(sandbox: Sandbox) -> None:
    before = int(time.time() * 1000)
    wait = "while [ ! -e /tmp/{} ]; do sleep 0.01; done"
    one = sandbox.start(["/bin/sh", "-c", f"echo one; {wait}; echo two >&2; {wait}; echo three".format(1, 2)])
    for number, so_far in ((1, b"one\n"), (2, b"one\ntwo\n")):  # two pipes: which is read first is nobody's promise
        until(lambda: one.logs().output == so_far)  # noqa: B023 - it is called here
        assert sandbox.exec(["/bin/sh", "-c", f"touch /tmp/{number}"]).exit_code == 0
    one.wait()
    page = one.logs()
    assert [(one.stream, one.data) for one in page.records] == [
        ("stdout", b"one\n"),
        ("stderr", b"two\n"),
        ("stdout", b"three\n"),
    ]
    assert (page.start, page.next, page.lost, page.live) == (0, 14, 0, False)
    assert before - 1000 <= page.records[0].time_ms <= page.records[2].time_ms <= int(time.time() * 1000) + 1000
    assert one.logs(5).output == b"wo\nthree\n"
    assert one.logs(4, limit=1).records[0].data == b"two\n"
    assert one.logs(14).records == ()


def test_a_log_forgets_the_oldest_and_says_how_much(sandbox: Sandbox) -> None:
    one = sandbox.start(["/usr/bin/seq", "1000000"])
    one.wait()
    whole = "".join(f"{number}\n" for number in range(1, 1_000_001)).encode()
    page = one.logs(limit=500_000)
    assert page.lost == page.start > 0
    assert page.output == whole[page.start : page.next]
    rest = one.logs(len(whole) - 8)
    assert rest.output == b"1000000\n"
    assert rest.next == len(whole)


def test_followed_it_is_whole_and_signed(sandbox: Sandbox) -> None:
    one = sandbox.start(["/bin/sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.05; done"])
    assert b"".join(data for _, data in one.follow()) == b"1\n2\n3\n4\n5\n"


def test_attach_feeds_it_and_ends_its_input(sandbox: Sandbox) -> None:
    one = sandbox.start(["/usr/bin/tac"])
    run = one.attach(stdin=b"one\ntwo\n")
    assert b"".join(data for name, data in run if name == "stdout") == b"two\none\n"
    assert run.result.exit_code == 0


def test_what_it_was_given_at_its_start_is_all_of_its_input(sandbox: Sandbox) -> None:
    data = bytes(range(256)) * 700
    one = sandbox.start(["/usr/bin/sha256sum"], stdin=data)
    assert one.wait().exit_code == 0
    assert one.logs().output.split()[0].decode() == hashlib.sha256(data).hexdigest()
    with pytest.raises(ImmuredError) as refused:
        list(one.attach(stdin=b"more"))
    assert code(refused) == "wrong_state"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_signals_are_commands(sandbox: Sandbox, entries: Entries, number: int) -> None:
    one = sandbox.start(SLEEP)  # whether its program began yet or not
    one.signal(number)
    result = one.wait()
    assert (result.cause, result.signal) == ("signaled", number)
    done = [one["data"] for one in entries("command.done", sandbox.id) if one["data"]["cmd"] == "sandbox.signal"]
    assert done[-1]["signal"] == number
    with pytest.raises(ImmuredError) as refused:
        one.signal(number)
    assert code(refused) == "wrong_state"


def test_who_is_killed_ended_of_a_signal(sandbox: Sandbox, entries: Entries) -> None:
    one = sandbox.start(["/bin/sh", "-c", "echo began; exec sleep 1000"])
    next(iter(one.follow()))  # killed earlier, it never ran, and no signal is named
    one.kill()
    result = one.wait()
    assert (result.cause, result.signal) == ("killed", signal.SIGKILL)
    done = [one["data"] for one in entries("command.done", sandbox.id) if one["data"]["cmd"] == "sandbox.signal"]
    assert done[-1]["signal"] == signal.SIGKILL


def test_reading_a_log_is_two_entries_with_a_digest(sandbox: Sandbox, entries: Entries) -> None:
    one = sandbox.start(["/bin/echo", "secret"])
    one.wait()
    one.logs()
    accepted = [one for one in entries("command.accepted", sandbox.id) if one["data"]["cmd"] == "sandbox.logs"]
    done = [one for one in entries("command.done", sandbox.id) if one["data"]["cmd"] == "sandbox.logs"]
    assert done[-1]["data"]["intent"] == accepted[-1]["seq"]
    assert done[-1]["data"]["sha256"] == hashlib.sha256(b"secret\n").hexdigest()
    assert done[-1]["data"]["length"] == 7


def test_a_terminal_is_one_and_changes_its_size(sandbox: Sandbox) -> None:
    terminal = questions.Terminal(30, 100)
    # What is typed and a new size come to it by two ways: neither waits for the other.
    changed = 'while [ "$(stty size)" = "30 100" ]; do sleep 0.01; done; stty size'
    script = f"test -t 0 && test -t 1 && test -t 2 && echo $TERM; stty size; read x; {changed}"
    one = sandbox.start(["/bin/sh", "-c", script], terminal=terminal)
    until(lambda: b"30 100" in one.logs().output)
    one.resize(50, 120)
    assert one.attach(stdin=b"go\n").result.exit_code == 0
    assert one.wait().exit_code == 0
    output = one.logs().output
    assert output.startswith(b"xterm\r\n30 100\r\n")
    assert b"50 120" in output


def test_an_attached_terminal_streams_and_takes_what_is_typed(sandbox: Sandbox) -> None:
    run = sandbox.stream(["/bin/sh", "-c", "read x; echo got $x; exit 5"], terminal=questions.Terminal(), stdin=b"hi\n")
    output = b"".join(data for name, data in run if name == "stdout")
    assert b"got hi" in output
    assert run.result.exit_code == 5


@pytest.mark.parametrize(
    "args",
    [
        {"argv": ["/bin/true"], "detach": True, "collect": ["/tmp/x"]},
        {"argv": ["/bin/true"], "detach": True, "stream": True},
        {"argv": ["/bin/true"], "terminal": {}, "fds": [0]},
        {"argv": ["/bin/true"], "terminal": {"rows": 0}},
        {"argv": ["/bin/true"], "terminal": {"term": "a b"}},
        {"argv": ["/bin/true"], "manifest": {}},
        {"argv": ["/bin/true"], "learn": True},
        {"argv": []},
        {},
    ],
)
def test_what_an_exec_cannot_be_is_refused(client: Client, sandbox: Sandbox, args: dict[str, Any]) -> None:
    question = Question("sandbox.exec", {"sandbox": sandbox.id, **args}, lambda said: said)
    with pytest.raises(ImmuredError) as refused:
        client.ask(question)
    assert code(refused) in ("bad_argument", "unknown_field", "bad_descriptor")


def test_a_limit_on_output_is_no_detached_execs(sandbox: Sandbox) -> None:
    with pytest.raises(ImmuredError) as refused:
        sandbox.start(["/bin/true"], limits={"output": "1M"})
    assert code(refused) == "unsupported_limit"


def test_no_exec_is_found_under_another_sandbox(client: Client, sandbox: Sandbox) -> None:
    one = sandbox.start(SLEEP)
    with client.sandbox() as other:
        asked: tuple[Question[Any], ...] = (
            questions.signal(other.id, one.id, 9),
            questions.logs(other.id, one.id),
            questions.resize(other.id, one.id, 10, 10),
        )
        for question in asked:
            with pytest.raises(ImmuredError) as refused:
                client.ask(question)
            assert code(refused) == "not_found"


def test_a_slow_reader_slows_the_writer(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    """The daemon's memory does not grow with what is not read."""
    rss = _rss(daemon.pid)
    run = sandbox.stream(["/usr/bin/head", "-c", "200000000", "/dev/zero"])
    stream = iter(run)
    next(stream)
    time.sleep(1.0)
    assert _rss(daemon.pid) - rss < 48 << 20
    assert sum(len(data) for _, data in stream) > 150_000_000
    assert run.result.streams["stdout"].length == 200_000_000


def _rss(pid: int) -> int:
    import psutil

    return int(psutil.Process(pid).memory_info().rss)


def test_one_whose_warden_is_killed_was_killed_for_it_ran(sandbox: Sandbox) -> None:
    """It may have done anything by then: that it could not be set up would be asked for again."""
    one = sandbox.start(["/bin/sleep", "424242"])

    def wardens() -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (path / "cmdline").read_bytes() == b"/bin/sleep\x00424242\x00":
                    found.append(int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]))
        return found

    until(lambda: bool(wardens()))
    [warden] = wardens()
    os.kill(warden, signal.SIGKILL)
    assert one.wait().cause == "killed"
    assert sandbox.exec(["/bin/true"]).exit_code == 0
    until(lambda: wardens() == [])  # what it left is killed, and not waited for
