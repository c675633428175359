"""However a session ends, the person's terminal is as it was. The daemon here does as it is told, on a real socket; the
client and the terminal are the real ones."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from immured.wire.envelope import decode_envelope
from immured.wire.messages import DATA, Command, parse_command, parse_data
from immured.wire.sockets import EndOfStream
from tests.client.peer import USER, Peer, Served, record, result_of
from tests.patience import until
from tests.terminal.person import IMMURE, Person

EXEC = b"e" + b"0" * 20
FULL_SCREEN = b"\x1b[?1049h\x1b[?25l\x1b[?1000h"
TAKEN_BACK = rb"\x1b\[\?1000l\x1b\[\?1049l\x1b\[\?25h"


class Program:
    """A program on a terminal, played: shows what is typed, in capitals; `q` ends it, `x` is a connection that breaks,
    `h` is a daemon that hangs, `f` takes the whole screen."""

    def __init__(self) -> None:
        self.started: dict[str, object] = {}
        self.sizes: list[tuple[object, object]] = []
        self.released = threading.Event()

    def __call__(self, served: Served) -> None:
        served.hello()
        shown, began = b"", None
        try:
            while True:
                frame = served.frame()
                envelope = decode_envelope(frame.body)
                if envelope.type != DATA:
                    command, digest = parse_command(envelope.payload), hashlib.sha256(envelope.payload).digest()
                    if command.cmd == "sandbox.exec":
                        began = command, digest
                        self.started = dict(command.args)
                        served.data(command, "exec", EXEC)
                        shown += self.say(served, command, b"ready\r\n")
                    elif command.cmd == "sandbox.resize":
                        self.sizes.append((command.args["rows"], command.args["columns"]))
                        served.reply(command, digest, {})
                        assert began is not None
                        shown += self.say(served, began[0], "size {} {}\r\n".format(*self.sizes[-1]).encode())
                    continue
                assert began is not None
                command, digest = began
                typed = parse_data(envelope.payload).data
                if b"q" in typed:
                    streams = {"stdout": record(shown)}
                    served.reply(command, digest, result_of(exec=EXEC.decode(), exit_code=7, streams=streams))
                elif b"x" in typed:
                    return
                elif b"h" in typed:
                    shown += self.say(served, command, b"hung\r\n")
                    self.released.wait()
                elif b"f" in typed:
                    shown += self.say(served, command, FULL_SCREEN + b"FULL")
                else:
                    shown += self.say(served, command, typed.upper())
        except (EndOfStream, ConnectionError):
            return

    @staticmethod
    def say(served: Served, command: Command, text: bytes) -> bytes:
        served.data(command, "stdout", text)
        return text


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def person(tmp_path: Path, program: Program) -> Iterator[Callable[..., Person]]:
    """Starts `immure shell dev` on a terminal, and waits until the program has it."""
    (tmp_path / "user.pem").write_bytes(USER.to_pem())
    with ExitStack() as stack:
        peer = stack.enter_context(Peer(tmp_path, program))
        stack.callback(program.released.set)
        options = ["--socket", str(peer.socket), "--key", str(tmp_path / "user.pem")]

        def start(*words: str, rows: int = 24, columns: int = 80) -> Person:
            sitting = stack.enter_context(
                Person([*IMMURE, "shell", *options, *words, "dev"], rows=rows, columns=columns)
            )
            sitting.see(b"ready\r\n")
            assert sitting.settings() != sitting.before
            return sitting

        yield start


def given_back(person: Person, status: int) -> bool:
    person.see(b"ended:%d\r\n" % status)
    return person.settings() == person.before


def test_the_program_hears_of_the_terminal(person: Callable[..., Person], program: Program) -> None:
    person(rows=33, columns=77)
    assert program.started == {
        "sandbox": "dev", "argv": ["/bin/bash"], "stream": True,
        "terminal": {"rows": 33, "columns": 77, "term": "xterm"},
    }  # fmt: skip


def test_every_key_goes_through(person: Callable[..., Person]) -> None:
    sitting = person()
    for key in (b"\x03", b"\x04", b"\x1a", b"\x1c", b"\x13", b"\x11", b"\r", b"\x16", b"\x7f"):
        sitting.type(key)
        sitting.see(b"^" + (b"\\" + key if key == b"\\" else key))


def test_it_ends_with_the_program(person: Callable[..., Person]) -> None:
    sitting = person()
    sitting.type(b"q")
    assert given_back(sitting, 7)


def test_the_connection_breaks(person: Callable[..., Person]) -> None:
    sitting = person()
    sitting.type(b"x")
    sitting.see(b"immure: connection_lost: ")
    assert given_back(sitting, 125)


def test_the_person_leaves(person: Callable[..., Person]) -> None:
    sitting = person()
    sitting.type(b"~.")
    assert given_back(sitting, 0)


def test_the_person_leaves_a_daemon_that_hangs(person: Callable[..., Person]) -> None:
    sitting = person()
    sitting.type(b"h")
    sitting.see(b"hung")
    sitting.type(b"12345\r~.")
    assert given_back(sitting, 0)


def test_without_an_escape_nobody_leaves(person: Callable[..., Person]) -> None:
    sitting = person("--escape", "none")
    sitting.type(b"~.")
    sitting.see(rb"^~\.")
    sitting.type(b"q")
    assert given_back(sitting, 7)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it(person: Callable[..., Person], number: signal.Signals) -> None:
    sitting = person()
    os.kill(sitting.child(), number)
    assert given_back(sitting, 128 + number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_it_dies_and_another_gives_the_terminal_back(person: Callable[..., Person], number: signal.Signals) -> None:
    sitting = person()
    sitting.type(b"f")
    sitting.see(b"FULL")
    os.kill(sitting.child(), number)
    until(lambda: sitting.settings() == sitting.before)
    sitting.see(TAKEN_BACK)


def test_who_has_set_the_terminal_since_keeps_it(person: Callable[..., Person]) -> None:
    import termios

    sitting = person()
    child = sitting.child()
    os.kill(child, signal.SIGSTOP)
    others = sitting.settings()
    others[3] |= termios.ECHO
    termios.tcsetattr(sitting.master, termios.TCSANOW, others)
    os.kill(child, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{child}"))
    until(lambda: not guards(child))
    assert sitting.settings() == others


def guards(parent: int) -> list[int]:
    """Processes that were forked by `parent`: its session ended, they have one of their own."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{name}/stat") as file:
                    session = int(file.read().rsplit(")", 1)[1].split()[3])
            except (OSError, IndexError):
                continue
            if b"shell" in words and b"dev" in words and session == int(name):
                found.append(int(name))
    return found


def test_the_full_screen_of_a_program_that_is_gone_is_left(person: Callable[..., Person]) -> None:
    sitting = person()
    sitting.type(b"f")
    sitting.see(b"FULL")
    sitting.type(b"x")
    sitting.see(TAKEN_BACK + b".*immure: connection_lost")
    assert given_back(sitting, 125)


def test_it_is_suspended_and_goes_on(person: Callable[..., Person]) -> None:
    sitting = person()
    child = sitting.child()
    sitting.type(b"~\x1a")
    until(lambda: state(child) == "T")
    assert sitting.settings() == sitting.before
    os.kill(child, signal.SIGCONT)
    until(lambda: sitting.settings() != sitting.before)
    sitting.type(b"a")
    sitting.see(b"A")
    sitting.type(b"q")
    assert given_back(sitting, 7)


def test_after_a_stop_that_it_did_not_see_it_takes_the_terminal_again(person: Callable[..., Person]) -> None:
    import termios

    sitting = person()
    child = sitting.child()
    os.kill(child, signal.SIGSTOP)
    until(lambda: state(child) == "T")
    termios.tcsetattr(sitting.master, termios.TCSANOW, sitting.before)
    os.kill(child, signal.SIGCONT)
    until(lambda: sitting.settings() != sitting.before)
    sitting.type(b"q")
    assert given_back(sitting, 7)


def state(pid: int) -> str:
    """As proc(5) has it; that of one that was waited for is `Z`."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_a_new_size_is_told_and_of_many_the_last(person: Callable[..., Person], program: Program) -> None:
    sitting = person()
    for rows in range(30, 50):
        sitting.resize(rows, 100)
    sitting.see(b"size 49 100")
    assert program.sizes[-1] == (49, 100)
    assert len(program.sizes) <= 20


def test_the_window_is_closed(tmp_path: Path, person: Callable[..., Person]) -> None:
    sitting = person()
    child = sitting.child()
    os.close(sitting.master)
    sitting.master = os.open(os.devnull, os.O_RDWR)
    until(lambda: state(child) == "Z")


def test_without_a_terminal_it_is_refused(tmp_path: Path) -> None:
    from tests.cli.conftest import PYTHON, say

    status, stdout, stderr = say([*PYTHON, "shell", "--state", str(tmp_path), "dev"])
    assert (status, stdout) == (125, b"")
    assert stderr.startswith(b"immure: no_terminal: ")
