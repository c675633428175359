"""The launcher with a warden of the tests' own, under the sanitizers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.launcher.harness import Broker

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "native" / "launcher"
PARTS = (
    "accept address brokers control counts covers error landlock launcher main message notify options outbox parker"
    " plan pool processors relay relay_sandboxes remains sweep table template upgrade util vfs"
).split()
FLAGS = [
    *("-std=gnu11", "-D_GNU_SOURCE=", "-O1", "-g", "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover", "-fno-omit-frame-pointer"),
]


@pytest.fixture(scope="session")
def fake_launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher's own sources around tests/launcher/fake_warden.c."""
    return built(tmp_path_factory)


@pytest.fixture(scope="session")
def launcher_of_old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as it is on a kernel before 6.5, which has no SO_PEERPIDFD."""
    return built(tmp_path_factory, "-include", os.fspath(HERE / "before_6_5.h"))


def built(tmp_path_factory: pytest.TempPathFactory, *flags: str) -> Path:
    """The same with more for the compiler."""
    program = tmp_path_factory.mktemp("native") / "immured-launcher"
    sources = [*(SOURCES / f"{part}.c" for part in PARTS), HERE / "fake_warden.c"]
    subprocess.run(["gcc", *FLAGS, *flags, *sources, "-o", program], check=True)
    return program


@pytest.fixture
def start(fake_launcher: Path, tmp_path: Path) -> Iterator[Callable[..., Broker]]:
    """Start launchers; each has answered READY only once `ready()` was called. All are ended after the test."""
    brokers: list[Broker] = []

    def start(**options: object) -> Broker:
        brokers.append(Broker(fake_launcher, tmp_path, **options))
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(start: Callable[..., Broker]) -> Broker:
    """A launcher that is ready."""
    broker = start()
    broker.ready()
    return broker
