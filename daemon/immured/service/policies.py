"""The policies of a state directory: DIR/policy/<sha256>.toml, written before the ledger says that one is in force.

Which one is in force the ledger alone says (`policy.changed`). A file that is not what its name says, or does not parse
any more, is passed over for the one before it, and that is said too (`policy.refused`). Without any the daemon does not
start; a state directory from before there were policies gets the one that is shipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from immured.errors import ConfigurationError
from immured.identity.policy.parse import MAX_TEXT, parse_policy
from immured.identity.policy.schema import Policy
from immured.service.files import read_bounded, write_whole
from immured.service.state import Paths
from immured.shipped import shipped

__all__ = ["Chosen", "choose", "read_policy", "save_policy", "shipped_policy"]

_PREFIX: Final = "sha256:"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The policy to start with. `refused`: newer ones by digest, with why; `shipped`: the ledger knows of none."""

    policy: Policy
    refused: tuple[tuple[str, str], ...] = ()
    shipped: bool = False


def shipped_policy() -> Policy:
    """The one that comes with this version. Read it as root: the package may stand where nobody else can."""
    return parse_policy(shipped("identity", "policy", "default.toml").read_bytes())


def choose(paths: Paths, digests: Sequence[str], shipped: Policy) -> Chosen:
    """Of what was in force, oldest first, the newest that is whole; `shipped` where there never was one.

    Raises ConfigurationError `no_policy`, OSError.
    """
    if not digests:
        save_policy(paths, shipped)
        return Chosen(shipped, shipped=True)
    refused: dict[str, str] = {}
    for digest in reversed(digests):
        if digest in refused:
            continue
        try:
            return Chosen(read_policy(paths, digest), tuple(refused.items()))
        except ConfigurationError as error:
            refused[digest] = error.message
    newest = next(iter(refused))
    raise ConfigurationError(
        "no_policy",
        f"no policy that was ever in force is whole; the last one, {_path(paths, newest)}: {refused[newest]}",
        f"put the file back from a backup: its SHA-256 is {newest.removeprefix(_PREFIX)}",
    )


def read_policy(paths: Paths, digest: str) -> Policy:
    """The policy of that digest. Raises ConfigurationError `policy_damaged`, `policy_invalid`."""
    path = _path(paths, digest)
    try:
        text = read_bounded(path, MAX_TEXT)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigurationError("policy_damaged", f"{path}: {reason or error}", "restore it from a backup") from error
    policy = parse_policy(text)
    if policy.digest != digest:
        raise ConfigurationError("policy_damaged", f"{path} is not what its name says", "restore it from a backup")
    return policy


def save_policy(paths: Paths, policy: Policy) -> None:
    """Put it under its digest, durable. Raises OSError."""
    path = _path(paths, policy.digest)
    if not path.exists() or path.read_bytes() != policy.text:
        write_whole(path, policy.text, 0o600)


def _path(paths: Paths, digest: str) -> Path:
    return paths.policies / f"{digest.removeprefix(_PREFIX)}.toml"
