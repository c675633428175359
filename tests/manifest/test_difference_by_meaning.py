"""`difference` held against what each of two manifests admits, deed by deed, over many pairs of random manifests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from immured.errors import Refused
from immured.isolation.granted import granted
from immured.manifest.builtin import parse_map
from immured.manifest.difference import Change, difference
from immured.manifest.parameters import fill
from immured.manifest.schema import Manifest
from tests.manifest.admitted import Deed, admitted

CALLS = granted()
NEITHER_MORE_NOR_LESS = {"class", "command.cwd", "command.env", "filesystem.tmpfs"}
"""Fields of which any other value is told, though a deed may not tell one from the other."""


FILES = ("filesystem.hide", "filesystem.protect", "filesystem.write", "filesystem.capture", "filesystem.volumes")
FIELDS = {
    "use": ("personas", "tenants"),
    "order": ("command.allow",),
    "execute": ("command.allow", "command.pin"),
    "what nobody digested": ("command.pin",),
    "set": ("command.pass_env", "command.allow"),
    "has": ("command.pass_env", "command.allow", "command.env"),
    "weaker": ("limits.strict",),
    "call": ("syscalls", "syscalls.allow", "syscalls.deny", "syscalls.profile"),
    "loopback": ("network.mode",),
    "unasked": ("consent.required",),
    "asked": ("consent.required", "consent.text", "consent.valid"),
    "goes on": ("filesystem.on_violation",),
    "write": ("filesystem.write", "filesystem.hide", "filesystem.protect"),
    "capture": ("filesystem.write", "filesystem.capture", "filesystem.hide", "filesystem.protect"),
    "fill": ("filesystem.volumes", "filesystem.hide", "filesystem.protect"),
    "volume": ("filesystem.volumes", "filesystem.hide"),
    "read": (*FILES, "filesystem.read", "filesystem.root"),
    "image": ("filesystem.root", "filesystem.hide"),
    "host": ("filesystem.root", "filesystem.hide"),
    "put": (*FILES, "filesystem.tmpfs"),
    "run": (*FILES, "filesystem.tmpfs", "filesystem.read", "filesystem.root", "filesystem.noexec"),
}
"""By which fields each kind of deed may be told."""


def fields_of(deed: Deed) -> tuple[str, ...]:
    return (f"limits.{deed[1]}",) if deed[0] == "ask" else FIELDS[deed[0]]


def untold(deeds: frozenset[Deed], changes: tuple[Change, ...], *more: str) -> list[Deed]:
    """Deeds of a kind that no change speaks of; `more`: fields that speak of any."""
    told = {change.field for change in changes}
    return [deed for deed in deeds if not told.intersection((*fields_of(deed), *more))]


def unfounded(deeds: frozenset[Deed], changes: tuple[Change, ...]) -> list[Change]:
    """Changes for which there is no deed."""
    done = {field for deed in deeds for field in fields_of(deed)}
    return [change for change in changes if change.field not in done | NEITHER_MORE_NOR_LESS]


class Random:
    """Manifests of a small world, most of them alike."""

    def __init__(self, seed: int) -> None:
        self._choose = random.Random(seed)

    def manifest(self, like: dict[str, Any] | None = None) -> tuple[dict[str, Any], Manifest]:
        """One; near to `like` where that is given: a few of its tables made anew."""
        while True:
            tables = {"schema": 1, "name": "m", **{name: make() for name, make in self._tables().items()}}
            if like is not None:
                changed = self._choose.sample(sorted(self._tables()), k=self._choose.randint(0, 2))
                tables = {name: tables[name] if name in changed else value for name, value in like.items()}
                if self._choose.random() < 0.5:
                    tables["filesystem"] = self._near(tables["filesystem"])
            try:
                return tables, parse_map(tables)
            except Refused:
                continue

    def _tables(self) -> dict[str, Any]:
        return {
            "personas": lambda: self._some(["agent", "judge"]),
            "tenants": lambda: self._some(["acme", "spring"]),
            "command": self._command,
            "filesystem": self._filesystem,
            "network": lambda: {"mode": self._one(["none", "loopback"])},
            "limits": self._limits,
            "syscalls": lambda: {
                "profile": self._one(["default", "compute"]),
                "allow": self._some(["ptrace", "@debug", "@watching", "socket", "read"]),
                "deny": self._some(["@ipc", "@sockets", "socket", "kcmp", "@debug"]),
            },
            "consent": lambda: {
                "required": self._one([True, False]),
                "text": self._one(["workspace", "other"]),
                "valid": self._one(["1m", "10m", "2h"]),
            },
        }

    def _command(self) -> dict[str, Any]:
        patterns = [[], ["a"], ["*"], ["a*"], ["..."], ["a", "..."], ["log", "*"], ["*b"], ["*", "..."], [r"\*"]]
        names = self._some(["make", "git", "/usr/bin/git"])
        pin = self._one([True, False])
        allow: list[object] = []
        for name in names:
            program: dict[str, Any] = {"program": name}
            if self._choose.random() < 0.6:
                program["arguments"] = self._choose.sample(patterns, k=self._choose.randint(1, 3))
            if pin and self._choose.random() < 0.3:
                program["sha256"] = self._one(["a", "b"]) * 64
            allow.append(program if len(program) > 1 else name)
        return {
            "allow": allow,
            "pin": pin,
            "pass_env": self._some(["*", "SEED", "C*", "C_*", "LD_*"]),
            "env": {name: self._one(["1", "2"]) for name in self._some(["CC", "Z"])},
        }

    def _filesystem(self) -> dict[str, Any]:
        sources = ["/srv", "/srv/a", "/srv/a/b", "/srv/out", "/usr/a", "/var/a"]
        targets = ["/srv", "/srv/a", "/srv/a/b", "/srv/out", "/x", "/x/a", "/srv/b"]

        def bind() -> object:
            source = self._one(sources)
            if self._choose.random() < 0.6:
                return source
            return {"path": source, "target": self._one(targets), "noexec": self._one([True, False])}

        made: dict[str, Any] = {
            name: [bind() for _ in range(self._choose.choice([0, 0, 1, 1, 2]))] for name in ("read", "write", "capture")
        }
        made["tmpfs"] = self._some(["/tmp", "/srv/a", "/x", "/srv/a/b/out"], 0.2)
        made["volumes"] = [{"name": name, "target": self._one(targets)} for name in self._some(["v"], 0.2)]
        made["protect"] = self._some(["/srv/a", "/srv/a/b", "/x/a", "/srv/out/a", "/srv", "/tmp/a"], 0.25)
        made["hide"] = self._some(["/srv/a/b", "/x", "/srv/out", "/usr/a", "/srv/a/out"], 0.15)
        made["root"] = self._one(["host"] * 5 + ["/srv/a", "image:sha256:" + "c" * 64])
        made["on_violation"] = self._one(["deny", "halt"])
        if made["root"].startswith("image:"):
            made["root_layer"] = self._one([True, False])
        return made

    def _near(self, filesystem: dict[str, Any]) -> dict[str, Any]:
        other = self._filesystem()
        name = self._one(sorted(other))
        return {**filesystem, name: other[name]} if name != "root" and name != "root_layer" else other

    def _limits(self) -> dict[str, Any]:
        made: dict[str, Any] = {
            "memory": self._one(["256M", "512M", "2G"]),
            "swap": self._one([0, "2G"]),
            "pids": self._one([32, 128, 1024]),
            "wall": self._one(["10s", "2h", "none"]),
            "cpus": self._one(["1", "4", "none"]),
            "disk": self._one(["512M", "2G", "none"]),
            "output": self._one(["1M", "none"]),
            "cores": self._one(["0", "0-1", "1-2", "none"]),
            "strict": self._one([True, False]),
        }
        if self._choose.random() < 0.3:
            made["pin"] = self._one([1, 2])
        return made

    def _one(self, values: list[Any]) -> Any:
        return self._choose.choice(values)

    def _some(self, values: list[Any], often: float = 0.5) -> list[Any]:
        return [one for one in values if self._choose.random() < often]


def pairs(seed: int, count: int) -> Iterator[tuple[Manifest, Manifest]]:
    made = Random(seed)
    for _ in range(count):
        tables, one = made.manifest()
        yield one, made.manifest(tables)[1]


@pytest.mark.parametrize("seed", range(8))
def test_what_only_one_admits_is_told_and_nothing_else_is(seed: int) -> None:
    told = 0
    for baseline, manifest in pairs(seed, 60):
        found = difference(baseline, manifest, CALLS)
        before, after = admitted(baseline), admitted(manifest)
        assert untold(after - before, found.added) == [], (baseline, manifest)
        assert untold(before - after, found.removed) == [], (baseline, manifest)
        assert unfounded(after - before, found.added) == [], (baseline, manifest)
        assert unfounded(before - after, found.removed) == [], (baseline, manifest)
        told += bool(found.added)
    assert told > 20


@pytest.mark.parametrize("seed", range(8, 12))
def test_in_the_filesystem_alone(seed: int) -> None:
    """Where nothing else differs, and most differences are of one mount, one hidden or one protected place."""
    made = Random(seed)
    for _ in range(120):
        tables, baseline = made.manifest()
        like = {**tables}
        while True:
            like["filesystem"] = made._near(tables["filesystem"])
            try:
                manifest = parse_map(like)
                break
            except Refused:
                continue
        found = difference(baseline, manifest, CALLS)
        before, after = admitted(baseline), admitted(manifest)
        assert untold(after - before, found.added) == [], (baseline.filesystem, manifest.filesystem)
        assert unfounded(after - before, found.added) == [], (baseline.filesystem, manifest.filesystem)


@pytest.mark.parametrize("seed", range(12, 14))
def test_nothing_differs_from_itself_and_sides_mirror_each_other(seed: int) -> None:
    for one, two in pairs(seed, 80):
        same = difference(one, one, CALLS)
        assert (same.added, same.removed, same.severity) == ((), (), None)
        there, back = difference(one, two, CALLS), difference(two, one, CALLS)
        for added, removed in ((there.added, back.removed), (back.added, there.removed)):
            assert [(change.field, change.severity) for change in added] == [
                (change.field, change.severity) for change in removed
            ]


def test_by_name_alone_no_system_call_is_missed() -> None:
    for baseline, manifest in pairs(14, 200):
        exact, by_name = difference(baseline, manifest, CALLS), difference(baseline, manifest)
        for side in ("added", "removed"):
            told = [one.field for one in getattr(exact, side)]
            assert any(one.startswith("syscalls") for one in told) <= any(
                one.field.startswith("syscalls") for one in getattr(by_name, side)
            )


PARAMETERS: dict[str, dict[str, Any]] = {
    "project": {"type": "path", "within": ["/srv"]},
    "part": {"type": "text", "pattern": "a-z", "longest": 4},
    "jobs": {"type": "integer", "least": 1, "most": 4},
    "size": {"type": "choice", "values": ["256M", "1G"]},
}
PROJECTS = ["/srv", "/srv/a", "/srv/a/b", "/srv/b", "/srv/out", "/srv/b/out"]


def parametrised(choose: random.Random) -> Manifest:
    """One whose places, arguments and limits are filled in."""
    places = ["${project}", "${project}/a", "${project}/out", "/srv/a", "/srv/${part}", "/srv/out", "/srv/a/${part}"]

    def some(most: int) -> list[str]:
        return choose.sample(places, k=choose.randint(0, most))

    while True:
        declared = {name: dict(PARAMETERS[name]) for name in PARAMETERS}
        if choose.random() < 0.3:
            declared["project"]["within"] = choose.choice([["/srv/a"], ["/srv/a", "/srv/b"], ["/srv", "/var"]])
        if choose.random() < 0.2:
            declared["jobs"]["most"] = choose.choice([2, 8])
        tables = {
            "schema": 1,
            "name": "p",
            "parameters": declared,
            "filesystem": {"read": some(2), "write": some(2), "protect": some(1), "hide": some(1)},
            "limits": {"memory": choose.choice(["${size}", "512M"]), "pids": choose.choice(["${jobs}", 2])},
            "command": {"allow": [{"program": "git", "arguments": [choose.choice([["${part}"], ["a"], ["*"]])]}]},
        }
        try:
            return parse_map(tables)
        except Refused:
            continue


def ways() -> Iterator[dict[str, object]]:
    for project in PROJECTS:
        for part in ("a", "b", "out"):
            yield {"project": project, "part": part, "jobs": 1 if part == "a" else 4, "size": "1G"}
    yield {"project": "/srv/b", "part": "b", "jobs": 8, "size": "256M"}


def filled(manifest: Manifest, values: dict[str, object]) -> frozenset[Any] | None:
    try:
        return admitted(fill(manifest, values))
    except Refused:
        return None


@pytest.mark.parametrize("seed", range(20, 26))
def test_whatever_the_parameters_are_filled_in_with(seed: int) -> None:
    choose = random.Random(seed)
    for _ in range(12):
        baseline, manifest = parametrised(choose), parametrised(choose)
        found = difference(baseline, manifest, CALLS)
        for values in ways():
            after = filled(manifest, values)
            if after is None:
                continue
            before = filled(baseline, values)
            if before is None:
                assert any(one.field.startswith("parameters") for one in found.added), (values, baseline, manifest)
                continue
            assert untold(after - before, found.added) == [], (values, baseline.template, manifest.template)
        assert not difference(manifest, manifest, CALLS).added
