"""`immure learn`: run a command once, and write the manifest that allows what it did."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from immured.cli.exits import status_of
from immured.cli.flags import Flags, compile_order, settings_of
from immured.cli.run import Running, _explain, _failure, ended_by_us, leave, standard_input, violation_lines, writer
from immured.cli.say import note
from immured.cli.session import connect
from immured.cli.target import connection_options
from immured.errors import ConfigurationError
from immured.isolation.seccomp import preload
from immured.learning.grants import Grants, grants_of
from immured.learning.host import Host, roots
from immured.learning.secret import IN_HOME
from immured.learning.write import Learned, manifest_text, profile_of
from immured.manifest.builtin import load_classes, parse_map, parse_toml
from immured.manifest.parameters import filled_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from immured.client import RunResult

__all__ = ["learn"]

ROOMY = {"memory": "4G", "disk": "2G", "wall": "1h", "pids": 4096, "files": 65536}
"""Limits of a run whose needs are still to be measured."""


@click.command(cls=Running, context_settings={"allow_interspersed_args": False})
@click.argument("command", metavar="-- CMD...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "-o", "--output", metavar="FILE", default="learned.toml", show_default=True, help="The manifest to write."
)
@click.option("--manifest", metavar="F", help="Begin with this manifest, a TOML file: what it says is kept.")
@click.option("--set", "settings", metavar="N=V", multiple=True, help="Fill in that manifest's parameter N meanwhile.")
@click.option("--merge", is_flag=True, help="Begin with what FILE says already, and add to it.")
@click.option("--force", is_flag=True, help="Write FILE anew where it exists.")
@click.option(
    "--see", metavar="DIR", multiple=True, help="Show this directory too: of /var, /tmp, /run nothing is shown."
)
@click.option("--env", metavar="K[=V]", multiple=True, help="Set a variable; without =V, pass yours on.")
@click.option("--memory", metavar="SIZE", help="How much memory it may use meanwhile.")
@click.option("--wall", metavar="TIME", help="How long it may take.")
@click.option("--pids", metavar="N", type=click.IntRange(1), help="How many tasks at once.")
@click.option("--disk", metavar="SIZE", help="How much it may write in all.")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
@connection_options
def learn(
    command: tuple[str, ...], output: str, manifest: str | None, settings: tuple[str, ...], merge: bool, force: bool,
    see: tuple[str, ...], env: tuple[str, ...],
    memory: str | None, wall: str | None, pids: int | None, disk: str | None, quiet: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Run a command once and write the manifest that lets it run.

    It sees what you may read, but for what looks like secrets; what it writes goes to a layer that ends with it; system
    calls that no profile has, but the walls allow, are carried out. All of it is noted. Network there is none but its
    own loopback. Nothing of yours is changed.

    Read the manifest before you rely on it: it grants what this one run asked for, and nothing tells what it asked for
    in good faith. Exits as the command did; 125 when it did not run, or the manifest could not be written.

    \b
      immure learn -o test.toml -- make test
      immure run --manifest test.toml -- make test
    """
    preload()  # as a user we become, we may not reach the package's files
    load_classes()
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        here = Path.cwd()
        target = _target(here / output, merge=merge, force=force)
        base = _base(here, str(target) if merge and target.exists() else manifest)
        said = _filled(base, settings)
        flags = Flags(env=env, memory=memory, wall=wall, pids=pids, disk=disk)
        order = compile_order(flags, here)
        home = _home()
        shown = roots(str(here), home, tuple(os.path.normpath(here / one) for one in see))
        cwd = str(here) if any(here.is_relative_to(one) for one in shown) else None
        ended_by_us()
        result = client.run(
            list(command), manifest=_wide(said, shown, home, flags), env=order.env or None,
            cwd=_given_cwd(said) or cwd, stdin=standard_input(), on_stdout=writer(1), on_stderr=writer(2), learn=True,
        )  # fmt: skip
    if result.failure is None:
        found = _found(result, command, said, shown, home, cwd)
        _write(target, manifest_text(found, base))
        if not quiet:
            _summarise(result, found, base, target)
    else:
        _explain(result, flags, quiet)
    leave(status_of(result.cause, result.exit_code, result.signal, _failure(result)))


def _home() -> str | None:
    """The caller's: HOME where it is theirs, which it is not for root that acts for somebody; else what passwd says."""
    said = os.environ.get("HOME", "")
    try:
        if Path(said).stat().st_uid != os.geteuid():
            said = pwd.getpwuid(os.geteuid()).pw_dir
    except (OSError, KeyError, ValueError):
        return None
    home = os.path.normpath(said)
    return home if home.startswith("/") and home != "/" else None


def _target(path: Path, *, merge: bool, force: bool) -> Path:
    """Where the manifest goes; raised is, before anything runs, what would keep it from getting there."""
    path = Path(os.path.normpath(path))
    if path.is_dir() or not path.name:
        raise ConfigurationError("bad_path", f"{path} is a directory", "name the manifest's file: --output FILE")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConfigurationError("bad_path", f"{path.parent} is no directory that you may write to", "name another one")
    if path.exists() and not (merge or force):
        raise ConfigurationError("exists", f"{path} exists", "--merge adds to it, --force writes it anew")
    return path


def _base(here: Path, file: str | None) -> dict[str, object]:
    if file is None:
        return {}
    order = compile_order(Flags(manifest=file), here, by_digest=False)
    if not isinstance(order.manifest, dict):
        raise ConfigurationError("usage", "a loaded manifest cannot be added to", "give a manifest's file")
    return order.manifest


def _filled(base: Mapping[str, object], settings: tuple[str, ...]) -> Mapping[str, object]:
    """What the base says for this run: what it leaves to be filled in stays so in what is written."""
    given = settings_of(settings)
    return filled_map(parse_map(base), given) if given or base.get("parameters") else base


def _given_cwd(base: Mapping[str, object]) -> str | None:
    command = base.get("command")
    given = command.get("cwd") if isinstance(command, dict) else None
    return given if isinstance(given, str) else None


def _wide(base: Mapping[str, object], shown: list[str], home: str | None, flags: Flags) -> dict[str, object]:
    """The manifest of the learning run itself: the base's, and everything that is shown, each written to a layer."""
    filesystem = _table(base, "filesystem")
    taken = {*_places(filesystem, "read"), *_places(filesystem, "write")}
    filesystem["write"] = [*_entries(filesystem, "write"), *(one for one in shown if one not in taken)]
    hidden = [f"{home}/{name}" for name in IN_HOME] if home else []
    filesystem["hide"] = [*_entries(filesystem, "hide"), *(one for one in hidden if os.path.lexists(one))]
    return {
        "schema": 1,
        "name": "learning",
        **base,
        "filesystem": filesystem,
        "limits": {**ROOMY, **_table(base, "limits"), **flags.limits()},
        "network": {"mode": "loopback"},
    }


def _found(
    result: RunResult, command: tuple[str, ...], base: Mapping[str, object], shown: list[str], home: str | None,
    cwd: str | None,
) -> Learned:  # fmt: skip
    said = result.raw.get("learned")
    learned: dict[str, Any] = said if isinstance(said, dict) else {}
    filesystem = _table(base, "filesystem")
    reading, writing = (_places(filesystem, name) for name in ("read", "write"))
    paths = {name: list(rows) for name, rows in dict(learned.get("paths", {})).items()}
    if "/" in command[0]:  # the sandbox executes it before anything is noted
        paths.setdefault("exec", []).append(os.path.normpath(Path(cwd or "/") / command[0]))
    grants = grants_of(paths, shown, home, Host(), reading, writing)
    places = [*grants.read, *grants.write, *grants.exists]
    stands = cwd is not None and any(_near(cwd, one) for one in places)
    return Learned(
        command=command,
        ended=result.summary if result.cause == "exited" else f"{result.cause}: {result.summary}",
        cwd=cwd if stands else None,
        grants=grants,
        calls=list(learned.get("calls", [])),
        addresses=list(learned.get("addresses", [])),
        usage=result.usage,
        enforcement=result.enforcement,
        cut=bool(learned.get("cut")) or "unexplained" in result.events,
    )


def _near(one: str, other: str) -> bool:
    return Path(other).is_relative_to(one) or Path(one).is_relative_to(other)


def _write(target: Path, text: str) -> None:
    """Whole or not at all. Raises Refused where we wrote what no daemon would read."""
    parse_toml(text)
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink()
        raise


def _summarise(result: RunResult, found: Learned, base: Mapping[str, object], target: Path) -> None:
    grants: Grants = found.grants
    profile, allow = profile_of(found.calls, _table(base, "syscalls"))
    note(f"learned {target}: {result.summary}")
    note(
        f"reads {len(grants.read)}, writes {len(grants.write)}, profile {profile}"
        + (f" and {', '.join(allow)}" if allow else "")
    )
    for path, why in sorted(grants.withheld.items())[:8]:
        note(f"not granted: {path} ({why})")
    for line in violation_lines(result):
        note(line)
    if found.cut:
        note("it asked for more than could be noted: learn again with --merge")


def _table(base: Mapping[str, object], name: str) -> dict[str, Any]:
    value = base.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _entries(table: Mapping[str, Any], name: str) -> list[Any]:
    value = table.get(name)
    return list(value) if isinstance(value, list) else []


def _places(filesystem: Mapping[str, Any], name: str) -> list[str]:
    """Where the entries of `read` or `write` stand inside. What the schema does not allow, the daemon names."""
    entries = _entries(filesystem, name)
    return [str(one.get("target", one.get("path"))) if isinstance(one, dict) else str(one) for one in entries]
