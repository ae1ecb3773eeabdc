"""Files of the user's that change the process for all who run in it: what they set is put back, and named.

An import, a constructor or a forward pass that turns gradients off, or takes all threads but one, would change the
numbers of every fusion after it. So whoever runs such code does it within `kept`, and a record asks `set_by` what there
was to put back: a file is imported once, and many records are made of it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from afftool.forks import copies_made, watch_forks
from afftool.global_settings import (
    Setting,
    generators,
    mark_torch_seed,
    settings,
    settings_of_running,
    torch_seed,
)
from afftool.imports import is_known

When = Literal["on import", "when it was built", "while it ran"]

_SET: dict[str, dict[str, str]] = {}
"""By whose it is: what was set."""
_UNKEPT: set[str] = set()
"""Those that set something while they ran."""


@contextmanager
def kept(targets: str | Collection[str], when: When) -> Iterator[None]:
    """Leave the process as it was, whatever code of the `targets` (`pkg.mod:Name`) does to it, and remember what.

    An import leaves every random generator as it was. A constructor may draw: of torch's, which whoever builds forks,
    only a new seed is taken back. Nothing is done where there are none, or they are our own (`afftool...`).

    What their code raises is an `Exception`, `SystemExit` or `KeyboardInterrupt` outside of the block: one of another
    kind, as `pytest.skip` and a cancelled task raise it, would pass all who wait for an error, and is a `RuntimeError`.
    """
    owners = [targets] if isinstance(targets, str) else targets
    foreign = [target for target in owners if not target.startswith("afftool.")]
    if not foreign:
        yield
        return
    if when == "on import":
        _load_torch(foreign[0])
    watch_forks()
    copies = copies_made()
    before = [
        (setting, setting.read()) for setting in (settings_of_running() if when == "while it ran" else settings())
    ]
    states = [(setting, setting.read()) for setting in generators()]
    seed = mark_torch_seed() if when == "on import" else torch_seed()
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"{type(error).__name__}, which is no Exception: {error}") from error
    finally:
        found = _put_back(before) | _random_put_back(states, seed, when)
        if made := copies_made() - copies:
            found["copies of the process"] = f"{made} made by fork, each ended where it came back"
        for target in foreign:
            for name, said in found.items():
                _SET.setdefault(_owner(target, when), {}).setdefault(name, f"{said}, {when}")
            if found and when == "while it ran":
                _UNKEPT.add(target)


def set_by(*targets: str | None) -> dict[str, str] | None:
    """What the code of these targets has set so far, by what it is; None if nothing. All of it was put back."""
    found: dict[str, str] = {}
    for target in targets:
        for owner in (_owner(target, "on import"), target) if target else ():
            found |= _SET.get(owner, {})
    return found or None


def runs_unkept(targets: Collection[str]) -> bool:
    """Whether a forward or backward pass of one of these targets has set something: it will again."""
    return not _UNKEPT.isdisjoint(targets)


def sentence(targets: Sequence[str | None], found: Mapping[str, str]) -> str:
    """What `set_by` found, in words."""
    said = "; ".join(f"{name}: {what}" for name, what in found.items())
    names = " and ".join(dict.fromkeys(target for target in targets if target))
    return f"{names} changes the whole process; each is put back, so that nothing else runs under it: {said}"


def _owner(target: str, when: When) -> str:
    """Whose an import is: the whole package's, since the modules of one import each other, and each only once."""
    if when != "on import":
        return target
    module = target.partition(":")[0]
    return module if "/" in module or module.endswith(".py") else module.partition(".")[0]


def _load_torch(target: str) -> None:
    """Load torch before a file that will: what the file sets then is a change of something."""
    if "torch" in sys.modules:
        return
    owner = _owner(target, "on import")
    if os.path.exists(owner) or is_known(owner):
        with suppress(ImportError):
            importlib.import_module("torch")


def _put_back(before: Sequence[tuple[Setting, Any]]) -> dict[str, str]:
    """Write what differs; by its name, what became of it. What cannot be put back is said to stay."""
    changed = [(setting, value, now) for setting, value in before if (now := setting.read()) != value]
    for setting, value, _ in changed:
        with suppress(Exception):  # it is read once more below
            if setting.read() != value:  # what was written before may have brought it along
                setting.write(value)
    return {
        setting.name: setting.said(value, now) + ("" if setting.read() == value else " (it stays so)")
        for setting, value, now in changed
        if now is not None or setting.show  # None: torch tells it by a newer switch, which is named
    }


def _random_put_back(states: Sequence[tuple[Setting, Any]], seed: int | None, when: When) -> dict[str, str]:
    found: dict[str, str] = {}
    seeded = seed != torch_seed()
    for setting, state in states:
        torchs_own, moved = setting.name.startswith("torch"), setting.read() != state
        if torchs_own and seeded:
            found[setting.name] = f"seeded with {torch_seed()}"
        elif moved and not torchs_own and when == "on import":
            found[setting.name] = "drawn from or seeded"
    for setting, state in states:
        if seeded or when == "on import" or not setting.name.startswith("torch"):
            setting.write(state)
    return found
