"""Which walls a subject stands up: seen from inside where that can be seen, told by its flags where it cannot
(whose a payload's files would be on the host, and which filter it has).

Comparing unequal isolation is the oldest trick of benchmarks. Here every subject runs a probe first, and the report
says of each what it lacks of a default run's walls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "BEYOND",
    "PROBE",
    "SAME_VIEW",
    "WALLS",
    "Inside",
    "Looked",
    "look",
    "missing",
    "parse_probe",
    "seen",
    "table",
]

SAME_VIEW: Final = "the same view"
DEFAULT_CLASS: Final = "the default class's filter"
NO_HOST_ROOT: Final = "no host root"
_NAMESPACES: Final = {"mnt": "mount", "net": "network"}
#: What "equal isolation" means here.
WALLS: Final = (
    *(f"{name} namespace" for name in ("user", "mount", "pid", "network", "ipc", "uts", "cgroup")),
    NO_HOST_ROOT,
    "read-only /usr",
    "private /tmp, /dev, /proc",
    "no capabilities",
    "no new privileges",
    "a system-call filter",
    DEFAULT_CLASS,
    "a session of its own",
    SAME_VIEW,
)
#: What the daemon does on top and nobody else here does.
BEYOND: Final = (
    "a time namespace",
    "an id range of its own",
    "a cgroup of its own",
    "signed both ways",
    "two durable ledger entries",
    "a measured outcome",
)

PROBE: Final = """
for one in user mnt pid net ipc uts cgroup; do echo "ns $one $(readlink /proc/self/ns/$one)"; done
while read -r line; do echo "status $line"; done < /proc/self/status
while read -r what place rest; do echo "place $place"; done < /proc/self/mounts
for one in /*; do echo "root $one"; done
read -r stat < /proc/self/stat; set -- ${stat##*) }; echo "session $4"
if [ -w /usr ]; then echo "usr writable"; else echo "usr read-only"; fi
"""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the probe saw."""

    namespaces: Mapping[str, str] = field(default_factory=dict)
    status: Mapping[str, str] = field(default_factory=dict)
    places: frozenset[str] = frozenset()
    root: frozenset[str] = frozenset()
    session: str = ""
    usr: str = ""


def parse_probe(text: str) -> Inside:
    """What PROBE printed; lines that are none of its own are left out."""
    words: dict[str, list[str]] = {name: [] for name in ("ns", "status", "place", "root", "session", "usr")}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in words:
            words[kind].append(rest)
    status = (line.partition(":") for line in words["status"])
    return Inside(
        {name: link for name, _, link in (line.partition(" ") for line in words["ns"])},
        {name: value.strip() for name, _, value in status},
        frozenset(words["place"]),
        frozenset(words["root"]),
        "".join(words["session"][:1]),
        "".join(words["usr"][:1]),
    )


def seen(inside: Inside, host: Inside, model: Inside) -> frozenset[str]:
    """The walls that can be seen from inside, against the host and against `model`, a default run."""
    none = "0" * 16
    tests = {
        **{
            f"{_NAMESPACES.get(name, name)} namespace": link not in ("", host.namespaces.get(name))
            for name, link in inside.namespaces.items()
        },
        "read-only /usr": inside.usr == "read-only",
        "private /tmp, /dev, /proc": {"/tmp", "/dev", "/proc"} <= inside.places,
        "no capabilities": inside.status.get("CapEff") == none == inside.status.get("CapBnd"),
        "no new privileges": inside.status.get("NoNewPrivs") == "1",
        "a system-call filter": inside.status.get("Seccomp") == "2",
        "a session of its own": inside.session not in ("", "0", host.session),
        # Everything covered that it covers, and nothing at / that it does not show.
        SAME_VIEW: _covered(model) <= _covered(inside) and inside.root <= model.root,
    }
    return frozenset(wall for wall, stands in tests.items() if stands)


def _covered(inside: Inside) -> frozenset[str]:
    """Places where something else is mounted than would be there; devices of /dev come in many ways."""
    return frozenset(place for place in inside.places if place.startswith(("/etc/", "/proc/")))


def missing(walls: Iterable[str]) -> list[str]:
    """What of WALLS is not among them, in order."""
    have = frozenset(walls)
    return [wall for wall in WALLS if wall not in have]


def view_difference(inside: Inside, model: Inside) -> str:
    """What it shows that a default run does not, in a few names."""
    shown = sorted(inside.root - model.root)
    bare = sorted(_covered(model) - _covered(inside))
    return "; ".join(
        f"{verb} {', '.join(names[:4])}{f' and {len(names) - 4} more' if len(names) > 4 else ''}"
        for verb, names in (("shows", shown), ("does not cover", bare))
        if names
    )


@dataclass(frozen=True, slots=True)
class Looked:
    """A subject as the probe saw it and its flags tell it: its walls, and in words how the view differs."""

    name: str
    how: str
    walls: frozenset[str]
    view: str


def look(name: str, how: str, told: frozenset[str], probed: str, host: Inside, model: Inside) -> Looked:
    """From what PROBE printed behind its walls."""
    inside = parse_probe(probed)
    return Looked(name, how, told | seen(inside, host, model), view_difference(inside, model))


def table(subjects: Sequence[Looked]) -> str:
    """As Markdown: unequal isolation is compared in words only."""
    rows = ["| subject | equal? | without | beyond | how |", "|---|---|---|---|---|"]
    for one in subjects:
        lacks = [f"{wall} ({one.view})" if wall == SAME_VIEW and one.view else wall for wall in missing(one.walls)]
        more = ", ".join(wall for wall in BEYOND if wall in one.walls) or "-"
        rows.append(f"| {one.name} | {'**no**' if lacks else 'yes'} | {', '.join(lacks) or '-'} | {more} | {one.how} |")
    return "\n".join(rows)
