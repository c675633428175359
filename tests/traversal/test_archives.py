"""Archives that a stranger made: each entry's name, kind, size and mode is his."""

from __future__ import annotations

import io
import os
import stat
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from immured.isolation.files_words import FilesFlag, FilesOp, FilesRefusal
from tests.traversal.acts import tar_of
from tests.traversal.alone import Alone, Refusal
from tests.traversal.vectors import picture, plant

R = FilesRefusal


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **more: object) -> Entry:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info, content


def made(*entries: Entry, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def patched(archive: bytes, start: int, new: bytes, *, mend: bool = True) -> bytes:
    """The first header changed at an offset, with a right sum again if wanted."""
    header = bytearray(archive[:512])
    header[start : start + len(new)] = new
    if mend:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + archive[512:]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Entry:
    return entry(name, kind, linkname=target)


FILE = made(entry("file", content=b"x"))
LONG = made(entry("x" * 200, content=b"x"), form=tarfile.PAX_FORMAT)
UP = "../outside"

HOSTILE: dict[str, tuple[bytes, set[FilesRefusal]]] = {
    "absolute name": (made(entry("/etc/x", content=b"x")), {R.NAME}),
    "absolute name, twice": (made(entry("//x", content=b"x")), {R.NAME}),
    "leads up": (made(entry("../outside/planted", content=b"x")), {R.NAME}),
    "leads up behind a directory": (made(entry("a/../../outside/planted", content=b"x")), {R.NAME}),
    "leads up at the end": (made(entry("a/..", tarfile.DIRTYPE)), {R.NAME}),
    "leads up in a long name": (made(entry("./" * 80 + "../outside/planted", content=b"x")), {R.NAME}),
    "leads up in a POSIX record": (
        made(entry("./" * 80 + "../outside/planted", content=b"x"), form=tarfile.PAX_FORMAT), {R.NAME},
    ),
    "leads up in a prefix": (
        made(entry("../" * 45 + "x" * 60 + "/y", content=b"x"), form=tarfile.USTAR_FORMAT), {R.NAME},
    ),
    "a directory that leads up": (made(entry("../outside/new", tarfile.DIRTYPE)), {R.NAME}),
    "a link that leads up by its name": (made(link("../outside/new", "x")), {R.NAME}),
    "through a link of its own": (made(link("out", UP), entry("out/planted", content=b"x")), {R.LINK}),
    "through an absolute link of its own": (made(link("out", "/"), entry("out/planted", content=b"x")), {R.LINK}),
    "through a chain of links of its own": (
        made(link("one", UP), link("two", "one"), entry("two/planted", content=b"x")), {R.LINK},
    ),
    "through a link that was there": (made(entry("relative/planted", content=b"x")), {R.LINK}),
    "a directory over a link that was there": (made(entry("relative", tarfile.DIRTYPE)), {R.LINK}),
    "a directory over a link, and a file in it": (
        made(link("out", UP), entry("out", tarfile.DIRTYPE), entry("out/planted", content=b"x")), {R.LINK},
    ),
    "a link in the middle": (made(link("d/out", f"../{UP}"), entry("d/out/below/planted", content=b"x")), {R.LINK}),
    "hard link that leads up": (made(link("hard", "../outside/secret", tarfile.LNKTYPE)), {R.NAME}),
    "hard link, absolute": (made(link("hard", "/etc/passwd", tarfile.LNKTYPE)), {R.NAME}),
    "hard link through a link": (made(link("hard", "relative/secret", tarfile.LNKTYPE)), {R.LINK}),
    "hard link to a link": (made(link("hard", "secret-relative", tarfile.LNKTYPE)), {R.LINK}),
    "hard link to a directory": (made(link("hard", "a", tarfile.LNKTYPE)), {R.LINK}),
    "hard link to nothing": (made(link("hard", "nothing", tarfile.LNKTYPE)), {R.FAILED}),
    "character device": (made(entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3)), {R.KIND}),
    "block device": (made(entry("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)), {R.KIND}),
    "set-uid": (made(entry("suid", content=b"x", mode=0o4755)), {R.SETID}),
    "set-gid": (made(entry("sgid", content=b"x", mode=0o2755)), {R.SETID}),
    "set-gid directory": (made(entry("sgid", tarfile.DIRTYPE, mode=0o2755)), {R.SETID}),
    "a file over a directory": (made(entry("a", content=b"x")), {R.KIND}),
    "a kind nobody knows": (made(entry("odd", b"Z")), {R.MALFORMED}),
    "GNU sparse": (made(entry("sparse", b"S")), {R.MALFORMED}),
    "POSIX sparse": (
        made(entry("sparse", content=b"x", pax_headers={"GNU.sparse.major": "1"}), form=tarfile.PAX_FORMAT),
        {R.MALFORMED},
    ),
    "several volumes": (made(entry("part", b"M", b"x")), {R.MALFORMED}),
    "a directory with bytes": (patched(made(entry("d", tarfile.DIRTYPE)), 124, b"00000001000\0"), {R.MALFORMED}),
    "wrong sum": (patched(FILE, 0, b"other", mend=False), {R.MALFORMED}),
    "no archive": (b"#!/bin/sh\n" * 200, {R.MALFORMED}),
    "compressed": (b"\x1f\x8b\x08" + os.urandom(2000), {R.MALFORMED}),
    "empty": (b"", {R.SHORT}),
    "cut in a header": (FILE[:300], {R.SHORT}),
    "cut in a file": (made(entry("file", content=b"x" * 2000))[:1024], {R.SHORT}),
    "cut before its end": (FILE[:1024], {R.SHORT}),
    "size that is none": (patched(FILE, 124, b"zzzzzzzzzzz\0"), {R.MALFORMED}),
    "size below zero": (patched(FILE, 124, b"\xff" * 12), {R.MALFORMED}),
    "size beyond all": (patched(FILE, 124, b"\x80" + b"\xff" * 11), {R.MALFORMED}),
    "size of an exbibyte": (patched(FILE, 124, b"\x80" + (1 << 60).to_bytes(11, "big")), {R.LARGE}),
    "size of a gibibyte that never comes": (patched(FILE, 124, b"10000000000\0"), {R.SHORT}),
    "name too long for a file": (made(entry("x" * 300, content=b"x")), {R.NAME}),
    "path too long for the kernel": (made(entry("d/" * 2500 + "x", content=b"x")), {R.DEEP}),
    "no name": (patched(FILE, 0, b"\0" * 100), {R.MALFORMED}),
    "a dot for a name": (made(entry("./.", content=b"x")), {R.MALFORMED}),
    "NUL in a long name": (
        made(entry("y" * 150, content=b"x")).replace(b"y" * 150, b"y" * 70 + b"\0" + b"y" * 79, 1), {R.MALFORMED},
    ),
    "endless extended header": (
        patched(made(entry("x" * 200, content=b"x"), form=tarfile.PAX_FORMAT), 124, b"77777777777\0"), {R.MALFORMED},
    ),
    "extended header that lies of its length": (LONG.replace(b"210 path=", b"999 path=", 1), {R.MALFORMED}),
    "extended header of length zero": (LONG.replace(b"210 path=", b"000 path=", 1), {R.MALFORMED}),
}  # fmt: skip


@pytest.fixture
def outside(root: Path) -> Path:
    path = root.parent / "outside"
    plant(root, path)
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_archive_is_refused(clerk: Alone, root: Path, outside: Path, name: str) -> None:
    content, expected = HOSTILE[name]
    before = picture(outside)
    with pytest.raises(Refusal) as refused:
        clerk.extract(b"/", content, most=1 << 30)
    assert refused.value.why in expected, str(refused.value)
    assert picture(outside) == before
    assert not list(root.parent.rglob("planted"))
    assert not [path for path in root.rglob("*") if path.lstat().st_mode & 0o6000]
    # The one after it is taken.
    assert clerk.extract(b"/", FILE).numbers[1] == 1


NAIVE = [
    "leads up", "leads up behind a directory", "leads up in a long name", "leads up in a POSIX record",
    "through a link of its own", "through a chain of links of its own", "through a link that was there",
    "a link in the middle",
]  # fmt: skip


@pytest.mark.parametrize("name", NAIVE)
def test_control_an_unpacker_that_trusts_names_writes_outside(root: Path, outside: Path, name: str) -> None:
    with tarfile.open(fileobj=io.BytesIO(HOSTILE[name][0])) as archive:
        archive.extractall(root, filter="fully_trusted")
    assert list(outside.rglob("planted"))


def test_control_a_bit_that_is_refused_is_one_that_an_unpacker_sets(root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(HOSTILE["set-uid"][0])) as archive:
        archive.extractall(root, filter="fully_trusted")
    assert (root / "suid").stat().st_mode & stat.S_ISUID


FAITHFUL: dict[str, Callable[[], bytes]] = {
    "GNU": lambda: made(*_zoo(), form=tarfile.GNU_FORMAT),
    "POSIX": lambda: made(*_zoo(), form=tarfile.PAX_FORMAT),
}


def _zoo() -> list[Entry]:
    return [
        entry("d", tarfile.DIRTYPE, mode=0o750),
        entry("d/plain", content=b"content", mode=0o640, mtime=1_000_000_000),
        entry("d/" + "long" * 50, content=b"long"),
        entry("d/with\nnewline and \x1b[31mcolour", content=b"odd"),
        link("d/out", "/etc/passwd"),
        link("d/" + "l" * 120, "t" * 200),
        link("d/hard", "d/plain", tarfile.LNKTYPE),
        entry("d/pipe", tarfile.FIFOTYPE, mode=0o600),
        entry("d/empty"),
        entry("missing/above/it", content=b"made"),
    ]


@pytest.mark.parametrize("form", FAITHFUL)
def test_what_is_not_hostile_is_carried_in_and_out_as_it_was(clerk: Alone, root: Path, form: str) -> None:
    told = clerk.extract(b"/", FAITHFUL[form]())
    assert told.numbers[1] == len(_zoo())
    assert (root / "d/plain").stat().st_mode & 0o7777 == 0o640
    assert (root / "d/plain").stat().st_mtime == 1_000_000_000
    assert (root / "d/plain").stat().st_ino == (root / "d/hard").stat().st_ino
    assert os.readlink(root / "d/out") == "/etc/passwd"
    assert stat.S_ISFIFO((root / "d/pipe").lstat().st_mode)
    with tarfile.open(fileobj=io.BytesIO(clerk.archive(b"/"))) as back:
        found = {one.name.removeprefix("./"): one for one in back.getmembers()}
        assert back.extractfile(found["d/with\nnewline and \x1b[31mcolour"]).read() == b"odd"  # type: ignore[union-attr]
    assert found.keys() >= {info.name for info, _ in _zoo()}
    assert found["d/out"].linkname == "/etc/passwd"
    assert found["d/" + "l" * 120].linkname == "t" * 200
    assert found["d/pipe"].isfifo()
    assert found["d/plain"].mode == 0o640


def test_names_that_are_no_text_come_back_as_they_are(clerk: Alone, root: Path) -> None:
    name = b"\xff\xfe" + b"\x80" * 150
    (root / os.fsdecode(name)).write_bytes(b"x")
    content = clerk.archive(b"/")
    clerk.ask(FilesOp.MKDIR, b"/again", mode=0o755)
    clerk.extract(b"/again", content)
    assert name in clerk.names(b"/again")


def test_without_replace_what_is_there_stays(clerk: Alone, root: Path) -> None:
    clerk.put(b"/secret", b"mine")
    with pytest.raises(Refusal) as refused:
        clerk.extract(b"/", tar_of(("secret", b"theirs")), flags=FilesFlag.PARENTS)
    assert refused.value.why is R.EXISTS
    assert (root / "secret").read_bytes() == b"mine"


def test_a_file_of_nine_gibibytes_is_said_so_in_its_header(clerk: Alone, root: Path) -> None:
    """Beyond what eleven octal digits hold: the number is GNU's."""
    with open(root / "large", "wb") as file:
        file.truncate(9 << 30)
    reader, writer = os.pipe()
    clerk.ask(FilesOp.ARCHIVE, b"/large", numbers=(1 << 40, 0), fds=(writer,))
    os.close(writer)
    header = os.read(reader, 512)
    os.close(reader)
    (high,) = struct.unpack(">Q", header[128:136])
    assert (header[124], high) == (0x80, 9 << 30)
