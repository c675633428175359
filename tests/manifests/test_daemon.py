"""A real daemon says of every manifest of the corpus what the corpus has: loaded as a file, sent as a map, run."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.manifest.read import MAX_TEXT
from immured.wire.keys import PrivateKey
from tests.manifests.corpus import INVALID, REFUSED, VALID, Case
from tests.manifests.signing import signed

pytestmark = pytest.mark.needs_root
HOST = frozenset(
    {"ok", "unknown_manifest", "unsupported_limit", "weaker_enforcement", "unknown_volume", "unknown_image", "denied"}
)
"""What a host may lack of what a manifest asks for; or the order, or who gives it, is none of its."""
INLINE = [case for case in INVALID if case.inline is not None]


def refused(client: Client, cmd: str, args: Mapping[str, object]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        client.call(cmd, args)
    return caught.value


def told(refusal: Refusal, digest: str | None = None) -> tuple[str, str, str]:
    said = refusal.code, refusal.message, refusal.remedy
    return (
        said if digest is None else (said[0], said[1].replace(digest, "{digest}"), said[2].replace(digest, "{digest}"))
    )


@pytest.mark.parametrize("case", [case for case in INVALID if len(case.raw) <= MAX_TEXT], ids=lambda case: case.name)
def test_what_is_no_manifest_is_not_loaded(client: Client, admin: PrivateKey, case: Case) -> None:
    refusal = refused(client, "manifest.load", {"manifest": case.raw, "signatures": signed(case.raw, admin)})
    assert told(refusal) == case.whole
    assert refusal.details["stage"] == "schema"
    stages: Any = refusal.details["stages"]
    assert [(one["stage"], one["verdict"]) for one in stages] == [("signature", "pass"), ("schema", "fail")]
    assert (stages[1]["words"], stages[1]["remedy"]) == (case.message[:800], case.remedy[:800])


@pytest.mark.parametrize("case", [case for case in INVALID if len(case.raw) > MAX_TEXT], ids=lambda case: case.name)
def test_what_is_too_large_is_not_even_looked_at(client: Client, admin: PrivateKey, case: Case) -> None:
    refusal = refused(client, "manifest.load", {"manifest": case.raw, "signatures": signed(case.raw, admin)})
    assert (refusal.code, refusal.message) == (
        "bad_argument", f"args.manifest has a length of {len(case.raw)}; it may be 0 to {MAX_TEXT}",
    )  # fmt: skip


@pytest.mark.parametrize("cmd", ["run", "plan", "sandbox.create"])
@pytest.mark.parametrize("case", INLINE, ids=lambda case: case.name)
def test_what_is_no_manifest_runs_nothing_as_a_map(client: Client, case: Case, cmd: str) -> None:
    argv = {} if cmd == "sandbox.create" else {"argv": ["/bin/true"]}
    assert told(refused(client, cmd, {**argv, "manifest": case.inline})) == case.whole


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_what_is_a_manifest_is_loaded_and_planned(client: Client, admin: PrivateKey, path: Path) -> None:
    raw = path.read_bytes()
    text = signed(raw, admin)
    loaded = client.manifests.load(raw, text)
    assert loaded.passes
    assert [one.stage for one in loaded.stages] == ["signature", "schema", "capabilities"]
    shown = client.manifests.show(loaded.digest)
    assert (shown.manifest, shown.signatures, shown.standing) == (raw, text, "in_force")
    values = tomllib.loads(raw.decode(), parse_float=str)
    given = json.loads(path.with_suffix(".json").read_text("utf-8"))["given"]
    codes = [planned(client, named, given) for named in (loaded.digest, values)]
    if values.get("filesystem", {}).get("capture"):
        assert codes == ["bad_argument"] * 2  # what is captured is for sandboxes
        return
    assert set(codes) <= HOST
    if values.get("tenants"):
        assert codes[0] == "unknown_manifest"  # it is not this tenant's
    else:
        assert codes[0] == codes[1]


def planned(client: Client, named: object, given: dict[str, object]) -> str:
    """What a plan under it comes to: `ok`, or the refusal's code."""
    args = {"argv": ["/bin/true"], "manifest": named, **({"parameters": given} if given else {})}
    try:
        client.call("plan", args)
    except Refusal as refusal:
        return refusal.code
    return "ok"


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_what_nothing_may_run_under_says_why(client: Client, admin: PrivateKey, path: Path) -> None:
    raw, wanted = path.read_bytes(), tomllib.loads(path.with_suffix(".expected").read_text("utf-8"))
    expected = (wanted["code"], wanted["message"], wanted["remedy"])
    load = {"manifest": raw, "signatures": signed(raw, admin)}
    if wanted["command"] == "manifest.load":
        assert told(refused(client, "manifest.load", load)) == expected
        return
    digest = str(client.call("manifest.load", load).result["digest"])
    if wanted["command"] == "run":
        assert told(refused(client, "run", {"argv": ["/bin/true"], "manifest": digest}), digest) == expected
        return
    failure = client.run(["/bin/true"], manifest=digest).failure
    assert failure is not None
    assert (failure["code"], failure["message"], failure["remedy"]) == expected
