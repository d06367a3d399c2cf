"""A report as one HTML page or one SVG file, with nothing to fetch."""

from __future__ import annotations

import html
import re
import secrets
import shutil
from pathlib import Path

from glm2_reference.report.document import Report, Table, show

_STYLE = """
:root { color-scheme: light; }
body { font: 17px/1.5 system-ui, sans-serif; color: #222; background: #fff;
       max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.question { font-style: italic; margin-top: 0; } .note { font-size: .92rem; color: #444; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { border-bottom: 2px solid #222; } td.number, th.number { text-align: right; white-space: nowrap; }
figure { display: inline-block; vertical-align: top; margin: 1rem 2rem 1rem 0; max-width: 900px; } figure svg { max-width: 100%; height: auto; }
figcaption { font-size: .92rem; color: #444; }
"""


def to_html(report: Report) -> str:
    """Write a self-contained page: its style and its drawings are inside."""
    title = html.escape(report.title)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{title}</h1><p class="question">{html.escape(report.question)}</p>',
    ]
    for chart in report.charts:
        parts.append(
            f"<figure><h2>{html.escape(chart.title)}</h2>{chart.svg}"
            f"<figcaption>{html.escape(chart.caption)}</figcaption></figure>"
        )
    parts += [_table(table) for table in report.tables]
    parts.append("</body></html>\n")
    return "\n".join(parts)


def to_svg(report: Report) -> str:
    """Write all charts of a report into one drawing, one below the other."""
    y, width, parts = 0.0, 0.0, []
    for chart in report.charts:
        size = re.search(r'viewBox="0 0 (\S+) (\S+)"', chart.svg)
        assert size is not None  # every chart of this package has one
        width = max(width, float(size[1]))
        title = html.escape(chart.title)
        parts.append(
            f'<text x="16" y="{y + 34:g}" font-family="sans-serif" font-size="23" '
            f'font-weight="bold" fill="#222">{title}</text>'
        )
        parts.append(chart.svg.replace("<svg ", f'<svg x="0" y="{y + 48:g}" ', 1))
        y += 48 + float(size[2]) + 16
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {y:g}" width="{width:g}" '
        f'height="{y:g}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file under a temporary name, then rename it: never half a file.

    A link stays one, and what it points at is written; a device or a pipe is written to.

    Raises
    ------
    ValueError
        If it cannot be written; the message names the file and the reason.
    """
    if not path.name:
        msg = f"cannot write {str(path)!r}: it has no file name; name a file"
        raise ValueError(msg)
    temporary = None
    try:
        target = path.resolve()
        if target.exists() and not target.is_file() and not target.is_dir():
            target.write_text(text, encoding="utf-8")
            return
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        temporary.write_text(text, encoding="utf-8")
        if target.is_file():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        msg = f"cannot write {path}: {error.strerror}; name a file in a folder that can be written"
        raise ValueError(msg) from error


def _table(table: Table) -> str:
    flush = [
        all(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.headings))
    ]

    def row(cells: list[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=number' if right else ''}>{html.escape(cell)}</{tag}>"
            for cell, right in zip(cells, flush, strict=True)
        )

    body = "".join(f"<tr>{row([show(cell) for cell in cells], 'td')}</tr>" for cells in table.rows)
    note = f'<p class="note">{html.escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{html.escape(table.title)}</h2><div class="scroll"><table><thead>'
        f"<tr>{row(list(table.headings), 'th')}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )
