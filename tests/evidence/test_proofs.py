"""A real daemon's proofs: of what is one's own, checked by a key that was kept, through changes of keys."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from immured import Client
from immured.cli.app import app
from immured.client.errors import Refusal, UntrustedReply
from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.checkpoint import open_checkpoint
from immured.ledger.key_rotation import KeyHistory
from immured.ledger.keys import load_vkeys
from immured.ledger.merkle import is_consistent
from immured.ledger.proof import Consistency
from immured.ledger.show import Selection, entries
from immured.ledger.verify import verify_file
from immured.wire.keys import PrivateKey
from immured.wire.messages import Receipt
from tests.patience import PATIENCE_S
from tests.policies import declare

pytestmark = pytest.mark.needs_root
TENANTS = '[tenants.acme]\nprojects = ["web", "ml"]\n[tenants.rival]\nprojects = ["web"]\n'


@pytest.fixture(scope="module")
def daemon() -> Iterator[ThrowawayDaemon]:
    with ThrowawayDaemon() as running:
        with running.client() as client:
            declare(client, TENANTS)
        yield running


@pytest.fixture
def admin(daemon: ThrowawayDaemon) -> Iterator[Client]:
    with daemon.client() as client:
        yield client


def somebody(daemon: ThrowawayDaemon, role: str, tenant: str, count: int = 0) -> Client:
    key = PrivateKey.generate()
    with daemon.client() as admin:
        admin.key_add(f"{tenant}-{role}-{key.id[-8:]}", key.public.to_pem(), role=role, tenants=[tenant])
    return Client(str(daemon.socket), key, str(daemon.daemon_key), tenant=tenant, project="web")


def run(client: Client) -> tuple[Receipt, Receipt]:
    """A run's intent and outcome."""
    done = client.run(["/bin/true"])
    assert done.intent is not None
    assert done.receipt is not None
    return done.intent, done.receipt


def refused(client: Client, entry: Receipt | int) -> tuple[str, str]:
    with pytest.raises(Refusal) as said:
        client.prove(entry)
    return said.value.code, said.value.message.replace(str(entry if isinstance(entry, int) else entry.seq), "N")


def code(client: Client, entry: Receipt) -> str:
    try:
        client.prove(entry)
    except Refusal as said:
        return said.code
    return "ok"


def test_a_receipt_becomes_a_proof(daemon: ThrowawayDaemon, admin: Client, tmp_path: Path) -> None:
    intent, outcome = run(admin)
    shown = admin.prove(intent)
    assert (shown.entry.type, shown.entry.leaf) == ("run.accepted", intent.leaf)
    shown = admin.prove(outcome)
    assert (shown.entry.type, shown.entry.leaf) == ("run.finished", outcome.leaf)
    file = tmp_path / "outcome.tlog-proof"
    file.write_bytes(shown.proof.encode())
    key = daemon.state / "keys" / "ledger.vkey"
    done = CliRunner().invoke(app, ["ledger", "check-proof", str(file), "--key", str(key)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "run.finished" in done.output


def test_a_proof_of_another_entry_is_not_believed(admin: Client) -> None:
    intent, outcome = run(admin)
    with pytest.raises(UntrustedReply, match="of another entry"):
        admin.prove(Receipt(intent.seq, outcome.leaf))


def test_a_key_that_was_kept_is_believed_and_no_other(daemon: ThrowawayDaemon, admin: Client) -> None:
    kept = load_vkeys(daemon.state / "keys" / "ledger.vkey")
    intent, _ = run(admin)
    assert admin.prove(intent, keys=kept).entry.seq == intent.seq
    with pytest.raises(UntrustedReply, match="no known key signed it"):
        admin.prove(intent, keys=())
    with pytest.raises(UntrustedReply, match="0 known witnesses"):
        admin.prove(intent, keys=kept, require=1)


def test_what_no_checkpoint_covers_gets_one_at_most_one_a_second(daemon: ThrowawayDaemon, admin: Client) -> None:
    heads = daemon.state / "ledger" / "checkpoints"

    def count() -> int:
        return sum(one.name.isdigit() for one in heads.iterdir())  # and not what is still being written

    before, began = count(), time.monotonic()
    intent, _ = run(admin)
    for _ in range(4):
        admin.prove(intent)
        intent, _ = run(admin)
    signed, took = count() - before, time.monotonic() - began
    assert signed <= took + 1
    assert admin.prove(intent).checkpoint.size > intent.seq


def test_ones_own_is_shown_and_no_other(daemon: ThrowawayDaemon, admin: Client) -> None:
    with (
        somebody(daemon, "worker", "acme") as ours,
        somebody(daemon, "worker", "acme") as mate,
        somebody(daemon, "worker", "rival") as rival,
        somebody(daemon, "tenant-admin", "acme") as governs,
    ):
        intent, outcome = run(ours)
        nothing = refused(ours, 10**9)
        for receipt in (intent, outcome):
            assert ours.prove(receipt).entry.seq == receipt.seq
            assert governs.prove(receipt).entry.seq == receipt.seq
            assert admin.prove(receipt).entry.seq == receipt.seq
            assert refused(mate, receipt) == refused(rival, receipt) == nothing
        theirs, _ = run(rival)
        assert refused(governs, theirs) == nothing
        for entry in entries(daemon.state / "ledger"):
            if entry.type in ("ledger.created", "daemon.started", "key.added", "policy.changed"):
                assert refused(governs, entry.seq) == nothing
                assert admin.prove(entry.seq).entry.type == entry.type


def test_what_is_denied_is_denied(daemon: ThrowawayDaemon) -> None:
    with somebody(daemon, "worker", "acme") as ours:
        with pytest.raises(Refusal) as said:
            ours.ledger_rotate_key()
        assert said.value.code == "denied"


@pytest.mark.parametrize("args", [{}, {"seq": -1}, {"seq": "1"}, {"seq": 2**53}])
def test_bad_arguments(admin: Client, args: dict[str, object]) -> None:
    with pytest.raises(Refusal) as said:
        admin.call("ledger.prove", args)
    assert said.value.code == "bad_argument"


def test_the_newest_head_goes_on_from_one_that_was_kept(daemon: ThrowawayDaemon, admin: Client, tmp_path: Path) -> None:
    admin.prove(run(admin)[0])
    kept = admin.ledger_checkpoint()
    admin.prove(run(admin)[1])
    newest = admin.ledger_checkpoint()
    assert newest.witnessed is None
    old, new = kept.opened.checkpoint, newest.opened.checkpoint
    assert new.size > old.size
    file = tmp_path / "consistency"
    arguments = ["ledger", "consistency", "--state", str(daemon.state), "--from", str(old.size), "-o", str(file)]
    assert CliRunner().invoke(app, [*arguments, "--to", str(new.size)], catch_exceptions=False).exit_code == 0
    made = Consistency.parse(file.read_bytes())
    assert is_consistent(old.size, old.root, new.size, new.root, made.path)
    made.check(kept.note, KeyHistory(kept.keys))


def test_the_command_line_asks_the_daemon(daemon: ThrowawayDaemon, admin: Client, tmp_path: Path) -> None:
    intent, _ = run(admin)
    file, head = tmp_path / "proof", tmp_path / "head"
    who = ["--socket", daemon.socket, "--key", daemon.admin_key, "--daemon-key", daemon.daemon_key]

    def immure(*words: object) -> str:
        done = CliRunner().invoke(app, ["ledger", *map(str, words)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    immure("prove", intent.seq, "--ask", "-o", file, *who)
    immure("checkpoint", "--witnessed", "-o", head, *who)
    old = (daemon.state / "keys" / "ledger.vkey").read_text().splitlines()[-1]
    assert "run.accepted" in immure("check-proof", file, "--key", old)
    assert open_checkpoint(head.read_bytes(), load_vkeys(daemon.state / "keys" / "ledger.vkey")).size > intent.seq
    new = immure("rotate-key", *who).splitlines()[0]
    immure("prove", intent.seq, "--ask", "-o", file, *who)
    assert "run.accepted" in immure("check-proof", file, "--key", new)
    lines = tmp_path / "rotations"
    shown = immure("show", "--state", daemon.state, "--type", "ledger.key_rotated", "--json").splitlines()
    lines.write_text(shown[-1] + "\n")
    assert "run.accepted" in immure("check-proof", file, "--key", old, "--rotations", lines)


def test_another_key_takes_the_place_of_the_ledgers(daemon: ThrowawayDaemon, admin: Client) -> None:
    kept = load_vkeys(daemon.state / "keys" / "ledger.vkey")
    before, _ = run(admin)
    admin.prove(before)
    said = admin.call("ledger.rotate_key")
    assert said.receipt is not None
    now = load_vkeys(daemon.state / "keys" / "ledger.vkey")
    assert (said.result["old"], said.result["new"]) == (kept[-1].encode(), now[-1].encode())
    after, _ = run(admin)
    with pytest.raises(UntrustedReply, match="no known key signed it"):
        admin.prove(after, keys=kept)
    history = KeyHistory(kept)
    rotation = admin.prove(said.receipt, keys=now).entry
    assert history.take(rotation) is not None
    assert admin.prove(after, keys=history).entry.seq == after.seq
    open_checkpoint(admin.ledger_checkpoint().note, now[-1:])
    with pytest.raises(UntrustedReply):
        admin.ledger_checkpoint(keys=kept)


def test_whoever_has_the_first_key_verifies_all_after_restarts(tmp_path: Path) -> None:
    with ThrowawayDaemon() as mortal:
        first = load_vkeys(mortal.state / "keys" / "ledger.vkey")
        with mortal.client() as client:
            intent, _ = run(client)
        for _ in range(2):
            with mortal.client() as client:
                client.ledger_rotate_key()
                assert client.prove(intent).entry.seq == intent.seq
            mortal.stop()
            mortal.start()
        with mortal.client() as client:
            assert client.prove(intent).entry.seq == intent.seq
        shutil.copytree(mortal.state / "ledger", tmp_path / "ledger")
        shutil.copyfile(mortal.state / "keys" / "ledger.vkey", tmp_path / "ledger.vkey")
    history = KeyHistory(first)
    for entry in entries(tmp_path / "ledger", Selection(types=("ledger.key_rotated",))):
        history.take(entry)
    assert history.known == load_vkeys(tmp_path / "ledger.vkey")
    for note in (tmp_path / "ledger" / "checkpoints").iterdir():
        history.open(note.read_bytes())
    report = verify_file(tmp_path / "ledger", tmp_path / "ledger" / "checkpoints", history.known)
    assert report.whole, report


def test_stored_hashes_that_were_lost_are_made_anew_by_a_start() -> None:
    with ThrowawayDaemon() as mortal:
        with mortal.client() as client:
            intent, _ = run(client)
        mortal.stop()
        shutil.rmtree(mortal.state / "ledger" / "tree")
        mortal.start()
        with mortal.client() as client:
            deadline = time.monotonic() + PATIENCE_S
            while (said := code(client, intent)) != "ok":
                assert said == "proof_unavailable"
                assert time.monotonic() < deadline
                time.sleep(0.1)
