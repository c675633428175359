"""`[audit] require` of a live daemon: nothing begins while a copy that is required cannot be made."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.show import Selection, entries
from immured.ledger.verify import verify_file
from tests.preflight.places import USER
from tests.sandboxes.waiting import until

pytestmark = pytest.mark.needs_root


def told(daemon: ThrowawayDaemon) -> list[str]:
    return [one.type for one in entries(daemon.state / "ledger", Selection()) if one.type.startswith("audit.")]


def probed(client: Client) -> list[str | None]:
    return [row.code for row in client.preflight(argv=["/bin/true"]).rows]


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the daemon's user may pass: pytest's own folders are root's alone."""
    made = Path(tempfile.mkdtemp(prefix="immured-health-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def test_a_copy_that_is_gone_refuses_what_is_new_until_it_is_there_again(place: Path) -> None:
    state, copies = place / "state", place / "copies"
    copies.mkdir()
    os.chown(copies, USER, USER)
    ThrowawayDaemon.immure("init", "--state", str(state))
    (state / "config.toml").write_text(
        f"""
[broker]
user = "{USER}"

[ledger]
checkpoint_s = 1

[audit]
exports = ["{copies}"]
require = ["checkpoint", "export", "clock"]
"""
    )
    with ThrowawayDaemon(state=state) as daemon, daemon.client() as client:

        def code() -> str:
            try:
                client.run(["/bin/true"])
            except Refusal as said:
                return said.code
            return "ok"

        def faults() -> Any:
            ledger: Any = client.status()["ledger"]
            return [fault["code"] for fault in ledger["health"]["faults"]]

        until(lambda: code() == "ok")
        assert faults() == []
        sandbox = client.sandbox()
        copies.chmod(0o777)  # whoever likes could change a copy there
        assert "export_insecure" in probed(client)  # which looks at it now
        until(lambda: faults() == ["export_insecure"])
        assert code() == "audit_unhealthy"
        with pytest.raises(Refusal) as refused:
            sandbox.exec(["/bin/true"])
        assert refused.value.code == "audit_unhealthy"
        assert "audit_unhealthy" in probed(client)
        sandbox.kill()  # what ends something goes on
        copies.chmod(0o755)
        probed(client)
        until(lambda: code() == "ok")
        until(lambda: told(daemon) == ["audit.unhealthy", "audit.recovered"])
    assert verify_file(state / "ledger").whole
