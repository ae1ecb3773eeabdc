"""The sites of networks that people use, and whether a graft that adds is the network it was put into, to the last bit.

    pip install torch==2.14.1 torchvision==0.29.1 timm segmentation_models_pytorch ultralytics
    python scripts/graft_networks.py [--only densenet] [--size 64] [--out reports/graft-networks.md]

Each network has random weights. Its sites are counted against what is known of it; then `add` is put at every addition,
and `original` nowhere, and outputs, gradients, buffers and the state are compared with the network's own, in eval and
in training mode. Takes some minutes; exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

import torch
from grafted.same_network import NEW, differences

from afftool import environment
from afftool.errors import LoadError
from afftool.fusion import fusion_factory
from afftool.graft.opening import grafted, open_network, surveyed
from afftool.spec import FusionSpec, HostSpec

PACKAGES = ("torch", "torchvision", "timm", "segmentation_models_pytorch", "ultralytics")
GRID = (
    "with a single image it has one addition more: the grid of anchors, which no input reaches and whose first extent "
    "is always 1, is then as long as the batch, and `dist2bbox` adds the distances to it"
)


DETECTOR = "torchvision.models.detection:fasterrcnn_resnet50_fpn:weights_backbone=None:min_size=64"


@dataclass(frozen=True)
class Known:
    """A network as a host's text, and the additions and concatenations it is known to have, in eval and in training."""

    host: str
    add: int
    concat: int
    in_training: tuple[int, int] | None = None
    note: str = ""


NETWORKS = (
    Known("torchvision.models:resnet50", 16, 0),
    Known("torchvision.models:densenet121", 0, 58),
    Known("torchvision.models:convnext_tiny", 18, 0),
    Known("torchvision.models:efficientnet_b0", 9, 0),
    Known("timm:create_model:call=resnet50d", 16, 0),
    Known("timm:create_model:call=res2net50_26w_4s", 40, 16),
    Known("timm:create_model:call=hrnet_w18_small", 46, 0),
    Known("timm:create_model:call=nfnet_l0", 12, 0),
    Known("segmentation_models_pytorch:Unet:encoder_name=resnet18:encoder_weights=None", 8, 4),
    Known("segmentation_models_pytorch:FPN:encoder_name=resnet18:encoder_weights=None", 11, 0),
    Known("ultralytics:YOLO:call=yolov8n.yaml:attr=model", 7, 15, (6, 13), GRID),
    Known("ultralytics:YOLO:call=yolo11n.yaml:attr=model", 15, 19, (14, 17), GRID),
    Known(
        f"{DETECTOR}:inside=backbone",
        19,
        0,
        note="the rest of it works on as many boxes as it finds, and stays as it is",
    ),
)


def row(known: Known, shapes: tuple[tuple[int, ...], ...]) -> tuple[list[str], list[str]]:
    """A network's line of the table, and what is not as it should be."""
    torch.manual_seed(0)
    host = HostSpec.parse(f"graft:{known.host}")
    start = time.perf_counter()
    survey = surveyed(host, shapes)
    seconds = time.perf_counter() - start
    counts = [Counter(found.site.kind for found in survey.found[mode].values()) for mode in ("eval", "train")]
    got = [(count["add"], count["concat"]) for count in counts]
    expected = [(known.add, known.concat), known.in_training or (known.add, known.concat)]
    wrong = [
        f"{found} sites where {known} are known" for found, known in zip(got, expected, strict=True) if found != known
    ]
    both = [site for site in survey.sites if site.kind == "add" and survey.only(site) is None and not site.flat]
    if both:
        numbers = "+".join(str(site.number) for site in both)
        wrong += [f"add: {one}" for one in compared(HostSpec.parse(f"{host}:at={numbers}"), "add", shapes)]
    wrong += [f"original: {one}" for one in compared(host, "original", shapes)]
    cells = [
        known.host.partition(":encoder_weights")[0],
        *(f"{add} + {concat}" for add, concat in (expected[0], *got)),
        f"{seconds:.1f}",
        str(len(both)),
        "no" if wrong else "yes",
    ]
    return cells, wrong


def compared(host: HostSpec, fusion: str, shapes: tuple[tuple[int, ...], ...]) -> Iterator[str]:
    """What a graft does other than the network it was put into."""
    net = open_network(host, shapes)
    factory = None if fusion == "original" else fusion_factory(FusionSpec.parse(fusion))
    other = grafted(host, factory, shapes)
    missing, unexpected = other.load_state_dict(net.state_dict(), strict=False)
    yield from (f"{name} is missing" for name in missing if not name.startswith(NEW))
    yield from (f"{name} is unexpected" for name in unexpected)
    generator = torch.Generator().manual_seed(0)
    assert host.graft is not None
    if host.graft.inside is not None:
        net, other = (one.get_submodule(host.graft.inside) for one in (net, other))
    yield from differences(net, other, [torch.rand(shape, generator=generator) for shape in shapes])


def refusal(shapes: tuple[tuple[int, ...], ...]) -> str:
    """What is said of a network that has no graph. Raises `AssertionError` where nothing is."""
    try:
        surveyed(HostSpec.parse(f"graft:{DETECTOR}"), shapes)
    except LoadError as error:
        return str(error)
    raise AssertionError(f"{DETECTOR} was not refused")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose text holds this word")
    parser.add_argument("--size", type=int, default=64, help="height and width of the image")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    shapes = ((2, 3, asked.size, asked.size),)
    here, used = environment.read("cpu"), ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    lines = [
        "# Sites of networks that people use, and grafts that change nothing",
        "",
        f"`{shlex.join(['python', 'scripts/graft_networks.py', *sys.argv[1:]])}`",
        "",
        f"{here.cpu}, {here.threads} of {here.cores} cores, {here.platform}, Python {here.python}, {date.today()}.",
        "",
        f"With {used}.",
        "",
        f"Two images of {asked.size}x{asked.size}. Sites are additions + concatenations; seconds are those of "
        "tracing both modes. Identical are outputs, gradients, buffers and state, of both grafts, in both modes.",
        "",
        "| network | known | eval | train | seconds | `add` put at | identical |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    failed, notes = [], []
    for known in NETWORKS:
        if asked.only in known.host:
            cells, wrong = row(known, shapes)
            lines.append(f"| {' | '.join(cells)} |")
            print(lines[-1], *wrong[:5], flush=True, file=sys.stderr)
            failed += [f"- {known.host}: {one}" for one in wrong]
            notes += [f"{known.host}: {known.note}."] if known.note else []
    lines += ["", *(f"{note}\n" for note in notes)]
    if asked.only in DETECTOR:
        lines += [f"{DETECTOR} as a whole is refused:\n", "```", refusal(shapes), "```"]
    text = "\n".join([*lines, *failed]).rstrip() + "\n"
    print(text)
    if asked.out is not None:
        asked.out.write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
