"""Which walls a subject stands up: seen from inside where that can be seen, told by its flags where it cannot.

Comparing unequal isolation is the oldest trick of benchmarks. Here every subject runs a probe first, and the report
says of each what it lacks of a default run's walls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

__all__ = ["BEYOND", "PROBE", "SAME_VIEW", "TOLD", "WALLS", "Inside", "missing", "parse_probe", "seen", "table"]

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
#: What no look from inside can tell: whose files a payload's would be on the host, and which filter it is.
TOLD: Final = frozenset({NO_HOST_ROOT, DEFAULT_CLASS})
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


def table(subjects: Sequence[tuple[str, frozenset[str], str]]) -> str:
    """(name, walls, a word on it) of each as a Markdown table: unequal isolation is compared in words only."""
    rows = ["| subject | equal? | without | beyond | how |", "|---|---|---|---|---|"]
    for name, walls, how in subjects:
        lacks, more = missing(walls), [wall for wall in BEYOND if wall in walls]
        equal = "**no**" if lacks else "yes"
        rows.append(f"| {name} | {equal} | {', '.join(lacks) or '-'} | {', '.join(more) or '-'} | {how} |")
    return "\n".join(rows)
