"""How other people's code names what a fusion is given: its width and its reduction.

A width of another name is told as `in_channels={channels}`. Where the signature has one obvious candidate it is found,
and what was found is told (`Told.words`), since a guess that nobody sees is worse than an error.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from afftool.spec.formula import NAME, has_formula

Parameters = Mapping[str, inspect.Parameter]

_WORD = "(channels?|chans?|chs?|c|planes?|features?|feats?|filters?|dims?)"
_IN = re.compile(f"(in|input){_WORD}|{_WORD}in|inp|nin|ci|c1|ch1")
_OUT = re.compile(f"(out|output){_WORD}|{_WORD}out|outp|oup|nout|co|c2|ch2")
_EITHER = re.compile(
    "(n|num)?(channels?|chans?|chs?|c|planes?|features?|feats?|filters?)|nf|dim|dmodel|width|"
    "(embed|embedding|model|feat|feature|map)(dims?|channels?|chs?|c)"
)
_SURE = re.compile(f"{_IN.pattern}|dim|dmodel|channel|(n|num)channels?|numfeatures|(embed|embedding)dims?")
"""Names that mean the width even where the signature has a default, which is that of one width among many."""
_ALONE = re.compile(f"(?!hidden|mid|inner|inter|head|kernel).+{_WORD}")
"""Names that mean the width where nothing else has to be given."""
_LEAST_DEFAULT = 8
"""A default below is no width: `dim=1` is the dimension to join maps along."""
_REDUCTIONS = re.compile("r|rd|red|reduce|(reduce|reduction|rd|red|squeeze|se)?(ratio|factor|rate)|sereduction|squeeze")


@dataclass
class Told:
    """What a signature is given beside what its text says: values by name, and in words what was assumed."""

    given: dict[str, Any]
    width_keys: tuple[str, ...] = ()
    words: list[str] = field(default_factory=list)

    @property
    def guessed(self) -> bool:
        """Whether the width goes by other names here, so that `channels` is nothing it takes."""
        return bool(self.width_keys)


def tell(name: str, named: Parameters, given: Mapping[str, Any], texts: Mapping[str, str], channels: int) -> Told:
    """What a callable with the parameters `named` is given for a width, where its text gives `given`.

    `texts` are the same values before their formulas were worked out.
    """
    told = Told(dict(given))
    keys = _width_keys(named, given, texts)
    if keys:
        told.given |= dict.fromkeys(keys, channels)
        told.width_keys = keys
        formulas = ":".join(f"{key}={{{NAME}}}" for key in keys)
        told.words.append(
            f"{name}: {' and '.join(keys)} {'is' if len(keys) == 1 else 'are'} taken for the width; "
            f"say {name}:{formulas} to be sure"
        )
    _tell_reduction(name, named, told)
    return told


def missing(named: Parameters, given: Iterable[str]) -> list[str]:
    """The parameters without a default that nothing is given for."""
    return [key for key, one in named.items() if one.default is one.empty and key not in given]


def _width_keys(named: Parameters, given: Mapping[str, Any], texts: Mapping[str, str]) -> tuple[str, ...]:
    """The parameters that obviously mean the width; none where it is named, told, or cannot be told apart."""
    needed = [key for key in missing(named, given) if key != NAME]
    candidates = [key for key in needed if _means(key, _IN, _OUT, _EITHER)]
    if NAME in named and NAME not in given:
        # beside `channels`, which is the width, an end of a pair has that width as well
        return tuple(candidates) if len(candidates) == 1 and _means(candidates[0], _IN, _OUT) else ()
    if len(candidates) == 1 or _are_ends(candidates):
        return tuple(candidates)
    if not candidates and len(needed) == 1 and _means(needed[0], _ALONE):  # `gate_channels`, `residual_channels`
        return tuple(needed)
    if candidates or any(has_formula(text) or _means(key, _SURE) for key, text in texts.items()):
        return ()
    optional = [key for key, one in named.items() if key not in given and _is_width(one.default)]
    sure = [key for key in optional if _means(key, _SURE)]
    if len(sure) != 1:
        return ()
    ends = [key for key in optional if _means(key, _OUT) and named[key].default == named[sure[0]].default]
    return (*sure, *ends)


def _are_ends(keys: list[str]) -> bool:
    """Whether two parameters are the channels that come in and those that go out; a fusion keeps them."""
    if len(keys) != 2:
        return False
    first, second = sorted(keys, key=lambda key: not _means(key, _IN))
    if _means(first, _IN):
        return _means(second, _OUT, _EITHER)
    return any(_means(one, _EITHER) and _means(other, _OUT) for one, other in ((first, second), (second, first)))


def _means(key: str, *names: re.Pattern[str]) -> bool:
    """Whether a parameter has one of those names, however it is written: `in_channels`, `inChannels`."""
    plain = key.replace("_", "").lower()
    return any(one.fullmatch(plain) for one in names)


def _is_width(default: Any) -> bool:
    return isinstance(default, int) and not isinstance(default, bool) and default >= _LEAST_DEFAULT


def _tell_reduction(name: str, named: Parameters, told: Told) -> None:
    """A reduction that is given, or needed, under the name that the signature has for it."""
    if "reduction" in named:
        return
    keys = [key for key in named if _means(key, _REDUCTIONS) and key not in told.given]
    if len(keys) != 1:
        return
    (key,) = keys
    default = named[key].default
    if "reduction" in told.given:
        value = told.given.pop("reduction")
        inverse = isinstance(default, float) and 0 < default < 1 and isinstance(value, int) and value > 0
        told.given[key] = 1 / value if inverse else value
        told.words.append(f"{name}: reduction is given as {key}{'=1/' if inverse else '='}{value}")
    elif default is inspect.Parameter.empty:
        told.given[key] = 4
        told.words.append(f"{name}: {key} is taken for the reduction, 4; say {name}:{key}=4 to be sure")
