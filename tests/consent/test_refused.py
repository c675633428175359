"""Against a real daemon: what runs only once somebody agreed, with the very command that the refusal names."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from immured import AsyncClient, Client
from immured.client.consents import AsyncConsents, Consents
from immured.client.elevation import Sessions
from immured.client.errors import Refusal
from immured.client.throwaway import ThrowawayDaemon
from immured.errors import ConfigurationError
from immured.ledger.show import Selection, entries
from immured.manifest.signature import show_signatures, sign
from immured.service.context import now_ms
from immured.wire.certificate import chain_to_pem, issue
from immured.wire.keys import PrivateKey
from tests.consent.conftest import restarted
from tests.consent.texts import FIT, as_file
from tests.patience import PATIENCE_S
from tests.policies import declare

pytestmark = pytest.mark.needs_root

TRUE: Final = ["/bin/true"]
numbers = itertools.count(2)


def asking(text: str = "workspace", **consent: Any) -> dict[str, object]:
    """A manifest that nobody has agreed to yet: no two are alike."""
    manifest = {"schema": 1, "name": "asking", "limits": {"files": 100 + next(numbers)}}
    return {**manifest, "consent": {"required": True, "text": text, **consent}}


def refused(work: Callable[[], object], code: str = "consent_required") -> Refusal:
    with pytest.raises(Refusal) as found:
        work()
    assert found.value.code == code
    return found.value


def surroundings(daemon: ThrowawayDaemon, **more: str) -> dict[str, str]:
    """Of a shell of whoever has the admin's key."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("IMMURE", "SUDO_", "LC_", "LANG"))
    }
    path = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
    ours = {"IMMURE_SOCKET": str(daemon.socket), "IMMURE_KEY": str(daemon.admin_key), "PATH": path, "LC_ALL": "C.UTF-8"}
    return kept | ours | {"IMMURE_DAEMON_KEY": str(daemon.daemon_key)} | more


def shell(daemon: ThrowawayDaemon, line: str, **more: str) -> subprocess.CompletedProcess[str]:
    """That line, as a person pastes it into a shell without a terminal."""
    return subprocess.run(
        ["/bin/sh", "-c", line],
        env=surroundings(daemon, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def agree(client: Client, manifest: str | Mapping[str, object]) -> None:
    Consents(client).accept(Consents(client).show(manifest))


def test_nothing_runs_without_consent(client: Client) -> None:
    manifest = asking()
    refused(lambda: client.run(TRUE, manifest=manifest))
    refused(lambda: client.sandbox(manifest=manifest))
    refused(lambda: list(client.batch([TRUE, TRUE], manifest=manifest)))
    assert client.plan(TRUE, manifest=manifest)["manifest"]  # it only tells
    agree(client, manifest)
    assert client.run(TRUE, manifest=manifest).exit_code == 0
    assert [one.exit_code for _, one in client.batch([TRUE, TRUE], manifest=manifest)] == [0, 0]


def _batch(client: Client, manifest: Mapping[str, object]) -> object:
    return list(client.batch([TRUE], manifest=manifest))


WAYS: Final[Mapping[str, Callable[[Client, Mapping[str, object]], object]]] = {
    "run": lambda client, manifest: client.run(TRUE, manifest=manifest),
    "batch": _batch,
    "create": lambda client, manifest: client.sandbox(manifest=manifest).remove(),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_remedy_executed_word_for_word_lets_it_run(daemon: ThrowawayDaemon, client: Client, way: str) -> None:
    manifest = asking()
    remedy = refused(lambda: WAYS[way](client, manifest)).remedy
    done = shell(daemon, remedy)
    assert done.returncode == 0, done.stderr
    assert "Codex will execute commands" in done.stdout
    WAYS[way](client, manifest)


def test_the_remedy_names_the_session_and_all_else_that_it_is_bound_to(daemon: ThrowawayDaemon, client: Client) -> None:
    manifest = asking()
    session = Sessions(client).open().id
    names: dict[str, Any] = {"session": session, "persona": "reviewer", "sub": "ann's & bob"}
    with Client(
        str(daemon.socket), str(daemon.admin_key), str(daemon.daemon_key), timeout=PATIENCE_S, **names
    ) as other:
        remedy = refused(lambda: other.run(TRUE, manifest=manifest)).remedy
        done = shell(daemon, remedy)
        assert done.returncode == 0, done.stderr
        assert other.run(TRUE, manifest=manifest).exit_code == 0
        refused(lambda: client.run(TRUE, manifest=manifest))


def test_a_key_that_another_certified_answers_for_itself(daemon: ThrowawayDaemon, client: Client) -> None:
    manifest = asking()
    issuer, agent = PrivateKey.generate(), PrivateKey.generate()
    client.key_add(f"issuer-{issuer.id[-8:]}", issuer.public, role="runner")
    allowed = ("run", "manifest.inline", "consent.show", "consent.accept")
    chain = issue(issuer, agent.public, "agent", now_ms=now_ms(), life_ms=3_600_000, permissions=allowed)
    pinned = daemon.daemon_key.read_bytes()
    with (
        Client(daemon.socket, issuer, pinned, timeout=PATIENCE_S) as person,
        Client(daemon.socket, agent, pinned, timeout=PATIENCE_S, certificate=chain_to_pem([chain])) as delegate,
    ):
        agree(person, manifest)
        assert person.run(TRUE, manifest=manifest).exit_code == 0
        refused(lambda: delegate.run(TRUE, manifest=manifest))
        agree(delegate, manifest)
        assert delegate.run(TRUE, manifest=manifest).exit_code == 0


def test_a_loaded_manifest_asks_by_its_digest_and_of_its_tenants_alone(client: Client, daemon: ThrowawayDaemon) -> None:
    raw = b'schema = 1\nname = "loaded"\ntenants = ["default"]\n[consent]\nrequired = true\n'
    admin = PrivateKey.from_pem(daemon.admin_key.read_bytes())
    signed = show_signatures([sign(admin, raw, now_ms(), now_ms() + 3_600_000)])
    digest = client.call("manifest.load", {"manifest": raw, "signatures": signed.encode()}).result["digest"]
    assert isinstance(digest, str)
    refusal = refused(lambda: client.run(TRUE, manifest=digest))
    assert refusal.remedy == f"immure consent accept {digest}"
    assert shell(daemon, refusal.remedy).returncode == 0
    assert client.run(TRUE, manifest=digest).exit_code == 0
    declare(client, "[tenants.elsewhere]")
    with Client(str(daemon.socket), str(daemon.admin_key), str(daemon.daemon_key), tenant="elsewhere") as other:
        refused(lambda: Consents(other).show(digest), "unknown_manifest")


def test_an_exec_in_a_sandbox_that_lives_asks_too(daemon: ThrowawayDaemon, client: Client) -> None:
    manifest = asking()
    agree(client, manifest)
    with client.sandbox(manifest=manifest) as sandbox:
        assert sandbox.exec(TRUE).exit_code == 0
        Consents(client).decline(Consents(client).show(manifest))
        refused(lambda: sandbox.start(TRUE))
        remedy = refused(lambda: sandbox.exec(TRUE)).remedy
        assert sandbox.files.stat("/tmp").kind == "directory"  # who only looks is not asked
        assert shell(daemon, remedy).returncode == 0
        assert sandbox.exec(TRUE).exit_code == 0


def test_a_sandbox_of_a_template_asks_whoever_takes_it(daemon: ThrowawayDaemon, client: Client) -> None:
    remedy = refused(lambda: client.sandbox(template="asking")).remedy
    assert shell(daemon, remedy).returncode == 0
    with client.sandbox(template="asking") as sandbox:
        assert sandbox.python("print(6 * 7)").stdout == b"42\n"


def test_the_entries_of_what_runs_name_the_consent(daemon: ThrowawayDaemon, client: Client) -> None:
    manifest = asking()
    shown = Consents(client).show(manifest)
    seq = Consents(client).accept(shown).seq
    assert seq is not None
    client.run(TRUE, manifest=manifest)
    _batch(client, manifest)
    with client.sandbox(manifest=manifest) as sandbox:
        sandbox.exec(TRUE)
    path = daemon.state / "ledger/current.jsonl"
    named = [one.type for one in entries(path, Selection(first=seq)) if one.data.get("consent") == seq]
    assert named == ["run.accepted", "batch.accepted", "sandbox.created", "exec.accepted"]


def test_it_is_over_after_its_time(client: Client) -> None:
    manifest = asking(valid="1s")
    agree(client, manifest)
    deadline = time.monotonic() + PATIENCE_S
    while Consents(client).status(manifest).standing == "given":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert refused(lambda: client.run(TRUE, manifest=manifest)).details["state"] == "expired"


def test_a_restart_keeps_it(daemon: ThrowawayDaemon, client: Client) -> None:
    agreed, declined = asking(), asking()
    agree(client, agreed)
    agree(client, declined)
    Consents(client).decline(Consents(client).show(declined))
    with restarted(daemon) as again:
        assert again.run(TRUE, manifest=agreed).exit_code == 0
        assert refused(lambda: again.run(TRUE, manifest=declined)).details["state"] == "declined"


def test_another_wording_asks_again(daemon: ThrowawayDaemon, client: Client, wordings: Path) -> None:
    manifest = asking("house")
    before = (wordings / "house/en.toml").read_bytes()
    agree(client, manifest)
    assert client.run(TRUE, manifest=manifest).exit_code == 0
    (wordings / "house/en.toml").write_bytes(as_file(text=FIT.text + " And this is new."))
    try:
        with restarted(daemon) as again:
            assert refused(lambda: again.run(TRUE, manifest=manifest)).details["state"] == "changed"
    finally:
        (wordings / "house/en.toml").write_bytes(before)
        with restarted(daemon) as again:
            assert again.run(TRUE, manifest=manifest).exit_code == 0  # word for word what was agreed to


def test_the_operator_s_wording_is_shown_with_who_reviewed_it(client: Client) -> None:
    shown = Consents(client).show(asking("house"), language="en-GB")
    assert (shown.words["text"], shown.text, shown.shipped) == (FIT.text, FIT.digest, False)
    assert (shown.reviewed_by, shown.reviewed_on, shown.other) == ("Legal", "2026-10-01", False)
    assert shown.languages == ("de", "en")
    assert Consents(client).show(asking("house"), language="de").reviewed_by is None


def test_a_wording_that_is_at_fault_is_shown_to_nobody_and_said(daemon: ThrowawayDaemon, client: Client) -> None:
    found = refused(lambda: Consents(client).show(asking("broken")), "consent_text_missing")
    assert "U+202E RIGHT-TO-LEFT OVERRIDE at character 13" in found.message
    refused(lambda: client.run(TRUE, manifest=asking("broken")), "consent_text_missing")
    assert "broken/en.toml is not shown: text: U+202E" in daemon.log.read_text()


def test_a_directory_that_others_may_write_keeps_the_daemon_from_starting(
    daemon: ThrowawayDaemon, client: Client, wordings: Path
) -> None:
    assert daemon.stop() == 0
    try:
        for path in (wordings, wordings / "house", wordings / "house/en.toml"):
            mode = path.stat().st_mode
            path.chmod(mode | 0o022)
            with pytest.raises(ConfigurationError) as found:
                daemon.start()
            assert f"{path} can be written by others than its operator" in str(found.value.details["log"])
            path.chmod(mode)
    finally:
        daemon.start()
    assert client.run(TRUE).exit_code == 0


def test_the_asynchronous_client_asks_and_answers(daemon: ThrowawayDaemon) -> None:
    async def scenario() -> None:
        manifest = asking()
        async with AsyncClient(str(daemon.socket), str(daemon.admin_key), str(daemon.daemon_key)) as client:
            consents = AsyncConsents(client)
            shown = await consents.show(manifest, language="ru")
            assert shown.language == "ru"
            await consents.accept(shown)
            assert (await consents.status(manifest)).standing == "given"
            assert (await client.run(TRUE, manifest=manifest)).exit_code == 0
            await consents.decline(shown)
            assert [one.accepted for one in (await consents.status(manifest)).consents] == [False]

    asyncio.run(scenario())
