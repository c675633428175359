"""From options to a client: keys are read as who we are, then we become whom we act for, then we connect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from immured.cli.acting import become, wanted
from immured.cli.target import USER_KEY, Names, names, resolve
from immured.client import Client
from immured.client.trust import certificates
from immured.client.trust import resolve as trust
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from immured.client import AsyncClient
    from immured.client.trust import Trust

__all__ = ["Settled", "connect", "prepare"]


@dataclass(frozen=True)
class Settled:
    """Where to connect, as whom, under which names; `chain` is the content of the certificates' file."""

    trust: Trust
    names: Names
    chain: bytes | None

    def client(self, *, timeout: float | None = None) -> Client:
        """One that connects at its first command."""
        trust, said = self.trust, self.names
        return Client(
            trust.socket, trust.key, trust.daemon, timeout=timeout, certificate=self.chain, propose=said.propose,
            persona=said.persona, tenant=said.tenant, sub=said.sub, project=said.project, session=said.session,
        )  # fmt: skip

    def async_client(self) -> AsyncClient:
        """One that connects at its first command."""
        from immured.client import AsyncClient

        trust, said = self.trust, self.names
        return AsyncClient(
            trust.socket, trust.key, trust.daemon, certificate=self.chain, propose=said.propose,
            persona=said.persona, tenant=said.tenant, sub=said.sub, project=said.project, session=said.session,
        )  # fmt: skip


def prepare(
    socket: str | None, key: str | None, daemon_key: str | None, state: str | None, as_user: str | None
) -> Settled:
    """Settle and read the keys, then act as --as or sudo say. Everything later (paths, files) is done as that user.

    Raises ConfigurationError.
    """
    target = resolve(socket, key, daemon_key, state)
    if target.key == Path(USER_KEY).expanduser() and not Path(target.key).exists():
        raise ConfigurationError(
            "no_key", f"there is no key at {target.key}",
            "make one (immure key new) and have it let in; or name one: --key FILE, --state DIR (its admin key)",
        )  # fmt: skip
    settled, said, chain = trust(target.socket, target.key, target.daemon_key), names(), None
    if said.certificate is not None:
        from immured.wire.certificate import chain_to_pem

        chain = chain_to_pem([body for body, _ in certificates(said.certificate)])
    user = wanted(as_user)
    if user is not None:
        become(user, explicit=as_user is not None)
    return Settled(settled, said, chain)


def connect(
    socket: str | None, key: str | None, daemon_key: str | None, state: str | None, as_user: str | None
) -> Client:
    """A client that connects at its first command, as whom `prepare` says. Raises ConfigurationError."""
    return prepare(socket, key, daemon_key, state, as_user).client()
