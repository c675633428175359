"""Random commands about keys, policy, grants, proposals, sessions and quotas: the daemon and the model never disagree.

What is compared is each answer's code. The model (model.py) is written from the documents alone. A daemon that is
started again folds all that decides from its ledger, and goes on as if nothing had been.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from immured.identity.canonical import command_digest
from immured.wire.keys import PrivateKey
from tests.matrix.model import COMMANDS_ASKED, HOUR, POLICIES, Actor, Denied, Key, Model, Proposal
from tests.matrix.raw import code
from tests.matrix.sides import Inside, Live, Side

pytestmark = pytest.mark.needs_root

T = TypeVar("T")

NAMES: Final = ("ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal")
ROLES: Final = ("dev", "lead", "eye", "admin")
TENANTS: Final = ("default", "acme", "beta")
SOME: Final = st.integers(0, 1000)
"""Which one of what there is."""
WHO: Final = st.just(-1) | SOME
"""Which key; more often one that may do everything."""
WHERE: Final = st.sampled_from([None, None, *TENANTS, "nowhere"])
BOUND: Final = st.sampled_from([(), ("acme",), ("beta",), ("acme", "beta"), ("default", "acme")])
SHORT: Final = 11 * 60_000
"""Longer than a test may take: of a live daemon nothing ends between the model's answer and its own."""
SPANS: Final = st.sampled_from([SHORT, HOUR // 2, HOUR, 2 * HOUR, 5 * HOUR])
MOST_SANDBOXES: Final = 6
MOST_OPEN: Final = 12
DAY: Final = 24 * HOUR


USER: Final = st.sampled_from([0, 0, 1])
STATUS: Final = st.sampled_from(["key.suspend", "key.resume", "key.resume", "key.revoke"])
NAME: Final = st.sampled_from(NAMES)
ROLE: Final = st.sampled_from(ROLES)


def one_of(values: Sequence[T], some: int) -> T:
    return values[some % len(values)]


class Machine(RuleBasedStateMachine):
    """The rules; `side` makes what is compared with the model."""

    side: ClassVar[Callable[[], Side]] = Inside
    stepped: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.daemon = type(self).side()
        try:
            self._begin()
        except BaseException:
            self.daemon.close()
            raise

    def _begin(self) -> None:
        began = self.daemon.now // 1000 * 1000
        moments = {
            rule.until: datetime.fromtimestamp((began + rule.until) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            for policy in POLICIES.values()
            for rule in policy.rules
            if rule.until is not None
        }
        self.texts = {name: policy.toml(moments) for name, policy in POLICIES.items()}
        self.private: dict[str, PrivateKey] = {}
        admin = self.known(self.daemon.admin)
        told = self.daemon.ask(admin, 0, "whoami", {}).result
        assert told is not None
        self.model = Model(Key(admin.id, str(told["name"]), "admin"), "base", began)
        assert self.daemon.ask(admin, 0, "policy.set", {"policy": self.texts["base"]}).ok

    def teardown(self) -> None:
        self.daemon.close()

    def known(self, key: PrivateKey) -> PrivateKey:
        self.private[key.id] = key
        return key

    @initialize()
    def let_some_in(self) -> None:
        for name, role, tenant in (("ann", "lead", "acme"), ("bob", "dev", "acme"), ("cat", "dev", "beta")):
            self.let_in(next(iter(self.model.keys)), name, role, (tenant,))
        self.let_in(next(iter(self.model.keys)), "eve", "eye", ())
        self.let_in(next(iter(self.model.keys)), "fay", "admin", ())

    # -- one command

    def do(
        self,
        who: str,
        cmd: str,
        args: Mapping[str, object],
        predict: Callable[[Actor], T],
        *,
        reads: bool = False,
        what: str = "",
        tenant: str | None = None,
        session: str | None = None,
        uid: int = 0,
    ) -> tuple[T, Mapping[str, Any]] | None:
        """Both are asked. What the model makes of it and the daemon's result, where it is done."""
        model = self.model
        model.now = self.daemon.now
        made: T | None = None
        try:
            made = predict(model.enter(who, uid, cmd, tenant, session, what))
            wanted = "ok"
        except Denied as denied:
            wanted = denied.code
        acted = wanted == "ok" and (not reads or model.took)
        model.over(acted=acted)
        if acted:
            model.entered(session)
        names = {name: value for name, value in (("tenant", tenant), ("session", session)) if value is not None}
        reply = self.daemon.ask(self.private[who], uid, cmd, args, **names)
        said = f"{cmd} {args if cmd != 'policy.set' else what} by {model.keys[who]} {names} under {model.policy_name}"
        assert code(reply) == wanted, f"{said}: {reply.error or 'done'}; the model says {wanted}"
        return None if reply.result is None else (made, reply.result)  # type: ignore[return-value]

    def who(self, some: int) -> str:
        keys = self.model.keys
        if some < 0:
            able = [key.id for key in keys.values() if key.role == "admin" and self.serves(key)]
            return (able or list(keys))[0]
        return one_of(list(keys), some)

    def serves(self, key: Key) -> bool:
        return key.standing(self.daemon.now) == "active" and (not key.uids or 0 in key.uids)

    # -- what only reads

    @rule(
        who=SOME,
        cmd=st.sampled_from(COMMANDS_ASKED),
        tenant=WHERE,
        session=st.none() | SOME,
        uid=st.sampled_from([0, 0, 1]),
    )
    def ask(self, who: int, cmd: str, tenant: str | None, session: int | None, uid: int) -> None:
        sessions = list(self.model.sessions)
        carried = one_of(sessions, session) if sessions and session is not None else None
        self.ask_as(self.who(who), cmd, tenant, carried, uid)

    @precondition(lambda self: self.model.sessions)
    @rule(which=SOME, cmd=st.sampled_from(COMMANDS_ASKED))
    def ask_in_session(self, which: int, cmd: str) -> None:
        """As `ask`, by whose session it is."""
        name, one = one_of(list(self.model.sessions.items()), which)
        self.ask_as(one.owner, cmd, one.tenant, name)

    def ask_as(self, who: str, cmd: str, tenant: str | None, session: str | None = None, uid: int = 0) -> None:
        def predict(actor: Actor) -> None:
            if cmd != "policy.show":
                self.model.check(actor, cmd, actor.tenant, (actor.key.id,))

        self.do(who, cmd, {}, predict, reads=True, uid=uid, tenant=tenant, session=session)

    # -- keys

    def let_in(self, by: str, name: str, role: str, tenants: tuple[str, ...], **more: Any) -> None:
        key = self.known(PrivateKey.generate())
        args: dict[str, object] = {"name": name, "public": key.public.raw, "role": role, "tenants": list(tenants)}
        record = Key(key.id, name, role, frozenset(tenants), expires=more.get("expires"))
        if record.expires is not None:
            args["expires_ms"] = record.expires
        self.do(by, "key.add", args, lambda actor: self.model.key_add(actor, record), tenant=more.get("tenant"))

    @rule(
        who=WHO,
        name=st.sampled_from(NAMES),
        role=ROLE,
        bound=BOUND,
        tenant=WHERE,
        lives=st.none() | SPANS,
    )
    def add_key(
        self, who: int, name: str, role: str, bound: tuple[str, ...], tenant: str | None, lives: int | None
    ) -> None:
        expires = None if lives is None else self.daemon.now + lives
        self.let_in(self.who(who), name, role, bound, expires=expires, tenant=tenant)

    @rule(which=SOME, name=NAME, role=ROLE, bound=BOUND)
    def govern(self, which: int, name: str, role: str, bound: tuple[str, ...]) -> None:
        """Who answers for a tenant adds a key; he gives no more than he has."""
        leads = [key for key in self.model.keys.values() if key.role == "lead" and self.serves(key)]
        if leads:
            by = one_of(leads, which)
            mine = min(by.tenants or {"default"})
            self.let_in(by.id, name, role, bound or (mine,), tenant=mine)

    @rule(who=WHO, key=SOME, cmd=STATUS, tenant=WHERE)
    def put_key_away(self, who: int, key: int, cmd: str, tenant: str | None) -> None:
        target = self.who(key)
        self.do(
            self.who(who),
            cmd,
            {"key": target},
            lambda actor: self.model.key_status(actor, cmd, target),
            tenant=tenant,
        )

    @rule(who=SOME, key=SOME, tenant=WHERE)
    def show_key(self, who: int, key: int, tenant: str | None) -> None:
        target = self.who(key)
        self.do(
            self.who(who),
            "key.show",
            {"key": target},
            lambda actor: self.model.key_show(actor, target),
            reads=True,
            tenant=tenant,
        )

    @rule(
        who=WHO,
        key=SOME,
        change=st.sampled_from(["role", "tenants", "uids", "expires"]),
        role=ROLE,
        bound=BOUND,
        span=SPANS,
        tenant=WHERE,
    )
    def bind_key(
        self, who: int, key: int, change: str, role: str, bound: tuple[str, ...], span: int, tenant: str | None
    ) -> None:
        target, expires = self.who(key), self.daemon.now + span
        uids = [span // 60_000 % 2]
        every: dict[str, tuple[str, object, object]] = {
            "role": ("role", role, role),
            "tenants": ("tenants", list(bound), frozenset(bound)),
            "uids": ("uids", uids, frozenset(uids)),
            "expires": ("expires_ms", expires, expires),
        }
        name, given, kept = every[change]
        self.do(
            self.who(who),
            "key.bind",
            {"key": target, name: given},
            lambda actor: self.model.key_bind(actor, target, **{change: kept}),
            tenant=tenant,
        )

    @rule(who=SOME, key=st.none() | SOME, overlap=st.sampled_from([0, HOUR]), tenant=WHERE)
    def rotate_key(self, who: int, key: int | None, overlap: int, tenant: str | None) -> None:
        by = self.who(who)
        target, new = by if key is None else self.who(key), self.known(PrivateKey.generate())
        self.do(
            by,
            "key.rotate",
            {"key": target, "public": new.public.raw, "overlap_ms": overlap},
            lambda actor: self.model.key_rotate(actor, target, new.id, overlap),
            tenant=tenant,
        )

    # -- policy

    @rule(who=WHO, name=st.sampled_from(list(POLICIES)), tenant=st.sampled_from([None, None, "acme"]))
    def set_policy(self, who: int, name: str, tenant: str | None) -> None:
        self.do(
            self.who(who),
            "policy.set",
            {"policy": self.texts[name]},
            lambda actor: self.model.policy_set(actor, name),
            what=name,
            tenant=tenant,
        )

    # -- sessions

    @rule(who=SOME, idle=SPANS, ttl=SPANS, tenant=WHERE)
    def open_session(self, who: int, idle: int, ttl: int, tenant: str | None) -> None:
        done = self.do(
            self.who(who),
            "session.open",
            {"idle_ms": idle, "ttl_ms": ttl},
            lambda actor: self.model.session_open(actor, idle, ttl),
            tenant=tenant,
        )
        if done is not None:
            self.model.sessions[done[1]["session"]] = done[0]

    @precondition(lambda self: self.stepped)
    @rule(who=SOME, waits=st.lists(st.sampled_from([HOUR // 2, HOUR]), min_size=1, max_size=3), between=st.booleans())
    def stay_away(self, who: int, waits: list[int], between: bool) -> None:
        """A session that is used now and then, and is over after an hour without."""
        by = self.who(who)
        tenant = min(self.model.keys[by].tenants or {"default"})
        done = self.do(
            by,
            "session.open",
            {"idle_ms": HOUR, "ttl_ms": 5 * HOUR},
            lambda actor: self.model.session_open(actor, HOUR, 5 * HOUR),
            tenant=tenant,
        )
        if done is not None:
            session = done[1]["session"]
            self.model.sessions[session] = done[0]
            for wait in waits:
                self.let_pass(wait)
                if between:
                    self.restart()
                self.ask_as(by, "whoami", tenant, session)

    @precondition(lambda self: self.model.sessions)
    @rule(who=SOME, which=SOME, cmd=st.sampled_from(["session.show", "session.close"]), tenant=WHERE)
    def look_at_session(self, who: int, which: int, cmd: str, tenant: str | None) -> None:
        session = one_of(list(self.model.sessions), which)
        self.do(
            self.who(who),
            cmd,
            {"session": session},
            lambda actor: self.model.session_find(actor, cmd, session),
            reads=cmd == "session.show",
            tenant=tenant,
        )

    # -- grants

    @rule(
        who=WHO, key=SOME, cmd=st.sampled_from(COMMANDS_ASKED), where=st.sampled_from(TENANTS), ttl=SPANS, tenant=WHERE
    )
    def issue_grant(self, who: int, key: int, cmd: str, where: str, ttl: int, tenant: str | None) -> None:
        target = self.who(key)
        done = self.do(
            self.who(who),
            "grant.issue",
            {"key": target, "cmd": cmd, "tenant": where, "ttl_ms": ttl, "reason": "test"},
            lambda actor: self.model.grant_issue(actor, target, cmd, where, ttl),
            tenant=tenant,
        )
        if done is not None:
            self.model.grants[done[1]["grant"]] = done[0]

    @precondition(lambda self: self.model.grants)
    @rule(who=SOME, which=SOME, tenant=WHERE)
    def revoke_grant(self, who: int, which: int, tenant: str | None) -> None:
        grant = one_of(list(self.model.grants), which)
        self.do(
            self.who(who),
            "grant.revoke",
            {"grant": grant},
            lambda actor: self.model.grant_revoke(actor, grant),
            tenant=tenant,
        )

    @precondition(lambda self: self.model.grants)
    @rule(which=SOME)
    def use_grant(self, which: int) -> None:
        """As `ask`, by whom it is for."""
        grant = one_of(list(self.model.grants.values()), which)
        self.ask_as(grant.key, grant.cmd, grant.tenant)

    @rule(key=SOME, ttl=SPANS, times=st.integers(1, 2))
    def see_the_policy_once(self, key: int, ttl: int, times: int) -> None:
        """Issued to who most often may not, and used: twice is once too many."""
        to = self.model.keys[self.who(key)]
        where = min(to.tenants or {"default"})
        args = {"key": to.id, "cmd": "policy.show", "tenant": where, "ttl_ms": ttl, "reason": "test"}
        done = self.do(
            self.who(-1),
            "grant.issue",
            args,
            lambda actor: self.model.grant_issue(actor, to.id, "policy.show", where, ttl),
        )
        if done is not None:
            self.model.grants[done[1]["grant"]] = done[0]
        for _ in range(times):
            self.ask_as(to.id, "policy.show", where)

    # -- proposals

    @precondition(lambda self: len(self.model.proposals) < MOST_OPEN)
    @rule(who=SOME, name=st.none() | st.sampled_from(list(POLICIES)), ttl=st.none() | SPANS, tenant=WHERE)
    def propose(self, who: int, name: str | None, ttl: int | None, tenant: str | None) -> None:
        """A policy, or else `status`."""
        cmd, what = ("status", "") if name is None else ("policy.set", name)
        args: dict[str, object] = {} if name is None else {"policy": self.texts[name]}
        proposed = {"cmd": cmd, "args": args, "reason": "test"}
        done = self.do(
            self.who(who),
            "proposal.create",
            proposed if ttl is None else {**proposed, "ttl_ms": ttl},
            lambda actor: self.model.proposal_create(actor, cmd, what, ttl),
            tenant=tenant,
        )
        if done is not None:
            self.model.proposals[done[1]["proposal"]] = done[0]

    @precondition(lambda self: self.model.proposals)
    @rule(who=SOME, which=SOME, tenant=st.sampled_from([None, None, None, "acme"]))
    def approve(self, who: int, which: int, tenant: str | None) -> None:
        self.approve_as(self.who(who), one_of(list(self.model.proposals), which), tenant)

    def approve_as(self, who: str, proposal: str, tenant: str | None = None) -> None:
        one = self.model.proposals[proposal]
        args: dict[str, object] = {"policy": self.texts[one.what]} if one.what else {}
        digest = command_digest(one.cmd, one.tenant, "default", args)
        self.do(
            who,
            "proposal.approve",
            {"proposal": proposal, "digest": digest},
            lambda actor: self.model.proposal_approve(actor, proposal),
            tenant=tenant,
        )

    @precondition(lambda self: self.model.proposals)
    @rule(which=SOME, who=st.none() | SOME)
    def use_proposal(self, which: int, who: int | None) -> None:
        """By who proposed it, or somebody."""
        one = one_of(list(self.model.proposals.values()), which)
        self.use(one, one.proposer if who is None else self.who(who))

    @precondition(lambda self: len(self.model.proposals) < MOST_OPEN)
    @rule(
        name=st.sampled_from(list(POLICIES)),
        approver=SOME,
        ms=st.sampled_from([0, 0, 0, HOUR]),
        again=st.booleans(),
        between=st.booleans(),
        proposer=st.none() | SOME,
        giver=st.none() | SOME,
    )
    def agree(
        self, name: str, approver: int, ms: int, again: bool, between: bool, proposer: int | None, giver: int | None
    ) -> None:
        """Proposed, approved by one who may, and done; `between`: by a daemon that was started again. `proposer`: not
        by who may do it; `giver`: not by him alone, but by who approved it and then somebody else."""
        by = self.who(-1)
        proposes = by if proposer is None else self.who(proposer)
        args = {"cmd": "policy.set", "args": {"policy": self.texts[name]}, "reason": "test"}
        done = self.do(
            proposes, "proposal.create", args, lambda actor: self.model.proposal_create(actor, "policy.set", name, None)
        )
        if done is None:
            return
        one, proposal = done[0], done[1]["proposal"]
        self.model.proposals[proposal] = one
        others = [key.id for key in self.model.keys.values() if key.role in ("eye", "admin") and self.serves(key)]
        agreed = one_of(others or [by], approver)
        self.approve_as(agreed, proposal)
        self.let_pass(ms)
        if between:
            self.restart()
        if giver is not None:
            self.use(one, agreed)
            by = self.who(giver)
        for _ in range(1 + again):
            self.use(one, by)

    def use(self, one: Proposal, by: str) -> None:
        if one.cmd == "policy.set":
            args = {"policy": self.texts[one.what]}
            self.do(
                by,
                one.cmd,
                args,
                lambda actor: self.model.policy_set(actor, one.what),
                what=one.what,
                tenant=one.tenant,
            )
        else:
            self.do(
                by,
                one.cmd,
                {},
                lambda actor: self.model.check(actor, one.cmd, actor.tenant, (actor.key.id,)),
                reads=True,
                tenant=one.tenant,
            )

    @precondition(lambda self: self.model.proposals)
    @rule(who=SOME, which=SOME, tenant=WHERE)
    def withdraw(self, who: int, which: int, tenant: str | None) -> None:
        proposal = one_of(list(self.model.proposals), which)
        self.do(
            self.who(who),
            "proposal.withdraw",
            {"proposal": proposal},
            lambda actor: self.model.proposal_withdraw(actor, proposal),
            tenant=tenant,
        )

    # -- quotas

    @precondition(lambda self: self.stepped and len(self.model.sandboxes) < MOST_SANDBOXES)
    @rule(who=SOME, tenant=WHERE)
    def create_sandbox(self, who: int, tenant: str | None) -> None:
        done = self.do(self.who(who), "sandbox.create", {}, self.model.sandbox_create, tenant=tenant)
        if done is not None:
            self.model.sandboxes[done[1]["sandboxes"][0]["sandbox"]] = done[0]

    @precondition(lambda self: self.model.sandboxes)
    @rule(who=SOME, which=SOME, cmd=st.sampled_from(["sandbox.show", "sandbox.remove"]), tenant=WHERE)
    def look_at_sandbox(self, who: int, which: int, cmd: str, tenant: str | None) -> None:
        sandbox = one_of(list(self.model.sandboxes), which)
        self.do(
            self.who(who),
            cmd,
            {"sandbox": sandbox},
            lambda actor: self.model.sandbox_find(actor, cmd, sandbox),
            reads=cmd == "sandbox.show",
            tenant=tenant,
        )

    # -- time

    @precondition(lambda self: self.stepped)
    @rule(ms=st.sampled_from([1, SHORT, HOUR // 2, HOUR]))
    def pass_time(self, ms: int) -> None:
        self.let_pass(ms)

    def let_pass(self, ms: int) -> None:
        if self.stepped and self.daemon.now + ms < self.model.began + DAY:  # what is over is told apart for a day
            self.daemon.advance(ms)

    @rule()
    def restart(self) -> None:
        self.daemon.restart()
        self.model.now = self.daemon.now
        self.model.restarted()


class LiveMachine(Machine):
    """The same against a daemon of its own process; time is not stepped there, and sandboxes outlive a restart."""

    side = Live
    stepped = False


def tried(machine: type[Machine], examples: int, steps: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


@pytest.mark.timeout(580)
def test_the_service_and_the_model_never_disagree() -> None:
    tried(Machine, 30, 50)


@pytest.mark.timeout(580)
def test_a_live_daemon_and_the_model_never_disagree() -> None:
    tried(LiveMachine, 2, 30)
