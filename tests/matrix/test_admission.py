"""Every command by every role's key, right or not, in every tenant: what the table says is what the daemon answers.

The commands' arguments are none that there are: what the policy lets through is refused when they are read, which comes
after, so that nothing is done. Not one cell is left out.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import Any, Final

import pytest

from immured.service.commands import load_commands
from tests.matrix.raw import code, words
from tests.matrix.stage import KINDS, ROLES, Stage
from tests.matrix.table import TENANTS, answers, letters

pytestmark = pytest.mark.needs_root

IMPOSSIBLE: Final = {"no-such-argument": True}
PAST: Final = "unknown_field"
WIDTH: Final = "-oth"
COMMANDS: Final = tuple(dict.fromkeys(cmd for cmd, _ in letters()))


def shipped() -> dict[str, Any]:
    """The file itself: nothing of what decides has read it."""
    return tomllib.loads(files("immured.identity.policy").joinpath("default.toml").read_text())


def test_every_command_has_a_row_and_every_row_is_a_command() -> None:
    assert sorted(COMMANDS) == sorted(load_commands())


def test_every_shipped_role_has_a_column_and_every_column_is_a_role() -> None:
    assert sorted(ROLES) == sorted(shipped()["roles"])


def test_every_kind_of_key_has_a_row() -> None:
    assert {kind for kind, _ in answers()} == set(KINDS)


@pytest.mark.parametrize("role", ROLES)
def test_the_table_says_what_the_policy_s_file_says(role: str) -> None:
    policy = shipped()
    roles = {role}
    for _ in policy["roles"]:
        roles |= {inner for one in roles for inner in policy["roles"][one].get("includes", [])}
    found = dict.fromkeys(COMMANDS, "-")
    in_session = dict(found)
    for rule in policy["rules"]:
        assert not {"deny", "keys", "tenants", "projects", "classes", "labels", "from", "until"} & set(rule)
        for cmd in set(rule["allow"]) & set(COMMANDS) if roles & set(rule["roles"]) else ():
            into = in_session if rule.get("session") else found
            into[cmd] = max(into[cmd], rule["scope"][0], key=WIDTH.index)
    for cmd, letter in in_session.items():
        assert WIDTH.index(letter) <= WIDTH.index(found[cmd]) or (letter, found[cmd]) == ("h", "-")
        if letter == "h" and found[cmd] == "-":
            found[cmd] = "s"
    assert found == {cmd: letters()[cmd, role] for cmd in COMMANDS}


def expected(kind: str, tenant: str, cmd: str, role: str, *, session: bool = False) -> str:
    said = answers()[kind, tenant]
    if said != "table":
        return said
    letter = letters()[cmd, role]
    if letter == "s":
        letter = "h" if session else "-"
    allowed = letter == "h" if tenant == "other" else letter != "-"
    return PAST if allowed else "denied"


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_by_every_role_in_every_tenant(stage: Stage, kind: str) -> None:
    cells = [(tenant, cmd, role) for tenant in TENANTS for role in ROLES for cmd in COMMANDS]
    replies = stage.raw.ask(
        stage.order(kind, role, cmd, IMPOSSIBLE, tenant=TENANTS[tenant]) for tenant, cmd, role in cells
    )
    wrong = [
        f"{cmd} by {role}, tenant {tenant}: {code(reply)}, and expected is {wanted}"
        for (tenant, cmd, role), reply in zip(cells, replies, strict=True)
        if code(reply) != (wanted := expected(kind, tenant, cmd, role))
    ]
    assert not wrong, "\n".join(wrong)
    assert len(cells) == len(TENANTS) * len(ROLES) * len(load_commands())


@pytest.mark.parametrize("tenant", ["own", "none"])
def test_what_takes_a_session_goes_with_one(stage: Stage, tenant: str) -> None:
    cells = [cell for cell, letter in letters().items() if letter == "s"]
    assert cells
    opened = {role: stage.must(stage.keys[role, "right"], "session.open", {})["session"] for _, role in cells}
    replies = stage.raw.ask(
        stage.order("right", role, cmd, IMPOSSIBLE, tenant=TENANTS[tenant], session=opened[role]) for cmd, role in cells
    )
    wanted = [expected("right", tenant, cmd, role, session=True) for cmd, role in cells]
    assert [code(reply) for reply in replies] == wanted == [PAST] * len(cells)


def test_a_tenant_that_there_is_not_is_denied_in_the_words_of_anothers(stage: Stage) -> None:
    cells = [(cmd, role) for role in ROLES for cmd in COMMANDS]
    both = [
        stage.raw.ask(stage.order("right", role, cmd, IMPOSSIBLE, tenant=tenant) for cmd, role in cells)
        for tenant in (TENANTS["other"], "nowhere")
    ]
    for (cmd, role), theirs, none in zip(cells, *both, strict=True):
        assert code(none) == "denied", (cmd, role)
        if letters()[cmd, role] != "h":
            assert words(theirs, str(TENANTS["other"])) == words(none, "nowhere"), (cmd, role)


def test_what_is_denied_is_said_before_the_arguments_are_looked_at(stage: Stage) -> None:
    """The words of a denial are the same whatever the arguments are."""
    cells = [(cmd, role) for (cmd, role), letter in letters().items() if letter in "-s"]
    both = [
        stage.raw.ask(stage.order("right", role, cmd, args) for cmd, role in cells) for args in (IMPOSSIBLE, {"a": 1})
    ]
    for cell, one, other in zip(cells, *both, strict=True):
        assert words(one) == words(other), cell
