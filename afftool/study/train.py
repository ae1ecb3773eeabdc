"""Train one cell, plainly: the same numbers for the same cell, whoever runs it, interrupted or not."""

from __future__ import annotations

import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from afftool.data.splits import IGNORE
from afftool.device_health import answers, free_memory
from afftool.errors import DeviceLost
from afftool.failure import Failure
from afftool.global_state import kept
from afftool.spec import FusionSpec, HostSpec, targets_of
from afftool.study.arrays import Arrays, Batch, batches
from afftool.study.cells import CellRecord, CellSpec, Checkpoint
from afftool.study.evaluate import Scores, evaluate
from afftool.study.network import Network, build_network, signal
from afftool.study.recipe import Recipe
from afftool.study.seeding import key, seeded

TRAINING = 3
"""Version of what a cell computes: raise it by hand when this loop, a host or a fusion changes, so that finished cells
of older versions are trained anew."""
EVALUATIONS = 3
"""How often the test split is looked at during a training; only the last look is the result."""
HOPELESS = 100.0
"""A loss this many times that of guessing counts as diverged."""
CHECK_EVERY = 50
"""Steps between looks at the losses, each of which makes a GPU wait."""
SIGNAL_IMAGES = 64


@dataclass(frozen=True, kw_only=True)
class Tick:
    """How far a cell is: `epoch` done of `epochs`, the epoch's mean training loss, the last test score if any."""

    identity: str
    epoch: int
    epochs: int
    loss: float | None = None
    score: float | None = None


@dataclass
class _State:
    """Everything that an epoch starts from, besides the network and the optimizer."""

    epoch: int = 0
    losses: list[float] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    signal: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0


class DivergedError(Exception):
    """The loss of `step` is no usable number."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the loss became {loss:g} at step {step}")
        self.step = step


def train(
    cell: CellSpec, data: Arrays, *, checkpoint: Checkpoint, report: Callable[[Tick], None], device: str | None = None
) -> CellRecord:
    """Train `cell` from its last checkpoint, or from the start, and score it on the test split.

    Checkpoints are written after every epoch and dropped by the caller once the record is safe. A diverging
    loss or a module that raises gives a record that says so. An interrupt comes through, and `DeviceLost` is raised
    where the device no longer answers afterwards: nothing can be said of the cell then. `device` is the one of
    `cell.device`'s kind to use, for example `cuda:1`.
    """
    where = torch.device(device or cell.device)
    with kept(targets_of(FusionSpec.parse(cell.fusion), HostSpec.parse(cell.host)), "while it ran"):
        record = _tried(cell, data, where, checkpoint, report)
    if record.status == "failed":
        free_memory()
        if not answers(str(where)):
            raise DeviceLost(f"{where} no longer answers after {record.reason}")
    return replace(record, gpu=torch.cuda.get_device_name(where) if where.type == "cuda" else None)


def _tried(
    cell: CellSpec, data: Arrays, where: torch.device, checkpoint: Checkpoint, report: Callable[[Tick], None]
) -> CellRecord:
    """The record of a training, whatever came of it."""
    try:
        with _conditions(cell, where), seeded(cell.seed, "cell"):
            return _train(cell, data, where, checkpoint, report)
    except DivergedError as error:
        return _record(cell, status="failed", reason=f"diverged: {error}", failed_step=error.step)
    except Exception as error:
        return _record(cell, status="failed", reason=Failure.of(error).reason)


def _train(
    cell: CellSpec, data: Arrays, where: torch.device, checkpoint: Checkpoint, report: Callable[[Tick], None]
) -> CellRecord:
    recipe = cell.recipe
    host, fusion = HostSpec.parse(cell.host), FusionSpec.parse(cell.fusion)
    network = build_network(host, fusion, seed=cell.seed, draw=cell.draw, init=recipe.init, size=data.size)
    network.module.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images, targets = (torch.from_numpy(a).to(where) for a in (data.train_images, data.train_targets))
    prepare = _Prepare(data, where)
    optimizer = _optimizer(network.module, recipe)
    state = _resume(checkpoint, cell, network.module, optimizer)
    if not state.signal:  # at the start only: what is resumed is no longer as it was initialised
        state.signal = list(signal(network, prepare(images[:SIGNAL_IMAGES])))
    step = _compiled(network.module) if cell.compiled else network.module
    for epoch in range(state.epoch, recipe.epochs):
        started = time.perf_counter()
        # For layers that draw, such as dropout: by epoch, so that a training draws alike after it was interrupted.
        torch.manual_seed(key(cell.seed, "layers", epoch))
        network.module.train()
        losses = _epoch(step, optimizer, recipe, cell, epoch, images, targets, prepare, data.classes)
        state.seconds += time.perf_counter() - started
        state.images += len(losses) * recipe.batch
        state.losses.append(math.fsum(losses) / len(losses))
        state.epoch = epoch + 1
        score = None
        if state.epoch % math.ceil(recipe.epochs / EVALUATIONS) == 0 and state.epoch < recipe.epochs:
            score = _scores(network.module, data, prepare, cell).score
            state.scores[str(state.epoch)] = score
        checkpoint.save(_pack(cell, network.module, optimizer, state))
        report(
            Tick(identity=cell.identity, epoch=state.epoch, epochs=recipe.epochs, loss=state.losses[-1], score=score)
        )
    final = _scores(network.module, data, prepare, cell)
    return _record(
        cell,
        **{"accuracy" if data.task == "classify" else "miou": final.score},
        bands=final.bands,
        losses=tuple(state.losses),
        scores={**state.scores, str(recipe.epochs): final.score},
        signal=tuple(state.signal),
        digest=_digest(network.module),
        params=network.params,
        images_per_s=state.images / state.seconds,
        train_s=state.seconds,
    )


def _epoch(
    step: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    cell: CellSpec,
    epoch: int,
    images: Tensor,
    targets: Tensor,
    prepare: _Prepare,
    classes: int,
) -> list[float]:
    """One pass over the training images; the loss of every step. Raises `DivergedError`."""
    steps = len(images) // recipe.batch
    losses: list[Tensor] = []
    kept: list[float] = []
    limit = HOPELESS * math.log(max(2, classes))
    for number, batch in enumerate(batches(images, targets, recipe, cell.seed, epoch)):
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate(epoch * steps + number, steps)
        with _precision(cell):
            loss = _loss(step, batch, prepare, recipe)
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        if recipe.clip:
            nn.utils.clip_grad_norm_(step.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.detach())
        # Losses stay on the device until many are looked at, because each look waits for all its work. A training that
        # diverged goes on for up to CHECK_EVERY steps, which costs time and changes nothing: the record names the step.
        if len(losses) == CHECK_EVERY or number == steps - 1:
            for value in torch.stack(losses).tolist():
                if not value < limit:  # written so that NaN, which compares with nothing, is caught too
                    raise DivergedError(epoch * steps + len(kept), value)
                kept.append(value)
            losses.clear()
    return kept


def _loss(step: nn.Module, batch: Batch, prepare: _Prepare, recipe: Recipe) -> Tensor:
    images, targets = prepare(batch.images), batch.targets.long()

    def against(logits: Tensor, wanted: Tensor) -> Tensor:
        smoothing = recipe.label_smoothing
        if wanted.ndim == 1:
            return functional.cross_entropy(logits.float(), wanted, label_smoothing=smoothing)
        total = functional.cross_entropy(
            logits.float(), wanted, ignore_index=IGNORE, label_smoothing=smoothing, reduction="sum"
        )
        return total / (wanted != IGNORE).sum().clamp(min=1)  # a batch that is all void teaches nothing, and is no NaN

    if batch.share == 1.0:
        return against(step(images), targets)
    logits = step(batch.share * images + (1 - batch.share) * images.flip(0))
    return batch.share * against(logits, targets) + (1 - batch.share) * against(logits, targets.flip(0))


class _Prepare:
    """Raw images `(B, H, W, 3)` uint8 to normalised `(B, 3, H, W)` float in channels-last memory."""

    def __init__(self, data: Arrays, device: torch.device) -> None:
        self._scale = 1 / torch.tensor(data.std, device=device, dtype=torch.float32)
        self._shift = -torch.tensor(data.mean, device=device, dtype=torch.float32) * self._scale

    def __call__(self, images: Tensor) -> Tensor:
        return torch.addcmul(self._shift, images.float(), self._scale).permute(0, 3, 1, 2)


def _scores(module: nn.Module, data: Arrays, prepare: _Prepare, cell: CellSpec) -> Scores:
    with _precision(cell):
        return evaluate(module, data, prepare)


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    parameters, decay = list(module.parameters()), recipe.weight_decay
    if recipe.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, lr=recipe.lr, weight_decay=decay, foreach=True)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=decay, foreach=True)
    return torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=decay, foreach=True
    )


@contextmanager
def _conditions(cell: CellSpec, where: torch.device) -> Iterator[None]:
    """The thread count that is part of the cell's identity, its GPU as the one that code means which names none, and
    what was set before afterwards."""
    before, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(cell.threads)
    torch.backends.cudnn.benchmark = True
    try:
        with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.benchmark = benchmark


def _precision(cell: CellSpec) -> torch.autocast:
    return torch.autocast(cell.device, dtype=torch.bfloat16, enabled=cell.dtype == "bfloat16")


def _compiled(module: nn.Module) -> nn.Module:
    torch.compiler.reset()  # after eight networks of one class in one process dynamo would leave the next ones eager
    compiled: nn.Module = torch.compile(module)  # type: ignore[assignment]
    return compiled


def _pack(cell: CellSpec, module: nn.Module, optimizer: torch.optim.Optimizer, state: _State) -> bytes:
    buffer = io.BytesIO()
    content = {"identity": cell.identity, "state": asdict(state)}
    torch.save(content | {"module": module.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
    return buffer.getvalue()


def _resume(checkpoint: Checkpoint, cell: CellSpec, module: nn.Module, optimizer: torch.optim.Optimizer) -> _State:
    """Put network and optimizer where the last checkpoint left them; from the start if there is none that fits."""
    packed = checkpoint.load()
    if packed is None:
        return _State()
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(packed), weights_only=True, map_location="cpu")
    except Exception:  # half a file, or none of ours: nothing is lost but the time
        return _State()
    if content.get("identity") != cell.identity:
        return _State()
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    return _State(**content["state"])


def _digest(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _record(cell: CellSpec, **fields: Any) -> CellRecord:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return CellRecord(cell=cell, identity=cell.identity, finished_at=at, **fields)


__all__ = ["DivergedError", "Network", "Tick", "train"]
