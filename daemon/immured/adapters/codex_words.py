"""The command line of `codex-linux-sandbox`: as of Codex 2025-07 to 2026-09. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from immured.adapters.codex_policy import Policy, read_legacy, read_profile, read_split
from immured.adapters.imported import Surroundings, invalid, unsupported
from immured.wire.strict import nearest, shown

__all__ = ["Words", "policy_of", "read_words"]

_VALUES = (
    "--sandbox-policy-cwd", "--command-cwd", "--sandbox-policy", "--file-system-sandbox-policy",
    "--network-sandbox-policy", "--permission-profile", "--proxy-route-spec", "--managed-network",
)  # fmt: skip
_FLAGS = (
    "--use-bwrap-sandbox", "--use-legacy-landlock", "--no-proc", "--allow-network-for-proxy",
    "--allow-detached-children", "--apply-seccomp-then-exec",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Words:
    """What was said: values by their option, flags, and the command."""

    values: dict[str, str]
    flags: frozenset[str]
    command: tuple[str, ...]


def read_words(words: Sequence[str]) -> Words:
    """The helper's arguments, as its parser takes them: options first, and the first other word begins the command.

    Raises Refused `adapter_invalid`.
    """
    values: dict[str, str] = {}
    flags: set[str] = set()
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--" or not word.startswith("-"):
            at += word == "--"
            break
        name, joined, value = word.partition("=")
        if name in _FLAGS and not joined:
            flags.add(name)
        elif name in _VALUES:
            if not joined:
                at += 1
                if at == len(words):
                    raise invalid(f"{name} takes a value")
                value = words[at]
            if name in values:
                raise invalid(f"{name} is given twice")
            values[name] = value
        else:
            meant = nearest(name, (*_VALUES, *_FLAGS))
            raise invalid(
                f"codex-linux-sandbox has no option {shown(name)}", f"did you mean {meant!r}?" if meant else ""
            )
        at += 1
    command = tuple(words[at:])
    if not command:
        raise invalid("no command is named", "codex-linux-sandbox --sandbox-policy-cwd DIR ... -- COMMAND...")
    return Words(values, frozenset(flags), command)


def policy_of(words: Words, host: Surroundings) -> Policy:
    """The policy, in whichever form it was given. `host.cwd` is --sandbox-policy-cwd.

    Raises Refused.
    """
    values = words.values
    if "--apply-seccomp-then-exec" in words.flags:
        raise unsupported(
            "--apply-seccomp-then-exec is for the helper's own second stage",
            "leave it out: there is one stage here",
        )
    if "--permission-profile" in values:
        return read_profile(values["--permission-profile"], host)
    if "--file-system-sandbox-policy" in values or "--network-sandbox-policy" in values:
        if not {"--file-system-sandbox-policy", "--network-sandbox-policy"} <= values.keys():
            raise invalid("--file-system-sandbox-policy and --network-sandbox-policy come together")
        return read_split(values["--file-system-sandbox-policy"], values["--network-sandbox-policy"], host)
    if "--sandbox-policy" not in values:
        raise invalid("no policy is given", "--permission-profile JSON, or --sandbox-policy JSON")
    return read_legacy(values["--sandbox-policy"], host)
