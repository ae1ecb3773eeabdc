"""At which sizes it works: as asked, odd, not square, small and large, in eval and in training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from afftool.failure import Failure
from afftool.inspect.finding import Finding
from afftool.inspect.subject import RAISED, Subject, as_given, call
from afftool.spec import show_size
from afftool.words import all_of, some_of

Size = tuple[int, ...]

_SIZES: dict[int, tuple[Size, ...]] = {
    1: ((7,), (20,), (24,), (51,), (6,), (1,)),
    2: ((7, 7), (12, 20), (8, 24), (15, 9), (6, 6), (1, 1)),
    3: ((5, 5, 5), (4, 6, 8), (8, 8, 16), (7, 9, 5), (2, 2, 2), (1, 1, 1)),
}
"""Odd; not square, then so in multiples of 8, and odd; small; a single position."""
_LARGE = {1: (400, 200, 100, 50), 2: (32, 48, 40, 24), 3: (12, 10, 8)}
_MOST_PAIRS = 2**25
"""Of positions, in all images together: attention over them has so many weights."""


def other_sizes(subject: Subject) -> list[Size]:
    """The sizes to try beside the one asked for; the large one as large as attention over all positions allows."""
    dims = len(subject.size)
    sizes = list(_SIZES[dims])
    for extent in _LARGE[dims]:
        if extent > max(subject.size) and subject.batch * extent ** (2 * dims) <= _MOST_PAIRS:
            sizes.append((extent,) * dims)
            break
    return [size for size in sizes if size != subject.size]


def far_sizes(subject: Subject) -> list[Size]:
    """Long in each dimension and large in all, for what is looked for wherever it may be: of few maps."""
    dims = len(subject.size)
    long = {1: 2000, 2: 256, 3: 64}[dims]
    sizes: list[Size] = [tuple(long if axis == dims - 1 - turn else 8 for axis in range(dims)) for turn in range(dims)]
    large: dict[int, list[Size]] = {2: [(64, 64)], 3: [(16, 16, 16)]}
    return sizes + large.get(dims, [])


def at_size(subject: Subject, size: Size, batch: int | None = None) -> Subject:
    """The same module, to be looked at on maps of another size, in the same batch or in another."""
    return dataclasses.replace(subject, size=size, batch=batch or subject.batch)


def spoken(size: Size) -> str:
    """`16 x 16`."""
    return " x ".join(map(str, size))


def spoken_list(sizes: Iterable[Size]) -> str:
    """`7 x 7, 12 x 20 and 1 x 1`."""
    return all_of([*map(spoken, sizes)])


@dataclass(frozen=True, kw_only=True)
class _Pass:
    """One call at a size: why it failed, or its output's shape, whether it is finite, and what a gradient reaches."""

    failed: str | None = None
    fits: bool = True
    shape: Size = ()
    finite: bool = True
    reached: frozenset[str] = frozenset()

    @classmethod
    def of(cls, subject: Subject, *, training: bool) -> _Pass:
        maps = subject.maps()
        shape = tuple(maps[0].shape)
        try:
            module = subject.module(training=training)
            with torch.set_grad_enabled(training):
                out = call(module, as_given(maps) if training else maps)
                if training and out.requires_grad:
                    out.sum().backward()  # type: ignore[no-untyped-call]
        except RAISED as error:
            return cls(failed=Failure.of(error).reason)
        return cls(
            shape=tuple(out.shape),
            fits=out.shape == shape,
            finite=bool(torch.isfinite(out).all()),
            reached=frozenset(name for name, p in module.named_parameters() if p.grad is not None),
        )

    def trouble(self, asked: _Pass) -> str | None:
        """What is wrong here that is not wrong at the size asked for."""
        if self.failed:
            return self.failed
        if asked.fits and not self.fits:
            return f"the output has the shape {self.shape}"
        return "the output is not finite" if asked.finite and not self.finite else None


def sizes(subject: Subject) -> list[Finding]:
    """At which sizes it runs, gives maps of its inputs' shape and finite ones, and uses the same parameters.

    What is wrong at the size asked for is told by the check of the output, and not again.
    """
    asked = {training: _Pass.of(subject, training=training) for training in (False, True)}
    modes = [training for training, found in asked.items() if not found.failed]
    troubles: dict[Size, str] = {}
    reached: dict[Size, frozenset[str]] = {}
    for size in other_sizes(subject):
        for training in modes:
            found = _Pass.of(at_size(subject, size), training=training)
            trouble = found.trouble(asked[training])
            if trouble:
                troubles[size] = trouble if not training or len(modes) == 1 else f"in training {trouble}"
                break
            if training:
                reached[size] = found.reached
    works = [size for size in other_sizes(subject) if size not in troubles]
    measured: dict[str, object] = {
        "works": [list(size) for size in (subject.size, *works)],
        "fails": {show_size(size): trouble for size, trouble in troubles.items()},
    }
    unused = _unused(subject, asked[True], reached, measured)
    if troubles:
        return [_fails(subject.size, works, troubles, measured), *unused]
    if unused:
        return unused
    how = ", in eval and in training" if len(modes) == 2 else ""
    return [Finding(severity="ok", what=f"works at {spoken_list([subject.size, *works])}{how}", measured=measured)]


def _fails(asked: Size, works: list[Size], troubles: dict[Size, str], measured: dict[str, object]) -> Finding:
    failing = list(troubles)
    first = failing[0]
    others = f" (and at {spoken_list(failing[1:])})" if failing[1:] else ""
    # What fails at a single position alone is seldom met.
    severe = any(math.prod(size) > 1 for size in failing)
    pattern = _pattern([asked, *works], failing)
    where = f"{spoken(asked)} only" if not works else f"{spoken_list([asked, *works])}{pattern}"
    return Finding(
        severity="warning" if severe else "note",
        what=f"works at {where}; at {spoken(first)}{others}: {troubles[first]}",
        why="Images of another size, another level of a pyramid, or an odd size after a stride end there.",
        do="Take sizes from x.shape and resize what was learnt at one size, or pad; or say in its docstring what it "
        "takes and check it first.",
        measured=measured,
    )


def _pattern(works: Sequence[Size], fails: Sequence[Size]) -> str:
    """What the sizes that work have in common and those that fail have not, where it is plain to see."""
    step = math.gcd(*(extent for size in works for extent in size))
    if step > 1 and all(any(extent % step for extent in size) for size in fails):
        return f", multiples of {step}"
    if all(len(set(size)) == 1 for size in works) and all(len(set(size)) > 1 for size in fails):
        return ", square ones"
    least, most = min(min(size) for size in works), max(max(size) for size in works)
    if all(min(size) < least for size in fails):
        return ", larger ones"
    return ", smaller ones" if all(max(size) > most for size in fails) else ""


def _unused(
    subject: Subject, here: _Pass, there: Mapping[Size, frozenset[str]], measured: dict[str, object]
) -> list[Finding]:
    """What a gradient reaches at the size asked for and not at others; the reverse is told with what is dead."""
    missing = {size: here.reached - reached for size, reached in there.items() if here.reached - reached}
    if not missing:
        return []
    named = subject.module().named_modules()
    wholly = [path for path, module in named if path and is_within(path, module, frozenset.union(*missing.values()))]
    groups = outermost(wholly, sorted(frozenset.union(*missing.values())))
    return [
        Finding(
            severity="note",
            what=f"{some_of(groups, 4)}: used at {spoken(subject.size)}, not at {spoken_list(missing)}",
            why="What it computes, costs and learns depends on the size: numbers of one do not hold at another.",
            do="Measure each size that it will meet, and train on all of them.",
            measured=measured | {"not_used": {show_size(size): sorted(names) for size, names in missing.items()}},
        )
    ]


def is_within(path: str, module: nn.Module, names: Iterable[str]) -> bool:
    """Whether the module has parameters, and all of them are among `names`."""
    held = {f"{path}.{name}" for name, _ in module.named_parameters()}
    return bool(held) and held <= set(names)


def outermost(holders: list[str], names: list[str]) -> list[str]:
    """Parameters by what holds them: a module among the `holders` stands for all that is in it."""
    groups: list[str] = []
    for name in names:
        around = [holder for holder in holders if name.startswith(holder + ".")]
        group = min(around, key=len) if around else name
        if group not in groups:
            groups.append(group)
    return groups


def runs_at(subject: Subject) -> list[Size]:
    """The other sizes at which it gives maps of its inputs' shape in eval, for a module that fails at the one asked."""
    further = [(extent,) * len(subject.size) for extent in (8, 16, 32)]
    tried = dict.fromkeys([*further, *other_sizes(subject)])
    found = {size: _Pass.of(at_size(subject, size), training=False) for size in tried if size != subject.size}
    return [size for size, passed in found.items() if not passed.failed and passed.fits]
