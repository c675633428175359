"""Whatever is given to an importer, it comes to a manifest that a daemon reads, or is refused by its code."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.adapters.bubblewrap import import_bubblewrap
from immured.adapters.bubblewrap_words import ARGUMENTS, read_line
from immured.adapters.codex import import_codex
from immured.adapters.imported import INVALID, UNSUPPORTED, Imported
from immured.adapters.nsjail import import_nsjail
from immured.adapters.nsjail_fields import CONFIG
from immured.adapters.show import manifest_text
from immured.adapters.srt import import_srt
from immured.errors import Refused
from immured.manifest.builtin import parse_map, parse_toml
from tests.adapters.told import Told

TOLD = Told(
    directories={"/home/ann/project/.git/hooks", "/home/ann/a/b/c", "/usr/lib", "/srv/x"},
    files={"/home/ann/project/.env": "", "/home/ann/project/a.env": ""},
)
PATHS = st.sampled_from(
    [
        *"/ /usr /usr/lib /lib64 /bin /etc /etc/passwd /tmp /tmp/x /var/tmp /proc /proc/self /sys /dev".split(),
        *"/dev/shm /dev/null /home /home/ann /home/ann/project /home/ann/project/.git /home/ann/a /home/ann/a".split(),
        *"/home/ann/a/b /home/ann/a/b/c /srv /srv/x relative . .. ~ ~/x /a/../b //x//y/ **/*.env /home/*/a".split(),
        "a\udc80b", "/\x1b[31m", "/" + "x" * 300, "", "/a\nb",
    ]
)  # fmt: skip
WORDS = st.one_of(PATHS, st.text(max_size=8), st.sampled_from(["0", "1000", "755", "9", "A=B", "x"]))


def judge(importer: Callable[[], Imported]) -> None:
    try:
        found = importer()
        text = manifest_text(found, "a tool", "somewhere")
    except Refused as refused:
        if refused.code not in (INVALID, UNSUPPORTED):
            raise
        return
    try:
        parse_toml(text)
        parse_map(found.manifest)
    except Refused as refused:
        # What the schema bounds, and no importer counts: how long a name is.
        if "a name has at most" not in refused.message:
            raise


fuzzed = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
entries = st.fixed_dictionaries({
    "path": st.one_of(
        st.fixed_dictionaries({"type": st.just("path"), "path": PATHS}),
        st.fixed_dictionaries({"type": st.just("glob_pattern"), "pattern": PATHS}),
        st.fixed_dictionaries({
            "type": st.just("special"),
            "value": st.fixed_dictionaries(
                {"kind": st.sampled_from(["root", "minimal", "project_roots", "tmpdir", "slash_tmp", "unknown", "x"])},
                optional={"subpath": PATHS, "path": PATHS},
            ),
        }),
    ),
    "access": st.sampled_from(["read", "write", "deny", "none"]),
})  # fmt: skip


@fuzzed
@given(st.lists(entries, max_size=8), st.sampled_from(["restricted", "enabled"]))
def test_codex_profiles(rules: list[object], network: str) -> None:
    profile = {"type": "managed", "file_system": {"type": "restricted", "entries": rules}, "network": network}
    judge(lambda: import_codex(json.dumps(profile), TOLD))


@fuzzed
@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["workspace-write", "read-only", "x"])},
        optional={
            "writable_roots": st.lists(PATHS, max_size=4), "network_access": st.booleans(),
            "exclude_slash_tmp": st.booleans(), "exclude_tmpdir_env_var": st.booleans(), "mode": st.text(max_size=4),
        },
    )
)  # fmt: skip
def test_codex_policies(policy: object) -> None:
    judge(lambda: import_codex(json.dumps(policy), TOLD))


@fuzzed
@given(
    st.fixed_dictionaries(
        {"allowWrite": st.lists(PATHS, max_size=4), "denyWrite": st.lists(PATHS, max_size=4)},
        optional={
            "denyRead": st.lists(PATHS, max_size=4), "allowRead": st.lists(PATHS, max_size=4),
            "autoAllowSystemPaths": st.booleans(), "allowGitConfig": st.booleans(),
            "protectNonexistentFiles": st.booleans(),
        },
    )
)  # fmt: skip
def test_srt_settings(files: object) -> None:
    judge(lambda: import_srt(json.dumps({"network": {}, "filesystem": files}), TOLD))


@fuzzed
@given(st.lists(st.one_of(st.sampled_from(sorted(ARGUMENTS)), WORDS), max_size=24))
def test_bubblewrap_lines(words: list[str]) -> None:
    judge(lambda: import_bubblewrap([one for one in words if "\0" not in one], TOLD, lambda _: b"--dir\0/x\0"))


@fuzzed
@given(st.text(alphabet=st.sampled_from(list("bwrap -/\\'\"#$`;\n\0x")), max_size=60))
def test_bubblewrap_files(text: str) -> None:
    judge(lambda: import_bubblewrap(read_line(text), TOLD, lambda _: b""))


mounts = st.fixed_dictionaries(
    {"dst": PATHS},
    optional={
        "src": PATHS, "isBind": st.booleans(), "rw": st.booleans(),
        "fstype": st.sampled_from(["tmpfs", "proc", "ext4"]),
        "mandatory": st.booleans(), "noexec": st.booleans(),
        "options": st.sampled_from(["size=1k", "mode=7777", "size=99g", "x"]),
        "prefixSrcEnv": st.sampled_from(["HOME", "NONE"]), "prefixDstEnv": st.sampled_from(["HOME", "NONE"]),
        "srcContent": st.just("YQ=="), "isSymlink": st.booleans(),
    },
)  # fmt: skip


SINGLE = [
    name for name, one in CONFIG.items() if one.kind in ("uint32", "uint64", "bool", "string") and not one.repeated
]


@fuzzed
@given(
    st.lists(mounts, max_size=6),
    st.dictionaries(
        st.sampled_from(
            [
                name
                for name, field in CONFIG.items()
                if field.kind in ("uint32", "uint64", "bool", "string") and not field.repeated
            ]
        ),
        st.one_of(st.integers(0, 2**32), st.booleans(), WORDS),
        max_size=6,
    ),
)
def test_nsjail_configs(listed: list[object], others: dict[str, object]) -> None:
    judge(lambda: import_nsjail(json.dumps({"mount": listed, **others}), TOLD))


@pytest.mark.parametrize("importer", [import_codex, import_srt, import_nsjail])
@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=80))
def test_any_text(importer: Callable[[str, Told], Imported], text: str) -> None:
    judge(lambda: importer(text, TOLD))
