"""What the vectors of proofs say, the package does, and so do a checker that shares no line with it, and Go's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from immured.ledger.checkpoint import NoteError, open_witnessed, parse_vkeys, parse_witness_keys
from immured.ledger.entry import leaf_hash, parse_line
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.merkle import consistency_path, inclusion_path, is_consistent, is_included
from immured.ledger.proof import Consistency, Proof, ProofError
from immured.ledger.proving import Prover
from immured.ledger.verify import verify_file
from tests.ledger.go.checker import go
from tests.patience import PATIENCE_S
from tests.vectors import make_proof_vectors
from tests.vectors.make_ledger_vectors import HERE

INDEPENDENT = Path(__file__).resolve().parents[1] / "independent" / "check_proof.py"
VERIFIER = INDEPENDENT.with_name("verify_ledger.py")


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / name).read_text())
    return loaded


def cases(name: str, member: str = "cases") -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in load(name)[member]]


PROOFS = [*cases("proofs.json"), *cases("keys.json", "proofs")]


def history(case: dict[str, Any]) -> KeyHistory:
    known = KeyHistory(parse_vkeys("\n".join(case["keys"])))
    known.read("\n".join(case.get("rotations", [])).encode())
    return known


def theirs(*arguments: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", str(INDEPENDENT), *map(str, arguments)],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


def trusting(case: dict[str, Any]) -> list[str]:
    found = [word for key in case["keys"] for word in ("--key", key)]
    found += [word for line in case.get("rotations", []) for word in ("--rotation", line)]
    found += [word for key in case.get("witnesses", []) for word in ("--witness", key)]
    return [*found, "--require", str(case.get("require", 0))]


@pytest.mark.parametrize("name", sorted(make_proof_vectors.FILES))
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert (HERE / name).read_bytes() == make_proof_vectors.FILES[name]()


def test_paths() -> None:
    said, tree = load("paths.json"), load("tree.json")
    leaves, roots = ([bytes.fromhex(one) for one in tree[name]] for name in ("leaves", "roots"))
    for size, rows in enumerate(said["inclusion"], 1):
        for index, row in enumerate(rows):
            assert is_included(leaves[index], index, size, [bytes.fromhex(one) for one in row], roots[size])
    for new, rows in enumerate(said["consistency"], 1):
        for old, row in enumerate(rows, 1):
            assert is_consistent(old, roots[old], new, roots[new], [bytes.fromhex(one) for one in row])


# --- proofs


@pytest.mark.parametrize("case", PROOFS)
def test_a_proof_shows_what_is_said(case: dict[str, Any]) -> None:
    try:
        proof = Proof.parse(case["file"].encode())
        shows: int | None = proof.check(
            history(case), parse_witness_keys("\n".join(case["witnesses"])), case["require"]
        ).entry.seq
    except ProofError:
        shows = None
    assert shows == case["shows"]


@pytest.mark.parametrize("case", PROOFS)
def test_the_independent_checker_agrees(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "proof"
    file.write_bytes(case["file"].encode())
    status, said = theirs(file, *trusting(case))
    if case["shows"] is None:
        assert (status, said[:4]) == (1, "bad:")
    else:
        assert (status, json.loads(said)["seq"]) == (0, case["shows"])


@pytest.mark.parametrize("case", cases("consistency.json"))
def test_consistency(case: dict[str, Any]) -> None:
    def check() -> bool:
        try:
            Consistency.parse(case["file"].encode()).check(case["older"].encode(), history(case))
        except ProofError:
            return False
        return True

    assert check() == case["good"]


@pytest.mark.parametrize("case", cases("consistency.json"))
def test_the_independent_checker_agrees_about_consistency(case: dict[str, Any], tmp_path: Path) -> None:
    file, older = tmp_path / "proof", tmp_path / "older"
    file.write_bytes(case["file"].encode())
    older.write_bytes(case["older"].encode())
    assert (theirs(file, "--older", older, *trusting(case))[0] == 0) == case["good"]


def test_the_independent_checker_imports_nothing_of_the_package() -> None:
    lines = [line for line in INDEPENDENT.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].split(".")[0] for line in lines} <= {*sys.stdlib_module_names, "cryptography"}


# --- cosignatures, keys, segments


@pytest.mark.parametrize("case", cases("cosignatures.json"))
def test_cosignatures(case: dict[str, Any]) -> None:
    keys = parse_vkeys(load("cosignatures.json")["key"])
    witnesses = parse_witness_keys("\n".join(case["witnesses"]))
    try:
        found = open_witnessed(case["note"].encode(), keys, witnesses).cosignatures
        count: int | None = len({one.key.public for one in found})
        times = [one.time_s for one in found]
    except NoteError:
        count, times = None, []
    assert (count, times) == (case["count"], case["times"])


@pytest.mark.parametrize("row", load("keys.json")["checkpoints"], ids=lambda row: f"{row['size']} {row['good']}")
def test_keys(row: dict[str, Any]) -> None:
    said = load("keys.json")
    known = KeyHistory(parse_vkeys(said["keys"][0]))
    for line in said["lines"]:
        known.take(parse_line(line.encode()))
    assert [key.encode() for key in known.known] == said["keys"]
    try:
        good = known.open(row["note"].encode()).size == row["size"]
    except NoteError:
        good = False
    assert good == row["good"]


def changed_keys(folder: Path, *, good: bool) -> list[object]:
    """The ledger whose key was changed twice, as files, and the words that verify it by its first key."""
    said = load("keys.json")
    (folder / "checkpoints").mkdir()
    (folder / "current.jsonl").write_bytes(b"".join(line.encode() + b"\n" for line in said["lines"]))
    (folder / "first.vkey").write_text(said["keys"][0] + "\n")
    for row in said["checkpoints"]:
        if row["good"] or not good:
            (folder / "checkpoints" / f"{row['size']:020d}").write_bytes(row["note"].encode())
    return [folder / "current.jsonl", "--checkpoints", folder / "checkpoints", "--vkey", folder / "first.vkey"]


def test_by_the_first_key_all_is_verified(tmp_path: Path) -> None:
    words = changed_keys(tmp_path, good=True)
    said = load("keys.json")
    report = verify_file(tmp_path / "current.jsonl", tmp_path / "checkpoints", parse_vkeys(said["keys"][0]))
    assert (report.whole, report.covered) == (True, len(said["lines"]))
    done = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), *map(str, words)], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout.decode().split(",")[0]) == (0, f"whole: {len(said['lines'])} entries")


def test_a_key_out_of_its_place_is_found_by_verifiers(tmp_path: Path) -> None:
    words = changed_keys(tmp_path, good=False)
    said = load("keys.json")
    report = verify_file(tmp_path / "current.jsonl", tmp_path / "checkpoints", parse_vkeys(said["keys"][0]))
    bad = {row["size"] for row in said["checkpoints"] if not row["good"]}
    assert {int(one.file) for one in report.bad_checkpoints} == bad
    done = subprocess.run(
        [sys.executable, "-I", str(VERIFIER), *map(str, words)], capture_output=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 1
    assert {
        int(line.split()[1][:-1]) for line in done.stdout.decode().splitlines() if line.startswith("checkpoint")
    } == bad


@pytest.fixture
def segments(tmp_path: Path) -> Path:
    said = load("segments.json")
    (tmp_path / "checkpoints").mkdir()
    for name, text in said["files"].items():
        (tmp_path / name).write_bytes(text.encode())
    for size, note in said["checkpoints"].items():
        (tmp_path / "checkpoints" / f"{int(size):020d}").write_bytes(note.encode())
    return tmp_path


def test_segments(segments: Path) -> None:
    said = load("segments.json")
    keys = parse_vkeys(said["key"])
    report = verify_file(segments, segments / "checkpoints", keys)
    assert (report.whole, report.entries, report.root) == (True, len(said["roots"]), said["roots"][-1])
    with Prover.open(segments) as prover:
        assert prover.prove(len(said["roots"]) - 1).encode() == said["proof"].encode()
    lines = b"".join(text.encode() for _, text in sorted(said["files"].items())).splitlines()
    assert Proof.parse(said["proof"].encode()).check(KeyHistory(keys)).entry.line == lines[-1]


def test_what_is_kept_of_segments(segments: Path) -> None:
    said = load("segments.json")
    (segments / min(said["files"])).unlink()
    with Prover.open(segments) as prover:
        assert prover.prove(len(said["roots"]) - 1).encode() == said["proof"].encode()


# --- Go's x/mod


def test_go_opens_our_checkpoints_and_passes_cosignatures_over() -> None:
    said = load("cosignatures.json")
    for case in said["cases"]:
        done = go("open", said["key"], note=case["note"])
        if case["name"] == "without the ledger's own signature":
            assert done.returncode == 1
        else:
            assert done.stdout.decode() == case["note"].partition("\n\n")[0] + "\n"


def test_go_reads_cosignatures_and_their_times() -> None:
    said = load("cosignatures.json")
    (three,) = [case for case in said["cases"] if case["name"] == "three"]
    for key, time_s in zip(three["witnesses"], three["times"], strict=True):
        done = go("cosigned", key, note=three["note"])
        assert (done.returncode, done.stderr.decode().split()[-2:]) == (0, ["time", str(time_s)])
    (bad,) = [case for case in said["cases"] if case["name"] == "of another text"]
    assert go("cosigned", three["witnesses"][0], note=bad["note"]).returncode == 1


def test_we_open_a_note_that_go_signed(tmp_path: Path) -> None:
    text = "immured/0123\n42\n" + base64.b64encode(bytes(32)).decode() + "\n"
    done = go("sign", base64.b64encode(bytes(range(32))).decode(), "immured/0123", stdin=text.encode())
    vkey, _, note = done.stdout.decode().partition("\n\n")
    head = open_witnessed(note.encode(), parse_vkeys(vkey), ()).checkpoint
    assert (head.origin, head.size, head.root) == ("immured/0123", 42, bytes(32))


def test_go_makes_the_same_tree_and_the_same_proofs(tmp_path: Path) -> None:
    said = load("segments.json")
    lines = b"".join(text.encode() for _, text in sorted(said["files"].items()))
    file = tmp_path / "lines"
    file.write_bytes(lines)
    made = json.loads(go("tree", file).stdout)
    rows = lines.splitlines()
    assert made["leaves"] == [_b64(leaf_hash(row)) for row in rows]
    assert made["roots"] == [_b64(bytes.fromhex(root)) for root in said["roots"]]
    tree = make_proof_vectors.Tree(rows)
    for size in range(1, len(rows) + 1):
        for n in range(size):
            ours = inclusion_path(tree.node, n, size)
            assert made["inclusion"][f"{n}/{size}"] == [_b64(one) for one in ours]
            between = consistency_path(tree.node, n + 1, size)
            assert made["consistency"][f"{n + 1}/{size}"] == [_b64(one) for one in between]


OURS = {"an index with a zero before it", "a line that is no entry", "a first entry that gives another origin"}
"""What immured demands, and x/mod has no word for; nor has it for witnesses and keys that took another's place."""
FOR_GO = [
    one for one in PROOFS if one.id not in OURS and not one.values[0]["witnesses"] and not one.values[0]["rotations"]
]


@pytest.mark.parametrize("case", FOR_GO)
def test_go_checks_our_proofs(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "proof"
    file.write_bytes(case["file"].encode())
    done = go("proof", case["keys"][0], file)
    if case["shows"] is None:
        assert done.returncode == 1
    else:
        assert (done.returncode, json.loads(done.stdout)["seq"]) == (0, case["shows"])


@pytest.mark.parametrize("case", cases("consistency.json"))
def test_go_checks_consistency(case: dict[str, Any], tmp_path: Path) -> None:
    file, older = tmp_path / "proof", tmp_path / "older"
    file.write_bytes(case["file"].encode())
    older.write_bytes(case["older"].encode())
    assert (go("consistency", case["keys"][0], older, file).returncode == 0) == case["good"]


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
