"""The same ways out, asked of a daemon for a sandbox that lives: its payload laid the links, the host's own files are
the prize. Each refusal has its code, and each is in the ledger."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from immured import Client
from immured.client import Refusal
from immured.client.files import Files
from immured.client.sandbox import Sandbox
from immured.client.throwaway import ThrowawayDaemon
from tests.launcher.harness import name_of
from tests.patience import until
from tests.traversal.acts import PLAIN
from tests.traversal.test_archives import HOSTILE
from tests.traversal.vectors import SECRET, picture

LAY = """
mkdir -p /tmp/a/b /tmp/stock
echo inside > /tmp/a/file; echo mine > /tmp/stock/mine; mkfifo /tmp/pipe
ln -s "$1" /tmp/absolute
ln -s "../../../../../..$1" /tmp/relative
ln -s chain2 /tmp/chain; ln -s a/chain3 /tmp/chain2; ln -s "../../../..$1" /tmp/a/chain3
ln -s ../.. /tmp/above; ln -s / /tmp/slash; ln -s ".//./../../../..$1//." /tmp/dotted
ln -s /proc/1/root /tmp/magic; ln -s /proc/self/root /tmp/self; ln -s /proc/self/cwd /tmp/cwd
ln -s "$1/secret" /tmp/last; ln -s loop /tmp/loop
"""

WAYS = {
    "up": "/..{outside}", "up from a directory": "/tmp/../..{outside}", "up far": "/tmp/a/../../../../..{outside}",
    "slashes": "//tmp//..//..//{outside}", "dots": "/tmp/./../.{outside}", "absolute link": "/tmp/absolute",
    "relative link": "/tmp/relative", "chain": "/tmp/chain", "above": "/tmp/above{outside}",
    "slash": "/tmp/slash{outside}",
    "dotted": "/tmp/dotted", "magic root": "/tmp/magic{outside}", "magic self": "/tmp/self{outside}",
    "magic cwd": "/tmp/cwd{outside}", "proc root": "/proc/1/root{outside}", "proc descriptor": "/proc/1/fd/3",
    "proc self root": "/proc/self/root{outside}",
}  # fmt: skip

CODES = {"path_escapes", "link_refused", "file_denied", "no_such_file", "kernel_files"}
"""Without `..` and links, what is outside is not there at all: `/proc` is the sandbox's own, its PID 1 nobody's."""

ACTS: dict[str, tuple[tuple[str, ...], Callable[[Files, str], object]]] = {
    "read": (("secret",), lambda files, path: files.read(path)),
    "write": (("secret",), lambda files, path: files.write(path, b"x")),
    "write with parents": (("new", "f"), lambda files, path: files.write(path, b"x", parents=True)),
    "list": ((), lambda files, path: files.list(path)),
    "stat": (("secret",), lambda files, path: files.stat(path)),
    "stat, following": ((), lambda files, path: files.stat(path, follow=True)),
    "mkdir": (("made",), lambda files, path: files.mkdir(path)),
    "move out of": (("secret",), lambda files, path: files.move(path, "/tmp/stolen")),
    "move into": (("planted",), lambda files, path: files.move("/tmp/stock/mine", path)),
    "remove": (("secret",), lambda files, path: files.remove(path)),
    "remove all": (("below",), lambda files, path: files.remove(path, recursive=True)),
    "chmod": (("secret",), lambda files, path: files.chmod(path, 0o666)),
    "archive": ((), lambda files, path: files.archive(path, io.BytesIO())),
    "extract": ((), lambda files, path: files.extract(PLAIN, path)),
}


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A directory of the host's that everybody may read and write, were it reached."""
    path = Path("/var/tmp") / f"immured-outside-{secrets.token_hex(6)}"
    (path / "below").mkdir(parents=True)
    for directory in (path, path / "below"):
        directory.chmod(0o777)
        (directory / "secret").write_bytes(SECRET)
        (directory / "secret").chmod(0o666)
    yield path
    for directory in (path / "below", path):
        for left in directory.iterdir():
            left.unlink()
        directory.rmdir()


@pytest.fixture(scope="module")
def sandbox(client: Client, outside: Path) -> Iterator[Sandbox]:
    with client.sandbox(ttl="4h") as one:
        result = one.exec(["/bin/sh", "-c", LAY, "sh", str(outside)])
        assert result.exit_code == 0, result.stderr
        yield one


def entries(daemon: ThrowawayDaemon) -> list[dict[str, object]]:
    lines = (daemon.state / "ledger" / "current.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("act", ACTS)
def test_is_refused(sandbox: Sandbox, outside: Path, act: str, way: str) -> None:
    rest, do = ACTS[act]
    before = picture(outside)
    path = "/".join((WAYS[way].replace("{outside}", str(outside)), *rest))
    with pytest.raises(Refusal) as refused:
        do(sandbox.files, path)
    assert refused.value.code in CODES
    assert picture(outside) == before


def test_control_the_prize_can_be_taken_by_who_reaches_it(outside: Path) -> None:
    assert (outside / "secret").read_bytes() == SECRET
    assert os.access(outside, os.W_OK)
    (outside / "control").write_bytes(b"x")
    (outside / "control").unlink()


@pytest.mark.parametrize("way", [way for way in WAYS if "up" not in way and way not in ("slashes", "dots")])
def test_a_pattern_finds_nothing_there(sandbox: Sandbox, outside: Path, way: str) -> None:
    pattern = WAYS[way].replace("{outside}", str(outside)) + "/**/secret"
    try:
        assert sandbox.files.glob(pattern).entries == ()
    except Refusal as refused:
        assert refused.code in CODES  # noqa: PT017 - either is right


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(sandbox: Sandbox, outside: Path, name: str) -> None:
    sandbox.exec(
        [
            "/bin/sh",
            "-c",
            f"rm -rf /tmp/x; mkdir -p /tmp/x/a; ln -s {outside} /tmp/x/relative; ln -s x /tmp/x/secret-relative",
        ]
    )
    before = picture(outside)
    content = HOSTILE[name][0]
    if name == "size of an exbibyte":
        assert len(content) < 1 << 20
    with pytest.raises(Refusal) as refused:
        sandbox.files.extract(content, "/tmp/x")
    assert refused.value.code in {
        "bad_path", "link_refused", "wrong_kind", "setid_refused", "bad_archive", "cut_short", "too_large", "too_deep",
        "no_such_file", "no_space",
    }  # fmt: skip
    assert refused.value.reply.receipt is not None
    assert picture(outside) == before


def test_what_the_payload_may_not_is_denied(sandbox: Sandbox) -> None:
    for path in ("/etc/shadow", "/usr/bin/planted", "/planted"):
        with pytest.raises(Refusal) as refused:
            sandbox.files.write(path, b"x")
        assert refused.value.code in ("read_only", "file_denied")
    with pytest.raises(Refusal) as refused:
        sandbox.files.read("/etc/shadow")
    assert refused.value.code in ("file_denied", "no_such_file")


def test_files_are_the_payloads_own(sandbox: Sandbox) -> None:
    sandbox.files.write("/tmp/mine", b"#!/bin/sh\necho ran\n", mode=0o755)
    assert (
        sandbox.exec(["/bin/sh", "-c", "stat -c %U:%a /tmp/mine; /tmp/mine; rm /tmp/mine"]).stdout
        == b"sandbox:755\nran\n"
    )
    sandbox.exec(["/bin/sh", "-c", "umask 077; echo private > /tmp/private"])
    assert sandbox.files.read("/tmp/private") == b"private\n"


def test_nobody_waits_for_a_pipe_with_a_name(sandbox: Sandbox) -> None:
    for do in (
        lambda: sandbox.files.read("/tmp/pipe"),
        lambda: sandbox.files.write("/tmp/pipe", b"x"),
        lambda: sandbox.files.archive("/tmp/pipe", io.BytesIO()),
    ):
        with pytest.raises(Refusal) as refused:
            do()
        assert refused.value.code == "wrong_kind"


def test_every_act_is_an_intent_and_an_outcome_with_the_contents_digest(
    daemon: ThrowawayDaemon, sandbox: Sandbox, tmp_path: Path
) -> None:
    import hashlib

    first = len(entries(daemon))
    digest = hashlib.sha256(b"audited").hexdigest()
    sandbox.files.write("/tmp/audited", b"audited")
    sandbox.files.get("/tmp/audited", tmp_path / "back")
    with pytest.raises(Refusal):
        sandbox.files.read("/tmp/relative/secret")
    with pytest.raises(Refusal):
        sandbox.files.read("/tmp/../etc/shadow")
    new = [one for one in entries(daemon)[first:] if str(one["type"]).startswith("command.")]
    told = [(one["type"], one["data"]["cmd"]) for one in new]  # type: ignore[index]
    assert told == [
        ("command.accepted", "file.put"), ("command.done", "file.put"),
        ("command.accepted", "file.get"), ("command.done", "file.get"),
        ("command.accepted", "file.get"), ("command.done", "file.get"),
        ("command.denied", "file.get"),
    ]  # fmt: skip
    data = [one["data"] for one in new]
    for index in (1, 3):
        assert (data[index]["sha256"], data[index]["length"]) == (digest, 7)  # type: ignore[index]
    assert data[4]["path"] == "/tmp/relative/secret"  # type: ignore[index]
    assert data[5]["error"]["code"] == "path_escapes"  # type: ignore[index]


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_144, 262_145, 3_000_000])
def test_contents_in_and_out_in_every_way(sandbox: Sandbox, tmp_path: Path, size: int) -> None:
    content = secrets.token_bytes(size)
    local, back = tmp_path / "local", tmp_path / "back"
    local.write_bytes(content)
    for source in (content, local, io.BytesIO(content)):
        told = sandbox.files.put(source, "/tmp/content")
        assert (told.length, told.file.size, told.file.mode) == (size, size, 0o644)
        assert sandbox.files.read("/tmp/content") == content
        assert sandbox.files.get("/tmp/content", back).sha256 == told.sha256
        assert back.read_bytes() == content
    assert not [path for path in tmp_path.iterdir() if path not in (local, back)]


def test_a_directory_there_and_back(sandbox: Sandbox, tmp_path: Path) -> None:
    target = tmp_path / "out.tar"
    sandbox.files.mkdir("/tmp/tree/below", parents=True)
    sandbox.files.write("/tmp/tree/below/file", b"content")
    told = sandbox.files.archive("/tmp/tree", target)
    assert (told.entries, told.content, told.length) == (3, 7, target.stat().st_size)
    sandbox.files.extract(target, "/tmp/again", parents=True)
    assert sandbox.files.read("/tmp/again/below/file") == b"content"
    with target.open("rb") as file:
        sandbox.files.extract(io.BytesIO(file.read()), "/tmp/third", parents=True)
    assert [one.path for one in sandbox.files.glob("/tmp/third/**").entries] == [
        "/tmp/third/below",
        "/tmp/third/below/file",
    ]
    with tarfile.open(target) as archive:
        assert archive.getnames() == [".", "./below", "./below/file"]


def test_a_sparse_bomb_is_refused(sandbox: Sandbox) -> None:
    sandbox.exec(["/bin/sh", "-c", "truncate -s 100G /tmp/bomb"])
    with pytest.raises(Refusal) as refused:
        sandbox.files.read("/tmp/bomb")
    assert refused.value.code == "too_large"
    assert refused.value.details == {"size": 100 << 30, "allocated": 0}
    sandbox.files.remove("/tmp/bomb")


def test_what_does_not_fit_is_refused_and_leaves_nothing(sandbox: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(Refusal) as refused:
        sandbox.files.put(tmp_path / "large", "/tmp/large")
    assert refused.value.code == "no_space"
    assert not [one for one in sandbox.files.list("/tmp") if "large" in str(one.name) or "immured" in str(one.name)]


def test_a_sandbox_of_anothers_has_no_files(
    daemon: ThrowawayDaemon, client: Client, sandbox: Sandbox, tmp_path: Path
) -> None:
    from immured.wire.keys import PrivateKey

    key = PrivateKey.generate()
    pem = tmp_path / "other.pem"
    pem.write_bytes(key.to_pem())
    client.key_add("other", key.public)
    with daemon.client(pem) as other, pytest.raises(Refusal) as refused:
        other.at(sandbox.id).files.read("/tmp/a/file")
    assert refused.value.code == "not_found"


def test_a_paused_sandboxs_files_can_be_seen(sandbox: Sandbox) -> None:
    sandbox.pause()
    try:
        assert sandbox.files.read("/tmp/a/file") == b"inside\n"
    finally:
        sandbox.resume()


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"path": "relative"}, "bad_path"), ({"path": "/a\0b"}, "bad_path"), ({"path": "/" + "a" * 4095}, "bad_path"),
        ({"path": 7}, "bad_argument"), ({}, "bad_argument"), ({"path": "/tmp", "odd": 1}, "unknown_field"),
        ({"path": "/tmp/../x"}, "path_escapes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "cmd", ["put", "get", "list", "stat", "mkdir", "move", "remove", "chmod", "glob", "archive", "extract"]
)
def test_arguments_that_are_none(
    client: Client, sandbox: Sandbox, cmd: str, args: dict[str, object], code: str
) -> None:
    with pytest.raises(Refusal) as refused:
        client.call(f"file.{cmd}", {"sandbox": sandbox.id, **args})
    assert refused.value.code == code


@pytest.mark.parametrize("passed", ["nothing", "directory", "pipe", "closed for writing"])
def test_descriptors_that_are_no_files(client: Client, sandbox: Sandbox, tmp_path: Path, passed: str) -> None:
    fds: list[int] = []
    if passed == "directory":
        fds = [os.open(tmp_path, os.O_RDONLY)]
    elif passed == "pipe":
        fds = list(os.pipe())
    elif passed == "closed for writing":
        (tmp_path / "file").write_bytes(b"x")
        fds = [os.open(tmp_path / "file", os.O_RDONLY)]
    try:
        with pytest.raises(Refusal) as refused:
            client.call("file.get", {"sandbox": sandbox.id, "path": "/tmp/a/file", "passed": True}, fds=fds[-1:])
        assert refused.value.code == "bad_descriptor"
    finally:
        for fd in fds:
            os.close(fd)


def test_no_clerk_stays_behind(sandbox: Sandbox) -> None:
    for _ in range(20):
        sandbox.files.stat("/tmp")
    until(lambda: "immured-files" not in [name_of(int(pid)) for pid in os.listdir("/proc") if pid.isdigit()])


def test_what_is_mounted_stays_and_what_is_bound_is_as_the_manifest_says(client: Client, outside: Path) -> None:
    bound = outside / "bound"
    bound.mkdir()
    bound.chmod(0o755)
    (bound / "file").write_bytes(b"bound\n")
    (bound / "out").symlink_to("../below")
    (bound / "absolute").symlink_to("/etc")
    manifest = {
        "schema": 1, "name": "mounted",
        "filesystem": {"read": [{"path": str(bound), "target": "/data"}], "tmpfs": ["/work"]},
    }  # fmt: skip
    try:
        with client.sandbox(manifest=manifest) as sandbox:
            files = sandbox.files
            assert files.read("/data/file") == b"bound\n"
            files.write("/work/file", b"x")
            for do, code in (
                (lambda: files.write("/data/file", b"x"), "read_only"),
                (lambda: files.write("/data/new", b"x"), "read_only"),
                (lambda: files.remove("/data/file"), "read_only"),
                (lambda: files.chmod("/data/file", 0o600), "read_only"),
                (lambda: files.read("/data/out/secret"), "no_such_file"),  # /below, in the sandbox, is nothing
                (lambda: files.read("/data/absolute/passwd"), "path_escapes"),
                (lambda: files.move("/work/file", "/tmp/file"), "across_places"),
            ):
                with pytest.raises(Refusal) as refused:
                    do()
                assert refused.value.code == code
            # The root is only to be read; and were it not, a mount point stays.
            for do in (lambda: files.remove("/work", recursive=True), lambda: files.move("/work", "/elsewhere")):
                with pytest.raises(Refusal) as refused:
                    do()
                assert refused.value.code in ("read_only", "mounted")
            files.write("/work/file", b"x")
            files.remove("/work/file")
            assert files.list("/work") == ()
    finally:
        for path in (bound / "out", bound / "absolute", bound / "file"):
            path.unlink()
        bound.rmdir()
