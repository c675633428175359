"""The arguments of `run` and `plan`, typed. What they may hold is decided later, where the plan is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from immured.wire.strict import Fields, kind_of, shown, take

__all__ = [
    "RunArguments",
    "parse_environment",
    "parse_files",
    "parse_manifest",
    "parse_parameters",
    "parse_run",
    "raw_bytes",
]

_KNOWN: Final = "argv manifest parameters env cwd stdin files collect limits stream detach fds learn".split()
_MAX_PARAMETERS: Final = 32


@dataclass(frozen=True, slots=True)
class RunArguments:
    """What a run was asked for. Paths, words and variables are bytes, as the kernel has them.

    `manifest`: a digest, an inline map, or None for the built-in default. `stdin` None with `stream`: data frames feed
    it, unless descriptor 0 was passed; None without: empty. `learn`: a learning run. `parameters`: what is filled into
    the manifest, unread.
    """

    argv: tuple[bytes, ...]
    manifest: str | Mapping[str, object] | None
    env: Mapping[bytes, bytes]
    cwd: bytes | None
    stdin: bytes | None
    files: Mapping[bytes, bytes]
    collect: tuple[str, ...]
    limits: Mapping[str, object] | None
    stream: bool
    detach: bool
    fds: tuple[int, ...]
    learn: bool = False
    parameters: Mapping[str, object] | None = None

    @property
    def fed(self) -> bool:
        """Whether data frames feed its stdin."""
        return self.stream and self.stdin is None and 0 not in self.fds

    @property
    def shown(self) -> str:
        """The command in a line for people, bounded."""
        line = b" ".join(self.argv[:16]).decode("utf-8", "backslashreplace")
        return "".join(one if one.isprintable() else "\ufffd" for one in line[:120])


def parse_run(args: Mapping[str, object], where: str = "args") -> RunArguments:
    """Raises Refused `bad_argument` or `unknown_field`, naming the field; `where` is how messages call the map."""
    fields = take(args, where, _KNOWN)
    fds = _descriptors(fields)
    if 0 in fds and "stdin" in fields:
        raise fields.wrong("stdin", "is given, and descriptor 0 is passed too", "choose one")
    return RunArguments(
        argv=tuple(raw_bytes(fields, "argv", word) for word in fields.required("argv", list)),
        manifest=parse_manifest(fields),
        env=parse_environment(fields),
        cwd=raw_bytes(fields, "cwd", fields.values["cwd"]) if "cwd" in fields else None,
        stdin=fields.optional("stdin", bytes),
        files=parse_files(fields),
        collect=_collect(fields),
        limits=fields.optional("limits", dict),
        stream=fields.optional("stream", bool) or False,
        detach=fields.optional("detach", bool) or False,
        fds=fds,
        learn=fields.optional("learn", bool) or False,
        parameters=parse_parameters(fields),
    )


def parse_manifest(fields: Fields) -> str | Mapping[str, object] | None:
    """`manifest`: a digest, an inline map, or None. Raises Refused `bad_argument`."""
    value = fields.values.get("manifest")
    if value is None or isinstance(value, str | dict):
        return value
    raise fields.wrong("manifest", f"is {kind_of(value)}", "`sha256:<hex>` of a loaded manifest, or a map")


def parse_parameters(fields: Fields) -> dict[str, object] | None:
    """`parameters`: a map; what each may be is the manifest's to say. Raises Refused `bad_argument`."""
    return fields.sized("parameters", dict, 0, _MAX_PARAMETERS)


def parse_environment(fields: Fields) -> dict[bytes, bytes]:
    """`env` in bytes. Raises Refused `bad_argument`."""
    given = fields.optional("env", dict) or {}
    return {name.encode(): raw_bytes(fields, "env", value) for name, value in given.items()}


def parse_files(fields: Fields) -> dict[bytes, bytes]:
    """`files`: contents by path. Raises Refused `bad_argument`."""
    found = {}
    for path, content in (fields.optional("files", dict) or {}).items():
        if type(content) is not bytes:
            raise fields.wrong("files", f"holds {kind_of(content)} for {shown(path)}", "contents are bin")
        found[path.encode()] = content
    return found


def _collect(fields: Fields) -> tuple[str, ...]:
    paths = fields.optional("collect", list) or []
    for path in paths:
        if not isinstance(path, str):
            raise fields.wrong("collect", f"holds {kind_of(path)}", "paths to bring back are UTF-8 str")
    return tuple(paths)


def _descriptors(fields: Fields) -> tuple[int, ...]:
    fds = fields.sized("fds", list, 0, 3) or []
    if any(type(fd) is not int or not 0 <= fd <= 2 for fd in fds) or len(set(fds)) != len(fds):
        raise fields.wrong("fds", "is not a list out of 0, 1 and 2, each once")
    return tuple(fds)


def raw_bytes(fields: Fields, name: str, value: object) -> bytes:
    """A str or bin as bytes; `name` is the field. Raises Refused `bad_argument`."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise fields.wrong(name, f"holds {kind_of(value)}, not a str or bin")
