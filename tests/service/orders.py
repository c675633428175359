"""What the scenes about keys, policy and elevation have in common: keys of any role, other policies, another start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from immured.identity.authority import Authority
from immured.identity.policy.parse import parse_policy
from immured.identity.replay import ReplayRecord
from immured.ledger import Ledger
from immured.service.context import now_ms
from immured.service.policies import choose, shipped_policy
from immured.service.recovery import Recovery
from immured.service.state import load_state
from immured.wire.keys import PrivateKey
from immured.wire.messages import Reply
from tests.service.harness import Client, Harness

TENANTS = """
[tenants.acme]
projects = ["web"]
[tenants.beta]
"""


def code_of(reply: Reply | None) -> str:
    """The refusal's code."""
    assert reply is not None
    assert reply.error is not None, reply.result
    return str(reply.error["code"])


def error_of(reply: Reply) -> Any:
    """The whole refusal."""
    assert reply.error is not None, reply.result
    return reply.error


async def done(client: Client, cmd: str, args: Mapping[str, object], **names: Any) -> Any:
    """The result of a command that is allowed."""
    reply = await client.ask(cmd, args, **names)
    assert reply.ok, reply.error
    return reply.result


async def let_in(harness: Harness, name: str, role: str, **bindings: Any) -> Client:
    """A key that the admin adds; connected."""
    key = PrivateKey.generate()
    args = {"name": name, "public": key.public.raw, "role": role, **bindings}
    await done(harness.connect(), "key.add", args)
    return harness.connect(key=key)


def under(harness: Harness, more: str) -> None:
    """The shipped policy and `more`, in force as if it had always been."""
    text = shipped_policy().text + b"\n" + more.encode()
    harness.service.authority.set_policy(parse_policy(text))


def started_again(harness: Harness) -> Authority:
    """What a daemon that starts now would decide by: the ledger is closed for it."""
    harness.ledger.close()
    state = load_state(harness.state.paths.root)
    authority = Authority(state.keyring, shipped_policy())
    recovery = Recovery(ReplayRecord(), authority, now_ms)
    Ledger.open(state.paths.root, visit=recovery.visit).close()
    authority.forget(now_ms())
    authority.set_policy(choose(state.paths, recovery.policies, shipped_policy()).policy)
    return authority
