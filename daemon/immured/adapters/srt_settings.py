"""Settings of Anthropic's sandbox-runtime, of 0.0.21 and of what came after it, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from immured.adapters.imported import invalid
from immured.adapters.strict_json import read_json, texts
from immured.wire.strict import Fields, shown, take

__all__ = ["DEFAULT", "Settings", "read_settings"]

_CODE: Final = "adapter_invalid"
_TOP: Final = (
    "$schema", "network", "filesystem", "credentials", "ignoreViolations", "enableWeakerNestedSandbox",
    "enableWeakerNetworkIsolation", "allowAppleEvents", "ripgrep", "mandatoryDenySearchDepth", "allowPty", "seccomp",
    "bwrapPath", "socatPath", "windows",
)  # fmt: skip
_NETWORK: Final = (
    "allowedDomains", "deniedDomains", "strictAllowlist", "allowUnixSockets", "allowAllUnixSockets",
    "allowLocalBinding", "allowMachLookup", "httpProxyPort", "socksProxyPort", "mitmProxy", "tlsTerminate",
    "parentProxy",
)  # fmt: skip
_FILESYSTEM: Final = (
    "disabled", "denyRead", "allowRead", "autoAllowSystemPaths", "denyReadAlways", "denyReadAlwaysExcept", "allowWrite",
    "denyWrite", "allowGitConfig", "protectNonexistentFiles",
)  # fmt: skip
_PROXIES: Final = ("httpProxyPort", "socksProxyPort", "mitmProxy", "tlsTerminate", "parentProxy")
_ELSEWHERE: Final = ("ripgrep", "seccomp", "bwrapPath", "socatPath", "ignoreViolations")
_NO_LINUX: Final = ("allowPty", "allowAppleEvents", "enableWeakerNetworkIsolation", "windows")


@dataclass(frozen=True, slots=True)
class Settings:
    """What stands in a settings file. `listed`: only what `allow_read` names may be read; else all but `deny_read`.

    `aside`: settings that say nothing about a sandbox here, with why.
    """

    deny_read: tuple[str, ...] = ()
    allow_read: tuple[str, ...] = ()
    listed: bool = False
    system: bool = True
    allow_write: tuple[str, ...] = ()
    deny_write: tuple[str, ...] = ()
    allow_git_config: bool = False
    hold_missing: bool = True
    domains: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    unix_sockets: bool = False
    hidden: tuple[str, ...] = ()
    unset: tuple[str, ...] = ()
    masked: tuple[str, ...] = ()
    depth: int = 3
    nested: bool = False
    unconfined: bool = False
    aside: Mapping[str, str] = field(default_factory=dict)


DEFAULT: Final = Settings()
"""What srt runs with where there is no settings file: nothing is written, nothing is reached."""


def read_settings(text: str) -> Settings:
    """Raises Refused `adapter_invalid`, also for names that no version of srt's has: srt itself passes over those."""
    value = read_json(text, "the settings")
    top = take(value, "settings", _TOP, code=_CODE, unknown=_CODE)
    network = take(top.required("network", dict), "settings.network", _NETWORK, code=_CODE, unknown=_CODE)
    files = take(top.required("filesystem", dict), "settings.filesystem", _FILESYSTEM, code=_CODE, unknown=_CODE)
    domains = _texts(network, "allowedDomains")
    hidden, unset, masked = _credentials(top)
    allow_read = _texts(files, "allowRead")
    listed = "allowRead" in files and ("denyRead" not in files or "autoAllowSystemPaths" in files)
    if listed and _texts(files, "denyRead"):
        raise files.wrong("allowRead", "lists what may be read, and denyRead what may not", "give one of the two")
    if _texts(files, "denyReadAlwaysExcept"):
        raise files.wrong("denyReadAlwaysExcept", "opens again what a pattern denied", "name what denyReadAlways means")
    return Settings(
        deny_read=(*_texts(files, "denyRead"), *_texts(files, "denyReadAlways")),
        allow_read=allow_read,
        listed=listed,
        system=files.optional("autoAllowSystemPaths", bool) is not False,
        allow_write=_texts(files, "allowWrite"),
        deny_write=_texts(files, "denyWrite"),
        allow_git_config=files.optional("allowGitConfig", bool) or False,
        hold_missing=files.optional("protectNonexistentFiles", bool) is not False,
        domains=domains,
        denied=_texts(network, "deniedDomains"),
        unix_sockets=network.optional("allowAllUnixSockets", bool) or False,
        hidden=hidden,
        unset=unset,
        masked=masked,
        depth=top.integer("mandatoryDenySearchDepth", 1, 10) or 3,
        nested=top.optional("enableWeakerNestedSandbox", bool) or False,
        unconfined=files.optional("disabled", bool) or False,
        aside=_aside(top, network),
    )


def _texts(fields: Fields, name: str) -> tuple[str, ...]:
    return tuple(texts(fields.values.get(name, []), f"{fields.where}.{name}"))


def _credentials(top: Fields) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Files that are hidden, variables that are taken away, and which of both srt would have put sentinels for."""
    known = ("files", "envVars", "allowPlaintextInject")
    fields = take(top.values.get("credentials", {}), "settings.credentials", known, code=_CODE, unknown=_CODE)
    found: dict[str, list[str]] = {"files": [], "envVars": []}
    masked = []
    for group, key in (("files", "path"), ("envVars", "name")):
        for number, entry in enumerate(fields.optional(group, list) or []):
            where = f"settings.credentials.{group}[{number}]"
            one = take(entry, where, (key, "mode", "injectHosts"), code=_CODE, unknown=_CODE)
            name, mode = one.required(key, str), one.required("mode", str)
            if mode not in ("deny", "mask"):
                raise one.wrong("mode", f"is {shown(mode)}; it may be 'deny' or 'mask'")
            if not name or "\0" in name or (key == "name" and "=" in name):
                raise one.wrong(key, f"is {shown(name)}")
            found[group].append(name)
            if mode == "mask":
                masked.append(name)
    return tuple(found["files"]), tuple(found["envVars"]), tuple(masked)


def _aside(top: Fields, network: Fields) -> dict[str, str]:
    found = {name: "of srt's own parts, none of which runs here" for name in _ELSEWHERE if name in top}
    found |= {name: "not of Linux" for name in _NO_LINUX if name in top}
    found |= {f"network.{name}": "there is no proxy, since nothing is reached" for name in _PROXIES if name in network}
    found |= {
        f"network.{name}": "of macOS alone, by srt's own words"
        for name in ("allowUnixSockets", "allowMachLookup")
        if name in network
    }
    if "network.tlsTerminate" in found and not isinstance(network.values["tlsTerminate"], dict):
        raise invalid("settings.network.tlsTerminate is no map")
    return found
