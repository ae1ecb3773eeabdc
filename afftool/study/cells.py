"""What a study keeps: its plan, what each cell is, its last epoch while it trains, and what came of it.

Plans and records are rows of the store; a checkpoint is a file a cell. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from afftool.plain import Plain, digest
from afftool.study.recipe import Recipe
from afftool.written import left_of, replacing

Task = Literal["classify", "segment"]
CellStatus = Literal["ok", "failed"]

MEASURED = ("images_per_s", "train_s", "gpu", "finished_at")
"""Fields that tell how and where the training went on that day; all others are the same bit for bit in every run."""


@dataclass(frozen=True, kw_only=True)
class CellSpec(Plain):
    """One variant trained with one seed. Two cells with equal fields give equal results, bit for bit on the CPU.

    Texts are in their shortest form. `fingerprint` is the data's, `code` that of modules of the user's own. `threads`,
    `dtype` and `compiled` are how the training runs, because they decide in which order numbers are added; so do
    the release of `torch` and the vector instructions it uses (`capability`, on the CPU). `training` is
    the version of afftool's loop. A field that is added is declared by `plain.later`, for identities are stored.
    """

    fusion: str
    host: str
    data: str
    fingerprint: str
    train_images: int | None
    data_seed: int
    recipe: Recipe
    seed: int
    draw: str = ""
    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"
    compiled: bool = False
    torch: str = ""
    capability: str = ""
    training: int = 0
    code: str = ""

    @property
    def identity(self) -> str:
        """A short hash over every field that can change the result; where the data came from cannot."""
        fields = self.to_dict() | {"recipe": self.recipe.effective()}
        return digest(self, fields, without=("data", "train_images", "data_seed"))


class Checkpoint(Protocol):
    """One cell's place for one checkpoint."""

    def load(self) -> bytes | None:
        """The last one saved, or None."""

    def save(self, packed: bytes) -> None:
        """Keep this one instead."""


class FileCheckpoint:
    """A checkpoint in a file. A kill during `save` leaves the one before."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.path = folder / f"{identity}.pt"

    def load(self) -> bytes | None:
        """The file's content, None if there is no file."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def save(self, packed: bytes) -> None:
        """Write beside the file and rename over it."""
        with replacing(self.path) as part:
            part.write_bytes(packed)

    def drop(self) -> None:
        """Remove the file, and what killed processes left of it."""
        self.path.unlink(missing_ok=True)
        for part in left_of(self.path):
            part.unlink(missing_ok=True)


@dataclass(frozen=True, kw_only=True)
class CellRecord(Plain):
    """One trained cell. `accuracy` (top-1) or `miou` is a share in [0, 1] on the test split after the last epoch.

    `bands` is the same score per object-size band. `losses` are the mean training losses per epoch, `scores` the
    test scores at the epochs they were taken. `signal` is the root mean square of each fusion's output at
    initialisation, in the order of the forward pass. `digest` hashes the trained weights. `failed_step` is the step
    (from 0) whose loss was no usable number. `params` and `macs` are the whole network's for one image. `gpu` is the
    name of the one it was trained on, None on the CPU.
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
    gpu: str | None = None
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


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a variant before training: its host as text, its cost for one image, whether it fuses."""

    host: str
    params: int
    macs: int | None = None
    fuses: bool = True


@dataclass(frozen=True, kw_only=True)
class StoredPlan(Plain):
    """What a report needs of a study besides its cells' records: all of the plan but the images.

    `study` is TOML, `cells` are (variant, seed, identity), `size` is height and width, `note` is what the data's source
    had to assume, `notes` say what was changed for this data, what no gradient reaches and on what modules of the
    user's own were trusted. `test_splits` is how many the data seeds drew, where they drew others (data that is made).
    """

    study: str
    cells: tuple[tuple[str, int, str], ...]
    facts: Mapping[str, Facts]
    train_images: int
    test_images: int
    size: tuple[int, int]
    classes: int
    task: Task
    citation: str = ""
    note: str = ""
    notes: tuple[str, ...] | None = None
    test_splits: int | None = None
