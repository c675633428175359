"""The JSON Schema that editors use says what the validator says, as far as such a schema can: whatever is a manifest,
it admits, and it knows the same names. What it refuses of the corpus, tests/manifests says."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from immured.errors import Refused
from immured.manifest.builtin import CLASSES, class_text, parse_map

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads((ROOT / "profiles" / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft7Validator(SCHEMA)
DOCUMENT = (ROOT / "docs" / "manifest.md").read_text(encoding="utf-8")
EXAMPLES = [
    tomllib.loads(block, parse_float=str)
    for block in re.findall(r"^```toml\n(schema = 1\n.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
]
MAPS = [*EXAMPLES, *(tomllib.loads(class_text(name).decode()) for name in CLASSES)]


def problems(values: object) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(values)]


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("name", CLASSES)
def test_it_admits_every_class(name: str) -> None:
    assert problems(tomllib.loads(class_text(name).decode())) == []


def test_it_knows_the_classes_and_groups() -> None:
    from immured.manifest.protect import group_names

    assert SCHEMA["properties"]["class"]["enum"] == list(CLASSES)
    groups = SCHEMA["definitions"]["filesystem"]["properties"]["protect"]["items"]["anyOf"][0]["enum"]
    assert groups == [f"@{name}" for name in group_names()]


TABLES: dict[str, dict[str, Any]] = {
    "": SCHEMA,
    "command": SCHEMA["definitions"]["command"],
    "command.allow": SCHEMA["definitions"]["allowed"],
    "filesystem": SCHEMA["definitions"]["filesystem"],
    "filesystem.read": SCHEMA["definitions"]["bind"]["anyOf"][1],
    "filesystem.write": SCHEMA["definitions"]["bind"]["anyOf"][1],
    "filesystem.capture": SCHEMA["definitions"]["bind"]["anyOf"][1],
    "filesystem.volumes": SCHEMA["definitions"]["filesystem"]["properties"]["volumes"]["items"],
    "filesystem.tmpfs": SCHEMA["definitions"]["filesystem"]["properties"]["tmpfs"]["items"]["anyOf"][1],
    "filesystem.protect": SCHEMA["definitions"]["filesystem"]["properties"]["protect"]["items"]["anyOf"][2],
    "network": SCHEMA["definitions"]["network"],
    "limits": SCHEMA["definitions"]["limits"],
    "syscalls": SCHEMA["definitions"]["syscalls"],
    "consent": SCHEMA["definitions"]["consent"],
    "secrets.a": SCHEMA["definitions"]["secret"],
}


@pytest.mark.parametrize("table", TABLES)
def test_it_has_the_validators_names(table: str) -> None:
    """An unknown name is refused with those that are known."""
    strange: Any = {"qqqqqqqq": 1}
    *outer, last = table.split(".")
    inner = [strange] if outer and outer[0] != "secrets" else strange
    values: dict[str, Any] = {last: inner} if last else strange
    for name in reversed(outer):
        values = {name: values}
    with pytest.raises(Refused) as refused:
        parse_map({"schema": 1, **values})
    assert "unknown field 'qqqqqqqq'" in refused.value.message
    assert set(refused.value.remedy.removeprefix("known are ").split(", ")) == TABLES[table]["properties"].keys()


def test_it_has_the_validators_bounds_of_parameters() -> None:
    with pytest.raises(Refused) as refused:
        parse_map({"schema": 1, "parameters": {"n": {"qqqqqqqq": 1}}})
    kinds = SCHEMA["definitions"]["parameter"]["oneOf"]
    known = set(refused.value.remedy.removeprefix("known are ").split(", "))
    assert known == {name for kind in kinds for name in kind["properties"]}


def test_every_name_is_explained_to_who_points_at_it() -> None:
    """Editors show the description of a name: the top level's, and each table's."""
    silent = [
        f"{table}.{name}"
        for table, schema in TABLES.items()
        if table.partition(".")[0] in ("", "command", "filesystem", "limits", "network") and "." not in table
        for name, one in schema["properties"].items()
        if "description" not in one and "description" not in _referred(one)
    ]
    assert silent == []


def test_the_documents_examples_are_manifests() -> None:
    assert len(EXAMPLES) >= 2
    for values in EXAMPLES:
        parse_map(values)
        assert problems(values) == []


TEXTS = "|x|*|none|/|/srv|/srv/x|${p}|${n}/x|-1|0|1|1G|60s|host|@vcs|loopback".split("|")
LISTS: st.SearchStrategy[Any] = st.sampled_from(["[]", "{}", '["/srv/y"]', '[["x"]]']).map(json.loads)
STRANGE = st.sampled_from(TEXTS) | st.integers(-2, 2**40) | st.booleans() | LISTS


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(MAPS), st.data())
def test_whatever_is_a_manifest_it_admits(values: dict[str, Any], data: st.DataObject) -> None:
    """A valid one with some values exchanged: where the validator takes it, the schema does too."""
    changed = json.loads(json.dumps(values))
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(changed))
        holder, key = data.draw(st.sampled_from(places))
        holder[key] = data.draw(STRANGE)
    try:
        parse_map(changed)
    except Refused:
        return
    assert problems({"name": "inline", **changed}) == []


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where a value stands: in which map or list, and by what."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def _referred(one: dict[str, Any]) -> dict[str, Any]:
    name = one.get("$ref", "").removeprefix("#/definitions/")
    return SCHEMA["definitions"].get(name, {})  # type: ignore[no-any-return]
