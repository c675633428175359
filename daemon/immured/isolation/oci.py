"""From an OCI or Docker system-call profile to a profile of ours, with a line for everything that is not the same."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from immured._abi import lib
from immured.errors import ConfigurationError
from immured.isolation import syscalls
from immured.isolation.oci_document import Document, Entry, Target, read_document
from immured.isolation.profiles import MAX_CONDITIONS, MAX_RULES, parse_profile, permits
from immured.isolation.rivals import may_meet

__all__ = ["Imported", "Target", "import_profile"]

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_RESERVED: Final = frozenset({"explain", "groups", "walls"})
_REFUSE: Final = lib.SECCOMP_RET_ERRNO | errno.EPERM
_ABSENT: Final = lib.SECCOMP_RET_ERRNO | errno.ENOSYS
_WIDTH: Final = 118

# The kernel's own order where several filters answer: the first here wins.
_STRICTEST: Final = (
    lib.SECCOMP_RET_KILL_PROCESS,
    lib.SECCOMP_RET_KILL_THREAD,
    lib.SECCOMP_RET_TRAP,
    lib.SECCOMP_RET_ERRNO,
    lib.SECCOMP_RET_LOG,
    lib.SECCOMP_RET_ALLOW,
)
_Rule = tuple[tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Imported:
    """`text`: the profile's TOML. `report`: a line for whatever the document says and the profile does not."""

    text: str
    report: tuple[str, ...]


def import_profile(raw: bytes, *, name: str, target: Target) -> Imported:
    """A document of the OCI or Docker form as a profile, for a process without capabilities.

    Raises ConfigurationError `bad_profile`: the document's fault, named with its place, or the name's.
    """
    if not _NAME.fullmatch(name) or name in _RESERVED or name in syscalls.profile_names():
        raise ConfigurationError(
            "bad_profile",
            f"{name!r} is no name for a profile",
            "choose another --name: a-z, 0-9, `_` and `-`, at most 64, none of the package's",
        )
    try:
        document = read_document(raw, target)
        importer = _Importer(document)
        text = importer.text(name, target)
        parse_profile(name, text)
    except ValueError as fault:
        raise ConfigurationError(
            "bad_profile", f"the document: {fault}", "mend it; docs/syscalls.md says what is read"
        ) from fault
    return Imported(text, tuple(importer.report))


class _Importer:
    """One document's rules by call, and the report as it grows."""

    def __init__(self, document: Document) -> None:
        self.report: list[str] = list(document.remarks)
        self.default = self._expressible("defaultAction", document.default)
        self._asked: dict[str, list[_Rule]] = {}
        for entry in document.entries:
            self._take(entry)
        self.rules = {call: self._ordered(call, rules) for call, rules in sorted(self._asked.items())}
        self._put_under_the_walls()

    def _take(self, entry: Entry) -> None:
        if entry.unmet:
            self._say(entry.where, f"left out: it applies {entry.unmet}", entry.names)
            return
        elsewhere = [name for name in entry.names if name not in syscalls.names()]
        if elsewhere:
            self._say(entry.where, "no calls of x86_64 or aarch64, without effect", elsewhere)
        action = self._expressible(entry.where, entry.action)
        if action == self.default:
            # What the default says anyway is no rule, in runc either: another entry for the call stands alone.
            return
        if entry.either:
            self._say(entry.where, "conditions on one argument are alternatives, as runc takes them", ())
        for call in entry.names:
            if call not in elsewhere:
                rules = self._asked.setdefault(call, [])
                rules += [(one, action) for one in entry.alternatives if (one, action) not in rules]
                if len(rules) > MAX_RULES or any(len(one) > MAX_CONDITIONS for one, _ in rules):
                    raise ValueError(f"{entry.where}: too many rules or conditions for {call}")

    def _expressible(self, where: str, action: int) -> int:
        """The action, or what stands for it where this daemon has nobody to ask."""
        kind = action & lib.SECCOMP_RET_ACTION_FULL
        if kind in (lib.SECCOMP_RET_TRACE, lib.SECCOMP_RET_USER_NOTIF):
            word = "SCMP_ACT_TRACE" if kind == lib.SECCOMP_RET_TRACE else "SCMP_ACT_NOTIFY"
            self._say(where, f"{word} becomes ENOSYS, as the kernel answers where nobody listens", ())
            return _ABSENT
        number = action & lib.SECCOMP_RET_DATA
        if kind == lib.SECCOMP_RET_ERRNO and number and number not in errno.errorcode:
            self._say(where, f"errno {number} has no name and becomes EPERM", ())
            return _REFUSE
        return action

    def _ordered(self, call: str, rules: list[_Rule]) -> list[_Rule]:
        """Stricter answers first, where two can hold at once; the document itself has no order."""
        meet = [
            (one, other)
            for index, one in enumerate(rules)
            for other in rules[index + 1 :]
            if one[1] != other[1] and may_meet(one[0], other[0])
        ]
        if meet:
            self.report.append(f"{call}: entries with different answers can hold at once; the stricter one decides")
        return sorted(rules, key=lambda rule: _STRICTEST.index(rule[1] & lib.SECCOMP_RET_ACTION_FULL))

    def _put_under_the_walls(self) -> None:
        walls = syscalls.walls()
        for refused, answer, why in (
            (walls.never, _REFUSE, "no profile can allow it: refused with EPERM"),
            (walls.absent, _ABSENT, "no profile can allow it: answered ENOSYS"),
        ):
            calls = [call for call in self.rules if call in refused and any(permits(a) for _, a in self.rules[call])]
            for call in calls:
                walled = ((when, answer if permits(action) else action) for when, action in self.rules[call])
                self.rules[call] = list(dict.fromkeys(walled))
            self._say("walls", why, calls)
        if permits(self.default):
            self._say("walls", "the default allows them, no profile can", sorted(walls.never | walls.absent))
        guarded = [call for call in sorted(walls.guards) if any(permits(action) for _, action in self._all(call))]
        self._say("walls", "allowed only as walls.toml guards them", guarded)
        needed = [
            call
            for call in sorted(walls.needed)
            if not all(permits(action) for _, action in self._all(call)) or any(when for when, _ in self._all(call))
        ]
        for call in needed:
            self.rules[call] = [((), lib.SECCOMP_RET_ALLOW)]
        self._say("walls", "no program runs without it: allowed", needed)

    def _all(self, call: str) -> list[_Rule]:
        return self.rules.get(call) or [((), self.default)]

    def _say(self, where: str, what: str, calls: Sequence[str]) -> None:
        if calls or not where.startswith("walls"):
            self.report.append(f"{where}: {what}" + (f": {' '.join(calls)}" if calls else ""))

    def text(self, name: str, target: Target) -> str:
        """The profile's TOML."""
        plain = [call for call, rules in self.rules.items() if rules == [((), lib.SECCOMP_RET_ALLOW)]]
        version = ".".join(map(str, target.kernel))
        alike: dict[tuple[_Rule, ...], list[str]] = {}
        for call, rules in self.rules.items():
            if call not in plain:
                alike.setdefault(tuple(rules), []).append(call)
        return "\n".join(
            [
                f"# Made by `immure seccomp import` for {target.architecture}, Linux {version}, without capabilities.",
                f'# As DIR/profiles/{name}.toml it is there for manifests: [syscalls] profile = "{name}".',
                *_comments(self.report),
                "schema = 1",
                f'about = "Imported: {name}"',
                f"default = {json.dumps(syscalls.action_text(self.default))}",
                f"calls = {_array(plain)}",
                *(line for rules, calls in alike.items() for rule in rules for line in _table(calls, rule)),
                "",
            ]
        )


def _table(calls: list[str], rule: _Rule) -> Iterator[str]:
    when, action = rule
    yield ""
    yield "[[rules]]"
    yield f"calls = {_array(calls)}"
    yield f"when = {json.dumps(list(when))}"
    yield f"then = {json.dumps(syscalls.action_text(action))}"


def _array(calls: list[str]) -> str:
    quoted = [json.dumps(call) for call in calls]
    one = f"[{', '.join(quoted)}]"
    return one if len(one) < 100 else "[\n" + "\n".join(f"  {line}" for line in _filled(quoted, ", ", ",")) + "\n]"


def _comments(report: list[str]) -> Iterator[str]:
    if report:
        yield "# Not as in the document:"
    for line in report:
        for index, part in enumerate(_filled(line.split(" "), " ", "")):
            yield f"#   {part}" if index else f"# * {part}"


def _filled(words: list[str], between: str, ending: str) -> Iterator[str]:
    """Words in lines of at most about 118 characters."""
    line = ""
    for word in words:
        if line and len(line) + len(between) + len(word) > _WIDTH - 4:
            yield line + ending
            line = ""
        line += (between if line else "") + word
    if line:
        yield line + ending
