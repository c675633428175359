"""What a manifest asks its users to agree to, and what they answer. For the SDK.

with Client(session=...) as client:
    shown = Consents(client).show(manifest, language="de")
    print(shown.words["text"], shown.words["question"])
    Consents(client).accept(shown)
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from immured.client.question import Question, reading, rows
from immured.wire.strict import Fields

if TYPE_CHECKING:
    from immured.client.aio import AsyncClient
    from immured.client.outcome import Answer
    from immured.client.sync import Client

__all__ = ["AsyncConsents", "ConsentAnswer", "ConsentFacts", "ConsentStatus", "Consents", "ShownText"]

ManifestName = str | Mapping[str, object]
"""`sha256:<hex>` of a loaded one, or of an inline one that this key was refused for want of consent; or its map."""


@dataclass(frozen=True, slots=True)
class ShownText:
    """What is to be shown before anybody agrees. `words`: title, text, question, accept, decline.

    `required` False: nothing is asked, and all else is empty. `other`: it is not in the language that was `asked` for.
    `text` is the digest of what was read; `reviewed_by` None: nobody is on record. `shipped`: the package's wording.
    """

    manifest: str
    name: str
    required: bool
    valid_ms: int = 0
    text_id: str = ""
    language: str = ""
    asked: str = ""
    other: bool = False
    languages: tuple[str, ...] = ()
    text: str = ""
    words: Mapping[str, str] = field(default_factory=dict)
    reviewed_by: str | None = None
    reviewed_on: str | None = None
    shipped: bool = False
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ConsentAnswer:
    """What was entered. `seq`: the ledger's entry of it; `expires_ms`: until when it holds."""

    manifest: str
    text_id: str
    language: str
    text: str
    expires_ms: int
    seq: int | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ConsentFacts:
    """An answer that was given. `holds`: it was accepted, and is not over."""

    manifest: str
    accepted: bool
    holds: bool
    language: str
    text_id: str
    text: str
    at_ms: int
    expires_ms: int
    session: str | None = None
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ConsentStatus:
    """One's own answers; about one manifest also its `standing` (`not_required`, `given`, `none`, `declined`, `expired`
    or `changed`), in `words`, and the `remedy`."""

    consents: tuple[ConsentFacts, ...]
    standing: str = ""
    words: str = ""
    remedy: str = ""
    raw: Mapping[str, object] = field(default_factory=dict, repr=False)


class Consents:
    """A client's. Every method raises Refusal as the daemon refuses. What is agreed to holds for commands under the
    same names (`Client(session=..., tenant=...)`) alone."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def show(self, manifest: ManifestName, *, language: str | None = None) -> ShownText:
        """The text in that language (a BCP 47 tag), or as near as there is."""
        return self._client.ask(consent_show(manifest, language))

    def accept(self, shown: ShownText) -> ConsentAnswer:
        """Agree to what was shown."""
        return self._client.ask(consent_accept(shown))

    def decline(self, shown: ShownText) -> ConsentAnswer:
        """Do not agree to what was shown; an earlier consent ends."""
        return self._client.ask(consent_decline(shown))

    def status(self, manifest: ManifestName | None = None) -> ConsentStatus:
        """What one answered, to all or to one."""
        return self._client.ask(consent_status(manifest))


class AsyncConsents:
    """`Consents` for asyncio."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    def show(self, manifest: ManifestName, *, language: str | None = None) -> Awaitable[ShownText]:
        """As `Consents.show`."""
        return self._client.ask(consent_show(manifest, language))

    def accept(self, shown: ShownText) -> Awaitable[ConsentAnswer]:
        """As `Consents.accept`."""
        return self._client.ask(consent_accept(shown))

    def decline(self, shown: ShownText) -> Awaitable[ConsentAnswer]:
        """As `Consents.decline`."""
        return self._client.ask(consent_decline(shown))

    def status(self, manifest: ManifestName | None = None) -> Awaitable[ConsentStatus]:
        """As `Consents.status`."""
        return self._client.ask(consent_status(manifest))


def consent_show(manifest: ManifestName, language: str | None) -> Question[ShownText]:
    """What is to be read."""
    more = {} if language is None else {"language": language}
    return Question("consent.show", {"manifest": _wire(manifest)} | more, _shown)


def consent_accept(shown: ShownText) -> Question[ConsentAnswer]:
    """Yes, to just that."""
    return Question("consent.accept", _answering(shown), _answer)


def consent_decline(shown: ShownText) -> Question[ConsentAnswer]:
    """No, to just that."""
    return Question("consent.decline", _answering(shown), _answer)


def consent_status(manifest: ManifestName | None) -> Question[ConsentStatus]:
    """What was answered."""
    return Question("consent.status", {} if manifest is None else {"manifest": _wire(manifest)}, _status)


def _wire(manifest: ManifestName) -> object:
    return manifest if isinstance(manifest, str) else dict(manifest)


def _answering(shown: ShownText) -> dict[str, object]:
    return {"manifest": shown.manifest, "language": shown.language, "text": shown.text}


def _shown(said: Answer) -> ShownText:
    fields = reading(said)
    manifest, name = fields.required("manifest", str), fields.required("name", str)
    if not fields.required("required", bool):
        return ShownText(manifest, name, required=False, raw=dict(fields.values))
    words = Fields(fields.required("words", dict), "result.words", "bad_reply")
    return ShownText(
        manifest,
        name,
        required=True,
        valid_ms=fields.required("valid_ms", int),
        text_id=fields.required("text_id", str),
        language=fields.required("language", str),
        asked=fields.required("asked", str),
        other=fields.required("other", bool),
        languages=tuple(map(str, fields.required("languages", list))),
        text=fields.required("text", str),
        words={one: words.required(one, str) for one in ("title", "text", "question", "accept", "decline")},
        reviewed_by=fields.optional("reviewed_by", str),
        reviewed_on=fields.optional("reviewed_on", str),
        shipped=fields.optional("shipped", bool) or False,
        raw=dict(fields.values),
    )


def _answer(said: Answer) -> ConsentAnswer:
    fields = reading(said)
    return ConsentAnswer(
        manifest=fields.required("manifest", str),
        text_id=fields.required("text_id", str),
        language=fields.required("language", str),
        text=fields.required("text", str),
        expires_ms=fields.required("expires_ms", int),
        seq=None if said.receipt is None else said.receipt.seq,
        raw=dict(fields.values),
    )


def _status(said: Answer) -> ConsentStatus:
    fields = reading(said)
    return ConsentStatus(
        tuple(rows(said, "consents", _facts)),
        fields.optional("standing", str) or "",
        fields.optional("words", str) or "",
        fields.optional("remedy", str) or "",
        dict(fields.values),
    )


def _facts(fields: Fields) -> ConsentFacts:
    return ConsentFacts(
        manifest=fields.required("manifest", str),
        accepted=fields.required("accepted", bool),
        holds=fields.required("holds", bool),
        language=fields.required("language", str),
        text_id=fields.required("text_id", str),
        text=fields.required("text", str),
        at_ms=fields.required("at_ms", int),
        expires_ms=fields.required("expires_ms", int),
        session=fields.optional("session", str),
        raw=dict(fields.values),
    )
