"""What acts on things, on real ones: one's own, another key's of the same tenant, another tenant's, the host's.

The letter of the table says how far each role reaches. What is beyond one's reach and may be seen is `denied`; what may
not be seen is answered, word for word, as what is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from immured.identity.policy.permissions import PERMISSIONS, TargetKind
from immured.service.commands import load_commands
from immured.wire.keys import PrivateKey
from immured.wire.messages import Reply
from tests.matrix.raw import code, words
from tests.matrix.stage import ROLES, Stage
from tests.matrix.table import OTHERS, covers, letters
from tests.matrix.things import ABSENT, MANIFEST, Cast, cast

pytestmark = pytest.mark.needs_root

NONE: Final[Mapping[str, object]] = {}
PATH: Final = {"path": "/tmp/x"}
EXEC: Final = "EXEC"
"""Stands for an exec of the sandbox in question."""


WRITERS: Final = {"runner", "platform-engineer", "tenant-admin", "admin"}
"""Who sends manifests of his own."""


@dataclass(frozen=True)
class Probe:
    """A command on one thing: in `field` stands which; `reached` is what it is answered where it got as far as that.

    `show` is the permission by which such a thing is seen; "": it is found by whom the command is allowed on it, alone.
    `hidden` is the answer about what is not there; "": whatever that is.
    """

    kind: str
    cmd: str
    reached: str
    args: Callable[[], Mapping[str, object]] = lambda: NONE
    field: str = ""
    show: str = ""
    hidden: str = "not_found"


def _sandbox(cmd: str, reached: str, /, **args: object) -> Probe:
    return Probe("sandbox", cmd, reached, lambda: args, "sandbox", "sandbox.show")


def _key(cmd: str, reached: str, /, **args: object) -> Probe:
    return Probe("key", cmd, reached, lambda: args, "key", "key.show")


def _proposal(cmd: str, reached: str, /, **args: object) -> Probe:
    return Probe("proposal", cmd, reached, lambda: args, "proposal", "proposal.show")


PROBES: Final = (
    # The last ones of a kind end the thing.
    _sandbox("sandbox.show", "ok"),
    _sandbox("sandbox.execs", "ok"),
    _sandbox("sandbox.stats", "wrong_state"),
    _sandbox("sandbox.pause", "wrong_state"),
    _sandbox("sandbox.resume", "wrong_state"),
    _sandbox("sandbox.extend", "wrong_state", ttl_ms=60_000),
    _sandbox("sandbox.exec", "wrong_state", argv=["/bin/true"]),
    _sandbox("sandbox.signal", "wrong_state", exec=EXEC, signal=15),
    _sandbox("sandbox.resize", "wrong_state", exec=EXEC, rows=24, columns=80),
    _sandbox("sandbox.logs", "ok", exec=EXEC),
    _sandbox("sandbox.attach", "ok", exec=EXEC),
    _sandbox("file.put", "wrong_state", **PATH, data=b"x"),
    _sandbox("file.get", "wrong_state", **PATH),
    _sandbox("file.list", "wrong_state", **PATH),
    _sandbox("file.stat", "wrong_state", **PATH),
    _sandbox("file.mkdir", "wrong_state", **PATH),
    _sandbox("file.move", "wrong_state", **PATH, to="/tmp/y"),
    _sandbox("file.remove", "wrong_state", **PATH),
    _sandbox("file.chmod", "wrong_state", **PATH, mode=0o644),
    _sandbox("file.glob", "wrong_state", **PATH),
    _sandbox("file.archive", "wrong_state", **PATH),
    _sandbox("file.extract", "wrong_state", **PATH, data=b""),
    _sandbox("changes.list", "wrong_state"),
    _sandbox("changes.diff", "wrong_state", path="/usr/x"),
    _sandbox("changes.accept", "wrong_state"),
    _sandbox("changes.discard", "wrong_state"),
    _sandbox("snapshot.save", "wrong_state", name="another"),
    _sandbox("sandbox.kill", "ok"),
    _sandbox("sandbox.remove", "ok"),
    Probe("run", "kill", "ok", field="sandbox", hidden="bad_argument"),
    Probe("volume", "volume.remove", "ok", field="name", hidden="unknown_volume"),
    Probe("snapshot", "snapshot.remove", "ok", field="name", hidden="unknown_snapshot"),
    _key("key.show", "ok"),
    _key("policy.explain", "ok", cmd="run"),
    _key("key.label", "bad_argument", name="no name"),
    _key("key.bind", "wrong_state", note="x"),
    _key("key.suspend", "wrong_state"),
    _key("key.resume", "wrong_state"),
    Probe(
        "key", "key.revoke", "wrong_state", field="key", show="key.show", hidden=""
    ),  # bars any key that is not there
    Probe("key", "key.rotate", "wrong_state", lambda: {"public": PrivateKey.generate().public.raw}, "key", "key.show"),
    Probe("grant", "grant.revoke", "ok", field="grant", show="grant.list"),
    _proposal("proposal.show", "ok"),
    _proposal("proposal.approve", "bad_argument", digest=bytes(32)),
    _proposal("proposal.withdraw", "ok"),
    Probe("session", "session.show", "ok", field="session", show="session.show"),
    Probe("session", "session.close", "ok", field="session", show="session.show"),
    Probe("manifest", "manifest.show", "ok", field="digest", hidden="unknown_manifest"),
    Probe(
        "manifest", "manifest.revoke", "ok", lambda: {"reason": "test"}, "digest", "manifest.show", "unknown_manifest"
    ),
)
ELSEWHERE: Final = {
    # They make or list: see below; `grant.issue` is for a key.
    *("sandbox.create", "sandbox.list", "sandbox.prune", "run", "run.batch", "plan"),
    *("volume.create", "volume.list", "snapshot.list", "key.add", "key.list"),
    *("grant.issue", "grant.list", "proposal.create", "proposal.list", "session.open", "session.list"),
    *("manifest.load", "manifest.list"),
    # An entry is nobody's thing to be made: tests/evidence.
    *("ledger.prove", "ledger.query"),
    # What may be asked of a manifest, and who may be told which copies there are: tests/preflight.
    "preflight",
    # One's own answers alone, about a manifest: tests/consent.
    *("consent.show", "consent.accept", "consent.decline", "consent.status"),
}


def test_every_command_that_acts_on_things_is_asked_here() -> None:
    about = {cmd for cmd in load_commands() if PERMISSIONS[cmd] not in (TargetKind.NOTHING, TargetKind.HOST)}
    assert {probe.cmd for probe in PROBES} | ELSEWHERE == about


@pytest.fixture(scope="module")
def people(stage: Stage) -> Iterator[Cast]:
    with cast(stage) as made:
        yield made


def said(people: Cast, probe: Probe, thing: str) -> dict[str, object]:
    args = {**probe.args(), probe.field: thing}
    if args.get("exec") == EXEC:
        args["exec"] = people.execs.get(thing, "e" + "0" * 20)
    return args


def ask(people: Cast, probe: Probe, whose: str, session: Mapping[str, str] | None = None, **names: Any) -> list[str]:
    """What does not go as the table says."""
    raw, wrong = people.stage.raw, []
    in_session = {role: {"session": session[role]} if session else {} for role in ROLES}
    things = {role: people.things[probe.kind, role, whose] for role in ROLES}

    def all_of(named: Mapping[str, str]) -> list[Reply]:
        return raw.ask(
            raw.order(people.keys[role], probe.cmd, said(people, probe, named[role]), **names, **in_session[role])
            for role in ROLES
        )

    absent = dict.fromkeys(ROLES, ABSENT[probe.kind])
    for role, reply, none in zip(ROLES, all_of(things), all_of(absent), strict=True):
        letter = letters()[probe.cmd, role]
        hidden = probe.hidden or code(none)
        if not covers(letter, "own", session=bool(session)):
            wanted = "denied"
        elif covers(letter, whose, session=bool(session)):
            wanted = probe.reached
        elif probe.show and covers(letters()[probe.show, role], whose):
            wanted = "denied"
        else:
            wanted = hidden
        if code(reply) != wanted:
            wrong.append(f"{probe.cmd} ({letter}) by {role} on {whose}: {code(reply)}, and expected is {wanted}")
        elif wanted == hidden or letter == "-":
            theirs = {things[role], people.execs.get(things[role], "")} - {""}
            if words(reply, *theirs) != words(none, absent[role], "e" + "0" * 20):
                wrong.append(f"{probe.cmd} by {role} on {whose}: {reply.error}, and of none: {none.error}")
    return wrong


# -- before anything is ended


LISTS: Final = (
    ("sandbox", "sandbox.list", "sandboxes", "sandbox"),
    ("run", "status", "runs", "sandbox"),
    ("volume", "volume.list", "volumes", "name"),
    ("snapshot", "snapshot.list", "snapshots", "name"),
    ("key", "key.list", "keys", "id"),
    ("grant", "grant.list", "grants", "grant"),
    ("proposal", "proposal.list", "proposals", "proposal"),
    ("session", "session.list", "sessions", "session"),
    ("manifest", "manifest.list", "manifests", "digest"),
)


@pytest.mark.parametrize(("kind", "cmd", "field", "name"), LISTS, ids=[one[1] for one in LISTS])
def test_a_list_has_what_the_table_says_and_no_more(people: Cast, kind: str, cmd: str, field: str, name: str) -> None:
    raw = people.stage.raw
    replies = raw.ask(raw.order(people.keys[role], cmd, {}) for role in ROLES)
    wrong = []
    for role, reply in zip(ROLES, replies, strict=True):
        letter = letters()[cmd, role]
        assert (code(reply) == "denied") == (letter == "-"), (cmd, role)
        rows: Any = (reply.result or {}).get(field, ())
        shown = {row[name] for row in rows}
        for whose in ("own", "mate", "stranger", "host"):
            thing = people.things.get((kind, role, whose))
            elsewhere = kind in ("volume", "snapshot") and whose == "stranger"  # a list of storage is a tenant's
            if thing is not None and (thing in shown) != (covers(letter, whose) and not elsewhere):
                wrong.append(f"{cmd} ({letter}) by {role}: {whose} {'is' if thing in shown else 'is not'} there")
    assert not wrong, "\n".join(wrong)


def test_who_looks_inside_does_so_in_a_session(people: Cast) -> None:
    raw = people.stage.raw
    sessions = {role: people.things["session", role, "own"] for role in ROLES}
    probes = [probe for probe in PROBES if "s" in {letters()[probe.cmd, role] for role in ROLES}]
    assert probes
    wrong = [
        line
        for probe in probes
        for whose in ("own", "mate", "stranger")
        for line in ask(people, probe, whose, sessions)
    ]
    assert not wrong, "\n".join(wrong)
    for role, key in people.keys.items():
        assert code(raw.one(key, "whoami", session=sessions[role])) == "ok"


def test_nobody_carries_another_s_session(people: Cast) -> None:
    raw = people.stage.raw
    none = raw.ask(raw.order(people.keys[role], "whoami", session=ABSENT["session"]) for role in ROLES)
    for whose in ("mate", "stranger"):
        theirs = [people.things["session", role, whose] for role in ROLES]
        replies = raw.ask(
            raw.order(people.keys[role], "whoami", session=one) for role, one in zip(ROLES, theirs, strict=True)
        )
        assert {code(reply) for reply in replies} == {"session_unknown"}
        pairs = zip(replies, theirs, none, strict=True)
        assert all(words(reply, one) == words(other, ABSENT["session"]) for reply, one, other in pairs)


@pytest.mark.parametrize("kind", ["volume", "snapshot"])
def test_what_another_tenant_keeps_is_not_there_until_its_tenant_is_named(people: Cast, kind: str) -> None:
    [probe] = [one for one in PROBES if one.kind == kind]
    raw = people.stage.raw

    def all_of(named: Mapping[str, str], **names: Any) -> list[Reply]:
        return raw.ask(raw.order(people.keys[role], probe.cmd, {"name": named[role]}, **names) for role in ROLES)

    things = {role: people.things[kind, role, "stranger"] for role in ROLES}
    absent = dict.fromkeys(ROLES, ABSENT[kind])
    for role, theirs, none, named in zip(
        ROLES, all_of(things), all_of(absent), all_of(things, tenant=OTHERS), strict=True
    ):
        letter = letters()[probe.cmd, role]
        assert code(theirs) == ("denied" if letter == "-" else probe.hidden), role
        assert words(theirs, things[role]) == words(none, absent[role]), role
        assert code(named) == (probe.reached if letter == "h" else "denied"), role


def test_what_is_made_of_others_storage(people: Cast) -> None:
    """A snapshot is who may create from it, a volume is its tenant's. The sandboxes would live too long to be made."""
    raw = people.stage.raw
    too_long = {"manifest": MANIFEST, "ttl_ms": 366 * 86_400_000}

    def mounting(name: str) -> dict[str, object]:
        mounts = {"volumes": [{"name": name, "target": "/cache"}]}
        return {"argv": ["/bin/true"], "manifest": {"schema": 1, "filesystem": mounts}}

    for role, key in people.keys.items():
        create, inline = letters()["sandbox.create", role], role in WRITERS
        for whose in ("own", "mate", "stranger"):
            snapshot, volume = (people.things[kind, role, whose] for kind in ("snapshot", "volume"))
            made, none, mounted, unmounted = raw.ask(
                [
                    raw.order(key, "sandbox.create", {**too_long, "snapshot": snapshot}),
                    raw.order(key, "sandbox.create", {**too_long, "snapshot": ABSENT["snapshot"]}),
                    raw.order(key, "plan", mounting(volume)),
                    raw.order(key, "plan", mounting(ABSENT["volume"])),
                ]
            )
            there = covers(create, whose) and whose != "stranger"
            assert code(made) == ("denied" if not inline else "bad_argument" if there else "unknown_snapshot"), role
            assert code(mounted) == ("denied" if not inline else "unknown_volume" if whose == "stranger" else "ok"), (
                role
            )
            if not there:
                assert words(made, snapshot) == words(none, ABSENT["snapshot"])
            if whose == "stranger":
                assert words(mounted, volume) == words(unmounted, ABSENT["volume"])


def test_a_grant_is_for_a_key_that_one_may_see(people: Cast) -> None:
    """It would be for a tenant that there is not: who may see the key is refused for that."""
    raw = people.stage.raw
    granting = {"cmd": "run", "tenant": "nowhere", "ttl_ms": 1000, "reason": "test"}
    for role, key in people.keys.items():
        letter, show = (letters()[cmd, role] for cmd in ("grant.issue", "key.show"))
        for whose in ("own", "mate", "stranger", "host"):
            thing = people.things["key", role, whose]
            theirs, none = raw.ask(
                raw.order(key, "grant.issue", {**granting, "key": one}) for one in (thing, ABSENT["key"])
            )
            if letter == "-":
                assert code(theirs) == "denied", role
            elif covers(show, whose):
                assert code(theirs) in ("escalation", "bad_argument"), (role, whose)
            else:
                assert code(theirs) == "not_found", (role, whose)
                assert words(theirs, thing) == words(none, ABSENT["key"])


# -- the last of each kind end it


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.cmd)
def test_how_far_every_role_reaches(people: Cast, probe: Probe) -> None:
    owners = ["stranger", "mate", "own"]
    if probe.kind == "key":
        owners.insert(0, "host")
    if probe.kind in ("volume", "snapshot"):
        owners.remove("stranger")  # by names, which are a tenant's: above
    wrong = [line for whose in owners for line in ask(people, probe, whose)]
    assert not wrong, "\n".join(wrong)
