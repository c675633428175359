"""Codex's policies, in all the forms that its releases wrote, as one list of rules. Pure.

The old form is one map, `SandboxPolicy`, with its kind as `mode` (to 2025-10) or `type`. Then came two beside each
other, a `FileSystemSandboxPolicy` of entries and a network's `restricted` or `enabled`; then one map with both, the
`PermissionProfile`. `config.toml` says the old one as `sandbox_mode` and `[sandbox_workspace_write]`. The app server
writes the names of the same maps in camel case.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from immured.adapters.draft import clean
from immured.adapters.imported import Surroundings, invalid, unsupported
from immured.adapters.strict_json import MAX_TEXT, read_json, texts
from immured.errors import Refused
from immured.wire.strict import Fields, shown, take

__all__ = [
    "DENY",
    "METADATA",
    "READ",
    "WRITE",
    "Policy",
    "Rule",
    "read_file",
    "read_legacy",
    "read_profile",
    "read_split",
]

READ: Final = "read"
WRITE: Final = "write"
DENY: Final = "deny"
METADATA: Final = (".git", ".agents", ".codex")
"""What stays as it is in every directory that may be written."""

_KINDS: Final = ("restricted", "unrestricted", "external-sandbox")
_CODE: Final = "adapter_invalid"
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])([A-Z])", re.ASCII)
_MODES: Final = ("danger-full-access", "external-sandbox", "read-only", "workspace-write")


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry: an absolute path, or a pattern of such, and what may be done there. `source`: in Codex's words."""

    path: str
    access: str
    source: str
    pattern: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """`minimal`: the platform's own directories can be read. `workspaces`: those whose metadata stay as they are.
    `unknown`: what a newer Codex knows. `legacy`: from the old form, whose helper refuses more calls.
    """

    rules: tuple[Rule, ...]
    network: bool
    minimal: bool = False
    workspaces: tuple[str, ...] = ()
    depth: int | None = None
    unknown: tuple[str, ...] = ()
    legacy: bool = False


def read_file(text: str, host: Surroundings) -> Policy:
    """A policy from a file: any of the maps as JSON, or a config.toml. Raises Refused."""
    if len(text) > MAX_TEXT:
        raise invalid(f"the policy has {len(text)} characters; at most {MAX_TEXT}", "make it smaller")
    if not text.lstrip().startswith(("{", '"')):
        return _from_config(text, host)
    value = read_json(text, "the policy")
    if isinstance(value, str):
        value = {"type": value}
    found = _snake(value)
    if not isinstance(found, Mapping):
        raise invalid("the policy is no map", "give a SandboxPolicy, a FileSystemSandboxPolicy or a PermissionProfile")
    if "kind" in found or "entries" in found:
        return _split(found, "restricted", host)
    if found.get("type") in ("managed", "disabled", "external"):
        return _profile(found, host)
    return _legacy(found, host)


def read_legacy(text: str, host: Surroundings) -> Policy:
    """`--sandbox-policy`. Raises Refused."""
    return _legacy(read_json(text, "--sandbox-policy"), host)


def read_split(files: str, network: str, host: Surroundings) -> Policy:
    """`--file-system-sandbox-policy` and `--network-sandbox-policy`. Raises Refused."""
    said = read_json(network, "--network-sandbox-policy")
    return _split(read_json(files, "--file-system-sandbox-policy"), said, host)


def read_profile(text: str, host: Surroundings) -> Policy:
    """`--permission-profile`. Raises Refused."""
    return _profile(read_json(text, "--permission-profile"), host)


def _from_config(text: str, host: Surroundings) -> Policy:
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(
            f"the policy is neither JSON nor TOML: {error}", "give a SandboxPolicy or a config.toml"
        ) from None
    if "default_permissions" in values or "permissions" in values:
        raise unsupported(
            "this config.toml names permission profiles, which Codex puts together out of more than this file",
            "give what the helper gets: the JSON behind --permission-profile",
        )
    mode = values.get("sandbox_mode", "read-only")
    if mode not in _MODES:
        raise invalid(f"sandbox_mode is {shown(str(mode))}", f"it may be {', '.join(_MODES)}")
    own = values.get("sandbox_workspace_write", {}) if mode == "workspace-write" else {}
    if not isinstance(own, Mapping):
        raise invalid("sandbox_workspace_write is no table")
    return _legacy({"type": mode, **own}, host)


def _legacy(value: object, host: Surroundings) -> Policy:
    if not isinstance(value, Mapping):
        raise invalid("the policy is no map")
    mode = value.get("type", value.get("mode"))
    known: dict[object, tuple[str, ...]] = {
        "danger-full-access": (),
        "external-sandbox": ("network_access",),
        "read-only": ("access", "network_access"),
        "workspace-write": (
            "writable_roots", "read_only_access", "network_access", "exclude_tmpdir_env_var", "exclude_slash_tmp",
        ),
    }  # fmt: skip
    if mode not in known:
        raise invalid(f"the policy's type is {shown(str(mode))}", f"it may be {', '.join(_MODES)}")
    fields = take(value, "policy", ("type", "mode", *known[mode]), code=_CODE, unknown=_CODE)
    if mode in ("danger-full-access", "external-sandbox"):
        raise _unconfined(str(mode))
    network = fields.optional("network_access", bool) or False
    rules, minimal = _readable(fields, "access" if mode == "read-only" else "read_only_access", host)
    if mode == "read-only":
        return Policy(tuple(rules), network, minimal, legacy=True)
    roots = texts(fields.values.get("writable_roots", []), "policy.writable_roots")
    workspaces = [host.cwd, *(clean(one, host.cwd) for one in roots)]
    rules += [Rule(one, WRITE, "writable_roots" if one != host.cwd else "workspace-write") for one in workspaces]
    if not fields.optional("exclude_slash_tmp", bool):
        rules.append(Rule("/tmp", WRITE, "exclude_slash_tmp: false"))  # noqa: S108 - Codex's own name
    if not fields.optional("exclude_tmpdir_env_var", bool):
        rules += _temporary(WRITE, "exclude_tmpdir_env_var: false", host)
    return Policy(tuple(rules), network, minimal, tuple(workspaces), legacy=True)


def _readable(fields: Fields, name: str, host: Surroundings) -> tuple[list[Rule], bool]:
    """What a policy of the old form lets be read: everything, or listed roots and the current directory."""
    given = fields.values.get(name, {"type": "full-access"})
    known = ("type", "include_platform_defaults", "readable_roots")
    access = take(given, f"policy.{name}", known, code=_CODE, unknown=_CODE)
    kind = access.required("type", str)
    if kind == "full-access":
        return [Rule("/", READ, f"{name}: full-access")], False
    if kind != "restricted":
        raise access.wrong("type", f"is {shown(kind)}; it may be 'full-access' or 'restricted'")
    minimal = access.optional("include_platform_defaults", bool)
    roots = texts(access.values.get("readable_roots", []), f"policy.{name}.readable_roots")
    rules = [Rule(host.cwd, READ, "the current directory")]
    rules += [Rule(clean(one, host.cwd), READ, "readable_roots") for one in roots]
    return rules, minimal is not False


def _split(value: object, network: object, host: Surroundings) -> Policy:
    fields = take(value, "policy", ("kind", "entries", "glob_scan_max_depth"), code=_CODE, unknown=_CODE)
    kind = fields.optional("kind", str) or "restricted"
    if kind not in _KINDS:
        raise fields.wrong("kind", f"is {shown(kind)}; it may be {', '.join(_KINDS)}")
    if kind != "restricted":
        raise _unconfined(kind)
    if network not in ("restricted", "enabled"):
        raise invalid(f"the network is {shown(str(network))}", "it may be 'restricted' or 'enabled'")
    depth = fields.integer("glob_scan_max_depth", 0, 1 << 16)
    return _entries(fields.optional("entries", list) or [], depth, network == "enabled", host)


def _profile(value: object, host: Surroundings) -> Policy:
    fields = take(value, "policy", ("type", "file_system", "network"), code=_CODE, unknown=_CODE)
    kind = fields.required("type", str)
    if kind in ("disabled", "external"):
        raise _unconfined(kind)
    if kind != "managed":
        raise fields.wrong("type", f"is {shown(kind)}; it may be 'managed', 'disabled' or 'external'")
    files = take(
        fields.required("file_system", dict), "policy.file_system", ("type", "entries", "glob_scan_max_depth"),
        code=_CODE, unknown=_CODE,
    )  # fmt: skip
    split = {name: files.values[name] for name in ("entries", "glob_scan_max_depth") if name in files}
    return _split({"kind": files.required("type", str), **split}, fields.required("network", str), host)


def _entries(entries: list[object], depth: int | None, network: bool, host: Surroundings) -> Policy:
    rules: list[Rule] = []
    minimal, workspaces, unknown = False, [], []
    for number, entry in enumerate(entries):
        where = f"policy.entries[{number}]"
        fields = take(entry, where, ("path", "access"), code=_CODE, unknown=_CODE)
        access = fields.required("access", str)
        access = DENY if access == "none" else access
        if access not in (READ, WRITE, DENY):
            raise fields.wrong("access", f"is {shown(access)}; it may be 'read', 'write' or 'deny'")
        path = fields.required("path", dict)
        kind = path.get("type")
        if kind == "path":
            given = take(path, f"{where}.path", ("type", "path"), code=_CODE, unknown=_CODE).required("path", str)
            rules.append(Rule(_absolute(given, where), access, f"{access} {given}"))
            if access == WRITE:
                workspaces.append(rules[-1].path)
        elif kind == "glob_pattern":
            fields = take(path, f"{where}.path", ("type", "pattern"), code=_CODE, unknown=_CODE)
            pattern = fields.required("pattern", str)
            if access != DENY:
                raise invalid(f"{where} gives {access} to the pattern {shown(pattern)}", "patterns can only be denied")
            rules.append(Rule(clean(pattern, host.cwd), DENY, f"deny {pattern}", pattern=True))
        elif kind == "special":
            value = take(path, f"{where}.path", ("type", "value"), code=_CODE, unknown=_CODE).required("value", dict)
            special = str(value.get("kind"))
            found = _special(value, access, f"{where}.path.value", host)
            if found is None and special == "minimal":
                minimal = minimal or access != DENY
            elif found is None:
                if access == DENY:
                    raise unsupported(f"{where} denies {shown(special)}, which is not known here", "name its path")
                unknown.append(f"{access} {value.get('path', special)}")
            else:
                rules += found
                if access == WRITE and special in ("project_roots", "current_working_directory"):
                    workspaces += [one.path for one in found]
        else:
            raise invalid(f"{where}.path is of the type {shown(str(kind))}", "it may be path, glob_pattern or special")
    return Policy(tuple(rules), network, minimal, tuple(workspaces), depth, tuple(unknown))


def _special(value: Mapping[str, object], access: str, where: str, host: Surroundings) -> list[Rule] | None:
    """The rules of a place that Codex names by what it is; None for one that has no path, or is not known."""
    kind = value.get("kind")
    fields = take(value, where, ("kind", "subpath", "path"), code=_CODE, unknown=_CODE)
    subpath = fields.optional("subpath", str)
    source = f"{access} :{kind}" + (f"/{subpath}" if subpath else "")
    if kind == "root":
        return [Rule("/", access, source)]
    if kind in ("project_roots", "current_working_directory"):
        if subpath is not None and subpath.startswith("/"):
            raise fields.wrong("subpath", f"is {shown(subpath)}, which is absolute")
        return [Rule(clean(subpath or ".", host.cwd), access, source)]
    if kind == "tmpdir":
        return _temporary(access, source, host)
    if kind == "slash_tmp":
        return [Rule("/tmp", access, source)]  # noqa: S108 - Codex's own name
    return None


def _temporary(access: str, source: str, host: Surroundings) -> list[Rule]:
    named = host.environment.get("TMPDIR", "")
    return [Rule(clean(named), access, f"{source} ($TMPDIR)")] if named.startswith("/") else []


def _absolute(path: str, where: str) -> str:
    path = path.removeprefix("file://")
    if not path.startswith("/"):
        raise invalid(f"{where} names {shown(path)}, which is not absolute")
    return clean(path)


def _unconfined(kind: str) -> Refused:
    return unsupported(
        f"the policy is {kind}: Codex then lets the command write everywhere",
        "give read-only or workspace-write; nothing runs here without walls",
    )


def _snake(value: object) -> object:
    """The app server's names, `writableRoots` and `workspaceWrite`, as everywhere else."""
    if isinstance(value, list):
        return [_snake(one) for one in value]
    if not isinstance(value, Mapping):
        return value
    found = {_CAMEL.sub(r"_\1", name).lower(): _snake(inner) for name, inner in value.items()}
    for name in ("type", "mode"):
        kind = found.get(name)
        if isinstance(kind, str) and _CAMEL.search(kind):
            found[name] = _CAMEL.sub(r"-\1", kind).lower()
    return found
