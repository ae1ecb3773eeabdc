"""What is said of a network of the user's own that fusions are grafted into: how it is made, and at which sites.

In text: `graft:pkg.mod:build[:key=value]...`. The keys of `KEYS` are the graft's; every other is the network's own.
Nothing here imports torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from afftool.errors import SpecError
from afftool.spec.amounts import check_whole
from afftool.spec.site import Scenario, Site
from afftool.spec.text import parse_stages, read_number, read_setting

Init = Literal["paper", "neutral"]
Shape = tuple[int, ...]

PREFIX = "graft:"
DEFAULT_SIZES = (224, 224)
"""Height and width of the image that a network is looked at with where nothing else is said."""

KEYS: dict[str, str] = {
    "at": "the sites: all, add, concat, numbers and ranges, as add or 3+5-8 [default: all]",
    "stage": "only sites of these stages, counted by size from the largest, as 3-4 or 2+4",
    "path": "only sites whose module path matches, as layer4.* (* stands for any text)",
    "scenario": "only sites of this kind: short-skip, long-skip or same-layer, joined by +",
    "only_equal": "true: only sites whose maps have one width, so that no adapter is needed",
    "share": "true: sites that stand in the same place of repeated blocks share one fusion",
    "init": "paper, or neutral: gated fusions start as the sum of their maps",
    "inputs": "channels or whole shapes of the network's inputs, joined by + [default: 3], as 1x64x64x64 or 3+1",
    "call": "what the network is called with to be built, a text or a Python literal, as yolov8n.yaml",
    "attr": "the attribute of what was built that is the network, as model",
    "inside": "the submodule that is grafted, by its path; the rest stays as it is",
    "classes": "how many classes its head gets",
    "head": "the path of the layer that gives the classes [default: found]",
    "output": "which entry of its output counts, where that is not one tensor, as logits or 0",
}
SELECTION_KEYS = ("at", "stage", "path", "scenario", "only_equal")
"""Those of them that choose sites."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which sites: those of `at`, as far as they have the other marks."""

    at: tuple[str, ...] = ("all",)
    stages: tuple[int, ...] | None = None
    path: str | None = None
    scenarios: tuple[Scenario, ...] = ()
    only_equal: bool = False

    def takes(self, site: Site) -> bool:
        """Whether this site is meant."""
        return (
            any(_meant(word, site) for word in self.at)
            and (self.stages is None or site.stage in self.stages)
            and (self.path is None or fnmatch.fnmatchcase(site.path, self.path))
            and (not self.scenarios or site.scenario in self.scenarios)
            and (site.equal or not self.only_equal)
        )

    def check(self, sites: Collection[Site]) -> None:
        """Refuse a number that no site has, and a stage that the network does not have. Raises `SpecError`."""
        numbers = {site.number for site in sites}
        for word in self.at:
            for number in _numbers(word):
                if number not in numbers:
                    has = f"its sites are 1 to {len(numbers)}" if numbers else "it has none"
                    raise SpecError(f"there is no site {number}: {has}", hint="`afftool graft` shows them")
        stages = {site.stage for site in sites if not site.flat}
        for stage in self.stages or ():
            if stage not in stages:
                has = f"its stages are 1 to {max(stages)}" if stages else "it has no site"
                raise SpecError(f"there is no stage {stage}: {has}", hint="`afftool graft` shows them")

    @property
    def words(self) -> str:
        """It in words, for an error."""
        parts = ["+".join(self.at)]
        parts += [] if self.stages is None else [f"stage={'+'.join(map(str, self.stages)) or 'none'}"]
        parts += [f"path={self.path}"] if self.path else []
        parts += [f"scenario={'+'.join(self.scenarios)}"] if self.scenarios else []
        parts += ["only_equal=true"] if self.only_equal else []
        return ":".join(parts)


@dataclass(frozen=True, kw_only=True)
class Graft:
    """Everything the text of a grafted network says beside the network's own keys."""

    selection: Selection
    share: bool = False
    init: Init = "paper"
    inputs: tuple[Shape, ...] = ((3,),)
    call: str | None = None
    attr: str | None = None
    inside: str | None = None
    classes: int | None = None
    head: str | None = None
    output: str | None = None

    @classmethod
    def read(cls, options: Mapping[str, str]) -> Graft:
        """What the keys say. Raises `SpecError`."""
        given = {key: value for key, value in options.items() if key in KEYS}
        selection = Selection(
            at=_read_at(given.get("at", "all")),
            stages=parse_stages("stage", given["stage"]) if "stage" in given else None,
            path=given.get("path"),
            scenarios=tuple(_choice("scenario", one, Scenario) for one in given.get("scenario", "").split("+") if one),
            only_equal=read_setting("only_equal", given.get("only_equal", "false"), bool),
        )
        classes = read_number("classes", given["classes"], int) if "classes" in given else None
        if classes is not None:
            check_whole("classes=", classes, hint="for example classes=10")
        return cls(
            selection=selection,
            share=read_setting("share", given.get("share", "false"), bool),
            init=_choice("init", given.get("init", "paper"), Init),
            inputs=read_shapes(given.get("inputs", "3")),
            classes=classes,
            **{key: given.get(key) for key in ("call", "attr", "inside", "head", "output")},
        )

    @property
    def size(self) -> Shape | None:
        """Height and width of its first input, where they are told."""
        return self.inputs[0][1:] or None

    def input_shapes(self, batch: int, size: Shape | None = None) -> tuple[Shape, ...]:
        """`(N, C, *S)` of each input, of this `size` (or the default) where nothing is told. Raises `SpecError`."""
        size = size or self.size or DEFAULT_SIZES
        if self.size is not None and self.size != size:
            said, asked = ("x".join(map(str, one)) for one in (self.size, size))
            raise SpecError(
                f"inputs= says that the network's input has size {said}, and {asked} was asked for",
                hint="leave one of them out; inputs=3 tells the channels alone",
            )
        return tuple((batch, *(shape if len(shape) > 1 else (*shape, *size))) for shape in self.inputs)


def read_shapes(text: str) -> tuple[Shape, ...]:
    """Shapes of inputs, channels first, from `3x224x224+1x224x224`, or channels alone, `3+1`. Raises `SpecError`."""
    shapes = []
    for part in text.lower().split("+"):
        words = part.split("x")
        if not all(word.isdecimal() and len(word) < 10 for word in words) or len(words) > 4:
            raise SpecError(
                f"inputs={text} are no shapes", hint="channels and extents, as 3x224x224+1x224x224, or channels: 3+1"
            )
        shape = tuple(int(word) for word in words)
        for extent in shape:
            check_whole("inputs", extent, hint="for example inputs=3x224x224")
        shapes.append(shape)
    return tuple(shapes)


def _read_at(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split("+"))
    for word in words:
        first, _, last = word.partition("-")
        ranged = first.isdecimal() and (last or first).isdecimal() and len(word) < 20
        if word not in ("all", "none", "add", "concat") and not ranged:
            raise SpecError(
                f"at={text} names no sites",
                hint="all, none, add, concat, numbers and ranges, joined by +, as add or 3+5-8; stages are stage=3-4, "
                "paths path=layer4.*",
            )
        if ranged and not 1 <= int(first) <= int(last or first):
            raise SpecError(f"at={text}: {word} is no range of sites", hint="sites count from 1, as 3-8")
    return words


def _numbers(word: str) -> Sequence[int]:
    """The ends of a range of sites, or a single number."""
    return [int(part) for part in word.split("-")] if word[:1].isdecimal() else []


def _meant(word: str, site: Site) -> bool:
    if ends := _numbers(word):
        return ends[0] <= site.number <= ends[-1]
    return word in ("all", site.kind) and not site.flat


def _choice(key: str, value: str, choices: Any) -> Any:
    if value not in get_args(choices):
        raise SpecError(f"{key}={value} is not allowed", hint=f"choose from {', '.join(get_args(choices))}")
    return value
