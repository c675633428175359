"""The samples as an SVG picture: a strip for each subject, a dot for each run, the median and its ratio named.

Written by hand: what is drawn is a few hundred circles, and a plotting library is some hundred megabytes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.figures import percentile
from bench.measure import Series

__all__ = ["strips"]

WIDTH: Final = 960
LEFT: Final = 170
RIGHT: Final = 150
STRIP: Final = 34
HEAD: Final = 46
FOOT: Final = 34
MOST_DOTS: Final = 250
COLOURS: Final = {"immured": "#0b6e4f", "bwrap": "#b3541e"}
OTHER: Final = "#5b6770"


@dataclass(frozen=True, slots=True)
class Scale:
    """Milliseconds to places along the strip, by their logarithm: runners differ by factors, not by sums."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        low, high = min(values), max(values)
        return cls(low * 0.9, max(high * 1.1, low * 2))

    def place(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return LEFT + min(1.0, max(0.0, share)) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        """1, 2 and 5 of every decade within."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        marks = (step * 10.0**decade for decade in decades for step in (1, 2, 5))
        return [mark for mark in marks if self.low <= mark <= self.high]


def strips(panels: Mapping[str, Sequence[Series]], against: str) -> str:
    """A panel for each scenario, one below the other; ratios are of medians, to `against` where it is there."""
    body: list[str] = []
    top = 0
    for title, series in panels.items():
        body += _panel(title, series, against, top)
        top += HEAD + STRIP * len(series) + FOOT
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="{WIDTH}" height="{top}" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _panel(title: str, series: Sequence[Series], against: str, top: int) -> list[str]:
    shown = [one for one in series if one.walls]
    scale = Scale.over([percentile(one.walls, percent) / 1e6 for one in shown for percent in (1, 99)])
    base = next((one.p50 for one in shown if one.name == against), None)
    bottom = top + HEAD + STRIP * len(shown)
    body = [_text(12, top + 24, f"{title}: milliseconds a run", size=15)]
    for tick in scale.ticks():
        x = scale.place(tick)
        body.append(f'<line x1="{x:.1f}" y1="{top + HEAD - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#dde1e4"/>')
        body.append(_text(x, bottom + 16, f"{tick:g}", anchor="middle"))
    for row, one in enumerate(shown):
        body += _strip(one, scale, base, top + HEAD + STRIP * row + STRIP // 2)
    return body


def _strip(one: Series, scale: Scale, base: float | None, y: int) -> list[str]:
    colour = next((colour for name, colour in COLOURS.items() if one.name.startswith(name)), OTHER)
    scatter = random.Random(one.name)  # the same picture of the same samples
    step = max(1, len(one.walls) // MOST_DOTS)
    dots = [
        f'<circle cx="{scale.place(wall / 1e6):.1f}" cy="{y + scatter.uniform(-9, 9):.1f}" r="1.6"/>'
        for wall in one.walls[::step]
    ]
    low, middle, high = (scale.place(one.percentile(percent)) for percent in (10, 50, 90))
    ratio = "" if base is None else f"   {one.p50 / base:.2f} x"
    return [
        f'<g fill="{colour}" fill-opacity="0.3">{"".join(dots)}</g>',
        f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        f'<line x1="{middle:.1f}" y1="{y - 11}" x2="{middle:.1f}" y2="{y + 11}" stroke="{colour}" stroke-width="3"/>',
        _text(LEFT - 10, y + 4, one.name, anchor="end"),
        _text(WIDTH - RIGHT + 12, y + 4, f"{one.p50:.2f} ms{ratio}"),
    ]


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
