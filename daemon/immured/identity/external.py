"""The seam for identities that somebody else vouches for: what one that was verified may be here, and for how long.

An OpenID Connect gateway checks the token (signature, audience, time) and asks for a key of the person's own, which
ends by itself. It then adds that record as any other (`key.add`), by a key of its own: who may add which keys the
policy says, and nobody adds one that may more than he. So the gateway is no authority beside this one. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from immured.errors import Refused
from immured.identity.keyring import MAX_NOTE, KeyRecord, check_subject
from immured.identity.policy.schema import External, Policy
from immured.wire.keys import PublicKey

__all__ = ["Vouched", "local_key"]

_NAME_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Vouched:
    """Who `issuer` says it is: `subject` (the token's `sub`), `claims`, until `expires_ms` (since the epoch)."""

    issuer: str
    subject: str
    claims: Mapping[str, object]
    expires_ms: int

    @property
    def digest(self) -> str:
        """Hex SHA-256 of issuer and subject: the same person, whatever the claims of the day are."""
        return hashlib.sha256(f"{self.issuer}\0{self.subject}".encode()).hexdigest()


def local_key(
    policy: Policy, vouched: Vouched, public: PublicKey, now_ms: int, *, tenant: str | None = None
) -> KeyRecord:
    """A key for that person, in the role and tenant that the policy gives to a claim of his. `tenant`: which is meant,
    where several fit. It ends when the policy or the issuer says so, whichever is first.

    Raises Refused `denied`: what vouches has expired, the policy knows nobody of these claims, or too many of them.
    """
    if now_ms >= vouched.expires_ms:
        raise _denied(vouched, "is no longer vouched for", "have the token renewed")
    fitting = [one for one in policy.external if _fits(one, vouched) and tenant in (None, one.tenant)]
    chosen = {(one.role, one.tenant) for one in fitting}
    if not chosen:
        raise _denied(vouched, "has no claim that the policy knows", "have an [[external]] of the policy name one")
    if len(chosen) > 1:
        named = ", ".join(f"{role} in {where}" for role, where in sorted(chosen))
        raise _denied(vouched, f"could be {named}", "name the tenant; in one tenant, let the policy name one role")
    [(role, where)] = chosen
    longest = max(one.longest_ms for one in fitting)
    return KeyRecord(
        public=public,
        name=f"external-{vouched.digest[:_NAME_DIGITS]}-{public.id[-_NAME_DIGITS:]}",
        role=role,
        added=datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        tenants=frozenset({where}),
        subjects=frozenset({_subject(vouched)}),
        expires_ms=min(vouched.expires_ms, now_ms + longest),
        note=_printable(f"{vouched.subject} of {vouched.issuer}"),
    )


def _fits(one: External, vouched: Vouched) -> bool:
    """The claim's value is that very text, or a list that holds it: what is of another kind is nothing."""
    if one.issuer != vouched.issuer:
        return False
    value = vouched.claims.get(one.claim)
    return value == one.value if isinstance(value, str) else isinstance(value, list) and one.value in value


def _subject(vouched: Vouched) -> str:
    try:
        return check_subject(f"{vouched.issuer}#{vouched.subject}")
    except Refused:
        return f"sha256:{vouched.digest}"


def _printable(text: str) -> str:
    """As a note: shortened and escaped, for people."""
    shown = "".join(one if one.isprintable() else "?" for one in text)
    return shown.encode()[:MAX_NOTE].decode("utf-8", "ignore")


def _denied(vouched: Vouched, why: str, remedy: str) -> Refused:
    return Refused("denied", f"whom {vouched.issuer[:80]!r} calls {vouched.subject[:80]!r} {why}", remedy)
