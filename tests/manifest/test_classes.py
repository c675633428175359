"""Each class is a file that says everything itself, and what the documentation says it admits."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from immured.manifest.builtin import CLASSES, class_text, load_classes, parse_map, parse_toml
from immured.manifest.limits import show_limit
from immured.manifest.schema import LIMITS, Manifest

DOCUMENT = (Path(__file__).parents[2] / "docs" / "manifest.md").read_text(encoding="utf-8")
BUILT_IN = load_classes()


def documented() -> dict[str, dict[str, str]]:
    """The table under "What each class admits": class to what its column says, by the names of the rows."""
    section = DOCUMENT.split("### What each class admits\n")[1]
    rows = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\|.*\|$", section.split("\n\n## ")[0], re.MULTILINE)
    ]
    return {name: {row[0]: row[column] for row in rows[2:]} for column, name in enumerate(rows[0][1:], 1)}


def shown(manifest: Manifest) -> dict[str, str]:
    """A class as its column has it."""
    found = {name: show_limit(name, getattr(manifest.limits, name)) for name in LIMITS}
    return found | {
        "network": manifest.network.mode,
        "profile": manifest.syscalls.profile,
        "calls beyond it": ", ".join(manifest.syscalls.allow) or "none",
        "strict": "true" if manifest.limits.strict else "false",
        "pin (command)": "true" if manifest.command.pin else "false",
        "variables": ", ".join(manifest.command.pass_env) or "none",
        "protect": "all groups" if len(manifest.filesystem.protect) == 4 else "nothing",
        "noexec": ", ".join(path.decode() for path in manifest.filesystem.noexec) or "nothing",
        "on_violation": manifest.filesystem.on_violation,
    }


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_a_file_like_any(name: str) -> None:
    assert parse_toml(class_text(name)) == BUILT_IN[name]
    assert (BUILT_IN[name].name, BUILT_IN[name].class_) == (name, name)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_everything_itself(name: str) -> None:
    """What it left out would be what stands in the code, and no reader of the file would know."""
    tables = tomllib.loads(class_text(name).decode())
    assert tables.keys() == {
        "schema",
        "name",
        "class",
        "command",
        "filesystem",
        "network",
        "limits",
        "syscalls",
        "consent",
    }
    assert tables["limits"].keys() == {*LIMITS, "strict"}
    assert tables["command"].keys() == {"allow", "pin", "cwd", "pass_env", "env"}
    assert tables["network"].keys() == {"mode"}
    assert tables["syscalls"].keys() == {"profile", "allow", "deny"}
    assert tables["consent"].keys() == {"required", "text", "valid"}
    assert tables["filesystem"].keys() == {
        "root", "read", "write", "tmpfs", "protect", "hide", "noexec", "on_violation",
    }  # fmt: skip


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_names_nothing_of_a_host_and_nobody(name: str) -> None:
    manifest = BUILT_IN[name]
    found = manifest.filesystem
    assert (found.root, found.image, found.read, found.write, found.capture, found.volumes) == (
        None,
        None,
        (),
        (),
        (),
        (),
    )
    assert (manifest.personas, manifest.tenants, manifest.parameters, manifest.command.allow) == ((), (), (), ())
    assert not manifest.consent.required
    assert manifest.syscalls.deny == ()


@pytest.mark.parametrize("name", CLASSES)
def test_a_manifest_is_what_its_class_is_but_for_what_it_says(name: str) -> None:
    found = parse_map({"schema": 1, "class": name, "limits": {"pids": 7}})
    assert found.limits.pids == 7
    assert (found.command, found.filesystem, found.network) == (
        BUILT_IN[name].command, BUILT_IN[name].filesystem, BUILT_IN[name].network,
    )  # fmt: skip


def test_an_allow_list_pins_unless_it_says_otherwise() -> None:
    def pinned(**command: object) -> bool:
        return parse_map({"schema": 1, "command": command}).command.pin

    assert pinned(allow=["make"])
    assert not pinned(allow=["make"], pin=False)
    assert pinned(pin=True)
    assert not pinned()
    assert not pinned(allow=[])


@pytest.mark.parametrize("name", CLASSES)
def test_what_a_class_admits_is_documented(name: str) -> None:
    assert documented()[name] == shown(BUILT_IN[name])


def test_no_other_class_is_documented() -> None:
    assert documented().keys() == set(CLASSES)
