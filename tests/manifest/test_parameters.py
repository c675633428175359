"""What a run may fill into a manifest, and where; whatever it gives, the manifest's bounds hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.manifest.builtin import parse_map, parse_toml
from immured.manifest.parameters import fill
from immured.manifest.paths import beneath
from immured.manifest.schema import Bind, Manifest, Parameter, Program, Protected, Tmpfs, VolumeMount

WHOLE = """
schema = 1
name = "build"

[command]
allow = ["make", { program = "git", arguments = [["clone", "--branch=${branch}", "*"], ["${branch}"]] }]
cwd = "${project}/src"
env = { BRANCH = "${branch}", PRICE = "$$${jobs}", MODE = "${mode}" }

[filesystem]
read = [{ path = "${project}", target = "/src" }, "/srv/tools-${branch}/bin"]
write = ["${project}/out", { path = "/srv/cache", target = "/cache/${mode}" }]
tmpfs = ["/tmp", { path = "/scratch/${branch}", size = "1M" }]
protect = ["${project}/out/.git", { path = "/cache/${mode}/keep", absent = "passed" }]
hide = ["/src/${branch}"]
noexec = ["/cache/${mode}"]
volumes = [{ name = "v", target = "/v/${branch}" }]

[limits]
pids = "${jobs}"
wall = "${jobs}s"
memory = "${memory}"

[parameters.project]
type = "path"
within = ["/home", "/srv", "/srv/deep"]

[parameters.branch]
type = "text"
pattern = "a-z0-9_.*-"
longest = 12
default = "main"

[parameters.jobs]
type = "integer"
least = 1
most = 64
default = 8

[parameters.memory]
type = "choice"
values = ["256M", "2G"]
default = "256M"

[parameters.mode]
type = "choice"
values = ["debug", "release"]
default = "debug"
"""


@pytest.fixture(scope="module")
def whole() -> Manifest:
    return parse_toml(WHOLE)


@pytest.fixture(scope="module")
def filled(whole: Manifest) -> Manifest:
    return fill(whole, {"project": "/srv/deep/p", "branch": "a*b", "jobs": 5, "memory": "2G"})


def inline(parameters: Any, **tables: Any) -> dict[str, Any]:
    return {"schema": 1, "name": "p", "parameters": parameters, **tables}


TEXT = {"type": "text", "pattern": "a-z./*", "longest": 40}
PATH = {"type": "path", "within": ["/srv"]}
NUMBER = {"type": "integer", "least": 1, "most": 9}
CHOICE = {"type": "choice", "values": ["/srv/a", "/srv/b"]}


def test_declarations_are_read(whole: Manifest) -> None:
    assert whole.parameters == (
        Parameter("project", "path", within=(b"/home", b"/srv", b"/srv/deep")),
        Parameter("branch", "text", pattern="a-z0-9_.*-", longest=12, default="main"),
        Parameter("jobs", "integer", least=1, most=64, default=8),
        Parameter("memory", "choice", values=("256M", "2G"), default="256M"),
        Parameter("mode", "choice", values=("debug", "release"), default="debug"),
    )


def test_a_manifest_that_nobody_filled_in_holds_samples(whole: Manifest) -> None:
    assert whole.given == ()
    assert whole.template is not None
    assert whole.command.cwd == b"/home/project/src"


def test_values_stand_in_paths(filled: Manifest) -> None:
    found = filled.filesystem
    assert found.read == (
        Bind(b"/srv/deep/p", b"/src", beneath=b"/srv/deep"),
        Bind(b"/srv/tools-a*b/bin", b"/srv/tools-a*b/bin", beneath=b"/srv"),
    )
    assert found.write == (
        Bind(b"/srv/deep/p/out", b"/srv/deep/p/out", beneath=b"/srv/deep"),
        Bind(b"/srv/cache", b"/cache/debug"),
    )
    assert found.tmpfs == (Tmpfs(b"/tmp"), Tmpfs(b"/scratch/a*b", 1 << 20))
    assert found.protect == (Protected(b"/srv/deep/p/out/.git"), Protected(b"/cache/debug/keep", "passed"))
    assert found.hide == (b"/src/a*b",)
    assert found.noexec == (b"/cache/debug",)
    assert found.volumes == (VolumeMount("v", b"/v/a*b"),)
    assert filled.command.cwd == b"/srv/deep/p/src"


def test_values_stand_in_variables_and_two_dollars_are_one(filled: Manifest) -> None:
    env = dict(filled.command.env)
    assert (env[b"BRANCH"], env[b"PRICE"], env[b"MODE"]) == (b"a*b", b"$5", b"debug")


def test_a_value_in_a_pattern_of_words_is_no_pattern(filled: Manifest) -> None:
    assert filled.command.allow == (
        Program(b"make"),
        Program(b"git", ((b"clone", b"--branch=a\\*b", b"*"), (b"a\\*b",))),
    )


def test_values_stand_in_limits(filled: Manifest) -> None:
    assert (filled.limits.pids, filled.limits.wall, filled.limits.memory) == (5, 5 * 10**9, 2 << 30)


def test_it_says_with_what_it_was_filled_in_and_defaults_count(whole: Manifest, filled: Manifest) -> None:
    assert filled.given == (
        ("branch", "a*b"), ("jobs", 5), ("memory", "2G"), ("mode", "debug"), ("project", "/srv/deep/p"),
    )  # fmt: skip
    assert filled.digest == whole.digest
    assert filled.template is None
    assert filled != whole


def test_a_number_may_come_as_text(whole: Manifest) -> None:
    assert dict(fill(whole, {"project": "/srv", "jobs": "64"}).given)["jobs"] == 64


def test_one_trailing_slash_is_forgiven(whole: Manifest) -> None:
    assert dict(fill(whole, {"project": "/srv/p/"}).given)["project"] == "/srv/p"


def test_a_bound_itself_lies_within(whole: Manifest) -> None:
    assert fill(whole, {"project": "/srv"}).filesystem.read[0].beneath == b"/srv"


def test_the_same_values_are_only_looked_up(whole: Manifest) -> None:
    assert fill(whole, {"project": "/srv/x"}) is fill(whole, {"project": "/srv/x", "jobs": "8"})


def test_without_parameters_a_dollar_is_a_dollar() -> None:
    manifest = parse_map({"schema": 1, "command": {"env": {"A": "${HOME}$$"}}})
    assert dict(manifest.command.env)[b"A"] == b"${HOME}$$"
    assert fill(manifest, {}) is manifest


def test_bytes_are_taken_as_they_are() -> None:
    manifest = parse_map(inline({"n": NUMBER}, command={"env": {"A": b"${n}$"}}))
    assert dict(manifest.command.env)[b"A"] == b"${n}$"


def test_what_a_choice_may_be_the_manifest_says() -> None:
    manifest = parse_map(inline({"where": CHOICE}, filesystem={"read": ["${where}/data"]}))
    assert fill(manifest, {"where": "/srv/b"}).filesystem.read == (Bind(b"/srv/b/data", b"/srv/b/data"),)


def test_a_value_is_never_looked_into_for_others() -> None:
    parameters = {"one": {"type": "text", "pattern": "a-z${}", "longest": 9}, "two": NUMBER}
    manifest = parse_map(inline(parameters, command={"env": {"A": "${one}"}}))
    assert dict(fill(manifest, {"one": "${two}", "two": 1}).command.env)[b"A"] == b"${two}"


DECLARED: dict[str, tuple[Any, str, str]] = {
    "a list": ([], "manifest.parameters is an array, not a map", ""),
    "no table": ({"n": 5}, "manifest.parameters.n is an integer, not a map", ""),
    "a name in capitals": (
        {"N": NUMBER},
        "manifest.parameters holds the name 'N'; write a-z, 0-9 and `_`, at most 32, the first a letter",
        "",
    ),
    "no type": ({"n": {}}, "manifest.parameters.n.type is missing", ""),
    "an unknown type": (
        {"n": {"type": "number"}},
        "manifest.parameters.n.type is 'number'; it may be 'path', 'text', 'integer', 'choice'",
        "",
    ),
    "an unknown bound": (
        {"n": {**NUMBER, "maximum": 5}},
        "manifest.parameters.n holds an unknown field 'maximum'",
        "known are default, least, longest, most, pattern, type, values, within",
    ),
    "no bound": (
        {"n": {"type": "integer", "least": 1}},
        "manifest.parameters.n.most is missing; it bounds a parameter of type 'integer'",
        "",
    ),
    "another type's bound": (
        {"n": {**NUMBER, "longest": 5}},
        "manifest.parameters.n.longest is for a parameter of type 'text', and this one is 'integer'",
        "",
    ),
    "bounds the wrong way around": (
        {"n": {"type": "integer", "least": 5, "most": 4}},
        "manifest.parameters.n.least is 5, more than `most`, which is 4",
        "",
    ),
    "a bound that is none": (
        {"p": {"type": "path", "within": ["/"]}},
        "manifest.parameters.p.within holds '/', which is no bound",
        "name the directories in which it lies",
    ),
    "no directories": (
        {"p": {"type": "path", "within": []}},
        "manifest.parameters.p.within is empty",
        "name the directories in which it lies",
    ),
    "a directory with ..": (
        {"p": {"type": "path", "within": ["/srv/../etc"]}},
        "manifest.parameters.p.within holds '/srv/../etc', which is not in its shortest form: no `//`, `.` or `..`",
        "",
    ),
    "a directory that reads otherwise": (
        {"p": {"type": "path", "within": ["/srv/\u202egpj"]}},
        "manifest.parameters.p.within holds '/srv/\\u202egpj', which holds the character U+202E, which cannot be seen",
        "",
    ),
    "a default out of bounds": (
        {"p": {**PATH, "default": "/etc"}},
        "manifest.parameters.p.default is '/etc', which does not lie beneath /srv",
        "",
    ),
    "a regular expression": (
        {"t": {"type": "text", "pattern": "[a-z]+", "longest": 5}},
        "manifest.parameters.t.pattern is '[a-z]+', which holds '['; write printable ASCII, but none of `\\[]^`",
        "such as 'a-z0-9_.-'",
    ),
    "a range across kinds": (
        {"t": {"type": "text", "pattern": "A-z", "longest": 5}},
        "manifest.parameters.t.pattern is 'A-z', which holds the range A-z; write one of one case or of digits",
        "such as 'a-z0-9_.-'",
    ),
    "a text without end": (
        {"t": {"type": "text", "pattern": "a-z", "longest": 100_000}},
        "manifest.parameters.t.longest is 100000; it may be 1 to 1024",
        "",
    ),
    "a choice of nothing": (
        {"c": {"type": "choice", "values": []}},
        "manifest.parameters.c.values is empty",
        "name what it may be",
    ),
    "a choice between two that are one": (
        {"c": {"type": "choice", "values": ["a", "b", "a"]}},
        "manifest.parameters.c.values names 'a' twice",
        "name each value once",
    ),
    "a choice of numbers": (
        {"c": {"type": "choice", "values": [1]}},
        "manifest.parameters.c.values holds an integer; the values of a choice are text",
        "",
    ),
    "too many": (
        {f"n{index}": NUMBER for index in range(33)},
        "manifest.parameters has 33 entries; at most 32",
        "",
    ),
}


@pytest.mark.parametrize("what", DECLARED)
def test_a_declaration_that_is_none_is_refused(what: str) -> None:
    parameters, message, remedy = DECLARED[what]
    with pytest.raises(Refused) as refused:
        parse_map(inline(parameters))
    assert (refused.value.code, refused.value.message, refused.value.remedy) == ("manifest_invalid", message, remedy)


PLACES = "docs/manifest.md, Parameters"
MISPLACED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "in a persona": (
        {"n": NUMBER}, {"personas": ["p${n}"]},
        "manifest.personas holds 'p${n}', and no parameter may stand here", PLACES,
    ),
    "in the class": (
        {"c": CHOICE}, {"class": "${c}"}, "manifest.class holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in a program": (
        {"c": CHOICE}, {"command": {"allow": ["${c}"]}},
        "manifest.command.allow holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in a program of a table": (
        {"c": CHOICE}, {"command": {"allow": [{"program": "${c}"}]}},
        "manifest.command.allow.program holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in the root": (
        {"c": CHOICE}, {"filesystem": {"root": "${c}"}},
        "manifest.filesystem.root holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in the network": (
        {"c": CHOICE}, {"network": {"mode": "${c}"}},
        "manifest.network.mode holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in a profile": (
        {"c": CHOICE}, {"syscalls": {"allow": ["${c}"]}},
        "manifest.syscalls.allow holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in consent": (
        {"c": CHOICE}, {"consent": {"text": "${c}"}},
        "manifest.consent.text holds '${c}', and no parameter may stand here", PLACES,
    ),
    "in a volume's name": (
        {"c": CHOICE}, {"filesystem": {"volumes": [{"name": "${c}", "target": "/v"}]}},
        "manifest.filesystem.volumes.name holds '${c}', and no parameter may stand here", PLACES,
    ),
    "a text in a limit": (
        {"t": TEXT}, {"limits": {"wall": "${t}"}},
        "manifest.limits.wall holds '${t}'; a limit takes parameters of type 'integer' and 'choice' alone", "",
    ),
    "a path in a limit": (
        {"p": PATH}, {"limits": {"wall": "${p}"}},
        "manifest.limits.wall holds '${p}'; a limit takes parameters of type 'integer' and 'choice' alone", "",
    ),
    "a path behind another": (
        {"p": PATH}, {"filesystem": {"read": ["/data${p}"]}},
        "manifest.filesystem.read holds '/data${p}'; `${p}` is a path: it stands first, a `/` behind it", "",
    ),
    "a path that a name goes on from": (
        {"p": PATH}, {"filesystem": {"read": ["${p}-secret"]}},
        "manifest.filesystem.read holds '${p}-secret'; `${p}` is a path: it stands first, a `/` behind it", "",
    ),
    "a path that a value goes on from": (
        {"p": PATH, "n": NUMBER}, {"filesystem": {"read": ["${p}${n}"]}},
        "manifest.filesystem.read holds '${p}${n}'; `${p}` is a path: it stands first, a `/` behind it", "",
    ),
    "a text that begins a path": (
        {"t": TEXT}, {"command": {"cwd": "${t}/x"}},
        "manifest.command.cwd holds '${t}/x'; it begins with `${t}`, which is no path", "",
    ),
    "a way back up": (
        {"p": PATH}, {"filesystem": {"read": ["${p}/../x"]}},
        "manifest.filesystem.read holds '/srv/p/../x', which is not in its shortest form: no `//`, `.` or `..`", "",
    ),
    "a name that is not declared": (
        {"project": PATH}, {"command": {"cwd": "${projekt}"}},
        "manifest.command.cwd names the parameter 'projekt', which is not declared", "did you mean 'project'?",
    ),
    "a dollar alone": (
        {"n": NUMBER}, {"command": {"env": {"A": "5$"}}},
        "manifest.command.env.A holds '5$': `$` begins `${name}`, or is written `$$`", "",
    ),
    "a mark that is not closed": (
        {"n": NUMBER}, {"command": {"env": {"A": "${n"}}},
        "manifest.command.env.A holds '${n': `$` begins `${name}`, or is written `$$`", "",
    ),
    "a number beyond the limit's": (
        {"n": {"type": "integer", "least": 0, "most": 9}}, {"limits": {"pids": "${n}"}},
        "manifest.limits.pids is '0'; it may be 1 to 4194304", "",
    ),
    "a choice that is no limit": (
        {"c": {"type": "choice", "values": ["1G", "lots"]}}, {"limits": {"memory": "${c}"}},
        "manifest.limits.memory is 'lots'; write bytes, or a whole number with K, M, G or T (powers of 1024)", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISPLACED)
def test_a_parameter_where_none_may_stand_is_refused(what: str) -> None:
    parameters, tables, message, remedy = MISPLACED[what]
    with pytest.raises(Refused) as refused:
        parse_map(inline(parameters, **tables))
    assert (refused.value.code, refused.value.message, refused.value.remedy) == ("manifest_invalid", message, remedy)


def test_a_short_text_that_names_a_long_value_often_is_refused() -> None:
    long = {"type": "text", "pattern": "a", "longest": 1024}
    manifest = parse_map(inline({"t": long}, command={"env": {f"A{index}": "${t}" * 100 for index in range(100)}}))
    with pytest.raises(Refused) as refused:
        fill(manifest, {"t": "a" * 1024})
    assert (refused.value.code, refused.value.message) == (
        "bad_argument", "with these parameters the parameters come to more than 1048576 characters",
    )  # fmt: skip


BRANCH = "it may be 1 to 12 characters of a-z0-9_.*-"
PROJECT = "it may be a path beneath /home or /srv or /srv/deep"
GIVEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({"project": ...}, "parameters.project has no value", "give one: " + PROJECT.removeprefix("it may be ")),
    "one that is not declared": (
        {"jbs": 3}, "parameters.jbs is not declared by the manifest", "did you mean 'jobs'?",
    ),
    "a path outside": (
        {"project": "/etc"},
        "parameters.project is '/etc', which does not lie beneath /home or /srv or /srv/deep", PROJECT,
    ),
    "a path beside": (
        {"project": "/srvx"},
        "parameters.project is '/srvx', which does not lie beneath /home or /srv or /srv/deep", PROJECT,
    ),
    "a path that climbs": (
        {"project": "/srv/../etc"},
        "parameters.project is '/srv/../etc', which is not in its shortest form: no `//`, `.` or `..`", PROJECT,
    ),
    "a path that hides": (
        {"project": "/srv/./x"},
        "parameters.project is '/srv/./x', which is not in its shortest form: no `//`, `.` or `..`", PROJECT,
    ),
    "a relative path": ({"project": "srv"}, "parameters.project is 'srv', which is not absolute", PROJECT),
    "a path with NUL": ({"project": "/srv/\0"}, r"parameters.project is '/srv/\x00', which holds a NUL", PROJECT),
    "a path of two lines": (
        {"project": "/srv/a\nb"},
        "parameters.project is '/srv/a\\nb', which holds the character U+000A, which cannot be seen", PROJECT,
    ),
    "a path that reads otherwise": (
        {"project": "/srv/\u2066x"},
        "parameters.project is '/srv/\\u2066x', which holds the character U+2066, which cannot be seen", PROJECT,
    ),
    "bytes": ({"project": b"/srv"}, "parameters.project is bin, not a text", PROJECT),
    "a text that is none": ({"branch": 5}, "parameters.branch is an integer, not a text", BRANCH),
    "an empty text": ({"branch": ""}, "parameters.branch has 0 characters; it may have 1 to 12", BRANCH),
    "a long text": ({"branch": "a" * 13}, "parameters.branch has 13 characters; it may have 1 to 12", BRANCH),
    "a text of others": (
        {"branch": "a/b"}, "parameters.branch is 'a/b', which holds '/'; it may hold a-z0-9_.*-", BRANCH,
    ),
    "a text that climbs": ({"branch": "a..b"}, "parameters.branch is 'a..b', which holds `..`", BRANCH),
    "a number out of bounds": (
        {"jobs": 65}, "parameters.jobs is 65; it may be 1 to 64", "it may be a whole number, 1 to 64",
    ),
    "a number that is none": (
        {"jobs": "0x8"}, "parameters.jobs is '0x8', not a whole number", "it may be a whole number, 1 to 64",
    ),
    "true for a number": (
        {"jobs": True}, "parameters.jobs is a boolean, not a whole number", "it may be a whole number, 1 to 64",
    ),
    "another choice": ({"mode": "fast"}, "parameters.mode is 'fast'; it may be debug, release",
        "it may be one of debug, release"),
}  # fmt: skip


@pytest.mark.parametrize("what", GIVEN)
def test_a_value_out_of_bounds_is_refused(whole: Manifest, what: str) -> None:
    change, message, remedy = GIVEN[what]
    values = {name: value for name, value in {"project": "/srv/p", **change}.items() if value is not ...}
    with pytest.raises(Refused) as refused:
        fill(whole, values)
    assert (refused.value.code, refused.value.message, refused.value.remedy) == ("bad_argument", message, remedy)
    assert refused.value.details["manifest"] == whole.digest


def test_a_manifest_without_parameters_takes_none() -> None:
    with pytest.raises(Refused) as refused:
        fill(parse_map({"schema": 1}), {"x": 1})
    assert (refused.value.code, refused.value.message) == (
        "bad_argument", "parameters.x is not declared: the manifest has no parameters",
    )  # fmt: skip


def test_what_two_values_come_to_together_is_refused_too() -> None:
    manifest = parse_map(inline({"a": PATH, "b": PATH}, filesystem={"read": ["${a}"], "write": ["${b}"]}))
    with pytest.raises(Refused) as refused:
        fill(manifest, {"a": "/srv/x", "b": "/srv/x"})
    assert (refused.value.code, refused.value.message) == (
        "bad_argument",
        "with these parameters manifest.filesystem.write places '/srv/x' twice, in read too",
    )


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("/.srvetc", max_size=24), st.text("a./*", max_size=12))
def test_no_value_leads_out_of_its_bounds(project: str, name: str) -> None:
    """Wherever values stand: a path that is made of them lies where the manifest says."""
    manifest = parse_map(
        inline({"p": PATH, "t": TEXT}, filesystem={"read": ["${p}/x", {"path": "/srv/a/${t}", "target": "/in"}]})
    )
    try:
        binds = fill(manifest, {"p": project, "t": name}).filesystem.read
    except Refused as refused:
        assert refused.code == "bad_argument"  # noqa: PT017 - one of both
    else:
        assert all(beneath(bind.source, one) for bind, one in zip(binds, (b"/srv", b"/srv/a"), strict=True))
        assert not any(part in (b"..", b".", b"") for bind in binds for part in bind.source[1:].split(b"/"))
        assert [bind.beneath for bind in binds] == [b"/srv", b"/srv/a"]


@settings(deadline=None)
@given(st.text("a.*\\", min_size=1, max_size=8))
def test_a_value_in_a_pattern_fits_itself_alone(word: str) -> None:
    from immured.manifest.use import permits

    parameters = {"t": {"type": "text", "pattern": "a.*", "longest": 8}}
    manifest = parse_map(inline(parameters, command={"allow": [{"program": "x", "arguments": [["${t}"]]}]}))
    try:
        one = fill(manifest, {"t": word})
    except Refused:
        return
    permits(one, [b"x", word.encode()])
    for other in (b"", b"a" * 9, word.encode() + b"a", b"zz"):
        with pytest.raises(Refused):
            permits(one, [b"x", other])
    with pytest.raises(Refused):
        permits(one, [b"x", word.encode(), b"more"])
