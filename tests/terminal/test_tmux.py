"""A session in tmux, which is a terminal that says what is on its screen."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured.client import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S, until
from tests.sandboxes.waiting import has_the_terminal
from tests.terminal.person import IMMURE, surroundings

pytestmark = pytest.mark.needs_root


class Tmux:
    """A server of our own with one window, in which a shell of the host's runs."""

    def __init__(self, place: Path) -> None:
        self._socket = str(place / "tmux")
        self.call("-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", "env PS1='host> ' /bin/bash --norc")

    def call(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], check=True, capture_output=True, text=True, timeout=PATIENCE_S,
            env=surroundings(TERM="screen"),
        )  # fmt: skip
        return done.stdout

    def keys(self, *keys: str) -> None:
        """As tmux names them: Enter, C-c, Up; anything else is typed."""
        self.call("send-keys", "-t", ":0.0", *keys)

    def screen(self) -> str:
        return self.call("capture-pane", "-p", "-t", ":0.0")

    def wait(self, pattern: str) -> str:
        """Until it is on the screen."""
        shown = ""

        def is_shown() -> bool:
            nonlocal shown
            shown = self.screen()
            return re.search(pattern, shown, re.MULTILINE) is not None

        try:
            until(is_shown)
        except AssertionError:
            raise AssertionError(f"{pattern!r} is not on the screen:\n{shown}") from None
        return shown

    def close(self) -> None:
        self.call("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.fail("tmux is not installed: scripts/system-packages test")
    server = Tmux(tmp_path)
    try:
        server.wait("^host>")
        yield server
    finally:
        server.close()


def test_a_session_as_a_person_has_it(tmux: Tmux, daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    tmux.keys("stty -g > /tmp/immured-before-$$; clear", "Enter")
    tmux.wait(r"\Ahost>$")
    immure = shlex.join([*IMMURE, "shell", "--state", str(daemon.state), sandbox.id])
    tmux.keys(f"{immure}; echo status $?", "Enter")
    tmux.wait(r"^bash-[\d.]+\$$")

    tmux.keys("echo helo", "Left", "l", "Enter")  # line editing
    tmux.wait(r"^hello$")
    tmux.keys("Up", "Enter")
    tmux.wait(r"^hello\n(.*\n)*hello$")

    tmux.keys("sleep 1000060", "Enter")
    # Before that the key is the shell's, which then forgets what it has read, or waits for what it has started.
    until(lambda: has_the_terminal(b"sleep\0001000060\0"))
    tmux.keys("C-c")
    tmux.wait(r"\^C")
    tmux.keys("sleep 1000062", "Enter")
    until(lambda: has_the_terminal(b"sleep\0001000062\0"))
    tmux.keys("C-z")
    tmux.wait(r"\[1\]\+ +Stopped +sleep 1000062")
    tmux.keys("kill %1; wait; clear", "Enter")

    tmux.keys("vim -u NONE -N -c 'set laststatus=2' /tmp/poem", "Enter")
    tmux.wait(r"\A(?:[^\n]*\n){28}~/poem")  # it has the whole window
    tmux.call("resize-window", "-t", ":0", "-x", "70", "-y", "18")
    tmux.wait(r"\A(?:[^\n]*\n){16}~/poem")
    tmux.keys("i", "walls", "Escape")
    tmux.keys(":wq", "Enter")
    tmux.wait(r"^bash-[\d.]+\$$")
    tmux.keys("clear; cat /tmp/poem; stty size", "Enter")
    tmux.wait(r"^walls\n18 70$")

    tmux.keys("exit 6", "Enter")
    tmux.wait(r"^status 6\nhost>$")
    tmux.keys("clear; stty -g | cmp - /tmp/immured-before-$$ && echo as it was; rm /tmp/immured-before-$$", "Enter")
    tmux.wait(r"^as it was$")
    tmux.keys("echo t", "C-h", "typed here", "Enter")
    tmux.wait(r"^typed here$")


def test_a_connection_that_breaks_in_vim_leaves_a_usable_terminal(
    tmux: Tmux, daemon: ThrowawayDaemon, sandbox: Sandbox
) -> None:
    immure = shlex.join([*IMMURE, "shell", "--state", str(daemon.state), sandbox.id])
    tmux.keys(f"echo before; {immure}; echo status $?", "Enter")
    tmux.wait(r"^bash-[\d.]+\$$")
    tmux.keys("vim -u NONE -N /tmp/x", "Enter")
    tmux.wait(r"^~$")
    sandbox.kill()
    shown = tmux.wait(r"^status 137\nhost>$")
    assert "before" in shown  # the first screen is back
    tmux.keys("echo typed here", "Enter")
    tmux.wait(r"^typed here$")
