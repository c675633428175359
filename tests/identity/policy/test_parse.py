"""A policy is strict: what is not understood, unknown or could never hold is an error that names its line."""

from __future__ import annotations

import hashlib

import pytest

from immured.errors import ConfigurationError
from immured.identity.policy.parse import MAX_TEXT, parse_policy
from immured.identity.policy.schema import Policy, Rule, Scope
from immured.identity.quotas import Quota
from immured.identity.rates import Rate, Rates

HEAD = "schema = 1\n[roles.r]\n"
RULE = "[[rules]]\nname = 'a'\nroles = ['r']\n"


def refused(text: str) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_policy(text.encode())
    assert caught.value.code == "policy_invalid"
    return caught.value


def read(text: str) -> Policy:
    return parse_policy((HEAD + text).encode())


def test_all_that_may_be_said() -> None:
    text = """schema = 1
[roles.viewer]
title = "looks"
[roles.operator]
includes = ["viewer"]
[tenants.acme]
projects = ["web"]
paths = ["datasets"]
[tenants.acme.quota]
sandboxes = 3
runs_per_minute = 60
cpus = 1.5
memory = "512M"
pids = 100
disk = 1048576
wall = "8h"
[rates.key]
per_second = 5
burst = 10
[[rules]]
name = "operators-end"
roles = ["operator"]
keys = ["alice"]
allow = ["sandbox.kill", "kill"]
scope = "tenant"
tenants = ["acme"]
projects = ["web"]
classes = ["open"]
labels = {team = "red"}
from = 2026-12-01T00:00:00Z
until = 2027-01-01T01:00:00+01:00
session = true
[[rules]]
name = "nobody-sets"
keys = ["ed25519:00112233445566778899aabbccddeeff"]
deny = ["policy.set"]
[[controls]]
name = "two"
permissions = ["run"]
classes = ["open"]
approvals = 2
approvers = ["operator"]
window = "90m"
[[external]]
issuer = "https://id.example"
claim = "groups"
value = "ops"
role = "operator"
tenant = "acme"
longest = "1h"
"""
    policy = parse_policy(text.encode())
    assert policy.digest == "sha256:" + hashlib.sha256(text.encode()).hexdigest()
    assert policy.text == text.encode()
    assert policy.closure("operator") == {"operator", "viewer"}
    allow, deny = policy.rules
    assert allow == Rule(
        name="operators-end",
        allow=True,
        permissions=frozenset({"sandbox.kill", "kill"}),
        scope=Scope.TENANT,
        roles=frozenset({"operator"}),
        keys=frozenset({"alice"}),
        tenants=frozenset({"acme"}),
        projects=frozenset({"web"}),
        classes=frozenset({"open"}),
        labels=(("team", "red"),),
        from_ms=1_796_083_200_000,
        until_ms=1_798_761_600_000,
        session=True,
    )
    assert (deny.allow, deny.scope, deny.roles) == (False, Scope.HOST, frozenset())
    acme = policy.tenants["acme"]
    assert acme.projects == {"default", "web"}
    assert acme.paths == {"datasets"}
    assert acme.quota == Quota(3, 60, 1500, 512 << 20, 100, 1 << 20, 8 * 3600 * 10**9)
    assert policy.quota("default") == Quota()
    assert policy.quota("nowhere") is None
    assert policy.rates == Rates(key=Rate(5, 10))
    (control,) = policy.controls
    assert (control.approvals, control.window_ms) == (2, 5_400_000)
    assert control.approvers == {"operator"}
    (external,) = policy.external
    assert (external.role, external.tenant, external.longest_ms) == ("operator", "acme", 3_600_000)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("schema = 2\n[roles.r]\n", 1, "is 2"),
        ("schema = 1\nrolls = {}\n", 2, "unknown field 'rolls'"),
        (HEAD + "title = 3\n", 3, "not a str"),
        (HEAD + "includes = ['s']\n[roles.t]\n", 3, "no role"),
        (HEAD + "[roles.s]\nincludes = ['t']\n[roles.t]\nincludes = ['s']\n", 4, "s -> t -> s"),
        (HEAD + "includes = ['r']\n", 3, "r -> r"),
        (HEAD + "['roles'.'No Name']\n", 3, "is no name"),
        (HEAD + RULE + "scope = 'own'\n", 3, "exactly one of them"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\ndeny = ['run']\n", 7, "exactly one of them"),
        (HEAD + RULE + "allow = ['run']\n", 3, "scope is missing"),
        (HEAD + RULE + "scope = 'all'\nallow = ['run']\n", 6, "is 'all'"),
        (HEAD + RULE + "scope = 'tenant'\ndeny = ['run']\n", 6, "in a rule that denies"),
        (HEAD + RULE + "scope = 'own'\nallow = []\n", 7, "length of 0"),
        (HEAD + RULE + "scope = 'own'\nallow = ['runn']\n", 7, "no permission"),
        (HEAD + RULE + "scope = 'own'\nallow = ['sandbox.*']\n", 7, "no permission"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run', 'run']\n", 7, "twice"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\nkeys = []\n", 8, "is empty"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\ntenants = ['acme']\n", 8, "no tenant"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\nprojects = ['web']\n", 8, "no project"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\nsession = false\n", 8, "is false"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\nfrom = '2026-01-01'\n", 8, "no moment"),
        (HEAD + RULE + "scope = 'own'\nallow = ['run']\nfrom = 2026-01-01T00:00:00\n", 8, "no moment"),
        (
            HEAD + RULE + "scope='own'\nallow=['run']\nfrom=2027-01-01T00:00:00Z\nuntil=2026-01-01T00:00:00Z\n",
            9,
            "is not after",
        ),
        (HEAD + "[[rules]]\nname = 'a'\nallow = ['run']\nscope = 'own'\n", 3, "both missing"),
        (HEAD + 2 * (RULE + "scope = 'own'\nallow = ['run']\n"), 9, "stands twice"),
        (HEAD + RULE + "scope = 'tenant'\nallow = ['policy.set']\n", 6, "acts on the whole host"),
        (HEAD + RULE + "scope = 'host'\nallow = ['run']\nlabels = {team = 'red'}\n", 8, "never hold of 'run'"),
        (HEAD + RULE + "deny = ['key.add']\nclasses = ['open']\n", 7, "never hold of 'key.add'"),
        (HEAD + "[tenants.acme.quota]\nmemory = '1X'\n", 4, "is '1X'"),
        (HEAD + "[tenants.acme.quota]\ncpus = true\n", 4, "cpus is"),
        (HEAD + "[tenants.acme.quota]\nsandboxes = -1\n", 4, "is -1"),
        (HEAD + "[rates.host]\nper_second = 1\nburst = 1\n", 3, "no such rate"),
        (HEAD + "[rates.key]\nper_second = 0\nburst = 1\n", 4, "is 0"),
        (HEAD + "[[controls]]\nname='c'\npermissions=['run']\napprovers=['r']\napprovals=0\n", 7, "is 0"),
        (HEAD + "[[controls]]\nname='c'\npermissions=['run']\napprovers=[]\n", 6, "length of 0"),
        (HEAD + "[[controls]]\nname='c'\npermissions=['proposal.approve']\napprovers=['r']\n", 5, "approval is given"),
        (
            HEAD + "[[controls]]\nname='c'\npermissions=['key.add']\napprovers=['r']\nclasses=['open']\n",
            7,
            "acts on no manifest",
        ),
        (HEAD + "[[controls]]\nname='c'\npermissions=['run']\napprovers=['r']\nwindow='30d'\n", 7, "is '30d'"),
        (HEAD + "[[external]]\nissuer='i'\nclaim='c'\nvalue='v'\nrole='s'\ntenant='default'\n", 7, "no role"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, said: str) -> None:
    error = refused(text)
    assert said in error.message
    assert error.details.get("line") == line
    assert error.message.startswith(f"line {line}: ")


def test_the_nearest_known_name_is_said() -> None:
    assert "sandbox.kill" in refused(HEAD + RULE + "scope = 'own'\nallow = ['sandbox.kil']\n").remedy


def test_patterns_are_told_that_there_are_none() -> None:
    assert "no patterns" in refused(HEAD + RULE + "scope = 'own'\nallow = ['sandbox.*']\n").remedy


@pytest.mark.parametrize("text", ["schema = ", "\x00", "schema = 1\n[roles.r]\n[roles.r]\n", "a = " + "[" * 5000])
def test_what_is_no_toml_is_no_policy(text: str) -> None:
    assert "is not TOML" in refused(text).message


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, str(2**63)])
def test_a_number_of_any_length_is_refused_in_words(number: str) -> None:
    """Python reads endless ones in hex, and then cannot show them."""
    error = refused(f"schema = {number}\n")
    assert error.message == "the policy is not TOML: an integer of more than 64 bits"


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ConfigurationError, match="is not TOML"):
        parse_policy(b"schema = 1 # \xff")


def test_a_policy_has_a_bound() -> None:
    with pytest.raises(ConfigurationError, match="at most"):
        parse_policy(b"#" * (MAX_TEXT + 1))


def test_the_default_tenant_is_always_there() -> None:
    assert set(read("").tenants) == {"default"}


def test_a_cycle_elsewhere_is_found() -> None:
    """Round what a role includes, and not through itself."""
    error = refused("schema = 1\n[roles.a]\nincludes=['b']\n[roles.b]\nincludes=['c']\n[roles.c]\nincludes=['b']\n")
    assert "b -> c -> b" in error.message


@pytest.mark.parametrize("part", ["a.", "a . ", '"a".', "'a'.", '"\\"".', '"".'])
def test_a_key_of_very_many_parts_is_not_looked_at(part: str) -> None:
    """tomllib takes a time for it that grows with their square: a minute for half a megabyte."""
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        parse_policy(b"schema = 1\n[" + part.encode() * 33 + b"a]\n")
    with pytest.raises(ConfigurationError, match="unknown"):
        parse_policy(b"schema = 1\n[" + part.encode() * 20 + b"a]\n")
