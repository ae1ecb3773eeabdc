"""Networks that carry fusions. A host builder takes a fusion *factory* (channels -> module), never a fusion's name.

A host of one's own is any callable that takes a fusion factory and its own keys, and gives a network; with this in
mynets.py, `--host mynets:Net:width=64` names it:

    from torch import nn
    class Net(nn.Module):
        def __init__(self, fusion, width=32, classes=10):
            super().__init__()
            self.stem, self.branch = nn.Conv2d(3, width, 3, stride=2), nn.Conv2d(width, width, 3, padding=1)
            self.fuse, self.head = fusion(width), nn.Linear(width, classes)
        def forward(self, image):
            x = self.stem(image)
            return self.head(self.fuse(x, self.branch(x)).mean((2, 3)))

A builder calls the factory once for every place that fuses, with the channels of the maps there. `ablate placement`
also needs a key `stages` of it, which `afftool/study/grids.py` describes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from afftool import catalog
from afftool.errors import SpecError
from afftool.fusion import FusionFactory, fusion_factory
from afftool.graft.network import MODES
from afftool.graft.opening import Shapes, grafted
from afftool.graft.trace import Mode
from afftool.hosts.stages import Fused, Stage, read_stages
from afftool.own import build_own
from afftool.registry import load
from afftool.spec import FusionSpec, HostSpec
from afftool.spec.text import read_literal

__all__ = ["Fused", "FusionFactory", "Stage", "build_host", "describe_host"]


def build_host(
    host: HostSpec,
    fusion: FusionSpec | FusionFactory | None,
    *,
    shapes: Shapes | None = None,
    dtype: torch.dtype = torch.float32,
    modes: Sequence[Mode] = MODES,
) -> nn.Module:
    """Build `host` with a fresh `fusion` wherever it fuses; its input is an image batch `(N, 3, H, W)`.

    A network that fusions are grafted into is traced in these `modes` for inputs of these `shapes` (else of those that
    its text says), and has this `dtype`. No fusion, or `original`, leaves it as it is. Raises `SpecError` for a knob's
    value the host cannot take, and `LoadError` for a builder of the user's own that cannot be found or gives no module.
    """
    if isinstance(fusion, FusionSpec):
        fusion = None if fusion.original else fusion_factory(fusion)
    if host.graft is not None:
        return grafted(host, fusion, shapes or host.graft.input_shapes(2), dtype=dtype, modes=modes)
    if fusion is None:
        raise SpecError(f"{host} is built around its fusions", hint="original is for --host graft:pkg.mod:build")
    return _build(host, fusion)


def describe_host(host: HostSpec, size: int | None = None) -> tuple[Stage, ...]:
    """The host's stages, and where and at how many channels it fuses, for one image of `size` (or its own) pixels.

    Built on the meta device, so it costs no memory; works for any host that takes a fusion factory. Raises as
    `build_host` does, and `LoadError` if the network does not run on the meta device.
    """
    known = catalog.HOSTS.get(host.name)
    return read_stages(lambda fusion: _build(host, fusion), size or (known.size if known else 64))


def bare_module(fusion: FusionFactory, *, channels: int = 64) -> nn.Module:
    """The host that is none: the fusion itself, of `channels` channels; the case's own, which no knob sets."""
    return fusion(channels)


def _build(host: HostSpec, fusion: FusionFactory) -> nn.Module:
    if host.target is None:
        module: nn.Module = load(catalog.HOSTS[host.name].path)(fusion, **dict(host.options))
        return module
    return build_own(
        host.name,
        host.target,
        {key: read_literal(value) for key, value in host.options},
        fusion,
        offers={},
        hint="a host is called with a fusion factory: `fusion(channels)` gives a module to call as `fuse(x, y)`",
    )
