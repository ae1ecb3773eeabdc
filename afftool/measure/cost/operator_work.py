"""How much work an operator does, from its arguments: the counting functions behind `formulas.py`.

Every function takes a `Call` and gives its `Work`. Letters in the comments: n, m, k, b for the sides of matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch.utils._pytree import tree_leaves

from afftool.measure.cost import elementwise


@dataclass(frozen=True)
class Call:
    """One call of an operator: its arguments by their names and in the order of the schema, and what it gave.

    `outputs` are the tensors in its `result`.
    """

    name: str
    arguments: Mapping[str, Any]
    result: Any
    outputs: tuple[torch.Tensor, ...]

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Every tensor among the arguments, in order."""
        return [leaf for leaf in tree_leaves(dict(self.arguments)) if isinstance(leaf, torch.Tensor)]

    @property
    def size(self) -> int:
        """Elements of the first output."""
        return self.outputs[0].numel() if self.outputs else 0


class Work(NamedTuple):
    """Multiply-adds, and floating point operations besides them."""

    macs: int = 0
    other: int = 0

    @property
    def flops(self) -> int:
        """Two for a multiply-add, one for each other operation."""
        return 2 * self.macs + self.other


_SCALABLE = {"add", "sub", "rsub", "addcmul", "addcdiv"}


def _is_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def per_output(call: Call, each: int) -> Work:
    """`each` operations per output element; a complex product is 6 real ones, any other complex operation 2."""
    if not any(map(_is_float, (*call.tensors, *call.outputs))):
        return Work()
    if call.outputs[0].is_complex():
        each *= 6 if call.name == "mul" else 2
    return Work(other=(each + _is_scaled(call)) * call.size)


def _is_scaled(call: Call) -> bool:
    """Whether the second term has a factor of its own, as in `torch.add(x, y, alpha=2)`."""
    factor = "value" if call.name.startswith("addc") else "alpha"
    return call.name.rstrip("_") in _SCALABLE and call[factor] != 1


def per_input(call: Call, each: int) -> Work:
    """`each` operations per element of the first tensor."""
    first = call.tensors[0]
    return Work(other=each * first.numel()) if _is_float(first) else Work()


# Convolution: a weight is (out, in / groups, *kernel), transposed (in, out / groups, *kernel), so that one element of
# the larger side always meets weight[0].numel() weights.


def convolution(call: Call) -> Work:
    """The terms of a convolution, transposed or not, in any number of dimensions; the bias is added."""
    given = call.arguments  # the vendors' kernels call the map `self`, are never transposed here and may know no bias
    meets = given.get("input", given.get("self")) if given.get("transposed") else call.outputs[0]
    return Work(_terms(meets, call["weight"]), call.size if given.get("bias") is not None else 0)


def convolution_backward(call: Call) -> Work:
    """The same terms once for the gradient of the input and once for that of the weight, where wanted."""
    to_input, to_weight, to_bias = call["output_mask"]
    meets = call["input"] if call["transposed"] else call["grad_output"]
    macs = _terms(meets, call["weight"])
    return Work(macs * (to_input + to_weight), call["grad_output"].numel() if to_bias else 0)


def _terms(meets: torch.Tensor, weight: torch.Tensor) -> int:
    return meets.numel() * math.prod(weight.shape[1:])


# Matrix products.


def product(call: Call, left: str, added: str | None = None) -> Work:
    """`left` is `(..., n, k)` and every output element is a sum of k terms."""
    macs = call.size * call[left].shape[-1]
    if added is None:
        return Work(macs)
    scale, bias = call["alpha"], call["beta"]
    return Work(macs, call.size * ((scale != 1) + (0 if bias == 0 else 1 if bias == 1 else 2)))


def addbmm(call: Call) -> Work:
    """b products of (n, k) and (k, m), summed to one (n, m)."""
    b, _, k = call["batch1"].shape
    return Work(call.size * b * k, call.size)


def outer(call: Call) -> Work:
    """One multiply-add an output element."""
    return Work(call.size, 0)


def linear(call: Call) -> Work:
    """n rows of k values to m outputs."""
    return Work(call.size * call["input"].shape[-1], call.size if call["bias"] is not None else 0)


def trilinear(call: Call) -> Work:
    """Bilinear layers: the terms x_i w_oij y_j, each a multiply-add and one product more."""
    sides = []
    for name, unsqueezed in (("i1", "expand1"), ("i2", "expand2"), ("i3", "expand3")):
        shape = list(call[name].shape)
        for dim in sorted(call[unsqueezed]):
            shape.insert(dim, 1)
        sides.append(shape)
    terms = math.prod(max(sizes) for sizes in zip(*sides, strict=True))
    return Work(terms, terms)


def cdist(call: Call) -> Work:
    """Per pair and coordinate: subtract, power, add."""
    return Work(other=3 * call.size * call["x1"].shape[-1])


def cdist_backward(call: Call) -> Work:
    """Per pair and coordinate: subtract, divide by the distance, weigh, add."""
    return Work(other=4 * call["cdist"].numel() * call["x1"].shape[-1])


def embedding_bag(call: Call) -> Work:
    """Rows looked up and added, bag by bag."""
    return Work(other=call["indices"].numel() * call["weight"].shape[-1])


# Attention as one operator. Queries (..., heads, n, e), keys (..., m, e), values (..., m, v).


def attention(call: Call) -> Work:
    """Scores and their weighted sum, all of them: masks are not taken out."""
    scores, query, value = _scores(call)
    return Work(scores * (query + value), 6 * scores)


def attention_backward(call: Call) -> Work:
    """Scores again, then the gradients of values, weights, queries and keys; masks are not taken out."""
    scores, query, value = _scores(call)
    return Work(scores * (3 * query + 2 * value), 9 * scores)


def _scores(call: Call) -> tuple[int, int, int]:
    query, key, value = call["query"], call["key"], call["value"]
    return math.prod(query.shape[:-1]) * key.shape[-2], query.shape[-1], value.shape[-1]


# Normalisation.


def batch_norm(call: Call, training: bool | None = None) -> Work:
    """Scale and shift; in training the mean and the variance before."""
    if training is None:
        training = bool(call["training"])
    return Work(other=(6 if training else 2) * call["input"].numel())


def batch_norm_backward(call: Call, training: bool | None = None) -> Work:
    """In training x normalised again, two sums and the gradient; in eval each part as wanted."""
    if training is None:
        training = bool(call["train"] if "train" in call.arguments else call["update"])
    to_input, to_weight, to_bias = call.arguments.get("output_mask", (True, True, True))
    each = 9 if training and to_input else to_input + 4 * to_weight + to_bias
    return Work(other=each * call["input"].numel())


def row_norm(call: Call) -> Work:
    """Layer and group norm: statistics, normalisation, and the weights that cannot be folded into it."""
    return Work(other=(6 + 2 * (call["weight"] is not None)) * call["input"].numel())


def row_norm_backward(call: Call) -> Work:
    """x normalised again, two sums and the gradient, then the weights."""
    to_input, to_weight, to_bias = call["output_mask"]
    input_part = (10 if call["weight"] is not None else 9) * to_input
    recomputed = 2 if to_weight and not to_input else 0
    return Work(other=(input_part + recomputed + 2 * to_weight + to_bias) * call["input"].numel())


# Pooling and resampling.


def pool(call: Call) -> Work:
    """Every element of every window once."""
    return Work(other=call.size * _window(call["kernel_size"], call.name))


def pool_backward(call: Call) -> Work:
    """The gradient divided, and added to every element of its window."""
    return Work(other=call["grad_output"].numel() * (_window(call["kernel_size"], call.name) + 1))


def _window(kernel: int | list[int], name: str) -> int:
    sides = [kernel] if isinstance(kernel, int) else list(kernel)
    ndim = int(name[name.index("d", name.index("pool")) - 1])
    return math.prod(sides) if len(sides) == ndim else int(sides[0]) ** ndim


def adaptive_pool(call: Call) -> Work:
    """Every element of every window once; windows may overlap."""
    source, target = call.tensors[0], call.outputs[0]
    return Work(other=_adaptive_elements(source.shape, target.shape))


def adaptive_pool_backward(call: Call) -> Work:
    """The gradient divided, and added to every element of its window."""
    gradient, source = call["grad_output"], call["self"]
    return Work(other=_adaptive_elements(source.shape, gradient.shape) + gradient.numel())


def _adaptive_elements(source: torch.Size, target: torch.Size) -> int:
    """Elements read by all windows; window i of n over a side of m is [i m // n, ceil((i + 1) m / n))."""
    return math.prod(
        m if m == n else sum(-(-(i + 1) * m // n) - i * m // n for i in range(n))
        for m, n in zip(source, target, strict=True)
    )


def resample(call: Call, taps: int) -> Work:
    """`taps` neighbours weighted and added."""
    return Work(other=(2 * taps - 1) * call.size)


def resample_backward(call: Call, taps: int) -> Work:
    """Each gradient weighted and added to `taps` neighbours."""
    return Work(other=2 * taps * call["grad_output"].numel())


def grid_sample(call: Call) -> Work:
    """The neighbours of each sampled point weighted and added, and its coordinates scaled and split."""
    ndim = call["grid"].shape[-1]
    taps = {0: 2, 1: 1, 2: 4}[call["interpolation_mode"]] ** ndim
    return Work(other=(2 * taps - 1) * call.size + 3 * call["grid"].numel())


def grid_sample_backward(call: Call) -> Work:
    """The same for the gradients of the map and of the coordinates."""
    ndim = call["grid"].shape[-1]
    taps = {0: 2, 1: 1, 2: 4}[call["interpolation_mode"]] ** ndim
    return Work(other=(2 + 2 * ndim) * taps * call["grad_output"].numel())


# The rest.


def gelu(call: Call, backward: bool) -> Work:
    """x times the normal distribution function, or its tanh approximation."""
    return Work(other=elementwise.GELU[call["approximate"]][backward] * call.size)


def scatter_sum(call: Call) -> Work:
    """One addition per element that is added; nothing where whole numbers are."""
    added = call.arguments.get("src", call.arguments.get("source"))
    return Work(other=added.numel()) if added is not None and _is_float(added) else Work()


def index_put(call: Call) -> Work:
    """One addition per element where values accumulate, else nothing."""
    if not call["accumulate"] or not _is_float(call["values"]):
        return Work()
    rows = torch.broadcast_shapes(*(i.shape for i in call["indices"] if i is not None))  # type: ignore[no-untyped-call]
    return Work(other=max(call["values"].numel(), math.prod(rows)))


def sort(call: Call) -> Work:
    """n log2 n comparisons a row."""
    values = call["self"]
    dim = call.arguments.get("dim", -1)
    length = values.shape[dim] if values.dim() else 1
    return Work(other=values.numel() * math.ceil(math.log2(max(length, 2))))


def fourier(call: Call, each: float) -> Work:
    """`each` n log2 n, n being the length that is transformed."""
    signal = call.outputs[0] if call.name == "_fft_c2r" else call["self"]
    length = math.prod(signal.shape[dim] for dim in call["dim"])
    return Work(other=math.ceil(each * signal.numel() * math.log2(max(length, 1))))
