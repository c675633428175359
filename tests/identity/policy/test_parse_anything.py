"""Whatever the bytes are: a policy, or `policy_invalid`; and never anything else."""

from __future__ import annotations

from importlib.resources import files
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from immured.errors import ConfigurationError
from immured.identity.policy.parse import parse_policy

SHIPPED = files("immured.identity.policy").joinpath("default.toml").read_text()
ODD = (
    *("1", "-1", "1.5", "nan", "inf", "true", '""', '"x"', "[]", "[[]]", "{}", "{a = 1}", '["a", 1]', "1979-05-27"),
    *("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "07:32:00", "9" * 40, '"\\u0000"', '"é"', "'''a\nb'''"),
)
PLACES = (
    *("schema", "roles", "rules", "tenants", "rates", "controls", "external", "roles.r", "roles.r.includes"),
    *("tenants.t", "tenants.t.quota", "tenants.t.quota.cpus", "tenants.t.quota.wall", "tenants.t.quota.memory"),
    *("rates.key", "rates.key.per_second"),
)
FIELDS = "name roles keys allow deny scope tenants projects classes labels from until session".split()
CONTROL = "name permissions classes approvals approvers window".split()
EXTERNAL = "issuer claim value role tenant longest".split()


def read(text: str | bytes) -> bool:
    """Whether it is a policy."""
    try:
        parse_policy(text if isinstance(text, bytes) else text.encode())
    except ConfigurationError as error:
        assert error.code == "policy_invalid"  # noqa: PT017 - either is an answer
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_bytes(given_bytes: bytes) -> None:
    read(given_bytes)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32))
def test_the_shipped_policy_with_some_of_it_changed(seed: int) -> None:
    dice, text = Random(seed), SHIPPED
    for _ in range(dice.randint(1, 3)):
        at, long = dice.randrange(len(text)), dice.choice((0, 1, 1, 8))
        text = text[:at] + dice.choice(('"', "]", "=", "\n", "x", "[[rules]]\n", "", "'")) + text[at + long :]
    read(text)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(PLACES), st.sampled_from(ODD))
def test_odd_values_everywhere(place: str, value: str) -> None:
    head = "" if place == "schema" else "schema = 1\n"
    read(f"{head}{place} = {value}\n" + ("" if place.startswith("roles") else "[roles.r]\n"))


@settings(max_examples=500, deadline=None)
@given(st.data())
def test_odd_values_in_tables(data: st.DataObject) -> None:
    table, names = data.draw(st.sampled_from((("rules", FIELDS), ("controls", CONTROL), ("external", EXTERNAL))))
    good: dict[str, Any] = {
        "rules": {"name": "'a'", "roles": "['r']", "allow": "['run']", "scope": "'own'"},
        "controls": {"name": "'a'", "permissions": "['run']", "approvers": "['r']"},
        "external": {"issuer": "'i'", "claim": "'c'", "value": "'v'", "role": "'r'", "tenant": "'default'"},
    }[table]
    assert read(f"schema = 1\n[roles.r]\n[[{table}]]\n" + "".join(f"{key} = {value}\n" for key, value in good.items()))
    odd = good | {data.draw(st.sampled_from(names)): data.draw(st.sampled_from(ODD))}
    read(f"schema = 1\n[roles.r]\n[[{table}]]\n" + "".join(f"{key} = {value}\n" for key, value in odd.items()))
