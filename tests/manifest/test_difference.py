"""What a manifest admits that its baseline does not: field by field, in which words, and how grave."""

from __future__ import annotations

import time
from typing import Any

import pytest

from immured.isolation.granted import granted
from immured.manifest.builtin import default_manifest, parse_map
from immured.manifest.capabilities import capabilities
from immured.manifest.difference import Difference, Severity, difference
from immured.manifest.protect import protected_in_captures

CALLS = granted()


def manifest(**tables: Any) -> Any:
    return parse_map({"schema": 1, "name": "m", **tables})


def added(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """`severity field: words` of what `after` admits beyond `before`."""
    return said(difference(manifest(**before), manifest(**after), CALLS))


def said(found: Difference) -> list[str]:
    return [f"{one.severity} {one.field}: {one.words}" for one in found.added]


def files(**lists: Any) -> dict[str, Any]:
    return {"filesystem": lists}


GROWN: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a persona": (
        {"personas": ["a"]},
        {"personas": ["a", "b"]},
        ["high personas: is for the persona b, which it was not"],
    ),
    "every persona": ({"personas": ["a"]}, {}, ["critical personas: is for every persona, which it was not"]),
    "every tenant": ({"tenants": ["a"]}, {}, ["critical tenants: is for every tenant, which it was not"]),
    "fewer tenants": ({}, {"tenants": ["a"]}, []),
    "another class": (
        {},
        {"class": "networked", "limits": {"memory": "512M", "pids": 128, "files": 1024, "wall": "60s", "disk": "512M"}},
        ["medium class: is of the class networked instead of default, by which policies tell who may use it"],
    ),
    "any command": (
        {"command": {"allow": ["make"]}},
        {"command": {"pin": True}},
        ["critical command.allow: allows any command, which it could not"],
    ),
    "a program": (
        {"command": {"allow": ["make"]}},
        {"command": {"allow": ["make", "/usr/bin/git"]}},
        ["high command.allow: allows the program /usr/bin/git, which it could not"],
    ),
    "arguments": (
        {"command": {"allow": [{"program": "git", "arguments": [["status"], ["log", "*"]]}]}},
        {"command": {"allow": [{"program": "git", "arguments": [["log", "-1"], ["log", "..."], ["status"]]}]}},
        ["high command.allow: allows git with the arguments log ..., which it could not"],
    ),
    "any arguments": (
        {"command": {"allow": [{"program": "git", "arguments": [["status"]]}]}},
        {"command": {"allow": ["git"]}},
        ["high command.allow: allows git with any arguments, which it could not"],
    ),
    "any bytes": (
        {"command": {"allow": [{"program": "git", "sha256": "a" * 64}]}},
        {"command": {"allow": ["git"]}},
        ["high command.allow: allows git whatever its bytes are, which it could not"],
    ),
    "other bytes": (
        {"command": {"allow": [{"program": "git", "sha256": "a" * 64}]}},
        {"command": {"allow": [{"program": "git", "sha256": "b" * 64}]}},
        ["high command.allow: allows git of the digest bbbbbbbbbbbbbbbb…, which it could not"],
    ),
    "arguments of other bytes": (
        {"command": {"allow": [{"program": "git", "sha256": "a" * 64}, {"program": "git", "arguments": [["status"]]}]}},
        {"command": {"allow": [{"program": "git", "sha256": "b" * 64, "arguments": [["status"], ["log"]]}]}},
        ["high command.allow: allows git with the arguments log, which it could not"],
    ),
    "no pin": (
        {"command": {"allow": ["make"]}},
        {"command": {"allow": ["make"], "pin": False}},
        ["high command.pin: runs files that nobody opened and digested before, which were pinned"],
    ),
    "a variable that leads": (
        {"command": {"pass_env": []}},
        {"command": {"pass_env": [], "env": {"LD_PRELOAD": "/tmp/x.so", "MODE": "1"}}},
        [
            "high command.env: sets the variable LD_PRELOAD, which it could not",
            "low command.env: sets the variable MODE, which it could not",
        ],
    ),
    "a variable that any run may set": (
        {},
        {"command": {"env": {"LD_PRELOAD": "/tmp/x.so"}}},
        ["low command.env: sets the variable LD_PRELOAD, which it could not"],
    ),
    "where names are found": (
        {"command": {"allow": ["make"]}},
        {"command": {"allow": ["make"], "env": {"PATH": "/tmp/bin"}}},
        ["high command.env: sets the variable PATH to another value"],
    ),
    "variables that a run sets": (
        {"command": {"pass_env": ["CC", "C_*"]}},
        {"command": {"pass_env": ["C*", "C_X"]}},
        ["medium command.pass_env: lets a run set C*, which it could not"],
    ),
    "where it starts": ({}, {"command": {"cwd": "/srv"}}, ["low command.cwd: starts in /srv instead of /"]),
    "a path to read": (
        {},
        files(read=["/data", "/etc/ssl", "/usr/share/dict"]),
        [
            "high filesystem.read: reads /etc/ssl, which it could not",
            "medium filesystem.read: reads /data, which it could not",
        ],
    ),
    "a path to write": (
        {},
        files(write=["/srv/out", {"path": "/home/ada", "target": "/h"}]),
        [
            "critical filesystem.write: writes to /home/ada at /h, which it could not",
            "high filesystem.write: writes to /srv/out, which it could not",
        ],
    ),
    "a write beneath what was written": (files(write=["/srv"]), files(write=["/srv", "/srv/out"]), []),
    "a write of what was read": (
        files(read=["/srv"]),
        files(read=["/srv"], write=["/srv/out"]),
        ["high filesystem.write: writes to /srv/out, which it could not"],
    ),
    "a read-only part that is taken away": (
        files(write=["/srv"], read=["/srv/lib"]),
        files(write=["/srv"]),
        ["high filesystem.write: writes to /srv/lib, which it could not"],
    ),
    "a private part that is taken away": (
        files(write=["/srv"], tmpfs=["/srv/cache"]),
        files(write=["/srv"]),
        ["high filesystem.write: writes to /srv/cache, which it could not"],
    ),
    "the same at another place": (
        files(write=["/srv"]),
        files(write=["/srv", {"path": "/srv/out", "target": "/out"}]),
        ["low filesystem.write: writes to /srv/out at /out, which it did at another place"],
    ),
    "the same at another place, where part of it was protected": (
        files(write=["/srv"], protect=["/srv/out/keep"]),
        files(write=["/srv", {"path": "/srv/out", "target": "/out"}], protect=["/srv/out/keep"]),
        ["high filesystem.write: writes to /srv/out at /out, which it could not"],
    ),
    "the same at another place, to be executed there": (
        files(write=[{"path": "/srv", "noexec": True}]),
        files(write=[{"path": "/srv", "noexec": True}, {"path": "/srv/out", "target": "/out"}]),
        ["high filesystem.write: writes to /srv/out at /out, which it could not"],
    ),
    "a capture": (
        files(read=["/srv/p"]),
        files(capture=["/srv/p"]),
        ["medium filesystem.capture: writes to /srv/p, for the changes to be accepted, which it could not"],
    ),
    "a capture of what was written": (files(write=["/srv"]), files(capture=["/srv"]), []),
    "a volume": (
        {},
        files(volumes=[{"name": "cache", "target": "/cache"}]),
        ["high filesystem.volumes: writes to the volume cache at /cache, which it could not"],
    ),
    "a private directory": (
        {},
        files(tmpfs=["/tmp", "/scratch"]),
        ["low filesystem.tmpfs: puts files of its own in /scratch, which it could not"],
    ),
    "what was hidden": (
        files(read=["/srv"], hide=["/srv/keys"]),
        files(read=["/srv"]),
        ["high filesystem.hide: reads /srv/keys, which was hidden"],
    ),
    "what was protected": (
        files(write=["/srv"], protect=["/srv/a", "/srv/b"]),
        files(write=["/srv"], protect=["/srv/a"]),
        ["high filesystem.protect: writes to /srv/b, which was protected"],
    ),
    "a group that was protected": (
        files(write=["/srv"], protect=["@manifest"]),
        files(write=["/srv"]),
        [
            "high filesystem.protect: writes to /srv/.immure.toml, which was protected",
            "high filesystem.protect: writes to /srv/immure.toml, which was protected",
        ],
    ),
    "a part of what is protected anyway": (
        files(write=["/srv"], protect=["/srv/a", "/srv/a/b"]),
        files(write=["/srv"], protect=["/srv/a"]),
        [],
    ),
    "what is protected may be made": (
        files(write=["/srv"], protect=["/srv/a", {"path": "/srv/b", "absent": "refused"}]),
        files(write=["/srv"], protect=[{"path": "/srv/a", "absent": "passed"}, "/srv/b"]),
        [
            "medium filesystem.protect: makes /srv/a where it is not there, which it could not",
            "low filesystem.protect: begins where /srv/b is not there, which it could not",
        ],
    ),
    "a read-only part of a capture, to be protected there": (
        files(capture=["/srv"], read=["/srv/a"]),
        files(capture=["/srv"], protect=["/srv/a"]),
        ["low filesystem.tmpfs: puts files of its own in /srv/a, which it could not"],
    ),
    "what may be executed": (
        files(read=[{"path": "/data", "noexec": True}], noexec=["/tmp"]),
        files(read=["/data"]),
        [
            "high filesystem.noexec: executes what lies in /tmp, which it could not",
            "medium filesystem.noexec: executes what lies in /data, which it could not",
        ],
    ),
    "an optional bind": (
        files(read=["/data"]),
        files(read=[{"path": "/data", "optional": True}]),
        ["low filesystem.read: begins where /data is not there, which it could not"],
    ),
    "another root": (
        {},
        files(root="/srv/root"),
        ["medium filesystem.root: has /srv/root as its root, which it could not"],
    ),
    "an image": (
        {},
        files(root="image:sha256:" + "c" * 64, root_layer=True),
        [
            f"medium filesystem.root: has the image sha256:{'c' * 64} as its root, which it could not",
            "low filesystem.tmpfs: puts files of its own in /, which it could not",
        ],
    ),
    "the host's programs": (
        files(root="/srv/root"),
        {},
        ["medium filesystem.root: has the host's programs as its root, which it could not"],
    ),
    "a refused write": (
        files(on_violation="halt"),
        {},
        ["medium filesystem.on_violation: goes on after a refused write, which ended it"],
    ),
    "a network": (
        {"network": {"mode": "none"}},
        {},
        ["medium network.mode: has an interface lo of its own, which it could not"],
    ),
    "limits": (
        {"limits": {"memory": "512M", "wall": "10s", "cores": "0-1", "pids": 64}},
        {"limits": {"memory": "2G", "wall": "none", "cores": "1-2", "pids": 32, "pin": 1}},
        [
            "high limits.wall: wall 10s -> none",
            "medium limits.memory: memory 512M -> 2G",
            "medium limits.cores: cores 0-1 -> 1-2",
            "medium limits.pin: pin none -> 1",
        ],
    ),
    "weaker means": (
        {"limits": {"strict": True}},
        {},
        ["medium limits.strict: runs where a limit is held by a weaker means, which it could not"],
    ),
    "system calls": (
        {"syscalls": {"allow": ["ptrace"]}},
        {"syscalls": {"allow": ["@debug", "mbind", "read"]}},
        [
            (
                "high syscalls: makes the system calls kcmp, pidfd_getfd, process_vm_readv, process_vm_writev, "
                "which it could not"
            ),
            "medium syscalls: makes the system calls mbind, which it could not",
        ],
    ),
    "system calls that are written otherwise": (
        {"syscalls": {"allow": ["@debug", "@numa"], "deny": ["@numa"]}},
        {"syscalls": {"allow": ["ptrace", "process_vm_readv", "process_vm_writev", "kcmp", "pidfd_getfd"]}},
        [],
    ),
    "no consent": (
        {"consent": {"required": True}},
        {},
        ["high consent.required: asks nobody for consent, which it did"],
    ),
    "another consent": (
        {"consent": {"required": True}},
        {"consent": {"required": True, "text": "other", "valid": "2h"}},
        [
            "medium consent.text: asks for consent by the text other instead of workspace",
            "low consent.valid: consent holds for 2h instead of 10m",
        ],
    ),
}


@pytest.mark.parametrize("name", GROWN)
def test_what_is_added(name: str) -> None:
    before, after, expected = GROWN[name]
    assert added(before, after) == expected


def test_what_is_taken_away_is_said_as_well() -> None:
    found = difference(default_manifest(), manifest(personas=["a"], limits={"memory": "64M"}, command={"allow": ["x"]}))
    assert (found.added, found.severity) == ((), None)
    assert [one.words for one in found.removed] == [
        "is for every persona no more",
        "allows any command no more",
        "runs files that nobody opened and digested before no more",
        "memory 512M -> 64M",
    ]


def test_a_strangers_words_are_plain_or_quoted_and_bounded() -> None:
    found = difference(manifest(), manifest(**files(read=["/a b\x1b[31m", "/" + "/".join(["x" * 200] * 19)])))
    assert found.added[0].words == "reads '/a b\\x1b[31m', which it could not"
    assert all(len(one.words) < 400 and one.words.isprintable() for one in found.added)


def test_the_gravest_comes_first_and_rows_are_bounded() -> None:
    found = difference(manifest(), manifest(**files(read=[f"/data/{n}" for n in range(100)], write=["/etc/x"])))
    assert found.severity is Severity.CRITICAL
    assert found.added[0].severity is Severity.CRITICAL
    assert len(found.added) == 101
    assert len(found.rows()) == 64
    assert found.rows(1) == [
        {"field": "filesystem.write", "words": "writes to /etc/x, which it could not", "severity": "critical"}
    ]


PARAMETER = {"type": "path", "within": ["/srv"]}


def test_parameters_are_compared_by_their_bounds() -> None:
    before = {"parameters": {"project": PARAMETER}, **files(write=["${project}/out"])}
    wider = {"parameters": {"project": {**PARAMETER, "within": ["/srv/a", "/opt"]}}, **files(write=["${project}/out"])}
    assert "high parameters.project: takes project beneath /opt, which it could not" in added(before, wider)
    narrower = {"parameters": {"project": {**PARAMETER, "within": ["/srv/a"]}}, **files(write=["${project}/out"])}
    assert added(before, narrower) == []


def test_a_parameters_places_are_told_by_its_name() -> None:
    found = added({}, {"parameters": {"project": PARAMETER}, **files(write=["${project}/out"])})
    assert found == [
        "high filesystem.write: writes to ${project}/out, which it could not",
        "low parameters.project: takes the parameter project, which it did not",
    ]


def test_a_parameter_that_may_meet_what_was_closed_is_told() -> None:
    """Filled in with /srv, it opens what was read-only; nowhere near, it would be no more than before."""
    before = {"parameters": {"project": PARAMETER}, **files(write=["${project}"], read=["/srv/lib"])}
    after = {"parameters": {"project": PARAMETER}, **files(write=["${project}"])}
    assert any("writes to" in one for one in added(before, after))


def test_the_same_parameters_written_the_same_add_nothing() -> None:
    tables = {"parameters": {"project": PARAMETER}, **files(write=["${project}"], protect=["${project}/.git"])}
    assert added(tables, tables) == []


def test_what_is_protected_in_a_volume_is_not_held_back_with_the_capture_around_it() -> None:
    """A volume in a captured directory is written for good: what is protected there is a place of the volume's."""
    found = manifest(
        **files(capture=["/srv"], volumes=[{"name": "v", "target": "/srv/v"}], protect=["/srv/v/a", "/srv/b"])
    )
    assert protected_in_captures(found.filesystem) == {b"/srv": (b"b",)}


def test_every_field_that_admits_something_is_told() -> None:
    told = capabilities(
        manifest(
            personas=["judge"],
            command={"allow": [{"program": "git", "arguments": [["status"], []]}]},
            filesystem={
                "read": [{"path": "/data", "target": "/d", "noexec": True, "optional": True}],
                "protect": ["@vcs", {"path": "/x", "absent": "passed"}],
            },
            parameters={"n": {"type": "integer", "least": 1, "most": 4, "default": 2}},
            consent={"required": True},
        )
    )
    words = {field: one.words for field, one in told.items()}
    assert words["personas"] == ("is for the persona judge",)
    assert words["tenants"] == ("is for every tenant",)
    assert words["command.allow"] == ("allows the program git with the arguments status or none",)
    assert words["filesystem.read"] == ("reads /data at /d, executes nothing there, where it is there",)
    assert words["filesystem.protect"] == ("leaves @vcs as it is", "leaves /x as it is (passed where it is not there)")
    assert words["parameters"] == ("takes n: 1 to 4, unless given 2",)
    assert words["consent"] == ("asks for consent by the text workspace, which holds for 10m",)
    assert "filesystem.write" not in words


def hostile() -> dict[str, tuple[Any, Any]]:
    """Pairs made to be slow: as many and as long paths, patterns and values as a manifest may have."""
    deep = ["/" + "/".join([f"d{number}"] * 1000) for number in range(60)]
    nested = ["/" + "/".join(["a"] * (number + 1)) for number in range(200)]
    parameters = {
        "p": {"type": "path", "within": ["/srv", "/home"]},
        "t": {"type": "text", "pattern": "a-z0-9", "longest": 9},
        "c": {"type": "choice", "values": [f"{number}M" for number in range(64, 128)]},
    }
    filled = files(read=[f"/srv/{number}/${{t}}" for number in range(200)])["filesystem"]
    plain = [
        [
            {"program": "git", "arguments": [[f"{letter}{64 * number + word}"] for word in range(64)]}
            for number in range(160)
        ]
        for letter in "ab"
    ]
    patterns = [[["*" + f"{letter}*" * 30 + str(number)] for number in range(64)] for letter in "ab"]
    return {
        "very deep": (files(read=deep), files(write=deep)),
        "nested": (files(read=nested[::2]), files(write=nested[1::2], protect=nested[2:40:3])),
        "parameters": (
            {"parameters": parameters, "filesystem": {**filled, "write": ["${p}/x"]}, "limits": {"memory": "${c}"}},
            {"parameters": parameters, "filesystem": {**filled, "write": ["${p}"]}, "limits": {"memory": "${c}"}},
        ),
        "deep, by parameters of two names": (deeply("p"), deeply("q")),
        "one program in many entries": ({"command": {"allow": plain[0]}}, {"command": {"allow": plain[1]}}),
        "patterns": (
            {"command": {"allow": [{"program": f"p{number}", "arguments": patterns[0]} for number in range(200)]}},
            {"command": {"allow": [{"program": f"p{number}", "arguments": patterns[1]} for number in range(200)]}},
        ),
    }


def deeply(name: str) -> dict[str, Any]:
    targets = ["/" + "/".join(f"{name}{step}" for step in range(number + 2)) for number in range(120)]
    return {
        "parameters": {f"{name}{number}": {"type": "path", "within": ["/home", "/srv"]} for number in range(8)},
        "filesystem": {
            "write": [
                {"path": f"${{{name}{number % 8}}}{target}", "target": target} for number, target in enumerate(targets)
            ]
        },
    }


@pytest.mark.parametrize("name", hostile())
def test_what_is_made_to_be_slow_takes_bounded_time(name: str) -> None:
    """It is done on the daemon's own thread. Processor time, and a bound far from what it takes (0.4 s)."""
    before, after = (manifest(**tables) for tables in hostile()[name])
    began = time.process_time()
    found = difference(before, after, CALLS)
    assert time.process_time() - began < 10
    assert found.added


def test_a_path_that_no_parameter_bounds_any_more_may_be_led_elsewhere() -> None:
    """What was filled in was opened without following links out of its bound; what is written in the file is not."""
    before = {"parameters": {"project": PARAMETER}, **files(write=["${project}"])}
    assert added(before, files(write=["/srv/p"])) == [
        "medium filesystem.read: follows symbolic links out of /srv/p, which it could not"
    ]
    assert added(files(write=["/srv/p"]), files(write=["/srv/p"])) == []
