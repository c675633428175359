"""`immure run` is served by two programs: whatever the words, both order the same of the daemon and say the same."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from immured import __version__
from immured.cli.app import app
from immured.cli.run import run as run_command
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.messages import Command
from tests.cli.conftest import PYTHON, ROOT, Both, say
from tests.client.peer import Served

Scripted = Callable[[Callable[[Served], None]], list[str]]

DIGEST = "sha256:" + "0" * 64
LATIN = b"caf\xe9"

ORDERS: dict[str, list[str | bytes]] = {
    "nothing": [],
    "many words": ["a", "", "-x", "--json", "--", "b c"],
    "words that are no text": [LATIN, "größer"],
    "long words": ["x" * 300, "y" * 70_000],
    "no separator": ["--quiet", "echo", "-n"],
    "read": ["--ro", "."],
    "read and write": ["--ro", ".", "--rw", "out"],
    "elsewhere inside": ["--ro", ".:/app", "--rw", "out:/app/out"],
    "odd paths": ["--ro", "./sub/../sub//", "--ro", "//srv", "--ro", "///srv", "--ro", "a:b", "--ro", "/a:b:/c/./d/.."],
    "a path that is no text": ["--ro", LATIN, "--tmpfs", LATIN],
    "a link to where we stand": ["--ro", "../link:/linked"],
    "beneath a link": ["--ro", "/", "--ro", "../link:/linked", "--cwd", "sub"],
    "nothing that is there": ["--ro", "/no/such/path", "--ro", "sub/file/x"],
    "equals": ["--ro=.", "--memory=64M", "--env=A=b=c"],
    "the last counts": ["--memory", "1M", "--memory", "2M", "--cwd", "/a", "--cwd", "/b"],
    "every limit": [
        *("--memory", "512M", "--cpus", "1.5", "--pids", "64", "--wall", "60s", "--cpu-time", "10s", "--disk", "64M"),
        *("--files", "128", "--output", "1M", "--cores", "0-1", "--pin", "1", "--strict"),
    ],
    "one limit": ["--strict"],
    "a place": ["--cwd", "/usr"],
    "a place beneath": ["--ro", ".:/app", "--cwd", "sub"],
    "a place above": ["--ro", ".", "--cwd", "../.."],
    "a place without a bound": ["--cwd", "sub"],
    "a place unnormalised": ["--cwd", "/usr/../x//"],
    "a root": ["--rootfs", "sub", "--tmpfs", "scratch", "--tmpfs", "/t"],
    "network": ["--network", "loopback"],
    "names": [
        *("--persona", "sre", "--tenant", "acme", "--project=web", "--sub", "user:größer", "--session", "n1"),
        *("--tenant", "other"),
    ],
    "variables": ["--env", "A=1=2", "--env", "B=", "--env", "GIVEN", "--env", "A=3", "--env", "C=ü"],
    "variables that are no text": ["--env", b"A=" + LATIN],
    "passed on, then set": ["--env", "GIVEN", "--env", "GIVEN=ours"],
    "a loaded manifest": ["--manifest", DIGEST, "--memory", "64M", "--env", "A=b"],
    "what is filled in": ["--manifest", DIGEST, "--set", "project=/srv/p=q", "--set", "n=5", "--set", "empty="],
    "what is filled in, of no ASCII": ["--manifest", DIGEST, "--set", "project=/srv/grün", "--set", "ü=1"],
    "a class": ["--class", "strict"],
    "a class and more": ["--class", "build", "--rw", "out", "--swap", "64M"],
    "a manifest's file": ["--manifest", "m.toml", "--ro", "sub", "--wall", "5s"],
}

MISTAKES: dict[str, list[str | bytes]] = {
    "no command": [],
    "no command behind the separator": ["--"],
    "help": ["--help"],
    "an option that there is not": ["--no-such", "--", "true"],
    "a short one that there is not": ["-x", "--", "true"],
    "shorts together": ["-qh", "--", "true"],
    "part of an option": ["--mem", "1M", "--", "true"],
    "an option without its value": ["--memory"],
    "a flag with a value": ["--quiet=yes", "--", "true"],
    "a number that is none": ["--pids", "many", "--", "true"],
    "a number too small": ["--files", "0", "--", "true"],
    "a network that there is not": ["--network", "host", "--", "true"],
    "a variable that is not there": ["--env", "MISSING", "--", "true"],
    "a variable without a name": ["--env", "=x", "--", "true"],
    "a bound without a path": ["--ro", ":/x", "--", "true"],
    "a bound of nothing": ["--ro", "", "--", "true"],
    "nothing to fill in": ["--set", "", "--", "true"],
    "nothing filled in": ["--set", "project", "--", "true"],
    "filled in without a name": ["--set", "=x", "--", "true"],
    "filled in twice": ["--set", "a=1", "--set", "ab=1", "--set", "a=2", "--", "true"],
    "filled in with two lines": ["--set", "a=1\n2", "--", "true"],
    "filled in with no text": ["--set", b"a=" + LATIN, "--", "true"],
    "a class beside a manifest": ["--class", "strict", "--manifest", DIGEST, "--", "true"],
    "a manifest that is not there": ["--manifest", "none.toml", "--", "true"],
    "a loaded manifest with paths": ["--manifest", DIGEST, "--ro", ".", "--", "true"],
    "a key that is not there": ["--key", "/none", "--", "true"],
    "a key that is a directory": ["--key", "/", "--", "true"],
    "a key that is none": ["--key", "/etc/passwd", "--", "true"],
    "a daemon's key that is none": ["--daemon-key", "/etc/passwd", "--", "true"],
    "a socket that is not there": ["--socket", "/none", "--", "true"],
    "a socket that is a file": ["--socket", "/etc/passwd", "--", "true"],
    "a path too long for a socket": ["--socket", "/" + "x" * 200, "--", "true"],
    "a chain that is not there": ["--certificate", "/none", "--", "true"],
    "a name of no text": ["--tenant", b"caf\xe9", "--", "true"],
    "an agent that is not there": ["--key", "agent:alice", "--", "true"],
    "a user that is not there": ["--as", "nobody-here", "--", "true"],
}

RUNS: dict[str, list[str | bytes]] = {
    "output": ["--", "sh", "-c", "echo out; echo err >&2; exit 3"],
    "much output": ["--", "head", "-c", "3000000", "/dev/zero"],
    "a signal": ["--", "sh", "-c", "kill -TERM $$"],
    "past its time": ["--wall", "200ms", "--", "sleep", "60"],
    "too much output": ["--output", "1K", "--", "sh", "-c", "head -c 5000 /dev/zero; sleep 60"],
    "not found": ["--", "no-such-program"],
    "not found, by a hostile name": ["--", "no\x1b[2J\nsuch\u202egrößer\t\u00ad大\U0001f600"],
    "not found, by no text": ["--", b"/no/" + LATIN],
    "no program": ["--", "/etc/passwd"],
    "a class that there is not": ["--class", "wide", "--", "true"],
    "a parameter that there is not": ["--set", "a=1", "--", "true"],
    "a path that is not there": ["--ro", "/no/such/path", "--", "true"],
    "a limit that makes no sense": ["--memory", "plenty", "--", "true"],
    "a limit held by what there is": ["--memory", "256M", "--pids", "64", "--", "true"],
    "the same, quietly": ["-q", "--memory", "256M", "--pids", "64", "--", "true"],
    "a manifest that is not loaded": ["--manifest", DIGEST, "--", "true"],
    "a place that is not there": ["--cwd", "/none", "--", "true"],
    "what root may not make": ["--rw", "/tmp/immured-not-there", "--", "true"],
    "a program of its own name": ["true"],
    "a write that is refused": ["--", "sh", "-c", "echo x > /usr/x"],
    "writes that are refused": [
        "--",
        "sh",
        "-c",
        "for i in 1 2 3 4 5 6 7 8 9 10; do rm /usr/bin/sh; done; exit 1",
    ],
}


READING = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
"""Who drops to another user here keeps the right to read the interpreter, wherever that lies."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Where the caller stands: a directory with one beneath it, and a link to it beside it."""
    place = tmp_path / "here"
    (place / "sub").mkdir(parents=True)
    (place / "out").mkdir()
    (place / "sub" / "file").write_text("")
    (place / "m.toml").write_text('schema = 1\nname = "m"\nclass = "default"\n[filesystem]\nread = ["/srv"]\n')
    (tmp_path / "link").symlink_to(place)
    return place


def test_the_native_half_knows_each_option_as_it_is() -> None:
    """An option that it does not know is no mistake, and slow: say so in options.def, as PYTHON."""
    listed = re.findall(r'^OPTION\("(-[\w-]+)", (\w+)', (ROOT / "native/client/options.def").read_text(), re.MULTILINE)
    given: dict[str, set[str]] = {}
    parent = click.Context(app, help_option_names=list(app.context_settings["help_option_names"]))
    for option in [*run_command.params, run_command.get_help_option(click.Context(run_command, parent=parent))]:
        if not isinstance(option, click.Option):
            continue
        kind = "FLAG" if option.is_flag else "MANY" if option.multiple else "TEXT"
        if isinstance(option.type, click.IntRange):
            kind = "COUNT"
        elif isinstance(option.type, click.Choice):
            kind = "NETWORK"
        for spelling in option.opts:
            given[spelling] = {kind, "PYTHON"}
    assert {name for name, _ in listed} == given.keys()
    assert [name for name, kind in listed if kind not in given[name]] == []


def answering(seen: list[Command]) -> Callable[[Served], None]:
    """A daemon that answers one command, and notes it."""

    def script(served: Served) -> None:
        served.hello()
        command, digest, _ = served.command()
        seen.append(command)
        served.reply(command, digest)

    return script


@pytest.mark.parametrize("name", ORDERS)
def test_both_order_the_same(
    scripted: Scripted, sanitized: list[str], native: list[str], here: Path, name: str
) -> None:
    seen: list[Command] = []
    target = scripted(answering(seen))
    words = ["run", *target, *ORDERS[name], *([] if "echo" in ORDERS[name] else ["--", "echo"])]
    if "many words" in name or name in {"words that are no text", "long words"}:
        words = ["run", *target, "--", "echo", *ORDERS[name]]
    said = [
        say([*half, *words], cwd=here, environment={"GIVEN": "theirs", "HOME": "/"})
        for half in (PYTHON, native, sanitized)
    ]
    assert said == [(0, b"", b"")] * 3
    assert seen[0].args == seen[1].args == seen[2].args
    assert list(seen[0].args) == list(seen[1].args)
    assert names_of(seen[0]) == names_of(seen[1]) == names_of(seen[2])
    assert {command.aud for command in seen} == {seen[0].aud}
    assert len({command.nonce for command in seen}) == 3
    assert {command.exp - command.iat for command in seen} == {60_000}


def names_of(command: Command) -> list[str | None]:
    return [command.persona, command.tenant, command.project, command.sub, command.session]


@pytest.mark.parametrize(
    ("variables", "words", "carried"),
    [
        ({}, [], [None] * 5),
        ({"TENANT": "acme", "PROJECT": "web"}, [], [None, "acme", "web", None, None]),
        ({"TENANT": "acme", "SESSION": "n1"}, ["--tenant", "other"], [None, "other", None, None, "n1"]),
        ({"PERSONA": "", "SUB": "user:7"}, [], [None, None, None, "user:7", None]),
    ],
)
def test_names_of_the_environment_are_carried_by_both(
    scripted: Scripted,
    sanitized: list[str],
    native: list[str],
    variables: dict[str, str],
    words: list[str],
    carried: list[str | None],
) -> None:
    seen: list[Command] = []
    target = scripted(answering(seen))
    environment = {f"IMMURE_{name}": value for name, value in variables.items()}
    for half in (PYTHON, native, sanitized):
        assert say([*half, "run", *target, *words, "--", "true"], environment=environment) == (0, b"", b"")
    assert [names_of(command) for command in seen] == [carried] * 3


@pytest.mark.parametrize("name", MISTAKES)
def test_both_say_the_same_of_a_mistake(scripted: Scripted, both: Both, here: Path, name: str) -> None:
    target = scripted(lambda _: pytest.fail("it connected"))
    code, out, err = both("run", *target, *MISTAKES[name], cwd=here)
    if b"Usage: immure run" in out:
        assert (code, err) == (0, b"")
    else:
        assert (code, out, err[:8]) == (125, b"", b"immure: ")


@pytest.mark.parametrize("name", ["LANG", "LC_ALL", "LC_CTYPE"])
def test_both_say_the_same_in_another_encoding(both: Both, name: str) -> None:
    code, _, err = both("run", "--key", "/nön", "--", "true", environment={name: "de_DE.ISO-8859-1"})
    assert (code, err[:16]) == (125, b"immure: no_key: ")


@pytest.mark.parametrize("words", [["--help"], ["status", "--help"], ["nothing"], [], ["run"], ["key", "--help"]])
def test_all_else_is_pythons(both: Both, words: list[str]) -> None:
    assert both(*words)[0] in {0, 2, 125}


def test_the_version_tells_which_half_serves_runs(native: list[str]) -> None:
    assert say([*PYTHON, "--version"]) == (0, f"immure {__version__} (run: Python)\n".encode(), b"")
    told = f"immure {__version__} (run: native client {__version__})\n"
    assert say([*native, "--version"]) == (0, told.encode(), b"")


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        yield running


@pytest.mark.needs_root
@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_same_by_both(daemon: ThrowawayDaemon, both: Both, name: str) -> None:
    both("run", "--state", str(daemon.state), *RUNS[name])


@pytest.mark.needs_root
@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000, 3_000_000])
def test_input_goes_through_whole(daemon: ThrowawayDaemon, both: Both, size: int) -> None:
    data = os.urandom(size)
    assert both("run", "--state", str(daemon.state), "--", "cat", stdin=data) == (0, data, b"")


@pytest.mark.needs_root
def test_input_that_nobody_reads_is_no_trouble(daemon: ThrowawayDaemon, both: Both) -> None:
    assert both("run", "--state", str(daemon.state), "--", "true", stdin=bytes(10_000_000)) == (0, b"", b"")


@pytest.mark.needs_root
@pytest.mark.parametrize("how", ["0> /dev/null", "< /dev/full", "2> /dev/full", "> /dev/full"])
def test_descriptors_that_are_no_use_are_named_alike(
    daemon: ThrowawayDaemon, both: Both, sanitized: list[str], how: str
) -> None:
    words = f"run --state {daemon.state} -- sh -c 'head -c 10 | wc -c; echo err >&2'"
    python = say(["/bin/sh", "-c", f"{' '.join(PYTHON)} {words} {how}"])
    assert say(["/bin/sh", "-c", f"{sanitized[0]} {words} {how}"]) == python


@pytest.mark.needs_root
def test_a_directory_as_input_is_none(daemon: ThrowawayDaemon, sanitized: list[str]) -> None:
    """Python itself does not start with one."""
    words = f"{sanitized[0]} run --state {daemon.state} -- wc -c < /"
    assert say(["/bin/sh", "-c", words]) == (0, b"0\n", b"")


@pytest.mark.needs_root
def test_a_directory_is_made_and_noted_once(daemon: ThrowawayDaemon, sanitized: list[str]) -> None:
    """Also where Python finishes what the native half began: the note is said by who made it."""
    base = Path(tempfile.mkdtemp(prefix="immured-halves-"))
    os.chown(base, 65534, 65534)
    key = base / "key.pem"
    key.write_bytes(daemon.admin_key.read_bytes())
    os.chown(key, 65534, 65534)
    try:
        for program in Path(sanitized[0]).parent.glob("immure*"):
            shutil.copy(program, base)
        for half, name in ((PYTHON, "one"), ([str(base / "immure")], "two")):
            options = ["--socket", str(base / "none"), "--daemon-key", str(daemon.daemon_key), "--key", str(key)]
            done = say(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *READING, *half, "run", *options,
                 "--rw", str(base / name), "--", "true"],
            )  # fmt: skip
            assert done[0] == 125
            assert done[2].count(b"note: made") == 1, done
            assert done[2].index(b"note: made") < done[2].index(b"connection_lost")
            assert (base / name).is_dir()
    finally:
        shutil.rmtree(base)
