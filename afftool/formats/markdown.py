"""Markdown: GitHub's tables, the best values in bold."""

from __future__ import annotations

import re

from afftool.tables import Report, Table
from afftool.visible import cut, lines


def render(report: Report) -> str:
    """The whole report as Markdown."""
    blocks = [f"# {escape(report.title)}"]
    blocks.append("\n".join(f"- **{escape(label)}**: {escape(text)}" for label, text in report.facts))
    for table in report.tables:
        blocks += [f"## {escape(table.title)}", table_block(table)]
        blocks += [escape(table.note)] if table.note else []
    blocks += [escape(note) for note in report.notes]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table_block(table: Table) -> str:
    """One table, numbers to the right, columns padded so that the source reads as a table too."""
    cells = [[escape(column.heading) for column in table.columns]]
    for row in table.shown_rows():
        cells.append([f"**{escape(text)}**" if best else escape(text) for _, text, best in row])
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.columns))]
    rules = ["-" * (w - 1) + ":" if c.numeric else "-" * w for c, w in zip(table.columns, widths, strict=True)]
    padded = [
        [t.rjust(w) if c.numeric else t.ljust(w) for t, c, w in zip(row, table.columns, widths, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rules, *padded[1:]])


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    text = cut(lines(text))
    text = re.sub(r"([\\`*\[\]<>|]|(?<!\w)_|_(?!\w)|&(?=#?\w+;))", r"\\\1", text)  # not the _ inside a word
    return " ".join(text.split())
