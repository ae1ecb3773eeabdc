"""A grafted network as a Python file of its own: small, to be imported, trained and read by whoever comes next.

The file names the network, the fusion and the sites. It pins them: where the network has changed since, so that its
sites are others, building it fails instead of fusing somewhere else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from afftool import __version__, visible
from afftool.errors import SpecError
from afftool.fusion import FusionFactory, fusion_factory
from afftool.graft.network import Survey
from afftool.graft.opening import Shapes, grafted
from afftool.spec import FusionSpec, HostSpec
from afftool.spec.graft import SELECTION_KEYS
from afftool.spec.site import Site
from afftool.written import Kind

_MARK = '"""A grafted network, written by afftool'
MODULE_FILE = Kind(
    name="module that afftool wrote",
    is_ours=lambda head: head.startswith(_MARK.encode()),
    instead="name another file by --save",
    force="--force",
)


def graft_network(
    network: str,
    fusion: str | FusionFactory | None,
    *,
    shapes: Shapes | None = None,
    sites: Mapping[int, str] | None = None,
    **keys: Any,
) -> nn.Module:
    """A network of your own with `fusion` at its sites: `graft_network("mynets:build:at=add", "iaff")`.

    `network` is `pkg.mod:build[:key=value]...`, as `afftool graft` takes it; `keys` are added to it, the network's own
    ones too. `shapes` are `(N, C, *S)` of its inputs, a batch of two of 224 x 224 pixels unless its text says else.
    `sites` says what each is in words (`words_of`), and is refused where the network has another there. All parameters
    keep their names; the new ones are those of the child `fusions`, so a checkpoint of the network itself is loaded
    by `load_state_dict(checkpoint, strict=False)`. Raises `LoadError`, `SpecError` and `ShapeError`.
    """
    host = HostSpec.grafted(network.removeprefix("graft:"))
    if keys:
        host = host.with_settings(**keys)
    assert host.graft is not None
    shapes = shapes or host.graft.input_shapes(2)
    made = _factory(fusion)

    def pinned(survey: Survey) -> None:
        if sites is not None:
            check_pinned(host.target or host.name, survey.sites, sites)

    return grafted(host, made, shapes, check=pinned)


def check_pinned(name: str, found: Sequence[Site], sites: Mapping[int, str]) -> None:
    """Refuse a network in which a site is not what it was. Raises `SpecError`."""
    now = {site.number: words_of(site) for site in found}
    for number, words in sites.items():
        if now.get(number) != words:
            has = f"and is {now[number]}" if number in now else f"and it has {len(now)} sites"
            raise SpecError(
                f"{name} has changed: its site {number} was {words}, {has}",
                hint="look at its sites by `afftool graft`, and save it again",
            )


def words_of(site: Site) -> str:
    """What a site is, as a saved file pins it: `add in layer1.0 at resnet.py:146`."""
    return f"{site.kind} in {site.where} at {site.line}"


def saved_file(host: HostSpec, fusion: FusionSpec, shapes: Shapes, chosen: Sequence[Site]) -> str:
    """The Python file of a graft: `build(**keys)` gives the network with `fusion` at the `chosen` sites."""
    keys = {key: value for key, value in host.options if key not in SELECTION_KEYS}
    at = _ranges([site.number for site in chosen])
    text = HostSpec.grafted(host.target or "").with_settings(**keys, at=at).text.removeprefix("graft:")
    pins = "\n".join(f"    {site.number}: {_literal(words_of(site))}," for site in chosen)
    batched = tuple((max(shape[0], 2), *shape[1:]) for shape in shapes)
    return f'''{_MARK} {__version__}: {_in_words(fusion.text)} in
{_in_words(host.target or "")}, at the sites below.

Import it and train it as any other module:

    net = build()  # or with keys of the network's own, as build(num_classes=10)
    net.load_state_dict(checkpoint, strict=False)  # one of the network itself: only `fusions.*` are missing
"""

from torch import nn

from afftool.graft import graft_network

NETWORK = {_literal(text)}
FUSION = {_literal(fusion.text)}
SHAPES = {batched!r}  # of its inputs, as it is traced; batch and sizes may vary as the network allows
SITES = {{
{pins}
}}


def build(**keys: object) -> nn.Module:
    """The network with the fusion at each of SITES, its new parameters under `fusions`."""
    return graft_network(NETWORK, FUSION, shapes=SHAPES, sites=SITES, **keys)
'''


def _factory(fusion: str | FusionFactory | None) -> FusionFactory | None:
    if not isinstance(fusion, str):
        return fusion
    spec = FusionSpec.parse(fusion)
    return None if spec.original else fusion_factory(spec)


def _ranges(numbers: Sequence[int]) -> str:
    """`1-3+7` for 1, 2, 3 and 7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return "+".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts) or "none"


def _literal(text: str) -> str:
    """A text as Python writes it, in the quotes that formatters want."""
    shown = repr(text)
    return f'"{shown[1:-1]}"' if shown[0] == "'" and '"' not in shown else shown


def _in_words(text: str) -> str:
    """A text of the user's within a docstring: it can neither end it nor escape anything."""
    return visible.line(text).replace("\\", "/").replace('"', "'")
