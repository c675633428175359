"""Entries as JSON lines: a tenant's own and no other's, the ledger's own bytes, and each with its proof."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immured.ledger import Ledger, create
from immured.ledger.belonging import HOST, Belonging
from immured.ledger.entry import parse_line
from immured.ledger.exports.head import ExportError
from immured.ledger.exports.lines import check_lines, proofs_beside, selected, write_lines
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.keys import load_vkeys
from immured.ledger.proof import ProofError
from immured.ledger.proving import Prover
from immured.ledger.segments import Files
from immured.ledger.show import Selection

TENANTS = ("default", "red", "blue")
DAEMON = {"daemon": "ed25519:" + "d" * 32}


def actor(tenant: str) -> dict[str, object]:
    made: dict[str, object] = {"key": f"ed25519:{TENANTS.index(tenant)}" + "a" * 31, "name": f"of-{tenant}", "uid": 1}
    return made if tenant == "default" else {**made, "tenant": tenant}


@dataclass
class History:
    """A host's life: what tenants do, what the daemon says of it, what an operator does to all. Each tenant's things
    bear its name, so that it is seen where they get to."""

    ledger: Ledger
    open: list[tuple[str, str, int, str]] = field(default_factory=list)  # tenant, kind, intent, sandbox
    sandboxes: list[tuple[str, str]] = field(default_factory=list)
    count: int = 0

    def name(self, tenant: str) -> str:
        self.count += 1
        return f"{tenant}-thing-{self.count}"

    def begin(self, tenant: str, kind: str) -> None:
        sandbox = self.name(tenant)
        type_ = {"run": "run.accepted", "sandbox": "sandbox.created", "command": "command.accepted"}[kind]
        data: dict[str, object] = {"argv": [self.name(tenant)]}
        if kind != "command":
            data["sandbox"] = sandbox
            self.sandboxes.append((tenant, sandbox))
        seq = self.ledger.entry(type_, actor(tenant), data).receipt.seq
        self.open.append((tenant, kind, seq, sandbox))

    def end(self, which: int, *, by_daemon: bool) -> None:
        if not self.open:
            return
        tenant, kind, intent, sandbox = self.open.pop(which % len(self.open))
        ends = {"run": ("run.finished", "run.lost"), "sandbox": ("sandbox.ended", "sandbox.lost")}
        type_ = ends.get(kind, ("command.done", "command.lost"))[by_daemon]
        data: dict[str, object] = {"intent": intent, "said": self.name(tenant)}
        if kind != "command":
            data["sandbox"] = sandbox
        self.ledger.entry(type_, DAEMON if by_daemon or kind == "sandbox" else actor(tenant), data)

    def meddle(self, tenant: str, which: int) -> None:
        """Somebody names somebody else's sandbox: an operator who ends it, or who may not."""
        if self.sandboxes:
            _, sandbox = self.sandboxes[which % len(self.sandboxes)]
            self.ledger.entry("command.done", actor(tenant), {"cmd": "kill", "sandbox": sandbox})
            both = [sandbox, *(name for owner, name in self.sandboxes if owner == tenant)][:2]
            self.ledger.entry("command.done", actor(tenant), {"cmd": "sandbox.prune", "sandboxes": both})

    def host(self, tenant: str) -> None:
        """What is nobody's but the host's, whoever did it, and whomever it names."""
        other = next(one for one in TENANTS if one != tenant)
        self.ledger.entry("key.added", actor(tenant), {"record": {"name": self.name(other)}})
        self.ledger.entry("policy.changed", actor(tenant), {"digest": self.name(other)})
        self.ledger.entry("daemon.started", DAEMON, {"profiles": {self.name(other): "x"}})
        self.ledger.entry("peer.misbehaved", DAEMON, {"uid": 7, "codes": {self.name(other): 1}})


@contextmanager
def histories(steps: list[tuple[str, str, int]]) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="histories-") as made:
        place = Path(made)
        create(place, DAEMON["daemon"])
        with Ledger.open(place) as ledger:
            history = History(ledger)
            for what, tenant, which in steps:
                if what in {"run", "sandbox", "command"}:
                    history.begin(tenant, what)
                elif what in {"end", "lose"}:
                    history.end(which, by_daemon=what == "lose")
                elif what == "meddle":
                    history.meddle(tenant, which)
                else:
                    history.host(tenant)
        yield place


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "sandbox", "command", "end", "lose", "meddle", "host", "run", "end"]),
        st.sampled_from(TENANTS),
        st.integers(0, 50),
    ),
    max_size=40,
)


def mine(place: Path, tenant: str) -> list[bytes]:
    with Files.open(place / "ledger") as files:
        return [entry.line for entry in selected(files, 1 << 40, Selection(), tenant)]


@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_a_tenants_export_shows_no_others_and_nothing_of_the_hosts(steps: list[tuple[str, str, int]]) -> None:
    with histories(steps) as place:
        lines = (place / "ledger/current.jsonl").read_bytes().splitlines()
        for tenant in TENANTS:
            exported = mine(place, tenant)
            for line in exported:
                assert line in lines
                assert not [other for other in TENANTS if other != tenant and f"{other}-thing".encode() in line]
                assert parse_line(line).type.partition(".")[0] in {"run", "sandbox", "command"}
            # And all that is plainly his is there: what he began, and what came of it.
            own = [line for line in lines if f"{tenant}-thing".encode() in line and b'"argv"' in line]
            assert set(own) <= set(exported)
            began = {parse_line(line).seq for line in own}
            assert {line for line in lines if parse_line(line).data.get("intent") in began} <= set(exported)
        with Files.open(place / "ledger") as files:
            assert [entry.line for entry in selected(files, 1 << 40, Selection(), None)] == lines
            assert list(selected(files, 1 << 40, Selection(), HOST)) == []


@settings(max_examples=50, deadline=None)
@given(STEPS, st.integers(0, 100))
def test_what_was_begun_before_what_is_kept_is_nobodys(steps: list[tuple[str, str, int]], cut: int) -> None:
    with histories(steps) as place:
        entries = [parse_line(line) for line in (place / "ledger/current.jsonl").read_bytes().splitlines()]
    kept, belonging = entries[cut % len(entries) :], Belonging(whole=False)
    for entry in kept:
        tenant = belonging.of(entry)
        assert tenant == HOST or not [
            other for other in TENANTS if other != tenant and f"{other}-thing".encode() in entry.line
        ]


# --- the file


@pytest.fixture
def place(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    create(state, DAEMON["daemon"])
    with Ledger.open(state) as ledger:
        history = History(ledger)
        for number in range(40):
            history.begin(TENANTS[number % 3], "run")
            history.end(0, by_daemon=number % 5 == 0)
    return state


def written(place: Path, out: Path, tenant: str | None = None, *, proofs: bool = False, **chosen: object) -> int:
    with Prover.open(place / "ledger") as prover, Files.open(place / "ledger") as files:
        return write_lines(prover, files, out, Selection(**chosen), tenant, proofs=proofs).entries  # type: ignore[arg-type]


def history_of(place: Path) -> KeyHistory:
    return KeyHistory(load_vkeys(place / "keys/ledger.vkey"))


def test_lines_are_the_ledgers_own_bytes(place: Path, tmp_path: Path) -> None:
    assert written(place, tmp_path / "all") == 81
    assert (tmp_path / "all").read_bytes() == (place / "ledger/current.jsonl").read_bytes()
    assert (tmp_path / "all").stat().st_mode & 0o777 == 0o600
    assert written(place, tmp_path / "runs", types=("run.lost",)) == 8
    assert written(place, tmp_path / "red", "red", types=("run.*",)) > 0


def test_each_line_can_be_checked_by_whoever_was_given_it(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "red.jsonl"
    count = written(place, out, "red", proofs=True)
    checked = check_lines(out, history_of(place), (), 0)
    assert (checked.entries, checked.origin.startswith("immured/")) == (count, True)
    first = json.loads(proofs_beside(out).read_bytes().splitlines()[0])
    assert first["proof"].startswith("c2sp.org/tlog-proof@v1\n")


@pytest.mark.parametrize("what", ["altered", "left out", "put in", "exchanged", "another's key", "no proofs"])
def test_what_was_done_to_an_export_is_found(place: Path, tmp_path: Path, what: str) -> None:
    out = tmp_path / "red.jsonl"
    written(place, out, "red", proofs=True)
    lines, keys = out.read_bytes().splitlines(keepends=True), history_of(place)
    if what == "altered":
        out.write_bytes(b"".join([lines[0].replace(b"red-thing", b"Red-thing", 1), *lines[1:]]))
    elif what == "left out":
        out.write_bytes(b"".join(lines[1:]))
    elif what == "put in":
        out.write_bytes(b"".join([*lines, lines[0]]))
    elif what == "exchanged":
        out.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))
        proofs = proofs_beside(out).read_bytes().splitlines(keepends=True)
        proofs_beside(out).write_bytes(b"".join([proofs[1], proofs[0], *proofs[2:]]))
    elif what == "another's key":
        create(tmp_path / "other", DAEMON["daemon"])
        keys = history_of(tmp_path / "other")
    else:
        proofs_beside(out).write_bytes(b"")
    with pytest.raises(ProofError):
        check_lines(out, keys, (), 0)


def test_nothing_is_replaced_and_nothing_half_written_is_left(place: Path, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("mine")
    with pytest.raises(ExportError) as refused:
        written(place, tmp_path / "there")
    assert refused.value.code == "export_exists"
    assert (tmp_path / "there").read_text() == "mine"
    (tmp_path / "one.proofs").write_text("mine")
    with pytest.raises(ExportError):
        written(place, tmp_path / "one", proofs=True)
    assert sorted(os.listdir(tmp_path)) == ["one.proofs", "state", "there"]


def test_what_no_head_covers_is_not_given_away(place: Path, tmp_path: Path) -> None:
    checkpoints = sorted((place / "ledger/checkpoints").iterdir())
    assert len(checkpoints) == 2
    checkpoints[-1].unlink()
    assert written(place, tmp_path / "all") == 1
