"""The one place through which every use of a manifest goes: which one it is, and whether it may be used here and now.

    run, plan, batch, sandbox.create (from a snapshot too)     admit
    an exec in a sandbox that lives, a sandbox of a template   admit_again: what was chosen before, by the rules of now

What a manifest says of the command itself (`use.check_use`) is asked where the plan is compiled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from immured.errors import Refused
from immured.identity.policy.warrant import Target
from immured.manifest.builtin import parse_map
from immured.manifest.parameters import fill
from immured.service import consents

if TYPE_CHECKING:
    from immured.identity.policy.warrant import Warrant
    from immured.manifest.schema import Manifest
    from immured.service.context import Service

__all__ = ["INLINE", "admit", "admit_again", "made"]

INLINE: Final = "manifest.inline"
_NO_LABELS: Final[Mapping[str, str]] = {}


def admit(
    service: Service,
    warrant: Warrant,
    named: object,
    labels: Mapping[str, str] = _NO_LABELS,
    parameters: Mapping[str, object] | None = None,
    *,
    filled: bool = True,
    consent: bool = True,
) -> Manifest:
    """A loaded one by its digest, an inline map's, or the default, with its parameters filled in; the warrant covers
    what is made of it, with these labels. `filled`: whoever only asks about it gives no parameters; `consent`: nor
    consents.

    Raises Refused `unknown_manifest` (for another tenant's as for none), `manifest_invalid`, `bad_argument`, `denied`,
    `manifest_revoked`, `manifest_expired`, `manifest_unsigned`, `manifest_damaged`, `consent_required`.
    """
    store = service.manifests
    if isinstance(named, str):
        manifest = store.use(named, warrant.actor.tenant, warrant.now_ms).manifest
    elif named is None:
        manifest = service.state.default
        store.check_listed(manifest.digest)
    else:
        try:
            manifest = parse_map(named)
        except Refused:
            warrant.require(INLINE)  # who may send none is told so, and not what is wrong with it
            raise
        warrant.require(INLINE, made(warrant, manifest, labels))
        store.check_listed(manifest.digest)
        store.inline.offer(manifest.digest, named)
    if filled and (parameters is not None or manifest.template is not None):
        manifest = fill(manifest, parameters)
    warrant.check(made(warrant, manifest, labels))
    if consent and manifest.consent.required:
        consents.check(service, warrant, manifest)
    return manifest


def admit_again(service: Service, warrant: Warrant, manifest: Manifest, *, consent: bool = True) -> None:
    """More is done under a manifest that was admitted before, and may have been revoked since. Raises Refused as
    `admit` does; about what it is done to, the warrant was asked already."""
    service.manifests.use_again(manifest.digest, warrant.now_ms)
    if consent and manifest.consent.required:
        consents.check(service, warrant, manifest)


def made(warrant: Warrant, manifest: Manifest, labels: Mapping[str, str] = _NO_LABELS) -> Target:
    """What is made of a manifest by this command."""
    actor = warrant.actor
    return Target(actor.tenant, actor.project, actor.owners, manifest.class_, labels)
