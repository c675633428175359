"""A run's stdin, stdout and stderr: what the payload is given, and what stays with the daemon."""

from __future__ import annotations

import asyncio
import errno
import functools
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, Protocol

from immured.errors import Refused
from immured.service.channel import Channel
from immured.service.pumps import Input, Output, OutputBound, make_pipe
from immured.wire.messages import StreamRecord
from immured.wire.sockets import close_all

if TYPE_CHECKING:
    from immured.service.arguments import RunArguments
    from immured.service.request import Request

__all__ = ["Fed", "Feeds", "Streams", "open_streams"]


class Fed(Protocol):
    """What data frames of stdin are for."""

    def feed(self, data: bytes) -> None:
        """More of it; empty: its end."""


Feeds = dict[tuple[Channel, bytes], Fed]
"""Whose stdin a connection's data frames feed, by the nonce that they name."""

_NAMES = ("stdin", "stdout", "stderr")

_LOOK_S: Final = 0.002
"""Captured output is first looked at after this long. What fits the pipes of a shorter run is read when it is over:
two descriptors fewer to watch, and nobody woken by their ends while the outcome is on its way."""


class Streams:
    """Made with everything open, or not at all: raises OSError. `payload_ends` are the descriptors 0, 1 and 2."""

    def __init__(
        self,
        channel: Channel,
        re: bytes,
        *,
        passed: Mapping[int, int],
        stdin: bytes | None,
        fed: bool,
        stream: bool,
        limit: int | None,
        on_limit: Callable[[], None],
        feeds: Feeds,
    ) -> None:
        self._passed = passed
        self._feeds = feeds
        self._feed_key = (channel, re)
        self._theirs: list[int] = []  # ours to close; those passed are the request's
        self._outputs: dict[int, Output] = {}
        self._inputs: list[Input] = []  # one or none
        self._first_look: asyncio.TimerHandle | None = None
        ends: list[int] = []
        try:
            ends.append(self._open_stdin(channel, stdin, fed=fed))
            self._bound = bound = OutputBound(limit, on_limit)
            ends += [self._open_output(place, bound, re, channel if stream else None) for place in (1, 2)]
        except BaseException:
            self.close()
            raise
        self.payload_ends = tuple(ends)
        if stream or limit is not None:
            self._watch()
        elif self._outputs:
            self._first_look = asyncio.get_running_loop().call_later(_LOOK_S, self._watch)
        for source in self._inputs:
            if fed:
                feeds[self._feed_key] = source
                channel.on_last_word[self] = functools.partial(source.feed, b"")
            elif stdin:
                source.feed(stdin)
                source.feed(b"")

    def close_payload_ends(self) -> None:
        """The launcher has them now: with ours open no pipe would ever end."""
        ends, self._theirs = self._theirs, []
        close_all(ends)

    @property
    def too_much(self) -> bool:
        """Whether there was more output than its limit: what was above is in no stream."""
        return self._bound.exceeded

    @property
    def captured_bytes(self) -> int:
        """Bytes of output that the reply will carry."""
        return sum(output.captured_bytes for output in self._outputs.values())

    def captured(self) -> dict[str, bytes]:
        """`stdout` and `stderr` of the result, where they were captured."""
        return {_NAMES[place]: output.captured for place, output in self._outputs.items() if not output.streamed}

    def records(self) -> dict[str, StreamRecord]:
        """What the signed reply says of each stream that there was."""
        found = {_NAMES[place]: StreamRecord(passed=True) for place in self._passed}
        for source in self._inputs:
            found["stdin"] = source.record()
        found |= {_NAMES[place]: output.record() for place, output in self._outputs.items()}
        return found

    async def drain(self, deadline: float) -> None:
        """The payload is dead: take what its pipes still hold, until the loop's time `deadline`."""
        self._forget_look()
        self._close_input()
        for output in self._outputs.values():
            await output.drain(deadline)

    def close(self) -> None:
        """Close all that is still open. Twice is once."""
        self.close_payload_ends()
        self._forget_look()
        self._close_input()
        for output in self._outputs.values():
            output.close()

    def _watch(self) -> None:
        for output in self._outputs.values():
            output.watch()

    def _forget_look(self) -> None:
        if self._first_look is not None:
            self._first_look.cancel()
            self._first_look = None

    def _close_input(self) -> None:
        for source in self._inputs:
            self._feeds.pop(self._feed_key, None)
            self._feed_key[0].on_last_word.pop(self, None)
            source.close()

    def _open_stdin(self, channel: Channel, stdin: bytes | None, *, fed: bool) -> int:
        if 0 in self._passed:
            return self._passed[0]
        if not stdin and not fed:
            # Opened anew each time: an open file's flags are shared by all who hold it.
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._theirs.append(null)
            return null
        theirs, ours = make_pipe()
        self._theirs.append(theirs)
        self._inputs.append(Input(ours, channel))
        return theirs

    def _open_output(self, place: int, bound: OutputBound, re: bytes, channel: Channel | None) -> int:
        if place in self._passed:
            return self._passed[place]
        ours, theirs = make_pipe()
        self._theirs.append(theirs)
        self._outputs[place] = Output(_NAMES[place], ours, bound, re, channel)
        return theirs


def open_streams(
    feeds: Feeds, request: Request, arguments: RunArguments, limit: int | None, on_limit: Callable[[], None]
) -> Streams:
    """A command's streams, as it asked for them. Raises Refused `busy`."""
    try:
        return Streams(
            request.channel,
            request.command.nonce,
            passed=dict(zip(arguments.fds, request.descriptors.fds, strict=True)),
            stdin=arguments.stdin,
            fed=arguments.fed,
            stream=arguments.stream,
            limit=limit,
            on_limit=on_limit,
            feeds=feeds,
        )
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise Refused("busy", "the daemon is out of descriptors", "try again when some runs ended") from error
        raise
