"""Whose a consent is, to what, and for how long; what the ledger holds of it. With a clock of our own."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from immured.errors import Refused
from immured.identity.consents import MAX_CONSENTS_PER_KEY
from immured.manifest.consent_texts import shipped_texts
from immured.service.consents import Asked
from immured.service.context import now_ms
from immured.wire.keys import PrivateKey
from tests.consent.texts import FIT
from tests.service.harness import Client, Harness, serving, until
from tests.service.orders import TENANTS, code_of, done, error_of, let_in, started_again, under

MINUTE: Final = 60_000
ASKING: Final[dict[str, Any]] = {"schema": 1, "name": "asking", "consent": {"required": True}}


def with_texts(harness: Harness) -> None:
    """The package's texts, as a daemon reads them with its configuration, and the house's."""
    config = replace(harness.state.config, consent=shipped_texts().beneath([FIT], {}))
    harness.service.state = replace(harness.state, config=config)


async def accept(client: Client, manifest: object = ASKING, language: str = "en", **names: Any) -> Any:
    shown = await done(client, "consent.show", {"manifest": manifest, "language": language}, **names)
    answering = {"manifest": shown["manifest"], "language": shown["language"], "text": shown["text"]}
    return await done(client, "consent.accept", answering, **names)


async def decline(client: Client, manifest: object = ASKING, **names: Any) -> Any:
    return await done(client, "consent.decline", {"manifest": manifest}, **names)


async def run(client: Client, manifest: object = ASKING, **names: Any) -> str:
    """`ok`, or the code with which it was refused."""
    reply = await client.ask("run", {"argv": ["/bin/true"], "manifest": manifest}, **names)
    return "ok" if reply.ok else code_of(reply)


async def standing(client: Client, manifest: object = ASKING, **names: Any) -> str:
    return str((await done(client, "consent.status", {"manifest": manifest}, **names))["standing"])


def test_nothing_runs_before_somebody_agreed_and_then_it_names_the_entry(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        refused = error_of(await bob.ask("run", {"argv": ["/bin/true"], "manifest": ASKING}))
        assert refused["code"] == "consent_required"
        assert refused["message"] == "the manifest 'asking' asks for consent, and none was given outside any session"
        assert refused["remedy"] == f"immure consent accept {refused['details']['manifest']}"
        assert refused["details"] | {"manifest": ""} == {
            "manifest": "",
            "name": "asking",
            "text_id": "workspace",
            "state": "none",
        }
        answer = await accept(bob)
        assert await run(bob) == "ok"
        [accepted], [intent] = harness.of_type("consent.accepted"), harness.of_type("run.accepted")
        assert intent["data"]["consent"] == accepted["seq"]
        assert accepted["data"]["manifest"] == answer["manifest"] == intent["data"]["manifest"]
        assert accepted["data"]["expires_ms"] - accepted["data"]["at_ms"] == 10 * MINUTE

    serving(tmp_path, scenario)


def test_a_manifest_that_asks_for_nothing_is_not_asked_about(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        plain = {"schema": 1, "name": "plain"}
        assert await run(bob, plain) == "ok"
        assert not (await done(bob, "consent.show", {"manifest": plain}))["required"]
        assert await standing(bob, plain) == "not_required"
        for cmd in ("accept", "decline"):
            answering = {"manifest": plain, "language": "en", "text": "sha256:" + "0" * 64}
            assert code_of(await bob.ask(f"consent.{cmd}", answering)) == "wrong_state"
        assert "consent" not in harness.of_type("run.accepted")[0]["data"]

    serving(tmp_path, scenario)


def test_the_actor_s_entry_says_who_as_whom_and_where(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner", personas=["reviewer"])
        session = (await done(bob, "session.open", {}))["session"]
        await accept(bob, session=session, persona="reviewer")
        [entry] = harness.of_type("consent.accepted")
        assert entry["actor"]["name"] == "bob"
        assert (entry["actor"]["persona"], entry["actor"]["session"]) == ("reviewer", session)
        assert entry["data"]["cmd"] == "consent.accept"

    serving(tmp_path, scenario)


def test_it_is_over_when_its_time_is(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        begin = now_ms()
        harness.service.clock = lambda: begin
        short = {**ASKING, "consent": {"required": True, "valid": "90s"}}
        await accept(bob, short)
        for at, code in ((89_999, "ok"), (90_000, "consent_required"), (91_000, "consent_required")):
            harness.service.clock = lambda at=at: begin + at  # type: ignore[misc]
            assert await run(bob, short) == code
        assert await standing(bob, short) == "expired"

    serving(tmp_path, scenario)


def test_a_clock_that_is_set_back_makes_no_consent_last_longer(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        begin = now_ms()
        harness.service.clock = lambda: begin
        await accept(bob)
        for at, code in ((-59_000, "ok"), (-61_000, "consent_required"), (0, "ok")):
            harness.service.clock = lambda at=at: begin + at  # type: ignore[misc]
            assert await run(bob) == code

    serving(tmp_path, scenario)


def test_declining_ends_it_and_accepting_begins_it_anew(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        await decline(bob)
        assert (await run(bob), await standing(bob)) == ("consent_required", "declined")
        await accept(bob)
        assert (await run(bob), await standing(bob)) == ("ok", "given")
        await decline(bob)
        assert (await run(bob), await standing(bob)) == ("consent_required", "declined")
        assert [one["type"] for one in harness.entries() if one["type"].startswith("consent.")] == [
            "consent.text",
            "consent.declined",
            "consent.accepted",
            "consent.declined",
        ]

    serving(tmp_path, scenario)


class _Slow:
    """An entry that is not durable before `hold` is set."""

    def __init__(self, pending: Any, hold: asyncio.Event) -> None:
        self._pending, self._hold = pending, hold

    async def durable(self) -> Any:
        await self._hold.wait()
        return await self._pending.durable()


def test_nothing_begins_by_a_consent_while_it_is_being_declined(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        again = harness.connect(key=bob.key)
        await accept(bob)
        enter, hold = harness.service.ledger.entry, asyncio.Event()

        def slowly(kind: str, *given: Any, **more: Any) -> Any:
            pending = enter(kind, *given, **more)
            return _Slow(pending, hold) if kind == "consent.declined" else pending

        harness.service.ledger.entry = slowly  # type: ignore[method-assign, assignment]
        await bob.send(bob.envelope("consent.decline", {"manifest": ASKING}))
        await until(lambda: bool(harness.service.authority.consents.withheld))
        assert await run(again) == "consent_required"
        hold.set()
        reply = await bob.reply()
        assert reply is not None
        assert reply.ok
        assert not harness.service.authority.consents.withheld

    serving(tmp_path, scenario)


def test_without_a_ledger_nothing_is_answered_and_nothing_changes(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        await accept(bob)
        held = harness.service.ledger.entry

        def full(*given: Any, **more: Any) -> Any:
            raise Refused("ledger_unavailable", "the disk is full", "make room")

        harness.service.ledger.entry = full  # type: ignore[method-assign]
        for cmd in ("accept", "decline"):
            shown = await done(bob, "consent.show", {"manifest": ASKING, "language": "de"})
            answering = {"manifest": shown["manifest"], "language": "de", "text": shown["text"]}
            assert code_of(await bob.ask(f"consent.{cmd}", answering)) == "ledger_unavailable"
        harness.service.ledger.entry = held  # type: ignore[method-assign]
        assert await standing(bob) == "given"
        assert not harness.service.authority.consents.withheld
        await accept(bob, language="de")
        assert len(harness.of_type("consent.text")) == 2

    serving(tmp_path, scenario)


def test_a_decline_outlives_what_it_ended_however_the_clock_was_set(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        real, ahead = now_ms(), now_ms() + 3 * 24 * 60 * MINUTE
        harness.service.clock = lambda: ahead
        await accept(bob)
        harness.service.clock = lambda: real
        await decline(bob)
        harness.service.clock = lambda: ahead
        assert await standing(bob) == "declined"
        harness.service.authority = started_again(harness)
        harness.service.authority.consents.forget(ahead)
        assert len(harness.service.authority.consents) == 1

    serving(tmp_path, scenario)


def test_each_session_and_none_is_a_place_of_its_own(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        first, second = [(await done(bob, "session.open", {}))["session"] for _ in range(2)]
        await accept(bob, session=first)
        assert await run(bob, session=first) == "ok"
        assert await run(bob, session=second) == await run(bob) == "consent_required"
        await accept(bob)
        assert await run(bob) == "ok"
        assert await run(bob, session=second) == "consent_required"
        await decline(bob)
        assert await run(bob, session=first) == "ok"
        refused = error_of(await bob.ask("run", {"argv": ["/bin/true"], "manifest": ASKING}, session=second))
        assert refused["message"].endswith(f"none was given in the session {second}")
        assert refused["remedy"].endswith(f" --session={second}")

    serving(tmp_path, scenario)


def test_nobody_agrees_for_another(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        under(harness, TENANTS)
        key = PrivateKey.generate()
        bound = {"subjects": ["ann", "eve"], "personas": ["a", "b"], "tenants": ["default", "acme"]}
        more = {"name": "bob", "public": key.public.raw, "role": "runner", **bound}
        await done(harness.connect(), "key.add", more)
        bob, elsewhere = harness.connect(key=key), harness.connect(key=key, uid=1000)
        carol = await let_in(harness, "carol", "runner")
        await accept(bob)
        assert await run(bob) == "ok"
        assert await run(carol) == "consent_required"
        assert await run(elsewhere) == "consent_required"
        for names in ({"sub": "ann"}, {"persona": "a"}, {"tenant": "acme"}):
            assert await run(bob, **names) == "consent_required", names
        await accept(bob, sub="ann", persona="a", tenant="acme", project="web")
        named = {"sub": "ann", "persona": "a", "tenant": "acme", "project": "web"}
        assert await run(bob, **named) == "ok"
        for other in ({"sub": "eve"}, {"persona": "b"}, {"project": "default"}):
            assert await run(bob, ASKING, **{**named, **other}) == "consent_required", other

    serving(tmp_path, scenario)


def test_a_key_that_took_a_key_s_place_has_its_consents(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        await accept(bob)
        heir = PrivateKey.generate()
        await done(bob, "key.rotate", {"key": "bob", "public": heir.public.raw})
        new = harness.connect(key=heir)
        assert await run(new) == "ok"
        await decline(new)
        assert await run(new) == "consent_required"

    serving(tmp_path, scenario)


def test_another_manifest_by_one_word_asks_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        await accept(bob)
        assert await run(bob, {**ASKING, "limits": {"pids": 7}}) == "consent_required"

    serving(tmp_path, scenario)


def test_another_wording_asks_again(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        house = {**ASKING, "consent": {"required": True, "text": "house"}}
        bob = await let_in(harness, "bob", "runner")
        await accept(bob, house)
        assert await run(bob, house) == "ok"
        changed = replace(FIT, text=FIT.text + " This line is new.")
        texts = {"other": shipped_texts().beneath([changed], {}), "none": shipped_texts()}
        config = harness.service.state.config
        harness.service.state = replace(harness.service.state, config=replace(config, consent=texts["other"]))
        assert (await run(bob, house), await standing(bob, house)) == ("consent_required", "changed")
        old = {"manifest": house, "language": "en", "text": FIT.digest}
        refused = error_of(await bob.ask("consent.accept", old))
        assert (refused["code"], refused["details"]["text"]) == ("consent_changed", changed.digest)
        await accept(bob, house)
        assert await run(bob, house) == "ok"
        harness.service.state = replace(harness.service.state, config=replace(config, consent=texts["none"]))
        assert await run(bob, house) == "consent_text_missing"

    serving(tmp_path, scenario)


def test_what_was_read_is_in_the_ledger_word_for_word_and_once(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        for _ in range(3):
            await accept(bob)
        [entry] = harness.of_type("consent.text")
        text = shipped_texts().choose("workspace").text
        assert "".join(entry["data"]["words"]["text"]) == text.text
        assert entry["data"]["text"] == text.digest
        assert entry["seq"] == harness.of_type("consent.accepted")[0]["seq"] - 1
        again = started_again(harness)
        assert again.consents.wordings == {text.digest}

    serving(tmp_path, scenario)


def test_a_daemon_that_starts_knows_every_answer(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob, carol = await let_in(harness, "bob", "runner"), await let_in(harness, "carol", "runner")
        session = (await done(bob, "session.open", {}))["session"]
        await accept(bob, session=session)
        await accept(carol)
        await decline(carol)
        before = harness.service.authority.consents
        again = started_again(harness).consents
        for name in ("_by", "_of", "wordings"):
            assert getattr(again, name) == getattr(before, name)
        assert len(again) == 2

    serving(tmp_path, scenario)


def test_whoever_asks_how_it_stands_is_told_a_command_that_works(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        said = await done(bob, "consent.status", {"manifest": ASKING})
        assert said["remedy"] == f"immure consent accept {said['manifest']}"
        await accept(bob, said["manifest"])
        assert await run(bob) == "ok"

    serving(tmp_path, scenario)


def test_status_shows_one_s_own_and_no_other_s(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob, carol = await let_in(harness, "bob", "runner"), await let_in(harness, "carol", "runner")
        answer = await accept(bob)
        [row] = (await done(bob, "consent.status", {}))["consents"]
        assert (row["manifest"], row["accepted"], row["holds"]) == (answer["manifest"], True, True)
        assert (await done(carol, "consent.status", {}))["consents"] == []
        assert (await done(harness.connect(), "consent.status", {}))["consents"] == []

    serving(tmp_path, scenario)


def test_who_may_send_no_manifest_learns_nothing_by_asking_about_one(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob, worker = await let_in(harness, "bob", "runner"), await let_in(harness, "wes", "worker")
        viewer = await let_in(harness, "vic", "viewer")
        digest = (await accept(bob))["manifest"]
        for cmd in ("show", "status"):
            assert code_of(await worker.ask(f"consent.{cmd}", {"manifest": ASKING})) == "denied"
            assert code_of(await worker.ask(f"consent.{cmd}", {"manifest": digest})) == "unknown_manifest"
            assert code_of(await viewer.ask(f"consent.{cmd}", {"manifest": digest})) == "denied"

    serving(tmp_path, scenario)


@pytest.mark.parametrize(
    ("cmd", "args", "code"),
    [
        ("show", {}, "bad_argument"),
        ("show", {"manifest": 7}, "bad_argument"),
        ("show", {"manifest": ASKING, "language": "../de"}, "bad_argument"),
        ("show", {"manifest": ASKING, "lang": "de"}, "unknown_field"),
        ("show", {"manifest": {**ASKING, "consent": {"required": True, "text": "nowhere"}}}, "consent_text_missing"),
        ("accept", {"manifest": ASKING}, "bad_argument"),
        ("accept", {"manifest": ASKING, "language": "en", "text": "sha256:" + "0" * 64}, "consent_changed"),
        ("accept", {"manifest": ASKING, "language": "fr", "text": "x"}, "consent_changed"),
        ("decline", {"manifest": ASKING, "text": "x"}, "bad_argument"),
        ("decline", {"manifest": "sha256:" + "0" * 64}, "unknown_manifest"),
        ("status", {"session": "x"}, "unknown_field"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, cmd: str, args: dict[str, object], code: str) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        assert code_of(await bob.ask(f"consent.{cmd}", args)) == code
        assert not [one for one in harness.entries() if one["type"].startswith("consent.")]

    serving(tmp_path, scenario)


def test_without_a_text_nobody_is_sent_to_agree(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        nowhere = {**ASKING, "consent": {"required": True, "text": "nowhere"}}
        assert await run(harness.connect(), nowhere) == "consent_text_missing"

    serving(tmp_path, scenario)


def test_answers_are_bounded_by_key(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob, carol = await let_in(harness, "bob", "runner"), await let_in(harness, "carol", "runner")
        digest = (await accept(bob))["manifest"]
        consents = harness.service.authority.consents
        [entry] = harness.of_type("consent.accepted")
        for number in range(MAX_CONSENTS_PER_KEY - 1):
            consents.visit(
                "consent.accepted", {**entry["actor"], "session": f"s{number}"}, entry["data"], entry["seq"] + number
            )
        session = (await done(bob, "session.open", {}))["session"]
        shown = await done(bob, "consent.show", {"manifest": digest})
        answering = {"manifest": digest, "language": shown["language"], "text": shown["text"]}
        assert code_of(await bob.ask("consent.accept", answering, session=session)) == "over_quota"
        await done(bob, "consent.accept", answering)  # in the place of one's own
        await accept(carol)
        begin = now_ms()
        harness.service.clock = lambda: begin + 25 * 60 * MINUTE
        await done(bob, "consent.accept", answering)
        assert len(consents) == 1  # the rest ended more than a day ago

    serving(tmp_path, scenario)


def test_what_one_was_asked_about_is_remembered_within_bounds(tmp_path: Path) -> None:
    async def scenario(harness: Harness) -> None:
        with_texts(harness)
        bob = await let_in(harness, "bob", "runner")
        digests = []
        for pids in range(10, 50):
            refused = await bob.ask("run", {"argv": ["/bin/true"], "manifest": {**ASKING, "limits": {"pids": pids}}})
            digests.append(error_of(refused)["details"]["manifest"])
        assert isinstance(harness.service.asked, Asked)
        assert len(harness.service.asked) == 32
        assert code_of(await bob.ask("consent.show", {"manifest": digests[0]})) == "unknown_manifest"
        assert (await done(bob, "consent.show", {"manifest": digests[-1]}))["required"]

    serving(tmp_path, scenario)
