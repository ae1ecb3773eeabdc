"""Text from elsewhere as people see it: names, exceptions, stored commands, file names, whoever wrote them.

A character that moves the cursor, turns the writing round, cannot be seen or cannot be encoded stands there as Python
writes it (`\\x1b`, `\\u202e`), so that nothing is hidden and nothing is dropped. Cleaning twice changes nothing more.
"""

from __future__ import annotations

import re

LONGEST = 20_000
"""Characters of one text; a compiler's complaint has a few thousand."""

_CUT = re.compile(r"\.\.\. \(cut: [\d,]+ characters in all\)$")

_UNSEEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 controls but the tab and the line's end
    r"\u2028\u2029"  # other ends of lines
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # which way the writing goes
    r"\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065\u206a-\u206f\u3164\ufeff\uffa0"
    r"\ufff0-\ufffb\U000e0000-\U000e0fff"  # nothing to see
    r"\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff"  # no characters, as the bytes of an undecodable file name
)
_IN_LINES = re.compile(f"[{_UNSEEN}]")
_IN_ONE_LINE = re.compile(rf"[{_UNSEEN}\t\n]")
_HALF = re.compile(r"[\ud800-\udfff]")
_COMMAND = re.compile(r"(?m)^(\s*):(?=:)|#(?=#\w*\[)")
"""A line that a CI runner would obey: GitHub's `::error::`, and `##[...]` or `##vso[...]` anywhere in it."""


def lines(text: str) -> str:
    """Text that may have several lines, and tabs in them."""
    return _IN_LINES.sub(_as_written, text)


def line(text: str) -> str:
    """Text on one line, cut where it is too long: its line ends and tabs are shown too."""
    return _IN_ONE_LINE.sub(_as_written, cut(text))


def said(text: str) -> str:
    """Lines for a terminal or a log, cut, of which none is a command to the CI runner that reads the log."""
    return _COMMAND.sub(lambda found: f"{found[1] or ''}{_as_written(found[0][-1])}", lines(cut(text)))


def cut(text: str, most: int = LONGEST) -> str:
    """Text of at most so many characters, saying how many there were; cut again, how many there were at first."""
    earlier = _CUT.search(text, max(0, len(text) - 60))
    if (earlier.start() if earlier else len(text)) <= most:
        return text
    return text[:most] + (earlier[0] if earlier else f"... (cut: {len(text):,} characters in all)")


def json_escaped(document: str) -> str:
    """A JSON document with the same content, in which whatever cannot be seen is escaped as JSON does it."""
    return _IN_LINES.sub(_json_escape, document)


def toml_escaped(text: str) -> str:
    """The same of a string of TOML, which has no word for half a character."""
    return _IN_LINES.sub(lambda found: found[0] if _HALF.match(found[0]) else f"\\U{ord(found[0]):08x}", text)


def _as_written(found: re.Match[str] | str) -> str:
    character = found if isinstance(found, str) else found[0]
    return character.encode("unicode_escape").decode() if character not in ":#" else f"\\x{ord(character):02x}"


def _json_escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
