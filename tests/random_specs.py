"""Random texts of fusions and hosts, good and bad, from a grammar of what people type and mistype."""

from __future__ import annotations

import dataclasses
import random

from afftool import catalog
from afftool.spec.grammar import Grammar

ODD = [
    "",
    " ",
    "\t",
    "\n",
    "\x00",
    "é",
    "ß",
    "漢字",
    "🙂",
    "\u202e",
    "\ufeff",
    "١٢",
    "²",
    "ﬁ",
    "\ud800",
    "'",
    '"',
    "\\",
]
ODD += ["%s", "{x}", "[bold]", "a" * 300, "../..", "-", "--help", ";", ",", "|", "*", "#", "/", "~"]
NUMBERS = [
    "0",
    "1",
    "2",
    "4",
    "16",
    "-1",
    "007",
    "1_0",
    "+3",
    "4.0",
    "0.5",
    "1e3",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "0x10",
]
NUMBERS += [
    "99999999999999999999",
    "9" * 5000,
    "٣",
    "2²",
    "1,5",
    " 2",
    "",
    "none",
    "true",
    "True",
    "FALSE",
    "()",
    "(1,",
]
SCALES = [
    "local",
    "global",
    "local+global",
    "global+4",
    "8",
    "local+",
    "+",
    "2+2",
    "1",
    "4+x",
    "²",
    "local+global+local",
]
STAGES = ["1", "3-4", "2+4", "none", "4-3", "0", "1-", "-", "9", "1-99999999999", "3+3", "²", "1-2-3", "2+"]
WORDS = [
    "selection",
    "add",
    "both",
    "x",
    "y",
    "none",
    "batch",
    "layer",
    "relu",
    "silu",
    "tanh",
    "sum",
    "concat",
    "half",
]
OWN = [
    "no_such_pkg.mod:Class",
    "no_such_pkg:",
    ":Class",
    "::",
    "a:b:c",
    "no such:Class",
    "no_such.py:Class",
    "./no.py:C",
]
OWN += ["collections:OrderedDict", "json:no_such", "é:Ü", "1:2", ".:.", "..no:C", "no_such_pkg:A.b.c", "nopkg:C:D=1"]


def fusion_text(draw: random.Random) -> str:
    """A text for `FusionSpec.parse`, well formed more often than not."""
    names = [*catalog.FUSIONS, *catalog.FUSIONS, *OWN, *ODD, *catalog.HOSTS]
    return _text(draw, names, [f.name for f in dataclasses.fields(Grammar)])


def host_text(draw: random.Random) -> str:
    """A text for `HostSpec.parse`."""
    knobs = sorted({knob for host in catalog.HOSTS.values() for knob in host.knobs})
    return _text(draw, [*list(catalog.HOSTS) * 4, *OWN, *ODD, *list(catalog.FUSIONS)[:3]], knobs)


def _text(draw: random.Random, names: list[str], keys: list[str]) -> str:
    name = _mistyped(draw, draw.choice(names), 0.15)
    parts = [name]
    for _ in range(draw.choice([0, 0, 1, 1, 1, 2, 3, 6])):
        key = _mistyped(draw, draw.choice([*keys * 4, *ODD, "channels", "width"]), 0.1)
        equals = draw.choice(["="] * 15 + ["", "==", " = ", "≠"])
        parts.append(f"{key}{equals}{_value(draw)}")
    text = draw.choice([":"] * 20 + ["::", ": ", ";"]).join(parts)
    return _mistyped(draw, text, 0.05)


def _value(draw: random.Random) -> str:
    kind = draw.choice([NUMBERS, NUMBERS, SCALES, STAGES, WORDS, WORDS, ODD])
    return _mistyped(draw, draw.choice(kind), 0.1)


def _mistyped(draw: random.Random, text: str, chance: float) -> str:
    """With this chance: a letter left out, doubled, or replaced, or the whole in capitals or between blanks."""
    if draw.random() > chance or not text:
        return text
    place = draw.randrange(len(text))
    there = text[place]
    changed = ["", there * 2, draw.choice(ODD), ":", "="]
    return draw.choice([text.upper(), f" {text} ", *(text[:place] + new + text[place + 1 :] for new in changed)])
