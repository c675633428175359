"""`consent.*`: what a manifest asks its users to agree to, and what they answer. docs/consent.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from immured.errors import Refused
from immured.identity.consents import Binding, Consent
from immured.ledger import entry_types
from immured.manifest.consent_texts import FALLBACK, ConsentText, Texts
from immured.manifest.schema import Manifest
from immured.service.commands import CommandSpec
from immured.service.consents import standing
from immured.service.context import Service
from immured.service.manifests import admit, made
from immured.service.request import Answer, Request
from immured.wire.messages import Receipt
from immured.wire.strict import Fields, shown, take

__all__ = ["COMMANDS"]

_CHUNK: Final = 256
"""Characters: at most 1,024 bytes, as much text as an entry holds in one piece."""


async def show(service: Service, request: Request) -> Answer:
    """args: `manifest` (a digest, or a map), `language` (a BCP 47 tag, default en). result: docs/protocol.md."""
    fields = take(request.command.args, "args", ("manifest", "language"))
    manifest = _manifest(service, request, fields)
    wanted = manifest.consent
    said: dict[str, object] = {
        "manifest": manifest.digest,
        "name": manifest.name,
        "class": manifest.class_,
        "required": wanted.required,
    }
    if not wanted.required:
        return Answer(said)
    texts = _texts(service)
    chosen = texts.choose(wanted.text, fields.optional("language", str) or FALLBACK)
    text = chosen.text
    said |= {
        "valid_ms": wanted.valid_ms,
        "text_id": text.id,
        "language": text.language,
        "asked": chosen.asked,
        "other": chosen.other,
        "languages": list(texts.languages(text.id)),
        "text": text.digest,
        "words": {name: getattr(text, name) for name in ("title", "text", "question", "accept", "decline")},
        "shipped": text.shipped,
    }
    if text.reviewed_by is not None and text.reviewed_on is not None:
        said |= {"reviewed_by": text.reviewed_by, "reviewed_on": text.reviewed_on}
    return Answer(said)


async def accept(service: Service, request: Request) -> Answer:
    """args: `manifest`, `language` and `text` (the digest) of what was shown. result: docs/protocol.md."""
    fields = take(request.command.args, "args", ("manifest", "language", "text"))
    language, digest = fields.required("language", str), fields.required("text", str)
    manifest = _asking(service, request, fields)
    text = _shown_text(service, manifest, language, digest)
    now = service.clock()
    return await _enter(
        service, request, entry_types.CONSENT_ACCEPTED, manifest, text, now, now + manifest.consent.valid_ms
    )


async def decline(service: Service, request: Request) -> Answer:
    """args: `manifest`, and, where it was shown, `language` and `text` of what was. result: as of `accept`."""
    fields = take(request.command.args, "args", ("manifest", "language", "text"))
    language, digest = fields.optional("language", str), fields.optional("text", str)
    manifest = _asking(service, request, fields)
    if digest is None:
        text = _texts(service).choose(manifest.consent.text, language or FALLBACK).text
    elif language is None:
        raise fields.wrong("language", "is missing, and `text` is there", "name the language of what was shown")
    else:
        text = _shown_text(service, manifest, language, digest)
    now = service.clock()
    expires = now + manifest.consent.valid_ms
    before = service.authority.consents.find(request.actor, manifest.digest)
    if before is not None:
        # It outlives what it ends, however the clock was set in between.
        expires = max(expires, before.expires_ms)
    return await _enter(service, request, entry_types.CONSENT_DECLINED, manifest, text, now, expires)


async def status(service: Service, request: Request) -> Answer:
    """args: `manifest`. result: `consents`, one's own in this tenant, also those that ended within a day; with
    `manifest` only those about it, and `standing`, `words` and, where none is given, `remedy`."""
    fields = take(request.command.args, "args", ("manifest",))
    actor, now, warrant = request.actor, service.clock(), request.warrant
    warrant.check(warrant.place())
    rows = [_row(one, now) for one in service.authority.consents.of(actor, now)]
    if "manifest" not in fields:
        return Answer({"consents": rows})
    manifest = _manifest(service, request, fields)
    found = standing(service, actor, manifest)
    said: dict[str, object] = {
        "manifest": manifest.digest,
        "name": manifest.name,
        "standing": found.state,
        "words": found.words,
        "consents": [row for row in rows if row["manifest"] == manifest.digest],
    }
    return Answer(said | ({"remedy": found.remedy} if found.remedy else {}))


def _row(consent: Consent, now: int) -> dict[str, object]:
    return {**consent.to_map(), "holds": consent.holds(now)}


async def _enter(
    service: Service,
    request: Request,
    kind: str,
    manifest: Manifest,
    text: ConsentText,
    now: int,
    expires: int,
) -> Answer:
    """Once it is durable, it is so. Raises Refused `over_quota`, `ledger_unavailable`: nothing changed then."""
    consents, actor = service.authority.consents, request.actor
    binding = Binding.of(actor, manifest.digest)
    consents.check_room(binding, now)
    said: dict[str, object] = {
        "manifest": manifest.digest,
        "text_id": text.id,
        "language": text.language,
        "text": text.digest,
        "expires_ms": expires,
    }
    data = {**request.to_map(), **said, "name": manifest.name, "at_ms": now}
    _enter_wording(service, text)
    pending = service.ledger.entry(kind, actor.to_map(), data)
    if kind == entry_types.CONSENT_DECLINED:
        consents.withheld.add(binding)
    try:
        durable = await pending.durable()
    except Refused:
        consents.wordings.discard(text.digest)  # nor, perhaps, is that: it is entered again
        raise
    finally:
        consents.withheld.discard(binding)
    request.acted = True
    request.claim.outcome = receipt = Receipt(durable.seq, durable.leaf)
    consents.visit(kind, actor.to_map(), data, receipt.seq)
    return Answer(said, receipt)


def _enter_wording(service: Service, text: ConsentText) -> None:
    """What was read, word for word, once: a file can change, and the digest alone tells nobody what it said."""
    wordings = service.authority.consents.wordings
    if text.digest in wordings:
        return
    pieces = [text.text[start : start + _CHUNK] for start in range(0, len(text.text), _CHUNK)]
    words: dict[str, object] = {"title": text.title, "text": pieces, "question": text.question}
    data: dict[str, object] = {"text": text.digest, "text_id": text.id, "language": text.language, "words": words}
    if text.reviewed_by is not None and text.reviewed_on is not None:
        data |= {"reviewed_by": text.reviewed_by, "reviewed_on": text.reviewed_on}
    service.ledger.entry(entry_types.CONSENT_TEXT, service.actor, data)
    wordings.add(text.digest)


def _texts(service: Service) -> Texts:
    return service.state.config.consent


def _shown_text(service: Service, manifest: Manifest, language: str, digest: str) -> ConsentText:
    """The text that was shown. Raises Refused `consent_changed` where it is another by now."""
    text = _texts(service).get(manifest.consent.text, language)
    if text is None or text.digest != digest:
        _texts(service).choose(manifest.consent.text, language)
        raise Refused(
            "consent_changed",
            f"{shown(digest, 80)} is not the text {manifest.consent.text!r} in {shown(language)}",
            "have it shown again (`immure consent show`), and answer to that",
            details={"text_id": manifest.consent.text, "text": "" if text is None else text.digest},
        )
    return text


def _asking(service: Service, request: Request, fields: Fields) -> Manifest:
    """The manifest, which asks for consent. Raises Refused `wrong_state` where it does not."""
    manifest = _manifest(service, request, fields)
    if not manifest.consent.required:
        message = f"the manifest {manifest.name!r} asks for no consent"
        raise Refused("wrong_state", message, "nothing is to be done", details={"manifest": manifest.digest})
    return manifest


def _manifest(service: Service, request: Request, fields: Fields) -> Manifest:
    """The manifest that is named, and that this actor may use: a loaded one, an inline one's map, or by its digest an
    inline one of which this key was asked. Raises Refused as for a run under it."""
    warrant, named = request.warrant, fields.values.get("manifest")
    if named is None:
        raise fields.wrong("manifest", "is missing", "name the digest of a manifest, or send one as a map")
    if not isinstance(named, str | Mapping):
        raise fields.wrong("manifest", "is neither a digest nor a map")
    asked = service.asked.find(request.actor, named) if isinstance(named, str) else None
    try:
        manifest = admit(service, warrant, named, filled=False, consent=False)
    except Refused as refused:
        if asked is None or refused.code != "unknown_manifest":
            raise
    else:
        if asked is None and not isinstance(named, str):
            service.asked.note(request.actor, manifest)
        return manifest
    warrant.check(made(warrant, asked))
    return asked


COMMANDS: Final = (
    CommandSpec("consent.show", "consent.show", show),
    CommandSpec("consent.accept", "consent.accept", accept),
    CommandSpec("consent.decline", "consent.decline", decline),
    CommandSpec("consent.status", "consent.status", status),
)
