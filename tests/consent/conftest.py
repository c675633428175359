"""One real daemon for the folder, whose operator has wordings of his own, and a template that asks for consent."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from tests.consent.texts import GERMAN, as_file


@pytest.fixture(scope="package")
def wordings(daemon: ThrowawayDaemon) -> Path:
    """The operator's directory."""
    return daemon.state.parent / "wordings"


@pytest.fixture(scope="package")
def base() -> Iterator[Path]:
    """A directory that others may pass; pytest's own are shut again by whoever else begins to test."""
    with tempfile.TemporaryDirectory(prefix="immured-consent-") as made:
        Path(made).chmod(0o711)
        yield Path(made)


@pytest.fixture(scope="package")
def daemon(base: Path) -> Iterator[ThrowawayDaemon]:
    state, wordings = base / "state", base / "wordings"
    ThrowawayDaemon.immure("init", "--state", str(state))
    (wordings / "house").mkdir(parents=True)
    (wordings / "house/en.toml").write_bytes(as_file(reviewed_by="Legal", reviewed_on="2026-10-01"))
    (wordings / "house/de.toml").write_bytes(as_file(**GERMAN))
    (wordings / "broken").mkdir()
    (wordings / "broken/en.toml").write_bytes(as_file(text="Nobody sees \u202ethis\u202c, whatever it says to you."))
    config = (state / "config.toml").read_text()
    assert "[consent]\n" in config
    (state / "config.toml").write_text(config.replace("[consent]\n", f'[consent]\ntexts = "{wordings}"\n'))
    (state / "templates").mkdir()
    (state / "templates/asking.toml").write_text(
        'modules = ["json"]\n[manifest]\nschema = 1\nname = "template"\n[manifest.consent]\nrequired = true\n'
    )
    with ThrowawayDaemon(state=state) as running:
        yield running


@pytest.fixture
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """The admin, on a connection of this test's own: others have the daemon start again."""
    with daemon.client() as connected:
        yield connected


def restarted(daemon: ThrowawayDaemon) -> Client:
    """Its admin, once it has started again."""
    assert daemon.stop() == 0
    daemon.start()
    return daemon.client()
