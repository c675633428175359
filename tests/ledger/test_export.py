"""Copies of a ledger: what is new goes behind what is there, and what is not right is left as it is and said."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from immured.ledger.exports.copy import Copy
from immured.ledger.exports.head import Copied, ExportError, Head, folder_of
from immured.ledger.ledger import load_vkeys
from immured.ledger.verify import verify_file
from tests.ledger.copies import VKEYS, Memory, Original


@pytest.fixture
def original(tmp_path: Path) -> Original:
    return Original(tmp_path / "state")


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    place = tmp_path / "audit"
    place.mkdir(mode=0o755)
    return place


def copied(original: Original, audit: Path, *, begun: bool = False) -> Copied:
    with original.copy_to(audit) as copy:
        return copy.catch_up(original.head, VKEYS, begun=begun)


def refusal(original: Original, audit: Path, *, begun: bool = True, head: Head | None = None) -> ExportError:
    with original.copy_to(audit) as copy, pytest.raises(ExportError) as refused:
        copy.catch_up(head or original.head, VKEYS, begun=begun)
    return refused.value


def test_a_copy_verifies_by_itself(original: Original, audit: Path) -> None:
    assert copied(original, audit) == Copied(original.head.size, original.head.end, began=True)
    keys = load_vkeys(original.place / "keys/ledger.vkey")
    folder = original.folder(audit)
    report = verify_file(folder / "current.jsonl", folder / "checkpoints", keys)
    assert (report.whole, report.entries, report.covered) == (True, original.head.size, original.head.size)
    assert (folder / "ledger.vkey").read_bytes() == VKEYS


def test_what_is_new_goes_behind_what_is_there(original: Original, audit: Path) -> None:
    copied(original, audit)
    inode = (original.folder(audit) / "current.jsonl").stat().st_ino
    original.grow(2000)
    assert not copied(original, audit, begun=True).began
    log = original.folder(audit) / "current.jsonl"
    assert log.read_bytes() == original.log
    assert log.stat().st_ino == inode
    assert sorted(os.listdir(original.folder(audit) / "checkpoints")) == sorted(
        os.listdir(original.place / "ledger/checkpoints")
    )


def test_only_what_is_new_is_written(original: Original) -> None:
    memory = Memory()
    with original.files() as files:
        copy = Copy(files, memory)
        copy.catch_up(original.head, VKEYS, begun=False)
        before, first = memory.written, original.head
        copy.catch_up(original.grow(5), VKEYS, begun=True)
    assert memory.written - before == original.head.end - first.end


def test_nothing_beyond_the_signed_head_is_copied(original: Original, audit: Path) -> None:
    head = original.head
    original.grow(5)
    original.head = head
    copied(original, audit)
    assert (original.folder(audit) / "current.jsonl").read_bytes() == original.log[: head.end]
    assert max(map(int, os.listdir(original.folder(audit) / "checkpoints"))) == head.size


def test_a_large_ledger_goes_in_pieces(original: Original) -> None:
    original.grow(60, size=1000)
    original.grow(3000, size=1000)
    pieces: list[None] = []
    memory = Memory()
    with original.files() as files:
        Copy(files, memory, lambda: pieces.append(None)).catch_up(original.head, VKEYS, begun=False)
    assert bytes(memory.log or b"") == original.log
    assert len(pieces) > original.head.end >> 20


@pytest.mark.parametrize("seed", range(40))
def test_an_attempt_that_stops_anywhere_is_taken_up_where_it_stopped(original: Original, seed: int) -> None:
    """Every operation may be the last one, and a write may have come in part; whoever starts anew gets on with it."""
    chance = random.Random(seed)
    stop = chance.randrange(1, 40)
    count = 0

    def before(_: str) -> None:
        nonlocal count
        count += 1
        if count == stop:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    memory = Memory(before)
    original.grow(1500, size=900)
    with original.files() as files:
        while True:
            try:
                Copy(files, memory).catch_up(original.head, VKEYS, begun=False)
            except OSError:
                stop += chance.randrange(1, 40)
                if memory.log is not None and chance.random() < 0.5 and not memory.checkpoints():
                    del memory.log[len(memory.log) - chance.randrange(0, 1000) :]
                continue
            break
    assert bytes(memory.log or b"") == original.log
    assert memory.checkpoints() == sorted(os.listdir(original.place / "ledger/checkpoints"))


def test_a_write_that_came_in_part_is_written_over(original: Original) -> None:
    memory = Memory()
    with original.files() as files:
        Copy(files, memory).catch_up(original.head, VKEYS, begun=False)
        original.grow(50)
        assert memory.log is not None
        held = len(memory.log)
        memory.cut = 700
        with pytest.raises(OSError, match="No space"):
            Copy(files, memory).catch_up(original.head, VKEYS, begun=True)
        memory.log[held + 512 :] = bytes(400)  # as a file system may leave what it did not write any more
        memory.cut = None
        Copy(files, memory).catch_up(original.head, VKEYS, begun=True)
    assert bytes(memory.log or b"") == original.log


@pytest.mark.parametrize("where", [0, 100, -1])
def test_a_copy_that_was_changed_is_named_and_left_as_it_is(original: Original, audit: Path, where: int) -> None:
    copied(original, audit)
    log = original.folder(audit) / "current.jsonl"
    changed = bytearray(log.read_bytes())
    changed[where] ^= 1
    log.write_bytes(changed)
    original.grow(5)
    error = refusal(original, audit)
    assert (error.code, error.message) == (
        "export_differs",
        f"the copy is not what the ledger says: byte {where % len(changed)} is not what it is there",
    )
    assert log.read_bytes() == changed


def test_lines_that_were_cut_off_are_written_again_where_no_checkpoint_covers_them(
    original: Original, audit: Path
) -> None:
    copied(original, audit)
    head = original.head
    original.grow(5)
    log = original.folder(audit) / "current.jsonl"
    log.write_bytes(original.log[: head.end + 100])
    copied(original, audit, begun=True)
    assert log.read_bytes() == original.log


@pytest.mark.parametrize("lines", [0, 1])
def test_lines_that_were_cut_off_are_named_where_a_checkpoint_covers_them(
    original: Original, audit: Path, lines: int
) -> None:
    copied(original, audit)
    log = original.folder(audit) / "current.jsonl"
    cut = len(original.log.splitlines(keepends=True)[-1]) if lines else 10
    left = original.head.end - cut
    os.truncate(log, left)
    original.grow(5)
    error = refusal(original, audit)
    assert (error.code, "before what the checkpoint" in error.message) == ("export_differs", True)
    assert log.stat().st_size == left


def test_a_copy_that_shrank_while_we_looked_after_it_is_named(original: Original, audit: Path) -> None:
    with original.copy_to(audit) as copy:
        copy.catch_up(original.head, VKEYS, begun=False)
        os.truncate(original.folder(audit) / "current.jsonl", 100)
        with pytest.raises(ExportError, match="it ends at byte 100, and held") as refused:
            copy.catch_up(original.grow(1), VKEYS, begun=True)
    assert refused.value.code == "export_differs"


def test_a_ledger_that_was_put_back_from_before_is_found(original: Original, audit: Path) -> None:
    before = original.head
    original.grow(10)
    copied(original, audit)
    assert refusal(original, audit, head=before).code == "export_ahead"


def test_a_ledger_that_was_put_back_and_went_on_is_found(original: Original, audit: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(original.place, tmp_path / "backup")
    original.grow(10)
    copied(original, audit)
    shutil.rmtree(original.place)
    shutil.copytree(tmp_path / "backup", original.place)
    original.grow(20)
    assert refusal(original, audit).code == "export_differs"


def test_what_reads_otherwise_than_it_was_written_is_found(original: Original) -> None:
    memory = Memory()

    def before(what: str) -> None:
        if what == "append done" and memory.log is not None:
            memory.log[-5] ^= 4

    memory.before = before
    with original.files() as files, pytest.raises(ExportError, match="what was just written") as refused:
        Copy(files, memory).catch_up(original.head, VKEYS, begun=False)
    assert refused.value.code == "export_differs"
    assert memory.checkpoints() == []


# --- the directory


def test_a_copy_that_is_gone_is_not_begun_anew(original: Original, audit: Path) -> None:
    """What is not mounted looks like a directory in which nothing was ever begun."""
    error = refusal(original, audit)
    assert error.code == "export_missing"
    assert os.listdir(audit) == []


def test_a_folder_that_the_operator_made_is_begun_in(original: Original, audit: Path) -> None:
    original.folder(audit).mkdir(mode=0o750)
    assert copied(original, audit, begun=True).began
    assert (original.folder(audit) / "current.jsonl").read_bytes() == original.log


@pytest.mark.parametrize("what", ["directory", "folder"])
def test_where_others_may_write_there_is_no_copy(original: Original, audit: Path, what: str) -> None:
    original.folder(audit).mkdir()
    (audit if what == "directory" else original.folder(audit)).chmod(0o777)
    assert refusal(original, audit).code == "export_insecure"


def test_a_folder_that_another_made_beforehand_is_none(original: Original, audit: Path) -> None:
    """In a directory where everybody may make one; what stands in his, he renames and removes, sticky or not."""
    audit.chmod(0o1777)
    original.folder(audit).mkdir()
    original.folder(audit).chmod(0o1777)
    assert refusal(original, audit).code == "export_insecure"


@pytest.mark.parametrize("name", ["current.jsonl", ".probe"])
@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_nothing_but_a_file_is_written_to(
    original: Original, audit: Path, tmp_path: Path, name: str, kind: str
) -> None:
    """Nor is a FIFO waited for that nobody reads."""
    folder = original.folder(audit)
    folder.mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    match kind:
        case "symlink":
            (folder / name).symlink_to(victim)
        case "fifo":
            os.mkfifo(folder / name)
        case _:
            (folder / name).mkdir()
    with (
        original.copy_to(audit) as copy,
        pytest.raises(OSError, match=r"Not a regular|not a reg|levels|directory|device"),
    ):
        copy.probe(begun=False) if name == ".probe" else copy.catch_up(original.head, VKEYS, begun=False)
    assert victim.read_bytes() == b"mine"


def test_a_folder_is_not_a_symlink(original: Original, audit: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    original.folder(audit).symlink_to(elsewhere)
    with original.copy_to(audit) as copy, pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        copy.catch_up(original.head, VKEYS, begun=False)
    assert os.listdir(elsewhere) == []


def test_a_probe_leaves_nothing(original: Original, audit: Path) -> None:
    with original.copy_to(audit) as copy:
        copy.probe(begun=False)
    assert os.listdir(original.folder(audit)) == []


def test_a_probe_finds_a_full_disk(original: Original, audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with original.copy_to(audit) as copy, pytest.raises(OSError, match="File too large"):
            copy.probe(begun=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert os.listdir(original.folder(audit)) == []


@pytest.mark.parametrize("origin", ["", "immured/", "immured/../x", "other/" + "0" * 32, "immured/" + "A" * 32])
def test_a_folder_s_name_is_an_origin_s(origin: str) -> None:
    with pytest.raises(ValueError, match="no ledger's origin"):
        folder_of(origin)
