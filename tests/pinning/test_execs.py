"""The same in a sandbox that lives, where others may write beside it: attached, detached, at a terminal."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.sandbox import Sandbox
from immured.client.sandbox_questions import Terminal
from immured.client.throwaway import ThrowawayDaemon
from tests.descriptors import descriptors
from tests.entries import entries_in
from tests.patience import PATIENCE_S, until
from tests.pinning.conftest import digest, manifest, row

pytestmark = pytest.mark.needs_root

Intent = Callable[[int], list[dict[str, Any]]]
ALLOWED = ["sh", "cp", "mv", "cat", "python3", "/tmp/w/tool", "/tmp/w/script"]


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(manifest=manifest(*ALLOWED, limits={"wall": "5m"})) as made:
        made.exec(["sh", "-c", "mkdir /tmp/w && cp /usr/bin/true /tmp/w/good && cp /usr/bin/false /tmp/w/bad"])
        yield made


def test_an_exec_names_what_it_executes(sandbox: Sandbox, pinned: Intent) -> None:
    result = sandbox.exec(["cat", "/proc/self/comm"])
    assert result.stdout == b"cat\n"
    assert pinned(result.intent.seq) == result.raw["executables"] == [row("/usr/bin/cat")]


def test_what_the_sandbox_itself_wrote_is_marked(sandbox: Sandbox, pinned: Intent) -> None:
    sandbox.exec(["sh", "-c", "cp /tmp/w/good /tmp/w/tool"])
    result = sandbox.exec(["/tmp/w/tool"])
    assert result.exit_code == 0
    [one] = pinned(result.intent.seq)
    assert (one["sha256"], one["changeable"]) == (digest("/usr/bin/true"), True)


def test_an_exec_that_is_not_allowed(sandbox: Sandbox) -> None:
    sandbox.exec(["sh", "-c", "printf '#!/usr/bin/awk -f\\n' > /tmp/w/script; chmod +x /tmp/w/script"])
    with pytest.raises(Refusal) as error:
        sandbox.exec(["/tmp/w/script"])
    assert error.value.code == "denied"
    assert "'/usr/bin/awk'" in error.value.message
    assert sandbox.exec(["cat"]).exit_code == 0


def test_a_detached_exec(sandbox: Sandbox, daemon: ThrowawayDaemon) -> None:
    one = sandbox.start(["sh", "-c", "echo out"])
    result = one.wait()
    assert result.exit_code == 0
    accepted = [entry for entry in entries_in(daemon.state) if entry["type"] == "exec.accepted"]
    [intent] = [entry for entry in accepted if entry["data"].get("exec") == one.id]
    assert [row["path"] for row in intent["data"]["executables"]] == ["/usr/bin/sh"]


def test_detached_execs_that_are_not_allowed_leave_nothing_open(sandbox: Sandbox, daemon: ThrowawayDaemon) -> None:
    sandbox.exec(["sh", "-c", "printf '#!/usr/bin/awk -f\\n' > /tmp/w/script; chmod +x /tmp/w/script"])

    def held() -> int:
        """What only a detached exec has: its log's memory and its bell."""
        return sum("immured-log" in one or "eventfd" in one for one in descriptors(daemon.pid))

    before = held()
    for _ in range(20):
        with pytest.raises(Refusal):
            sandbox.start(["/tmp/w/script"])
    until(lambda: held() <= before + 1)  # a loop's own, which may be there from now on


def test_a_detached_exec_that_is_not_allowed(sandbox: Sandbox) -> None:
    sandbox.exec(["sh", "-c", "printf '#!/usr/bin/awk -f\\n' > /tmp/w/script; chmod +x /tmp/w/script"])
    with pytest.raises(Refusal) as error:
        sandbox.start(["/tmp/w/script"])
    assert error.value.code == "denied"
    assert all(one.command != "/tmp/w/script" for one in sandbox.execs())


SWAP = """
import os, shutil, time
os.chdir('/tmp/w')
end = time.monotonic() + 280
while time.monotonic() < end and not os.path.exists('stop'):
    for name in ('good', 'bad'):
        shutil.copy(name, 'next')
        os.rename('next', 'tool')
"""


def test_whoever_swaps_it_meanwhile_cannot_have_another_run_than_the_entry_says(
    daemon: ThrowawayDaemon, sandbox: Sandbox, pinned: Intent
) -> None:
    """Another exec of the same sandbox, with the same rights, renames two programs over it in turns."""
    sandbox.exec(["sh", "-c", "cp /tmp/w/good /tmp/w/tool"])

    def swap() -> None:
        with daemon.client() as other:
            other.open(sandbox.id).exec(["python3", "-c", SWAP])

    swapping = threading.Thread(target=swap)
    swapping.start()
    statuses = {digest("/usr/bin/true"): 0, digest("/usr/bin/false"): 1}
    seen: set[str] = set()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and len(seen) < 2:
            for _ in range(20):
                result = sandbox.exec(["/tmp/w/tool"])
                if result.cause == "setup_failed":  # swapped under every look at it
                    assert result.failure is not None
                    assert result.failure["code"] == "not_pinned"
                    continue
                [told] = pinned(result.intent.seq)
                assert statuses[told["sha256"]] == result.exit_code
                seen.add(told["sha256"])
    finally:
        sandbox.exec(["sh", "-c", "touch /tmp/w/stop"])
        swapping.join(PATIENCE_S)
    assert len(seen) == 2, "nothing was swapped: nothing was tried"


def test_a_killed_connection_leaves_nothing(daemon: ThrowawayDaemon, sandbox: Sandbox) -> None:
    """The connection ends while its exec is being pinned."""
    sandbox.exec(["sh", "-c", "head -c 60000000 /dev/zero >> /tmp/w/good; cp /tmp/w/good /tmp/w/tool"])
    for delay in (0.0, 0.005, 0.02, 0.05):
        with daemon.client() as other, contextlib.suppress(Exception):
            other.open(sandbox.id).exec(["/tmp/w/tool"], timeout=delay or 0.001)
    assert sandbox.exec(["sh", "-c", "echo lives"]).stdout == b"lives\n"


def test_a_large_program_is_digested_whole(sandbox: Sandbox, pinned: Intent) -> None:
    sandbox.exec(["sh", "-c", "cp /usr/bin/true /tmp/w/tool; head -c 20000000 /dev/zero >> /tmp/w/tool"])
    result = sandbox.exec(["/tmp/w/tool"])
    assert result.exit_code == 0
    [told] = pinned(result.intent.seq)
    content = Path("/usr/bin/true").read_bytes() + bytes(20_000_000)
    assert (told["sha256"], told["size"]) == (hashlib.sha256(content).hexdigest(), len(content))


def test_at_a_terminal(sandbox: Sandbox, pinned: Intent) -> None:
    with sandbox.stream(["sh", "-c", "tty; exit 6"], terminal=Terminal()) as run:
        said = b"".join(data for name, data in run if name == "stdout")
    assert said.startswith(b"/dev/pts/")
    assert run.result.exit_code == 6
    assert [one["path"] for one in pinned(run.result.intent.seq)] == ["/usr/bin/sh"]
