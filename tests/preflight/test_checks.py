"""Each check fails when what it looks for is really so; and a run is then refused with the same."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest

from immured import Client
from immured.client.consents import Consents
from immured.client.errors import Refusal
from tests.patience import PATIENCE_S
from tests.preflight.scene import DAY_MS, Scene, manifest, of, refused, scene, signed

pytestmark = pytest.mark.needs_root

ASKING = '[consent]\nrequired = true\ntext = "{}"\n'


@pytest.fixture(scope="module")
def stage() -> Iterator[Scene]:
    with scene() as made:
        yield made


@pytest.fixture
def worker(stage: Scene) -> Iterator[Client]:
    with stage.client("worker") as client:
        yield client


def entry(stage: Scene, seq: int) -> dict[str, object]:
    lines = (stage.daemon.state / "ledger/current.jsonl").read_bytes().splitlines()
    found: dict[str, object] = json.loads(lines[seq])
    return found


def test_a_manifest_that_is_loaded_passes_and_the_entry_that_loaded_it_is_named(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("build"), stage.keys["release"])
    seen = worker.preflight(manifest=digest, argv=["/bin/true"])
    assert (seen.ready, seen.manifest, seen.name, seen.manifest_class) == (True, digest, "build", "default")
    assert seen.entry is not None
    loaded = entry(stage, seen.entry)
    assert (loaded["type"], loaded["data"]["digest"]) == ("manifest.loaded", digest)  # type: ignore[index]
    (row,) = of(seen, "signature")
    assert (row.verdict, f"entry {seen.entry}, signed by release, until " in row.words) == ("pass", True)
    assert [row.check for row in seen.rows if row.verdict == "fail"] == []
    assert {row.check for row in seen.rows} == {
        "persona",
        "signature",
        "command",
        "secrets",
        "audit",
        "consent",
        "host",
    }
    assert refused(worker, digest) == ""


def test_what_was_found_is_an_entry_of_its_own(stage: Scene, worker: Client) -> None:
    seen = worker.preflight()
    assert seen.receipt is not None
    written = entry(stage, seen.receipt.seq)
    data = written["data"]
    assert isinstance(data, dict)
    assert (written["type"], data["cmd"], data["manifest"], data["verdict"]) == (
        *("preflight.done", "preflight"),
        *(seen.manifest, seen.verdict),
    )
    assert data["verdicts"]["persona"] == "pass"
    (row,) = [row for row in of(seen, "audit") if "the ledger took this" in row.words]
    assert f"entry {seen.receipt.seq}," in row.words


# --- 1: persona and scope


def test_a_manifest_of_another_persona(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("ops", more='personas = ["night"]'), stage.keys["release"])
    (row,) = of(worker.preflight(manifest=digest), "persona")
    assert (row.verdict, row.code, "a command without a persona" in row.words) == ("fail", "denied", True)
    assert refused(worker, digest) == "denied"
    with stage.client("worker", persona="night") as by_night:
        (row,) = of(by_night.preflight(manifest=digest), "persona")
        assert (row.verdict, "as 'night'" in row.words) == ("pass", True)


def test_a_manifest_of_another_tenant_is_not_there(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("theirs", more='tenants = ["other"]'), stage.keys["release"])
    with pytest.raises(Refusal) as refusal:
        worker.preflight(manifest=digest)
    assert refusal.value.code == refused(worker, digest) == "unknown_manifest"
    with stage.client("elsewhere") as theirs:
        assert of(theirs.preflight(manifest=digest), "persona")[0].verdict == "pass"


def test_a_map_of_one_who_may_send_none(stage: Scene, worker: Client) -> None:
    own = {"schema": 1, "name": "mine"}
    (row,) = of(worker.preflight(manifest=own), "persona")
    assert (row.verdict, row.code) == ("fail", "denied")
    with pytest.raises(Refusal, match="denied"):
        worker.run(["/bin/true"], manifest=own)
    with stage.client("runner") as runner:
        seen = runner.preflight(manifest=own)
    assert (seen.ready, of(seen, "persona")[0].verdict) == (True, "pass")


def test_a_role_that_runs_nothing(stage: Scene) -> None:
    stage.admin.call(
        "policy.set",
        {
            "policy": stage.admin.call("policy.show", {}).result["policy"]
            + b'\n[[rules]]\nname = "watch"\nroles = ["viewer"]\nallow = ["preflight"]\nscope = "own"\n'  # type: ignore[operator]
        },
    )
    stage.key("viewer", "viewer")
    with stage.client("viewer") as viewer:
        (row,) = of(viewer.preflight(), "persona")
    assert (row.verdict, row.code) == ("fail", "denied")


def test_a_command_that_the_manifest_is_not_for(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("one", more='[command]\nallow = ["/bin/true"]'), stage.keys["release"])
    assert of(worker.preflight(manifest=digest, argv=["/bin/true"]), "command")[0].verdict == "pass"
    (row,) = of(worker.preflight(manifest=digest, argv=["/bin/sh"]), "command")
    assert (row.verdict, row.code) == ("fail", "denied")
    assert refused(worker, digest, "/bin/sh") == "denied"


def test_a_parameter_beyond_its_bound(stage: Scene, worker: Client) -> None:
    more = '[command]\nenv = { N = "${n}" }\n[parameters.n]\ntype = "integer"\nleast = 1\nmost = 4'
    digest = stage.load(manifest("counted", more=more), stage.keys["release"])
    assert of(worker.preflight(manifest=digest, parameters={"n": 3}), "command", "fail") == []
    for given in ({"n": 5}, {}):
        (row,) = of(worker.preflight(manifest=digest, parameters=given), "command", "fail")
        assert row.code == "bad_argument"


# --- 2: signature and digest


def test_a_signer_s_key_that_was_revoked(stage: Scene, worker: Client) -> None:
    leaver = stage.key("leaver", "admin")
    digest = stage.load(manifest("left"), leaver)
    assert of(worker.preflight(manifest=digest), "signature")[0].verdict == "pass"
    stage.admin.call("key.revoke", {"key": leaver.id})
    (row,) = of(worker.preflight(manifest=digest), "signature")
    assert (row.verdict, row.code, "'leaver'" in row.words) == ("fail", "manifest_unsigned", True)
    assert row.remedy
    assert refused(worker, digest) == "manifest_unsigned"


def test_a_signature_that_expired(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("short"), stage.keys["release"], expires_ms=10_000)  # time to load it in
    deadline = time.monotonic() + PATIENCE_S
    while (row := of(worker.preflight(manifest=digest), "signature")[0]).verdict == "pass":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (row.verdict, row.code) == ("fail", "manifest_expired")
    assert refused(worker, digest) == "manifest_expired"


def test_a_manifest_that_was_revoked(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("gone"), stage.keys["release"])
    stage.admin.manifests.revoke(digest, "the toolchain moved")
    (row,) = of(worker.preflight(manifest=digest), "signature")
    assert (row.verdict, row.code, "the toolchain moved" in row.words) == ("fail", "manifest_revoked", True)
    assert refused(worker, digest) == "manifest_revoked"


@pytest.mark.parametrize("what", ["toml", "signatures", "sig"])
def test_a_stored_copy_that_was_changed_under_the_daemon(stage: Scene, worker: Client, what: str) -> None:
    digest = stage.load(manifest(f"changed-{what}"), stage.keys["release"])
    path = stage.daemon.state / "manifests" / f"{digest.removeprefix('sha256:')}.{what}"
    held = path.read_bytes()
    path.write_bytes(held[:-2] + bytes([held[-2] ^ 1]) + held[-1:])
    (row,) = of(worker.preflight(manifest=digest), "signature")
    assert (row.verdict, row.code) == ("fail", "manifest_damaged")
    assert refused(worker, digest) == "manifest_damaged"
    path.write_bytes(held)
    assert of(worker.preflight(manifest=digest), "signature")[0].verdict == "pass"


def test_a_file_that_is_not_loaded_is_judged_and_loading_it_is_the_remedy(stage: Scene) -> None:
    raw = manifest("fresh", more='[filesystem]\nwrite = ["/srv/out"]')
    seen = stage.admin.preflight(raw=raw, signatures=signed(raw, stage.keys["release"]))
    assert seen.ready
    assert seen.entry is None
    assert [(row.verdict, row.remedy) for row in of(seen, "signature")] == [
        ("pass", ""),
        ("warn", "immure manifest load F"),
    ]
    (row,) = of(seen, "capabilities")
    assert (row.verdict, "/srv/out" in row.words) == ("warn", True)
    assert refused(stage.admin, seen.manifest) == "unknown_manifest"
    stage.load(raw, stage.keys["release"])
    again = stage.admin.preflight(raw=raw, signatures=signed(raw, stage.keys["release"]))
    assert again.entry is not None
    assert [row.verdict for row in of(again, "signature")] == ["pass"]


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("unsigned", "manifest_unsigned"),
        ("other bytes", "signature_invalid"),
        ("garbled", "signature_invalid"),
        ("by a stranger", "manifest_unsigned"),
        ("by one without the right", "manifest_unsigned"),
        ("expired", "manifest_expired"),
    ],
)
def test_a_file_whose_signatures_do_not_hold(stage: Scene, case: str, code: str) -> None:
    raw = manifest(f"file-{case.replace(' ', '-')}")
    release = stage.keys["release"]
    signatures = {
        "unsigned": b"",
        "other bytes": signed(raw + b"# more\n", release),
        "garbled": b"immured-signature v1\nnothing\n",
        "by a stranger": signed(raw, stage.keys["worker"].generate()),
        "by one without the right": signed(raw, stage.keys["worker"]),
        "expired": signed(raw, release, at_ms=int(time.time() * 1000) - 2 * DAY_MS),
    }[case]
    seen = stage.admin.preflight(raw=raw, signatures=signatures)
    (row,) = of(seen, "signature")
    assert (row.verdict, row.code) == ("fail", code)
    with pytest.raises(Refusal) as refusal:
        stage.admin.manifests.load(raw, signatures)
    assert refusal.value.code == code


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('colour = "red"', "colour"),
        ('personas = ["*"]', "*"),
        ('tenants = ["nowhere"]', "nowhere"),
        ('personas = ["nobody-at-all"]', "nobody-at-all"),
    ],
)
def test_a_file_that_is_not_understood(stage: Scene, more: str, words: str) -> None:
    raw = manifest("odd", more=more)
    seen = stage.admin.preflight(raw=raw, signatures=signed(raw, stage.keys["release"]))
    (row,) = of(seen, "schema")
    assert (row.verdict, row.code, words in row.words, seen.ready) == ("fail", "manifest_invalid", True, False)


# --- 3: secrets


def test_a_manifest_that_asks_for_secrets(stage: Scene) -> None:
    raw = manifest("secret", more='[secrets.API_KEY]\nsource = "vault:kv/api"\ndelivery = "env"\nttl = "10m"')
    seen = stage.admin.preflight(raw=raw, signatures=signed(raw, stage.keys["release"]))
    (row,) = of(seen, "secrets")
    assert (row.verdict, "secrets" in row.words) == ("fail", True)
    with pytest.raises(Refusal) as refusal:
        stage.admin.run(
            ["/bin/true"],
            manifest={
                "schema": 1,
                "name": "secret",
                "secrets": {"API_KEY": {"source": "vault:kv/api", "delivery": "env", "ttl": "10m"}},
            },
        )
    assert refusal.value.code == row.code


# --- 5: consent


def test_consent_that_nobody_gave_and_the_command_that_gives_it(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("asks", more=ASKING.format("house")), stage.keys["release"])
    (row,) = of(worker.preflight(manifest=digest), "consent")
    assert (row.verdict, row.code) == ("fail", "consent_required")
    assert row.remedy == f"immure consent accept {digest}"
    assert refused(worker, digest) == "consent_required"
    consents = Consents(worker)
    consents.accept(consents.show(digest))
    (row,) = of(worker.preflight(manifest=digest), "consent")
    assert (row.verdict, "its text is there in en" in row.words) == ("pass", True)
    assert refused(worker, digest) == ""
    consents.decline(consents.show(digest))
    (row,) = of(worker.preflight(manifest=digest), "consent")
    assert (row.verdict, "was declined" in row.words) == ("fail", True)


@pytest.mark.parametrize(
    ("text", "words"),
    [("bidi", "U+202E"), ("tongue", "no language that is known"), ("absent", "there is no consent text 'absent'")],
)
def test_a_banner_that_cannot_be_shown(stage: Scene, worker: Client, text: str, words: str) -> None:
    digest = stage.load(manifest(f"banner-{text}", more=ASKING.format(text)), stage.keys["release"])
    (row,) = of(worker.preflight(manifest=digest), "consent")
    assert (row.verdict, row.code, words in row.words) == ("fail", "consent_text_missing", True)
    assert row.remedy
    assert refused(worker, digest) == "consent_text_missing"


def test_a_banner_that_is_at_fault_in_one_language(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("banner-partly", more=ASKING.format("partly")), stage.keys["release"])
    (row,) = of(worker.preflight(manifest=digest), "consent", "warn")
    assert ("not shown in de" in row.words, "U+200B" in row.words) == (True, True)


# --- the host


def test_a_limit_without_its_controller(stage: Scene, worker: Client) -> None:
    """On a host that has them all, each limit holds as it says; on one that lacks some, each is named, and strict
    refuses."""
    host = stage.admin.status()["host"]
    assert isinstance(host, dict)
    controllers = set(host["controllers"])
    loose = stage.load(manifest("loose", more='[limits]\nmemory = "64M"\npids = 16'), stage.keys["release"])
    strict = stage.load(
        manifest("strict", more='[limits]\nmemory = "64M"\npids = 16\nstrict = true'), stage.keys["release"]
    )
    weaker = {row.words.split()[0] for row in of(worker.preflight(manifest=loose), "host", "warn")}
    assert weaker == {f"limits.{name}" for name in ("memory", "pids") if name not in controllers}
    failing = of(worker.preflight(manifest=strict), "host", "fail")
    assert {row.words.split()[0] for row in failing} == weaker
    assert {row.code for row in failing} == ({"weaker_enforcement"} if weaker else set())
    assert refused(worker, strict) == ("weaker_enforcement" if weaker else "")
    io = stage.load(manifest("io", more='[limits]\nio = "1M"'), stage.keys["release"])
    rows = of(worker.preflight(manifest=io), "host", "fail")
    assert [(row.code, "limits.io cannot be enforced" in row.words) for row in rows] == (
        [] if "io" in controllers else [("unsupported_limit", True)]
    )
    assert refused(worker, io) == ("" if "io" in controllers else "unsupported_limit")


def test_a_processor_that_there_is_not(stage: Scene, worker: Client) -> None:
    digest = stage.load(manifest("cores", more='[limits]\ncores = "63"'), stage.keys["release"])
    (row,) = of(worker.preflight(manifest=digest), "host", "fail")
    assert row.code == refused(worker, digest) == "unsupported_limit"


def test_an_image_that_is_not_there(stage: Scene, worker: Client) -> None:
    digest = stage.load(
        manifest("image", more=f'[filesystem]\nroot = "image:sha256:{"0" * 64}"'), stage.keys["release"]
    )
    (row,) = of(worker.preflight(manifest=digest), "host", "fail")
    assert row.code == refused(worker, digest) == "unknown_image"


# --- the command itself


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({"manifest": "sha256:" + "0" * 64}, "unknown_manifest"),
        ({"manifest": {"schema": 1, "name": "x", "color": 1}}, "manifest_invalid"),
        ({"manifest": "sha256:" + "0" * 64, "raw": b"x"}, "bad_argument"),
        ({"signatures": b"x"}, "bad_argument"),
        ({"raw": b""}, "bad_argument"),
        ({"argv": [1]}, "bad_argument"),
        ({"manifst": "x"}, "unknown_field"),
    ],
)
def test_what_is_no_question(stage: Scene, args: dict[str, object], code: str) -> None:
    with pytest.raises(Refusal) as refusal:
        stage.admin.call("preflight", args)
    assert refusal.value.code == code


def test_garbage_as_a_file_has_rows_and_no_more(stage: Scene, worker: Client) -> None:
    for raw in (b"\xff\xfe", b"[" * 10_000, b"a" * 200_000, b"\0", "schema = 1\nname = '\u202e'".encode()):
        seen = worker.preflight(raw=raw, signatures=b"\x00")
        assert not seen.ready
        assert of(seen, "schema")[0].verdict == "fail"


def test_many_at_once(stage: Scene, worker: Client) -> None:
    import threading

    seen: list[bool] = []
    threads = [threading.Thread(target=lambda: seen.append(worker.preflight().ready)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert seen == [True] * 16


def test_the_async_client_asks_the_same(stage: Scene, worker: Client) -> None:
    import asyncio

    from immured import AsyncClient

    async def ask() -> bool:
        key = stage.place / "worker.pem"
        async with AsyncClient(str(stage.daemon.socket), str(key), str(stage.daemon.daemon_key)) as client:
            return (await client.preflight(argv=["/bin/true"])).ready

    assert asyncio.run(ask())
