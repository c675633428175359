"""Every error that immured raises or sends: a stable code, a message that names the thing, and a remedy.

Codes are part of the contract (docs/protocol.md lists them); messages and remedies are for people and may improve.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ConfigurationError", "ImmuredError", "Refused", "RemoteError"]


class ImmuredError(Exception):
    """The base of all: `code` is stable, `message` names the thing, `remedy` says what to do."""

    def __init__(
        self, code: str, message: str, remedy: str = "", *, details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.remedy = remedy
        self.details: dict[str, object] = dict(details or {})


class Refused(ImmuredError):
    """A request was understood, or was not understandable, and is not done. Nothing ran.

    `retry` marks what a retry may cure (`busy`, `over_quota`, `rate_limited`, `ledger_unavailable`,
    `ledger_damaged`): the nonce is not used up then.
    """

    @property
    def retry(self) -> bool:
        return self.code in RETRYABLE


class ConfigurationError(ImmuredError):
    """What the operator or the host must mend: a missing file, a damaged ledger, a state directory in use."""


class RemoteError(ImmuredError):
    """The daemon's signed refusal, as the client sees it."""


RETRYABLE = frozenset(
    {"busy", "over_quota", "rate_limited", "ledger_unavailable", "ledger_damaged", "stopping", "audit_unhealthy"}
)
