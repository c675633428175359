"""The policy in force, for the SDK.

with Client() as client:
    before = Policies(client).show()
    Policies(client).set(changed, expect=before.digest)
    Policies(client).explain("run", key="alice", tenant="acme").why
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict, Unpack

from immured.client.question import Question, reading

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = ["About", "AsyncPolicies", "Explanation", "Policies", "PolicyChange", "PolicyFile"]


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """The file's bytes, and their digest (`sha256:<hex>`)."""

    digest: str
    policy: bytes


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """The digest in force from now on, the one before, and the names of active keys whose role there is no more."""

    digest: str
    previous: str
    roleless: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether that is allowed, and why. `rule`: the one that decides."""

    allowed: bool
    why: str
    rule: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class About(TypedDict, total=False):
    """Of whom and of what it is asked. Without `key`: oneself; without `owner`: what is its own."""

    key: str
    persona: str
    tenant: str
    project: str
    session: bool
    owner: str
    labels: Mapping[str, str]


class Policies:
    """A client's. Every method raises Refusal as the daemon refuses."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self) -> PolicyFile:
        """The one in force."""
        return self._client.ask(policy_show())

    def set(self, policy: bytes | str, *, expect: str | None = None) -> PolicyChange:
        """Put another in force; `expect`: only where the one of that digest still is."""
        return self._client.ask(policy_set(policy, expect))

    def explain(self, cmd: str, *, manifest_class: str | None = None, **about: Unpack[About]) -> Explanation:
        """Why a key may give a command, or may not."""
        return self._client.ask(policy_explain(cmd, manifest_class, about))


class AsyncPolicies:
    """`Policies` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def show(self) -> Awaitable[PolicyFile]:
        """As `Policies.show`."""
        return self._client.ask(policy_show())

    def set(self, policy: bytes | str, *, expect: str | None = None) -> Awaitable[PolicyChange]:
        """As `Policies.set`."""
        return self._client.ask(policy_set(policy, expect))

    def explain(self, cmd: str, *, manifest_class: str | None = None, **about: Unpack[About]) -> Awaitable[Explanation]:
        """As `Policies.explain`."""
        return self._client.ask(policy_explain(cmd, manifest_class, about))


def policy_show() -> Question[PolicyFile]:
    """The one in force."""

    def read(said: Answer) -> PolicyFile:
        fields = reading(said)
        return PolicyFile(fields.required("digest", str), fields.required("policy", bytes))

    return Question("policy.show", {}, read)


def policy_set(policy: bytes | str, expect: str | None) -> Question[PolicyChange]:
    """Another."""

    def read(said: Answer) -> PolicyChange:
        fields = reading(said)
        roleless = tuple(map(str, fields.optional("roleless", list) or ()))
        return PolicyChange(fields.required("digest", str), fields.required("previous", str), roleless)

    return Question("policy.set", {"policy": policy} | ({} if expect is None else {"expect": expect}), read)


def policy_explain(cmd: str, manifest_class: str | None, about: About) -> Question[Explanation]:
    """Why."""

    def read(said: Answer) -> Explanation:
        fields = reading(said)
        return Explanation(
            fields.required("allowed", bool),
            fields.required("why", str),
            fields.optional("rule", str),
            dict(fields.values),
        )

    more = {} if manifest_class is None else {"class": manifest_class}
    return Question("policy.explain", {"cmd": cmd} | more | dict(about), read)
