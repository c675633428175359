"""What ran can be made again from the ledger: under manifests that came inline, loaded and built-in ones, filled in."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.isolation.compile import RunSpec, compile_plan
from immured.ledger.entry import MAX_TEXT, encode_body, encode_value
from immured.ledger.posix_log import PosixLog
from immured.manifest.builtin import class_manifest, parse_map, parse_toml
from immured.manifest.parameters import fill
from immured.manifest.read import inline_digest
from immured.manifest.schema import Manifest
from immured.service import manifest_inline
from immured.service.manifest_inline import entries_of
from immured.wire.strict_msgpack import pack, unpack
from tests.service.harness import Harness, serving
from tests.service.manifest_scenes import files_of, loaded, manifest, started_anew
from tests.service.orders import code_of, done

TRUE: Final = {"argv": ["/bin/true"]}
SMALL: Final = {"schema": 1, "limits": {"pids": 7}}
PARAMETERS: Final = '[parameters.pids]\ntype = "integer"\nleast = 1\nmost = 64\n[limits]\npids = "${pids}"\n'


def values_of(entries: list[Any]) -> Any:
    """The map, as docs/ledger.md says: from the first entry's data on."""
    first = entries[0]
    if "manifest" in first:
        return first["manifest"]
    parts = entries[: first["parts"]]
    assert [one["part"] for one in parts] == list(range(first["parts"]))
    return unpack(b"".join(base64.b64decode(piece, validate=True) for one in parts for piece in one["packed"]))


def written(values: object) -> list[Any]:
    """`data` of its entries as the ledger has them, each of which holds all that it was given."""
    found = []
    for data in entries_of(inline_digest(values), values):
        encoded: Any = encode_value(data)
        assert len(encode_body("manifest.inline", {"daemon": "ed25519:" + "0" * 32}, data).members) < 65_000
        assert "sha256" not in encoded["manifest" if "manifest" in data else "packed"]
        found.append(encoded)
    return found


SHAPES: Final[dict[str, dict[str, object]]] = {
    "small": SMALL,
    "bytes": {"schema": 1, "filesystem": {"read": [b"/srv/\xff"]}},
    "bytes that are text": {"schema": 1, "filesystem": {"read": [b"/srv/x"]}},
    "a long path": {"schema": 1, "filesystem": {"read": ["/srv/" + "/".join(["x" * 200] * 15)]}},
    "a text of just so many bytes": {"schema": 1, "command": {"env": {"A": "x" * MAX_TEXT}}},
    "a text of one more": {"schema": 1, "command": {"env": {"A": "x" * (MAX_TEXT + 1)}}},
    "a text of wide characters": {"schema": 1, "command": {"env": {"A": "\u00fc" * 600}}},
    "what nobody sees": {"schema": 1, "command": {"env": {"A": "\u202e\u200b"}}},
    "many paths": {"schema": 1, "filesystem": {"read": [f"/srv/{at:04}" for at in range(250)]}},
    "much": {
        "schema": 1,
        "filesystem": {"read": ["/srv/" + "/".join([f"{at:03}{'x' * 200}"] * 18) for at in range(250)]},
    },
    "an integer": {"schema": 1, "limits": {"memory": 2**50}},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_an_entry_has_all_of_it(shape: str) -> None:
    values = SHAPES[shape]
    found = values_of(written(values))
    assert inline_digest(found) == inline_digest(values)
    assert parse_map(found) == parse_map(values)


LEAVES: Final = st.one_of(st.text(max_size=2000), st.binary(max_size=2000), st.integers(-(2**63), 2**63), st.booleans())
TREES: Final = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=40), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(["schema", "name", "command", "limits", "filesystem"]), TREES))
def test_whatever_the_wire_brings_enters_whole(values: dict[str, object]) -> None:
    try:
        packed = pack(values)
    except Refused:
        return
    assert inline_digest(values_of(written(unpack(packed)))) == inline_digest(values)


# -- in the ledger


def test_it_enters_once_and_before_the_first_intent_that_names_it(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        args = {**TRUE, "manifest": SMALL}
        await done(client, "plan", args)
        assert harness.of_type("manifest.inline") == []
        for _ in range(2):
            await done(client, "run", args)
        await done(client, "run.batch", {"manifest": SMALL, "runs": [TRUE, TRUE]})
        [made] = (await done(client, "sandbox.create", {"manifest": SMALL}))["sandboxes"]
        await done(client, "sandbox.exec", {"sandbox": made["sandbox"], **TRUE})
        [entry] = harness.of_type("manifest.inline")
        assert entry["data"] == {"digest": inline_digest(SMALL), "manifest": SMALL}
        assert entry["actor"] == {"daemon": harness.state.key.id}
        kinds = ("run.accepted", "batch.accepted", "sandbox.created", "exec.accepted")
        intents = [one for kind in kinds for one in harness.of_type(kind)]
        assert {one["data"]["manifest_entry"] for one in intents} == {entry["seq"]}
        assert min(one["seq"] for one in intents) == entry["seq"] + 1

    serving(tmp_path, scenario)


def test_a_new_one_costs_no_sync_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the two who write a ledger the one whose syncs can be counted from here.
    monkeypatch.setattr(PosixLog, "direct", lambda _: None)

    async def scenario(harness: Harness) -> None:
        client, syncs, real = harness.connect(), [], os.fdatasync

        def counted(fd: int) -> None:
            syncs.append(fd)
            real(fd)

        monkeypatch.setattr(os, "fdatasync", counted)

        async def cost(manifest: object) -> int:
            before = len(syncs)
            await done(client, "run", {**TRUE, "manifest": manifest})
            return len(syncs) - before

        await cost(SMALL)
        seen, new = await cost(SMALL), await cost({**SMALL, "name": "another"})
        assert 0 < new <= seen

    serving(tmp_path, scenario)


def test_a_large_one_takes_several_entries_in_a_row(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        await done(client, "sandbox.create", {"manifest": SHAPES["much"]})
        entries = harness.of_type("manifest.inline")
        assert len(entries) > 10
        assert [one["seq"] for one in entries] == list(range(entries[0]["seq"], entries[0]["seq"] + len(entries)))
        [created] = harness.of_type("sandbox.created")
        assert created["data"]["manifest_entry"] == entries[0]["seq"]
        assert values_of([one["data"] for one in entries]) == SHAPES["much"]

    serving(tmp_path, scenario)


def test_what_is_refused_enters_nothing(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        only = {"schema": 1, "command": {"allow": ["/bin/echo"]}}
        assert code_of(await client.ask("run", {**TRUE, "manifest": only})) == "denied"
        assert code_of(await client.ask("run", {**TRUE, "manifest": {"schema": 2}})) == "manifest_invalid"
        await done(client, "run", TRUE)
        assert harness.of_type("manifest.inline") == []

    serving(tmp_path, scenario)


def test_each_start_enters_it_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        await done(harness.connect(), "run", {**TRUE, "manifest": SMALL})

    serving(tmp_path, scenario)
    started_anew(tmp_path, scenario)

    async def after(harness: Harness) -> None:
        first, second = harness.of_type("manifest.inline")
        runs = harness.of_type("run.accepted")
        assert [one["data"]["manifest_entry"] for one in runs] == [first["seq"], second["seq"]]

    started_anew(tmp_path, after)


def test_when_many_are_remembered_all_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest_inline, "_MOST", 2)

    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        for name in ("a", "b", "c", "a"):
            await done(client, "run", {**TRUE, "manifest": {"schema": 1, "name": name}})
        entries, runs = harness.of_type("manifest.inline"), harness.of_type("run.accepted")
        names = {one["seq"]: one["data"]["manifest"]["name"] for one in entries}
        assert [names[one["data"]["manifest_entry"]] for one in runs] == ["a", "b", "c", "a"]
        assert len(entries) == 4

    serving(tmp_path, scenario)


# -- made again


def from_the_ledger(harness: Harness, intent: Any) -> Manifest:
    """The manifest of an intent, by what the ledger says and the files that it names."""
    data, entries = intent["data"], harness.entries()
    if "manifest_entry" not in data:
        names = {digest: name for name, digest in harness.state.classes.items()}
        found = class_manifest(names[data["manifest"]])
        assert found is not None
    elif entries[data["manifest_entry"]]["type"] == "manifest.inline":
        rest = [one["data"] for one in entries[data["manifest_entry"] :] if one["type"] == "manifest.inline"]
        found = parse_map(values_of(rest))
    else:
        entry = entries[data["manifest_entry"]]["data"]
        raw = files_of(harness, entry["digest"])["toml"].read_bytes()
        assert hashlib.sha256(raw).hexdigest() == entry["digest"][7:]
        found = parse_toml(raw)
    assert found.digest == data["manifest"]
    return fill(found, data.get("parameters"))


@pytest.mark.parametrize(
    "how", ["built in", "inline", "inline bytes", "loaded", "loaded, filled in", "inline, filled in"]
)
def test_the_plan_of_what_ran_can_be_made_again(tmp_path: Path, how: str) -> None:
    async def scenario(harness: Harness) -> None:
        client = harness.connect()
        filled = {"schema": 1, "parameters": {"pids": {"type": "integer", "least": 1, "most": 64}}}
        named: dict[str, object] = {
            "built in": {},
            "inline": {"manifest": SMALL},
            "inline bytes": {"manifest": {"schema": 1, "command": {"env": {"A": b"\xff"}}}},
            "inline, filled in": {
                "manifest": {**filled, "limits": {"pids": "${pids}"}}, "parameters": {"pids": 33}
            },
        }  # fmt: skip
        if how.startswith("loaded"):
            digest = await loaded(client, manifest(PARAMETERS if "filled" in how else '[limits]\nmemory = "64M"\n'))
            named[how] = {"manifest": digest, **({"parameters": {"pids": 33}} if "filled" in how else {})}
        await done(client, "run", {**TRUE, **named[how]})  # type: ignore[dict-item]
        [intent] = harness.of_type("run.accepted")
        data = intent["data"]
        again = from_the_ledger(harness, intent)
        spec = RunSpec(sandbox=data["sandbox"], argv=tuple(word.encode() for word in data["argv"]))
        record = harness.service.authority.find(client.key.id)
        assert record is not None
        compiled = compile_plan(again, spec, harness.launcher.facts, profiles=harness.state.config.profiles)
        assert compiled.plan.digest == data["plan"]
        assert (again.limits.pids == 33) == ("filled" in how)

    serving(tmp_path, scenario)
