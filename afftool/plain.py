"""Dataclasses in plain form, as JSON and TOML take it, and back; their choices checked, their fields hashed.

Everything that is stored, hashed or read from a user's file goes through here, so that a new field is one line in its
dataclass. msgspec checks and builds what is read; it is imported when first needed, because `--help` and a mistyped
name read nothing.
"""

from __future__ import annotations

import dataclasses
import re
import reprlib
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, Self, TypeVar, get_args, get_type_hints

from afftool.errors import SpecError, UnknownKey
from afftool.registry import unknown
from afftool.visible import toml_escaped

T = TypeVar("T")

_WORDS = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "array": "a list",
    "object": "a table",
}
"""What a user calls the types that msgspec names."""


class Plain:
    """A dataclass that is stored: its plain form, and itself back from it."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Every field as JSON takes it, in the order they are declared."""
        fields: dict[str, Any] = to_plain(self)
        return fields

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Itself back from `to_dict`; fields that a newer version added are left out. Raises what `from_plain` does."""
        return from_plain(cls, fields)


def to_plain(value: object) -> Any:
    """A value with all that is in it as dictionaries, lists and scalars.

    By hand: msgspec refuses subclasses of text and numbers, such as torch's version and numpy's floats.
    """
    if dataclasses.is_dataclass(value):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list | tuple) else value


def from_plain(kind: type[T], fields: object) -> T:
    """A dataclass from its plain form, with every type checked; keys it does not have are left out.

    Raises `TypeError` that says what is wrong, and what the dataclass itself raises.
    """
    import msgspec

    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(_in_words(str(error), fields, f"{article} {kind.__name__}")) from error


def from_user(kind: type[T], fields: object, what: str, *, hint: str | None = None) -> T:
    """A dataclass from what a user wrote in a file, where it is called `what`, as in "a study".

    Raises `UnknownKey` or `SpecError` in the user's words, and what the dataclass itself raises.
    """
    import msgspec

    if isinstance(fields, Mapping):
        refuse_unknown(what, fields, field_names(kind))
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise SpecError(_in_words(str(error), fields, what), hint=hint) from error


def refuse_unknown(what: str, given: Collection[str], known: Collection[str]) -> None:
    """Refuse keys that `what` does not take, with the nearest one that it does. Raises `UnknownKey`."""
    for key in given:
        if key not in known:
            raise UnknownKey(f"{what} takes no key {key!r}", hint=unknown("key", key, known).hint)


def field_names(kind: Any) -> tuple[str, ...]:
    """The names of a dataclass's fields, in the order they are declared."""
    return tuple(f.name for f in dataclasses.fields(kind))


def check_choices(value: Any, what: str = "") -> None:
    """Refuse a dataclass with a field, annotated as a `Literal` of words, that is none of them. Raises `SpecError`."""
    for name, choices in _choices(value.__class__).items():
        if getattr(value, name) not in choices:
            raise SpecError(
                f"{what}{name}={getattr(value, name)!r} is not allowed", hint=f"choose from {', '.join(choices)}"
            )


@cache
def _choices(kind: type) -> dict[str, tuple[str, ...]]:
    """The words that each field may be, for the fields that are one of several words; the hints are read once."""
    found = {name: get_args(hint) for name, hint in get_type_hints(kind).items()}
    return {name: words for name, words in found.items() if words and all(isinstance(word, str) for word in words)}


def later(default: T) -> T:
    """Declares a field of a hashed dataclass that came after its first release, as `zoom: int = later(1)`.

    It enters the hash only where it differs from its default, so that what was stored before keeps its identity.
    """
    declared: T = dataclasses.field(default=default, metadata={"later": True})
    return declared


def unsaid(value: Any) -> set[str]:
    """The `later` fields of a dataclass that are as they would be if nobody knew of them: those no hash may see."""
    added = (f for f in dataclasses.fields(value) if f.metadata.get("later"))
    return {f.name for f in added if getattr(value, f.name) == f.default}


def digest(value: object, fields: Mapping[str, Any], *, without: Collection[str] = (), length: int = 16) -> str:
    """A short hash over the plain `fields` of a dataclass, but for those `without` effect; equal on every machine."""
    # Imported here: a mistyped name has to be answered at once, and is never hashed.
    import hashlib
    import json

    hidden = {*without, *unsaid(value)}
    hashed = {key: item for key, item in fields.items() if key not in hidden}
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:length]


def toml(fields: Mapping[str, Any]) -> str:
    """Plain fields as TOML: scalars and lists first, then a section for each table or list of tables.

    What is inside a section stands on one line a key, tables too, so that a study fits on a screen. None, empty text
    and empty tables are left out, as TOML has no word for nothing.
    """
    said = {key: value for key, value in fields.items() if value not in (None, "", {})}
    lines, sections = [], []
    for key, value in said.items():
        if isinstance(value, Mapping):
            sections += ["", f"[{key}]", *_toml_lines(value)]
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            sections += [line for item in value for line in ("", f"[[{key}]]", *_toml_lines(item))]
        else:
            lines += _toml_lines({key: value})
    return "\n".join([*lines, *sections]) + "\n"


def _toml_lines(fields: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in fields.items() if value not in (None, "", {})]


def _toml_value(value: Any) -> str:
    """One value as TOML; JSON's strings, numbers and booleans are TOML's too."""
    import json

    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml_value, value)) + "]"
    return toml_escaped(json.dumps(value, ensure_ascii=False))


def _in_words(error: str, fields: Any, what: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.seeds[0]`" as "a study's seeds[0] is a whole number, not 'x'"."""
    text, _, path = error.partition(" - at `$")
    path = path.strip("`")
    place = f"{what}'s {path.removeprefix('.')}" if path else what
    expected = re.match(r"Expected `([^`]+)`, got `", text)
    if not expected or "..." in path:  # a key, or a value by its key, is not told by msgspec
        return f"{place}: {text}"
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        fields = fields[key] if key else fields[int(index)]
    kinds = [_WORDS.get(kind, kind) for kind in expected[1].split(" | ") if kind != "null"]
    return f"{place} is {' or '.join(kinds)}, not {_BRIEF.repr(fields)}"


_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = 80
"""What somebody wrote may have any length and depth."""
