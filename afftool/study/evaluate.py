"""Score a network on the test split, in large batches: accuracy or mIoU, whole and per object-size band."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from afftool.data.splits import IGNORE
from afftool.study.arrays import Arrays

PIXELS = 2**19
"""Pixels a batch: 512 images of 32x32. Fixed by the data alone, so that sums are taken in one order everywhere."""


@dataclass(frozen=True)
class Scores:
    """A share in [0, 1], and the same per band that has images."""

    score: float
    bands: dict[str, float]


def evaluate(module: nn.Module, data: Arrays, prepare: Callable[[Tensor], Tensor]) -> Scores:
    """Top-1 accuracy, or the mean over classes of intersection over union with void pixels left out."""
    device = next(module.parameters()).device
    whole = _metric(data, device)
    banded = [_metric(data, device) for _ in data.bands] if data.test_bands is not None else []
    height, width = data.size
    batch = max(1, PIXELS // (height * width))
    module.eval()
    with torch.inference_mode():
        for start in range(0, len(data.test_images), batch):
            part = slice(start, start + batch)
            images = torch.from_numpy(data.test_images[part]).to(device)
            targets = torch.from_numpy(data.test_targets[part]).to(device).long()
            found = module(prepare(images)).argmax(dim=1)
            whole.update(found, targets)
            if data.test_bands is not None:
                bands = torch.from_numpy(data.test_bands[part]).to(device)
                for number, metric in enumerate(banded):
                    if (inside := bands == number).any():
                        metric.update(found[inside], targets[inside])
    counts = [] if data.test_bands is None else np.bincount(data.test_bands, minlength=len(banded)).tolist()
    scores = {
        name: _share(metric, count, data)
        for name, metric, count in zip(data.bands, banded, counts, strict=False)
        if count
    }
    return Scores(_share(whole, len(data.test_images), data), scores)


def _share(metric: Metric, images: int, data: Arrays) -> float:
    """What the metric computed; an accuracy, which it gives in single precision, as the exact share of the images."""
    value = float(metric.compute())
    return round(value * images) / images if data.task == "classify" else value


def _metric(data: Arrays, device: torch.device) -> Metric:
    if data.task == "classify":
        return MulticlassAccuracy(data.classes, average="micro", validate_args=False).to(device)
    return MulticlassJaccardIndex(data.classes, ignore_index=IGNORE, validate_args=False).to(device)
