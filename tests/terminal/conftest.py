"""One real daemon for the folder, and a sandbox for each test that wants to sit before a shell in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from immured import Client
from immured.client import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.daemon import client, daemon
from tests.patience import UNHURRIED
from tests.terminal.person import IMMURE, Person

__all__ = ["client", "daemon"]

PROMPT = rb"bash-[\d.]+\$ "

Sit = Callable[..., Person]


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(ttl="10m", manifest=UNHURRIED, limits={"pids": 100}) as made:
        yield made


@pytest.fixture
def sit(daemon: ThrowawayDaemon, sandbox: Sandbox) -> Iterator[Sit]:
    """`sit("shell", ...)`: a person before `immure shell ... SANDBOX`; other words likewise."""
    with ExitStack() as stack:

        def start(*words: str, behind: tuple[str, ...] = (), rows: int = 24, columns: int = 80) -> Person:
            command = [*IMMURE, *words, "--state", str(daemon.state), sandbox.id, *behind]
            return stack.enter_context(Person(command, rows=rows, columns=columns))

        yield start


@pytest.fixture
def shell(sit: Sit) -> Person:
    """A person before a shell's first prompt."""
    person = sit("shell")
    person.see(PROMPT)
    return person
