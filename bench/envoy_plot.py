"""Distributions of times as one SVG: each a line, the share of what is slower on a logarithmic scale."""

import math
from collections.abc import Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 720
_HEIGHT: Final = 400
_LEFT: Final = 70
_RIGHT: Final = 190
_TOP: Final = 30
_BOTTOM: Final = 50
_COLOURS: Final = ("#888888", "#bbbbbb", "#d08a00", "#1668b0", "#1a8f4a")
_PERCENTS: Final = (0.0, 50.0, 90.0, 99.0, 99.9)
_POINTS: Final = 200
_DECADES: Final = 3.0
"""From all down to one in a thousand."""


def plot(lines: Mapping[str, Sequence[float]]) -> str:
    """Times in microseconds, by the name of their line. Percentiles go right, times go up, both by tens."""
    values = [value for times in lines.values() for value in times if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    scale = _Scale(low, max(high, low + 1))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        *_grid(scale),
    ]
    for number, (name, times) in enumerate(lines.items()):
        parts += _line(scale, name, times, number)
    return "\n".join([*parts, "</svg>", ""])


class _Scale:
    """From values to places."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high

    def x(self, percent: float) -> float:
        decades = min(_DECADES, -math.log10(max(1e-9, 1 - percent / 100)))
        return _LEFT + decades / _DECADES * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (math.log10(max(value, 10**self.low)) - self.low) / (self.high - self.low)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _grid(scale: _Scale) -> list[str]:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts: list[str] = []
    for power in range(scale.low, scale.high + 1):
        y = scale.y(10.0**power)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{right}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power} µs</text>')
    for percent in _PERCENTS:
        x = scale.x(percent)
        parts.append(f'<path d="M{x:.1f} {_TOP}V{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">p{percent:g}</text>')
    return parts


def _line(scale: _Scale, name: str, times: Sequence[float], number: int) -> list[str]:
    ordered = sorted(times)
    if not ordered:
        return []
    colour = _COLOURS[number % len(_COLOURS)]
    percents = [100 * (1 - 10 ** (-_DECADES * step / _POINTS)) for step in range(_POINTS + 1)]
    places = " ".join(
        f"{scale.x(percent):.1f},{scale.y(ordered[int(percent / 100 * (len(ordered) - 1))]):.1f}"
        for percent in percents
    )
    y = _TOP + 16 * (number + 1)
    return [
        f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
        f'<path d="M{_WIDTH - _RIGHT + 12} {y - 4}h18" stroke="{colour}" stroke-width="3"/>',
        f'<text x="{_WIDTH - _RIGHT + 36}" y="{y}">{escape(name)}</text>',
    ]
