"""`immure sandbox`: what each subcommand asks of the daemon, and what it makes of the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from immured.cli.progress import bar_text
from immured.cli.sandbox_words import by_shell, sandbox_table
from immured.cli.table import size_text, span_text, table
from immured.client.sandbox_facts import SandboxFacts
from immured.wire.messages import Command
from immured.wire.sockets import EndOfStream
from tests.cli.conftest import PYTHON, Said, say
from tests.client.peer import Served, record, result_of
from tests.terminal.person import Person

Scripted = Callable[[Callable[[Served], None]], list[str]]
ID = "s" + "0" * 20
ROW = {
    "sandbox": ID, "state": "ready", "name": "dev", "tenant": "default", "key": "ed25519:00", "uid": 0,
    "labels": {"a": "b"}, "created_ms": 1, "expires_ms": 2**50, "execs": 1, "manifest": "sha256:00", "restart": "adopt",
}  # fmt: skip
OVER = ROW | {"sandbox": "s2", "state": "ended", "name": "old\x1b[31m", "cause": "timeout", "ended_ms": 5, "execs": 0}
EXECS = {
    "execs": [
        {
            "exec": "e1", "state": "ended", "command": "make", "started_ms": 1, "detached": True, "cause": "exited",
            "exit_code": 2,
        },
        {"exec": "e2", "state": "running", "command": "serve", "started_ms": 5, "detached": True, "terminal": False},
        {"exec": "e3", "state": "running", "command": "true", "started_ms": 9, "detached": False},
    ]
}  # fmt: skip
HI = result_of(exec="e9", exit_code=3, streams={"stdout": record(b"hi\n"), "stderr": record(b"oh\n")})


class Daemon:
    """Answers by the command's name, and remembers what it heard."""

    def __init__(self, answers: Mapping[str, object]) -> None:
        self.answers = answers
        self.heard: list[tuple[str, Mapping[str, object]]] = []

    def __call__(self, served: Served) -> None:
        served.hello()
        try:
            while True:
                command, digest, _ = served.command()
                self.heard.append((command.cmd, command.args))
                answer = self.answers.get(command.cmd)
                if callable(answer):
                    answer = answer(served, command)
                if isinstance(answer, dict):
                    served.reply(command, digest, answer)
                else:
                    served.refuse("not_found", re=command.nonce, req=digest)
        except (EndOfStream, ConnectionError):
            return


def speaks(served: Served, command: Command) -> dict[str, object]:
    if not command.args.get("stream") and command.cmd == "sandbox.exec":
        return HI
    served.data(command, "exec", b"e9")
    served.data(command, "stdout", b"hi\n")
    served.data(command, "stderr", b"oh\n")
    return HI


@pytest.fixture
def daemon() -> Daemon:
    return Daemon(
        {
            "sandbox.create": {"sandboxes": [ROW]}, "sandbox.list": {"sandboxes": [ROW, OVER]}, "sandbox.show": ROW,
            "sandbox.pause": ROW | {"state": "paused"}, "sandbox.resume": ROW, "sandbox.extend": ROW,
            "sandbox.kill": {"sandbox": ID, "ended": True}, "sandbox.remove": {"sandbox": ID, "ended": True},
            "sandbox.prune": {"removed": [ID]}, "sandbox.execs": EXECS, "sandbox.exec": speaks,
            "sandbox.attach": speaks,
            "sandbox.stats": {"usage": {"cpu_ms": 1500}, "memory_bytes": 3 << 20, "pids": 2, "execs": 1},
            "sandbox.logs": logged,
        }
    )  # fmt: skip


def logged(_: Served, command: Command) -> dict[str, object]:
    start = command.args.get("from", 0)
    if start == 5:
        return {"from": 5, "next": 5, "live": True, "records": []}
    rows = [{"time_ms": 0, "stream": "stdout", "data": b"on\n"}, {"time_ms": 1, "stream": "stderr", "data": b"er"}]
    return {"from": 0, "next": 5, "lost": 7, "live": True, "records": rows}


@pytest.fixture
def immure(scripted: Scripted, daemon: Daemon, tmp_path: Path) -> Callable[..., Said]:
    """Runs `immure sandbox ...` against it."""
    options = scripted(daemon)

    def run(verb: str, *words: str, stdin: bytes = b"") -> Said:
        return say([*PYTHON, "sandbox", verb, *options, *words], stdin=stdin, cwd=tmp_path)

    return run


ORDERS: dict[str, tuple[list[str], list[tuple[str, Mapping[str, object]]], bytes]] = {
    "create": (["create"], [("sandbox.create", {})], f"{ID}\n".encode()),
    "create, with all": (
        [
            *("create", "--name", "dev", "--label", "a=b", "--ttl", "2h", "--count", "3", "--restart", "end"),
            *("--memory", "1G", "--env", "A=1", "--cwd", "/usr", "--snapshot", "saved", "--template", "python"),
        ],
        [
            (
                "sandbox.create",
                {
                    "name": "dev", "labels": {"a": "b"}, "ttl_ms": 7_200_000, "count": 3, "restart": "end",
                    "cwd": "/usr", "env": {"A": "1"}, "snapshot": "saved", "template": "python",
                    "manifest": {"schema": 1, "name": "command-line", "class": "default", "limits": {"memory": "1G"}},
                },
            )
        ],
        f"{ID}\n".encode(),
    ),
    "pause": (["pause", "dev"], [("sandbox.pause", {"sandbox": "dev"})], b"dev is paused\n"),
    "resume": (["resume", "dev"], [("sandbox.resume", {"sandbox": "dev"})], b"dev is ready\n"),
    "kill": (
        ["kill", "a", "b"], [("sandbox.kill", {"sandbox": "a"}), ("sandbox.kill", {"sandbox": "b"})],
        b"a is ended\nb is ended\n",
    ),
    "rm": (["rm", "dev"], [("sandbox.remove", {"sandbox": "dev"})], b"dev is removed\n"),
    "extend": (
        ["extend", "dev", "90m"], [("sandbox.extend", {"sandbox": "dev", "ttl_ms": 5_400_000})],
        b"dev lives for 1h 30m\n",
    ),
    "prune": (["prune", "--label", "a=b"], [("sandbox.prune", {"labels": {"a": "b"}})], f"{ID}\n".encode()),
    "prune those alive": (["prune", "--alive", "-y"], [("sandbox.prune", {"alive": True})], f"{ID}\n".encode()),
    "ids": (["list", "-q"], [("sandbox.list", {})], f"{ID}\n".encode()),
    "all ids": (["list", "-aq"], [("sandbox.list", {})], f"{ID}\ns2\n".encode()),
    "ids in a state": (["list", "-q", "--in", "ended"], [("sandbox.list", {"state": "ended"})], f"{ID}\ns2\n".encode()),
    "detached": (
        ["exec", "--detach", "--cwd", "/tmp", "dev", "--", "sleep", "9"],
        [("sandbox.exec", {"sandbox": "dev", "argv": ["sleep", "9"], "cwd": "/tmp", "detach": True})], b"e9\n",
    ),
    "detached, on a terminal": (
        ["exec", "-dt", "dev", "top"],
        [
            (
                "sandbox.exec",
                {
                    "sandbox": "dev", "argv": ["top"], "detach": True,
                    "terminal": {"rows": 24, "columns": 80, "term": "xterm"},
                },
            )
        ],
        b"e9\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_what_is_asked_and_said(immure: Callable[..., Said], daemon: Daemon, name: str) -> None:
    words, asked, said = ORDERS[name]
    assert immure(*words) == (0, said, b"")
    assert daemon.heard == asked


def test_a_list_of_several_tenants_says_whose_each_is() -> None:
    rows = [
        SandboxFacts.of({"sandbox": f"s{at}", "state": "ready", "tenant": tenant, **more})
        for at, (tenant, more) in enumerate([("acme", {"project": "web"}), ("acme", {}), ("default", {})])
    ]
    told = [line.split() for line in sandbox_table(rows, 0).splitlines()]
    assert told[0] == "ID NAME STATE AGE LEFT EXECS IN LABELS".split()
    assert [line[-1] for line in told[1:]] == ["acme/web", "acme/default", "default/default"]
    assert "IN" not in sandbox_table(rows[:1], 0).split()


def test_a_list_shows_what_lives_and_no_control_characters(immure: Callable[..., Said]) -> None:
    assert immure("list")[1].split()[:9] == [*b"ID NAME STATE AGE LEFT EXECS LABELS".split(), ID.encode(), b"dev"]
    shown = immure("list", "--all")[1]
    assert b"ended (timeout)" in shown
    assert b"old\\x1b[31m" in shown


@pytest.mark.parametrize(
    "words",
    [
        ("list",), ("show", "dev"), ("execs", "dev"), ("stats",), ("create",), ("pause", "dev"), ("resume", "dev"),
        ("extend", "dev", "1h"), ("kill", "dev"), ("rm", "dev"), ("prune",), ("exec", "dev", "--", "true"),
        ("exec", "-d", "dev", "true"),
    ],
)  # fmt: skip
def test_everything_takes_json(immure: Callable[..., Said], words: tuple[str, ...]) -> None:
    _, stdout, stderr = immure(words[0], "--json", *words[1:])
    assert (isinstance(json.loads(stdout), dict), stderr) == (True, b"")


def test_show_says_what_runs(immure: Callable[..., Said]) -> None:
    shown = immure("show", "dev")[1].decode()
    assert "state                  ready" in shown
    assert "exited 2" in shown
    assert "serve" in shown


def test_stats_of_all_that_live(immure: Callable[..., Said], daemon: Daemon) -> None:
    shown = immure("stats")[1].decode().splitlines()
    assert [command for command, _ in daemon.heard] == ["sandbox.list", "sandbox.stats"]
    assert shown[1].split()[:6] == [ID, "dev", "1.50", "s", "3.0", "MiB"]


def test_an_exec_is_as_if_it_ran_here(immure: Callable[..., Said], daemon: Daemon) -> None:
    assert immure("exec", "--memory", "1M", "--env", "A=1", "dev", "--", "ls", "-l") == (3, b"hi\n", b"oh\n")
    ((_, args),) = daemon.heard
    assert args == {
        "sandbox": "dev", "argv": ["ls", "-l"], "env": {"A": "1"}, "limits": {"memory": "1M"}, "stream": True,
    }  # fmt: skip


def test_a_shell_gets_its_line_as_it_is(immure: Callable[..., Said], daemon: Daemon) -> None:
    immure("exec", "--shell", "/bin/dash", "dev", "--", 'echo "$1"', "a b")
    ((_, args),) = daemon.heard
    assert args["argv"] == ["/bin/dash", "-c", 'echo "$1"', "/bin/dash", "a b"]


def test_without_a_shell_words_are_words() -> None:
    assert by_shell(None, ["echo", "$HOME; rm -rf /"]) == ["echo", "$HOME; rm -rf /"]


def test_what_is_refused_before_it_ran_is_125(immure: Callable[..., Said], daemon: Daemon) -> None:
    daemon.answers = {}
    assert immure("exec", "dev", "--", "true") == (125, b"", b"immure: not_found: because\nremedy: so\n")


def test_the_log_of_the_last_detached_exec(immure: Callable[..., Said], daemon: Daemon) -> None:
    status, stdout, stderr = immure("logs", "dev")
    assert (status, stdout) == (0, b"on\n")
    assert stderr == b"immure: note: 7 bytes before offset 0 are lost\ner"
    assert daemon.heard[-1] == ("sandbox.logs", {"sandbox": ID, "exec": "e2", "from": 5})


def test_a_log_as_json_is_a_record_a_line(immure: Callable[..., Said]) -> None:
    rows = [json.loads(line) for line in immure("logs", "--json", "dev", "e1")[1].splitlines()]
    assert rows == [
        {"time_ms": 0, "stream": "stdout", "data": "on\n"}, {"time_ms": 1, "stream": "stderr", "data": "er"},
    ]  # fmt: skip


def test_a_log_is_followed_to_its_end(immure: Callable[..., Said]) -> None:
    assert immure("logs", "--follow", "dev", "e1") == (0, b"hi\n", b"oh\n")


def test_who_attaches_feeds_it_and_ends_as_it_does(immure: Callable[..., Said], daemon: Daemon) -> None:
    assert immure("attach", "dev", "e2", stdin=b"x\n") == (3, b"hi\n", b"oh\n")
    assert daemon.heard[-1] == ("sandbox.attach", {"sandbox": "dev", "exec": "e2", "input": True})


def test_what_is_over_is_not_fed(immure: Callable[..., Said], daemon: Daemon) -> None:
    assert immure("attach", "dev", "e1")[0] == 3
    assert daemon.heard[-1] == ("sandbox.attach", {"sandbox": "dev", "exec": "e1"})


def test_who_only_looks_feeds_nothing(immure: Callable[..., Said], daemon: Daemon) -> None:
    assert immure("attach", "--no-input", "--from", "4", "dev")[0] == 3
    assert daemon.heard[-1] == ("sandbox.attach", {"sandbox": "dev", "exec": "e2", "from": 4})


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (("create", "--label", "x"), b"immure: usage: --label 'x' is no label"),
        (("create", "--ttl", "soon"), b"'soon': write a number with its unit"),
        (("extend", "dev", "5"), b"'5': write a number with its unit"),
        (("logs", "-ft", "dev"), b"leave out --time or --follow"),
        (("exec", "-t", "dev", "true"), b"immure: no_terminal: "),
        (("exec", "dev", "--"), b"Missing argument '-- CMD...'"),
        (("exec", "--escape", "ab", "-t", "dev", "true"), b"one printable ASCII character"),
    ],
)
def test_a_mistake_is_named_before_anything_is_asked(
    immure: Callable[..., Said], daemon: Daemon, words: tuple[str, ...], wrong: bytes
) -> None:
    status, stdout, stderr = immure(*words)
    assert (status != 0, stdout, daemon.heard) == (True, b"", [])
    assert wrong in stderr


def test_a_table_has_columns_as_wide_as_what_is_in_them() -> None:
    assert table(("A", "LONG"), [("xyz", "1"), ("", "\x1b")]) == "A    LONG\nxyz  1\n     \\x1b"


@pytest.mark.parametrize(
    ("span", "shown"), [(0, "0s"), (999, "0s"), (61_000, "1m 1s"), (3_605_000, "1h"), (90_000_000, "1d 1h"), (-5, "0s")]
)
def test_spans(span: int, shown: str) -> None:
    assert span_text(span) == shown


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (3 << 40, "3.0 TiB")])
def test_sizes(size: int, shown: str) -> None:
    assert size_text(size) == shown


def test_a_bar_says_how_much_and_how_much_longer() -> None:
    assert bar_text("put x", 256 << 20, 1 << 30, 2.0, 120) == (
        "put x  [######------------------]  25%  256 MiB of 1.0 GiB  128 MiB/s  6s left"
    )


def test_a_bar_without_an_end_says_what_it_knows() -> None:
    assert bar_text("get x", 1 << 20, None, 1.0, 120) == "get x  1.0 MiB  1.0 MiB/s"


@pytest.mark.parametrize("columns", [1, 5, 20, 40, 80])
def test_a_bar_never_wraps(columns: int) -> None:
    assert len(bar_text("put a-very-long-name-of-a-file", 10, 100, 1.0, columns)) < max(2, columns)


def test_a_bar_is_seen_on_a_terminal_and_wiped(tmp_path: Path) -> None:
    program = (
        "import time; from immured.cli.progress import Bar\n"
        "with Bar('put x\\x1b[31m', 1000) as bar:\n"
        "    for done in range(0, 1000, 100): bar.at(done); time.sleep(0.12)\n"
        "print('over')\n"
    )
    with Person([PYTHON[0], "-c", program]) as person:
        shown = person.see(rb"(?s)put x\\x1b\[31m  \[#+-+\] +\d+%.*\r\x1b\[Kover\r\n")
    assert b"\x1b[31m" not in shown[0]
    status, stdout, stderr = say([PYTHON[0], "-c", program])
    assert (status, stdout, stderr) == (0, b"over\n", b"")  # nobody looks
