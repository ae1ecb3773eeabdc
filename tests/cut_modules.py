"""The source of modules that pass no gradient, for tests to put into files of a user's."""

CUT = """
import torch
from torch import nn

class Plain(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)
    def forward(self, x, y):
        return self.fc(x + y)

class NoGrad(Plain):
    @torch.no_grad()
    def forward(self, x, y):
        return self.fc(x + y)

class Detached(Plain):
    def forward(self, x, y):
        return self.fc((x + y).detach()).detach()
"""
