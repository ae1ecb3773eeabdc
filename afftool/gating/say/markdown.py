"""A judgement as GitHub's Markdown, for the step summary and merge request notes."""

from __future__ import annotations

from afftool.formats.markdown import escape, table_block
from afftool.gate import Judgement
from afftool.gating.say.table import headline, reasons, table


def render(judgement: Judgement) -> str:
    """The whole judgement: the result, why, the table, what was compared."""
    shown = table(judgement)
    blocks = [f"## afftool check: {escape(headline(judgement))}"]
    if told := reasons(judgement):
        blocks.append("\n".join(f"- **{escape(what)}**: {escape(why)}" for what, why in told))
    blocks.append(table_block(shown) if shown.rows else "Nothing was judged.")
    blocks += [escape(shown.note)] if shown.note else []
    blocks.append(f"Compared: {escape(judgement.before)} with {escape(judgement.after)}.")
    blocks += [escape(note) for note in judgement.notes]
    return "\n\n".join(blocks) + "\n"


def refusal(message: str, hint: str | None) -> str:
    """A check that could not be carried out."""
    blocks = [
        "## afftool check: could not be carried out",
        escape(message),
        *([f"Hint: {escape(hint)}"] if hint else []),
    ]
    return "\n\n".join(blocks) + "\n"
