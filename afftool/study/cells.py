"""What training a cell gave: one flat record, and which stored ones make a cell finished."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from afftool.plain import Plain
from afftool.study.spec import CellSpec

CellStatus = Literal["ok", "failed"]

MEASURED = ("images_per_s", "train_s", "finished_at")
"""Fields that tell how the training went on that day; all others are the same bit for bit in every run of a cell."""


@dataclass(frozen=True, kw_only=True)
class CellRecord(Plain):
    """One trained cell. `accuracy` (top-1) or `miou` is a share in [0, 1] on the test split after the last epoch.

    `bands` is the same score per object-size band. `losses` are the mean training losses per epoch, `scores` the
    test scores at the epochs they were taken. `signal` is the root mean square of each fusion's output at
    initialisation, in the order of the forward pass. `digest` hashes the trained weights. `failed_step` is the step
    (from 0) whose loss was no usable number. `params` and `macs` are the whole network's for one image.
    """

    cell: CellSpec
    identity: str
    status: CellStatus = "ok"
    reason: str | None = None
    failed_step: int | None = None
    accuracy: float | None = None
    miou: float | None = None
    bands: dict[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    scores: dict[str, float] = field(default_factory=dict)
    signal: tuple[float, ...] = ()
    digest: str = ""
    params: int | None = None
    macs: int | None = None
    images_per_s: float | None = None
    train_s: float | None = None
    finished_at: str = ""

    @property
    def score(self) -> float | None:
        """Accuracy or mIoU, whichever the cell's host is judged by."""
        return self.accuracy if self.miou is None else self.miou

    @property
    def finished(self) -> bool:
        """Whether training it again could give nothing else: it was trained, or its loss diverged."""
        return self.status == "ok" or self.failed_step is not None

    def result(self) -> dict[str, Any]:
        """Every field that a repetition must reproduce bit for bit on the CPU."""
        return {key: value for key, value in self.to_dict().items() if key not in MEASURED}


def latest(rows: Iterable[dict[str, Any]]) -> dict[str, CellRecord]:
    """The last record of every cell among stored rows, by identity.

    A record that is not finished never replaces one that is: stores are merged in any order.
    """
    records: dict[str, CellRecord] = {}
    for row in rows:
        if "identity" in row:
            record = CellRecord.from_dict(row)
            before = records.get(record.identity)
            if record.finished or before is None or not before.finished:
                records[record.identity] = record
    return records


def finished(rows: Iterable[dict[str, Any]]) -> dict[str, CellRecord]:
    """The cells among stored rows that need no training: those whose last record is finished."""
    return {identity: record for identity, record in latest(rows).items() if record.finished}
