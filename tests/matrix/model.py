"""Who may do what, said a second time: from the documents, and without a line of what decides in the daemon.

Plain dictionaries and loops. What the daemon is asked is asked the model too, and both answer with a code: `ok`, or a
refusal's. Only what these policies use is in it: no projects, classes, labels, certificates or personas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

__all__ = ["COMMANDS_ASKED", "HOUR", "POLICIES", "Actor", "Denied", "Key", "Model", "Proposal"]

HOUR: Final = 3_600_000
DAY: Final = 24 * HOUR
HOST: Final = ""
WIDTH: Final = {"own": 0, "tenant": 1, "host": 2}
EVERYWHERE: Final = "*"
ABOUT_HOST: Final = frozenset({"policy.set", "policy.show"})
"""Commands that act on the daemon itself."""
COMMANDS_ASKED: Final = ("whoami", "status", "policy.show")
"""Those that only read, and act on nothing that belongs to anybody."""


class Denied(Exception):
    """A refusal, by its code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


# -- policies


@dataclass(frozen=True)
class Rule:
    """As in the file. `until`: ms after the beginning of it all."""

    name: str
    cmds: tuple[str, ...]
    scope: str
    roles: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    allow: bool = True
    tenants: tuple[str, ...] = ()
    until: int | None = None
    session: bool = False


@dataclass(frozen=True)
class Control:
    name: str
    cmds: tuple[str, ...]
    approvers: tuple[str, ...]
    window: int
    approvals: int = 1


@dataclass(frozen=True)
class Policy:
    """`roles`: what each includes; `tenants`: how many sandboxes each may have, None for any number."""

    roles: Mapping[str, tuple[str, ...]]
    rules: tuple[Rule, ...]
    tenants: Mapping[str, int | None]
    controls: tuple[Control, ...] = ()

    def closure(self, role: str) -> set[str]:
        """The role and all that it includes."""
        found: set[str] = set()
        left = [role] if role in self.roles else []
        while left:
            one = left.pop()
            if one not in found:
                found.add(one)
                left += self.roles[one]
        return found

    def toml(self, moment: Mapping[int, str]) -> bytes:
        """The file. `moment` has each `until` as TOML writes it."""
        lines = ["schema = 1"]
        for role, includes in self.roles.items():
            lines += [f"[roles.{role}]", *([f"includes = {list(includes)}"] if includes else [])]
        for rule in self.rules:
            lines += ["[[rules]]", f"name = '{rule.name}'", f"scope = '{rule.scope}'"]
            lines.append(f"{'allow' if rule.allow else 'deny'} = {list(rule.cmds)}")
            for name in ("roles", "keys", "tenants"):
                if values := getattr(rule, name):
                    lines.append(f"{name} = {list(values)}")
            if rule.until is not None:
                lines.append(f"until = {moment[rule.until]}")
            if rule.session:
                lines.append("session = true")
        for tenant, sandboxes in self.tenants.items():
            lines.append(f"[tenants.{tenant}]")
            if sandboxes is not None:
                lines += [f"[tenants.{tenant}.quota]", f"sandboxes = {sandboxes}"]
        for control in self.controls:
            lines += ["[[controls]]", f"name = '{control.name}'", f"permissions = {list(control.cmds)}"]
            lines += [f"approvers = {list(control.approvers)}", f"approvals = {control.approvals}"]
            lines.append(f"window = '{control.window // HOUR}h'")
        return "\n".join(lines).encode() + b"\n"


_OWN_BASICS: Final = ("whoami", "session.open", "session.close", "session.show", "key.show", "key.rotate")
_SANDBOXES: Final = ("sandbox.create", "sandbox.show", "sandbox.remove")
_PROPOSES: Final = ("proposal.create", "proposal.withdraw", "proposal.show")
_KEYS: Final = ("key.add", "key.show", "key.bind", "key.suspend", "key.resume", "key.revoke", "key.rotate")
_GRANTS: Final = ("grant.issue", "grant.revoke", "grant.list")
_BASE: Final = (
    Rule("dev-basics", (*_OWN_BASICS, *_PROPOSES, *_SANDBOXES, "status"), "own", ("dev",)),
    Rule("lead-governs", (*_KEYS, *_GRANTS, "status", "session.show", "session.close"), "tenant", ("lead",)),
    Rule("lead-removes", ("sandbox.show", "sandbox.remove"), "tenant", ("lead",)),
    Rule("eye-basics", _OWN_BASICS, "own", ("eye",)),
    Rule(
        "eye-watches",
        ("status", "sandbox.show", "key.show", "session.show", "proposal.show", "proposal.approve", "policy.show"),
        "host",
        ("eye",),
    ),
    Rule(
        "admin-does-all",
        tuple(
            dict.fromkeys(
                (*_OWN_BASICS, *_PROPOSES, *_SANDBOXES, *_KEYS, *_GRANTS, "status", "proposal.approve", *ABOUT_HOST)
            )
        ),
        "host",
        ("admin",),
    ),
)
_ROLES: Final[Mapping[str, tuple[str, ...]]] = {"dev": (), "lead": ("dev",), "eye": (), "admin": ()}
_TENANTS: Final[Mapping[str, int | None]] = {"default": None, "acme": 2, "beta": 1}


def _without(rules: Iterable[Rule], name: str, cmd: str) -> tuple[Rule, ...]:
    """The same, that command taken from one rule."""
    return tuple(
        replace(rule, cmds=tuple(one for one in rule.cmds if one != cmd)) if rule.name == name else rule
        for rule in rules
    )


POLICIES: Final[Mapping[str, Policy]] = {
    "base": Policy(_ROLES, _BASE, _TENANTS),
    "two": Policy(_ROLES, _BASE, _TENANTS, (Control("two", ("policy.set",), ("admin", "eye"), 2 * HOUR),)),
    "dark": Policy(
        _ROLES,
        (
            *_without(_BASE, "dev-basics", "status"),
            Rule("for-a-while", ("policy.show", "status"), "host", ("dev",), until=3 * HOUR),
            Rule("bob-is-out", ("whoami", "session.open"), "host", keys=("bob",), allow=False),
            Rule("not-in-beta", ("status",), "host", ("lead",), allow=False, tenants=("beta",)),
        ),
        {"default": None, "acme": 1, "beta": None},
    ),
    "said": Policy(
        _ROLES,
        (
            *_without(_BASE, "dev-basics", "status"),
            Rule("in-a-session", ("status",), "tenant", ("dev",), session=True),
            Rule("ann-sees", ("policy.show",), "host", keys=("ann",)),
        ),
        _TENANTS,
        (Control("two", ("status",), ("admin", "eye", "lead"), HOUR),),
    ),
    "small": Policy(
        {"dev": (), "admin": ()},
        tuple(rule for rule in _BASE if rule.roles[0] in ("dev", "admin")),
        {"default": None, "acme": None},
    ),
    "shut": Policy(_ROLES, tuple(_without(_BASE, "admin-does-all", "policy.set")), _TENANTS),
}
"""`shut` is one under which nobody could change it again."""


# -- state


@dataclass
class Key:
    id: str
    name: str
    role: str
    tenants: frozenset[str] = frozenset()
    uids: frozenset[int] = frozenset()
    status: str = "active"
    expires: int | None = None
    successor: str | None = None
    before: tuple[str, ...] = ()

    def standing(self, now: int) -> str:
        if self.status != "active":
            return self.status
        return "expired" if self.expires is not None and now >= self.expires else "active"


@dataclass
class Session:
    owner: str
    tenant: str
    expires: int
    idle: int
    used: int
    entered: int
    """When an entry last said that it was used: what a start remembers."""
    closed: bool = False

    def over(self, now: int) -> bool:
        return self.closed or now >= min(self.expires, self.used + self.idle)


@dataclass
class Grant:
    key: str
    cmd: str
    tenant: str
    expires: int
    issuer: str


@dataclass
class Proposal:
    proposer: str
    cmd: str
    what: str
    """Which command exactly."""
    tenant: str
    created: int
    expires: int
    approvals: dict[str, str] = field(default_factory=dict)


@dataclass
class Sandbox:
    owner: str
    tenant: str


@dataclass(frozen=True)
class Actor:
    """Who asks, under which names."""

    key: Key
    uid: int
    tenant: str
    session: str | None


@dataclass(frozen=True)
class Reach:
    cmd: str
    width: int
    tenant: str
    session: bool
    until: int | None
    rule: Rule


class Model:
    """The whole state; each method is a command, raises Denied, or is done."""

    def __init__(self, root: Key, policy: str, began: int) -> None:
        self.keys = {root.id: root}
        self.policy_name = policy
        self.began = self.now = began
        self.sessions: dict[str, Session] = {}
        self.grants: dict[str, Grant] = {}
        self.proposals: dict[str, Proposal] = {}
        self.sandboxes: dict[str, Sandbox] = {}
        self._grant: str | None = None
        self._proposal: str | None = None

    @property
    def policy(self) -> Policy:
        return POLICIES[self.policy_name]

    def restarted(self) -> None:
        """What the ledger does not have is forgotten: that what only reads used a session; and what lived is over."""
        for one in self.sessions.values():
            one.used = one.entered
        self.sandboxes.clear()

    # -- a command's way

    def enter(self, key_id: str, uid: int, cmd: str, tenant: str | None, session: str | None, what: str) -> Actor:
        """Up to where its arguments are read."""
        self._grant = self._proposal = None
        key = self.keys.get(key_id)
        if key is None:
            raise Denied("unknown_key")
        if (standing := key.standing(self.now)) != "active":
            raise Denied(f"key_{standing}")
        if key.uids and uid not in key.uids:
            raise Denied("peer_not_bound")
        if tenant is None:
            if key.tenants and "default" not in key.tenants:
                if len(key.tenants) > 1:
                    raise Denied("denied")
                (tenant,) = key.tenants
            else:
                tenant = "default"
        actor = Actor(key, uid, tenant, session)
        if session is not None:
            self._carry(actor, session)
        self._admit(actor, cmd)
        if cmd in ABOUT_HOST:
            self.check(actor, cmd, HOST, (key.id,), what)
        return actor

    def _carry(self, actor: Actor, session: str) -> None:
        one = self.sessions.get(session)
        if one is None or one.tenant != actor.tenant or one.owner not in (actor.key.id, *actor.key.before):
            raise Denied("session_unknown")
        if one.over(self.now):
            raise Denied("session_expired")
        one.used = self.now

    def entered(self, session: str | None) -> None:
        """An entry says that this session was used."""
        if session is not None and (one := self.sessions.get(session)) is not None:
            one.entered = max(one.entered, self.now)

    def _admit(self, actor: Actor, cmd: str) -> None:
        policy = self.policy
        if actor.tenant not in policy.tenants:
            raise Denied("denied")
        rules = [rule for rule in self._about(actor.key, cmd, actor.session is not None) if self._lasts(rule)]
        member = actor.tenant in (actor.key.tenants or {"default"})
        if any(not rule.allow and rule.scope == "host" and not rule.tenants for rule in rules):
            raise Denied("denied")
        led = any(
            rule.allow and rule.scope == "host" and (not rule.tenants or actor.tenant in rule.tenants) for rule in rules
        )
        if not member and not led:
            if not self._granted(actor, cmd, actor.tenant):
                raise Denied("denied")
            return
        allows = [
            rule
            for rule in rules
            if rule.allow and (rule.scope == "host" or (member and (not rule.tenants or actor.tenant in rule.tenants)))
        ]
        if not allows and not self._granted(actor, cmd, actor.tenant):
            raise Denied("denied")

    def _lasts(self, rule: Rule) -> bool:
        return rule.until is None or self.now < self.began + rule.until

    def _about(self, key: Key, cmd: str, in_session: bool) -> list[Rule]:
        roles = self.policy.closure(key.role)
        return [
            rule
            for rule in self.policy.rules
            if cmd in rule.cmds
            and (not rule.roles or roles & set(rule.roles))
            and (not rule.keys or key.name in rule.keys)
            and (in_session or not rule.session)
        ]

    def _granted(self, actor: Actor, cmd: str, tenant: str) -> list[str]:
        return [
            name
            for name, one in self.grants.items()
            if (one.key, one.cmd, one.tenant) == (actor.key.id, cmd, tenant) and self.now < one.expires
        ]

    def _ruled(self, actor: Actor, cmd: str, tenant: str, owners: Iterable[str]) -> bool | None:
        """What rules say of that target: denied, allowed; None: nothing."""
        mine = any(one in owners for one in (actor.key.id, *actor.key.before))

        def holds(rule: Rule) -> bool:
            if rule.scope == "own" and (not mine or (rule.allow and tenant != actor.tenant)):
                return False
            if rule.scope == "tenant" and tenant != actor.tenant:
                return False
            return not rule.tenants or tenant in rule.tenants

        rules = [rule for rule in self._about(actor.key, cmd, actor.session is not None) if self._lasts(rule)]
        if any(not rule.allow and holds(rule) for rule in rules):
            return False
        member = actor.tenant in (actor.key.tenants or {"default"})
        allowed = any(rule.allow and (rule.scope == "host" or member) and holds(rule) for rule in rules)
        return True if allowed else None

    def _sees(self, actor: Actor, cmd: str, tenant: str, owners: Iterable[str]) -> bool:
        """Another permission of the same actor, over that."""
        return self._ruled(actor, cmd, tenant, owners) is True

    def covers(self, actor: Actor, cmd: str, tenant: str, owners: Iterable[str], what: str = "") -> bool:
        """May it be done to that? A grant is taken where no rule says so; a control asks for its proposal."""
        ruled = self._ruled(actor, cmd, tenant, owners)
        if ruled is False:
            return False
        if ruled is None:
            if tenant == HOST and cmd not in ABOUT_HOST:
                return False
            there = actor.tenant if tenant == HOST else tenant
            if self._grant is None:
                # The one that ends first, of those that are alike.
                fitting = sorted(self._granted(actor, cmd, there), key=lambda name: self.grants[name].expires)
                if not fitting:
                    return False
                self._grant = fitting[0]
            elif self.grants[self._grant].tenant != there:
                return False
        for control in self.policy.controls:
            if cmd in control.cmds:
                self._control(actor, cmd, control, what)
        return True

    def check(self, actor: Actor, cmd: str, tenant: str, owners: Iterable[str], what: str = "") -> None:
        if not self.covers(actor, cmd, tenant, owners, what):
            raise Denied("denied")

    def find(self, actor: Actor, cmd: str, show: str, targets: Iterable[tuple[str, tuple[str, ...]]]) -> None:
        """What may not be seen is not there."""
        places = list(targets)
        for tenant, owners in places:
            if not self.covers(actor, cmd, tenant, owners):
                raise Denied("denied" if all(self._sees(actor, show, *place) for place in places) else "not_found")

    def over(self, *, acted: bool) -> None:
        """The command is: what it took is used up, if the ledger holds it."""
        if acted:
            if self._grant is not None:
                del self.grants[self._grant]
            if self._proposal is not None:
                del self.proposals[self._proposal]
        self._grant = self._proposal = None

    @property
    def took(self) -> bool:
        """Whether the command goes under a grant or a proposal."""
        return self._grant is not None or self._proposal is not None

    # -- dual control

    def _control(self, actor: Actor, cmd: str, control: Control, what: str) -> None:
        for name, one in self.proposals.items():
            if (one.cmd, one.tenant, one.what) == (cmd, actor.tenant, what) and self.now < one.expires:
                in_time = self.now < one.created + control.window
                if in_time and len(self._approvers(one, control, actor)) >= control.approvals:
                    self._proposal = name
                    return
        raise Denied("approval_required")

    def line(self, key: str) -> str:
        """The first key of its line."""
        return self.keys[key].before[-1] if key in self.keys and self.keys[key].before else key

    def _approvers(self, one: Proposal, control: Control, giver: Actor) -> set[str]:
        """Whose approvals are others' than who proposed it, who gives it, and who granted that."""
        found = set()
        for name, role in one.approvals.items():
            key = self.keys[name]
            if key.status != "active":
                continue
            while key.successor is not None:
                key = self.keys[key.successor]
            roles = self.policy.closure(key.role)
            lets = role in roles and self.policy.closure(role) & set(control.approvers)
            if lets and key.standing(self.now) == "active":
                found.add(self.line(name))
        given = {self.line(giver.key.id)}
        if self._grant is not None:
            given.add(self.line(self.grants[self._grant].issuer))
        return found - given - {self.line(one.proposer)}

    # -- keys

    def of_key(self, actor: Actor, key: Key) -> list[tuple[str, tuple[str, ...]]]:
        """Where a key stands: for itself where it acts, in all its tenants, or the host's."""
        if key.id in (actor.key.id, *actor.key.before):
            return [(actor.tenant, (key.id,))]
        if self._hosts(key):
            return [(HOST, (key.id,))]
        return [(tenant, (key.id,)) for tenant in sorted(key.tenants or {"default"})]

    def _hosts(self, key: Key) -> bool:
        """Whether some rule takes it beyond its tenants, whenever."""
        roles = self.policy.closure(key.role)
        return any(
            rule.allow
            and rule.scope == "host"
            and (not rule.roles or roles & set(rule.roles))
            and (not rule.keys or key.name in rule.keys)
            for rule in self.policy.rules
        )

    def _reaches(self, key: Key, *, session: bool) -> list[Reach]:
        """All that a key may, for as long as it serves: by rules that have not ended."""
        found = []
        for rule in self.policy.rules:
            for cmd in rule.cmds:
                if rule.allow and self._lasts(rule) and rule in self._about(key, cmd, session):
                    tenants = set(rule.tenants) or {EVERYWHERE}
                    if rule.scope != "host":
                        bound = set(key.tenants) or {"default"}
                        tenants = bound & set(rule.tenants) if rule.tenants else bound
                    ends = [key.expires, None if rule.until is None else self.began + rule.until]
                    until = min((at for at in ends if at is not None), default=None)
                    found += [
                        Reach(cmd, WIDTH[rule.scope], tenant, rule.session, until, rule) for tenant in sorted(tenants)
                    ]
        return found

    def _excess(self, actor: Actor, wanted: Iterable[Reach], person: Key | None) -> None:
        """Nobody gives what he does not have."""
        had = self._reaches(actor.key, session=actor.session is not None)

        def contains(mine: Reach, other: Reach) -> bool:
            return (
                mine.cmd == other.cmd
                and mine.tenant in (EVERYWHERE, other.tenant)
                and mine.width >= other.width
                and (other.session or not mine.session)
                and (mine.until is None or (other.until is not None and other.until <= mine.until))
            )

        for one in wanted:
            if not any(contains(mine, one) for mine in had):
                raise Denied("escalation")
            for rule in self._about(actor.key, one.cmd, actor.session is not None):
                elsewhere = rule.tenants and one.tenant != EVERYWHERE and one.tenant not in rule.tenants
                spared = person is None or rule not in self._about(person, one.cmd, True)
                if not rule.allow and self._lasts(rule) and not elsewhere and spared:
                    raise Denied("escalation")

    def _excess_of_key(self, actor: Actor, key: Key) -> None:
        self._excess(actor, self._reaches(key, session=True), key)

    def _able(self, key: Key, cmd: str, *, whole: bool | None = None) -> bool:
        """Whether that key may do it as long as the policy stands; `whole`: on the host."""
        whole = cmd in ABOUT_HOST if whole is None else whole
        if whole and any(not rule.allow and self._lasts(rule) for rule in self._about(key, cmd, True)):
            return False
        reaches = self._reaches(key, session=True)
        opens = any(one.cmd == "session.open" and not one.session for one in reaches)
        return any(
            one.cmd == cmd
            and one.rule.until is None
            and (opens or not one.session)
            and (one.tenant == EVERYWHERE or not whole)
            for one in reaches
        )

    def _lockouts(self, keys: Mapping[str, Key]) -> set[tuple[str, str]]:
        """That nobody who stays could change the policy, and each command whose control could not be fulfilled."""
        serving = [key for key in keys.values() if key.standing(self.now) == "active"]
        staying = [key for key in serving if key.expires is None]
        found = set()
        if not any(self._able(key, "policy.set") for key in staying):
            found.add(("", "policy.set"))

        def line(key: Key) -> str:
            return key.before[-1] if key.before else key.id

        for control in self.policy.controls:
            for cmd in control.cmds:
                those = staying if cmd == "policy.set" else serving
                givers = [key for key in those if self._able(key, cmd)]
                if not givers:
                    continue
                approvers = {
                    line(key)
                    for key in those
                    if self.policy.closure(key.role) & set(control.approvers)
                    and self._able(key, "proposal.approve", whole=cmd in ABOUT_HOST)
                }
                proposers = [key for key in those if self._able(key, "proposal.create")]
                if not any(
                    len(approvers - {line(giver), line(proposer)}) >= control.approvals
                    for giver in givers
                    for proposer in proposers
                ):
                    found.add((control.name, cmd))
        return found

    def _put(self, *changed: Key) -> None:
        """These are so from now on, unless that shuts everybody out of something who is not by now."""
        after = self.keys | {key.id: key for key in changed}
        if self._lockouts(after) - self._lockouts(self.keys):
            raise Denied("lockout")
        self.keys = after

    def _find_key(self, actor: Actor, cmd: str, key_id: str) -> Key:
        self.find(actor, cmd, "key.show", self.of_key(actor, self.keys[key_id]))
        return self.keys[key_id]

    def _check_names(self, key: Key) -> None:
        if key.role not in self.policy.roles or not key.tenants <= set(self.policy.tenants):
            raise Denied("bad_argument")

    def key_show(self, actor: Actor, key: str) -> None:
        self._find_key(actor, "key.show", key)

    def key_add(self, actor: Actor, key: Key) -> None:
        self._excess_of_key(actor, key)
        for place in self.of_key(actor, key):
            self.check(actor, "key.add", *place)
        self._check_names(key)
        if any(one.name == key.name for one in self.keys.values()):
            raise Denied("bad_argument")
        self.keys[key.id] = key

    def key_bind(self, actor: Actor, key: str, **changes: object) -> None:
        old = self._find_key(actor, "key.bind", key)
        if old.status == "revoked":
            raise Denied("wrong_state")
        new = replace(old, **changes)  # type: ignore[arg-type]
        if new.id == actor.key.id and new.uids and actor.uid not in new.uids:
            raise Denied("lockout")
        self._excess_of_key(actor, new)
        for place in self.of_key(actor, new):
            self.check(actor, "key.bind", *place)
        self._check_names(new)
        self._put(new)

    def key_status(self, actor: Actor, cmd: str, key: str) -> None:
        status = {"key.suspend": "suspended", "key.resume": "active", "key.revoke": "revoked"}[cmd]
        if cmd == "key.revoke":
            places = self.of_key(actor, self.keys[key])
            seen = all(self._sees(actor, "key.show", *place) for place in places)
            if not all(self.covers(actor, cmd, *place) for place in places) and not seen:
                # To him it is a key that somebody may have certified, which is barred beneath his own.
                if not self.covers(actor, cmd, HOST, ()) and not self.covers(actor, cmd, actor.tenant, (actor.key.id,)):
                    raise Denied("not_found")
                return
        old = self._find_key(actor, cmd, key)
        if old.status in ("revoked", status):
            raise Denied("wrong_state")
        if status == "active":
            self._excess_of_key(actor, old)
        self._put(replace(old, status=status))

    def key_rotate(self, actor: Actor, key: str, new_id: str, overlap: int) -> None:
        old = self._find_key(actor, "key.rotate", key)
        if old.status == "revoked":
            raise Denied("wrong_state")
        if old.status == "suspended":
            for place in self.of_key(actor, old):
                if not self._sees(actor, "key.resume", *place):
                    raise Denied("denied")
        if old.expires is not None and self.now >= old.expires:
            raise Denied("bad_argument")
        new = replace(old, id=new_id, status="active", before=(old.id, *old.before))
        if old.id != actor.key.id:
            self._excess_of_key(actor, new)
        if old.successor is not None:
            raise Denied("bad_argument")
        ends = self.now + overlap
        self._put(replace(old, successor=new_id, expires=ends if old.expires is None else min(ends, old.expires)), new)

    # -- the rest

    def policy_set(self, actor: Actor, name: str) -> None:
        del actor
        if name == self.policy_name:
            raise Denied("wrong_state")
        before, self.policy_name = self.policy_name, name
        if self._lockouts(self.keys):
            self.policy_name = before
            raise Denied("lockout")

    def session_open(self, actor: Actor, idle: int, ttl: int) -> Session:
        self.check(actor, "session.open", actor.tenant, (actor.key.id,))
        return Session(actor.key.id, actor.tenant, self.now + ttl, min(idle, ttl), self.now, self.now)

    def session_find(self, actor: Actor, cmd: str, session: str) -> None:
        one = self.sessions[session]
        self.find(actor, cmd, "session.show", [(one.tenant, (one.owner,))])
        if cmd == "session.close":
            if one.over(self.now):
                raise Denied("wrong_state")
            one.closed = True

    def grant_issue(self, actor: Actor, key: str, cmd: str, tenant: str, ttl: int) -> Grant:
        if not all(self._sees(actor, "key.show", *place) for place in self.of_key(actor, self.keys[key])):
            raise Denied("not_found")
        ends, whole = self.now + ttl, cmd in ABOUT_HOST
        rule = Rule("", (cmd,), "host" if whole else "tenant")
        place = EVERYWHERE if whole else tenant
        self._excess(actor, [Reach(cmd, WIDTH[rule.scope], place, False, ends, rule)], None)
        self.check(actor, "grant.issue", tenant, (actor.key.id, key))
        if tenant not in self.policy.tenants:
            raise Denied("bad_argument")
        return Grant(key, cmd, tenant, ends, actor.key.id)

    def grant_revoke(self, actor: Actor, name: str) -> None:
        one = self.grants.get(name)
        if one is None or self.now >= one.expires:
            raise Denied("not_found")
        owners = (one.issuer, one.key)
        self.find(actor, "grant.revoke", "grant.list", [self._placed(actor, one.cmd, one.tenant, owners)])
        del self.grants[name]

    def proposal_create(self, actor: Actor, cmd: str, what: str, ttl: int | None) -> Proposal:
        self.check(actor, "proposal.create", actor.tenant, (actor.key.id,))
        widest = max((one.window for one in self.policy.controls if cmd in one.cmds), default=DAY)
        ends = self.now + (widest if ttl is None else ttl)
        return Proposal(actor.key.id, cmd, what, actor.tenant, self.now, ends)

    def proposal_find(self, actor: Actor, cmd: str, name: str) -> Proposal:
        one = self.proposals.get(name)
        if one is None or self.now >= one.expires:
            raise Denied("not_found")
        self.find(actor, cmd, "proposal.show", [self._placed(actor, one.cmd, one.tenant, (one.proposer,))])
        return one

    def proposal_approve(self, actor: Actor, name: str) -> None:
        one = self.proposal_find(actor, "proposal.approve", name)
        if self.line(actor.key.id) == self.line(one.proposer):
            raise Denied("denied")
        roles = self.policy.closure(actor.key.role)
        if not any(one.cmd in control.cmds and roles & set(control.approvers) for control in self.policy.controls):
            raise Denied("denied")
        one.approvals[actor.key.id] = actor.key.role

    def proposal_withdraw(self, actor: Actor, name: str) -> None:
        self.proposal_find(actor, "proposal.withdraw", name)
        del self.proposals[name]

    def _placed(self, actor: Actor, cmd: str, tenant: str, owners: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
        """What is about a command on the host is the host's to see; to whose it is, it is the tenant's."""
        mine = any(one in owners for one in (actor.key.id, *actor.key.before))
        return (tenant if mine or cmd not in ABOUT_HOST else HOST, owners)

    def sandbox_create(self, actor: Actor) -> Sandbox:
        self.check(actor, "sandbox.create", actor.tenant, (actor.key.id,))
        most = self.policy.tenants[actor.tenant]
        if most is not None and sum(one.tenant == actor.tenant for one in self.sandboxes.values()) >= most:
            raise Denied("over_quota")
        return Sandbox(actor.key.id, actor.tenant)

    def sandbox_find(self, actor: Actor, cmd: str, name: str) -> None:
        one = self.sandboxes.get(name)
        if one is None:
            raise Denied("not_found")
        anywhere = any(
            rule.allow and rule.scope == "host" and self._lasts(rule)
            for rule in self._about(actor.key, cmd, actor.session is not None)
        )
        if one.tenant != actor.tenant and not anywhere:
            raise Denied("not_found")
        self.find(actor, cmd, "sandbox.show", [(one.tenant, (one.owner,))])
        if cmd == "sandbox.remove":
            del self.sandboxes[name]
