"""From the launcher's report to the fields of a result. Pure; the names are the contract's."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Final

from immured.isolation import abi
from immured.isolation.abi import BindFlag, Cause, Measured, Op, Stage
from immured.isolation.messages import Exited, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from immured.isolation.plan import Step

__all__ = ["CAUSES", "failure_fields", "result_fields", "usage_of"]

CAUSES: Final = {cause: cause.name.lower() for cause in Cause}
"""The launcher's causes in the contract's words. `setup_failed` is not its to say."""

_CLD_EXITED: Final = os.CLD_EXITED
_MS: Final = 10**6


def result_fields(report: Exited | Failed, steps: Sequence[Step] = ()) -> dict[str, object]:
    """`cause`, `exit_code` or `signal`, `usage`, `events`; or `cause = "setup_failed"` with `failure`.

    Absent is unknown: a figure that was not measured has no name here. `steps` are the plan's, to name a failed one.
    """
    if isinstance(report, Failed):
        if report.stage is Stage.KILLED:
            return {"cause": "killed", "usage": {"wall_ms": 0, "cpu_ms": 0}, "events": {}}
        return {"cause": "setup_failed", "failure": failure_fields(report, steps), "usage": {}, "events": {}}
    found: dict[str, object] = {"cause": CAUSES[report.cause]}
    if report.si_code == _CLD_EXITED:
        found["exit_code"] = report.si_status
    else:
        found["signal"] = report.si_status
    found["usage"] = usage_of(report)
    found["events"] = _events(report)
    return found


def usage_of(report: Exited) -> dict[str, int]:
    """`usage`: milliseconds and bytes, of what was measured."""
    usage = {"wall_ms": _ms(report.wall_ns), "max_rss_bytes": report.max_rss}
    if report.measured & Measured.CPU:
        usage["cpu_ms"] = _ms(report.cpu_user_ns + report.cpu_system_ns)
        usage["cpu_user_ms"] = _ms(report.cpu_user_ns)
        usage["cpu_system_ms"] = _ms(report.cpu_system_ns)
    if report.measured & Measured.MEMORY:
        usage["memory_peak_bytes"] = report.memory_peak
    if report.measured & Measured.PIDS:
        usage["pids_peak"] = report.pids_peak
    if report.measured & Measured.IO:
        usage["io_read_bytes"] = report.io_read
        usage["io_written_bytes"] = report.io_written
    return usage


def _events(report: Exited) -> dict[str, object]:
    """What happened beside the cause. Counters only where something counted; nothing for nothing."""
    events: dict[str, object] = {}
    if report.measured & Measured.MEMORY:
        counted = {"oom": report.oom_events, "oom_kill": report.oom_kills, "memory_max": report.memory_max_events}
        events |= {name: count for name, count in counted.items() if count}
    if report.measured & Measured.PIDS and report.pids_max_events:
        events["pids_max"] = report.pids_max_events
    if report.unexplained:
        events["unexplained"] = report.unexplained
    if report.stragglers & abi.STRAGGLERS:
        events["stragglers"] = True
    if report.stragglers & abi.UNCOVERED:
        events["uncovered"] = True
    return events


_CODES: Final[dict[Stage, tuple[str, str]]] = {
    Stage.ROOT_OWNED: ("root_owned", "act for a user (--as USER), or write to a tmpfs and collect"),
    Stage.PATH_KIND: ("path_kind", "name a directory or a regular file"),
    Stage.IDMAP: (
        "idmap_unsupported",
        "its file system has no idmapped mounts: copy it elsewhere, or bind it for reading",
    ),
    Stage.DEADLINE: ("path_timeout", "the file system behind it does not answer: mend it, or leave the path out"),
    Stage.TARGET: ("target_invalid", "name a place inside that exists or can be made, of the same kind"),
    Stage.LAYER: ("layer_failed", "what the message names cannot be below a layer: name another directory"),
    Stage.PIN: (
        "not_pinned",
        "let nobody change it meanwhile, and let the payload read it; or set command.pin = false",
    ),
    Stage.CWD: ("cwd_missing", "name a directory that exists inside; bind it, or leave cwd out"),
}
_PROCESSORS: Final = ("processors_taken", "let another run with limits.pin end first, or ask for fewer processors")
_PROCESSORS_GONE: Final = (
    "setup_failed",
    "name processors that are still there, and restart the daemon to have it count",
)
_FILE_CODES: Final = {
    errno.EEXIST: ("target_invalid", "remove what is there, or name another place: `files` writes over nothing"),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG),
        ("target_invalid", "name a place inside where the caller may make a file"),
    ),
}
_SOURCES: Final = frozenset({Op.BIND, Op.CAPTURE})
_MISSING: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_BUSY: Final = frozenset({errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EMFILE, errno.ENFILE})


def failure_fields(report: Failed, steps: Sequence[Step] = ()) -> dict[str, object]:
    """`code`, `stage`, `message`, `remedy`; and `errno`, `path` where there are such. For people and for programs."""
    step = steps[report.step] if report.step is not None and report.step < len(steps) else None
    code, remedy = _code(report, step)
    path = _path(report, step)
    if report.stage is Stage.OPEN and report.errno == errno.EXDEV and step is not None and step.op in _SOURCES:
        return _led_out(report, step, path)
    failure: dict[str, object] = {
        "code": code,
        "stage": report.stage.name.lower(),
        "message": _message(report, code, path),
        "remedy": remedy,
    }
    if report.errno:
        failure["errno"] = report.errno
    if path:
        failure["path"] = path
    return failure


def _led_out(report: Failed, step: Step, path: str) -> dict[str, object]:
    """Opened beneath a directory (a parameter's `within`, the operator's grant), and not found in there."""
    beneath = step.numbers[0] & BindFlag.BENEATH
    where = f"below {_text(step.strings[2])}" if beneath else "below the directory that the operator granted"
    return {
        "code": "path_denied",
        "stage": report.stage.name.lower(),
        "message": f"{path}: a symbolic link {where} is absolute, or leads out of there",
        "remedy": "name the place itself that the link leads to, or make the link a relative one",
        "errno": report.errno,
        "path": path,
    }


def _code(report: Failed, step: Step | None) -> tuple[str, str]:
    if report.stage in _CODES:
        return _CODES[report.stage]
    if report.stage is Stage.OPEN:
        if report.errno in _MISSING:
            return "path_missing", "name a path that exists for the caller, or mark it optional"
        return "path_denied", "name a path that the caller can open itself, or have the operator grant it (config.toml)"
    if report.stage is Stage.PROCESSORS:
        return _PROCESSORS if report.errno == errno.EBUSY else _PROCESSORS_GONE
    if report.stage is Stage.EXEC:
        return _exec_code(report.errno)
    if step is not None and step.op is Op.FILE and report.errno in _FILE_CODES:
        return _FILE_CODES[report.errno]
    if report.stage is Stage.SANDBOX:
        return "setup_failed", "`sandbox.show` says whether the sandbox lives; where it does, try again"
    if report.stage is Stage.MOUNT and report.errno == errno.ESTALE:
        return "setup_failed", "try again: somebody replaced a file meanwhile that is protected, hidden or mounted on"
    if report.errno in _BUSY:
        return "setup_failed", "the host is out of what the error names; try again, or raise the limit"
    return "setup_failed", "see `immure doctor`; if it finds nothing, report this message"


def _exec_code(error: int) -> tuple[str, str]:
    if error in _MISSING:
        return "executable_not_found", "name a program that exists inside; its interpreter must be there too"
    if error == errno.ENOMEM:
        return "setup_failed", "raise limits.memory: the program does not fit into it"
    if error == errno.EAGAIN:
        return "setup_failed", "raise limits.pids"
    if error == errno.E2BIG:
        return "setup_failed", "shorten argv and env, or put the data into files or stdin"
    return "not_executable", "name a program of this architecture with its execute permission set"


def _path(report: Failed, step: Step | None) -> str:
    if step is None:
        return ""
    if report.stage is Stage.EXEC and step.op is Op.EXEC:
        return _text(step.strings[1])
    if report.stage is Stage.TARGET and step.op is Op.BIND:
        return _text(step.strings[1])
    if step.op in (Op.BIND, Op.CAPTURE, Op.ROOTFS, Op.TMPFS, Op.HIDE, Op.PROTECT, Op.FILE, Op.COLLECT, Op.EXEC):
        return _text(step.strings[0])
    return ""


def _message(report: Failed, code: str, path: str) -> str:
    reason = os.strerror(report.errno) if report.errno else ""
    what = report.text if path in report.text else f"{path}: {report.text}" if report.text else path
    if not what:
        return reason or code.replace("_", " ")
    return f"{what}: {reason}" if reason and reason not in what else what


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _ms(nanoseconds: int) -> int:
    return (nanoseconds + _MS // 2) // _MS
