"""One real daemon for the corpus, with the tenants that its manifests name and somebody of every persona."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from immured import Client
from immured.client.throwaway import ThrowawayDaemon
from immured.wire.keys import PrivateKey
from tests.daemon import daemon
from tests.policies import declare

__all__ = ["daemon"]

TENANTS = ("acme", "spring-2027", "autumn-2027", *(f"t{number}" for number in range(64)))
PERSONAS = ("judge", "judge.assistant", "developer", "reviewer", "night", "p0", *(f"p{number}" for number in range(64)))


@pytest.fixture(scope="package")
def admin(daemon: ThrowawayDaemon) -> PrivateKey:
    return PrivateKey.from_pem(daemon.admin_key.read_bytes())


@pytest.fixture(scope="package")
def client(daemon: ThrowawayDaemon) -> Iterator[Client]:
    """The daemon's admin."""
    with daemon.client() as connected:
        declare(connected, "".join(f"[tenants.{name}]\n" for name in TENANTS))
        for start in range(0, len(PERSONAS), 16):
            key = PrivateKey.generate().public.raw
            names = list(dict.fromkeys(PERSONAS[start : start + 16]))
            connected.call("key.add", {"name": f"people-{start}", "public": key, "role": "worker", "personas": names})
        yield connected
