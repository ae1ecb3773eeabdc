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
also needs a key `stages` of it, which `afftool/study/stages.py` describes.
"""

from __future__ import annotations

import ast
import inspect
from typing import Any

from torch import nn

from afftool import catalog
from afftool.errors import AfftoolError, LoadError, UnknownKey
from afftool.fusion import FusionFactory, fusion_factory
from afftool.hosts.stages import Fused, Stage, read_stages
from afftool.registry import load
from afftool.spec import FusionSpec, HostSpec

__all__ = ["Fused", "FusionFactory", "Stage", "build_host", "describe_host"]


def build_host(host: HostSpec, fusion: FusionSpec | FusionFactory) -> nn.Module:
    """Build `host` with a fresh `fusion` wherever it fuses; its input is an image batch `(N, 3, H, W)`.

    Raises `SpecError` for a knob's value the host cannot take, and `LoadError` for a builder of the user's own that
    cannot be found or does not give a module.
    """
    return _build(host, fusion_factory(fusion) if isinstance(fusion, FusionSpec) else fusion)


def describe_host(host: HostSpec, size: int | None = None) -> tuple[Stage, ...]:
    """The host's stages, and where and at how many channels it fuses, for one image of `size` (or its own) pixels.

    Built on the meta device, so it costs no memory; works for any host that takes a fusion factory. Raises as
    `build_host` does, and `LoadError` if the network does not run on the meta device.
    """
    known = catalog.HOSTS.get(host.name)
    return read_stages(lambda fusion: _build(host, fusion), size or (known.size if known else 64))


def _build(host: HostSpec, fusion: FusionFactory) -> nn.Module:
    if host.target is None:
        module: nn.Module = load(catalog.HOSTS[host.name].path)(fusion, **dict(host.options))
        return module
    return _build_own(host, host.target, fusion)


def _build_own(host: HostSpec, target: str, fusion: FusionFactory) -> nn.Module:
    make = load(target)
    if not callable(make):
        raise LoadError(f"{target} is not callable", hint="a host is a function or class that takes a fusion factory")
    options = {key: _value(text) for key, text in host.options}
    signature = inspect.signature(make)
    try:
        signature.bind(fusion, **options)
    except TypeError as error:
        kind = UnknownKey if "unexpected keyword" in str(error) else LoadError
        raise kind(
            f"{host} cannot be called: {error}",
            hint=f"its signature is {signature}; it is called with the fusion factory and the keys given",
        ) from error
    try:
        module = make(fusion, **options)
    except AfftoolError:
        raise
    except (Exception, SystemExit) as error:
        raise LoadError(
            f"{host} could not be built: {type(error).__name__}: {error}",
            hint="it is called with a fusion factory: `fusion(channels)` gives a module to call as `fuse(x, y)`",
        ) from error
    if not isinstance(module, nn.Module):
        raise LoadError(f"{target} gave a {type(module).__name__}, not an nn.Module")
    return module


def _value(text: Any) -> Any:
    """A key's value of a user's host: a Python literal if it is one, else the text."""
    words = {"true": True, "false": False, "none": None}
    if not isinstance(text, str) or text.lower() in words:
        return words[text.lower()] if isinstance(text, str) else text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
