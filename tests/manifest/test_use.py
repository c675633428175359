"""Who may use a manifest, for which command, and with which variables."""

from __future__ import annotations

from typing import Any

import pytest

from immured.errors import Refused
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.environment import environment
from immured.manifest.schema import Manifest
from immured.manifest.use import check_use


def manifest(**tables: Any) -> Manifest:
    return parse_map({"schema": 1, "name": "narrow", **tables})


def test_the_default_is_for_anybody_and_any_command() -> None:
    check_use(default_manifest(), [b"/any/thing"], None, "default")


def test_a_named_persona_may_use_it() -> None:
    check_use(manifest(personas=["judge"]), [b"x"], "judge", "default")


@pytest.mark.parametrize(
    ("tables", "persona", "tenant", "argv", "message"),
    [
        ({"personas": ["judge"]}, "agent", "t", b"x", "the manifest 'narrow' is not for the persona 'agent'"),
        ({"personas": ["judge"]}, None, "t", b"x", "the manifest 'narrow' is not for a command without a persona"),
        ({"tenants": ["spring"]}, None, "autumn", b"x", "the manifest 'narrow' is not for the tenant 'autumn'"),
        ({"command": {"allow": ["python3"]}}, None, "t", b"sh", "the manifest 'narrow' is not for the command 'sh'"),
        (
            {"command": {"allow": ["python3"]}},
            None,
            "t",
            b"/tmp/python3",
            "the manifest 'narrow' is not for the command '/tmp/python3'",
        ),
    ],
)
def test_everybody_and_everything_else_is_denied(
    tables: dict[str, Any], persona: str | None, tenant: str, argv: bytes, message: str
) -> None:
    with pytest.raises(Refused) as refused:
        check_use(manifest(**tables), [argv], persona, tenant)
    assert (refused.value.code, refused.value.message) == ("denied", message)


def test_a_runs_variables_stand_over_the_manifests() -> None:
    assert environment(default_manifest(), {b"LANG": b"C"})[b"LANG"] == b"C"


def test_a_variable_that_may_be_passed_is() -> None:
    narrow = manifest(command={"pass_env": ["SEED", "CI_*"]})
    assert environment(narrow, {b"SEED": b"1", b"CI_JOB": b"2"}).items() >= {b"SEED": b"1", b"CI_JOB": b"2"}.items()


@pytest.mark.parametrize("name", [b"OTHER", b"SEEDS", b"CI", b"LD_PRELOAD"])
def test_any_other_variable_is_denied(name: bytes) -> None:
    with pytest.raises(Refused) as refused:
        environment(manifest(command={"pass_env": ["SEED", "CI_*"]}), {name: b"1"})
    assert refused.value.code == "denied"


def test_where_commands_are_restricted_their_path_is_not_the_runs_to_choose() -> None:
    with pytest.raises(Refused, match="lets no run set 'PATH'"):
        environment(manifest(command={"allow": ["python3"]}), {b"PATH": b"/tmp"})


@pytest.mark.parametrize(
    "given", [{b"": b"x"}, {b"A=B": b"x"}, {b"A": b"\0"}, {b"A": b"x" * 131_072}, {b"%d" % i: b"" for i in range(513)}]
)
def test_what_no_process_can_have_is_refused(given: dict[bytes, bytes]) -> None:
    with pytest.raises(Refused) as refused:
        environment(default_manifest(), given)
    assert refused.value.code == "bad_argument"
