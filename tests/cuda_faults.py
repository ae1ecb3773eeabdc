"""Fusions of one's own with a fault that shows on a GPU alone; on the CPU they add."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TAKEN_BYTES = 64 * 2**20


class Asserting(nn.Module):
    """Looks up what is not there: an assertion in a kernel fails, and the process's context with it."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.is_cuda:
            table = torch.zeros(4, device=x.device)
            return x + y + table[torch.full((1,), 99, device=x.device)].to(x.dtype)
        return x + y


class Hungry(nn.Module):
    """Takes some memory, and then asks for more than there is."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if x.is_cuda:
            taken = torch.empty(TAKEN_BYTES, dtype=torch.uint8, device=x.device)
            return x + y + torch.empty(2**48 + len(taken), dtype=torch.uint8, device=x.device)[0]
        return x + y
