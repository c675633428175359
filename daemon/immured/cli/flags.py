"""The options that `run` and `plan` share, and the run's arguments and inline manifest that they come to. Pure but for
the manifest's file."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from immured.cli.bounded import read_file
from immured.cli.paths import Bound, inside, parse_bound, wire_text
from immured.errors import ConfigurationError

# Not where a manifest is read: by then we may be a user who cannot read the interpreter's library.
from immured.wire.strict_toml import parse_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = [
    "LIMITS",
    "Flags",
    "Order",
    "compile_order",
    "read_manifest_bytes",
    "run_options",
    "settings_of",
    "variables",
]

LIMITS = ("memory", "swap", "cpus", "pids", "wall", "cpu_time", "disk", "files", "output", "cores", "pin")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MAX_MANIFEST = 256 * 1024

F = TypeVar("F", bound="Callable[..., Any]")


def run_options(command: F) -> F:
    """Adds what says what a run may do. The command takes them as keywords: `Flags(**keywords)`."""
    for option in (
        click.option("--network", type=click.Choice(["none", "loopback"]), help="No interface at all, or lo alone."),
        click.option("--strict", is_flag=True, help="Refuse rather than enforce a limit by a weaker means."),
        click.option("--output", metavar="SIZE", help="How much it may write to stdout and stderr together."),
        click.option("--files", metavar="N", type=click.IntRange(1), help="How many files it may have open."),
        click.option("--disk", metavar="SIZE", help="How much its private /tmp may hold."),
        click.option("--cpu-time", metavar="TIME", help="Processor time of all its processes."),
        click.option("--wall", metavar="TIME", help="How long it may take: 500ms, 60s, 1.5h."),
        click.option("--pids", metavar="N", type=click.IntRange(1), help="How many tasks at once."),
        click.option("--pin", metavar="N", type=click.IntRange(1), help="N processors that no other run so pins."),
        click.option("--cores", metavar="LIST", help="On which processors: 2, 0-1, 0-3,6."),
        click.option("--cpus", metavar="N", help="How many processors: 1.5."),
        click.option("--swap", metavar="SIZE", help="How much of it beside that may be swapped out: 0."),
        click.option("--memory", metavar="SIZE", help="How much memory: 512M."),
        click.option("--cwd", metavar="DIR", help="Where it starts, inside."),
        click.option("--env", metavar="K[=V]", multiple=True, help="Set a variable; without =V, pass yours on."),
        click.option("--volume", "volumes", metavar="N:T", multiple=True, help="The volume N, at T inside."),
        click.option("--image", metavar="D", help="An image as /: sha256:..., as `immure image list` has it."),
        click.option("--rootfs", metavar="DIR", help="This directory as / instead of the host's programs."),
        click.option("--tmpfs", metavar="DIR", multiple=True, help="An empty private directory in memory."),
        click.option("--capture", metavar="P[:T]", multiple=True, help="As --rw, to a layer: see `immure changes`."),
        click.option("--rw", metavar="P[:T]", multiple=True, help="Let it write P (made if missing). T: where inside."),
        click.option("--ro", metavar="P[:T]", multiple=True, help="Let it read P. T: where inside."),
        click.option("--set", "settings", metavar="N=V", multiple=True, help="Fill in the manifest's parameter N."),
        click.option(
            "--class", "class_", metavar="C", help="Begin with this class: strict, build, ... (docs/manifest)."
        ),
        click.option("--manifest", metavar="F", help="A manifest: a TOML file, or sha256:... of a loaded one."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Flags:
    """The options as click gives them."""

    manifest: str | None = None
    class_: str | None = None
    settings: tuple[str, ...] = ()
    ro: tuple[str, ...] = ()
    rw: tuple[str, ...] = ()
    capture: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    rootfs: str | None = None
    image: str | None = None
    volumes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    cwd: str | None = None
    memory: str | None = None
    swap: str | None = None
    cpus: str | None = None
    pids: int | None = None
    wall: str | None = None
    cpu_time: str | None = None
    disk: str | None = None
    files: int | None = None
    output: str | None = None
    cores: str | None = None
    pin: int | None = None
    strict: bool = False
    network: str | None = None

    def limits(self) -> dict[str, object]:
        """The limits that were given, by their names in a manifest."""
        given = {name: getattr(self, name) for name in LIMITS}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Order:
    """What `run` and `plan` send beside argv. `manifest`: a digest, a map, or None for the daemon's default.

    `writable` are the host paths of --rw, which the caller makes before the run where they are missing.
    """

    manifest: str | Mapping[str, object] | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    limits: Mapping[str, object] = field(default_factory=dict)
    writable: tuple[Bound, ...] = ()


def compile_order(
    flags: Flags, here: Path, environment: Mapping[str, str] = os.environ, *, by_digest: bool = True
) -> Order:
    """The flags as one order. `here` is the caller's current directory: relative paths start there.

    Without --manifest the flags are the whole inline manifest. With a file they are added to it. With the digest of a
    loaded one only env, cwd and tighter limits can be. A file with signatures beside it (F.sig), to which nothing is
    added, is named by its digest; `by_digest` False: it is sent like any other. Raises ConfigurationError `bad_path`,
    `bad_manifest`, `usage`.
    """
    reading = [parse_bound(text, here) for text in flags.ro]
    writing = [parse_bound(text, here) for text in flags.rw]
    captured = [parse_bound(text, here) for text in flags.capture]
    cwd = _cwd(flags.cwd, here, [*reading, *writing, *captured])
    env = variables(flags.env, environment)
    limits = flags.limits() | ({"strict": True} if flags.strict else {})
    additions = _filesystem(flags, reading, writing, captured, here)
    settings = settings_of(flags.settings)
    if flags.manifest is None:
        manifest: str | Mapping[str, object] | None = None
        if additions or limits or flags.network or flags.class_:
            manifest = _inline(flags.class_, additions, limits, flags.network)
        return Order(manifest, settings, env, cwd, {}, tuple(writing))
    if flags.class_:
        raise ConfigurationError("usage", "--class beside --manifest", "the manifest names its class itself")
    if DIGEST.fullmatch(flags.manifest):
        if additions or flags.network:
            raise ConfigurationError(
                "usage", "a loaded manifest says itself what is read, written and reached",
                "leave out --ro, --rw, --capture, --tmpfs, --volume, --image, --rootfs and --network, or name a file",
            )  # fmt: skip
        return Order(flags.manifest, settings, env, cwd, limits)
    file = here / flags.manifest
    whole = not additions and not flags.network
    if by_digest and whole and os.access(f"{file}.sig", os.F_OK):
        return Order("sha256:" + hashlib.sha256(read_manifest_bytes(file)).hexdigest(), settings, env, cwd, limits)
    amended = _amended(_read(file), additions, flags.network)
    return Order(amended, settings, env, cwd, limits, tuple(writing))


def _inline(
    class_: str | None, additions: Mapping[str, object], limits: Mapping[str, object], network: str | None
) -> dict[str, object]:
    manifest: dict[str, object] = {"schema": 1, "name": "command-line", "class": class_ or "default"}
    if additions:
        manifest["filesystem"] = dict(additions)
    if limits:
        manifest["limits"] = dict(limits)
    if network:
        manifest["network"] = {"mode": network}
    return manifest


def _amended(manifest: dict[str, object], additions: Mapping[str, object], network: str | None) -> dict[str, object]:
    """The file's manifest, the flags' paths behind its own. What the schema does not allow, the daemon names."""
    given = manifest.get("filesystem", {})
    if additions and isinstance(given, dict):
        merged = dict(given)
        for name, value in additions.items():
            own = merged.get(name, [])
            merged[name] = [*own, *value] if isinstance(own, list) and isinstance(value, list) else value
        manifest = {**manifest, "filesystem": merged}
    return {**manifest, "network": {"mode": network}} if network else manifest


def _filesystem(
    flags: Flags, reading: list[Bound], writing: list[Bound], captured: list[Bound], here: Path
) -> dict[str, object]:
    made: dict[str, object] = {
        "read": [bound.as_manifest() for bound in reading],
        "write": [bound.as_manifest() for bound in writing],
        "capture": [bound.as_manifest() for bound in captured],
        "tmpfs": [wire_text(os.path.normpath(here / path)) for path in flags.tmpfs],
    }
    if flags.volumes:
        made["volumes"] = [_volume(text) for text in flags.volumes]
    if flags.image is not None:
        made["root"] = f"image:{flags.image.removeprefix('image:')}"
    if flags.rootfs is not None:
        made["root"] = wire_text(os.path.normpath(here / flags.rootfs))
    return {name: value for name, value in made.items() if value}


def _volume(text: str) -> dict[str, object]:
    name, separator, target = text.partition(":")
    if not separator or not name or not target:
        raise ConfigurationError("usage", f"--volume {text!r} says no place", "write --volume NAME:TARGET")
    return {"name": name, "target": wire_text(target)}


def _cwd(given: str | None, here: Path, bounds: list[Bound]) -> str | None:
    """--cwd is a place inside; a relative one starts where the current directory is seen inside."""
    seen = inside(here, bounds)
    if given is None:
        return seen
    if given.startswith("/"):
        return given
    return os.path.normpath(Path(seen or here) / given)


def variables(given: Iterable[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What --env says: `K=V`, or `K` for our own. Raises ConfigurationError `usage`."""
    return dict(_variable(text, environment) for text in given)


def settings_of(given: Iterable[str]) -> dict[str, str]:
    """What --set says. Raises ConfigurationError `usage`."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ConfigurationError("usage", f"--set {text!r} fills nothing in", "write --set NAME=VALUE")
        if name in found:
            raise ConfigurationError("usage", f"--set fills {name} in twice", "write --set NAME=VALUE once for each")
        if not value.isprintable():
            raise ConfigurationError("usage", f"--set {text!r} holds what is no text", "write --set NAME=VALUE")
        found[name] = value
    return found


def _variable(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name:
        raise ConfigurationError("usage", f"--env {text!r} names no variable", "write --env NAME=VALUE, or --env NAME")
    if separator:
        return name, value
    if name not in environment:
        raise ConfigurationError("usage", f"--env {name}: there is no such variable here", "write --env NAME=VALUE")
    return name, environment[name]


def read_manifest_bytes(path: Path) -> bytes:
    """A manifest's file. Raises ConfigurationError `bad_manifest`."""
    return read_file(path, MAX_MANIFEST, "bad_manifest", "name a TOML file, or sha256:<hex> of a loaded manifest")


def _read(path: Path) -> dict[str, object]:
    text = read_manifest_bytes(path)
    try:
        # Floats do not travel; what has one (cpus = 1.5) may be written as text.
        return parse_toml(text, parse_float=str)
    except ValueError as failed:
        raise ConfigurationError("bad_manifest", f"{path}: {failed}", "docs/manifest.md shows the form") from failed
