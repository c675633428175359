"""Signature files, each with the whole of what a real daemon says of the manifest that it comes with."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from immured import Client
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.manifests.corpus import HERE
from tests.manifests.signing import manifest_of, now_ms, places_of, put, signed

pytestmark = pytest.mark.needs_root
CASES: dict[str, dict[str, Any]] = tomllib.loads((HERE / "signed.toml").read_text(encoding="utf-8"))
RULES = """
[tenants.corpus-of-signatures]
[tenants.acme]
[tenants.beta]
[roles.judge-signer]
title = "signs what judges run under"
[[rules]]
name = "judges-manifests"
roles = ["judge-signer"]
allow = ["manifest.sign"]
scope = "host"
classes = ["judge"]
"""


@dataclass
class Scene:
    """A daemon that knows these keys; `needed`: how many signatures its policy asks for."""

    admin: Client
    policy: bytes
    keys: dict[str, PrivateKey] = field(default_factory=dict)
    needed: int = 1

    def let_in(self, name: str, role: str = "admin", **bound: object) -> PrivateKey:
        key = self.keys[name] = PrivateKey.generate()
        self.admin.call("key.add", {"name": name, "public": key.public.raw, "role": role, **bound})
        return key

    def rotate(self, name: str, heir: str, overlap_ms: int) -> None:
        key = self.keys[heir] = PrivateKey.generate()
        args = {"key": self.keys[name].id, "public": key.public.raw, "overlap_ms": overlap_ms}
        self.admin.call("key.rotate", args)

    def need(self, count: int) -> None:
        if count != self.needed:
            self.needed = count
            self.admin.call("policy.set", {"policy": self.policy + f"[manifests]\nsignatures = {count}\n".encode()})


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    with ThrowawayDaemon() as daemon, daemon.client() as admin:
        before = admin.call("policy.show", {}).result["policy"]
        assert isinstance(before, bytes)
        made = Scene(admin, before + RULES.encode())
        admin.call("policy.set", {"policy": made.policy})
        for name in ("release", "chief", "suspended", "revoked", "rotated", "rolling"):
            made.let_in(name)
        made.let_in("acme", "platform-engineer", tenants=["acme"])
        made.let_in("beta", "platform-engineer", tenants=["beta"])
        made.let_in("worker", "worker")
        made.let_in("judges", "judge-signer")
        made.let_in("early", not_before_ms=now_ms() + 86_400_000)
        made.keys["stranger"] = PrivateKey.generate()
        made.rotate("rotated", "heir", 0)
        made.rotate("rolling", "rolled", 86_400_000)
        admin.call("key.suspend", {"key": made.keys["suspended"].id})
        admin.call("key.revoke", {"key": made.keys["revoked"].id})
        yield made


def moment(at_ms: str) -> str:
    return datetime.fromtimestamp(int(at_ms) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def judged(scene: Scene, name: str, case: dict[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """What a daemon says: `code`, `message` and `remedy`, or the `verdict` and `words` of the stage `signature`. And
    what stands in the places of its words."""
    raw = manifest_of(name, case)
    scene.need(case.get("needed", 1))
    if case.get("revoked"):
        digest = "sha256:" + hashlib.sha256(raw).hexdigest()
        scene.admin.call("manifest.revoke", {"digest": digest, "reason": "seen elsewhere"})
    places = places_of(raw, case, scene.keys, now_ms())
    shown = places | {
        f"{kind}_at.{number}": moment(places[f"{kind}.{number}"])
        for kind in ("signed", "expires")
        for number in range(1, len(case.get("signers", [])) + 1)
        if int(places[f"{kind}.{number}"]) < 10**14
    }
    text = put(case.get("text", "{text}"), places).encode()
    try:
        loaded = scene.admin.manifests.load(raw, text)
    except Refusal as refusal:
        return {"code": refusal.code, "message": refusal.message, "remedy": refusal.remedy}, shown
    stage = loaded.stages[0]
    assert stage.stage == "signature"
    assert loaded.stored
    return {"verdict": stage.verdict, "words": stage.words}, shown


def test_there_are_many() -> None:
    assert len(CASES) >= 80


@pytest.mark.parametrize("name", CASES)
def test_what_is_signed_so_is_judged_in_these_words(scene: Scene, name: str) -> None:
    case = CASES[name]
    said, places = judged(scene, name, case)
    expected = {key: put(text, places) for key, text in case["expected"].items()}
    assert said == expected


def test_every_byte_of_a_signature_file_counts(scene: Scene) -> None:
    """No byte of it can be another, but those of keys that nobody knows."""
    scene.need(1)
    raw = manifest_of("every-byte", {})
    text = signed(raw, scene.keys["release"])
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1 << (place % 7)
        with pytest.raises(Refusal) as caught:
            scene.admin.manifests.load(raw, bytes(changed))
        in_key = text.index(b"\n") + len("ed25519:") < place < text.index(b" ", text.index(b"\n"))
        assert caught.value.code in ({"manifest_unsigned", "signature_invalid"} if in_key else {"signature_invalid"})
    assert scene.admin.manifests.load(raw, text).stored


def test_every_byte_of_a_manifest_counts(scene: Scene) -> None:
    scene.need(1)
    raw = manifest_of("every-byte-of-it", {"manifest": '[limits]\nmemory = "64M"'})
    text = signed(raw, scene.keys["release"])
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        for other in (bytes(changed), raw[:place], raw[:place] + raw[place + 1 :], raw[:place] + b"#" + raw[place:]):
            with pytest.raises(Refusal) as caught:
                scene.admin.manifests.load(other, text)
            assert caught.value.code == "signature_invalid"
