"""How a count came about: which formula counted each operator, and what the field's other counters say of it.

fvcore counts multiply-adds (and calls them FLOPs), norms, resampling and adaptive pools, forward only;
`torch.utils.flop_counter` counts two FLOPs a multiply-add and nothing else, and forgets the groups of a convolution in
the gradient of its weight; a MAC-only counter, as many papers use, says what its name says.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping

from afftool.build import Case, build_case
from afftool.console import quiet
from afftool.errors import TooLarge
from afftool.measure.cost.count import count
from afftool.measure.cost.reading import Explained, Explanation, OperatorCost
from afftool.room import check_room, least_of_case
from afftool.spec import CaseSpec

_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear")
_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
_MEANS = ("mean", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "adaptive_avg_pool1d")
_FVCORE_NAMES: Mapping[str, tuple[str, ...]] = {
    "conv": ("convolution",),
    **dict.fromkeys(("linear", "addmm", "mm", "bmm", "baddbmm", "matmul", "einsum", "mv", "dot"), _PRODUCTS),
    **dict.fromkeys(("batch_norm", "instance_norm"), _BATCH_NORMS),
    "layer_norm": ("native_layer_norm",),
    "group_norm": ("native_group_norm",),
    **dict.fromkeys(("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"), _MEANS),
    "upsample_nearest2d": ("upsample_nearest2d",),
    "upsample_bilinear2d": ("upsample_bilinear2d",),
    "grid_sampler": ("grid_sampler_2d", "grid_sampler_3d"),
}
"""fvcore's names, after the tracing that it uses, and the ATen operators that run for them."""


def explain(spec: CaseSpec) -> Explanation:
    """Count the case and put what other counters say beside each operator. Raises as `count` does.

    fvcore traces the module, which needs a real copy and real inputs on the CPU.
    """
    reading = count(spec)
    said, notes = _ask_fvcore(spec)
    rows = reading.per_operator
    shares = None if said is None else _shared_out(said, rows)
    if said is not None and sum(said.values()) != sum((shares or {}).values()):
        notes += ("fvcore counts operators that do not run under names of their own, so its column falls short",)
    explained = tuple(
        Explained(
            **vars(row),
            fvcore_flops=None if shares is None or row.direction == "backward" else shares.get(row.operator, 0),
        )
        for row in rows
    )
    return Explanation(reading=reading, rows=explained, notes=notes)


def _ask_fvcore(spec: CaseSpec) -> tuple[dict[str, int] | None, tuple[str, ...]]:
    """fvcore's count by its own operator names, or None and the reason."""
    try:
        from fvcore.nn import FlopCountAnalysis
    except ImportError:
        return None, ("fvcore is not installed, so its column is empty (pip install 'afftool[explain]')",)
    try:
        check_room(least_of_case(spec), "cpu", what=str(spec.fusion))
        return _traced(FlopCountAnalysis, build_case(dataclasses.replace(spec, device="cpu"))), ()
    except TooLarge as error:
        return None, (f"fvcore did not trace this module: {error.message}",)
    except (Exception, SystemExit) as error:  # what is no graph, or no operand its formulas expect
        return None, (f"fvcore cannot trace this module: {type(error).__name__}",)


def _traced(analysis: Callable[..., object], case: Case) -> dict[str, int]:
    with quiet("fvcore.nn.jit_analysis", logging.ERROR):
        found = analysis(case.module, case.inputs).by_operator()  # type: ignore[attr-defined]
    return {name: int(flops) for name, flops in found.items()}


def _shared_out(said: Mapping[str, int], rows: tuple[OperatorCost, ...]) -> dict[str, int]:
    """fvcore's numbers by ATen operator; what several operators run for is shared by their own FLOPs.

    That is exact for products, whose two counts are proportional. What runs for no operator of ours keeps its name.
    """
    shares: dict[str, int] = {}
    for name, flops in said.items():
        family = [
            row
            for row in rows
            if row.direction == "forward" and row.operator.removeprefix("aten.") in _FVCORE_NAMES.get(name, ())
        ]
        weights = [row.macs or row.flops for row in family]
        left = flops
        for row, weight in zip(family, weights, strict=True):
            last = row is family[-1]
            share = left if last else flops * weight // max(1, sum(weights))
            shares[row.operator] = shares.get(row.operator, 0) + share
            left -= share
    return shares
