"""How every variant of a study is trained: the same optimizer, schedule and augmentation, as data.

A recipe is part of a cell's identity, so each field that could change a result is here and none that could not.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_type_hints

from afftool.errors import SpecError
from afftool.plain import Plain, check_choices, refuse_unknown, unsaid
from afftool.registry import unknown
from afftool.spec.amounts import check_whole

Optimizer = Literal["sgd", "adagrad", "adamw"]
Schedule = Literal["cosine", "step", "poly", "constant"]
Init = Literal["host", "kaiming", "xavier"]


@dataclass(frozen=True, kw_only=True)
class Recipe(Plain):
    """The settings of one training. Times are in epochs; `milestones` are shares of all epochs.

    `crop` is the share of the image's size that is padded on each side before a random crop back (1/8 is 4 of 32
    pixels); `flip` mirrors half of the images; `mixup` is the alpha of its beta distribution, 0 for none. `init` is how
    the weights of convolutions and linear layers are drawn: `host` is as the
    host's own builder does it. `clip` bounds the gradient's norm, 0 for no bound. A field that is added is declared by
    `plain.later`, for recipes are hashed.
    """

    name: str = "short"
    epochs: int = 6
    batch: int = 64
    optimizer: Optimizer = "sgd"
    lr: float = 0.2
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    schedule: Schedule = "cosine"
    warmup: float = 1.0
    milestones: tuple[float, ...] = (0.75, 0.875)
    decay: float = 0.1
    power: float = 0.9
    label_smoothing: float = 0.1
    crop: float = 0.0625
    flip: bool = True
    mixup: float = 0.0
    init: Init = "host"
    clip: float = 0.0

    def __post_init__(self) -> None:
        check_choices(self, "recipe ")
        for field, low in (("epochs", 1), ("batch", 2)):
            check_whole(f"recipe {field}=", getattr(self, field), least=low, hint=f"for example {field}=64")
        for field in ("lr", "decay", "power"):
            if not 0 < getattr(self, field) < math.inf:
                raise SpecError(f"recipe {field}={getattr(self, field)} is not a positive number")
        for field in ("weight_decay", "warmup", "mixup", "clip"):
            if not 0 <= getattr(self, field) < math.inf:
                raise SpecError(f"recipe {field}={getattr(self, field)} is not a number from 0 up")
        for field in ("momentum", "label_smoothing", "crop"):
            if not 0 <= getattr(self, field) < 1:
                raise SpecError(f"recipe {field}={getattr(self, field)} is not in [0, 1)")
        if self.nesterov and not self.momentum and self.optimizer == "sgd":
            raise SpecError("Nesterov's step needs momentum", hint="set momentum, for example 0.9, or nesterov=false")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise SpecError(
                f"recipe milestones {self.milestones} are not rising shares of the training",
                hint="for example 0.75+0.875: the rate falls after three quarters and after seven eighths",
            )

    def with_settings(self, settings: dict[str, Any]) -> Recipe:
        """This recipe with some fields replaced, given as values or as text. Raises `UnknownKey` or `SpecError`."""
        hints = get_type_hints(type(self))
        hints.pop("name")
        refuse_unknown("a recipe", settings, hints)
        return dataclasses.replace(self, **{key: _read(key, value, hints[key]) for key, value in settings.items()})

    def effective(self) -> dict[str, Any]:
        """The fields that can change a result under this optimizer and schedule; a name cannot."""
        idle = {"name", *unsaid(self)}
        idle |= {"momentum", "nesterov"} if self.optimizer != "sgd" else set()
        idle |= {"milestones", "decay"} if self.schedule != "step" else set()
        idle |= {"power"} if self.schedule != "poly" else set()
        return {key: value for key, value in self.to_dict().items() if key not in idle}

    def changes(self) -> dict[str, Any]:
        """The fields that differ from the named recipe's own."""
        named = RECIPES.get(self.name, Recipe()).to_dict()
        return {key: value for key, value in self.to_dict().items() if key != "name" and named[key] != value}

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of one step, counted from 0: a linear warm-up to `lr`, then the schedule."""
        total, warm = self.epochs * steps_per_epoch, min(self.warmup, self.epochs / 2) * steps_per_epoch
        if step < warm:  # the first step has a rate above 0, the first after the warm-up the whole of it
            return self.lr * (step + 1) / (warm + 1)
        done = (step - warm) / max(1.0, total - warm)
        if self.schedule == "cosine":
            return self.lr * (1 + math.cos(math.pi * done)) / 2
        if self.schedule == "poly":
            return float(self.lr * (1 - done) ** self.power)
        if self.schedule == "step":
            return float(self.lr * self.decay ** sum(step >= share * total for share in self.milestones))
        return self.lr


RECIPES: dict[str, Recipe] = {
    "short": Recipe(),
    "paper-cifar": Recipe(
        name="paper-cifar",
        epochs=400,
        batch=128,
        lr=0.2,
        weight_decay=1e-4,
        schedule="step",
        warmup=0.0,
        label_smoothing=0.0,
        crop=0.125,
    ),
    "paper-fpn": Recipe(
        name="paper-fpn",
        epochs=300,
        batch=32,
        optimizer="adagrad",
        lr=0.01,
        momentum=0.0,
        nesterov=False,
        weight_decay=0.0,
        schedule="poly",
        warmup=0.0,
        label_smoothing=0.0,
        crop=0.0,
    ),
}
"""Recipes by name. The paper's are those of its Table 2 (classification on CIFAR, segmentation with an FPN)."""


def recipe(name: str, **settings: Any) -> Recipe:
    """A recipe by name with some settings of one's own. Raises `UnknownName`, `UnknownKey` or `SpecError`."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name].with_settings(settings)


def _read(key: str, value: Any, hint: Any) -> Any:
    """A setting from TOML or from the command line's text."""
    if key == "milestones":
        try:
            return tuple(float(part) for part in (value.split("+") if isinstance(value, str) else value))
        except (TypeError, ValueError):
            raise SpecError(f"recipe milestones={value} are not numbers", hint="for example 0.75+0.875") from None
    if hint is bool:
        if value in (True, "true"):
            return True
        if value in (False, "false"):
            return False
        raise SpecError(f"recipe {key}={value} is neither true nor false")
    if hint in (int, float):
        try:
            number = float(value)
            if isinstance(value, bool) or (hint is int and number != int(number)):
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            kind = "whole number" if hint is int else "number"
            raise SpecError(f"recipe {key}={value} is not a {kind}", hint=f"for example {key}=4") from None
        return hint(number)
    return value
