"""Charts as SVG text: lines, bars, filled steps and grids, without a plotting library.

Colours are Okabe and Ito's, which colour-blind readers tell apart; lines differ in their dashes and
markers too. Letters are large enough to read at half size.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from glm2_reference.report.document import show

WIDTH, HEIGHT = 900, 520
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("", "12 6", "4 5", "14 5 4 5", "8 4", "2 3")
_LEFT, _RIGHT, _TOP, _BOTTOM = 110, 48, 24, 84
_LETTER, _LINE = 11, 32  # width of a letter of the legend, height of its lines
_INK, _GRID = "#222", "#ccc"
_FONT = 'font-family="sans-serif" font-size="20"'


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart: its name and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis: its label, whether it is logarithmic, and the ticks to show (None: chosen)."""

    label: str
    log: bool = False
    ticks: Sequence[float] | None = None


def line_chart(lines: Sequence[Line], x_axis: Axis, y_axis: Axis, *, filled: bool = False) -> str:
    """Draw lines, or filled steps, over two axes.

    Parameters
    ----------
    lines : sequence of Line
        At least one point in all; positive where an axis is logarithmic.
    x_axis, y_axis : Axis
    filled : bool
        Draw steps with the area below them filled.

    Returns
    -------
    svg : str

    Raises
    ------
    ValueError
        If there is no point, one is not finite, or there are more lines than colours.
    """
    points_in_all = [value for line in lines for value in (*line.x, *line.y)]
    if not points_in_all or not all(map(math.isfinite, points_in_all)):
        msg = "there is nothing to draw, or not a number; pass finite points"
        raise ValueError(msg)
    if len(lines) > len(COLOURS):
        msg = f"{len(lines)} lines cannot be told apart; at most {len(COLOURS)} are drawn"
        raise ValueError(msg)
    legend = _place_legend([line.name for line in lines])
    top = _TOP + (legend[-1][1] + _LINE if legend else 0)  # the legend stands above the plot
    xs = _Scale(x_axis, [x for line in lines for x in line.x], _LEFT, WIDTH - _RIGHT)
    low = [] if y_axis.log else [0.0]
    ys = _Scale(y_axis, [*low, *(y for line in lines for y in line.y)], HEIGHT - _BOTTOM, top)
    parts = [_axes(xs, ys)]
    for index, line in enumerate(lines):
        colour = COLOURS[index % len(COLOURS)]
        points = [(xs(x), ys(y)) for x, y in zip(line.x, line.y, strict=True)]
        if filled:
            parts.append(_steps(points, ys(ys.low), colour))
        else:
            dash = _DASHES[index % len(_DASHES)]
            parts.append(_polyline(points, colour, dash))
            parts += [_marker(x, y, index) for x, y in points]
    parts += [
        _legend_entry(x, _TOP + y, line.name, index)
        for index, (line, (x, y)) in enumerate(zip(lines, legend, strict=False))
    ]
    return _document("".join(parts), WIDTH, HEIGHT)


def bar_chart(names: Sequence[str], values: Sequence[float], axis: Axis) -> str:
    """Draw horizontal bars with their values written beside them.

    Parameters
    ----------
    names, values : sequences of one length
        Values are not negative; positive where the axis is logarithmic.
    axis : Axis

    Returns
    -------
    svg : str
    """
    row, left = 46, 330
    height = row * len(names) + 70
    floor = min(values) / 2 if axis.log else 0.0
    scale = _Scale(axis, [floor, *values], left, WIDTH - 130)
    parts = []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 12 + index * row
        width = scale(value) - left
        colour = COLOURS[index % len(COLOURS)]
        parts.append(
            f'<rect x="{left}" y="{y}" width="{width:.1f}" height="{row - 14}" fill="{colour}"/>'
            + _text(left - 12, y + 23, name, anchor="end")
            + _text(left + width + 10, y + 23, show(value))
        )
    parts.append(_text((left + WIDTH) / 2, height - 22, axis.label, anchor="middle"))
    return _document("".join(parts), WIDTH, height)


def grid(cells: npt.NDArray[np.bool_], names: Sequence[str]) -> str:
    """Draw a mask: a filled square where a row's token sees a column's.

    Parameters
    ----------
    cells : bool, (queries, keys)
    names : sequence of str
        Of the keys, and of the queries, which are the last of them.

    Returns
    -------
    svg : str
    """
    side, margin = 36, 64
    rows, columns = cells.shape
    parts = []
    for i, j in np.ndindex(rows, columns):
        colour = COLOURS[0] if cells[i, j] else "#fff"
        x, y = margin + j * side, margin + i * side
        parts.append(
            f'<rect x="{x}" y="{y}" width="{side}" height="{side}" fill="{colour}" '
            f'stroke="{_INK}" stroke-width="1"/>'
        )
    for j, name in enumerate(names):
        parts.append(_text(margin + (j + 0.5) * side, margin - 14, name, anchor="middle"))
    for i, name in enumerate(names[-rows:]):
        parts.append(_text(margin - 12, margin + (i + 0.68) * side, name, anchor="end"))
    return _document("".join(parts), margin + columns * side + 8, margin + rows * side + 8)


class _Scale:
    """Maps values of an axis to places on the page."""

    def __init__(self, axis: Axis, values: Sequence[float], start: float, stop: float) -> None:
        self.axis, self.start, self.stop = axis, start, stop
        self.low, high = min(values), max(values)
        self.high = high if high > self.low else self.low + 1
        if axis.log and self.low <= 0:
            msg = f"the axis {axis.label!r} is logarithmic, but has {self.low}"
            raise ValueError(msg)

    def __call__(self, value: float) -> float:
        return self.start + (self._part(value)) * (self.stop - self.start)

    def _part(self, value: float) -> float:
        if self.axis.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        if self.axis.ticks is not None:
            return [tick for tick in self.axis.ticks if self.low <= tick <= self.high]
        if self.axis.log:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            return [10.0**power for power in range(first, last + 1)]
        step = 10 ** math.floor(math.log10(self.high - self.low))
        for share in (0.2, 0.5, 1, 2):
            if (self.high - self.low) / (step * share) <= 6:
                step *= share
                break
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]


def _axes(xs: _Scale, ys: _Scale) -> str:
    parts = []
    for tick in ys.ticks():
        y = ys(tick)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{_GRID}"/>'
            + _text(_LEFT - 10, y + 7, f"{tick:,.6g}", anchor="end")
        )
    for tick in xs.ticks():
        x = xs(tick)
        parts.append(
            f'<line y1="{ys.stop:g}" y2="{HEIGHT - _BOTTOM}" x1="{x:.1f}" x2="{x:.1f}" stroke="{_GRID}"/>'
            + _text(x, HEIGHT - _BOTTOM + 28, f"{tick:,.6g}", anchor="middle")
        )
    middle = (ys.stop + HEIGHT - _BOTTOM) / 2
    parts.append(_text((_LEFT + WIDTH) / 2, HEIGHT - 18, xs.axis.label, anchor="middle"))
    parts.append(
        f'<text transform="translate(26 {middle}) rotate(-90)" text-anchor="middle" {_FONT} '
        f'fill="{_INK}">{html.escape(ys.axis.label)}</text>'
    )
    return "".join(parts)


def _polyline(points: Sequence[tuple[float, float]], colour: str, dash: str) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return (
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3.5" '
        f'stroke-dasharray="{dash}"/>'
    )


def _steps(points: Sequence[tuple[float, float]], floor: float, colour: str) -> str:
    path = [f"M{points[0][0]:.1f},{floor:.1f}"]
    for (x, y), (following, _) in zip(points, [*points[1:], points[-1]], strict=True):
        path.append(f"L{x:.1f},{y:.1f} L{following:.1f},{y:.1f}")
    path.append(f"L{points[-1][0]:.1f},{floor:.1f} Z")
    return (
        f'<path d="{" ".join(path)}" fill="{colour}" fill-opacity="0.25" stroke="{colour}" '
        f'stroke-width="2.5"/>'
    )


def _marker(x: float, y: float, index: int) -> str:
    colour = COLOURS[index % len(COLOURS)]
    if index % 3 == 1:
        return f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{colour}"/>'
    if index % 3 == 2:
        corners = f"{x:.1f},{y - 8:.1f} {x - 8:.1f},{y + 6:.1f} {x + 8:.1f},{y + 6:.1f}"
        return f'<polygon points="{corners}" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6.5" fill="{colour}"/>'


def _place_legend(names: Sequence[str]) -> list[tuple[float, float]]:
    """Place names from left to right, line by line; a single line needs no legend."""
    places: list[tuple[float, float]] = []
    x, y = float(_LEFT), 0.0
    for name in names if len(names) > 1 else ():
        width = 78 + _LETTER * len(name)
        if x + width > WIDTH and x > _LEFT:
            x, y = float(_LEFT), y + _LINE
        places.append((x, y))
        x += width
    return places


def _legend_entry(x: float, y: float, name: str, index: int) -> str:
    dash, colour = _DASHES[index % len(_DASHES)], COLOURS[index % len(COLOURS)]
    line = _polyline([(x, y), (x + 44, y)], colour, dash)
    return line + _marker(x + 22, y, index) + _text(x + 54, y + 7, name)


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {_FONT} fill="{_INK}">'
        f"{html.escape(text)}</text>"
    )


def _document(body: str, width: float, height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{body}</svg>"
    )
