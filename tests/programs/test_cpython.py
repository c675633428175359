"""CPython's own tests of what touches the system most, inside the default walls.

They must pass, but for what refused.toml lists with a reason. The list is kept honest from both sides: an entry whose
test passes is stale, and a failure that is not listed is a wall too many. What fails outside as well (a slow machine, a
kernel without the feature) says nothing about walls.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from immured import Client
from tests.programs import suite
from tests.programs.conftest import CALLER
from tests.programs.suite import Listed, Verdict

MODULES = [
    *("test_os", "test_subprocess", "test_socket", "test_threading", "test_tempfile"),
    *("test_posix", "test_pty", "test_fcntl", "test_select", "test_epoll", "test_mmap", "test_resource"),
]
REFUSED = Path(__file__).with_name("refused.toml")
SECONDS = 900
MANIFEST = {"schema": 1, "limits": {"wall": f"{SECONDS}s"}}
TRIES = 3


def inside(client: Client, module: str, only: set[str] | None = None) -> dict[str, Verdict]:
    """Runs a module in the sandbox; the verdicts by name."""
    runner, results = "/tmp/runner.py", "/tmp/results.json"
    done = client.run(
        suite.command(runner, module, results, only or ()),
        manifest=MANIFEST,
        cwd="/tmp",
        files={runner: suite.RUNNER.read_bytes()},
        collect=[results],
    )
    assert done.cause == "exited", done
    assert results in done.files, done.stdout[-2000:] + done.stderr[-2000:]
    return suite.verdicts(done.files[results])


def outside(module: str, only: set[str]) -> dict[str, Verdict]:
    """The same on the host, as a user without rights; its environment as bare as the sandbox's."""
    with tempfile.TemporaryDirectory(prefix="immured-outside-") as place:
        os.chown(place, CALLER, CALLER)
        runner, results = Path(place, "runner.py"), Path(place, "results.json")
        runner.write_bytes(suite.RUNNER.read_bytes())
        runner.chmod(0o644)
        subprocess.run(
            suite.command(str(runner), module, str(results), only),
            cwd=place,
            env={"PATH": "/usr/bin:/bin", "HOME": place, "TMPDIR": place, "LANG": "C.UTF-8"},
            user=CALLER,
            group=CALLER,
            extra_groups=[],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
        return suite.verdicts(results.read_bytes())


def failed(found: dict[str, Verdict]) -> set[str]:
    return {name for name, verdict in found.items() if verdict == "failed"}


def refused_by_the_walls_alone(client: Client, module: str, suspects: set[str]) -> set[str]:
    """Of these failures those that come again inside, every time, and do not outside."""
    for _ in range(TRIES - 1):
        if suspects:
            suspects &= failed(inside(client, module, suspects))
    return suspects - failed(outside(module, suspects)) if suspects else suspects


@pytest.fixture(scope="module")
def known(client: Client) -> Listed:
    host = client.status()["host"]
    assert isinstance(host, Mapping)
    return suite.listed(REFUSED, host["controllers"])


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_cpythons_own_tests_pass_but_for_what_is_listed(client: Client, known: Listed, module: str) -> None:
    found = inside(client, module)
    assert "passed" in found.values()
    about = known.of(module)
    stale = {name for name, verdict in found.items() if verdict == "passed" and suite.covers(about.refused, name)}
    stale |= {name for name, verdict in found.items() if verdict != "skipped" and suite.covers(about.skip, name)}
    stale |= {one for one in (*about.refused, *about.skip) if not any(suite.covers([one], name) for name in found)}
    assert stale == set(), "listed in refused.toml, and not refused"
    unlisted = {name for name in failed(found) if not suite.covers(about.refused, name)}
    assert refused_by_the_walls_alone(client, module, unlisted) == set(), "refused by the walls, not listed"


def test_a_listed_test_that_passes_is_noticed() -> None:
    listed = Listed(("test.test_os.A.*", "test.test_os.B.test_b"), ())
    names = ["test.test_os.A.test_a", "test.test_os.B.test_b", "test.test_os.B.test_c", "test.test_os.AB.test_a"]
    assert [suite.covers(listed.of("test_os").refused, name) for name in names] == [True, True, False, False]


def test_an_entry_for_hosts_without_a_controller_is_not_for_others() -> None:
    memfd = "test.test_os.MemfdCreateTests.test_memfd_create"
    assert memfd in suite.listed(REFUSED, ["cpu"]).refused
    assert memfd not in suite.listed(REFUSED, ["cpu", "memory"]).refused
