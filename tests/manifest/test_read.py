"""One schema for a file and for the wire; what is not understood or cannot be enforced is refused by its name."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.errors import Refused
from immured.manifest.builtin import class_text, default_manifest, parse_map, parse_toml
from immured.manifest.schema import Bind, Manifest, Program, Tmpfs

WHOLE = """
schema = 1
name = "contest"
class = "default"
personas = ["judge"]
tenants = ["spring", "autumn"]

[command]
allow = ["python3", "/usr/bin/node"]
cwd = "/work"
env = { LANG = "de_DE.UTF-8", MODE = "strict" }
pass_env = ["SEED", "CONTEST_*"]

[filesystem]
root = "host"
read = ["/srv/tasks", { path = "/srv/data", target = "/data", optional = true, noexec = true }]
write = [{ path = "/srv/out", target = "/out" }]
tmpfs = ["/tmp", { path = "/scratch", size = "64M", mode = "0700" }]
protect = ["/out/keep"]
hide = ["/srv/tasks/answers"]
on_violation = "halt"

[network]
mode = "none"

[limits]
cpus = 1.5
cpu_time = "10s"
wall = "30s"
memory = "256M"
pids = 32
disk = "128M"
files = 256
output = "1M"
strict = true

[syscalls]
profile = "default"
allow = ["@ipc"]
deny = ["ptrace"]

[secrets]

[consent]
required = false
"""
VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "manifest" / "digests.json").read_text(encoding="utf-8")
)


def inline(**more: Any) -> dict[str, Any]:
    return {"schema": 1, **more}


@pytest.fixture(scope="module")
def whole() -> Manifest:
    return parse_toml(WHOLE)


def test_a_files_digest_is_over_its_bytes(whole: Manifest) -> None:
    assert whole.digest == "sha256:" + hashlib.sha256(WHOLE.encode()).hexdigest()


def test_a_file_says_what_may_be_ordered(whole: Manifest) -> None:
    assert whole.command.allow == (Program(b"python3"), Program(b"/usr/bin/node"))
    assert whole.command.pin
    assert whole.command.cwd == b"/work"


def test_a_files_variables_stand_over_the_classs(whole: Manifest) -> None:
    env = dict(whole.command.env)
    assert (env[b"LANG"], env[b"MODE"]) == (b"de_DE.UTF-8", b"strict")
    assert env[b"PATH"] == dict(default_manifest().command.env)[b"PATH"]


def test_a_path_stands_in_the_same_place_inside_unless_told(whole: Manifest) -> None:
    assert whole.filesystem.read == (
        Bind(b"/srv/tasks", b"/srv/tasks"),
        Bind(b"/srv/data", b"/data", optional=True, noexec=True),
    )


def test_a_tmpfs_may_say_its_size_and_mode(whole: Manifest) -> None:
    assert whole.filesystem.tmpfs == (Tmpfs(b"/tmp"), Tmpfs(b"/scratch", 64 << 20, 0o700))


def test_limits_are_numbers(whole: Manifest) -> None:
    limits = whole.limits
    assert (limits.cpus, limits.cpu_time, limits.wall) == (1500, 10 * 10**9, 30 * 10**9)
    assert (limits.memory, limits.disk, limits.output) == (256 << 20, 128 << 20, 1 << 20)
    assert (limits.pids, limits.files, limits.strict, limits.io) == (32, 256, True, None)


def test_silence_is_the_classs_word() -> None:
    found, default = parse_map(inline()), default_manifest()
    assert (found.limits, found.filesystem, found.command) == (default.limits, default.filesystem, default.command)


def test_the_default_manifest_is_a_file_like_any() -> None:
    assert parse_toml(class_text("default")) == default_manifest()


def test_the_same_names_on_the_wire_make_the_same_manifest() -> None:
    wire = inline(filesystem={"read": [{"path": "/a", "target": "/b"}]}, limits={"cpus": "1.5", "memory": "64M"})
    file = """
        schema = 1
        name = "inline"
        limits = { cpus = 1.5, memory = "64M" }
        filesystem = { read = [{ path = "/a", target = "/b" }] }
    """
    one, other = parse_map(wire), parse_toml(file)
    assert (one.filesystem, one.limits) == (other.filesystem, other.limits)


def test_an_inline_manifests_digest_does_not_depend_on_the_order_of_names() -> None:
    one = parse_map({"schema": 1, "limits": {"pids": 5, "memory": "64M"}})
    other = parse_map({"limits": {"memory": "64M", "pids": 5}, "schema": 1})
    assert one.digest == other.digest


def test_an_inline_manifests_digest_depends_on_its_values() -> None:
    assert parse_map(inline(limits={"pids": 5})).digest != parse_map(inline(limits={"pids": 6})).digest


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["what"]))
def test_an_inline_manifests_digest_is_its_vectors(vector: dict[str, Any]) -> None:
    assert vector["digest"] == "sha256:" + hashlib.sha256(bytes.fromhex(vector["msgpack"])).hexdigest()
    assert parse_map(vector["manifest"]).digest == vector["digest"]


def test_a_path_may_be_bytes_on_the_wire() -> None:
    assert parse_map(inline(filesystem={"read": [b"/srv/\xff"]})).filesystem.read == (Bind(b"/srv/\xff", b"/srv/\xff"),)


def test_a_manifest_is_hashable_so_that_plans_can_be_cached(whole: Manifest) -> None:
    assert hash(whole) == hash(parse_toml(WHOLE))


TARGETS = "name another place inside with `target`"
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no schema": ({"schema": None}, "manifest.schema is missing", ""),
    "another schema": ({"schema": 2}, "manifest.schema is 2; this version knows schema 1", ""),
    "a boolean schema": ({"schema": True}, "manifest.schema is a boolean, not an integer", ""),
    "an unknown table": ({"limts": {}}, "manifest holds an unknown field 'limts'", "did you mean 'limits'?"),
    "an unknown limit": (
        {"limits": {"memroy": "1M"}},
        "manifest.limits holds an unknown field 'memroy'",
        "did you mean 'memory'?",
    ),
    "an unknown name in a path": (
        {"filesystem": {"read": [{"path": "/a", "to": "/b"}]}},
        "manifest.filesystem.read holds an unknown field 'to'",
        "known are noexec, optional, path, target",
    ),
    "a table that is none": ({"limits": 5}, "manifest.limits is an integer, not a map", ""),
    "an unknown class": (
        {"class": "open"},
        "manifest.class is 'open', which is no class",
        "the classes are default, strict, build, interactive, networked, judge",
    ),
    "a name with spaces": (
        {"name": "my manifest"},
        "manifest.name holds 'my manifest'; write a-z, 0-9, `_`, `.` and `-`, at most 64 characters",
        "",
    ),
    "a relative path": (
        {"filesystem": {"read": ["a/b"]}},
        "manifest.filesystem.read holds 'a/b', which is not absolute",
        "",
    ),
    "a path with ..": (
        {"filesystem": {"write": ["/a/../etc"]}},
        "manifest.filesystem.write holds '/a/../etc', which is not in its shortest form: no `//`, `.` or `..`",
        "",
    ),
    "a path with //": (
        {"filesystem": {"root": "/a//b"}},
        "manifest.filesystem.root holds '/a//b', which is not in its shortest form: no `//`, `.` or `..`",
        "",
    ),
    "a path with NUL": (
        {"filesystem": {"hide": ["/a\0b"]}},
        r"manifest.filesystem.hide holds '/a\x00b', which holds a NUL",
        "",
    ),
    "a path too long": (
        {"command": {"cwd": "/" + "a/" * 2048}},
        "manifest.command.cwd holds '/" + "a/" * 31 + "a…', which has 4097 bytes; a path has at most 4095",
        "",
    ),
    "the root as a target": (
        {"filesystem": {"read": ["/"]}},
        "manifest.filesystem.read holds '/', which is the root itself; that is what `root` is for",
        TARGETS,
    ),
    "a target in /proc": (
        {"filesystem": {"read": [{"path": "/a", "target": "/proc/sys"}]}},
        "manifest.filesystem.read.target holds '/proc/sys', which lies in /proc, which is the sandbox's own",
        TARGETS,
    ),
    "a place twice": (
        {"filesystem": {"read": ["/a"], "write": [{"path": "/b", "target": "/a"}]}},
        "manifest.filesystem.write places '/a' twice, in read too",
        "name each place inside once",
    ),
    "protected and hidden": (
        {"filesystem": {"protect": ["/a/b"], "hide": ["/a"]}},
        "manifest.filesystem.protect holds '/a/b', which `hide` hides",
        "name it in one of the two",
    ),
    "too many paths": (
        {"filesystem": {"read": [f"/{i}" for i in range(257)]}},
        "manifest.filesystem.read has 257 entries; at most 256",
        "",
    ),
    "too many paths together": (
        {"filesystem": {"read": [f"/{i}" for i in range(200)], "hide": [f"/h{i}" for i in range(60)]}},
        "manifest.filesystem.read and the other lists have 261 paths; at most 256",
        "",
    ),
    "tmpfs larger than disk": (
        {"filesystem": {"tmpfs": [{"path": "/a", "size": "2M"}]}, "limits": {"disk": "1M"}},
        "manifest.filesystem.tmpfs has sizes of 2097152 bytes together, more than limits.disk of 1048576",
        "raise limits.disk, or make them smaller",
    ),
    "a mode that is no mode": (
        {"filesystem": {"tmpfs": [{"path": "/a", "mode": "4755"}]}},
        "manifest.filesystem.tmpfs.mode is '4755'; write it in octal, such as '0755'",
        "",
    ),
    "another reaction": (
        {"filesystem": {"on_violation": "ask"}},
        "manifest.filesystem.on_violation is 'ask'; it may be 'deny' or 'halt'",
        "",
    ),
    "secrets before they can be": (
        {"secrets": {"TOKEN": {"source": "vault:a/b", "delivery": "fd", "ttl": "10m"}}},
        "manifest.secrets is not supported by this version, and not ignored either",
        "leave [secrets] out",
    ),
    "another network": (
        {"network": {"mode": "host"}},
        "manifest.network.mode is 'host'; it may be 'none' or 'loopback'",
        "",
    ),
    "a size without a form": (
        {"limits": {"memory": "lots"}},
        "manifest.limits.memory is 'lots'; write bytes, or a whole number with K, M, G or T (powers of 1024)",
        "",
    ),
    "too little memory": (
        {"limits": {"memory": 4096}},
        "manifest.limits.memory is '4096'; it may be 1M to 1024T",
        "did you mean '4096M'?",
    ),
    "no memory limit": (
        {"limits": {"memory": "none"}},
        "manifest.limits.memory is 'none'; every run has this limit",
        "",
    ),
    "a bare duration": (
        {"limits": {"wall": 60}},
        "manifest.limits.wall is an integer; write a number with its unit: ms, s, m, h or d",
        "",
    ),
    "true for a number": ({"limits": {"pids": True}}, "manifest.limits.pids is a boolean; write a whole number", ""),
    "no cpus at all": ({"limits": {"cpus": "0"}}, "manifest.limits.cpus is '0'; it may be 0.01 to 4096", ""),
    "a negative number": ({"limits": {"files": -1}}, "manifest.limits.files is '-1'; it may be 4 to 1048576", ""),
    "strictness by number": ({"limits": {"strict": 1}}, "manifest.limits.strict is an integer, not a boolean", ""),
    "a variable without a name": (
        {"command": {"env": {"": "x"}}},
        "manifest.command.env holds the name ''; a name is not empty and has no `=` or NUL",
        "",
    ),
    "a variable of a number": (
        {"command": {"env": {"N": 5}}},
        "manifest.command.env holds an integer in 'N', not a text",
        "",
    ),
    "an empty command": (
        {"command": {"allow": [""]}},
        "manifest.command.allow holds '', which is no command",
        "write 1 to 4095 bytes, none of them NUL",
    ),
    "a pattern in the middle": (
        {"command": {"pass_env": ["A*B"]}},
        "manifest.command.pass_env holds 'A*B'; write a variable's name, PREFIX_* or *",
        "",
    ),
    "a system call by number": (
        {"syscalls": {"deny": [59]}},
        "manifest.syscalls.deny holds an integer; write a system call, such as 'ptrace', or a group, such as '@ipc'",
        "",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_wrong_is_refused_by_its_name(what: str) -> None:
    change, message, remedy = REFUSED[what]
    values = {name: value for name, value in {**inline(), **change}.items() if value is not None}
    with pytest.raises(Refused) as refused:
        parse_map(values)
    assert (refused.value.code, refused.value.message, refused.value.remedy) == ("manifest_invalid", message, remedy)


def test_a_map_that_is_none_is_refused() -> None:
    with pytest.raises(Refused, match="manifest is an array, not a map"):
        parse_map([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 20_000, "the manifest is not TOML: nested too deeply"),
        ("#" * (256 * 1024 + 1), "the manifest has 262145 bytes; at most 262144"),
        ("schema = 1", "manifest.name is missing"),
        (
            "schema = 1\nname = 'a'\n[limits]\ncpus = nan",
            "manifest.limits.cpus is 'nan'; write a number of CPUs with at most three decimals, such as 1.5",
        ),
        (
            "schema = 1\nname = 'a'\n[limits]\nwall = 07:32:00",
            "manifest.limits.wall is a time; write a number with its unit: ms, s, m, h or d",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_toml(text)
    assert refused.value.message == message


def test_a_number_longer_than_python_reads_is_refused() -> None:
    with pytest.raises(Refused, match=r"^manifest_invalid: the manifest is not TOML: an integer of more than 64 bits"):
        parse_toml("a = " + "9" * 5_000)


@pytest.mark.parametrize("text", ["schema = ", "schema = 1\nschema = 1", "[limits]\n[limits]"])
def test_what_is_not_toml_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"^manifest_invalid: the manifest is not TOML: .*\(at "):
        parse_toml(text)


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(Refused, match="not TOML"):
        parse_toml(b"schema = 1\nname = '\xff'")


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('read = ["/srv"]  # \u202e"cte/" ,\u2066', "U+202E"),
        ('read = ["/srv/\u202egpj"]', "U+202E"),
        ('read = ["/srv/a\u200bb"]', "U+200B"),
        ('read = ["/srv/a\u00a0b"]', "U+00A0"),
        ("# all is well\u2028read = []", "U+2028"),
        ("# \U000e0041", "U+E0041"),
        ("# \ufeff", "U+FEFF"),
    ],
)
def test_a_file_that_hides_something_is_refused_by_its_line(line: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        parse_toml(f"schema = 1\nname = 'a'\n[filesystem]\n{line}\n")
    assert refused.value.message == f"line 4 of the manifest holds the character {code}, which cannot be seen"
    assert refused.value.details["line"] == 4


def test_what_is_not_seen_may_be_named() -> None:
    text = 'schema = 1\r\nname = "a"\r\n\t[filesystem]\r\nread = ["/srv/\\u202egpj"]  # Größe 数据 🚀\r\n'
    assert parse_toml(text).filesystem.read[0].source == "/srv/\u202egpj".encode()


JSON = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
TABLES = ["command", "filesystem", "network", "limits", "syscalls", "secrets", "consent", "personas", "class", "name"]
NAMES = "allow cwd env pass_env root read write tmpfs protect hide on_violation mode cpus wall memory strict required"


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(TABLES), JSON | st.dictionaries(st.sampled_from(NAMES.split()), JSON, max_size=4), max_size=4
    )
)
def test_any_map_is_a_manifest_or_is_refused(values: dict[str, Any]) -> None:
    try:
        found: Manifest | Refused = parse_map(inline(**values))
    except Refused as refused:
        found = refused
    assert isinstance(found, Manifest) or found.code in ("manifest_invalid", "bad_argument")
