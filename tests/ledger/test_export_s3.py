"""Copies in S3: pieces that never change, locked where that is asked for; what was done to them is found."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from immured.errors import ConfigurationError
from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.exports.copier import copier
from immured.ledger.exports.copy import Copy
from immured.ledger.exports.head import Copied, ExportError
from immured.ledger.exports.place import Place, bucket_of, check_endpoint
from immured.ledger.exports.s3 import S3, Credentials, read_credentials, session_of
from immured.ledger.exports.tiles import TileCopy, lines_of
from immured.ledger.keys import load_vkeys
from immured.ledger.verify import verify_file
from tests.ledger.copies import VKEYS, Original
from tests.ledger.s3 import KEY, SECRET, Server, credentials, far, s3_server

NAMES = itertools.count()
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return Original(tmp_path / "state")


class Scene:
    """One ledger, one bucket, and copiers that have seen nothing yet."""

    def __init__(self, server: Server, original: Original, place: Path, *, lock: bool) -> None:
        self.server, self.original = server, original
        self.bucket = f"audit-{next(NAMES)}"
        server.make(self.bucket, lock=lock)
        self.credentials = credentials(place)
        self.lock_ms = 30 * DAY_MS if lock else 0
        self.folder = f"logs/{original.origin.removeprefix('immured/')}"

    def place(self, **more: Any) -> Place:
        settings = {"endpoint": self.server.endpoint, "credentials": self.credentials, "lock_ms": self.lock_ms, **more}
        return Place(f"s3://{self.bucket}/logs", **settings)

    @contextlib.contextmanager
    def copier(self, **more: Any) -> Iterator[Copy | TileCopy]:
        place = self.place(**more)
        with self.original.files() as files:
            yield copier(place, self.folder.rpartition("/")[2], files, S3(place, session_of(place, owner=os.getuid())))

    def copied(self, *, begun: bool = False, **more: Any) -> Copied:
        with self.copier(**more) as copy:
            return copy.catch_up(self.original.head, VKEYS, begun=begun)

    def refusal(self, *, begun: bool = True, **more: Any) -> ExportError:
        with pytest.raises(ExportError) as refused:
            self.copied(begun=begun, **more)
        return refused.value

    def pieces(self) -> list[str]:
        return self.server.keys(self.bucket, f"{self.folder}/entries/")

    def stream(self) -> bytes:
        return b"".join(self.server.get(self.bucket, key) for key in self.pieces())


@pytest.fixture
def plain(server: Server, original: Original, tmp_path: Path) -> Scene:
    return Scene(server, original, tmp_path, lock=False)


@pytest.fixture
def locked(server: Server, original: Original, tmp_path: Path) -> Scene:
    return Scene(server, original, tmp_path, lock=True)


def test_a_copy_in_s3_verifies_when_its_pieces_are_joined(plain: Scene, tmp_path: Path) -> None:
    assert plain.copied() == Copied(plain.original.head.size, plain.original.head.end, began=True)
    for more in (1, 40, 3000):
        plain.original.grow(more)
        assert not plain.copied(begun=True).began
    assert plain.stream() == plain.original.log
    (tmp_path / "joined/checkpoints").mkdir(parents=True)
    (tmp_path / "joined/current.jsonl").write_bytes(plain.stream())
    for key in plain.server.keys(plain.bucket, f"{plain.folder}/checkpoints/"):
        name = key.rpartition("/")[2]
        (tmp_path / "joined/checkpoints" / name).write_bytes(plain.server.get(plain.bucket, key))
    keys = load_vkeys(plain.original.place / "keys/ledger.vkey")
    report = verify_file(tmp_path / "joined/current.jsonl", tmp_path / "joined/checkpoints", keys)
    assert (report.whole, report.covered) == (True, plain.original.head.size)
    assert plain.server.get(plain.bucket, f"{plain.folder}/ledger.vkey") == VKEYS


def test_every_piece_is_whole_lines_and_is_written_once(plain: Scene) -> None:
    with plain.copier() as copy:
        copy.catch_up(plain.original.head, VKEYS, begun=False)
        for _ in range(4):
            copy.catch_up(plain.original.grow(2), VKEYS, begun=True)
            copy.catch_up(plain.original.head, VKEYS, begun=True)
    assert len(plain.pieces()) == 5
    for key in plain.pieces():
        data = plain.server.get(plain.bucket, key)
        begins, ends = map(int, key.rpartition("/")[2].removesuffix(".jsonl").split("-"))
        assert data.endswith(b"\n")
        assert data == plain.original.log[begins:ends]


def test_every_object_is_locked_and_the_server_keeps_to_it(locked: Scene) -> None:
    locked.copied()
    for key in locked.server.keys(locked.bucket):
        facts = locked.server.client.head_object(Bucket=locked.bucket, Key=key)
        assert facts["ObjectLockMode"] == "COMPLIANCE"
        assert facts["ObjectLockRetainUntilDate"] > far(days=29)
        with pytest.raises(Exception, match="Access Denied"):
            locked.server.delete(locked.bucket, key, VersionId=facts["VersionId"], BypassGovernanceRetention=True)


def test_governance_is_what_it_says(locked: Scene) -> None:
    locked.copied(lock_mode="governance")
    facts = locked.server.client.head_object(Bucket=locked.bucket, Key=locked.pieces()[0])
    assert facts["ObjectLockMode"] == "GOVERNANCE"


def test_what_is_there_is_not_put_again(locked: Scene) -> None:
    locked.copied()
    locked.copied(begun=True)
    for key in locked.server.keys(locked.bucket):
        assert len(locked.server.versions(locked.bucket, key)) == 1


def test_a_bucket_that_cannot_lock_is_refused_where_a_lock_is_asked_for(plain: Scene) -> None:
    assert plain.refusal(begun=False, lock_ms=DAY_MS).code in {"export_unlocked", "export_unreachable"}
    with plain.copier(lock_ms=DAY_MS) as copy, pytest.raises(ExportError) as refused:
        copy.probe(begun=False)
    assert refused.value.code == "export_unlocked"
    assert plain.pieces() == []


def test_a_lock_that_was_not_kept_is_found(locked: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    put = S3.put

    def forgetful(self: S3, name: str, data: bytes, *, locked: bool = True) -> str:
        return put(self, name, data, locked=False)  # as a server does that passes over what it does not know

    monkeypatch.setattr(S3, "put", forgetful)
    assert locked.refusal(begun=False).code == "export_unlocked"


# --- what somebody did there


def test_an_overwritten_object_is_found_and_what_was_under_it_is_still_there(locked: Scene) -> None:
    locked.copied()
    key, good = locked.pieces()[0], locked.stream()
    locked.server.put(locked.bucket, key, good.replace(b"command", b"cOmmand", 1))
    locked.original.grow(1)
    refused = locked.refusal()
    assert refused.code == "export_differs"
    first = locked.server.versions(locked.bucket, key)[-1]
    body = locked.server.client.get_object(Bucket=locked.bucket, Key=key, VersionId=first)["Body"].read()
    assert body == good


def test_a_truncated_piece_is_found(plain: Scene) -> None:
    plain.copied()
    plain.server.put(plain.bucket, plain.pieces()[0], plain.stream()[:-1])
    plain.original.grow(1)
    refused = plain.refusal()
    assert (refused.code, "bytes" in refused.message) == ("export_differs", True)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_deleted_piece_is_missed(locked: Scene, which: int) -> None:
    for _ in range(3):
        locked.copied(begun=bool(locked.pieces()))
        locked.original.grow(30)
    locked.server.delete(locked.bucket, locked.pieces()[which])  # a mark of deletion: the version is locked
    refused = locked.refusal()
    assert refused.code == "export_differs"


def test_a_copy_that_is_gone_is_missed(plain: Scene) -> None:
    plain.copied()
    for key in plain.server.keys(plain.bucket):
        plain.server.delete(plain.bucket, key)
    plain.original.grow(1)
    assert plain.refusal().code == "export_missing"


def test_an_older_ledger_is_not_put_behind_a_newer_copy(plain: Scene) -> None:
    older = plain.original.head
    plain.original.grow(20)
    plain.copied()
    plain.original.head = older
    assert plain.refusal().code == "export_ahead"


def test_a_piece_in_the_way_is_left(plain: Scene) -> None:
    with plain.copier() as copy:
        copy.catch_up(plain.original.head, VKEYS, begun=False)
        before, head = plain.original.head.end, plain.original.grow(3)
        key = f"{plain.folder}/entries/{before:020d}-{head.end:020d}.jsonl"
        plain.server.put(plain.bucket, key, b"x" * (head.end - before))
        with pytest.raises(ExportError) as refused:
            copy.catch_up(head, VKEYS, begun=True)
    assert refused.value.code == "export_differs"
    assert plain.server.get(plain.bucket, key) == b"x" * (head.end - before)


@pytest.mark.parametrize("done", [False, True])
def test_wherever_it_is_cut_off_the_next_attempt_ends_it(
    locked: Scene, monkeypatch: pytest.MonkeyPatch, done: bool
) -> None:
    put, left = S3.put, [0]

    def failing(self: S3, name: str, data: bytes, *, locked: bool = True) -> str:
        left[0] -= 1
        if left[0] == 0 and not done:
            raise OSError("the process is gone")
        version = put(self, name, data, locked=locked)
        if left[0] == 0:
            raise OSError("the process is gone")
        return version

    monkeypatch.setattr(S3, "put", failing)
    begun = False
    for calls in (1, 2, 3, 1, 2, 3):
        left[0] = calls
        with contextlib.suppress(OSError):
            locked.copied(begun=begun)
        left[0] = -1
        locked.copied(begun=bool(locked.pieces()))
        assert locked.stream() == locked.original.log
        begun = True
        locked.original.grow(5)
    for key in locked.server.keys(locked.bucket):
        assert len(locked.server.versions(locked.bucket, key)) == 1


# --- trying, and who may


def test_trying_it_leaves_nothing_there(plain: Scene, locked: Scene) -> None:
    for scene in (plain, locked):
        with scene.copier() as copy:
            copy.probe(begun=False)
        assert scene.server.keys(scene.bucket) == []
        assert scene.server.versions(scene.bucket, "") == []


def test_where_the_bucket_locks_all_by_itself_trying_it_writes_nothing(locked: Scene) -> None:
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    locked.server.client.put_object_lock_configuration(
        Bucket=locked.bucket, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
    )
    with locked.copier() as copy:
        copy.probe(begun=False)
    assert locked.server.versions(locked.bucket, "") == []


def test_no_bucket_and_no_server_are_said(plain: Scene) -> None:
    plain.bucket = "nobody-made-this"
    refused = plain.refusal(begun=False)
    assert (refused.code, "make the bucket" in refused.remedy) == ("export_unreachable", True)
    assert plain.refusal(begun=False, endpoint="http://127.0.0.1:1").code == "export_unreachable"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        ("[default]\naws_access_key_id = a\n", 0o600, "has no [default]"),
        ("[other]\naws_access_key_id = a\naws_secret_access_key = b\n", 0o600, "has no [default]"),
        ("no ini", 0o600, "has no [default]"),
        (f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n", 0o640, "others than its owner"),
    ],
)
def test_what_is_no_file_of_credentials_is_said_without_its_content(
    tmp_path: Path, text: str, mode: int, said: str
) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        read_credentials(path, owner=os.getuid())
    assert said in refused.value.message
    assert SECRET not in f"{refused.value.message}{refused.value.remedy}"


def test_credentials_are_read_and_do_not_show_themselves(tmp_path: Path) -> None:
    read = read_credentials(credentials(tmp_path), owner=os.getuid())
    assert read == Credentials(KEY, SECRET)
    assert SECRET not in repr(read)
    assert KEY not in repr(read)


def test_a_symlink_is_no_file_of_credentials(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(credentials(tmp_path))
    with pytest.raises(ConfigurationError):
        read_credentials(tmp_path / "link", owner=os.getuid())


# --- tiles there


def test_tiles_in_s3_hold_the_ledger(locked: Scene) -> None:
    locked.original.grow(300)
    locked.copied(format="tiles")
    locked.original.grow(300)
    locked.copied(format="tiles", begun=True)
    keys = load_vkeys(locked.original.place / "keys/ledger.vkey")
    head = open_checkpoint(locked.server.get(locked.bucket, f"{locked.folder}/checkpoint"), keys)
    assert head.size == locked.original.head.size
    names = ["tile/entries/000", "tile/entries/001", f"tile/entries/002.p/{head.size - 512}"]
    lines = [line for name in names for line in lines_of(locked.server.get(locked.bucket, f"{locked.folder}/{name}"))]
    assert b"".join(line + b"\n" for line in lines) == locked.original.log


# --- how a place is written


@pytest.mark.parametrize(
    "to",
    ["s3://", "s3://B", "s3://ab", "s3://a..b/c", "s3://bucket/../x", "s3://bucket//x", "s3://bucket/a b", "http://b"],
)
def test_what_is_no_place_in_s3(to: str) -> None:
    with pytest.raises(ValueError, match=r"bucket|prefix|begin"):
        bucket_of(to)


@pytest.mark.parametrize(
    "endpoint",
    ["s3.example", "ftp://s3.example", "https://key:secret@s3.example", "https://s3.example/x", "https://s3.example:0"],
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not http"):
        check_endpoint(endpoint)


def test_places_say_where_they_are() -> None:
    assert bucket_of("s3://bucket/a/b/").key("c") == "a/b/c"
    assert bucket_of("s3://bucket").key("c") == "c"
    assert (Place("s3://b").port, Place("s3://b", endpoint="http://h:9000").port) == (443, 9000)
    assert (Place("s3://b", endpoint="http://h").port, Place("s3://b").directory) == (80, None)
    assert Place("/a").directory == Path("/a")
    assert timedelta(milliseconds=DAY_MS).days == 1
