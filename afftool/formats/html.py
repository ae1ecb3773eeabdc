"""HTML: one page that needs nothing else, light or dark as the reader's system is; charts as inline SVG."""

from __future__ import annotations

import html

from afftool.tables import Chart, Report, Table
from afftool.visible import cut, lines

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #5b8def; --ink: #222; --page: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e4e4; --page: #16181c; --bar: #7aa5ff } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
       max-width: 75rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { font-weight: 600 } dd { margin: 0 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap }
td.number, th.number { text-align: right } td.best { font-weight: 700 } td.long { white-space: normal }
svg { max-width: 100%; height: auto } svg text { fill: currentColor; font: 13px system-ui, sans-serif }
"""

_LABELS, _BARS, _VALUES, _ROW = 330, 420, 110, 24
"""Widths of a chart's three columns and height of its lines, in pixels."""


def render(report: Report) -> str:
    """The whole report as one page."""
    facts = "".join(f"<dt>{escape(label)}</dt><dd>{escape(text)}</dd>" for label, text in report.facts)
    body = [f"<h1>{escape(report.title)}</h1>", f"<dl>{facts}</dl>"]
    body += [f"<h2>{escape(chart.title)}</h2>\n{_bars(chart)}" for chart in report.charts]
    body += [_table(table) for table in report.tables]
    body += [f"<p>{escape(note)}</p>" for note in report.notes]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width">\n<title>{escape(report.title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _bars(chart: Chart) -> str:
    """The chart as one `<svg>`: bars from zero, the widest to the right edge, whiskers for intervals, every value."""
    top = max(bar.high if bar.high is not None else bar.value for bar in chart.bars)
    scale = _BARS / top if top > 0 else 0.0
    height = _ROW * len(chart.bars)
    parts = []
    for position, bar in enumerate(chart.bars):
        y, middle = position * _ROW, position * _ROW + _ROW / 2
        parts.append(f'<text x="{_LABELS - 8}" y="{middle + 4:g}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect x="{_LABELS}" y="{y + 4}" width="{bar.value * scale:.1f}" height="{_ROW - 8}" fill="var(--bar)"/>'
        )
        if bar.low is not None and bar.high is not None:
            low, high = _LABELS + bar.low * scale, _LABELS + bar.high * scale
            parts.append(
                f'<path d="M{low:.1f} {middle:g}H{high:.1f}M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8" '
                'stroke="currentColor" fill="none"/>'
            )
        parts.append(f'<text x="{_LABELS + _BARS + 8}" y="{middle + 4:g}">{escape(chart.show(bar.value))}</text>')
    width = _LABELS + _BARS + _VALUES
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(chart.title)}">\n' + "\n".join(parts) + "\n</svg>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th{_class(c.numeric and 'number')}>{escape(c.heading)}</th>" for c in table.columns)
    lines = []
    for row in table.shown_rows():
        cells = (
            f"<td{_class(column.numeric and 'number', best and 'best', len(text) > 60 and 'long')}>{escape(text)}</td>"
            for column, text, best in row
        )
        lines.append(f"<tr>{''.join(cells)}</tr>")
    rows = "\n".join(lines)
    note = f"\n<p>{escape(table.note)}</p>" if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{rows}\n</tbody>\n</table></div>{note}"
    )


def _class(*names: str | bool) -> str:
    kept = " ".join(name for name in names if isinstance(name, str))
    return f' class="{kept}"' if kept else ""


def escape(text: str) -> str:
    """Text that a page shows as it is."""
    return html.escape(cut(lines(text)))
