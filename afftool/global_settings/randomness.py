"""The random generators that everybody in the process draws from, and torch's seed."""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import Any

from afftool.global_settings.setting import Setting


def generators() -> list[Setting]:
    """The random generators that everybody draws from, by whose they are; read as their whole state."""
    found = [Setting("Python's random numbers", random.getstate, random.setstate, _drawn)]
    if numpy := sys.modules.get("numpy"):
        state = numpy.random.mtrand._rand
        found.append(Setting("NumPy's random numbers", partial(_numpy_state, state), state.set_state, _drawn))
    torch = sys.modules.get("torch")
    if torch is not None:
        found.append(Setting("torch's random numbers", partial(_torch_state, torch), partial(_set_torch_state, torch)))
    return found


def torch_seed() -> int | None:
    """What torch's generator was seeded with last; None before torch is loaded."""
    torch = sys.modules.get("torch")
    return torch.initial_seed() if torch is not None else None


def mark_torch_seed() -> int | None:
    """Seed torch's generator with a number that no file would, so that any seed of a file's own shows; that number."""
    torch = sys.modules.get("torch")
    return torch.default_generator.manual_seed(_NOBODYS_SEED).initial_seed() if torch is not None else None


_NOBODYS_SEED = 6_028_318_530_717_958


def _numpy_state(generator: Any) -> tuple[Any, ...]:
    kind, keys, *rest = generator.get_state()
    return (kind, tuple(keys.tolist()), *rest)  # an array would be compared element by element


def _torch_state(torch: Any) -> tuple[bytes, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return tuple(bytes(state.numpy()) for state in (torch.get_rng_state(), *cuda))


def _set_torch_state(torch: Any, states: tuple[bytes, ...]) -> None:
    cpu, *cuda = (torch.tensor(list(state), dtype=torch.uint8, device="cpu") for state in states)
    torch.set_rng_state(cpu)
    for index, state in enumerate(cuda):
        torch.cuda.set_rng_state(state, index)


def _drawn(_state: Any) -> str:
    return "drawn from or seeded"
