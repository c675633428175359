"""One real daemon for the folder, and what it looks like from inside."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from tests.daemon import client, daemon

__all__ = ["client", "daemon"]

HERE = Path(__file__).parent
PROBE = (HERE / "probe.py").read_text()


@pytest.fixture(scope="package", params=["run", "exec"])
def inside(client: Client, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What the probe got, with a host's abstract socket and an inheritable descriptor there to be found: as a run, and
    as an exec in a sandbox that lives, where another was before it."""
    name = secrets.token_hex(8)
    with socket.socket(socket.AF_UNIX) as listener, open("/etc/hostname") as leaked:
        listener.bind("\0" + name)
        listener.listen()
        os.set_inheritable(leaked.fileno(), True)
        argv = ["/usr/bin/python3", "-", name]
        if request.param == "run":
            result = client.run(argv, stdin=PROBE.encode())
        else:
            with client.sandbox() as sandbox:
                sandbox.exec(["/bin/true"])
                result = sandbox.exec(argv, stdin=PROBE.encode())
        assert result.exit_code == 0, result.stderr.decode()
        yield json.loads(result.stdout)
