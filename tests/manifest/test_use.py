"""Who may use a manifest, for which command, and with which variables."""

from __future__ import annotations

from typing import Any

import pytest

from immured.errors import Refused
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.environment import environment
from immured.manifest.schema import Manifest
from immured.manifest.use import check_use, permits, permits_program, programs


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


GIT = {"program": "git", "arguments": [["status"], ["log", "--oneline", "*"], ["diff", "..."]]}


@pytest.mark.parametrize(
    "argv",
    [
        ["make", "anything"],
        ["git", "status"],
        ["git", "log", "--oneline", "x"],
        ["git", "diff"],
        ["git", "diff", "a", "b"],
    ],
)
def test_a_program_may_be_ordered_with_arguments_that_fit(argv: list[str]) -> None:
    permits(manifest(command={"allow": ["make", GIT]}), [word.encode() for word in argv])


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["git"], "'git'"),
        (["git", "push"], "'git push'"),
        (["git", "status", "-s"], "'git status -s'"),
        (["git", "-c", "core.pager=sh", "status"], "'git -c core.pager=sh status'"),
        (["/usr/bin/git", "status"], "'/usr/bin/git'"),
        (["sh", "-c", "git status"], "'sh'"),
    ],
)
def test_any_other_words_are_denied_and_named(argv: list[str], named: str) -> None:
    with pytest.raises(Refused) as refused:
        permits(manifest(command={"allow": ["make", GIT]}), [word.encode() for word in argv])
    assert refused.value.code == "denied"
    assert refused.value.message == f"the manifest 'narrow' is not for the command {named}"


@pytest.mark.parametrize(
    ("argv", "remedy"),
    [
        (["git", "push"], "it is for 'git status', 'git log --oneline *', 'git diff ...', 'make ...'"),
        (["sh"], "it is for 'make ...', 'git status', 'git log --oneline *', 'git diff ...'"),
    ],
)
def test_who_is_denied_is_told_what_it_is_for(argv: list[str], remedy: str) -> None:
    with pytest.raises(Refused) as refused:
        permits(manifest(command={"allow": ["make", GIT]}), [word.encode() for word in argv])
    assert refused.value.remedy == f"{remedy}; or name another manifest"


def test_of_a_program_without_arguments_nothing_else_is_told() -> None:
    bare = manifest(command={"allow": [{"program": "id", "arguments": [[]]}]})
    with pytest.raises(Refused) as refused:
        permits(bare, [b"sh"])
    assert refused.value.remedy == "it is for 'id'; or name another manifest"


def test_what_it_is_for_is_told_within_bounds_and_without_control_characters() -> None:
    hostile = [{"program": f"p{n}\x1b[2J\n\u202e" + "x" * 3000, "arguments": [["y" * 90], ["z"]]} for n in range(60)]
    with pytest.raises(Refused) as refused:
        permits(manifest(command={"allow": hostile}), [b"sh"])
    assert refused.value.remedy.isprintable()
    assert len(refused.value.remedy) < 1000
    assert ", and more; or name another manifest" in refused.value.remedy


@pytest.mark.parametrize(("count", "more"), [(8, False), (9, True), (30, True)])
def test_that_a_program_may_be_ordered_in_more_ways_than_are_told_is_said(count: int, more: bool) -> None:
    git = {"program": "git", "arguments": [[f"way{number}"] for number in range(count)]}
    with pytest.raises(Refused) as refused:
        permits(manifest(command={"allow": [git]}), [b"git", b"push"])
    assert ("'git way7', and more;" in refused.value.remedy) is more


def test_one_entry_of_several_is_enough() -> None:
    both = manifest(command={"allow": [GIT, {"program": "git", "arguments": [["fetch"]]}]})
    permits(both, [b"git", b"fetch"])
    permits(both, [b"git", b"status"])


PATH = {"env": {"PATH": "/usr/bin:/opt/tools/"}}


@pytest.mark.parametrize(
    ("allow", "path", "argv0", "answer"),
    [
        (["python3"], b"/usr/bin/python3", b"", True),
        (["python3"], b"/opt/tools/python3", b"", True),
        (["python3"], b"/tmp/python3", b"", False),
        (["python3"], b"/usr/bin/deeper/python3", b"", False),
        (["python3"], b"/python3", b"", False),
        (["/usr/bin/python3"], b"/usr/bin/python3", b"", True),
        (["/usr/bin/python3"], b"/tmp/python3", b"", False),
        (["./tool"], b"/work/tool", b"./tool", True),
        (["./tool"], b"/work/tool", b"", False),
        (["make"], b"/usr/bin/sh", b"", False),
        (["make"], b"/srv/make", b"make", True),
    ],
)
def test_which_entry_permits_a_file_that_was_found(allow: list[str], path: bytes, argv0: bytes, answer: bool) -> None:
    command = manifest(command={"allow": allow, **PATH}).command
    assert (permits_program(command, path, argv0) is not None) is answer


def test_an_interpreters_words_must_fit_as_well() -> None:
    allow = [
        {"program": "python3", "arguments": [["-m", "json.tool"]]},
        {"program": "perl", "arguments": [["/srv/run", "..."]]},
    ]
    command = manifest(command={"allow": allow}).command
    assert permits_program(command, b"/usr/bin/python3", b"", [b"/srv/script"]) is None
    assert permits_program(command, b"/usr/bin/python3", b"", [b"-m", b"json.tool"]) is not None
    assert permits_program(command, b"/usr/bin/perl", b"", [b"/srv/run", b"a"]) is not None


def test_every_entry_that_permits_it_is_found_for_its_digest() -> None:
    old, new = "a" * 64, "b" * 64
    allow = [{"program": "make", "sha256": old}, {"program": "/usr/bin/make", "sha256": new}, "cc"]
    found = programs(manifest(command={"allow": allow}).command, b"/usr/bin/make", b"make")
    assert [one.sha256 for one in found] == [old, new]
