"""The person's own terminal: made raw while a program far away has it, and as it was in every way of ending.

By our own hand where this process ends by itself or by a signal that can be caught; by the guard, a process of its own,
where it cannot (SIGKILL, the out-of-memory killer, a crash). The guard touches the terminal only while its settings are
still the raw ones: whoever has set others since (the shell that called us) has what it wants.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import termios
from collections.abc import Iterator
from typing import Any

from immured.client.sandbox_questions import Terminal
from immured.client.terminal_words import Modes
from immured.errors import ConfigurationError

__all__ = ["LocalTerminal"]

_IFLAG, _OFLAG, _CFLAG, _LFLAG, _CC = 0, 1, 2, 3, 6

Attributes = list[Any]
"""As termios.tcgetattr gives them."""


class LocalTerminal:
    """Descriptors 0 and 1, which must be one. Make it before threads, and before rights are given up.

    Raises ConfigurationError `no_terminal`.
    """

    def __init__(self, keys: int = 0, screen: int = 1) -> None:
        if not (os.isatty(keys) and os.isatty(screen)):
            raise ConfigurationError(
                "no_terminal", "standard input and output are not a terminal",
                "call it in one; without: immure sandbox exec",
            )  # fmt: skip
        self.keys = keys
        self.screen = _opened_anew(screen)
        self.modes = Modes()
        self._undo = b""
        self._raw = False
        self._saved: Attributes = termios.tcgetattr(keys)
        self._guard = _Guard(keys, screen, self._saved)

    def __enter__(self) -> LocalTerminal:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def shape(self) -> Terminal:
        """Its size and kind, as it is now."""
        try:
            size = os.get_terminal_size(self.keys)
        except OSError:
            size = os.terminal_size((80, 24))
        return Terminal(size.lines or 24, size.columns or 80, os.environ.get("TERM") or "xterm")

    def take(self) -> None:
        """Makes it raw: every key goes through, and every byte of output is shown as it is. A process in the background
        is stopped here, as job control has it, until it is in the foreground."""
        self._set(_raw_of(self._saved), termios.TCSADRAIN)
        self._raw = True

    def give_back(self) -> None:
        """Makes it as it was; also in the background, and where it is gone already. May be called again."""
        if not self._raw:
            return
        self._raw = False
        said = self.modes.undo()
        with _without_stopping(), contextlib.suppress(OSError, termios.error):
            _write_all(self.screen, said)
            self._set(self._saved, termios.TCSANOW)  # not DRAIN: that waits for who may never read again
        self.modes = Modes()

    def close(self) -> None:
        """Gives it back for good."""
        self.give_back()
        self._guard.dismiss()
        if self.screen != 1:
            os.close(self.screen)
            self.screen = 1

    def suspend(self) -> None:
        """Stops this process until it is continued, with the terminal as it was meanwhile."""
        self.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self.take()

    def shown(self, data: bytes) -> None:
        """Notes what is about to be written to `screen`: which modes there will be to take back."""
        self.modes.feed(data)
        undo = self.modes.undo()
        if undo != self._undo:
            self._undo = undo
            self._guard.note(undo)

    def _set(self, attributes: Attributes, when: int) -> None:
        while True:
            try:
                termios.tcsetattr(self.keys, when, attributes)
            except termios.error as error:
                if error.args[0] != errno.EINTR:
                    raise
            else:
                return


class _Guard:
    """A process that waits for ours to end, and then puts right what ours could not."""

    def __init__(self, keys: int, screen: int, saved: Attributes) -> None:
        read, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._pipe)
                _watch(read, keys, screen, saved)
            finally:
                os._exit(0)
        os.close(read)

    def note(self, undo: bytes) -> None:
        """What takes the program's modes back."""
        with contextlib.suppress(OSError):
            os.write(self._pipe, undo.hex().encode() + b"\n")

    def dismiss(self) -> None:
        """It is not needed any more."""
        if self._pid:
            with contextlib.suppress(OSError):
                os.write(self._pipe, b"done\n")
            os.close(self._pipe)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0


def _watch(pipe: int, keys: int, screen: int, saved: Attributes) -> None:
    """The guard's whole life. In a session of its own no key and no hang-up reaches it, and it may set the terminal."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    keep = sorted({pipe, keys, screen})
    low = 0
    for descriptor in [*keep, 1 << 16]:
        if low < descriptor:  # Python 3.11's closerange(0, 0) closes everything
            os.closerange(low, descriptor)
        low = descriptor + 1
    said = b""
    while piece := os.read(pipe, 4096):
        said = (said + piece)[-8192:]
    lines = said.split(b"\n")[:-1]
    if lines and lines[-1] == b"done":
        return
    with contextlib.suppress(OSError, termios.error, ValueError):
        if termios.tcgetattr(keys) != _raw_of(saved):
            return
        termios.tcsetattr(keys, termios.TCSANOW, saved)
        os.write(screen, bytes.fromhex(lines[-1].decode()) if lines else b"")


def _raw_of(saved: Attributes) -> Attributes:
    """As cfmakeraw has it: no signals from keys, no editing, no translation, eight bits."""
    raw = [*saved[:_CC], [*saved[_CC]]]
    raw[_IFLAG] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
        | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[_OFLAG] &= ~termios.OPOST
    raw[_LFLAG] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[_CFLAG] = (raw[_CFLAG] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    raw[_CC][termios.VMIN] = 1
    raw[_CC][termios.VTIME] = 0
    return raw


def _opened_anew(screen: int) -> int:
    """The same terminal without blocking: a description of our own, since whoever shares the given one would find it
    so too. The given one where it cannot be opened (another user's)."""
    with contextlib.suppress(OSError):
        return os.open(os.ttyname(screen), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    return screen


def _write_all(screen: int, data: bytes) -> None:
    """Writes for a second at most: a terminal that takes nothing keeps nobody from ending."""
    while data:
        if not select.select((), (screen,), (), 1.0)[1]:
            return
        data = data[os.write(screen, data[:4096]) :]


@contextlib.contextmanager
def _without_stopping() -> Iterator[None]:
    """A process in the background that sets its terminal would be stopped; one that blocks SIGTTOU is not."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
