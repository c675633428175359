"""`immure policy`: look at a policy before it is in force, put it in force, and ask the one that is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from immured.cli.say import json_text, note, printable
from immured.cli.target import connection_options
from immured.errors import ConfigurationError

if TYPE_CHECKING:
    from immured.identity.keyring import KeyRecord
    from immured.identity.policy.schema import Policy

__all__ = ["policy"]

_STATE = click.option(
    "--state", metavar="DIR", help="Judge its keys too: a daemon's state directory (its keyring is root's to read)."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


@click.group(no_args_is_help=True)
def policy() -> None:
    """Who may do what: check, compare and try a policy; put it in force; ask why.

    `check`, `diff`, `test`, `cedar` and `explain --file` need no daemon. docs/identity.md explains the file.
    """


@policy.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--strict", is_flag=True, help="Fail for warnings too.")
@_STATE
@_JSON
@click.pass_context
def check(ctx: click.Context, file: str, strict: bool, state: str | None, as_json: bool) -> None:
    """Read FILE as the daemon would, and say what in it cannot be meant.

    Rules that never decide, names that nobody has, ways to more rights. Exits 1 for errors; what is worth knowing and
    no fault is a note.
    """
    from immured.identity.policy.analyse import Severity, analyse
    from immured.manifest.builtin import CLASSES

    given = _read(file)
    found = analyse(given, _now(), records=_records(state), classes=CLASSES, paths=_paths(state))
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if as_json:
        click.echo(json_text({"digest": given.digest, "findings": [one.to_map() for one in found]}))
    else:
        for one in found:
            click.echo(f"{one.severity.value}: {printable(one.message)} ({one.kind})")
        click.echo(f"{given.digest}: {len(given.roles)} roles, {len(given.rules)} rules, {len(given.tenants)} tenants")
    ctx.exit(1 if any(one.severity in bad for one in found) else 0)


@policy.command()
@click.argument("files", metavar="[OLD] NEW", nargs=-1, required=True, type=click.Path(dir_okay=False))
@_JSON
@click.option("--by-key", is_flag=True, help="With --state: for each key that there is, not for each role.")
@connection_options
def diff(
    files: tuple[str, ...], as_json: bool, by_key: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Who gains and who loses what by NEW, beside OLD; beside the policy in force, where only one is named.

    Both are asked everything that either can tell apart: what differs in words alone is no difference.
    """
    from immured.identity.policy.diff import diff as compare
    from immured.identity.policy.parse import parse_policy

    if len(files) > 2:
        raise click.UsageError("at most two files")
    after = _read(files[-1])
    records = _records(state) if by_key else None
    if by_key and records is None:
        raise click.UsageError("--by-key needs --state DIR")
    if len(files) == 2:
        before = _read(files[0])
    else:
        from immured.cli.session import connect

        with connect(socket, key_file, daemon_key, state, as_user) as client:
            before = parse_policy(_bytes(client.call("policy.show").result.get("policy")))
    found = compare(before, after, _now(), records)
    if as_json:
        changes = [one.to_map() for one in found]
        click.echo(json_text({"before": before.digest, "after": after.digest, "changes": changes}))
        return
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for one in found:
        grouped.setdefault((one.subject, one.effect, one.where), []).append(one.permission)
    for (subject, effect, where), permissions in grouped.items():
        what = " ".join(permissions)
        said = f"{what} ({where})" if what and where else what or where
        click.echo(printable(f"{subject} {effect} {said}".rstrip()))
    if not found:
        click.echo("nobody gains or loses anything")


@policy.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.argument("cases", metavar="CASES", type=click.Path(dir_okay=False))
@_STATE
@_JSON
@click.pass_context
def test(ctx: click.Context, file: str, cases: str, state: str | None, as_json: bool) -> None:
    """Try the expectations of CASES on the policy FILE. Exits 1 where one is not met."""
    from immured.identity.policy.cases import parse_cases, try_cases
    from immured.identity.policy.decide import Decider

    outcomes = try_cases(Decider(_read(file)), parse_cases(_content(cases)), _now(), _records(state))
    failed = [one for one in outcomes if one.problem is not None]
    if as_json:
        click.echo(json_text({"outcomes": [one.to_map() for one in outcomes], "failed": len(failed)}))
    else:
        for one in failed:
            click.echo(printable(f"FAILED {one.case}: {one.permission}: {one.problem}: {one.why}"))
        click.echo(f"{len(outcomes) - len(failed)} of {len(outcomes)} as expected")
    ctx.exit(1 if failed else 0)


@policy.command()
@click.argument("permission")
@click.option("--file", metavar="FILE", help="Ask this policy, and no daemon.")
@click.option("--role", help="With --file: whoever has this role.")
@click.option("--who", metavar="KEY", help="This key, by name or id; yours otherwise. With --file: needs --state.")
@click.option("--as-persona", metavar="NAME", help="Under this persona.")
@click.option("--in-tenant", metavar="NAME", help="In this tenant.")
@click.option("--in-project", metavar="NAME", help="In this project.")
@click.option("--in-session", is_flag=True, help="In a session.")
@click.option("--owner", metavar="KEY", help="Done to what this key made; with --file, `other` is somebody else's.")
@click.option("--class", "class_", metavar="NAME", help="Done to what has a manifest of this class.")
@click.option("--label", "labels", metavar="K=V", multiple=True, help="Done to what has this label.")
@_JSON
@connection_options
@click.pass_context
def explain(
    ctx: click.Context, permission: str, file: str | None, role: str | None, who: str | None, as_persona: str | None,
    in_tenant: str | None, in_project: str | None, in_session: bool, owner: str | None, class_: str | None,
    labels: tuple[str, ...], as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Which rule allows or denies PERMISSION to a key, and what the nearest rules lack. Exits 1 where it is denied."""
    given = {
        "key": who, "persona": as_persona, "tenant": in_tenant, "project": in_project, "session": in_session or None,
        "owner": owner, "class": class_, "labels": _labels(labels) or None,
    }  # fmt: skip
    args = {"cmd": permission, **{name: value for name, value in given.items() if value is not None}}
    if file is not None:
        from immured.cli.policy_offline import explained

        answer = explained(_read(file), args, role, _records(state), _now())
    else:
        from immured.cli.session import connect

        if role is not None:
            raise click.UsageError("--role goes with --file; a daemon knows keys: --who KEY")
        with connect(socket, key_file, daemon_key, state, as_user) as client:
            answer = dict(client.call("policy.explain", args).result)
    click.echo(json_text(answer) if as_json else "\n".join(_told(answer)))
    ctx.exit(0 if answer["allowed"] else 1)


@policy.command()
@_JSON
@connection_options
def show(
    as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Print the policy that is in force: exactly its bytes."""
    from immured.cli.session import connect

    with connect(socket, key_file, daemon_key, state, as_user) as client:
        answer = client.call("policy.show").result
    if as_json:
        click.echo(json_text(answer))
    else:
        click.echo(_bytes(answer.get("policy")), nl=False)


@policy.command("set")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--expect", metavar="DIGEST", help="Only where this one is in force now: sha256:...")
@_JSON
@connection_options
def set_policy(
    file: str, expect: str | None, as_json: bool,
    socket: str | None, key_file: str | None, daemon_key: str | None, state: str | None, as_user: str | None,
) -> None:  # fmt: skip
    """Put FILE in force. One that no active key could change again is refused."""
    from immured.cli.session import connect

    given = _read(file)
    args: dict[str, object] = {"policy": given.text} | ({"expect": expect} if expect else {})
    with connect(socket, key_file, daemon_key, state, as_user) as client:
        answer = client.call("policy.set", args).result
    click.echo(json_text(answer) if as_json else f"{answer['digest']} is in force (before: {answer['previous']})")
    roleless = answer.get("roleless")
    if isinstance(roleless, list) and roleless:
        note(f"keys whose role it does not have, which may do nothing now: {', '.join(map(str, roleless))}")


@policy.command()
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
def cedar(file: str) -> None:
    """Print the rules of FILE as Cedar text, for Cedar's own tools."""
    from immured.identity.policy.cedar import cedar_policy

    click.echo(cedar_policy(_read(file)), nl=False)


@policy.command()
def default() -> None:
    """Print the policy that a new daemon begins with."""
    from immured.shipped import shipped

    content = shipped("identity", "policy", "default.toml").read_bytes()
    click.echo(content, nl=False)


# -- what they have in common


def _now() -> int:
    return time.time_ns() // 1_000_000


def _read(file: str) -> Policy:
    from immured.identity.policy.parse import parse_policy

    try:
        return parse_policy(_content(file))
    except ConfigurationError as error:
        raise ConfigurationError(error.code, f"{file}: {error.message}", error.remedy, details=error.details) from None


def _content(file: str) -> bytes:
    return Path(file).read_bytes()


def _records(state: str | None) -> list[KeyRecord] | None:
    """The keys that serve, or will; None without a state directory."""
    if state is None:
        return None
    from immured.identity.keyring import Keyring, KeyStatus

    keyring = Keyring.from_json(_content(str(Path(state) / "keys" / "keyring.json")))
    return [record for record in keyring if record.status is not KeyStatus.REVOKED and record.successor is None]


def _paths(state: str | None) -> list[str] | None:
    """The names of config.toml's host paths; None without a state directory."""
    if state is None:
        return None
    from immured.service.config import load_config

    path = Path(state) / "config.toml"
    return sorted(load_config(path).named) if path.exists() else []


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise ConfigurationError("internal", "the daemon's answer holds no policy", "see that both are one version")
    return value


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not equals:
            raise click.UsageError(f"--label {printable(one)} is not K=V")
        labels[name] = value
    return labels


def _told(answer: dict[str, object]) -> list[str]:
    allowed = answer["allowed"]
    lines = [f"{'allowed' if allowed else 'denied'}: {printable(str(answer['why']))}"]
    rules = answer.get("rules")
    for rule in rules if isinstance(rules, list) else ():
        failed = [printable(str(one)) for one in rule["failed"]]
        state = "holds" if not failed else "; ".join(failed)
        lines.append(f"  {rule['effect']:5} {printable(str(rule['rule']))}: {state}")
    controls = answer.get("controls")
    if isinstance(controls, list) and controls:
        lines.append(f"  waits for {', '.join(printable(str(one)) for one in controls)}")
    return lines
