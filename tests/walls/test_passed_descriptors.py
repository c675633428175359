"""A descriptor that the client passes gives what that descriptor gives, and no way round it."""

from __future__ import annotations

import os

from immured import Client


def test_the_daemons_own_pipe_can_be_opened_anew(client: Client) -> None:
    assert client.run(["/bin/sh", "-c", "echo hello > /dev/stdout"]).stdout == b"hello\n"


def test_a_passed_pipe_cannot_be_opened_at_its_other_end(client: Client) -> None:
    """The client is root, and so is its pipe: what it reads there must not be the payload's to take."""
    read, write = os.pipe()
    try:
        os.write(write, b"the client's")
        result = client.run(["/bin/sh", "-c", "exec 3</proc/self/fd/1; cat <&3 >&2"], fds={1: write})
        assert (result.exit_code != 0, result.stderr.count(b"the client's")) == (True, 0)
    finally:
        os.close(read)
        os.close(write)
