"""What is handed to a stranger by somebody who wants it to pass: heads of what is kept no more, another host's key,
files that are made to be read wrongly."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from immured.cli.app import app
from immured.ledger import Entry, Ledger, create
from immured.ledger.belonging import HOST, Belonging
from immured.ledger.checkpoint import (
    Checkpoint,
    NoteError,
    Signer,
    file_name,
    open_checkpoint,
    open_witnessed,
    sign_checkpoint,
    unverified,
)
from immured.ledger.entry import build_line, encode_body, leaf_hash, parse_line
from immured.ledger.exports.head import ExportError
from immured.ledger.exports.lines import check_lines, proofs_beside
from immured.ledger.keeping import Keep, Need
from immured.ledger.key_rotation import KeyHistory, KeyRotation
from immured.ledger.keys import load_vkeys
from immured.ledger.note_keys import Cosigner
from immured.ledger.proof import Proof, ProofError
from immured.ledger.rotation import Limits
from immured.ledger.timestamps import timestamp
from immured.ledger.tree import node_hash
from immured.ledger.tree_store import TREE, TreeDirectory
from immured.ledger.verify import Report, verify_file
from tests.ledger.sample import ACTOR, DAEMON, START_NS, head, lines, rotated_at, signer, text, until_short
from tests.patience import PATIENCE_S

WITNESS = Cosigner(Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32), "w1")
AT_S = 1_800_000_000


class _Nothing:
    """Needs no line again."""

    rules = "test/none"

    def keep(self, type_: str, actor: Mapping[str, Any], data: Mapping[str, Any], /) -> Keep | None:
        del type_, actor, data
        return None

    def visit(self, entry: Entry, needs: int = Need.ALL) -> None:
        del entry, needs

    def forgotten(self, until_ms: int) -> None:
        del until_ms


# --- heads of what is kept no more


def kept_part(folder: Path, before: list[bytes]) -> None:
    """What a ledger's key holder can make of a history: signed, sealed, its beginning retired."""
    made = [*before, rotated_at(before, 0)]
    data = {"segments": [], "first": len(before), "bytes": 1}
    body = encode_body("ledger.retired", {}, data)
    made.append(build_line(len(made), timestamp(START_NS + 10**9), body, leaf_hash(made[-1]).hex()))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "witnessed").mkdir()
    (folder / "current.jsonl").write_bytes(text(made[len(before) :]))
    for size in (len(before), len(made)):
        signed = head(made, size)
        (folder / "checkpoints" / file_name(size)).write_bytes(signer(signed.origin).sign(signed))


def rewritten(made: list[bytes], keep: int) -> list[bytes]:
    forged = made[:keep]
    for seq in range(keep, len(made)):
        body = encode_body("run.accepted", ACTOR, {"sandbox": "another"})
        forged.append(build_line(seq, timestamp(START_NS + seq), body, leaf_hash(forged[-1]).hex()))
    return forged


def checked(folder: Path, **more: Any) -> Report:
    origin = unverified(next((folder / "checkpoints").iterdir()).read_bytes()).origin
    return verify_file(folder, folder / "checkpoints", [signer(origin).verifier], pause=lambda _: None, **more)


def test_a_head_of_what_is_kept_no_more_vouches_for_nothing(tmp_path: Path) -> None:
    """A head that a witness cosigned, and somebody kept, of the true history; then all of it is written anew."""
    true = head(lines(9), 6)
    note = signer(true.origin).sign(true) + WITNESS.line(true.text(), AT_S)
    folder, anchor = tmp_path / "ledger", tmp_path / "kept"
    kept_part(folder, rewritten(lines(9), 3))
    assert checked(folder).whole  # by itself nothing shows it
    (folder / "witnessed" / file_name(6)).write_bytes(note)
    anchor.write_bytes(note)
    asked = checked(folder, witnessed_dir=folder / "witnessed", witnesses=[WITNESS.verifier], require=1)
    assert (asked.whole, asked.witnessed, asked.seen) == (False, 0, ())
    assert "0 of the given witnesses" in asked.unwitnessed
    anchored = checked(folder, anchors=[anchor])
    assert [bad.file for bad in anchored.bad_checkpoints] == [str(anchor)]
    assert not anchored.whole


@pytest.fixture
def retired(tmp_path: Path) -> tuple[Path, bytes]:
    """A ledger of which the beginning is retired, and a head of that beginning, cosigned."""
    state = tmp_path / "state"
    create(state, DAEMON)
    with Ledger.open(state, keeper=_Nothing(), limits=Limits(size=4_000)) as ledger:
        ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true"]}).wait(PATIENCE_S)
    (note,) = (path.read_bytes() for path in sorted((state / "ledger" / "checkpoints").iterdir())[-1:])
    with Ledger.open(state, keeper=_Nothing(), limits=Limits(size=4_000)) as ledger:
        for number in range(60):
            ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true"], "n": number}).wait(PATIENCE_S)
            until_short(state, 4_000)
        assert ledger.retire(1 << 62)
    return state, note + WITNESS.line(unverified(note).text(), AT_S)


def real(state: Path, **more: Any) -> Report:
    files = state / "ledger"
    vkeys = load_vkeys(state / "keys" / "ledger.vkey")
    return verify_file(files, files / "checkpoints", vkeys, pause=lambda _: None, **more)


def test_a_head_of_before_counts_where_the_stored_hashes_lead_on_from_it(
    retired: tuple[Path, bytes], tmp_path: Path
) -> None:
    state, note = retired
    anchor, size = tmp_path / "kept", unverified(note).size
    anchor.write_bytes(note)
    report = real(state, anchors=[anchor], witnesses=[WITNESS.verifier], require=1)
    assert report.first > size
    assert (report.whole, report.witnessed) == (True, size)
    for path in (state / "ledger" / TREE).iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert not real(state, anchors=[anchor]).whole


def test_stored_hashes_that_are_made_up_lead_nowhere(retired: tuple[Path, bytes], tmp_path: Path) -> None:
    state, note = retired
    true = unverified(note)
    key = Ed25519PrivateKey.generate()
    vkeys = state / "keys" / "ledger.vkey"
    vkeys.write_text(Signer(key, true.origin).verifier.encode() + "\n" + vkeys.read_text())
    anchor = tmp_path / "kept"
    anchor.write_bytes(Signer(key, true.origin).sign(Checkpoint(true.origin, true.size, bytes(32))))
    report = real(state, anchors=[anchor])
    assert [bad.file for bad in report.bad_checkpoints] == [str(anchor)]


def test_no_pipe_among_the_stored_hashes_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "00")
    with pytest.raises(OSError, match="seek"):
        TreeDirectory(tmp_path).read("00", 0, 32)


# --- another host's key


def test_another_ledgers_key_signs_nothing_of_this_one(tmp_path: Path) -> None:
    """Whoever checks several hosts knows a key of each; one of them signs heads in another's name."""
    made = lines(4)
    forged = rewritten(made, 1)
    other = Signer(Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32), "immured/" + "e" * 32)
    signed = head(forged, 4)
    known = (signer(signed.origin).verifier, other.verifier)
    note = sign_checkpoint(signed, (other,))
    with pytest.raises(NoteError, match="no key of that name"):
        open_checkpoint(note, known)
    with pytest.raises(NoteError, match="no key of that name"):
        open_witnessed(note, known, ())
    leaves = [leaf_hash(line) for line in forged]

    path = (leaves[3], node_hash(leaves[0], leaves[1]))
    proof = Proof(2, forged[2], path, note)
    with pytest.raises(ProofError, match="no key of that name"):
        proof.check(KeyHistory(known))
    folder = tmp_path / "ledger"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "current.jsonl").write_bytes(text(forged))
    (folder / "checkpoints" / file_name(4)).write_bytes(note)
    assert not verify_file(folder, folder / "checkpoints", known, pause=lambda _: None).whole
    both = sign_checkpoint(head(made, 4), (other, signer(signed.origin)))
    assert open_checkpoint(both, known) == head(made, 4)


# --- files that are made to be read wrongly


def immure(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["ledger", *map(str, arguments)], catch_exceptions=False, standalone_mode=False)


def test_a_time_that_no_calendar_has_is_no_cosignature(tmp_path: Path) -> None:
    made = lines(4)
    signed = head(made, 4)
    folder = tmp_path / "ledger"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "witnessed").mkdir()
    (folder / "current.jsonl").write_bytes(text(made))
    note = signer(signed.origin).sign(signed)
    (folder / "checkpoints" / file_name(4)).write_bytes(note)
    vkey = tmp_path / "vkey"
    vkey.write_text(signer(signed.origin).verifier.encode())
    asked = ("verify", "--file", folder, "--vkey", vkey, "--witness", WITNESS.verifier.encode())
    for time_s, status in ((253_402_300_799, 0), (253_402_300_800, 1), (2**63 - 1, 1)):
        private = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
        signature = private.sign(f"cosignature/v1\ntime {time_s}\n".encode() + signed.text())
        line = _line(WITNESS, time_s.to_bytes(8, "big") + signature)
        (folder / "witnessed" / file_name(4)).write_bytes(note + line)
        told = immure(*asked)
        assert (told.return_value, "9999-12-31" in told.stdout) == (status, status == 0)


def _line(witness: Cosigner, signature: bytes) -> bytes:
    from immured.ledger.note_keys import signature_line

    return signature_line(witness.verifier, signature)


@pytest.mark.parametrize(
    "beside",
    [b"[" * 200_000, b'{"proof":' + b"[" * 200_000, b'{"proof":"\\ud800"}\n', b'{"proof":1}\n', b"\xff\n", b""],
    ids=["nested", "nested within", "half a character", "a number", "no text", "nothing"],
)
def test_a_file_of_proofs_that_holds_none(tmp_path: Path, beside: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(text(lines(1)))
    proofs_beside(path).write_bytes(beside)
    with pytest.raises(ProofError, match="line 1: there is no proof beside it"):
        check_lines(path, KeyHistory(()), (), 0)


def test_a_line_without_end_is_read_no_further_than_a_line_may_be(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: the disk has none of it
    proofs_beside(path).write_bytes(json.dumps({"seq": 0, "proof": "none"}).encode() + b"\n")
    with pytest.raises(ProofError, match="line 1"):
        check_lines(path, KeyHistory(()), (), 0)


@pytest.mark.parametrize("note", [b"", b"\xff" * 80], ids=["empty", "no text"])
def test_a_copy_whose_newest_head_is_none_is_not_exported(tmp_path: Path, note: bytes) -> None:
    made = lines(3)
    (tmp_path / "copy" / "checkpoints").mkdir(parents=True)
    (tmp_path / "copy" / "current.jsonl").write_bytes(text(made))
    (tmp_path / "copy" / "checkpoints" / file_name(3)).write_bytes(note)
    with pytest.raises(ExportError, match="its newest checkpoint: ") as refused:
        immure("export", "--copy", tmp_path / "copy", "--jsonl", tmp_path / "lines")
    assert refused.value.code == "export_source"
    assert not (tmp_path / "lines").exists()


def test_a_refused_command_is_not_the_tenants_that_its_sender_named() -> None:
    """Anybody who has a key can name a tenant that is none of his, and is refused: nothing of that is shown to it."""
    told = {"cmd": "run", "code": "denied", "message": "the key may not act in the tenant 'red'"}
    line = build_line(1, timestamp(START_NS), encode_body("command.denied", {**ACTOR, "tenant": "red"}, told), "0" * 64)
    assert Belonging().of(parse_line(line)) == HOST


# --- a key that was replaced, and leaked


def test_a_key_that_was_replaced_signs_no_newest_head(tmp_path: Path) -> None:
    """Whoever has it leaves the entry out that says so, or puts it where no head covers it."""
    made = lines(6)
    origin = head(made, 6).origin
    old, new = signer(origin), Signer(Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32), origin)
    body = encode_body("ledger.key_rotated", ACTOR, KeyRotation.made(old, new.verifier).to_map())
    said = build_line(6, timestamp(START_NS + 10**9), body, leaf_hash(made[-1]).hex())
    folder = tmp_path / "ledger"
    (folder / "checkpoints").mkdir(parents=True)

    def bad(*known: Signer) -> list[str]:
        vkeys = [one.verifier for one in known]
        report = verify_file(folder, folder / "checkpoints", vkeys, pause=lambda _: None)
        assert report.problem is None
        return [one.file for one in report.bad_checkpoints]

    for size in (2, 6):
        (folder / "checkpoints" / file_name(size)).write_bytes(old.sign(head(made, size)))
    for content in (made, [*made, said]):
        (folder / "current.jsonl").write_bytes(text(content))
        assert bad(old) == []
        assert bad(old, new) == [file_name(6)]
    (folder / "checkpoints" / file_name(7)).write_bytes(sign_checkpoint(head([*made, said], 7), (old, new)))
    assert bad(old, new) == bad(old) == []
