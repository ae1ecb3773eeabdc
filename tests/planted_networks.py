"""Networks whose additions are written in every way that people write them, and with what goes wrong around them.

Each takes an image of three channels and has `ADDITIONS[name]` sites that add; `REFUSED` are those that cannot be kept.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import nn
from torch.autograd import Function
from torch.nn import functional as F
from torch.nn.utils import parametrizations

WIDTH = 4


def conv(channels: int = WIDTH, out: int = WIDTH, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, padding=1)


class Net(nn.Module):
    """A stem, and what a network of its own does with its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.f, self.head = conv(3), conv(), nn.Linear(WIDTH, 5)

    def forward(self, image: torch.Tensor) -> Any:
        return self.head(self.body(self.stem(image)).mean((2, 3)))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.f(x)


class InPlace(Net):
    """The addition of torchvision's blocks, and a ReLU that writes into it."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        y += x
        return self.f(y.relu_())


class ReluAfterSkip(Net):
    """Pre-activation whose ReLU writes into the skip after it was added."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        z = x + self.f(x.clone())
        x.relu_()
        return z + 2


class ReluBeforeBranch(Net):
    """Pre-activation whose ReLU writes into the map that is then the skip."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        branch = self.f(F.relu(x, inplace=True))
        return branch + x


class IntoTheSkip(Net):
    """An addition that writes into the skip, which is read again afterwards."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        z = x.add_(self.f(x).detach())
        return z * x.sigmoid()


class ViewOfWritten(Net):
    """A view taken before its memory is written at a site, and read afterwards."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        flat = y.flatten(1)
        y += x
        return y * flat.mean(1)[:, None, None, None]


class ViewOfMap(Net):
    """A view of a map that a site adds, and that is written after the site."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        flat = y.flatten(1)
        z = x + y
        y.relu_()
        return z * flat.mean(1)[:, None, None, None]


class ViewOfSum(Net):
    """A view of what a site gives, which is written afterwards."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        z = x + self.f(x)
        flat = z.flatten(1)
        z.mul_(2).relu_()
        return z.sigmoid() + flat.mean(1)[:, None, None, None]


class IntoAPiece(Net):
    """An addition that writes into a piece of a map that is read as a whole later."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        y[:, 2:].add_(x[:, :2])
        return y


class DropoutInPlace(Net):
    """Dropout gives its input itself in eval mode, which the addition then writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.4)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.drop(self.f(x))
        y += x
        return y


class DropoutInPlaceOfTheSkip(Net):
    """The map before the dropout, which eval mode's addition writes into, is read later."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        z = F.dropout(y, 0.4, self.training)
        z += x
        return z * y


class DropoutAndNorm(Net):
    """Random numbers, and buffers that training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm2d(WIDTH, momentum=0.3), nn.Dropout(0.4)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop(self.norm(self.f(x)))
        return x + F.dropout(self.f(x), 0.2, self.training)


class DictOutput(Net):
    def forward(self, image: torch.Tensor) -> Any:
        x = self.stem(image)
        return {"logits": self.head((x + self.f(x)).mean((2, 3))), "maps": (x, [x])}


class TwoInputs(Net):
    """Two images, by place or by name, and what has a default."""

    def forward(self, image: torch.Tensor, depth: torch.Tensor, *, scale: float = 2.0) -> Any:
        x, y = self.stem(image), self.stem(depth.expand(-1, 3, -1, -1))
        return self.head((x + self.f(y) * scale).mean((2, 3)))


class CalledTwice(Net):
    """One block twice, with a skip each."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.block(self.block(x))


class Block(nn.Module):
    def __init__(self, channels: int = WIDTH) -> None:
        super().__init__()
        self.f = conv(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.f(x))


class Repeated(Net):
    """Three blocks alike, and one that is wider."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), Block())
        self.down, self.last, self.head = conv(WIDTH, 2 * WIDTH, 2), Block(2 * WIDTH), nn.Linear(2 * WIDTH, 5)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.down(self.blocks(x)))


class _StraightThrough(Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: float) -> torch.Tensor:
        ctx.scale = scale
        return torch.round(x * scale)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0] * ctx.scale * 3, None


class OwnBackward(Net):
    """A function whose backward is not the derivative of its forward."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + _StraightThrough.apply(self.f(x), 2.0)


class ConstantInForward(Net):
    def body(self, x: torch.Tensor) -> torch.Tensor:
        column = torch.arange(x.shape[2], device=x.device).to(x.dtype)[:, None] + torch.tensor([0.5, 1.0]).sum().to(x)
        return x * column + self.f(x)


class NoGradient(Net):
    """A branch that is not to be trained."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            target = self.f(x) * 2
        return x + self.f(x) * target + F.relu(x.detach())


class AuxiliaryHead(Net):
    """A second output in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = nn.Linear(WIDTH, 5)

    def forward(self, image: torch.Tensor) -> Any:
        x = self.body(self.stem(image))
        logits = self.head(x.mean((2, 3)))
        return (logits, self.aux(x.amax((2, 3)))) if self.training else logits


class Weighted(Net):
    """An addition of half a map is no site; the next is one."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.add(x, self.f(x), alpha=0.5)
        return x + self.f(x)


class ChannelsLast(Net):
    """An addition where channels are the last dimension is no site; the next is one."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(x.permute(0, 2, 3, 1))
        y = y + self.mix(y)
        return x + y.permute(0, 3, 1, 2)


class SumOfList(Net):
    """Python's sum begins with 0, which is no map."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return sum([x, self.f(x), self.f(self.f(x))])  # type: ignore[return-value]


class AddInto(Net):
    """`torch.add` with a place for its result, which autograd does not allow."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            y = self.f(x)
            torch.add(x, y, out=y)
        return x + self.f(y)


class HiddenBuffer(Net):
    """A buffer that is not stored."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.rand(1, WIDTH, 1, 1), persistent=False)
        self.register_buffer("seen", torch.zeros(()))

    def body(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen += 1
        return x * self.mask + self.f(x)


class Tied(Net):
    def __init__(self) -> None:
        super().__init__()
        self.g = conv()
        self.g.weight = self.f.weight

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.g(self.f(x))


class Parametrized(Net):
    """A weight that is computed from two parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.f = parametrizations.weight_norm(self.f)


class Remembers(Net):
    """A forward that sets an attribute to what it has worked out."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        self.last = self.f(x)
        self.calls = getattr(self, "calls", 0) + 1
        return x + self.last


class Concatenates(Net):
    """Maps of unequal widths, of three branches, and with itself, which is no site."""

    def __init__(self) -> None:
        super().__init__()
        self.g, self.head = conv(WIDTH, 6), nn.Linear(2 * (2 * WIDTH + 6), 5)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat((self.g(x), x), 1)
        y = torch.cat([y, self.f(x)], dim=-3)
        return torch.cat((y, y), 1)


class SizeInTheWeights(Net):
    """A head that fits one size."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(WIDTH * 8 * 8, 5)

    def forward(self, image: torch.Tensor) -> Any:
        return self.head(self.body(self.stem(image)).flatten(1))


class LearnsItsWidth(Net):
    """A lazy layer, which has no weights before the first call."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.LazyConv2d(WIDTH, 3, padding=1)


class Branches(Net):
    """What it does depends on the values of its maps."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        y = self.f(x)
        return x + y if y.sum() > 0 else x


class TakesMore(Net):
    """A forward that takes further arguments, as detectors' do."""

    def forward(self, image: torch.Tensor, *more: Any, **named: Any) -> Any:
        return super().forward(image)


ADDITIONS: dict[type[Net], int] = {
    Net: 1,
    TakesMore: 1,
    InPlace: 1,
    ReluAfterSkip: 1,
    ReluBeforeBranch: 1,
    IntoTheSkip: 1,
    ViewOfMap: 1,
    ViewOfSum: 1,
    DropoutInPlace: 1,
    DropoutAndNorm: 2,
    DictOutput: 1,
    CalledTwice: 2,
    Repeated: 4,
    OwnBackward: 1,
    ConstantInForward: 1,
    NoGradient: 2,
    AuxiliaryHead: 1,
    Weighted: 1,
    ChannelsLast: 1,
    SumOfList: 2,
    AddInto: 1,
    HiddenBuffer: 1,
    Tied: 1,
    Parametrized: 1,
    Remembers: 1,
    Concatenates: 0,
    SizeInTheWeights: 1,
}


class Dice(Net):
    """A branch that training leaves out where Python's dice say so."""

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training and random.random() < 0.5 else x + self.f(x)
