"""A report before it is shown: tables, charts and the data behind them."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import Any

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under headings.

    Parameters
    ----------
    title : str
    headings : sequence of str
    rows : sequence of sequence
        Numbers are shown with thousands separators; None as a dash.
    note : str
        What a reader must know to take the figures rightly: the convention, the source.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Chart:
    """A drawing.

    Parameters
    ----------
    title : str
    svg : str
        A whole ``<svg>`` element with a viewBox.
    caption : str
    """

    title: str
    svg: str
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that one report says.

    Parameters
    ----------
    title : str
    question : str
        What it answers.
    tables, charts : sequences
    data : dict
        What ``--json`` prints.
    text : str
        Drawings of characters, for a terminal only.
    """

    title: str
    question: str
    tables: Sequence[Table]
    charts: Sequence[Chart]
    data: dict[str, Any]
    text: str = ""


def show(cell: Cell) -> str:
    """Write a cell: 12,288; 4.064; a dash for None."""
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:,.0f}" if abs(cell) >= 1000 else f"{cell:.4g}"
    return cell


def to_json(report: Report) -> dict[str, Any]:
    """Return a report's data, and its tables as they are shown."""
    tables = [
        {"title": t.title, "headings": list(t.headings), "rows": [list(row) for row in t.rows],
         "note": t.note}
        for t in report.tables
    ]  # fmt: skip
    return {**report.data, "tables": tables}


def to_text(report: Report) -> str:
    """Write a report for a terminal: numbers to the right, words to the left."""
    parts = [report.title, report.question, *(["", report.text] if report.text else [])]
    for table in report.tables:
        parts += ["", table.title, *_columns(table)]
        parts += textwrap.wrap(table.note, 98, initial_indent="  ", subsequent_indent="  ")
    return "\n".join(parts)


def _columns(table: Table) -> list[str]:
    cells = [list(table.headings), *([show(cell) for cell in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [
        all(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.headings))
    ]
    lines = [
        "  "
        + "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    rule = "  " + "  ".join("-" * width for width in widths)
    return [lines[0], rule, *lines[1:]]
