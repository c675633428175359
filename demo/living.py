"""The acts with sandboxes that live. As those of `acts`: each returns what happened, or raises Unexpected."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from demo.expect import expect
from demo.ground import name_of
from immured import RemoteError

if TYPE_CHECKING:
    from demo.ground import Ground
    from immured.client import Exec

__all__ = ["changes_accepted", "lives", "outlives_its_daemon"]

PATIENCE = 20.0


def lives(ground: Ground) -> str:
    """Commands come and go in it, its files stay; files are written and read from outside, and no path leads out."""
    with ground.client.sandbox(manifest=ground.manifest(), ttl="1m") as sandbox:
        sandbox.files.write("/tmp/greet.py", b"import sys\nprint('hello,', open('/tmp/name').read(), end='')\n")
        wrote = sandbox.exec(["/bin/sh", "-c", 'printf "%s\n" "$0" > /tmp/name', "walls"])
        greeted = sandbox.exec(["/usr/bin/python3", "/tmp/greet.py"])
        expect(wrote.ok and greeted.stdout == b"hello, walls\n", greeted)
        expect(sandbox.files.read("/tmp/name") == b"walls\n", "the file read from outside is another one")
        refused = ""
        try:
            sandbox.files.read("/tmp/../etc/shadow")
        except RemoteError as refusal:
            refused = refusal.code
        expect(refused == "path_escapes", f"a path with .. was answered with {refused or 'a file'}")
    expect(not ground.client.sandboxes(state="ready"), "it lives on")
    return f"two commands and one file between them; /tmp/../etc/shadow refused: {refused}"


def changes_accepted(ground: Ground) -> str:
    """What is written to a captured directory changes nothing on the host until accepted, and then all at once."""
    project = ground.workspace / "project"
    before = (project / "text").read_text()
    filesystem = {"read": [str(ground.workspace / "programs")], "capture": [str(project)]}
    with ground.client.sandbox(manifest={**ground.manifest(), "filesystem": filesystem}, ttl="1m") as sandbox:
        mended = sandbox.exec(ground.argv("mend.py", str(project)))
        expect(mended.ok, mended)
        changes = sandbox.changes.list()
        kinds = sorted(change.kind for change in changes)
        expect(kinds == ["created", "deleted", "modified"], f"the changes are {kinds}")
        expect((project / "text").read_text() == before, "the host's file changed before anybody said so")
        sandbox.changes.accept(as_listed=changes)
    expect((project / "text").read_text() == before.replace("teh", "the"), "what was accepted is not what was made")
    expect(not (project / "draft").exists() and (project / "done").stat().st_uid == ground.uid, "it came in part")
    return f"{', '.join(kinds)}: nothing on the host until accepted, then all of it, as {name_of(ground.uid)}"


def outlives_its_daemon(ground: Ground) -> str:
    """The broker is killed with SIGKILL; the sandbox and what counts in it go on, and the next broker adopts both."""
    sandbox = ground.client.sandbox(manifest=ground.manifest(), ttl="1m")
    try:
        counting = sandbox.start(ground.argv("count.py"))
        before = _counted(counting, 10)
        ground.daemon.kill()
        ground.daemon.start()
        ground.reconnect()
        facts = sandbox.refresh()
        expect(facts.state == "ready" and facts.raw.get("adopted") is True, f"the next daemon has it as {facts}")
        after = _counted(counting, before + 1)
    finally:
        sandbox.remove()
    return f"adopted, with its limits; one process counted to {before} before and {after} after, none left out"


def _counted(counting: Exec, least: int) -> int:
    """How far it has counted, once that is `least`; its log must have every number to there."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        lines = counting.logs().output.split()
        expect([int(line) for line in lines] == list(range(1, len(lines) + 1)), f"it counted {lines}")
        if len(lines) >= least:
            return len(lines)
        time.sleep(0.02)
    expect(False, f"it did not count to {least} within {PATIENCE:g} s")
    raise AssertionError
