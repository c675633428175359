"""The checks that ask nobody but the daemon's own memory: who, under which manifest, with whose consent, held by what.

Each answers with its rows. What a run would be refused with is a failure, in the same words.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from immured.errors import Refused
from immured.isolation.compile import RunSpec, compile_plan
from immured.isolation.means import WEAKER, means_of
from immured.manifest import use
from immured.manifest.schema import LIMITS
from immured.service.consents import standing
from immured.service.preflight.rows import FAIL, WARN, Row, failed, passed, warned
from immured.service.storage import grants

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from immured.identity.policy.warrant import Target, Warrant
    from immured.manifest.pipeline import Signer
    from immured.manifest.schema import Limits, Manifest
    from immured.service.context import Service
    from immured.service.preflight.subject import Subject

__all__ = ["capabilities", "command", "consent", "host", "persona", "schema", "secrets", "signature"]

_ALWAYS: Final = frozenset({"memory", "pids", "files", "swap"})
"""Limits that every manifest has: without them none of the others can be asked about alone."""
_PLACEHOLDER: Final = b"true"
_SANDBOX: Final = "s00000000000000000000"


# -- 1: persona and scope


def persona(warrant: Warrant, subject: Subject) -> Iterator[Row]:
    """Whom the manifest is for, and whether policy lets this actor run under it."""
    actor, manifest = warrant.actor, subject.manifest
    who = f"the role {actor.role!r}" + ("" if actor.persona is None else f", as {actor.persona!r},")
    where = f"in {actor.tenant}/{actor.project}"
    if manifest is None:
        yield Row("persona", FAIL, f"{who} {where}: nobody can read the manifest, nor whom it is for")
        return
    try:
        use.check_manifest(manifest, actor.persona, actor.tenant)
        if subject.inline:
            warrant.require("manifest.inline", _target(warrant, manifest))
        warrant.require("run", _target(warrant, manifest))
    except Refused as error:
        yield failed("persona", error)
        return
    yield passed("persona", f"{who} {where} may run manifests of the class {manifest.class_!r}")


def _target(warrant: Warrant, manifest: Manifest) -> Target:
    return replace(warrant.place(), manifest_class=manifest.class_)


def command(subject: Subject) -> Iterator[Row]:
    """Whether the manifest is for that command, and its parameters for these values."""
    if subject.unfilled is not None:
        yield failed("command", subject.unfilled)
    if subject.manifest is None or not subject.argv:
        return
    try:
        use.permits(subject.manifest, subject.argv)
    except Refused as error:
        yield failed("command", error)
        return
    words = "the manifest is for this command" if subject.manifest.command.allow else "the manifest is for any command"
    if subject.manifest.command.pin:
        words += "; which file it is, is looked at when it runs"
    yield passed("command", words)


# -- 2: signature and digest


def signature(service: Service, subject: Subject) -> Iterator[Row]:
    """Whether it is in force, by which entry."""
    if subject.refusal is not None:
        yield failed("signature", subject.refusal)
    elif subject.inline:
        yield passed("signature", f"{subject.digest} comes with the command, whose own signature covers it")
    elif (loaded := subject.loaded) is not None:
        if loaded.approved is None:
            yield passed("signature", f"{subject.digest} is built in, and is as the daemon signed it")
            return
        names = ", ".join(one.name for one in loaded.approved.signers)
        words = f"{subject.digest} is as it was loaded by entry {loaded.seq}, signed by {names}"
        yield passed("signature", words + _until(service, loaded.approved.signers))
    else:
        yield from _stage(subject, "signature")
        if subject.judged is not None and subject.judged.refusal is None:
            remedy = "immure manifest load F"
            yield warned("signature", f"{subject.digest} is not loaded: no run can name it yet", remedy)


def _until(service: Service, signers: Sequence[Signer]) -> str:
    """When too few signatures will count any more."""
    needed = service.authority.policy.manifests.signatures
    ends = sorted((one.expires_ms for one in signers), reverse=True)
    if not 0 < needed <= len(ends):
        return ""
    return datetime.fromtimestamp(ends[needed - 1] / 1000, UTC).strftime(", until %Y-%m-%dT%H:%M:%SZ")


def schema(subject: Subject) -> Iterator[Row]:
    """Of a file that is not loaded: whether it is understood."""
    yield from _stage(subject, "schema")


def capabilities(subject: Subject) -> Iterator[Row]:
    """Of a file that is not loaded: what it adds."""
    yield from _stage(subject, "capabilities")


def _stage(subject: Subject, stage: str) -> Iterator[Row]:
    for one in () if subject.judged is None else subject.judged.verdicts:
        if one.stage == stage:
            yield Row(stage, one.verdict, one.words, one.remedy, one.code)


# -- 3: secrets


def secrets(subject: Subject) -> Iterator[Row]:
    """A manifest that asks for any is refused whole, by name of the field, until there is who gives them."""
    refusal = None if subject.judged is None else subject.judged.refusal
    if refusal is not None and str(refusal.details.get("field", "")).startswith("manifest.secrets"):
        yield failed("secrets", refusal)
    elif subject.manifest is not None:
        yield passed("secrets", "it asks for none: there is no lease that could end too early")
    else:
        yield Row("secrets", FAIL, "nobody can read the manifest, nor what it asks for")


# -- 5: consent


def consent(service: Service, warrant: Warrant, subject: Subject) -> Iterator[Row]:
    """Whether its text can be shown and read aloud, and whether this actor has agreed."""
    manifest = subject.manifest
    if manifest is None:
        return
    if not manifest.consent.required:
        yield passed("consent", "it asks for none")
        return
    texts, text_id = service.state.config.consent, manifest.consent.text
    try:
        texts.choose(text_id)
    except Refused as error:
        yield failed("consent", error)
        return
    for language, words in texts.faults(text_id).items():
        remedy = "mend the file (docs/consent.md), and restart the daemon"
        yield warned("consent", f"the text {text_id!r} is not shown in {language}: {words}", remedy)
    found = standing(service, warrant.actor, manifest)
    listed = ", ".join(texts.languages(text_id))
    if found.state == "given":
        yield passed("consent", f"{found.words}; its text is there in {listed}")
    else:
        yield Row("consent", FAIL, f"{found.words}; its text is there in {listed}", found.remedy, "consent_required")


# -- and the host


def host(service: Service, warrant: Warrant, subject: Subject) -> Iterator[Row]:
    """Each limit and wall that it asks for, and by what it would hold here."""
    if (manifest := subject.manifest) is None:
        return
    limits, facts = manifest.limits, service.launcher.facts
    writable = bool(manifest.filesystem.write)
    wrong: dict[str, Row] = {}
    enforcement: dict[str, str] = {}
    for name in LIMITS:
        try:
            enforcement |= means_of(_only(limits, name), facts, binds_writable=writable).enforcement
        except Refused as error:
            wrong[error.message] = failed("host", error)
    yield from wrong.values()
    weaker = {name: means for name, means in enforcement.items() if means in WEAKER}
    verdict, code = (FAIL, "weaker_enforcement") if limits.strict else (WARN, "")
    for name, means in weaker.items():
        words = f"limits.{name} holds by a weaker means: {means}"
        if limits.strict:
            words += ", and the manifest is strict"
        yield Row("host", verdict, words, _mend(name), code)
    if not wrong:
        yield from _walls(service, warrant, subject, manifest)
    held = "; ".join(f"{name} by {means}" for name, means in enforcement.items() if name not in weaker)
    if held:
        yield passed("host", f"limits hold as they say: {held}")


def _only(limits: Limits, name: str) -> Limits:
    """That one, and those that are always there."""
    others: dict[str, Any] = {one: None for one in LIMITS if one not in _ALWAYS and one != name}
    return replace(limits, strict=False, **others)


def _mend(name: str) -> str:
    if name == "disk":
        return "write to a tmpfs or a volume and collect, where a whole bound is wanted"
    return "give the daemon's cgroup the controllers (immure doctor); or ask for less"


def _walls(service: Service, warrant: Warrant, subject: Subject, manifest: Manifest) -> Iterator[Row]:
    """The plan as a run would have it: mounts, processors, the filter, Landlock."""
    actor, facts = warrant.actor, service.launcher.facts
    bare = replace(
        manifest,
        command=replace(manifest.command, allow=()),
        filesystem=replace(manifest.filesystem, capture=()),
        limits=replace(manifest.limits, strict=False),
        personas=(),
        tenants=(),
        template=None,
    )
    spec = RunSpec(_SANDBOX, subject.argv or (_PLACEHOLDER,), actor.tenant, actor.persona)
    try:
        granted = grants(service, actor, manifest)
        compiled = compile_plan(bare, spec, facts, granted, profiles=service.state.config.profiles)
    except Refused as error:
        yield failed("host", error)
        return
    steps = len(compiled.plan.describe())
    yield passed("host", f"a plan of {steps} steps, filtered by the profile {manifest.syscalls.profile!r}")
    if facts.landlock_abi:
        yield passed("host", f"the second wall stands: Landlock, version {facts.landlock_abi} of its ABI")
    else:
        yield warned(
            "host", "no second wall: this kernel has no Landlock", "boot with lsm=landlock,... (immure doctor)"
        )
