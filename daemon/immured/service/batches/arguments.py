"""The arguments of `run.batch`, typed: those that all runs share, and each run with its own in their place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from immured.errors import Refused
from immured.service.arguments import RunArguments, parse_run
from immured.wire.strict import take

__all__ = ["MAX_CONCURRENCY", "MAX_RUNS", "OWN", "BatchArguments", "in_run", "parse_batch"]

MAX_RUNS: Final = 1_024
MAX_CONCURRENCY: Final = 4_096
"""What may be asked for; what there is of it is the daemon's to say."""

OWN: Final = ("argv", "parameters", "env", "cwd", "stdin", "files", "collect", "limits")
"""What a run may have of its own; it stands in the place of the batch's, whole."""

_KNOWN: Final = ("runs", "manifest", "concurrency", *OWN)


@dataclass(frozen=True, slots=True)
class BatchArguments:
    """`runs[i]` is whole; `own[i]` says which of its fields are its own. `concurrency` None: the daemon's choice."""

    runs: tuple[RunArguments, ...]
    own: tuple[frozenset[str], ...]
    shared: frozenset[str]
    manifest: str | Mapping[str, object] | None
    concurrency: int | None


def parse_batch(args: Mapping[str, object]) -> BatchArguments:
    """Raises Refused `bad_argument` or `unknown_field`, naming the field."""
    fields = take(args, "args", _KNOWN)
    rows = fields.required("runs", list)
    fields.sized("runs", list, 1, MAX_RUNS)
    concurrency = fields.integer("concurrency", 1, MAX_CONCURRENCY)
    manifest = {"manifest": args["manifest"]} if "manifest" in args else {}
    shared = {name: args[name] for name in OWN if name in args}
    runs, own = [], []
    for index, row in enumerate(rows):
        where = f"args.runs[{index}]"
        mine = take(row, where, OWN).values
        runs.append(parse_run({**manifest, **shared, **mine}, where))
        own.append(frozenset(mine))
    return BatchArguments(tuple(runs), tuple(own), frozenset(shared), runs[0].manifest, concurrency)


def in_run(index: int, error: Refused) -> Refused:
    """The same refusal, saying which run it is about."""
    return Refused(error.code, f"run {index}: {error.message}", error.remedy, details={**error.details, "run": index})
