"""A daemon with manifests that were signed and loaded, people who run under them, and consent texts good and bad."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from immured import Client
from immured.client.errors import Refusal
from immured.client.preflight import Preflight, PreflightRow
from immured.client.throwaway import ThrowawayDaemon
from immured.manifest.signature import show_signatures, sign
from immured.wire.keys import PrivateKey

__all__ = ["DAY_MS", "Scene", "manifest", "scene", "signed"]

DAY_MS = 86_400_000
GOOD = "Commands run in a sandbox, and what they do is recorded in a ledger that you can read."


def manifest(name: str = "build", *, more: str = "") -> bytes:
    """A file's text. `more`: top-level keys first, then tables."""
    return f'schema = 1\nname = "{name}"\n{more}\n'.encode()


def signed(raw: bytes, *keys: PrivateKey, expires_ms: int = DAY_MS, at_ms: int | None = None) -> bytes:
    """The signature file, of these keys, that holds for so long."""
    now = int(time.time() * 1000) if at_ms is None else at_ms
    return show_signatures([sign(key, raw, now, now + expires_ms) for key in keys]).encode()


def wording(text: str, language: str = "en") -> str:
    return (
        f'schema = 1\nlanguage = "{language}"\ntitle = "Consent to run commands"\ntext = "{text}"\n'
        'question = "Do you agree?"\naccept = "yes"\ndecline = "no"\n'
    )


@dataclass
class Scene:
    daemon: ThrowawayDaemon
    admin: Client
    place: Path
    keys: dict[str, PrivateKey] = field(default_factory=dict)

    def key(self, name: str, role: str, **bound: Any) -> PrivateKey:
        """Let somebody in."""
        made = self.keys[name] = PrivateKey.generate()
        args = {"name": name, "public": made.public.raw, "role": role, **bound}
        self.admin.call("key.add", args)
        return made

    def client(self, name: str, **names: Any) -> Client:
        """One of them."""
        key = self.place / f"{name}.pem"
        key.write_bytes(self.keys[name].to_pem())
        return Client(str(self.daemon.socket), str(key), str(self.daemon.daemon_key), **names)

    def load(self, raw: bytes, *keys: PrivateKey, expires_ms: int = DAY_MS) -> str:
        """Have the admin load it; the digest."""
        loaded = self.admin.manifests.load(raw, signed(raw, *keys, expires_ms=expires_ms))
        assert loaded.passes, loaded.stages
        return loaded.digest


def of(seen: Preflight, check: str, verdict: str | None = None) -> list[PreflightRow]:
    """The rows of a check, with that verdict."""
    return [row for row in seen.of(check) if verdict in (None, row.verdict)]


def refused(client: Client, digest: str, *argv: str) -> str:
    """What a run under it is refused with; empty where it runs."""
    try:
        client.run(list(argv) or ["/bin/true"], manifest=digest)
    except Refusal as refusal:
        return refusal.code
    return ""


@contextmanager
def scene() -> Iterator[Scene]:
    place = Path(tempfile.mkdtemp(prefix="preflight-"))
    place.chmod(0o755)
    daemon = ThrowawayDaemon()
    texts = place / "texts"
    for name, language, text in (
        ("house", "en", GOOD),
        ("bidi", "en", "Nobody sees \\u202ethis\\u202c, whatever it says to you, and nobody should."),
        ("tongue", "xx", GOOD),
        ("partly", "en", GOOD),
        ("partly", "de", "Hier steht\\u200bein Zeichen, das niemand sieht, und darum wird es nicht gezeigt."),
    ):
        (texts / name).mkdir(parents=True, exist_ok=True)
        (texts / name / f"{language}.toml").write_text(wording(text, language))
    (daemon.state / "config.toml").write_text(f'[consent]\ntexts = "{texts}"\n')
    try:
        with daemon, daemon.client() as admin:
            made = Scene(daemon, admin, place)
            policy = admin.call("policy.show", {}).result["policy"]
            assert isinstance(policy, bytes)
            admin.call("policy.set", {"policy": policy + b"\n[tenants.acme]\n[tenants.other]\n"})
            made.key("release", "admin")
            made.key("spare", "admin")
            made.key("worker", "worker", personas=["night"])
            made.key("runner", "runner")
            made.key("elsewhere", "worker", tenants=["other"])
            yield made
    finally:
        shutil.rmtree(place)
