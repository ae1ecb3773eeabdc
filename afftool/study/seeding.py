"""Random numbers by name: every draw of a cell has its own generator, keyed by what it is for.

So nothing depends on how many numbers something else drew before: a host starts alike whatever fusion it carries,
and epoch seven shuffles alike whether the six before were trained in this process or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def key(*parts: object) -> int:
    """A 63-bit seed from what it is for, for example `key(seed, "order", epoch)`."""
    return int.from_bytes(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:8], "big") >> 1


def generator(*parts: object) -> torch.Generator:
    """A fresh CPU generator for `parts`."""
    return torch.Generator().manual_seed(key(*parts))


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Torch's global CPU generator set for `parts` inside, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(*parts))
        yield
