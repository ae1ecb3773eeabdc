"""Networks of a user's: one that joins maps in every way, and ones that cannot be grafted as they are."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class UNet(nn.Module):
    """Sites 1 and 2 add at full size, 3 and 4 at half of it, 5 concatenates both."""

    def __init__(self, width=8, classes=5):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.top = nn.Sequential(Block(width), Block(width))
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.low = nn.Sequential(Block(2 * width), Block(2 * width))
        self.after = nn.Conv2d(3 * width, width, 3, padding=1)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image):
        top = self.top(self.stem(image))
        low = functional.interpolate(self.low(self.down(top)), scale_factor=2)
        return self.head(self.after(torch.cat([top, low], 1)))


class TwoInputs(UNet):
    def forward(self, image, mask):
        return super().forward(image) * mask


class OneSize(UNet):
    def forward(self, image):
        return super().forward(image).reshape(image.shape[0], 5, 16, 16)


class JoinsNothing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, image):
        return self.conv(image)


class LooksAtValues(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = UNet()

    def forward(self, image):
        if image.sum() > 0:
            return self.body(image)
        return self.body(-image)


def no_network():
    return 3


class HalfAsWide(nn.Module):
    """A fusion that gives another shape than it is given."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, x, y):
        return (x + y)[..., ::2]


class OnItsOwnWidth(nn.Module):
    """A fusion that fits one width alone."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x, y):
        return x + self.conv(y)


class ByValue(nn.Module):
    """A fusion that looks at values, and so cannot be called where there are none."""

    def __init__(self, channels):
        super().__init__()

    def forward(self, x, y):
        return x + y if x.sum() > 0 else y + x
