"""Images a second of `ablate`'s training against an ordinary DataLoader loop on the same network and recipe.

    python scripts/bench_training.py --rounds 5 --out reports/NAME/training.md

Ordinary: one training in one process that uses all cores, as most scripts do: a `Dataset` that crops, flips and
normalises image by image, a `DataLoader` with a worker a core, contiguous float32, SGD. Ours: as many cells at a time
as there are cores, one thread each, as `ablate` runs them (on a GPU: one cell alone). Both train the same number of
images on the same network in alternating rounds in one run of this script; what is compared is images trained a
second on the whole machine, as a ratio a round. Starting processes, loading data and evaluation are left out for both.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import statistics
import sys
import time
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from afftool.data import load
from afftool.environment import read
from afftool.spec import FusionSpec, HostSpec
from afftool.study.arrays import Arrays, arrays
from afftool.study.cells import CellSpec
from afftool.study.network import build_network
from afftool.study.plan import Conditions, plan
from afftool.study.recipe import Recipe, recipe
from afftool.study.spec import StudySpec, Variant
from afftool.study.train import train


class NoCheckpoint:
    """Nothing to go on from, nothing kept."""

    def load(self) -> bytes | None:
        return None

    def save(self, packed: bytes) -> None:
        pass


class Images(Dataset[tuple[Tensor, int]]):
    """An ordinary dataset: one image at a time, cropped, flipped, normalised; as a tutorial would write it."""

    def __init__(self, data: Arrays, chosen: Recipe) -> None:
        self.images = torch.from_numpy(data.train_images).permute(0, 3, 1, 2).contiguous()
        self.labels = data.train_targets
        self.mean, self.std = (torch.tensor(values)[:, None, None] / 255 for values in (data.mean, data.std))
        self.pad = round(chosen.crop * min(data.size))
        self.flip = chosen.flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index].float() / 255
        height, width = image.shape[1:]
        if self.pad:
            image = nn.functional.pad(image, (self.pad,) * 4)
            top, left = (int(torch.randint(2 * self.pad + 1, ())) for _ in range(2))
            image = image[:, top : top + height, left : left + width]
        if self.flip and torch.rand(()) < 0.5:
            image = image.flip(2)
        return (image - self.mean) / self.std, int(self.labels[index])


def ordinary(cell: CellSpec, data: Arrays, device: str, workers: int) -> float:
    """Images a second of the ordinary loop, after one epoch that is not counted."""
    chosen = cell.recipe
    host, fusion = HostSpec.parse(cell.host), FusionSpec.parse(cell.fusion)
    network = build_network(host, fusion, seed=cell.seed).module.to(device).train()
    loader = DataLoader(
        Images(data, chosen),
        batch_size=chosen.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device != "cpu",
    )
    optimizer = torch.optim.SGD(
        network.parameters(), lr=chosen.lr, momentum=chosen.momentum, nesterov=True, weight_decay=chosen.weight_decay
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=chosen.label_smoothing)
    seconds, count = 0.0, 0
    for epoch in range(chosen.epochs + 1):
        started = time.perf_counter()
        for images, labels in loader:
            loss = criterion(network(images.to(device, non_blocking=True)), labels.to(device, non_blocking=True))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            count += len(images) if epoch else 0
        if device != "cpu":
            torch.cuda.synchronize()
        seconds += (time.perf_counter() - started) if epoch else 0
    return count / seconds


def cell_worker(pipe: Connection, cell: CellSpec, data: Arrays) -> None:
    """Train a cell whenever told to, and say how many images a second it did."""
    warm = dataclasses.replace(cell, recipe=cell.recipe.with_settings({"epochs": 1}))
    train(warm, data, checkpoint=NoCheckpoint(), report=lambda _: None)
    pipe.send(None)
    while pipe.recv():
        pipe.send(train(cell, data, checkpoint=NoCheckpoint(), report=lambda _: None).images_per_s)


def ordinary_worker(pipe: Connection, cell: CellSpec, data: Arrays, device: str, workers: int) -> None:
    """Run the ordinary loop whenever told to, in a process with torch's own choice of threads."""
    pipe.send(None)
    while pipe.recv():
        pipe.send(ordinary(cell, data, device, workers))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="resnet:b=1")
    parser.add_argument("--fusion", default="aff")
    parser.add_argument("--data", default="shapes:size=32:test=100")
    parser.add_argument("--train-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0))
    spec = StudySpec(
        name="training",
        variants=(Variant.of(options.fusion), Variant.of("add" if options.fusion != "add" else "concat")),
        baseline=options.fusion,
        host=options.host,
        data=options.data,
        train_images=options.train_images,
        seeds=(0,),
        recipe=recipe("short", epochs=options.epochs, batch=options.batch),
    )
    cell = plan(spec, Conditions(device=device, compiled="never")).cells[0][2]
    data = arrays(load(options.data, train_images=options.train_images), "classify")

    context = multiprocessing.get_context("spawn")
    ours, theirs = [], []
    for _ in range(cores if device == "cpu" else 1):
        mine, other = context.Pipe()
        context.Process(target=cell_worker, args=(other, cell, data), daemon=True).start()
        ours.append(mine)
    mine, other = context.Pipe()
    loop = context.Process(target=ordinary_worker, args=(other, cell, data, device, cores))
    loop.start()
    theirs.append(mine)
    for pipe in (*ours, *theirs):
        pipe.recv()

    def measure(pipes: list[Connection]) -> float:
        for pipe in pipes:
            pipe.send(True)
        return sum(pipe.recv() for pipe in pipes)

    rows = []
    for number in range(options.rounds):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        speeds = {id(pipes): measure(pipes) for pipes in order}
        rows.append((speeds[id(ours)], speeds[id(theirs)]))
        print(f"round {number}: {rows[-1][0]:,.0f} against {rows[-1][1]:,.0f} images/s", flush=True)
    for pipe in (*ours, *theirs):
        pipe.send(False)
    loop.join()

    text = report(options, rows, len(ours), device)
    print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 0


def report(options: argparse.Namespace, rows: list[tuple[float, float]], cells: int, device: str) -> str:
    """Markdown: the machine, the setting, every round, the median ratio."""
    environment = read(device)
    ratios = [mine / other for mine, other in rows]
    setting = {key: value for key, value in vars(options).items() if key != "out"}
    lines = [
        "# Training throughput against an ordinary DataLoader loop",
        "",
        f"- command: `python scripts/{' '.join([Path(sys.argv[0]).name, *sys.argv[1:]])}`, {date.today()}",
        f"- machine: {environment.gpu or environment.cpu}, {environment.cores} cores, torch {environment.torch}",
        "- setting: " + ", ".join(f"{key}={value}" for key, value in setting.items()),
        f"- ours: {cells} cell(s) at a time on {device}; theirs: one training, a DataLoader worker a core",
        f"- **median ratio {statistics.median(ratios):.2f}, lowest {min(ratios):.2f}, highest {max(ratios):.2f}**",
        "",
        "| round | ours (images/s) | DataLoader loop (images/s) | ratio |",
        "| ---: | ---: | ---: | ---: |",
        *(f"| {n} | {mine:,.0f} | {other:,.0f} | {mine / other:.2f} |" for n, (mine, other) in enumerate(rows)),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
