"""How a result becomes `immure run`'s exit status, and what is said about an end that was not the command's own."""

from __future__ import annotations

__all__ = ["CANNOT_EXECUTE", "KILLED", "NOT_FOUND", "REFUSED", "TIMEOUT", "explain", "status_of"]

TIMEOUT = 124
REFUSED = 125
CANNOT_EXECUTE = 126
NOT_FOUND = 127
KILLED = 137

_FAILURES = {"executable_not_found": NOT_FOUND, "not_executable": CANNOT_EXECUTE}

_ENDED = {
    "timeout": ("ended at its wall-time limit", "--wall"),
    "cpu_time": ("ended at its limit of processor time", "--cpu-time"),
    "oom": ("used up its memory", "--memory"),
    "pids": ("reached its limit of processes", "--pids"),
    "output_limit": ("wrote more than its output limit", "--output"),
    "violation": ("was ended at a write outside what its manifest allows", ""),
    "killed": ("was killed", ""),
}


def status_of(cause: str, exit_code: int | None, signal: int | None, failure: str | None = None) -> int:
    """The exit status for a cause of the contract. `failure` is the code of a `setup_failed` result."""
    if cause == "exited":
        return exit_code if exit_code is not None else REFUSED
    if cause == "signaled":
        return 128 + (signal or 0)
    if cause == "timeout":
        return TIMEOUT
    if cause == "setup_failed":
        return _FAILURES.get(failure or "", REFUSED)
    return KILLED


def explain(cause: str) -> tuple[str, str] | None:
    """(message, remedy) for an end that was not the command's own; None for one that was."""
    if cause not in _ENDED:
        return None
    what, option = _ENDED[cause]
    return f"the command {what}", f"allow more with {option}, if your policy lets you" if option else ""
