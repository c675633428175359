"""Every manifest of the corpus has exactly its verdict: what it means, or the whole of what its author is told."""

from __future__ import annotations

import hashlib
import json
import resource
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from immured.errors import Refused
from immured.manifest.builtin import parse_map, parse_toml
from immured.manifest.faults import faults_of
from immured.manifest.lint import lint
from immured.manifest.parameters import fill
from immured.wire.strict_msgpack import pack
from tests.manifests.corpus import HERE, INVALID, VALID, Case, meaning
from tests.manifests.made import MADE, MADE_VALID

SCHEMA = json.loads((HERE.parents[1] / "profiles" / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
FILLED: dict[str, dict[str, Any]] = tomllib.loads((HERE / "filled.toml").read_text(encoding="utf-8"))
SECONDS = 2.0
CASES = pytest.mark.parametrize("case", INVALID, ids=lambda case: case.name)
FILES = pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)


def refusal(raw: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_toml(raw)
    return caught.value


def test_the_corpus_is_whole() -> None:
    assert len(VALID) >= 20
    assert len(INVALID) >= 120
    assert {path.stem for path in (HERE / "invalid").glob("*.expected")} == {case.name for case in INVALID}
    assert {path.stem for path in (HERE / "valid").glob("*.json")} == {path.stem for path in VALID}


@CASES
def test_what_is_no_manifest_is_refused_in_these_words(case: Case) -> None:
    refused = refusal(case.raw)
    assert (refused.code, refused.message, refused.remedy) == case.whole


@CASES
def test_what_is_said_of_it_can_be_shown_to_anybody(case: Case) -> None:
    """One line, bounded, of what is seen: nothing of a stranger's text moves a terminal's cursor."""
    refused = refusal(case.raw)
    for text in (refused.message, refused.remedy):
        assert text.isprintable()
        assert len(text) <= 800
    assert len(pack(refused.details)) <= 4096


@pytest.mark.parametrize("name", MADE)
def test_what_is_large_costs_little(name: str) -> None:
    began = time.process_time()
    refusal(MADE[name])
    assert time.process_time() - began < SECONDS
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refusal(MADE[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("case", [case for case in INVALID if case.inline is not None], ids=lambda case: case.name)
def test_the_same_map_is_refused_in_the_same_words(case: Case) -> None:
    with pytest.raises(Refused) as caught:
        parse_map(case.inline)
    assert (caught.value.code, caught.value.message, caught.value.remedy) == case.whole


@CASES
def test_a_person_who_asks_is_told_the_same_with_its_line(case: Case) -> None:
    found = [one for one in faults_of(case.raw) if (one.message, one.remedy) == case.whole[1:]]
    assert len(found) == 1
    assert 0 <= found[0].line <= case.raw.count(b"\n") + 1
    assert any(one.message == case.message for one in lint(case.raw))


@pytest.mark.parametrize("case", [case for case in INVALID if case.schema is not None], ids=lambda case: case.name)
def test_an_editor_marks_what_the_schema_can_tell(case: Case) -> None:
    assert bool(list(VALIDATOR.iter_errors(case.values))) is case.schema


def test_most_of_what_is_wrong_is_marked_while_it_is_written() -> None:
    told = [case.schema for case in INVALID if case.schema is not None]
    assert sum(told) >= 0.7 * len(told)


@FILES
def test_what_is_a_manifest_means_this(path: Path) -> None:
    raw, wanted = path.read_bytes(), json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    found = parse_toml(raw)
    assert found.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    filled = fill(found, wanted["given"])
    assert meaning(filled) == wanted["meaning"]
    assert filled.digest == found.digest


@FILES
def test_the_same_map_means_the_same(path: Path) -> None:
    wanted = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    values = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)
    assert meaning(fill(parse_map(values), wanted["given"])) == wanted["meaning"]


@FILES
def test_nothing_is_wrong_with_it(path: Path) -> None:
    assert faults_of(path.read_bytes()) == []
    assert list(VALIDATOR.iter_errors(tomllib.loads(path.read_text(encoding="utf-8")))) == []


@pytest.mark.parametrize("name", MADE_VALID)
def test_what_just_fits_is_taken(name: str) -> None:
    assert parse_toml(MADE_VALID[name]).name == "made"
    assert faults_of(MADE_VALID[name]) == []


@pytest.mark.parametrize("name", FILLED)
def test_what_leaves_its_bounds_is_refused_in_these_words(name: str) -> None:
    case = FILLED[name]
    manifest = parse_toml((HERE / "valid" / f"{case['manifest']}.toml").read_bytes())
    with pytest.raises(Refused) as caught:
        fill(manifest, case["given"])
    assert (caught.value.code, caught.value.message, caught.value.remedy) == (
        "bad_argument", case["message"], case["remedy"],
    )  # fmt: skip
