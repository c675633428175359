"""What authorisation is of a command's time: under which names, by which rule, to what. Without the signature.

A thousand keys, two hundred rules, a hundred tenants; each command is another key's, so that what is remembered of one
helps none of the next thousand.
"""

from __future__ import annotations

import time
from random import Random
from statistics import median, quantiles
from typing import Final

from bench.bars import Shown
from bench.ground import Ground, Part
from immured.errors import Refused
from immured.identity.actor import Caller, bind
from immured.identity.authority import Authority
from immured.identity.keyring import KeyRecord, Keyring
from immured.identity.policy.parse import parse_policy
from immured.identity.policy.schema import Policy
from immured.identity.policy.warrant import Target
from immured.wire.keys import PrivateKey
from immured.wire.messages import Command

__all__ = ["crowd", "measure", "rulebook"]

KEYS: Final = 1000
RULES: Final = 200
TENANTS: Final = 100  # `default` among them
ROLES: Final = 20
NOW: Final = 1_800_000_000_000
COMMANDS: Final = ("run", "plan", "kill", "sandbox.exec", "sandbox.create", "file.get", "file.put", "changes.list")


def measure(ground: Ground) -> Part:
    dice = Random(5)
    records = crowd(dice)
    authority = Authority(Keyring(records), rulebook(dice))
    orders = [_order(dice, records) for _ in range(100 * ground.effort.runs // 10)]
    first = _times(authority, orders[: len(records)])
    took = _times(authority, orders)
    worst = quantiles(took, n=100)[98]
    how = f"p99 {worst:.1f} us; what nothing is remembered of, p50 {median(first):.1f} us; {len(took)} commands"
    figures: dict[str, object] = {"us": took, "first_us": first}
    return Part("Authorisation", [Shown("authorise", median(took), how, figures)])


def _times(authority: Authority, orders: list[tuple[KeyRecord, Command]]) -> list[float]:
    """Microseconds of each that is allowed."""
    caller = Caller(1000)
    took: list[float] = []
    for record, command in orders:
        start = time.perf_counter_ns()
        found = authority.find(record.id)
        try:
            actor = bind(found or record, caller, authority.names, NOW, tenant=command.tenant)
            warrant = authority.admit(actor, command, NOW)
            warrant.check(Target(actor.tenant, "default", actor.owners, "default"))
            authority.conclude(warrant, acted=True)
        except Refused:
            continue
        took.append((time.perf_counter_ns() - start) / 1000)
    return took


def _order(dice: Random, records: list[KeyRecord]) -> tuple[KeyRecord, Command]:
    record = dice.choice(records)
    (tenant,) = record.tenants
    cmd = dice.choice(COMMANDS)
    return record, Command(aud="", cmd=cmd, args={}, nonce=dice.randbytes(16), iat=NOW, exp=NOW + 1000, tenant=tenant)


def crowd(dice: Random) -> list[KeyRecord]:
    """The keys, each of some role and tenant."""
    return [
        KeyRecord(
            PrivateKey.generate().public,
            f"key-{number}",
            f"role-{dice.randrange(ROLES)}",
            "2026-01-02T03:04:05Z",
            tenants=frozenset({_tenant(dice.randrange(TENANTS))}),
        )
        for number in range(KEYS)
    ]


def rulebook(dice: Random) -> Policy:
    """The policy: roles that include one another by fours, rules of every scope and some conditions, some that deny."""
    lines = ["schema = 1"]
    for number in range(ROLES):
        includes = f'includes = ["role-{number - 1}"]' if number % 4 else ""
        lines += [f"[roles.role-{number}]", includes]
    lines += [f"[tenants.{_tenant(number)}]" for number in range(1, TENANTS)]
    for number in range(RULES):
        deny, scope = number % 10 == 9, dice.choice(("own", "tenant", "host"))
        lines += [
            "[[rules]]",
            f'name = "rule-{number}"',
            f"roles = {[f'role-{each}' for each in dice.sample(range(ROLES), 2)]}",
            f"{'deny' if deny else 'allow'} = {dice.sample(COMMANDS, 3)}",
            f'scope = "{"own" if deny else scope}"',
        ]
        if number % 3 == 0:
            lines.append(f"tenants = {[_tenant(each) for each in dice.sample(range(TENANTS), 3)]}")
        if number % 7 == 0 and not deny:
            lines.append("session = true")
    return parse_policy("\n".join(lines).encode())


def _tenant(number: int) -> str:
    return f"tenant-{number}" if number else "default"
