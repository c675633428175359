"""The gate: what is unhealthy is found, refuses what begins something where it is required, and is told once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from immured.errors import ConfigurationError, Refused
from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.ledger import Ledger
from immured.ledger.show import Selection, entries
from immured.service.audit_health import BEGINS, AuditHealth
from immured.service.config import parse_config
from immured.service.exports import Failure
from immured.service.state import init_state
from immured.service.witnesses import WitnessFailure
from tests.patience import PATIENCE_S

SECOND = 10**9
FORKED = WitnessFailure("witness_forked", "it saw another history")
DOWN = Failure("export_unreachable", "no such disk", "mount it")


@dataclass
class Clocks:
    wall: int = 1_800_000_000 * SECOND
    steady: int = 1_000 * SECOND

    def go(self, seconds: float, *, wall: float | None = None) -> None:
        self.steady += round(seconds * SECOND)
        self.wall += round((seconds if wall is None else wall) * SECOND)


def _copy() -> Any:
    place = SimpleNamespace(every_ms=0)
    return SimpleNamespace(name="/copy", failure=None, copied=True, entries=1, exporter=SimpleNamespace(place=place))


def _witness() -> Any:
    return SimpleNamespace(place=SimpleNamespace(name="w1"), failure=None, size=1)


@dataclass
class Scene:
    """A ledger, clocks that are set by hand, and one copy and one witness as the daemon's books would have them."""

    root: Path
    clocks: Clocks
    ledger: Ledger
    copy: Any = field(default_factory=_copy)
    witness: Any = field(default_factory=_witness)

    def health(self, *require: str) -> AuditHealth:
        made = AuditHealth(
            self.ledger,
            cast("Any", SimpleNamespace(all=[self.copy])),
            cast("Any", SimpleNamespace(all=[self.witness])),
            lambda: {"daemon": "test"},
            require,
            clock=lambda: self.clocks.wall,
            steady=lambda: self.clocks.steady,
        )
        made._began = self.clocks.steady / 1e9
        made.look()
        return made

    def told(self) -> list[tuple[str, Any]]:
        self.ledger.entry("test.flushed", {}, {}).wait(PATIENCE_S)
        found = entries(self.root / "ledger", Selection())
        return [(one.type, one.data) for one in found if one.type.startswith(("audit.", "clock."))]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    root = init_state(tmp_path / "state").paths.root
    ledger = Ledger.open(root)
    yield Scene(root, Clocks(), ledger)
    ledger.close()


def codes(health: AuditHealth) -> list[tuple[str, str]]:
    return [(fault.part, fault.code) for fault in health.faults]


def test_all_is_well(scene: Scene) -> None:
    health = scene.health("checkpoint", "export", "witness", "clock")
    assert codes(health) == []
    for cmd in PERMISSIONS:
        health.check(cmd)
    assert scene.told() == []


@pytest.mark.parametrize(
    ("part", "spoil", "code"),
    [
        ("export", lambda scene: setattr(scene.copy, "failure", DOWN), "export_unreachable"),
        ("export", lambda scene: setattr(scene.copy, "copied", False), "export_unready"),
        ("witness", lambda scene: setattr(scene.witness, "failure", FORKED), "witness_forked"),
        ("witness", lambda scene: setattr(scene.witness, "size", 0), "witness_unready"),
        ("checkpoint", lambda scene: setattr(scene.ledger.durable, "failure", "full"), "checkpoint_unwritten"),
        ("clock", lambda scene: scene.clocks.go(1, wall=-3), "clock_behind"),
    ],
)  # fmt: skip
def test_what_is_required_refuses_and_what_is_not_does_not(scene: Scene, part: str, spoil: Any, code: str) -> None:
    strict, lax = scene.health(part), scene.health()
    spoil(scene)
    strict.look()
    lax.look()
    assert codes(strict) == codes(lax) == [(part, code)]
    lax.check("run")
    with pytest.raises(Refused) as refused:
        strict.check("run")
    assert refused.value.code == "audit_unhealthy"
    assert refused.value.details == {"part": part, "reason": code}
    assert refused.value.retry
    assert refused.value.remedy
    for cmd in ("kill", "sandbox.kill", "sandbox.pause", "status", "key.revoke", "policy.set", "metrics", "preflight"):
        strict.check(cmd)


def test_a_ledger_that_takes_nothing_is_a_fault_and_refuses_by_itself(scene: Scene) -> None:
    health = scene.health("export")
    scene.ledger._writer.condemn(Refused("ledger_damaged", "line 3", "compare"))
    health.look()
    assert codes(health) == [("append", "ledger_damaged")]


def test_each_turn_is_told_once(scene: Scene) -> None:
    health = scene.health("export")
    scene.copy.failure = DOWN
    for _ in range(3):
        scene.clocks.go(1)
        health.look()
    [(kind, said)] = scene.told()
    assert (kind, said) == (
        "audit.unhealthy",
        {"part": "export", "code": "export_unreachable", "message": "no such disk"},
    )
    scene.copy.failure = None
    for _ in range(3):
        health.look()
    _, (kind, said) = scene.told()
    assert (kind, said["part"]) == ("audit.recovered", "export")
    assert isinstance(said["unhealthy"], int)
    health.check("run")


def test_what_another_daemon_told_of_is_not_told_again_and_is_recovered(scene: Scene) -> None:
    health = scene.health("export")
    health._told = {"export": 7}
    scene.copy.failure = DOWN
    health.look()
    assert scene.told() == []
    scene.copy.failure = None
    health.look()
    assert [(kind, said["unhealthy"]) for kind, said in scene.told()] == [("audit.recovered", 7)]


def test_who_has_not_been_heard_of_yet_refuses_at_once_and_is_told_of_later(scene: Scene) -> None:
    scene.witness.size = 0
    health = scene.health("witness")
    with pytest.raises(Refused):
        health.check("run")
    assert scene.told() == []
    scene.clocks.go(31)
    health.look()
    assert [kind for kind, _ in scene.told()] == ["audit.unhealthy"]


def test_who_lags_is_behind_after_a_while_and_only_then(scene: Scene) -> None:
    health = scene.health("witness", "export")
    scene.ledger.entry("test.more", {}, {}).wait(PATIENCE_S)
    scene.ledger.cover(scene.ledger.status().entries - 1)
    assert scene.ledger.status().checkpoint > 1
    health.look()
    scene.clocks.go(599)
    health.look()
    assert codes(health) == []
    scene.clocks.go(2)
    health.look()
    assert codes(health) == [("export", "export_behind"), ("witness", "witness_behind")]
    scene.copy.entries = scene.witness.size = scene.ledger.status().checkpoint
    health.look()
    assert codes(health) == []


def test_an_entry_that_is_not_signed_in_time(scene: Scene) -> None:
    health = scene.health("checkpoint")
    scene.ledger.entry("test.more", {}, {}).wait(PATIENCE_S)
    for seconds, late in ((0, False), (300, False), (31, True)):
        scene.clocks.go(seconds)
        health.look()
        assert (codes(health) == [("checkpoint", "checkpoint_stale")]) is late


@pytest.mark.parametrize("by", [-5, 5, 3600])
def test_a_step_against_the_monotonic_clock_is_entered(scene: Scene, by: int) -> None:
    health = scene.health()
    scene.clocks.go(1)
    health.look()
    scene.clocks.go(1, wall=1 + by)
    health.look()
    scene.clocks.go(1)
    health.look()
    [(kind, said)] = scene.told()
    assert (kind, said["by_ms"]) == ("clock.stepped", by * 1000)
    assert said["from"] != said["to"]


def test_what_a_clock_is_disciplined_by_is_no_step(scene: Scene) -> None:
    health = scene.health()
    for _ in range(20):
        scene.clocks.go(1, wall=1.0005)
        health.look()
    scene.clocks.go(86_400)  # suspended: both went on
    health.look()
    assert scene.told() == []


def test_what_is_refused_begins_something() -> None:
    assert {"run", "run.batch", "sandbox.create", "sandbox.exec", "file.put", "volume.create"} <= BEGINS
    assert all(PERMISSIONS[cmd] in (TargetKind.SANDBOX, TargetKind.RUN, TargetKind.STORAGE) for cmd in BEGINS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[audit]\nrequire = ["export"]', "there is none"),
        ('[audit]\nrequire = ["witness"]', "there is none"),
        ('[audit]\nrequire = ["clocks"]', "audit.require: clocks"),
        ('[audit]\nrequire = ["clock", "clock"]', "different"),
        ('[audit]\nrequire = "clock"', "no list"),
        ("[audit]\nrequire = [1]", "no list"),
    ],
)
def test_a_condition_that_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        parse_config(text)


def test_a_condition() -> None:
    assert parse_config('[audit]\nrequire = ["checkpoint", "clock"]').require == ("checkpoint", "clock")
    assert parse_config('[audit]\nexports = ["/mnt/a"]\nrequire = ["export"]').require == ("export",)
    assert parse_config("").require == ()
