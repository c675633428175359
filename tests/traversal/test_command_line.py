"""`immure file` and the asyncio SDK on a live sandbox."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import AsyncClient, Client
from immured.client import ConnectionLost, Refusal
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.patience import PATIENCE_S, until

Immure = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.sandbox(ttl="4h") as one:
        yield one


@pytest.fixture
def immure(daemon: ThrowawayDaemon) -> Immure:
    def call(*words: str | bytes | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "immured.cli", "file", *words]
        surroundings = {
            "IMMURE_SOCKET": str(daemon.socket), "IMMURE_KEY": str(daemon.admin_key),
            "IMMURE_DAEMON_KEY": str(daemon.daemon_key),
        }  # fmt: skip
        return subprocess.run(
            command, input=stdin, capture_output=True, timeout=PATIENCE_S, check=False, env=os.environ | surroundings
        )

    return call


def test_there_and_back(immure: Immure, sandbox: Sandbox, tmp_path: Path) -> None:
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(b"content\n")
    assert immure("put", "-p", "--mode", "640", sandbox.id, local, "/tmp/d/file").returncode == 0
    assert sandbox.exec(["/usr/bin/stat", "-c", "%a", "/tmp/d/file"]).stdout == b"640\n"
    assert immure("get", sandbox.id, "/tmp/d/file", back).returncode == 0
    assert back.read_bytes() == b"content\n"
    assert immure("get", sandbox.id, "/tmp/d/file", "-").stdout == b"content\n"
    assert immure("put", sandbox.id, "-", "/tmp/d/typed", stdin=b"typed").returncode == 0
    assert sandbox.files.read("/tmp/d/typed") == b"typed"


def test_looking(immure: Immure, sandbox: Sandbox) -> None:
    sandbox.files.mkdir("/tmp/look/below", parents=True)
    sandbox.files.write("/tmp/look/file", b"12345", mode=0o600)
    sandbox.exec(["/bin/ln", "-s", "/etc/passwd", "/tmp/look/link"])
    sandbox.files.write(b"/tmp/look/\x1b[31m\xff", b"")
    shown = immure("ls", sandbox.id, "/tmp/look").stdout.decode()
    assert "-0600" in shown
    assert "link -> /etc/passwd" in shown
    assert "\x1b" not in shown
    names = immure("ls", "-0", sandbox.id, "/tmp/look").stdout.split(b"\0")
    assert sorted(names) == [b"", b"\x1b[31m\xff", b"below", b"file", b"link"]
    row = json.loads(immure("stat", "--json", sandbox.id, "/tmp/look/link").stdout)
    assert (row["kind"], row["target"]) == ("link", "/etc/passwd")
    assert immure("glob", sandbox.id, "/tmp/look/f*").stdout == b"/tmp/look/file\n"
    assert immure("rm", sandbox.id, b"/tmp/look/\x1b[31m\xff").returncode == 0


def test_changing(immure: Immure, sandbox: Sandbox) -> None:
    assert immure("mkdir", "-p", sandbox.id, "/tmp/change/a/b").returncode == 0
    assert immure("mv", sandbox.id, "/tmp/change/a", "/tmp/change/c").returncode == 0
    assert immure("chmod", sandbox.id, "700", "/tmp/change/c").returncode == 0
    assert [(one.name, one.mode) for one in sandbox.files.list("/tmp/change")] == [("c", 0o700)]
    full = immure("rm", sandbox.id, "/tmp/change")
    assert full.returncode == 1
    assert full.stderr.startswith(b"immure: exists: ")
    assert immure("rm", "-r", sandbox.id, "/tmp/change").returncode == 0
    assert immure("rm", "-f", sandbox.id, "/tmp/change").returncode == 0


def test_archives(immure: Immure, sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.files.write("/tmp/tree/file", b"x", parents=True)
    assert immure("archive", sandbox.id, "/tmp/tree", tmp_path / "out.tar").returncode == 0
    piped = immure("archive", sandbox.id, "/tmp/tree", "-")
    assert piped.stdout == (tmp_path / "out.tar").read_bytes()
    assert immure("extract", "-p", sandbox.id, tmp_path / "out.tar", "/tmp/tree2").returncode == 0
    assert immure("extract", "-p", sandbox.id, "-", "/tmp/tree3", stdin=piped.stdout).returncode == 0
    for place in ("/tmp/tree2/file", "/tmp/tree3/file"):
        assert sandbox.files.read(place) == b"x"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("get", "{id}", "/tmp/../etc/shadow", "{here}"), b"path_escapes"),
        (("get", "{id}", "/tmp/nothing", "{here}"), b"no_such_file"),
        (("get", "nobody", "/tmp/x", "{here}"), b"not_found"),
        (("chmod", "{id}", "4755", "/tmp"), b"setid_refused"),
        (("ls", "{id}", "/proc"), b"kernel_files"),
    ],
)
def test_refusals(immure: Immure, sandbox: Sandbox, tmp_path: Path, words: tuple[str, ...], code: bytes) -> None:
    target = tmp_path / "here"
    target.write_bytes(b"as it was")
    done = immure(*(word.replace("{id}", sandbox.id).replace("{here}", str(target)) for word in words))
    assert done.returncode == 1
    assert done.stderr.startswith(b"immure: " + code + b": ")
    assert b"\nremedy: " in done.stderr
    assert target.read_bytes() == b"as it was"
    assert list(tmp_path.iterdir()) == [target]


def test_the_asyncio_twin(daemon: ThrowawayDaemon, sandbox: Sandbox, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(
            socket=str(daemon.socket), key=str(daemon.admin_key), daemon_key=str(daemon.daemon_key)
        ) as client:
            files = (await client.open(sandbox.id)).files
            told = await files.write("/tmp/async/file", b"x" * 300_000, parents=True)
            assert told.length == 300_000
            assert await files.read("/tmp/async/file") == b"x" * 300_000
            await files.get("/tmp/async/file", tmp_path / "back")
            assert (tmp_path / "back").stat().st_size == 300_000
            await files.put(tmp_path / "back", "/tmp/async/second")
            await files.mkdir("/tmp/async/d")
            await files.chmod("/tmp/async/d", 0o700)
            await files.move("/tmp/async/second", "/tmp/async/d/second")
            assert [one.name for one in await files.list("/tmp/async")] == ["d", "file"]
            assert (await files.stat("/tmp/async/d")).mode == 0o700
            assert [one.path for one in (await files.glob("/tmp/async/**/second")).entries] == ["/tmp/async/d/second"]
            out = io.BytesIO()
            await files.archive("/tmp/async", out)
            out.seek(0)
            with tarfile.open(fileobj=out) as archive:
                assert sorted(archive.getnames()) == [".", "./d", "./d/second", "./file"]
            await files.extract(out.getvalue(), "/tmp/async2", parents=True)
            await files.remove("/tmp/async", recursive=True)
            await files.remove("/tmp/async", missing_ok=True)
            with pytest.raises(Refusal):
                await files.stat("/tmp/async")
            # Many at once, on one connection.
            contents = await asyncio.gather(*(files.read("/tmp/async2/file") for _ in range(8)))
            assert {len(one) for one in contents} == {300_000}

    asyncio.run(work())


class Leaving:
    """A source that never ends, whose reader's connection does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.given = 0

    def read(self, size: int) -> bytes:
        if self.given > 1 << 20:
            self._client.close()
        self.given += size
        return bytes(size)


def test_progress_is_told_and_a_client_that_goes_leaves_nothing(
    daemon: ThrowawayDaemon, client: Client, tmp_path: Path
) -> None:
    roomy = {"schema": 1, "name": "roomy", "limits": {"disk": "1G", "memory": "2G"}}
    with (tmp_path / "large").open("wb") as file:
        file.truncate(800 << 20)
    seen: list[int] = []
    with client.sandbox(manifest=roomy) as sandbox:
        sandbox.files.put(tmp_path / "large", "/tmp/large", progress=seen.append)
        assert seen == sorted(seen)
        assert all(0 < one <= 800 << 20 for one in seen)
        sandbox.files.remove("/tmp/large")
        with daemon.client() as other:
            leaving = Leaving(other)
            with pytest.raises(ConnectionLost):
                other.at(sandbox.id).files.put(leaving, "/tmp/half")
            assert leaving.given > 1 << 20
        until(lambda: not sandbox.files.list("/tmp"))
