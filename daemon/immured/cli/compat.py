"""`immure compat`: the command lines of other sandboxes' helpers, run here. docs/adapters.md."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from immured.adapters.show import finding_lines
from immured.adapters.standing import with_cwd
from immured.cli.exits import status_of
from immured.cli.flags import Flags
from immured.cli.paths import wire_text
from immured.cli.placeholders import held
from immured.cli.run import Running, _explain, _failure, leave, standard_input, writer
from immured.cli.say import note
from immured.cli.session import connect
from immured.cli.surroundings import Here
from immured.cli.target import connection_options
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from types import FrameType

    from immured.adapters.imported import Imported

__all__ = ["compat", "wire"]

_SAID = {"none": (), "lost": ("lost", "looser"), "all": ("lost", "looser", "stricter", "maps")}
_OURS = "IMMURE_"
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Words(Running):
    """Every word is the tool's, `--` and `--help` too."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = tuple(args)
        return []


@dataclass(frozen=True)
class Asked:
    """What stands before the tool's name."""

    connection: Mapping[str, str | None]
    limits: Mapping[str, object]
    without_network: bool
    say: str


@click.group(no_args_is_help=True)
@click.option("--memory", metavar="SIZE", envvar="IMMURE_COMPAT_MEMORY", help="How much memory instead of 8G.")
@click.option("--pids", metavar="N", type=click.IntRange(1), envvar="IMMURE_COMPAT_PIDS", help="Tasks instead of 4096.")
@click.option("--cpus", metavar="N", envvar="IMMURE_COMPAT_CPUS", help="How many processors: 1.5.")
@click.option("--wall", metavar="TIME", envvar="IMMURE_COMPAT_WALL", help="How long it may take; else as it likes.")
@click.option(
    "--without-network", is_flag=True, envvar="IMMURE_COMPAT_WITHOUT_NETWORK",
    help="Run without what asks for a network, instead of refusing it.",
)  # fmt: skip
@click.option(
    "--say", type=click.Choice(sorted(_SAID)), default="lost", show_default=True, envvar="IMMURE_COMPAT_SAY",
    help="What of the policy's translation is said on stderr.",
)  # fmt: skip
@connection_options
@click.pass_context
def compat(
    ctx: click.Context, /, memory: str | None, pids: int | None, cpus: str | None, wall: str | None,
    without_network: bool, say: str, **connection: str | None,
) -> None:  # fmt: skip
    """Take another sandbox's command line, and run the command here.

    Called by the tool's own name, through a link, immure does the same: ln -s $(which immure) codex-linux-sandbox.
    Which daemon, as whom and in which limits is said before the tool's name, or by variables: IMMURE_SOCKET,
    IMMURE_KEY, IMMURE_COMPAT_MEMORY and so on.
    """
    limits = {"memory": memory, "pids": pids, "cpus": cpus, "wall": wall}
    given = {name: value for name, value in limits.items() if value is not None}
    ctx.obj = Asked(connection, given, without_network, say)


@compat.command("codex-linux-sandbox", cls=Words, add_help_option=False)
@click.pass_obj
def codex(asked: Asked, words: tuple[str, ...]) -> None:
    """OpenAI Codex's Linux helper: --sandbox-policy-cwd DIR --permission-profile JSON -- COMMAND..."""
    from immured.adapters.codex import NETWORK, import_policy
    from immured.adapters.codex_words import policy_of, read_words
    from immured.adapters.imported import unsupported

    said = read_words(words)
    client = _client(asked)
    host = Here(said.values.get("--sandbox-policy-cwd"))
    imported = import_policy(policy_of(said, host), host)
    proxied = "--allow-network-for-proxy" in said.flags or "--managed-network" in said.values
    asks = proxied or any(one.source == NETWORK for one in imported.of("lost"))
    if asks and not asked.without_network:
        raise unsupported(
            "the policy lets the command reach " + ("Codex's proxy" if proxied else "the network"),
            "network_access = false; or do without: immure compat --without-network, IMMURE_COMPAT_WITHOUT_NETWORK=1",
        )
    if asks:
        imported = replace(imported, env={**imported.env, "CODEX_SANDBOX_NETWORK_DISABLED": "1"})
    cwd = os.path.realpath(said.values.get("--command-cwd", "."))
    _run(client, asked, with_cwd(replace(imported, cwd=cwd), host), said.command, "Codex")


@compat.command("srt", cls=Words, add_help_option=False)
@click.pass_obj
def srt(asked: Asked, words: tuple[str, ...]) -> None:
    """Anthropic's sandbox-runtime: [-s SETTINGS] [-c LINE] [COMMAND...]"""
    from immured import __version__
    from immured.adapters.srt import import_settings, shell
    from immured.adapters.srt_settings import DEFAULT, read_settings
    from immured.adapters.srt_words import read_words

    said = read_words(words)
    if said.flags & {"help", "version"}:
        click.echo(f"srt, served by immure {__version__}: srt [-d] [-s SETTINGS] [-c LINE] [COMMAND...]")
        return
    client = _client(asked)
    host = Here()
    text = _settings(said.settings, host)
    settings = DEFAULT if text is None else read_settings(text)
    imported = import_settings(settings, host)
    env = {name: value for name, value in host.environment.items() if name not in settings.unset}
    _run(client, asked, with_cwd(imported, host), shell(said.command, host), "srt", env)


def _settings(given: str | None, host: Here) -> str | None:
    """The settings' text; None where srt has its default. A file that was named is never passed over."""
    path = Path(given) if given is not None else Path(host.home, ".srt-settings.json")
    if given is None and not path.exists():
        return None
    text = host.text(str(path))
    if text is None:
        raise ConfigurationError("bad_path", f"{path} cannot be read", "srt --settings FILE")
    return text if text.strip() or given is not None else None


def _client(asked: Asked) -> Any:
    """First of all: it may make us the user whom the paths of a policy are of."""
    return connect(*(asked.connection[name] for name in ("socket", "key_file", "daemon_key", "state", "as_user")))


def _run(
    client: Any, asked: Asked, imported: Imported, argv: tuple[str, ...], tool: str, env: Mapping[str, str] = os.environ
) -> None:
    """The command as it would have run there: our input, output and environment; exits as it did."""
    for line in finding_lines(imported, *_SAID[asked.say]):
        note(f"{tool}: {line}")
    limits = {**_table(imported.manifest, "limits"), **asked.limits}
    manifest = {**imported.manifest, "limits": limits}
    missing = [one for one in _table(imported.manifest, "filesystem").get("protect", ()) if isinstance(one, str)]
    passed = {name: value for name, value in env.items() if not name.startswith(_OURS)} | dict(imported.env)
    _stop_at_signals()
    try:
        with held(one for one in missing if one.startswith("/")), client:
            result = client.run(
                [wire(word) for word in argv], manifest=wire(manifest), env=wire(passed), cwd=wire(imported.cwd),
                stdin=standard_input(), on_stdout=writer(1), on_stderr=writer(2),
            )  # fmt: skip
    except _Stopped as stopped:
        leave(128 + stopped.number)
    _explain(result, Flags(), asked.say == "none")
    leave(status_of(result.cause, result.exit_code, result.signal, _failure(result)))


class _Stopped(BaseException):
    """A signal that ends us, as an exception: what is held is let go of on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _stop_at_signals() -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise _Stopped(number)

    for number in _ENDING:
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and a shell's background
            signal.signal(number, stop)


def wire(value: Any) -> Any:
    """A value as it travels: bytes where a text is not UTF-8, deeply."""
    if isinstance(value, str):
        return wire_text(value)
    if isinstance(value, Mapping):
        return {name: wire(inner) for name, inner in value.items()}
    return [wire(inner) for inner in value] if isinstance(value, list | tuple) else value


def _table(manifest: Mapping[str, object], name: str) -> dict[str, Any]:
    table = manifest.get(name)
    return dict(table) if isinstance(table, Mapping) else {}
