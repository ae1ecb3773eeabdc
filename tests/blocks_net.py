"""A small network of somebody's own, of residual blocks: three additions, and a concatenation of unequal widths."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SOURCE = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem, self.first, self.second = nn.Conv2d(3, width, 3, padding=1), Block(width), Block(width)
        self.down, self.third = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), Block(2 * width)
        self.up = nn.Upsample(scale_factor=2)
    def forward(self, image):
        x = self.second(self.first(self.stem(image)))
        return torch.cat([x, self.up(self.third(self.down(x)))], 1).mean((2, 3))
"""
PLACES = {"add 2*8@16x16": 2, "add 2*16@8x8": 1, "concat 2*16@16x16": 1}
"""Where it fuses, for an image of 16x16."""


@contextmanager
def written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The network as a module in `folder`, which is then the current one; its name."""
    name = f"blocks_net_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(SOURCE)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("AFFTOOL_STORE", raising=False)
    yield name
    sys.modules.pop(name, None)
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]
