"""Whether whoever gives a command has agreed to what its manifest asks consent for, and what to do where not."""

from __future__ import annotations

import shlex
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.actor import DEFAULT
from immured.identity.consents import Consent

if TYPE_CHECKING:
    from immured.identity.actor import Actor
    from immured.identity.policy.warrant import Warrant
    from immured.manifest.schema import Manifest
    from immured.service.context import Service

__all__ = ["Asked", "Standing", "check", "giving", "standing"]

_MAX_ASKED: Final = 1024
_MAX_ASKED_PER_KEY: Final = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """How it is with one actor's consent to one manifest.

    `state`: `not_required`, `given`, `none`, `declined`, `expired`, or `changed` (the wording is another by now).
    `words` say it; `remedy` is the command line that gives it, or empty; `consent` the last answer.
    """

    state: str
    words: str
    remedy: str = ""
    consent: Consent | None = None


class Asked:
    """Manifests that somebody was asked to agree to and that are loaded nowhere, so that he can name one by its digest.

    The last of each key in each tenant, in memory: whoever is asked again sends it again.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, str], Manifest] = OrderedDict()
        self._of: dict[tuple[str, str], OrderedDict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._found)

    def note(self, actor: Actor, manifest: Manifest) -> None:
        """That actor was asked."""
        whose, digest = (actor.key_id, actor.tenant), manifest.digest
        self._found[(*whose, digest)] = manifest
        self._found.move_to_end((*whose, digest))
        own = self._of.setdefault(whose, OrderedDict())
        own[digest] = None
        own.move_to_end(digest)
        if len(own) > _MAX_ASKED_PER_KEY:
            self._drop((*whose, next(iter(own))))
        elif len(self._found) > _MAX_ASKED:
            self._drop(next(iter(self._found)))

    def find(self, actor: Actor, digest: str) -> Manifest | None:
        """What that key was asked about in that tenant, under that digest."""
        return self._found.get((actor.key_id, actor.tenant, digest))

    def _drop(self, place: tuple[str, str, str]) -> None:
        key, tenant, digest = place
        del self._found[place]
        del self._of[key, tenant][digest]
        if not self._of[key, tenant]:
            del self._of[key, tenant]


def check(service: Service, warrant: Warrant, manifest: Manifest) -> None:
    """Under a manifest that asks for consent: was it given? Then `warrant.consent` is its entry.

    Raises Refused `consent_required`, whose remedy is the command line that gives it; `consent_text_missing` where
    nobody can, as there is no text to agree to.
    """
    if not manifest.consent.required:
        return
    found = standing(service, warrant.actor, manifest)
    if found.state == "given" and found.consent is not None:
        warrant.consent = found.consent.seq
        return
    service.state.config.consent.choose(manifest.consent.text)
    raise Refused(
        "consent_required",
        found.words,
        found.remedy,
        details={
            "manifest": manifest.digest,
            "name": manifest.name,
            "text_id": manifest.consent.text,
            "state": found.state,
        },
    )


def standing(service: Service, actor: Actor, manifest: Manifest) -> Standing:
    """How it is now, for just this actor: key, user, tenant, project, persona, `sub` and session. Where a remedy is
    given the manifest is remembered, so that it can be followed: it names a digest."""
    name = f"the manifest {manifest.name!r}"
    if not manifest.consent.required:
        return Standing("not_required", f"{name} asks for no consent")
    found = service.authority.consents.find(actor, manifest.digest)
    state = _state(service, manifest, found)
    if found is not None and state == "given":
        return Standing(state, f"consent to {name} was given (entry {found.seq})", consent=found)
    service.asked.note(actor, manifest)
    where = "outside any session" if actor.session is None else f"in the session {actor.session}"
    words = {
        "none": f"{name} asks for consent, and none was given {where}",
        "declined": f"the consent that {name} asks for was declined",
        "expired": f"the consent that {name} asks for is over",
        "changed": f"the text that {name} asks consent to is not the one that was agreed to any more",
    }
    return Standing(state, words[state], giving(actor, manifest), found)


def _state(service: Service, manifest: Manifest, found: Consent | None) -> str:
    if found is None:
        return "none"
    if not found.accepted:
        return "declined"
    if not found.holds(service.clock()):
        return "expired"
    text = service.state.config.consent.get(manifest.consent.text, found.language)
    return "given" if text is not None and text.digest == found.text else "changed"


def giving(actor: Actor, manifest: Manifest) -> str:
    """The command line that shows the text to whoever gives such a command, and agrees to it."""
    words = ["immure", "consent", "accept", manifest.digest]
    named = {
        "tenant": None if actor.tenant == DEFAULT else actor.tenant,
        "project": None if actor.project == DEFAULT else actor.project,
        "persona": actor.persona,
        "sub": actor.sub,
        "session": actor.session,
    }
    for option, value in named.items():
        if value is not None:
            words.append(f"--{option}={value}")
    return shlex.join(words)
