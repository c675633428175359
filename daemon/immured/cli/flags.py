"""The options that `run` and `plan` share, and the run's arguments and inline manifest that they come to. Pure but for
the manifest's file."""

from __future__ import annotations

import os
import re
import tomllib  # not where a manifest is read: by then we may be a user who cannot read the interpreter's library
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from immured.cli.paths import Bound, inside, parse_bound, wire_text
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LIMITS", "Flags", "Order", "compile_order", "run_options"]

LIMITS = ("memory", "cpus", "pids", "wall", "cpu_time", "disk", "files", "output", "cores", "pin")
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
        click.option("--memory", metavar="SIZE", help="How much memory: 512M."),
        click.option("--cwd", metavar="DIR", help="Where it starts, inside."),
        click.option("--env", metavar="K[=V]", multiple=True, help="Set a variable; without =V, pass yours on."),
        click.option("--rootfs", metavar="DIR", help="This directory as / instead of the host's programs."),
        click.option("--tmpfs", metavar="DIR", multiple=True, help="An empty private directory in memory."),
        click.option("--rw", metavar="P[:T]", multiple=True, help="Let it write P (made if missing). T: where inside."),
        click.option("--ro", metavar="P[:T]", multiple=True, help="Let it read P. T: where inside."),
        click.option("--manifest", metavar="F", help="A manifest: a TOML file, or sha256:... of a loaded one."),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Flags:
    """The options as click gives them."""

    manifest: str | None = None
    ro: tuple[str, ...] = ()
    rw: tuple[str, ...] = ()
    tmpfs: tuple[str, ...] = ()
    rootfs: str | None = None
    env: tuple[str, ...] = ()
    cwd: str | None = None
    memory: str | None = None
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
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    limits: Mapping[str, object] = field(default_factory=dict)
    writable: tuple[Bound, ...] = ()


def compile_order(flags: Flags, here: Path, environment: Mapping[str, str] = os.environ) -> Order:
    """The flags as one order. `here` is the caller's current directory: relative paths start there.

    Without --manifest the flags are the whole inline manifest. With a file they are added to it. With the digest of a
    loaded one only env, cwd and tighter limits can be. Raises ConfigurationError `bad_path`, `bad_manifest`, `usage`.
    """
    reading = [parse_bound(text, here) for text in flags.ro]
    writing = [parse_bound(text, here) for text in flags.rw]
    cwd = _cwd(flags.cwd, here, [*reading, *writing])
    env = dict(_variable(text, environment) for text in flags.env)
    limits = flags.limits() | ({"strict": True} if flags.strict else {})
    additions = _filesystem(flags, reading, writing, here)
    if flags.manifest is None:
        manifest: str | Mapping[str, object] | None = None
        if additions or limits or flags.network:
            manifest = _inline(additions, limits, flags.network)
        return Order(manifest, env, cwd, {}, tuple(writing))
    if DIGEST.fullmatch(flags.manifest):
        if additions or flags.network:
            raise ConfigurationError(
                "usage", "a loaded manifest says itself what is read, written and reached",
                "leave out --ro, --rw, --tmpfs, --rootfs and --network, or give a manifest's file",
            )  # fmt: skip
        return Order(flags.manifest, env, cwd, limits)
    return Order(_amended(_read(here / flags.manifest), additions, flags.network), env, cwd, limits, tuple(writing))


def _inline(additions: Mapping[str, object], limits: Mapping[str, object], network: str | None) -> dict[str, object]:
    manifest: dict[str, object] = {"schema": 1, "name": "command-line", "class": "default"}
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


def _filesystem(flags: Flags, reading: list[Bound], writing: list[Bound], here: Path) -> dict[str, object]:
    made: dict[str, object] = {
        "read": [bound.as_manifest() for bound in reading],
        "write": [bound.as_manifest() for bound in writing],
        "tmpfs": [wire_text(os.path.normpath(here / path)) for path in flags.tmpfs],
    }
    if flags.rootfs is not None:
        made["root"] = wire_text(os.path.normpath(here / flags.rootfs))
    return {name: value for name, value in made.items() if value}


def _cwd(given: str | None, here: Path, bounds: list[Bound]) -> str | None:
    """--cwd is a place inside; a relative one starts where the current directory is seen inside."""
    seen = inside(here, bounds)
    if given is None:
        return seen
    if given.startswith("/"):
        return given
    return os.path.normpath(Path(seen or here) / given)


def _variable(text: str, environment: Mapping[str, str]) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name:
        raise ConfigurationError("usage", f"--env {text!r} names no variable", "write --env NAME=VALUE, or --env NAME")
    if separator:
        return name, value
    if name not in environment:
        raise ConfigurationError("usage", f"--env {name}: there is no such variable here", "write --env NAME=VALUE")
    return name, environment[name]


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_MANIFEST + 1)
    except OSError as failed:
        raise ConfigurationError(
            "bad_manifest", f"{path}: {failed.strerror}", "name a TOML file, or sha256:<hex> of a loaded manifest"
        ) from failed
    if len(text) > MAX_MANIFEST:
        raise ConfigurationError("bad_manifest", f"{path} is larger than {MAX_MANIFEST} bytes", "shorten it")
    try:
        # Floats do not travel; what has one (cpus = 1.5) may be written as text.
        return tomllib.loads(text.decode(), parse_float=str)
    except (ValueError, RecursionError) as failed:
        reason = "nested too deeply" if isinstance(failed, RecursionError) else str(failed)
        raise ConfigurationError("bad_manifest", f"{path}: {reason}", "docs/manifest.md shows the form") from failed
