"""What a daemon that does nothing holds as long as it lives: nothing that only somebody else has a use for, or a
question that few ask. The figure is the benchmark's (`idle`); this says what must not come back into it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S

UNUSED = {
    *("http.client", "boto3"),  # it speaks to no server
    *("importlib.resources", "zipfile", "tempfile", "shutil", "bz2", "lzma"),  # archives
    *("decimal", "calendar", "platform"),
    *("immured.client", "immured.cli", "immured.ledger.witness_link", "immured.ledger.witness_server"),
}
STARTED = """
import sys
from immured.service.main import main
assert main(["--state", "/nonexistent"]) == 1
print(*sys.modules)
from immured.service import privilege
privilege.prepare()
print(*sys.modules)
"""


@pytest.fixture(scope="module")
def imported() -> tuple[set[str], set[str]]:
    """By a daemon that begins: of itself; and with what it holds ready, before it gives up being root."""
    done = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    begun, prepared = done.stdout.splitlines()
    return set(begun.split()), set(prepared.split())


def test_a_daemon_imports_nothing_that_it_has_no_use_for(imported: tuple[set[str], set[str]]) -> None:
    begun, prepared = imported
    assert {"asyncio", "immured.service.daemon", "immured.ledger.index"} <= prepared
    assert prepared & UNUSED == set()
    assert begun & {"sqlite3", "_sqlite3"} == set()


def test_what_an_index_takes_is_imported_before_where_it_may_be_out_of_reach_later(
    imported: tuple[set[str], set[str]],
) -> None:
    systems = Path(sys.base_prefix).resolve().is_relative_to("/usr")
    assert imported[1] & {"sqlite3", "_sqlite3"} == (set() if systems else {"sqlite3", "_sqlite3"})


@pytest.mark.needs_root
def test_the_broker_maps_no_library_that_it_has_no_use_for() -> None:
    with ThrowawayDaemon() as daemon:
        with daemon.client() as client:
            client.run(["/bin/true"])
        maps = Path(f"/proc/{daemon.pid}/maps").read_text()
    assert "libcrypto" in maps
    assert [one for one in ("/_decimal.", "liblzma", "libbz2") if one in maps] == []
