"""A real daemon asked for the ledger's entries: one's own, one's tenant's, everything; bounded, a page at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from immured import AsyncClient, Client
from immured.cli.app import app
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.ledger.entry import Entry
from immured.ledger.index import INDEX
from immured.ledger.show import entries
from immured.wire.keys import PrivateKey
from tests.patience import until
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


def somebody(daemon: ThrowawayDaemon, role: str, tenant: str) -> Client:
    key = PrivateKey.generate()
    with daemon.client() as admin:
        admin.key_add(f"{tenant}-{role}-{key.id[-8:]}", key.public.to_pem(), role=role, tenants=[tenant])
    return Client(str(daemon.socket), key, str(daemon.daemon_key), tenant=tenant, project="web")


def run(client: Client) -> set[int]:
    done = client.run(["/bin/true"])
    assert done.intent is not None
    assert done.receipt is not None
    return {done.intent.seq, done.receipt.seq}


def seqs(found: Iterator[Entry]) -> list[int]:
    return [entry.seq for entry in found]


def test_each_is_shown_what_is_his(daemon: ThrowawayDaemon, admin: Client) -> None:
    with (
        somebody(daemon, "worker", "acme") as ours,
        somebody(daemon, "worker", "acme") as mate,
        somebody(daemon, "worker", "rival") as rival,
        somebody(daemon, "tenant-admin", "acme") as governs,
    ):
        mine, his, theirs = run(ours), run(mate), run(rival)
        assert set(seqs(ours.ledger_query(types=["run.*"]))) == mine
        assert set(seqs(mate.ledger_query(types=["run.*"]))) == his
        assert set(seqs(rival.ledger_query(types=["run.*"]))) == theirs
        assert set(seqs(governs.ledger_query(types=["run.*"]))) == mine | his
        assert set(seqs(governs.ledger_query(tenant="rival"))) == set()
        assert set(seqs(governs.ledger_query(tenant=""))) == set()
        everything = [entry.seq for entry in entries(daemon.state / "ledger")]
        assert seqs(admin.ledger_query()) == everything
        assert set(seqs(admin.ledger_query(tenant="rival", types=["run.*"]))) == theirs
        assert set(seqs(admin.ledger_query(types=["run.*"]))) >= mine | his | theirs
        for entry in governs.ledger_query():
            assert admin.prove(entry.seq).entry.line == entry.line


def test_a_page_at_a_time(daemon: ThrowawayDaemon, admin: Client) -> None:
    run(admin)
    expected = [entry.line for entry in entries(daemon.state / "ledger")]
    found: list[object] = []
    first = 0
    for _ in range(1_000):
        said = admin.call("ledger.query", {"first": first, "limit": 3}).result
        page = said["entries"]
        assert isinstance(page, list)
        assert len(page) <= 3
        found += page
        if "next" not in said:
            break
        assert isinstance(said["next"], int)
        first = said["next"]
    assert found == expected


def test_a_question_leaves_no_entry(daemon: ThrowawayDaemon, admin: Client) -> None:
    before = len(seqs(entries(daemon.state / "ledger")))
    seqs(admin.ledger_query(types=["run.*"]))
    assert len(seqs(entries(daemon.state / "ledger"))) == before


def test_the_async_client_asks_too(daemon: ThrowawayDaemon, admin: Client) -> None:
    expected = seqs(admin.ledger_query(types=["key.added"]))

    async def ask() -> list[int]:
        async with AsyncClient(str(daemon.socket), str(daemon.admin_key), str(daemon.daemon_key)) as client:
            return [entry.seq async for entry in client.ledger_query(types=["key.added"])]

    assert asyncio.run(ask()) == expected


@pytest.mark.parametrize(
    "args",
    [
        {"types": ["no type!"]}, {"types": "run.*"}, {"types": [1]}, {"since": "yesterday"}, {"limit": 0},
        {"limit": 501}, {"first": -1}, {"tenant": 1}, {"actor": "x" * 257}, {"types": ["a.b"] * 17},
    ],
)  # fmt: skip
def test_bad_arguments(admin: Client, args: dict[str, object]) -> None:
    with pytest.raises(Refusal) as said:
        admin.call("ledger.query", args)
    assert said.value.code == "bad_argument"


def test_the_command_line(daemon: ThrowawayDaemon, admin: Client) -> None:
    mine = run(admin)
    who = ["--socket", str(daemon.socket), "--key", str(daemon.admin_key), "--daemon-key", str(daemon.daemon_key)]

    def immure(*words: str) -> list[str]:
        done = CliRunner().invoke(app, ["ledger", "query", *words, *who], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    lines = immure("--type", "run.*", "--json")
    assert mine <= {json.loads(line)["seq"] for line in lines}
    assert len(immure("-n", "1")) == 1
    assert "ledger.created" in immure("--seq", "0", "--of", "")[0]


def test_a_large_ledger_is_indexed_by_the_daemon_itself(daemon: ThrowawayDaemon, admin: Client) -> None:
    """Its walls let it: the file is its own, and it answers as all lines do."""
    while sum(file.stat().st_size for file in (daemon.state / "ledger").glob("*.jsonl")) <= 9 << 20:
        for _ in range(10):
            admin.run(["/bin/true", *["x" * 1_000] * 40])
    expected = [entry.seq for entry in entries(daemon.state / "ledger") if entry.type.startswith("run.")]
    found: list[int] = []

    def is_answered() -> bool:
        with contextlib.suppress(Refusal):  # of a question that took too long: what was indexed by then stays so
            found[:] = seqs(admin.ledger_query(types=["run.*"]))
        return bool(found)

    until(is_answered)
    assert found == expected
    made = (daemon.state / "ledger" / INDEX).stat()
    lines = (daemon.state / "ledger" / "current.jsonl").stat()
    assert (made.st_uid, made.st_gid, made.st_mode & 0o777) == (lines.st_uid, lines.st_gid, 0o600)
