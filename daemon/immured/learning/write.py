"""The learned manifest as a file: what the run began with, what it needed beside that, and why, line by line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from immured.isolation.profiles import SHIPPED

if TYPE_CHECKING:
    from immured.learning.grants import Grants

__all__ = ["Learned", "manifest_text", "needs_network", "profile_of"]

_MIB: Final = 1 << 20
_SMALLEST: Final = ("compute", "default")  # shipped profiles, the smaller first


@dataclass(frozen=True, slots=True)
class Learned:
    """What one run showed. `usage`, `enforcement`, `calls`, `addresses`, `cut` are the result's."""

    command: Sequence[str]
    ended: str
    cwd: str | None
    grants: Grants
    calls: Sequence[str]
    addresses: Sequence[str]
    usage: Mapping[str, int]
    enforcement: Mapping[str, str]
    cut: bool


def profile_of(calls: Sequence[str], given: Mapping[str, object]) -> tuple[str, list[str]]:
    """The smallest shipped profile that suffices but for few calls, and those. One that the base names, it keeps, and
    what it allows as well."""
    kept = [str(one) for one in _list(given.get("allow"))]
    named = given.get("profile")
    names = (str(named),) if isinstance(named, str) else _SMALLEST
    beyond = {name: [call for call in calls if call not in SHIPPED[name].calls] for name in names}
    name = next((one for one in names if not beyond[one]), names[-1])
    return name, [*kept, *(call for call in beyond[name] if call not in kept and not call.startswith("#"))]


def needs_network(addresses: Sequence[str]) -> bool:
    """Whether any address was one of loopback's. What lies beyond is refused with an interface and without."""
    return any(one.startswith(("127.", "0.0.0.0:", "[::]:", "[::1]:", "[::ffff:127.")) for one in addresses)


def manifest_text(learned: Learned, base: Mapping[str, object]) -> str:
    """A TOML manifest of schema 1. `base` is a manifest's map, perhaps empty; what it says is kept, but for a network
    and a profile that it does not name."""
    given = {name: dict(value) if isinstance(value, Mapping) else value for name, value in base.items()}
    if given.get("parameters"):
        learned = _with_dollars(learned)
    out = [
        "# Learned from one run, and allows it: read it before you rely on it (docs/learning.md).",
        f"#   {_comment(' '.join(learned.command))}",
        f"# It ended with {_comment(learned.ended)}.",
    ]
    if learned.cut:
        out.append("# It asked for more than a learning run notes: this is not all. Learn again with --merge.")
    out += ["", "schema = 1"]
    top = {"name": "learned", "class": "default"} | {
        name: value for name, value in given.items() if not isinstance(value, dict) and name != "schema"
    }
    out += [f"{_value(name)} = {_value(value)}" if not name.isidentifier() else f"{name} = {_value(value)}"
            for name, value in top.items()]  # fmt: skip
    out += _command(learned, _table(given, "command"))
    out += _filesystem(learned.grants, _table(given, "filesystem"))
    out += _network(learned, _table(given, "network"))
    out += _limits(learned, _table(given, "limits"))
    out += _syscalls(learned, _table(given, "syscalls"))
    for name, table in given.items():
        if isinstance(table, dict) and name not in ("command", "filesystem", "network", "limits", "syscalls"):
            out += ["", f"[{name}]", *(_line(key, value) for key, value in table.items())]
    return "\n".join(out) + "\n"


def _with_dollars(learned: Learned) -> Learned:
    """Beside parameters a dollar is written twice."""

    def twice(rows: Mapping[str, str]) -> dict[str, str]:
        return {path.replace("$", "$$"): why for path, why in rows.items()}

    grants = learned.grants
    return replace(
        learned,
        cwd=None if learned.cwd is None else learned.cwd.replace("$", "$$"),
        grants=replace(
            grants,
            read=twice(grants.read),
            write=twice(grants.write),
            exists=twice(grants.exists),
            hide=twice(grants.hide),
        ),
    )


def _command(learned: Learned, given: dict[str, object]) -> list[str]:
    table = dict(given)
    if learned.cwd is not None:
        table.setdefault("cwd", learned.cwd)
    return ["", "[command]", *(_line(name, value) for name, value in table.items())] if table else []


def _filesystem(grants: Grants, given: dict[str, object]) -> list[str]:
    out = ["", "[filesystem]"]
    reading = [(path, why) for path, why in sorted(grants.read.items())]
    reading += [(path, f"{why}: known to be there, and shown empty") for path, why in sorted(grants.exists.items())]
    hiding = [(path, why) for path, why in sorted(grants.hide.items())]
    hiding += [(path, "only known to be there") for path in sorted(grants.exists)]
    writing = sorted(grants.write.items())
    for name, rows in (("read", reading), ("write", writing), ("hide", hiding)):
        own = _list(given.pop(name, []))
        new = [(path, why) for path, why in rows if path not in own]
        if own or new:
            out.append(f"{name} = [")
            out += [f"  {_value(one)}," for one in own]
            out += [f"  {_value(path)},  # {_comment(why)}" for path, why in new]
            out.append("]")
    out += [_line(name, value) for name, value in given.items()]
    if grants.withheld:
        out.append("# Asked for and not granted; decide yourself:")
        out += [f"#   {_comment(path)}  {_comment(why)}" for path, why in sorted(grants.withheld.items())]
    return out if len(out) > 2 else []


def _network(learned: Learned, given: dict[str, object]) -> list[str]:
    if given:
        return ["", "[network]", *(_line(name, value) for name, value in given.items())]
    if needs_network(learned.addresses):
        return ["", "[network]", f'mode = "loopback"  # {_comment(", ".join(learned.addresses[:4]))}']
    return ["", "[network]", 'mode = "none"  # it used no address of its own']


def _limits(learned: Learned, given: dict[str, object]) -> list[str]:
    """Measured figures with headroom, where nothing else was said: three times the times, twice the sizes."""
    usage = learned.usage
    lines: list[tuple[str, object, str]] = []
    if "wall_ms" in usage:
        lines.append(("wall", f"{_seconds(usage['wall_ms'], 10)}s", f"took {usage['wall_ms']} ms"))
    if "cpu_ms" in usage:
        lines.append(("cpu_time", f"{_seconds(usage['cpu_ms'], 5)}s", f"used {usage['cpu_ms']} ms"))
    peak = usage.get("memory_peak_bytes")
    if peak is not None and learned.enforcement.get("memory", "").startswith("cgroup"):
        size = max(64, -(-2 * peak // (64 * _MIB)) * 64)
        lines.append(("memory", f"{size}M", f"peaked at {-(-peak // _MIB)} MiB"))
    if "pids_peak" in usage:
        lines.append(("pids", max(16, 2 * usage["pids_peak"]), f"{usage['pids_peak']} at once"))
    out = [_line(name, value) for name, value in given.items()]
    out += [f"{name} = {_value(value)}  # {why}" for name, value, why in lines if name not in given]
    return ["", "[limits]", *out] if out else []


def _syscalls(learned: Learned, given: dict[str, object]) -> list[str]:
    profile, allow = profile_of(learned.calls, given)
    out = ["", "[syscalls]", f"profile = {_value(profile)}"]
    if allow:
        out += ["allow = [", *(f"  {_value(call)},  # beyond the profile" for call in allow), "]"]
    return out + [_line(name, value) for name, value in given.items() if name not in ("profile", "allow")]


def _seconds(milliseconds: int, least: int) -> int:
    return max(least, -(-3 * milliseconds // 1000))


def _table(given: Mapping[str, object], name: str) -> dict[str, object]:
    table = given.get(name)
    return dict(table) if isinstance(table, dict) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _line(name: str, value: object) -> str:
    return f"{name if name.replace('-', '_').isidentifier() else _value(name)} = {_value(value)}"


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(_line(str(name), inner) for name, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, int):
        return str(value)
    # A TOML basic string is JSON's, but that DEL is escaped too.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """One line, whatever a program called its files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)[:200]
