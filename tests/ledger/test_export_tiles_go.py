"""Our tiles, read by an implementation that is not ours: Go's golang.org/x/mod/sumdb, as Debian packages it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from immured.ledger.exports.directory import Directory
from immured.ledger.exports.head import folder_of
from immured.ledger.exports.tiles import TileCopy, tile_path
from tests.ledger.copies import VKEYS, Original
from tests.patience import PATIENCE_S

SOURCE = Path(__file__).parent / "tiles_go/main.go"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("go")
    go = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOCACHE": str(place / "cache"), "GOFLAGS": ""}
    words = ["go", "build", "-o", str(place / "tiles"), str(SOURCE)]
    subprocess.run(words, env={**os.environ, **go}, check=True, timeout=2 * PATIENCE_S)
    return place / "tiles"


@pytest.fixture
def tiles(tmp_path: Path) -> tuple[Original, Path]:
    original = Original(tmp_path / "state")
    original.grow(700)
    audit = tmp_path / "audit"
    audit.mkdir(mode=0o755)
    with original.files() as files:
        copy = TileCopy(files, Directory(audit, folder_of(original.origin)))
        copy.catch_up(original.head, VKEYS, begun=False)
    return original, original.folder(audit)


def read(program: Path, original: Original, folder: Path) -> subprocess.CompletedProcess[str]:
    vkey = (original.place / "keys/ledger.vkey").read_text().strip()
    return subprocess.run([program, folder, vkey], capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_go_reads_every_entry_and_proves_it(program: Path, tiles: tuple[Original, Path]) -> None:
    done = read(program, *tiles)
    assert (done.returncode, done.stdout.strip()) == (0, str(tiles[0].head.size)), done.stderr


@pytest.mark.parametrize("what", ["tile/0/000", "tile/entries/001", "checkpoint", tile_path(1, 0, 2)])
def test_go_finds_what_was_altered(program: Path, tiles: tuple[Original, Path], what: str) -> None:
    path = tiles[1] / what
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)
    assert read(program, *tiles).returncode == 1
