"""Policies for tests: the one in force, and some lines more."""

from __future__ import annotations

from immured import Client

__all__ = ["declare"]


def declare(client: Client, text: str) -> None:
    """These lines of TOML too are in the policy from now on; `client` is an admin's."""
    shown = client.call("policy.show", {}).result
    policy = shown["policy"]
    assert isinstance(policy, bytes)
    if text.encode() not in policy:
        client.call("policy.set", {"policy": policy + b"\n" + text.encode()})
