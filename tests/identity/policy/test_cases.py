"""What a policy is expected to say: each case that holds is silent, each that does not says why."""

from __future__ import annotations

import pytest

from immured.errors import ConfigurationError
from immured.identity.policy.cases import parse_cases, try_cases
from immured.identity.policy.decide import Decider
from tests.identity.policy.people import NOW, key, policy

POLICY = """
[roles.low]
[roles.high]
includes = ["low"]
[tenants.acme]
projects = ["web"]
[[rules]]
name = "own"
roles = ["low"]
allow = ["sandbox.kill", "run"]
scope = "own"
[[rules]]
name = "red"
roles = ["high"]
allow = ["sandbox.kill"]
scope = "tenant"
labels = {team = "red"}
session = true
until = 2027-06-01T00:00:00Z
[[rules]]
name = "never"
keys = ["bob"]
deny = ["run"]
[[controls]]
name = "two"
permissions = ["run"]
approvers = ["high"]
"""
CASE = "schema = 1\n[[cases]]\nname = 'c'\n"


def outcome(text: str, **records: object) -> str | None:
    cases = parse_cases((CASE + text).encode())
    known = [key("low"), key("high", "eve", tenants=["acme"])] if records.get("keyring", True) else None
    (one,) = try_cases(Decider(policy(POLICY)), cases, NOW, known)
    return one.problem


RED = "role='high'\npermissions=['sandbox.kill']\ntarget={own=false, labels={team='red'}}\nexpect='allow'\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("role='low'\npermissions=['run']\nexpect='allow'\n", None),
        ("role='low'\npermissions=['run']\nexpect='deny'\n", "it is allowed"),
        ("role='low'\npermissions=['run']\nexpect='allow'\nrule='own'\n", None),
        ("role='low'\npermissions=['run']\nexpect='allow'\nrule='red'\n", "not by the rule 'red', but by 'own'"),
        ("role='low'\npermissions=['run']\nexpect='allow'\ncontrols=['two']\n", None),
        ("role='low'\npermissions=['run']\nexpect='allow'\ncontrols=[]\n", "the controls that it waits for are two"),
        ("role='low'\npermissions=['sandbox.kill']\ntarget={own=false}\nexpect='deny'\n", None),
        ("role='low'\npermissions=['sandbox.kill']\ntarget={own=true}\nexpect='allow'\n", None),
        (RED + "session=true\n", None),
        (RED, "it is denied"),
        (RED + "session=true\nat=2028-01-01T00:00:00Z\n", "it is denied"),
        (RED + "session=true\ntenant='acme'\nproject='web'\n", None),
        (RED + "session=true\ntenant='acme'\nbound=false\n", "it is denied"),
        ("key='bob'\npermissions=['run']\nexpect='deny'\nrule='never'\n", None),
        ("key='eve'\ntenant='acme'\npermissions=['run']\nexpect='allow'\n", None),
        ("key='eve'\npermissions=['run']\nexpect='allow'\n", "it is denied"),
        ("role='high'\npermissions=['run']\nexpect='deny'\nrule='never'\n", "it is allowed"),
    ],
)
def test_cases(text: str, problem: str | None) -> None:
    assert outcome(text) == problem


def test_each_permission_of_a_case_is_tried() -> None:
    cases = parse_cases((CASE + "role='low'\npermissions=['run', 'status']\nexpect='deny'\n").encode())
    outcomes = try_cases(Decider(policy(POLICY)), cases, NOW)
    assert [(one.permission, one.problem) for one in outcomes] == [("run", "it is allowed"), ("status", None)]
    assert outcomes[1].to_map() == {
        "case": "c",
        "permission": "status",
        "ok": True,
        "why": "no rule allows 'status' to the key '(any)' (low)",
    }


@pytest.mark.parametrize(
    "text",
    [
        "permissions=['run']\nexpect='deny'\n",
        "role='low'\nkey='bob'\npermissions=['run']\nexpect='deny'\n",
        "role='low'\npermissions=[]\nexpect='deny'\n",
        "role='low'\npermissions=['runn']\nexpect='deny'\n",
        "role='low'\npermissions=['run']\nexpect='no'\n",
        "role='low'\npermissions=['run']\nexpected='deny'\n",
        "role='low'\npermissions=['run']\nexpect='deny'\ntarget={labels={}}\n",
        "role='lo'\npermissions=['run']\nexpect='deny'\n",
        "key='nobody'\npermissions=['run']\nexpect='deny'\n",
    ],
)
def test_what_cannot_be_tried_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        outcome(text)
    assert caught.value.code == "cases_invalid"


def test_a_key_needs_a_keyring() -> None:
    with pytest.raises(ConfigurationError, match="is about a key"):
        outcome("key='bob'\npermissions=['run']\nexpect='deny'\n", keyring=False)


def test_a_file_of_no_cases_is_a_mistake() -> None:
    for text in (b"schema = 1\n", b"schema = 1\ncases = []\n", b"schema = 2\n[[cases]]\n", b"="):
        with pytest.raises(ConfigurationError):
            parse_cases(text)
