"""What the broker gives up for good. The one file that knows python-prctl."""

from __future__ import annotations

import resource

import prctl

from immured.errors import ConfigurationError

__all__ = ["give_up_privileges", "hide_memory", "raise_descriptor_limit"]


def hide_memory() -> None:
    """No core dump, no ptrace by an equal uid: this process holds keys. Raises ConfigurationError."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        prctl.set_dumpable(0)
        prctl.set_name("immured")
    except OSError as error:
        raise _failed("PR_SET_DUMPABLE", error) from error


def give_up_privileges() -> None:
    """No execve of ours ever gains a right again. After the launcher was started: it needs its own. Raises
    ConfigurationError."""
    try:
        prctl.set_no_new_privs(1)
    except OSError as error:
        raise _failed("PR_SET_NO_NEW_PRIVS", error) from error


def raise_descriptor_limit() -> int:
    """RLIMIT_NOFILE to its hard value, which is returned: a connection each, and up to six for a run."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _failed(what: str, error: OSError) -> ConfigurationError:
    return ConfigurationError("internal", f"{what}: {error.strerror}", "this kernel is not one that immured runs on")
