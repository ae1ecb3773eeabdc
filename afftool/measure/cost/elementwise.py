"""How many floating point operations an operator does for each element: a page of names and numbers.

One convention for all of them: an addition, a subtraction, a multiplication, a division, a comparison, and one
elementary function (exp, log, sqrt, a power, erf, sigmoid, tanh, sin, ...) count 1 each; an operator that is defined
by several of these counts their sum, so that a fused operator costs what it would cost written out. Whatever
works on whole numbers and truth values alone counts 0 (see `formulas.py`).
"""

from __future__ import annotations


def _names(text: str) -> list[str]:
    return text.split()


PER_OUTPUT: dict[str, int] = {
    name: count
    for count, text in (
        # One operation.
        (1, "add sub rsub mul div true_divide floor_divide remainder fmod maximum minimum fmax fmin"),
        (1, "abs neg positive reciprocal square sqrt rsqrt pow float_power sign sgn copysign hypot atan2 ldexp"),
        (1, "exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh"),
        (1, "erf erfc erfinv special_erfcx special_ndtri special_i0e special_i1e lgamma digamma i0 sigmoid relu"),
        (1, "floor ceil round trunc frac clamp_min clamp_max eq ne lt le gt ge isnan isinf isfinite nan_to_num"),
        (1, "threshold threshold_backward logical_not heaviside nextafter special_entr special_log_ndtr sinc"),
        # Two: scale and add, clamp on both sides, compare and scale, exp and log, x sigmoid(x).
        (2, "addcmul addcdiv clamp hardtanh relu6 leaky_relu _prelu_kernel softplus softshrink hardshrink xlogy"),
        (2, "silu glu native_dropout native_dropout_backward rrelu_with_noise hardtanh_backward l1_loss"),
        (2, "hardshrink_backward leaky_relu_backward logit_backward log_sigmoid_forward softshrink_backward"),
        (2, "rrelu_with_noise_backward"),
        # Three: a + w (b - a); log(exp a + exp b); g (1 - s) s; (x - y)^2 and its sum; log(p / (1 - p)).
        (3, "lerp logaddexp logaddexp2 sigmoid_backward tanh_backward mse_loss logit elu celu softplus_backward"),
        (3, "hardsigmoid_backward mse_loss_backward log_sigmoid_backward _prelu_kernel_backward"),
        # relu6(x + 3) / 6; x tanh(log(1 + exp x)); a square or a distance, chosen by a comparison.
        (4, "hardsigmoid mish smooth_l1_loss huber_loss elu_backward smooth_l1_loss_backward huber_loss_backward"),
        (5, "hardswish hardswish_backward binary_cross_entropy binary_cross_entropy_backward"),
        # Backward through x sigmoid(x) and through a sigmoid(b); backward through mish.
        (6, "silu_backward glu_backward binary_cross_entropy_with_logits"),
        (10, "mish_backward"),
    )
    for name in _names(text)
}

GELU = {"none": (5, 11), "tanh": (9, 17)}
"""Forward and backward of gelu: x/2 (1 + erf(x / sqrt 2)), or its tanh approximation."""

_REDUCTIONS = """sum nansum mean prod amax amin max min argmax argmin cumsum cumprod cummax cummin median nanmedian
    kthvalue mode trace count_nonzero _cummax_helper _cummin_helper"""
_ADDED_UP = """embedding_dense_backward col2im unfold_backward adaptive_max_pool2d_backward
    adaptive_max_pool3d_backward max_pool2d_with_indices_backward max_pool3d_with_indices_backward"""

PER_INPUT: dict[str, tuple[int, str]] = {
    name: (count, says)
    for count, says, text in (
        (1, "1 per element reduced (a mean's division is its first addition)", _REDUCTIONS),
        (1, "1 addition per element", _ADDED_UP),
        (2, "2 per element reduced", "aminmax norm linalg_vector_norm"),
        (3, "3 per element: maximum, exp, addition", "logsumexp"),
        (4, "4 per element: mean 1, then subtract, square, add", "var std var_mean std_mean"),
        (
            5,
            "5 per element: maximum, subtract, exp, sum, divide (or subtract the log)",
            "_softmax _log_softmax _safe_softmax _masked_softmax",
        ),
        (
            4,
            "4 per element: two products (or a product and an exp), sum, subtract",
            "_softmax_backward_data _log_softmax_backward_data _masked_softmax_backward",
        ),
        (3, "3 per element: square, add, scale", "_weight_norm_interface"),
        (5, "5 per element: product, sum, scale twice, subtract", "_weight_norm_interface_backward"),
        (4, "4 per element: square, add, scale by the root, scale by the weight", "_fused_rms_norm"),
        (9, "9 per element: products and sums with x for both gradients", "_fused_rms_norm_backward"),
    )
    for name in _names(text)
}
"""Operators counted by the elements of their first tensor: how many for each, and why."""

MOVES: frozenset[str] = frozenset(
    # Copies, and tensors filled with a constant; the same values in another order or other places; random numbers,
    # whose drawing is no arithmetic on the maps; truth values and whole numbers, and looking at them.
    _names(
        """
        clone copy_ copy _to_copy contiguous cat stack zeros zeros_like new_zeros ones ones_like new_ones full full_like
        new_full fill zero scalar_tensor arange linspace eye constant_pad_nd lift_fresh_copy _copy_from _reshape_copy

        reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d roll
        flip rot90 index_select gather index _unsafe_index embedding masked_select where masked_fill masked_scatter
        repeat repeat_interleave tril triu im2col pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
        take upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d
        _upsample_nearest_exact2d _upsample_nearest_exact3d max_unpool2d max_unpool3d slice_scatter select_scatter
        diagonal_scatter as_strided_scatter slice_backward select_backward diagonal_backward index_copy index_fill
        scatter diag_embed block_diag tril_indices triu_indices view_as_real_copy view_as_complex_copy complex
        unbind_copy split_copy slice_copy nll_loss_forward nll_loss2d_forward nll_loss_backward nll_loss2d_backward

        bernoulli uniform normal random exponential rand randn randint randperm rand_like randn_like randint_like
        multinomial poisson normal_functional

        logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor bitwise_not __and__ __or__ __xor__
        __lshift__ __rshift__ any all equal nonzero one_hot bincount searchsorted bucketize isin _local_scalar_dense
        _unique2
        """
    )
)
"""Operators without arithmetic on feature maps: they move bytes and do 0 operations."""

METADATA: frozenset[str] = frozenset(
    _names(
        """
        empty empty_like empty_strided new_empty new_empty_strided _unsafe_view _reshape_alias unsafe_split
        unsafe_split_with_sizes unsafe_chunk lift lift_fresh detach alias resize resize_as set t transpose squeeze
        unsqueeze as_strided swapaxes swapdims sym_size sym_stride sym_numel sym_storage_offset size stride dim
        is_contiguous is_same_size _has_same_storage_numel record_stream _linalg_check_errors
        _assert_async _assert_scalar _assert_tensor_metadata result_type _nested_tensor_size is_pinned
        """
    )
)
"""Operators that touch no element at all: allocation, views without an alias annotation, shape checks."""
