"""What an operator computes: a table of ATen operators and counting functions, each with its convention in words.

A formula gives the multiply-adds of an operator and its other floating point operations; FLOPs are
`2 * macs + other`. Conventions: multiply-adds are the terms of convolutions, matrix products and attention alone;
padding counts as if it were computed and windows as if they were full; what is done once a channel or once a row
(folding a batch norm's scale, a softmax's log) is left out beside what is done once an element. Operators
that work on whole numbers or truth values count 0. Views and allocations are known zeros. An operator that is not
in the table is reported as uncounted, never as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch

from afftool.measure.cost import elementwise
from afftool.measure.cost import operator_work as work
from afftool.measure.cost.operator_work import Call, Work


@dataclass(frozen=True)
class Formula:
    """A counting function and its convention in words; `is_own` if it is the user's."""

    count: Callable[[Call], Work]
    says: str
    is_own: bool = False


def formula_for(operator: torch._ops.OpOverload) -> Formula | None:
    """The formula of an operator, in place or not, or None if it has none. Views are a known zero."""
    namespace, _, name = operator._schema.name.partition("::")
    if namespace == "profiler":
        return _METADATA
    if namespace != "aten":
        return None
    if operator.is_view:
        return _VIEW
    return _table().get(name) or _table().get(name.removesuffix("_"))


_VIEW = Formula(lambda call: Work(), "0: a view")
_METADATA = Formula(lambda call: Work(), "0: no element is touched")
_MOVE = Formula(lambda call: Work(), "0: values are moved, not computed")


@cache
def _table() -> dict[str, Formula]:
    return {
        **{
            name: Formula(partial(work.per_output, each=each), f"{each} per output element")
            for name, each in elementwise.PER_OUTPUT.items()
        },
        **{
            name: Formula(partial(work.per_input, each=each), says)
            for name, (each, says) in elementwise.PER_INPUT.items()
        },
        **dict.fromkeys(elementwise.METADATA, _METADATA),
        **dict.fromkeys(elementwise.MOVES, _MOVE),
        **_SPECIAL,
    }


def _each_of(names: str, formula: Formula) -> dict[str, Formula]:
    return dict.fromkeys(names.split(), formula)


_BATCH_NORM_SAYS = "2 per element (scale, shift) in eval; 6 in training (mean 1, variance 3)"
_BATCH_NORM_BACKWARD_SAYS = "9 per element in training; in eval 1 for the input, 4 for the weight, 1 for the bias"
_ROW_NORM_SAYS = "6 per element (mean 1, variance 3, subtract, scale), 2 more with a weight and bias"
_SPECIAL: dict[str, Formula] = {
    **_each_of(
        "convolution _convolution convolution_overrideable cudnn_convolution mkldnn_convolution",
        Formula(work.convolution, "outputs x kernel x (in / groups) multiply-adds, 1 more per output with a bias"),
    ),
    **_each_of(
        "convolution_backward convolution_backward_overrideable",
        Formula(
            work.convolution_backward,
            "the forward's multiply-adds for the input and again for the weight; bias 1 per gradient",
        ),
    ),
    "mm": Formula(partial(work.product, left="self"), "n m k multiply-adds"),
    "bmm": Formula(partial(work.product, left="self"), "b n m k multiply-adds"),
    "mv": Formula(partial(work.product, left="self"), "n k multiply-adds"),
    **_each_of("dot vdot", Formula(lambda call: Work(call["self"].numel()), "k multiply-adds")),
    **_each_of(
        "addmm _addmm_activation",
        Formula(partial(work.product, left="mat1", added="self"), "n m k multiply-adds, 1 more per output for the sum"),
    ),
    "baddbmm": Formula(partial(work.product, left="batch1", added="self"), "b n m k multiply-adds, 1 more per output"),
    "addmv": Formula(partial(work.product, left="mat", added="self"), "n k multiply-adds, 1 more per output"),
    "addbmm": Formula(work.addbmm, "b n m k multiply-adds, 1 more per output for the sum"),
    "addr": Formula(work.outer, "1 multiply-add per output element"),
    "linear": Formula(work.linear, "n m k multiply-adds, 1 more per output with a bias"),
    "_trilinear": Formula(work.trilinear, "1 multiply-add and 1 product per term of the bilinear form"),
    **_each_of("_cdist_forward _euclidean_dist", Formula(work.cdist, "3 per pair and coordinate")),
    "_cdist_backward": Formula(work.cdist_backward, "4 per pair and coordinate"),
    "_embedding_bag": Formula(work.embedding_bag, "1 addition per element looked up"),
    **_each_of(
        "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
        "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
        "_scaled_dot_product_fused_attention_overrideable",
        Formula(work.attention, "two matrix products over all scores, masked or not; scale and softmax 6 per score"),
    ),
    **_each_of(
        "_scaled_dot_product_flash_attention_backward _scaled_dot_product_flash_attention_for_cpu_backward "
        "_scaled_dot_product_cudnn_attention_backward",
        Formula(work.attention_backward, "five matrix products over all scores; softmax twice, 9 per score"),
    ),
    **_each_of(
        "native_batch_norm _native_batch_norm_legit cudnn_batch_norm miopen_batch_norm",
        Formula(work.batch_norm, _BATCH_NORM_SAYS),
    ),
    **_each_of(
        "_native_batch_norm_legit_no_training _batch_norm_no_update",
        Formula(partial(work.batch_norm, training=False), _BATCH_NORM_SAYS),
    ),
    **_each_of(
        "_native_batch_norm_legit_functional _batch_norm_with_update",
        Formula(partial(work.batch_norm, training=True), _BATCH_NORM_SAYS),
    ),
    **_each_of(
        "native_batch_norm_backward batch_norm_backward", Formula(work.batch_norm_backward, _BATCH_NORM_BACKWARD_SAYS)
    ),
    **_each_of(
        "cudnn_batch_norm_backward miopen_batch_norm_backward",
        Formula(partial(work.batch_norm_backward, training=True), _BATCH_NORM_BACKWARD_SAYS),
    ),
    **_each_of("native_layer_norm native_group_norm", Formula(work.row_norm, _ROW_NORM_SAYS)),
    **_each_of(
        "native_layer_norm_backward native_group_norm_backward",
        Formula(
            work.row_norm_backward, "9 per element for the input (10 with a weight), 2 for the weight, 1 for the bias"
        ),
    ),
    **_each_of(
        "avg_pool1d avg_pool2d avg_pool3d max_pool2d_with_indices max_pool3d_with_indices max_pool1d_with_indices",
        Formula(work.pool, "1 per element of every window (additions and the division, or comparisons)"),
    ),
    **_each_of(
        "avg_pool2d_backward avg_pool3d_backward",
        Formula(work.pool_backward, "1 division per gradient element, 1 addition per element of its window"),
    ),
    **_each_of(
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        Formula(work.adaptive_pool, "1 per element of every window"),
    ),
    **_each_of(
        "_adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward",
        Formula(work.adaptive_pool_backward, "1 division per gradient element, 1 addition per element of its window"),
    ),
    **{
        name: Formula(partial(work.resample, taps=taps), f"{2 * taps - 1} per output: {taps} weighted neighbours")
        for name, taps in (
            ("upsample_linear1d", 2),
            ("upsample_bilinear2d", 4),
            ("upsample_trilinear3d", 8),
            ("upsample_bicubic2d", 16),
        )
    },
    **{
        name: Formula(partial(work.resample_backward, taps=taps), f"{2 * taps} per gradient element: {taps} neighbours")
        for name, taps in (
            ("upsample_linear1d_backward", 2),
            ("upsample_bilinear2d_backward", 4),
            ("upsample_trilinear3d_backward", 8),
            ("upsample_bicubic2d_backward", 16),
        )
    },
    **{
        f"{name}{ndim}d_backward": Formula(
            lambda call: Work(other=call["grad_output"].numel()), "1 addition per gradient element"
        )
        for name in ("upsample_nearest", "_upsample_nearest_exact", "reflection_pad", "replication_pad")
        for ndim in (1, 2, 3)
    },
    **_each_of(
        "grid_sampler_2d grid_sampler_3d",
        Formula(work.grid_sample, "the weighted neighbours of each output, and 3 per coordinate"),
    ),
    **_each_of(
        "grid_sampler_2d_backward grid_sampler_3d_backward",
        Formula(work.grid_sample_backward, "2 + 2 x dimensions per neighbour and gradient element"),
    ),
    "gelu": Formula(partial(work.gelu, backward=False), "5 per output element (9 for the tanh approximation)"),
    "gelu_backward": Formula(partial(work.gelu, backward=True), "11 per element (17 for the tanh approximation)"),
    **_each_of("scatter_add index_add scatter_reduce index_reduce", Formula(work.scatter_sum, "1 per element added")),
    **_each_of("index_put _index_put_impl _unsafe_index_put", Formula(work.index_put, "1 per element added, else 0")),
    **_each_of("sort topk msort argsort", Formula(work.sort, "n log2 n comparisons a row")),
    "_fft_c2c": Formula(partial(work.fourier, each=5.0), "5 n log2 n"),
    **_each_of("_fft_r2c _fft_c2r", Formula(partial(work.fourier, each=2.5), "2.5 n log2 n, half a complex transform")),
}
