"""What a manifest must pass before anybody may run under it, stage by stage. Pure.

    signature      its digest is not forbidden; every line verifies or is of no known key; enough keys that may sign it
    schema         it is understood; its personas and tenants are there
    capabilities   what it may that its baseline may not: the last approved manifest of its name, else its class

Nothing of the file is parsed before it is verified, but where somebody only asks what would be said of it (`whole`).
Whether what is added needs approval is policy's to say, of the command that loads it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.manifest.builtin import class_manifest, parse_toml
from immured.manifest.difference import difference
from immured.manifest.items import INVALID
from immured.manifest.signature import parse_signatures, verify
from immured.wire.strict import nearest

if TYPE_CHECKING:
    from immured.manifest.difference import Calls, Difference
    from immured.manifest.schema import Manifest, Syscalls
    from immured.manifest.signature import Signature
    from immured.wire.keys import PublicKey

__all__ = [
    "CAPABILITIES",
    "FAIL",
    "PASS",
    "SCHEMA",
    "SIGNATURE",
    "STAGES",
    "WARN",
    "Baseline",
    "Judged",
    "Rules",
    "Signer",
    "SignerKey",
    "Verdict",
    "check_listed",
    "compare",
    "examine",
    "judge",
    "rank_of",
]

SIGNATURE: Final = "signature"
SCHEMA: Final = "schema"
CAPABILITIES: Final = "capabilities"
STAGES: Final = (SIGNATURE, SCHEMA, CAPABILITIES)
"""In the order in which they are asked."""
PASS: Final = "pass"  # noqa: S105 - no password
WARN: Final = "warn"
FAIL: Final = "fail"

CLASS: Final = "class"
"""The kind of a baseline that nobody approved."""
MOST_ROWS: Final = 64
"""Of what is added or taken away, as many as an entry and a reply list; they say how many more there are."""
_LAST_YEAR_MS: Final = 253_402_300_799_000
_WORDS: Final = 800
"""Characters of a verdict: an entry holds texts of 1,024 bytes."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one stage says. `code` and `remedy`: of one that failed."""

    stage: str
    verdict: str
    words: str
    code: str = ""
    remedy: str = ""

    def to_map(self) -> dict[str, object]:
        """As replies and entries show it."""
        shown: dict[str, object] = {"stage": self.stage, "verdict": self.verdict, "words": self.words[:_WORDS]}
        if self.code:
            shown |= {"code": self.code, "remedy": self.remedy[:_WORDS]}
        return shown


@dataclass(frozen=True, slots=True)
class SignerKey:
    """A key that the daemon knows. `line`: whose voice it is; `problem`: why its signature does not count, as "is
    suspended"; empty where it does."""

    public: PublicKey
    name: str
    line: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Signer:
    """A signature that counts, or did when the manifest was loaded."""

    key: str
    name: str
    signed_ms: int
    expires_ms: int

    def to_map(self) -> dict[str, object]:
        """As replies and entries show it."""
        return {"key": self.key, "name": self.name, "signed_ms": self.signed_ms, "expires_ms": self.expires_ms}


@dataclass(frozen=True, slots=True)
class Baseline:
    """With what a manifest is compared: `kind` is `manifest` (loaded before, in force) or `class`."""

    kind: str
    manifest: Manifest

    def to_map(self) -> dict[str, object]:
        """As replies and entries show it."""
        return {"kind": self.kind, "name": self.manifest.name, "digest": self.manifest.digest}


@dataclass(frozen=True, slots=True)
class Rules:
    """What policy, keyring and ledger say. `needed`: signatures; `only`: the digests that may be used, None: any.

    `find`, `personas` and `tenants` have what who asks may know of, so that no verdict tells of others.
    `may_sign(key id, class, tenants)` is whether that key may sign such a manifest for all of these tenants, no tenant
    at all standing for the host. `baseline` answers the last approved manifest of that name and tenants, None: none is.
    `calls` says which system calls are granted (`difference`); `check_syscalls` raises Refused for names of [syscalls]
    that this host does not know.
    """

    needed: int
    only: Collection[str] | None
    revoked: Mapping[str, str]
    """Digests that are revoked, and why."""
    find: Callable[[str], SignerKey | None]
    may_sign: Callable[[str, str, tuple[str, ...]], bool]
    personas: Collection[str]
    tenants: Collection[str]
    baseline: Callable[[Manifest], Manifest | None]
    calls: Calls | None = None
    check_syscalls: Callable[[Syscalls], object] | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What came of it. `refusal` is of the first stage that failed, None: all passed; what comes after it is absent but
    for `whole`. `expires_ms`: from when on fewer signatures than needed are unexpired."""

    digest: str
    verdicts: tuple[Verdict, ...] = ()
    refusal: Refused | None = None
    manifest: Manifest | None = None
    signers: tuple[Signer, ...] = ()
    expires_ms: int | None = None
    baseline: Baseline | None = None
    difference: Difference | None = None

    @property
    def rank(self) -> int:
        """Of what is added: 0 is nothing."""
        return 0 if self.difference is None else rank_of(self.difference)

    def fails(self, stage: str) -> bool:
        """Whether that stage says no."""
        return any(one.stage == stage and one.verdict == FAIL for one in self.verdicts)

    def failed(self, stage: str, error: Refused) -> Judged:
        """With that stage's verdict a refusal; the first one stays the one that counts."""
        verdict = Verdict(stage, FAIL, error.message, error.code, error.remedy)
        others = tuple(one for one in self.verdicts if one.stage != stage)
        ordered = sorted((*others, verdict), key=lambda one: STAGES.index(one.stage))
        before = any(map(self.fails, STAGES[: STAGES.index(stage)]))
        first = self.refusal if self.refusal is not None and before else error
        return replace(self, verdicts=tuple(ordered), refusal=first)

    def to_map(self) -> dict[str, object]:
        """What a reply and an entry say of it: `digest`, `stages`, and of the manifest as far as it came."""
        shown: dict[str, object] = {"digest": self.digest, "stages": [one.to_map() for one in self.verdicts]}
        if (manifest := self.manifest) is not None:
            shown |= {"name": manifest.name, "class": manifest.class_}
            shown |= {"tenants": list(manifest.tenants), "personas": list(manifest.personas)}
        if self.signers:
            shown["signers"] = [one.to_map() for one in self.signers]
        if self.expires_ms is not None:
            shown["expires_ms"] = self.expires_ms
        if self.baseline is not None and self.difference is not None:
            shown["baseline"] = self.baseline.to_map()
            shown["added"] = [one.to_map() for one in self.difference.added[:MOST_ROWS]]
            if len(self.difference.added) > MOST_ROWS:
                shown["more_added"] = len(self.difference.added) - MOST_ROWS
            if self.difference.severity is not None:
                shown["severity"] = self.difference.severity.name.lower()
        return shown


@dataclass(slots=True)
class _Signed:
    """The signature stage, half way: what was verified, and what is to be said of each line."""

    voices: dict[str, list[Signer]] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    unknown: int = 0


def judge(raw: bytes, signatures: bytes, rules: Rules, now_ms: int, *, whole: bool = False) -> Judged:
    """All verdicts on a manifest file up to the first that is a refusal; with `whole` on as far as can be told."""
    return compare(examine(raw, signatures, rules, now_ms, whole=whole), rules.calls)


def examine(raw: bytes, signatures: bytes, rules: Rules, now_ms: int, *, whole: bool = False) -> Judged:
    """`judge` up to its last stage. With a baseline where that is still to come: `compare`, which asks `rules` nothing
    and takes the longest, a second or two of a hostile file, so that it can be done aside."""
    judged = Judged("sha256:" + hashlib.sha256(raw).hexdigest())
    signed: _Signed | None = None
    try:
        check_listed(judged.digest, rules.only, rules.revoked)
        signed = _signed(raw, signatures, rules, now_ms)
        _enough(signed, rules.needed)
    except Refused as error:
        judged = judged.failed(SIGNATURE, error)
        if not whole:
            return judged
    try:
        manifest = parse_toml(raw)
        if rules.check_syscalls is not None:
            rules.check_syscalls(manifest.syscalls)
    except Refused as error:
        judged = _with_signature(judged, signed, rules)
        return judged.failed(SCHEMA, error)
    judged = replace(judged, manifest=manifest)
    try:
        _check_names(manifest, rules)
    except Refused as error:
        judged = _with_signature(judged, signed, rules).failed(SCHEMA, error)
        if not whole:
            return judged
    else:
        judged = replace(judged, verdicts=(*judged.verdicts, _understood(manifest)))
    if signed is not None and judged.refusal is None:
        # Who may sign it depends on its class and tenants, which only now are known to be there.
        try:
            _rightful(signed, manifest, rules)
        except Refused as error:
            judged = judged.failed(SIGNATURE, error)
            if not whole:
                return replace(judged, verdicts=judged.verdicts[:1])
        judged = _with_signature(judged, signed, rules)
    return replace(judged, baseline=_baseline(manifest, rules))


def compare(judged: Judged, calls: Calls | None) -> Judged:
    """With the verdict of the last stage, where it came so far."""
    manifest, baseline = judged.manifest, judged.baseline
    if manifest is None or baseline is None:
        return judged
    than = f"{'its class' if baseline.kind == CLASS else 'the last approved manifest'} {baseline.manifest.name!r}"
    found = difference(baseline.manifest, manifest, calls)
    if found.severity is None:
        verdict = Verdict(CAPABILITIES, PASS, f"nothing more than {than}")
    else:
        gravest = found.added[0]
        words = f"{len(found.added)} more than {than}; {gravest.severity.name.lower()}: {gravest.words}"
        verdict = Verdict(CAPABILITIES, WARN, words)
    return replace(judged, verdicts=(*judged.verdicts, verdict), difference=found)


def check_listed(digest: str, only: Collection[str] | None, revoked: Mapping[str, str]) -> None:
    """Raises Refused `manifest_revoked`, or `denied` where policy lists what may be used, and not this one."""
    if digest in revoked:
        why = f": {revoked[digest]}" if revoked[digest] else ""
        raise Refused(
            "manifest_revoked",
            f"the manifest {digest} was revoked{why}",
            "name another; what was revoked is loaded never again",
            details={"manifest": digest},
        )
    if only is not None and digest not in only:
        raise Refused(
            "denied",
            f"the manifest {digest} is not among those that policy lets be used",
            "name one that is; or have it added to `only` of [manifests]",
            details={"field": "manifests.only", "manifest": digest},
        )


def rank_of(found: Difference) -> int:
    """How severe what is added is, as policy ranks it: 0 is nothing."""
    return 0 if found.severity is None else int(found.severity)


# -- signature


def _signed(raw: bytes, signatures: bytes, rules: Rules, now_ms: int) -> _Signed:
    """Every line looked at. Raises Refused `signature_invalid` for one that does not verify, `manifest_unsigned`."""
    found = _Signed()
    if not signatures:
        raise _unsigned(found, rules.needed, ["it has no signature"])
    for one in parse_signatures(signatures):
        key = rules.find(one.key_id)
        if key is None:
            found.unknown += 1
            found.notes.append(f"{one.key_id} is no key of this daemon")
            continue
        if not verify(one, key.public, raw):
            raise Refused(
                "signature_invalid",
                f"the signature of {key.name!r} ({one.key_id}) is not over these bytes and times",
                "have it signed as it is now: immure manifest sign F --key KEY",
                details={"key": one.key_id},
            )
        _count(found, one, key, now_ms)
    return found


def _count(found: _Signed, one: Signature, key: SignerKey, now_ms: int) -> None:
    if key.problem:
        found.notes.append(f"the key of {key.name!r} {key.problem}")
    elif one.early(now_ms):
        found.notes.append(f"{key.name!r} signed it in the future, at {_when(one.signed_ms)}")
    elif one.expired(now_ms):
        found.expired.add(key.line)
        found.notes.append(f"what {key.name!r} signed expired at {_when(one.expires_ms)}")
    else:
        signer = Signer(one.key_id, key.name, one.signed_ms, one.expires_ms)
        found.voices.setdefault(key.line, []).append(signer)


def _when(at_ms: int) -> str:
    """As people write it; what no calendar has, as it is."""
    if at_ms > _LAST_YEAR_MS:
        return f"{at_ms} ms"
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _enough(found: _Signed, needed: int) -> None:
    if len(found.voices) >= needed:
        return
    if len(found.voices.keys() | found.expired) >= needed:
        raise Refused(
            "manifest_expired",
            _of_needed(found, needed, found.notes),
            "have it signed anew, and load it again",
            details={"have": len(found.voices), "needed": needed},
        )
    raise _unsigned(found, needed, found.notes)


def _rightful(found: _Signed, manifest: Manifest, rules: Rules) -> None:
    """Take out whoever may not sign such a manifest. Raises Refused `manifest_unsigned`, `manifest_expired`."""
    for line, signers in list(found.voices.items()):
        kept = [one for one in signers if rules.may_sign(one.key, manifest.class_, manifest.tenants)]
        for one in signers:
            if one not in kept:
                whose = ", ".join(manifest.tenants) or "the host"
                found.notes.append(f"{one.name!r} may not sign manifests of the class {manifest.class_!r} for {whose}")
        if kept:
            found.voices[line] = kept
        else:
            del found.voices[line]
    _enough(found, rules.needed)


def _with_signature(judged: Judged, signed: _Signed | None, rules: Rules) -> Judged:
    """With the stage's good verdict, where it has no other, and the signers that count."""
    if signed is None:
        return judged
    signers = tuple(one for line in signed.voices.values() for one in line)
    ends = sorted((max(one.expires_ms for one in line) for line in signed.voices.values()), reverse=True)
    judged = replace(judged, signers=signers)
    if judged.refusal is not None:
        return judged
    words = f"signed by {', '.join(one.name for one in signers)}; {rules.needed} needed"
    if signed.notes:
        words += f"; not counted: {'; '.join(signed.notes)}"
    verdict = Verdict(SIGNATURE, WARN if signed.notes else PASS, words)
    return replace(judged, verdicts=(verdict, *judged.verdicts), expires_ms=ends[rules.needed - 1])


def _of_needed(found: _Signed, needed: int, why: Sequence[str]) -> str:
    """How many count, whose, and what of the others does not."""
    words = f"{len(found.voices)} of {needed} needed signatures count"
    if found.voices:
        words += f", of {', '.join(repr(line[-1].name) for line in found.voices.values())}"
    one = [f"the keys of {line[-1].name!r} are one voice" for line in found.voices.values() if len(line) > 1]
    return ": ".join([words, *filter(None, ["; ".join([*one, *why])])])


def _unsigned(found: _Signed, needed: int, why: Sequence[str]) -> Refused:
    return Refused(
        "manifest_unsigned",
        _of_needed(found, needed, why),
        "have it signed by keys that may `manifest.sign` such a manifest: immure manifest sign F --key KEY",
        details={"have": len(found.voices), "needed": needed},
    )


# -- schema


def _understood(manifest: Manifest) -> Verdict:
    for_whom = ", ".join(manifest.tenants) or "every tenant"
    return Verdict(SCHEMA, PASS, f"{manifest.name!r}, of the class {manifest.class_!r}, for {for_whom}")


def _check_names(manifest: Manifest, rules: Rules) -> None:
    """Raises Refused `manifest_invalid` for a persona or a tenant that there is not."""
    for name, given, known in (
        ("personas", manifest.personas, rules.personas),
        ("tenants", manifest.tenants, rules.tenants),
    ):
        for value in given:
            if value not in known:
                near = nearest(value, known)
                what = name.removesuffix("s")
                raise Refused(
                    INVALID,
                    f"manifest.{name} holds {value!r}, which is no {what} here",
                    f"did you mean {near!r}?" if near else f"have the {what} declared first, or leave it out",
                    details={"field": f"manifest.{name}", **({"nearest": near} if near else {})},
                )


# -- capabilities


def _baseline(manifest: Manifest, rules: Rules) -> Baseline:
    approved = rules.baseline(manifest)
    if approved is not None:
        return Baseline("manifest", approved)
    class_ = class_manifest(manifest.class_)
    assert class_ is not None  # noqa: S101 - it was parsed against it
    return Baseline(CLASS, class_)
