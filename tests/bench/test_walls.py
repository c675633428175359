"""Walls are seen, not claimed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.subjects.spawned import floor
from bench.walls import BEYOND, SAME_VIEW, WALLS, Inside, look, missing, parse_probe, seen, table, view_difference

NAMESPACES = "user mnt pid net ipc uts cgroup".split()
HOST = Inside(
    {name: f"{name}:[1]" for name in NAMESPACES},
    {"CapEff": "000001ffffffffff", "CapBnd": "000001ffffffffff", "NoNewPrivs": "0", "Seccomp": "0"},
    frozenset({"/", "/proc"}),
    frozenset({"/usr", "/home"}),
    "77",
    "writable",
)
MODEL = Inside(
    {name: f"{name}:[2]" for name in NAMESPACES},
    {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"},
    frozenset({"/", "/proc", "/dev", "/tmp", "/etc/passwd", "/proc/kcore"}),
    frozenset({"/usr"}),
    "1",
    "read-only",
)


def test_the_host_stands_up_no_wall() -> None:
    assert seen(HOST, HOST, MODEL) == frozenset()


def test_a_default_run_stands_up_all_that_can_be_seen() -> None:
    assert missing(seen(MODEL, HOST, MODEL)) == ["no host root", "the default class's filter"]


@pytest.mark.parametrize(
    ("change", "wall"),
    [
        ({"namespaces": {**MODEL.namespaces, "net": "net:[1]"}}, "network namespace"),
        ({"namespaces": {**MODEL.namespaces, "user": ""}}, "user namespace"),
        ({"status": {**MODEL.status, "CapBnd": "0" * 15 + "1"}}, "no capabilities"),
        ({"status": {**MODEL.status, "NoNewPrivs": "0"}}, "no new privileges"),
        ({"status": {**MODEL.status, "Seccomp": "0"}}, "a system-call filter"),
        ({"places": MODEL.places - {"/tmp"}}, "private /tmp, /dev, /proc"),
        ({"places": MODEL.places - {"/proc/kcore"}}, SAME_VIEW),
        ({"root": MODEL.root | {"/home"}}, SAME_VIEW),
        ({"session": "0"}, "a session of its own"),
        ({"session": "77"}, "a session of its own"),
        ({"usr": "writable"}, "read-only /usr"),
    ],
)
def test_one_wall_less_is_seen(change: dict[str, object], wall: str) -> None:
    less = replace(MODEL, **change)  # type: ignore[arg-type]
    assert seen(MODEL, HOST, MODEL) - seen(less, HOST, MODEL) == {wall}


def test_the_probe_sees_this_host() -> None:
    inside = parse_probe(floor().probe())
    assert all(inside.namespaces[name].startswith(f"{name}:[") for name in NAMESPACES)
    assert inside.status["CapEff"].isalnum()
    assert {"/", "/proc"} <= inside.places
    assert "/usr" in inside.root
    assert inside.session.isdigit()
    assert inside.usr in {"writable", "read-only"}


def test_a_difference_of_views_is_named() -> None:
    less = replace(MODEL, root=MODEL.root | {f"/{name}" for name in "abcdef"}, places=MODEL.places - {"/proc/kcore"})
    assert view_difference(less, MODEL) == "shows /a, /b, /c, /d and 2 more; does not cover /proc/kcore"


def test_unequal_isolation_is_said() -> None:
    whole = look("ours", "as it is", frozenset(WALLS) | {BEYOND[0]}, "", HOST, MODEL)
    probed = "\n".join(f"ns {name} {name}:[2]" for name in NAMESPACES) + "\nroot /home"
    less = look("theirs", "`theirs --fast`", frozenset(), probed, HOST, MODEL)
    _, _, equal, unequal = table([whole, less]).splitlines()
    assert equal.startswith(f"| ours | yes | - | {BEYOND[0]} |")
    assert unequal.startswith("| theirs | **no** | no host root, read-only /usr, ")
    assert "the same view (shows /home; does not cover /etc/passwd, /proc/kcore)" in unequal
