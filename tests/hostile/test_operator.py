"""What an unlucky operator does to a daemon."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from immured.wire.keys import PrivateKey
from tests.hostile.raw import Connection, command


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_standard_descriptors_that_are_closed_stay_nobodys(closed: tuple[int, ...]) -> None:
    unlucky = ThrowawayDaemon()
    key = PrivateKey.from_pem(unlucky.admin_key.read_bytes())
    script = 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in closed)
    read, write = os.pipe()
    options = ["--state", str(unlucky.state), "--ready-fd", str(write)]
    process = subprocess.Popen(
        ["/bin/sh", "-c", script, "sh", sys.executable, "-m", "immured.service", *options], pass_fds=(write,)
    )
    os.close(write)
    try:
        with os.fdopen(read, "rb") as ready:
            assert ready.read(), "it ended before it served"
        with Connection(unlucky) as connection:
            assert connection.ask(command(connection.daemon_id), key)["ok"] is True
        assert {os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in closed} == {os.devnull}
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(unlucky.state.parent)


def test_a_socket_that_somebody_serves_is_not_taken_away(daemon: ThrowawayDaemon) -> None:
    second = ThrowawayDaemon(options=["--socket", str(daemon.socket)])
    with pytest.raises(ConfigurationError) as refused, second:
        pass
    assert "socket_in_use" in str(refused.value.details["log"])


def test_another_daemons_key_beside_the_socket_is_not_replaced_while_it_serves(daemon: ThrowawayDaemon) -> None:
    second = ThrowawayDaemon(options=["--socket", str(daemon.socket.with_name("second.sock"))])
    with pytest.raises(ConfigurationError) as refused, second:
        pass
    assert "socket_in_use" in str(refused.value.details["log"])
