"""A ledger beside what was kept of it: in every form that keeps it, with all that can be wrong with either."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from immured.cli.app import app
from immured.errors import ConfigurationError
from immured.ledger import Ledger, create
from immured.ledger.entry import build_line, encode_body, leaf_hash, parse_line
from immured.ledger.exports.tiles import bundle_of, lines_of, tile_path
from tests.ledger.s3 import Server, credentials, s3_server

ACTOR = {"key": "ed25519:" + "1" * 32}
DAEMON = "ed25519:" + "d" * 32
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with s3_server() as running:
        yield running


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def grow(state: Path, entries: int) -> None:
    with Ledger.open(state) as ledger:
        for number in range(entries):
            ledger.entry("run.accepted", ACTOR, {"sandbox": f"s{number}", "argv": ["/bin/true"]})


class Scene:
    """A ledger, and every form of export of it, in one place."""

    def __init__(self, place: Path, server: Server, bucket: str) -> None:
        self.state, self.place, self.server, self.bucket = place / "state", place, server, bucket
        server.make(bucket, lock=True)
        self.s3 = ["--endpoint", server.endpoint, "--credentials", credentials(place)]
        for name in ("copy", "tiled"):
            (place / name).mkdir(mode=0o755)
        create(self.state, DAEMON)
        grow(self.state, 300)
        self.export()

    def export(self) -> None:
        for words in (
            ("--to", self.place / "copy"),
            ("--tiles", self.place / "tiled"),
            ("--to", f"s3://{self.bucket}/lines", "--lock", "1d", *self.s3),
            ("--tiles", f"s3://{self.bucket}/tiled", *self.s3),
        ):
            assert immure("export", "--state", self.state, *words).return_value in (0, None)
        out = self.place / "some.jsonl"
        for old in self.place.glob("some.jsonl*"):
            old.unlink()
        immure("export", "--state", self.state, "--jsonl", out, "--type", "run.*", "--proofs")
        shutil.copy(self.checkpoints()[-1], self.place / "kept.checkpoint")
        (self.place / "kept.proof").unlink(missing_ok=True)
        immure("prove", "7", "--state", self.state, "-o", self.place / "kept.proof")

    def checkpoints(self) -> list[Path]:
        return sorted((self.state / "ledger/checkpoints").iterdir())

    @property
    def folder(self) -> str:
        return os.listdir(self.place / "copy")[0]

    @property
    def log(self) -> Path:
        return self.state / "ledger/current.jsonl"

    def kept(self) -> dict[str, list[object]]:
        return {
            "copy": [self.place / "copy"],
            "folder": [self.place / "copy" / self.folder],
            "tiles": [self.place / "tiled"],
            "s3": [f"s3://{self.bucket}/lines", *self.s3],
            "s3 tiles": [f"s3://{self.bucket}/tiled", *self.s3],
            "jsonl": [self.place / "some.jsonl"],
            "checkpoint": [self.place / "kept.checkpoint"],
            "proof": [self.place / "kept.proof"],
        }

    def compared(self, form: str) -> dict[str, Any]:
        done = immure("compare", "--state", self.state, "--json", "--against", *self.kept()[form])
        found: dict[str, Any] = json.loads(done.stdout)
        assert (done.return_value or 0) == (0 if found["good"] else 1)
        return found


FORMS = ("copy", "folder", "tiles", "s3", "s3 tiles", "jsonl", "checkpoint", "proof")
STREAMS = ("copy", "tiles", "s3", "s3 tiles")


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(tmp_path_factory.mktemp("whole"), server, "whole")


@pytest.fixture
def scene(server: Server, tmp_path: Path) -> Scene:
    return Scene(tmp_path, server, f"one-{next(NUMBERS)}")


@pytest.mark.parametrize("form", FORMS)
def test_what_was_kept_is_this_ledger(whole: Scene, form: str) -> None:
    found = whole.compared(form)
    assert found["verdict"] == "same"
    assert found["entries"] == (300 if form == "jsonl" else 301)


def test_an_export_on_demand_goes_on_from_what_is_there(scene: Scene) -> None:
    grow(scene.state, 40)
    for form in (*STREAMS, "checkpoint", "proof"):
        found = scene.compared(form)
        assert (found["verdict"], found["entries"]) == ("older", 301)
    scene.export()
    for form in FORMS:
        assert scene.compared(form)["verdict"] == "same"


def cut(scene: Scene, lines: int) -> None:
    """The ledger's end is gone, its checkpoints too."""
    scene.log.write_bytes(b"".join(scene.log.read_bytes().splitlines(keepends=True)[:lines]))


@pytest.mark.parametrize("form", FORMS)
def test_a_ledger_whose_end_was_cut_off(whole: Scene, form: str) -> None:
    kept = whole.log.read_bytes()
    try:
        cut(whole, 200)
        found = whole.compared(form)
    finally:
        whole.log.write_bytes(kept)
    assert found["verdict"] == "newer"
    assert found["seq"] == 200


def forged(lines: list[bytes], seq: int) -> list[bytes]:
    """All from `seq` on written anew: a chain as whole as the first."""
    made = lines[:seq]
    for line in lines[seq:]:
        entry = parse_line(line)
        data = {**entry.data, "argv": ["/bin/false"]} if entry.seq == seq else dict(entry.data)
        made.append(
            build_line(entry.seq, entry.ts, encode_body(entry.type, entry.actor, data), leaf_hash(made[-1]).hex())
        )
    return made


@pytest.mark.parametrize("form", FORMS)
def test_a_ledger_that_was_written_anew_from_some_line_on(whole: Scene, form: str) -> None:
    kept = whole.log.read_bytes()
    lines = forged(kept.splitlines(), 7)
    try:
        whole.log.write_bytes(b"".join(line + b"\n" for line in lines))
        found = whole.compared(form)
    finally:
        whole.log.write_bytes(kept)
    assert found["verdict"] == "forked"
    if form != "checkpoint":
        assert (found["seq"], found["line"], found["file"]) == (7, 8, "current.jsonl")
        assert ("/bin/false" in found["ours"], "/bin/true" in found["theirs"]) == (True, True)


@pytest.mark.parametrize("form", [*STREAMS, "jsonl", "proof"])
def test_a_line_that_was_altered_here(whole: Scene, form: str) -> None:
    kept = whole.log.read_bytes()
    lines = kept.splitlines(keepends=True)
    lines[7] = lines[7].replace(b"/bin/true", b"/bin/trUe")
    try:
        whole.log.write_bytes(b"".join(lines))
        found = whole.compared(form)
    finally:
        whole.log.write_bytes(kept)
    assert (found["verdict"], found["seq"], "altered here" in found["message"]) == ("altered", 7, True)


def altered_there(scene: Scene, form: str) -> None:
    """One byte of entry 7, in what was kept."""
    before, after = b"/bin/true", b"/bin/trUe"

    def spoil(data: bytes) -> bytes:
        if form in {"tiles", "s3 tiles"}:
            lines = lines_of(data)
            lines[7] = lines[7].replace(before, after)
            return bundle_of(lines)
        lines = data.splitlines(keepends=True)
        lines[7] = lines[7].replace(before, after)
        return b"".join(lines)

    folder, bundle = scene.folder, tile_path("entries", 0)
    if form.startswith("s3"):
        key = f"tiled/{folder}/{bundle}"
        if form == "s3":
            key = scene.server.keys(scene.bucket, f"lines/{folder}/entries/")[0]
        scene.server.put(scene.bucket, key, spoil(scene.server.get(scene.bucket, key)))
        return
    path = scene.place / ("tiled" if form == "tiles" else "copy") / folder
    path = path / (bundle if form == "tiles" else "current.jsonl")
    path.write_bytes(spoil(path.read_bytes()))


@pytest.mark.parametrize("form", STREAMS)
def test_a_line_that_was_altered_there(scene: Scene, form: str) -> None:
    altered_there(scene, form)
    found = scene.compared(form)
    assert (found["verdict"], found["seq"], "altered there" in found["message"]) == ("altered", 7, True)
    if form == "s3":
        assert "was overwritten: its version" in found["details"][0]
    if form.endswith("tiles"):
        assert "the hash beside it is of the line as it is here" in found["details"]


def test_hashes_that_are_not_of_the_entries_beside_them(scene: Scene) -> None:
    path = scene.place / "tiled" / scene.folder / tile_path(0, 0)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    found = scene.compared("tiles")
    assert (found["verdict"], str(path) in found["message"]) == ("damaged", True)


@pytest.mark.parametrize("what", ["middle", "last", "first", "cut"])
def test_pieces_that_are_gone_or_cut(scene: Scene, what: str) -> None:
    for _ in range(2):
        grow(scene.state, 20)
        scene.export()
    keys = scene.server.keys(scene.bucket, f"lines/{scene.folder}/entries/")
    assert len(keys) == 3
    if what == "cut":
        scene.server.put(scene.bucket, keys[1], scene.server.get(scene.bucket, keys[1])[:-1])
    else:
        scene.server.delete(scene.bucket, keys[{"first": 0, "middle": 1, "last": 2}[what]])
    found = scene.compared("s3")
    assert found["verdict"] == "damaged"


def test_a_copy_that_was_cut_within_a_line(scene: Scene) -> None:
    path = scene.place / "copy" / scene.folder / "current.jsonl"
    path.write_bytes(path.read_bytes()[:-3])
    assert scene.compared("copy")["verdict"] == "damaged"


@pytest.mark.parametrize("form", FORMS)
def test_another_hosts_ledger_is_said_to_be_one(whole: Scene, tmp_path: Path, form: str) -> None:
    other = tmp_path / "other"
    create(other, DAEMON)
    grow(other, 3)
    done = immure("compare", "--state", other, "--json", "--against", *whole.kept()[form])
    found = json.loads(done.stdout)
    if form == "jsonl":  # its first line is not among them: nothing in it says whose it is
        assert found["verdict"] in {"altered", "forked"}
        return
    assert (found["verdict"], done.return_value) == ("other", 1)
    assert f"immured/{whole.folder}" in f"{found['message']}{found.get('where')}"


def test_one_place_for_many_hosts(scene: Scene, tmp_path: Path) -> None:
    other = tmp_path / "other"
    create(other, DAEMON)
    immure("export", "--state", other, "--to", scene.place / "copy")
    for state, entries in ((scene.state, 301), (other, 1)):
        done = immure("compare", "--state", state, "--json", "--against", scene.place / "copy")
        assert json.loads(done.stdout)["entries"] == entries


def test_a_witnesss_state_is_compared(whole: Scene, tmp_path: Path) -> None:
    import hashlib

    origin = f"immured/{whole.folder}"
    place = tmp_path / "witness/logs" / hashlib.sha256(origin.encode()).hexdigest()
    place.mkdir(parents=True)
    shutil.copy(whole.place / "kept.checkpoint", place / "checkpoint")
    done = immure("compare", "--state", whole.state, "--json", "--against", tmp_path / "witness")
    assert json.loads(done.stdout)["verdict"] == "same"


@pytest.mark.parametrize("what", ["nothing", "rubbish"])
def test_what_cannot_be_compared_is_said(whole: Scene, tmp_path: Path, what: str) -> None:
    (tmp_path / "nothing").mkdir()
    (tmp_path / "rubbish").write_text("rubbish")
    with pytest.raises(ConfigurationError) as refused:
        immure("compare", "--state", whole.state, "--against", tmp_path / what)
    assert refused.value.code == "not_comparable"


def test_it_is_told_in_words_that_move_no_cursor(whole: Scene) -> None:
    kept = whole.log.read_bytes()
    try:
        whole.log.write_bytes(kept.replace(b"/bin/true", b"/bin/\x1b[2J", 1))
        done = immure("compare", "--state", whole.state, "--against", whole.place / "copy")
    finally:
        whole.log.write_bytes(kept)
    assert "ALTERED" in done.stdout
    assert "current.jsonl line 2 (seq 1)" in done.stdout
    assert "\x1b" not in done.stdout


def test_exactly_one_form_is_exported_at_a_time(whole: Scene, tmp_path: Path) -> None:
    for words in ([], ["--to", tmp_path, "--jsonl", tmp_path / "x"], ["--to", tmp_path, "--tenant", "red"]):
        with pytest.raises(Exception, match=r"--jsonl"):
            immure("export", "--state", whole.state, *words)
    with contextlib.suppress(FileNotFoundError):
        assert not (tmp_path / "x").exists()


def test_an_export_of_lines_is_checked(whole: Scene, tmp_path: Path) -> None:
    checked = immure("check-export", whole.place / "some.jsonl", "--key", whole.state / "keys/ledger.vkey", "--json")
    assert json.loads(checked.stdout) == {"entries": 300, "origin": f"immured/{whole.folder}"}
    for name in ("some.jsonl", "some.jsonl.proofs"):
        shutil.copy(whole.place / name, tmp_path / name)
    (tmp_path / "some.jsonl").write_bytes((tmp_path / "some.jsonl").read_bytes().replace(b"/bin/true", b"/bin/trUe", 1))
    checked = immure("check-export", tmp_path / "some.jsonl", "--key", whole.state / "keys/ledger.vkey")
    assert (checked.return_value, "line 1" in checked.stderr) == (1, True)
