"""What the published vectors say, the package does, and so does a verifier that shares no line with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from immured.ledger import Ledger, create
from immured.ledger.checkpoint import parse_vkeys
from immured.ledger.entry import LineError, encode_value, parse_line
from immured.ledger.tree import Frontier
from immured.ledger.verify import Report, verify_file
from tests.ledger.sample import ACTOR, DAEMON
from tests.patience import PATIENCE_S
from tests.vectors import make_ledger_vectors

HERE = make_ledger_vectors.HERE
INDEPENDENT = Path(__file__).resolve().parents[1] / "independent" / "verify_ledger.py"


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((HERE / name).read_text())
    return loaded


def cases(name: str, member: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in load(name)[member]]


def line_of(case: dict[str, Any]) -> bytes:
    return b"".join(bytes.fromhex(piece) * times for piece, times in case["pieces"])


@pytest.mark.parametrize("name", sorted(make_ledger_vectors.FILES))
def test_the_files_are_what_the_generator_writes(name: str) -> None:
    assert (HERE / name).read_bytes() == make_ledger_vectors.contents()[name]


@pytest.mark.parametrize("case", cases("values.json", "cases"))
def test_values_enter_as_published(case: dict[str, Any]) -> None:
    given: object
    if "text" in case:
        given = case["text"]
    elif "hex" in case:
        given = bytes.fromhex(case["hex"])
    elif "digits" in case:
        given = int(case["digits"])
    else:
        given = Pairs([(bytes.fromhex(key), value) for key, value in case["pairs"]])
    assert encode_value(given) == case["enters"]


class Pairs(dict[Any, Any]):
    """A map whose keys may be alike."""

    def __init__(self, pairs: list[tuple[bytes, object]]) -> None:
        super().__init__(enumerate(pairs))
        self.pairs = pairs

    def items(self) -> Any:
        return self.pairs


@pytest.mark.parametrize("case", cases("lines.json", "good"))
def test_good_lines_are_taken(case: dict[str, Any]) -> None:
    assert parse_line(line_of(case)).leaf.hex() == case["leaf"]


@pytest.mark.parametrize("case", cases("lines.json", "bad"))
def test_bad_lines_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(LineError):
        parse_line(line_of(case))


def test_roots_are_as_published() -> None:
    tree = load("tree.json")
    leaves = [bytes.fromhex(leaf) for leaf in tree["leaves"]]
    assert [Frontier(leaves[:size]).root().hex() for size in range(len(leaves) + 1)] == tree["roots"]


# --- whole and damaged ledgers, by both verifiers ---


def ours(path: Path, *, signed: bool) -> Report:
    if not signed:
        return verify_file(path, pause=lambda _: None)
    keys = parse_vkeys((HERE / "ledger.vkey").read_text())
    return verify_file(path, HERE / "checkpoints", keys, pause=lambda _: None)


def theirs(*arguments: Path | str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", str(INDEPENDENT), *map(str, arguments)],
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert not done.stderr, done.stderr.decode()
    return done.returncode, done.stdout.decode()


def damaged(case: dict[str, Any], folder: Path) -> Path:
    content = (HERE / "current.jsonl").read_bytes()
    for splice in case["splices"]:
        at, remove = splice["at"], splice["remove"]
        content = content[:at] + bytes.fromhex(splice["insert"]) + content[at + remove :]
    path = folder / "current.jsonl"
    path.write_bytes(content)
    return path


def test_the_ledger_is_whole() -> None:
    report = ours(HERE / "current.jsonl", signed=True)
    assert report.whole
    assert (report.entries, report.covered, report.checkpoints) == (7, 7, 3)


@pytest.mark.parametrize("case", cases("damage.json", "cases"))
def test_damage_is_named(case: dict[str, Any], tmp_path: Path) -> None:
    problem = ours(damaged(case, tmp_path), signed=True).problem
    assert problem is not None
    assert problem.line == case["line"]


@pytest.mark.parametrize("case", cases("damage.json", "cases"))
def test_damage_is_named_without_keys_where_it_can_be(case: dict[str, Any], tmp_path: Path) -> None:
    problem = ours(damaged(case, tmp_path), signed=False).problem
    assert (None if problem is None else problem.line) == case["line_without_checkpoints"]


def test_the_independent_verifier_finds_the_ledger_whole() -> None:
    status, said = theirs(HERE / "current.jsonl", "--checkpoints", HERE / "checkpoints", "--vkey", HERE / "ledger.vkey")
    assert (status, said.split(",")[0]) == (0, "whole: 7 entries")


@pytest.mark.parametrize("case", cases("damage.json", "cases"))
def test_the_independent_verifier_names_the_damage(case: dict[str, Any], tmp_path: Path) -> None:
    path = damaged(case, tmp_path)
    status, said = theirs(path, "--checkpoints", HERE / "checkpoints", "--vkey", HERE / "ledger.vkey")
    assert (status, said.split(":")[0]) == (1, f"line {case['line']}")


@pytest.mark.parametrize("case", cases("damage.json", "cases"))
def test_the_independent_verifier_agrees_without_keys(case: dict[str, Any], tmp_path: Path) -> None:
    status, said = theirs(damaged(case, tmp_path))
    line = case["line_without_checkpoints"]
    assert (status, said.split(":")[0]) == ((0, "whole") if line is None else (1, f"line {line}"))


@pytest.fixture(scope="module")
def independent() -> dict[str, Any]:
    """The independent verifier's functions."""
    names: dict[str, Any] = {"__name__": "verify_ledger"}
    exec(compile(INDEPENDENT.read_text(), str(INDEPENDENT), "exec"), names)
    return names


@pytest.mark.parametrize("case", cases("lines.json", "good"))
def test_the_independent_verifier_takes_good_lines(case: dict[str, Any], independent: dict[str, Any]) -> None:
    line = line_of(case)
    independent["parse"](line)
    assert independent["leaf"](line).hex() == case["leaf"]


@pytest.mark.parametrize("case", cases("lines.json", "bad"))
def test_the_independent_verifier_refuses_bad_lines(case: dict[str, Any], independent: dict[str, Any]) -> None:
    with pytest.raises(independent["Bad"]):
        independent["parse"](line_of(case))


def test_the_independent_verifier_finds_a_live_ledger_whole(tmp_path: Path) -> None:
    state, copy = tmp_path / "state", tmp_path / "copy"
    create(state, DAEMON)
    with Ledger.open(state) as ledger:  # (its next checkpoint is minutes away: nothing is renamed while it is copied)
        for _ in range(40):
            ledger.entry("run.accepted", ACTOR, {"argv": ["/bin/true", b"\xff"]}).wait(PATIENCE_S)
        shutil.copytree(state / "ledger", copy)
    status, said = theirs(
        copy / "current.jsonl", "--checkpoints", copy / "checkpoints", "--vkey", state / "keys" / "ledger.vkey"
    )
    assert (status, said.split(",")[0]) == (0, "whole: 41 entries")


def test_the_independent_verifier_imports_nothing_of_the_package() -> None:
    lines = [line for line in INDEPENDENT.read_text().splitlines() if line.startswith(("import ", "from "))]
    assert {line.split()[1].split(".")[0] for line in lines} <= {*sys.stdlib_module_names, "cryptography"}
