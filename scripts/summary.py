"""What is left of much output when only its end is read: how each part ended, what failed, and where one hung."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["summary"]

MOST_FAILED = 8
MOST_FRAMES = 8
MOST_STACKS = 14
LAST_LINES = 6
WIDTH = 200
_FAILED = re.compile(r"(?:FAILED|ERROR) \S")
_ENDED = re.compile(r"=+ .*\b(?:passed|failed|error|errors|deselected|no tests ran)\b.* in [\d.]+s")
_HUNG = re.compile(r"Timeout \(\d+:\d\d:\d\d\)!")
_SECTION = re.compile(r"_{3,} \S.* _{3,}$")
_TIMED_OUT = re.compile(r"E +Failed: Timeout \(>")
_PLACE = re.compile(r"(?P<path>\S+\.py):\d+: ")
_FRAME = re.compile(r'\s+File "(?P<path>.+)", line \d+ in ')
_THREAD = re.compile(r"(?:Current thread|Thread) 0x")
_FOREIGN = re.compile(r"/(?:site-packages|lib/python[\d.]+)/|^<")


def summary(parts: Iterable[tuple[str, int, str]]) -> list[str]:
    """Of each part its verdict, its exit status and what it said. Lines, the worst last: what hung, or did not end."""
    lines: list[str] = []
    for verdict, status, output in sorted(parts, key=lambda part: part[1] != 0):
        lines.append(verdict)
        if status != 0:
            lines += [f"   {line[:WIDTH]}" for line in _faults(output.splitlines())]
    return lines


def _faults(said: list[str]) -> list[str]:
    failed = sorted((line for line in said if _FAILED.match(line)), key=lambda line: line.startswith("ERROR"))
    lines = failed[:MOST_FAILED]
    if len(failed) > MOST_FAILED:
        lines.append(f"... and {len(failed) - MOST_FAILED} more")
    end = next((line for line in reversed(said) if _ENDED.match(line)), None)
    if end is not None:
        return [*lines, *_interrupted(said), end]
    hung = next((n for n, line in enumerate(said) if _HUNG.search(line)), None)
    if hung is None:
        return [*lines, *said[-LAST_LINES:]]
    # Then nothing came but what it was at, the stacks, and what the runner made of it.
    return [*lines, *said[max(0, hung - 1) : hung + 1], *_stacks(said[hung + 1 :]), *_after(said[hung + 1 :])]


def _interrupted(said: list[str]) -> list[str]:
    """Where the first test was whose time was over, its own frame first, the newest last."""
    over = next((n for n, line in enumerate(said) if _TIMED_OUT.match(line)), None)
    if over is None:
        return []
    start = next((n for n in range(over, -1, -1) if _SECTION.match(said[n])), over)
    end = next((n for n in range(over, len(said)) if _PLACE.match(said[n])), over) + 1
    places = [(line, found["path"]) for line in said[start:end] if (found := _PLACE.match(line))]
    ours = [line for line, path in places if not _FOREIGN.search(path)]
    return [said[start], *ours[:1], *ours[1:][1 - MOST_FRAMES :]]


def _stacks(said: list[str]) -> list[str]:
    """Of each thread the frames that are ours, the newest first."""
    lines: list[str] = []
    left = 0
    for line in said:
        frame = _FRAME.match(line)
        if _THREAD.match(line):
            lines.append(line)
            left = MOST_FRAMES
        elif frame and left and not _FOREIGN.search(frame["path"]):
            lines.append(line)
            left -= 1
    return lines[-MOST_STACKS:]  # the main thread's is the last


def _after(said: list[str]) -> list[str]:
    return [line for line in said if line.strip() and not _FRAME.match(line) and not _THREAD.match(line)][-LAST_LINES:]
