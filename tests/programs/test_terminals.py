"""Programs that want a terminal find one of the sandbox's own: pty, script, stty, pagers, job control."""

from __future__ import annotations

import pytest

from immured import Client

PYTHON = "/usr/bin/python3"


def output(client: Client, *command: str, stdin: bytes | None = None) -> str:
    """What a command that succeeds wrote to stdout, with plain ends of lines."""
    result = client.run(command, stdin=stdin, limits={"wall": "60s"})
    assert (result.cause, result.exit_code) == ("exited", 0), (result, result.stderr.decode())
    return result.stdout.decode().replace("\r\n", "\n")


def on_a_terminal(client: Client, command: str) -> str:
    """What a shell line writes to a pseudo-terminal that Python's pty makes for it."""
    program = f"import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(['/bin/bash', '-c', {command!r}])))"
    return output(client, PYTHON, "-c", program)


def test_a_child_has_a_controlling_terminal(client: Client) -> None:
    assert on_a_terminal(client, "tty; test -t 0 && echo yes > /dev/tty") == "/dev/pts/0\nyes\n"


def test_the_size_of_a_terminal_is_set_and_read(client: Client) -> None:
    assert on_a_terminal(client, "stty rows 12 cols 34; stty size; tput -T xterm cols") == "12 34\n34\n"


def test_a_terminal_is_made_raw_and_sane_again(client: Client) -> None:
    said = on_a_terminal(client, "stty raw -echo; stty -a | grep -o -e '-icanon'; stty sane; stty -a | grep -ow icanon")
    assert said == "-icanon\nicanon\n"


def test_an_interrupt_key_interrupts(client: Client) -> None:
    program = """
import os, pty, signal
pid, terminal = pty.fork()
if pid == 0:
    os.execv("/bin/sh", ["sh", "-c", "echo begun; exec sleep 60"])
said = b""
while b"begun" not in said:  # it has the terminal by then, and Python's own handler no more
    said += os.read(terminal, 100)
os.write(terminal, b"\\x03")
print(signal.Signals(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) * -1).name)
"""
    assert output(client, PYTHON, "-c", program) == "SIGINT\n"


def test_script_records_a_session(client: Client) -> None:
    line = "script --quiet --return --command 'tty; exit 0' /tmp/typescript; grep -c /dev/pts /tmp/typescript"
    assert output(client, "/bin/bash", "-ec", line) == "/dev/pts/0\n1\n"


def test_an_interactive_shell_controls_its_jobs(client: Client) -> None:
    program = """
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execve("/bin/bash", ["bash", "--norc", "--noprofile", "-i"], {**os.environ, "PS1": "", "TERM": "dumb"})
os.write(terminal, b"stty -echo; sleep 60 &\\njobs; kill %1; wait; echo $((6 * 7))-done\\nexit 3\\n")
said = b""
try:
    while piece := os.read(terminal, 4096):
        said += piece
except OSError:
    pass
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), b"Running" in said, b"42-done" in said)
"""
    assert output(client, PYTHON, "-c", program) == "3 True True\n"


def test_without_a_terminal_pagers_are_plain(client: Client) -> None:
    assert output(client, "/bin/bash", "-c", "seq 3 | more") == "1\n2\n3\n"


@pytest.mark.parametrize(("zone", "shown"), [("UTC", "12:00 UTC"), ("Asia/Tokyo", "21:00 JST")])
def test_time_zones(client: Client, zone: str, shown: str) -> None:
    assert (
        output(client, "/usr/bin/env", f"TZ={zone}", "date", "-d", "2001-02-03T12:00:00Z", "+%H:%M %Z") == f"{shown}\n"
    )
