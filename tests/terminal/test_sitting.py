"""A person before a shell in a sandbox, and everything between them real: what one types, sees, and is left with."""

from __future__ import annotations

import contextlib
import hashlib

import pytest

from immured import Client
from immured.client import Sandbox, Terminal
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S, UNHURRIED, until
from tests.sandboxes.waiting import has_the_terminal
from tests.terminal.conftest import PROMPT, Sit
from tests.terminal.person import IMMURE, Person

pytestmark = pytest.mark.needs_root

LONG = 1_000_061
"""Seconds that nobody else's `sleep` lasts."""
LEFT = b"\x1b[D"
UP = b"\x1b[A"


def ends(person: Person, status: int) -> None:
    person.see(b"ended:%d\r\n" % status)
    assert person.settings() == person.before


def test_a_line_is_edited(shell: Person) -> None:
    shell.type(b"echo wrlx" + LEFT + b"\x1b[3~" + LEFT + LEFT + b"o" + b"\x05d\r")  # left, delete, end of line
    shell.see(rb"[\r\n]world\r\n")
    shell.type(UP + b"ly\r")
    shell.see(rb"[\r\n]worldly\r\n")
    shell.type(b"garbage\x15echo clean\r")  # the line is killed
    shell.see(rb"[\r\n]clean\r\n")


def test_it_is_on_a_terminal_of_the_sandbox_s_own(shell: Person) -> None:
    shell.type(b"tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all three\r")
    shell.see(rb"[\r\n]/dev/pts/0\r\nall three\r\n")


def test_an_interrupt_key_interrupts_what_runs_and_not_the_shell(shell: Person) -> None:
    shell.type(b"sh -c 'echo begun; exec sleep 1000'\r")
    shell.see(rb"[\r\n]begun\r\n")
    shell.type(b"\x03")
    shell.see(PROMPT)
    shell.type(b"echo $?\r")
    shell.see(rb"[\r\n]130\r\n")


def test_jobs_are_stopped_put_into_the_background_and_brought_back(shell: Person) -> None:
    # exec: dash vforks, and a stop that comes before the child's exec leaves it waiting, neither stopped nor running.
    shell.type(b"sh -c 'echo begun; exec sleep %d'\r" % LONG)
    shell.see(rb"[\r\n]begun\r\n")  # it has the terminal: a key before that is the shell's
    shell.type(b"\x1a")
    shell.see(rb"\[1\]\+  Stopped +sh -c")
    shell.type(b"bg\r")
    shell.see(rb"\[1\]\+ sh -c .* &\r\n")
    shell.type(b"jobs\r")
    shell.see(rb"\[1\]\+  Running +sh -c")
    shell.type(b"fg\r")
    shell.see(rb"[\r\n]sh -c 'echo begun; exec sleep %d'\r\n" % LONG)
    # bash says so before the job has the terminal: what is typed in between is the shell's, which goes on waiting.
    until(lambda: has_the_terminal(b"sleep\0%d\0" % LONG))
    shell.type(b"\x03")
    shell.see(PROMPT)


def test_a_new_size_arrives(shell: Person) -> None:
    shell.type(b"trap 'echo now $(stty size)' WINCH; stty size\r")
    shell.see(rb"[\r\n]24 80\r\n")
    shell.see(PROMPT)  # until then the terminal is stty's, and so would be the signal
    shell.resize(40, 132)
    # The new size is a command of its own, which keys may overtake; bash runs a trap at the next line that it reads.
    for _ in range(int(PATIENCE_S / 3)):
        shell.type(b"\r")
        with contextlib.suppress(AssertionError):
            shell.see(rb"now 40 132\r\n", 3)
            break
    else:
        pytest.fail("the new size did not arrive")


def test_keys_that_would_end_the_input_do_so(shell: Person) -> None:
    shell.type(b"sh -c 'echo begun; exec cat'\r")
    shell.see(rb"[\r\n]begun\r\n")
    shell.type(b"line\r")
    shell.see(rb"line\r\nline\r\n")
    shell.type(b"\x04")
    shell.see(PROMPT)
    shell.type(b"\x04")
    ends(shell, 0)


def test_the_exit_status_is_the_shell_s(shell: Person) -> None:
    shell.type(b"exit 5\r")
    ends(shell, 5)


def test_a_file_is_written_with_vim(shell: Person) -> None:
    shell.type(b"vim -u NONE -N /tmp/note\r")
    shell.see(rb"\x1b\[\?1049h")
    shell.type(b"ihello from vim\x1b:wq\r")
    shell.see(rb"\x1b\[\?1049l")
    shell.see(PROMPT)
    shell.type(b"cat /tmp/note\r")
    shell.see(rb"[\r\n]hello from vim\r\n")
    shell.type(b"exit\r")
    ends(shell, 0)


def test_a_screen_whose_program_died_is_left(shell: Person, sandbox: Sandbox) -> None:
    shell.type(b"vim -u NONE -N /tmp/note\r")
    shell.see(rb"\x1b\[\?1049h")
    shell.see(rb"~")
    sandbox.kill()
    shell.see(rb"\x1b\[\?1049l.*immure: killed: the command was killed\r\n")
    ends(shell, 137)


def test_much_output_arrives_whole(shell: Person) -> None:
    shell.type(b"stty -echo; seq 200000 | sha256sum; seq 200000; echo done\r")
    digest = shell.see(rb"[\r\n]([0-9a-f]{64})  -\r\n")[1]
    lines = shell.all_until(b"done\r\n").replace(b"\r\n", b"\n")
    assert hashlib.sha256(lines).hexdigest() == digest.decode()


def test_much_input_arrives_whole(shell: Person) -> None:
    shell.type(b"stty -echo; echo begun; head -n 300 | wc -c; echo counted\r")
    shell.see(rb"[\r\n]begun\r\n")
    for _ in range(300):
        shell.type(b"x" * 999 + b"\r")
    shell.see(rb"300000\r\ncounted\r\n")


@pytest.mark.parametrize("call", ["TIOCSTI", "TIOCLINUX"])
def test_no_key_is_put_into_a_terminal_by_a_program(shell: Person, call: str) -> None:
    number = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C}[call]
    shell.type(b"python3 -c 'import fcntl; fcntl.ioctl(0, %d, b\"x\")'\r" % number)
    shell.see(rb"PermissionError: \[Errno 1\]")
    shell.see(PROMPT)


def test_a_shell_that_is_not_there_is_named(sit: Sit) -> None:
    person = sit("shell", "--shell", "/bin/none")
    person.see(rb"immure: executable_not_found: .*\r\n")
    ends(person, 127)


def test_a_sandbox_that_is_not_there_is_named(sit: Sit, sandbox: Sandbox) -> None:
    sandbox.remove()
    person = sit("shell")
    person.see(rb"immure: not_found: .*\r\n")
    ends(person, 125)


def test_a_sandbox_of_its_own_goes_with_its_shell(daemon: ThrowawayDaemon, client: Client) -> None:
    before = {one.id for one in client.sandboxes()}
    with Person([*IMMURE, "shell", "--state", str(daemon.state), "--tmpfs", "/scratch", "--label", "who=me"]) as person:
        person.see(PROMPT)
        (made,) = client.sandboxes(labels={"who": "me"})
        person.type(b"touch /scratch/x && exit 3\r")
        ends(person, 3)
    assert made.id not in before
    assert client.sandboxes(labels={"who": "me"}) == []


# -- one that goes on without us


def test_a_detached_terminal_is_left_and_come_back_to(sit: Sit, sandbox: Sandbox) -> None:
    left = sandbox.start(["/bin/bash"], terminal=Terminal())
    first = sit("sandbox", "attach", behind=(left.id,), rows=30, columns=90)
    first.see(PROMPT)
    # The new size is a command of its own, which keys may overtake.
    first.type(b'x=kept; until [ "$(stty size)" = "30 90" ]; do :; done; stty size\r')
    first.see(rb"[\r\n]30 90\r\n")
    first.type(b"~.")
    first.see(rb"immure: note: %s goes on" % left.id.encode())
    ends(first, 0)
    second = sit("sandbox", "attach")
    second.see(rb"30 90\r\n")  # what was written before is shown again
    second.type(b"echo still $x; exit 9\r")
    second.see(rb"[\r\n]still kept\r\n")
    ends(second, 9)


def test_a_command_on_a_terminal(sit: Sit) -> None:
    person = sit("sandbox", "exec", "--tty", behind=("--", "/bin/sh", "-c", "test -t 1 && stty size; exit 4"), rows=11)
    person.see(rb"11 80\r\n")
    ends(person, 4)


def test_a_daemon_that_dies_and_comes_back_is_a_pause_in_a_terminal_that_goes_on() -> None:
    with ThrowawayDaemon() as daemon:
        with daemon.client() as client:
            made = client.sandbox(manifest=UNHURRIED, keep=True)
            left = made.start(["/bin/bash"], terminal=Terminal())
        with Person([*IMMURE, "sandbox", "attach", "--state", str(daemon.state), made.id, left.id]) as person:
            person.see(PROMPT)
            person.type(b"x=kept\r")
            person.see(PROMPT)
            daemon.kill()
            person.see(rb"connection lost")  # what is typed before it is noticed is on its way to the dead one
            daemon.start()
            person.type(b"echo still $x\r")
            person.see(rb"[\r\n]still kept\r\n")
            person.type(b"exit 9\r")
            ends(person, 9)
        with daemon.client() as client:
            client.at(made.id).remove()
