"""Memory counted by hand, in bytes, for float32: what every preset saves, the peak of add, AFF and iAFF. No torch.

Letters. M: elements of one feature map, N C S. I: of the bottleneck's map, N i S with i = C // r (local branch).
g, k: of the pooled map and its bottleneck's, N C and N i (global branch). P: parameters of the fusion.

What is held during a training step: x, y, the fused map z (held until backward has begun from it ends), the gradient
that comes in at z, and the gradients of x and y, all M; the weights and, of the same size, SGD's momentum; the batch
norms' running statistics.

What forward saves for backward, of one attention pass:
    u            M       the integrated map: input of the local branch's first convolution (the pool saves no tensor)
    local        2 I     what its first convolution returns (input of its batch norm) and what its ReLU returns
                         (in place of the batch norm's output; input of the second convolution)
                 M       what its second convolution returns (input of its batch norm)
    global       2 k + 2 g   the same, and the pooled map as input of the first convolution
    batch norms  4 (i + C)   mean and 1/deviation of two batch norms in each of two branches
    gate         2 M     w = sigmoid(logits) and 1 - w, which multiply x and y
and x and y themselves, once, because w's gradient needs them. `add` saves nothing.

The peak of the step lies in one of three moments of a local branch's backward (the global branch's ran before it, as
autograd runs the youngest operator first). Alive then are what is held, what is still saved, the parameters' gradients
so far, and
    in the second batch norm   4 M      the gradient of the logits, that of the pool spread over the map, and the
                                        batch norm's result, which torch's CPU kernel allocates twice
    in the second convolution  2 M + I  the gradient of the pool, the one that comes in, the one that goes out
    in the first convolution   2 M + I  the same, of the first convolution
of which the first is the largest where maps outweigh weights and the last where weights outweigh maps. iAFF goes
through them twice: in its second pass, while the first pass's saved tensors are still there, and in its first.
Sizes that make PyTorch choose oneDNN (16 samples or more, several threads) add that library's own scratch to the
convolutions, never to the batch norm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

FLOAT = 4
COUNTER = 8
"""A batch norm counts its batches in an int64."""


@dataclass(frozen=True)
class Sizes:
    """The letters above for `(batch, channels, *size)` and a reduction."""

    batch: int
    channels: int
    reduction: int
    size: tuple[int, ...]

    @property
    def inner(self) -> int:
        return self.channels // self.reduction

    @property
    def map(self) -> int:
        return self.batch * self.channels * prod(self.size)

    @property
    def inner_map(self) -> int:
        return self.batch * self.inner * prod(self.size)

    @property
    def branch_params(self) -> int:
        first = self.channels * self.inner + self.inner + 2 * self.inner
        second = self.inner * self.channels + self.channels + 2 * self.channels
        return first + second

    def params(self, passes: int) -> int:
        return passes * 2 * self.branch_params

    def buffer_bytes(self, passes: int) -> int:
        return passes * 2 * (2 * (self.inner + self.channels) * FLOAT + 2 * COUNTER)

    @property
    def pooled(self) -> int:
        return self.batch * self.channels

    @property
    def pooled_inner(self) -> int:
        return self.batch * self.inner


@dataclass(frozen=True)
class Kept:
    """Elements that the parts of any fusion keep for backward, by the letters above."""

    sizes: Sizes

    def local(self) -> int:
        """A local branch without its input: what both convolutions return, what the ReLU returns, statistics."""
        return 2 * self.sizes.inner_map + self.sizes.map + self.statistics()

    def globally(self, maps: int = 1) -> int:
        """A global branch: its pooled input (of `maps` maps side by side), and the same as for a local one."""
        return maps * self.sizes.pooled + 2 * self.sizes.pooled_inner + self.sizes.pooled + self.statistics()

    def pooled(self, side: int) -> int:
        """A branch on `side` positions a dimension: a global one with so many times the elements."""
        return side ** len(self.sizes.size) * (self.globally() - self.statistics()) + self.statistics()

    def statistics(self) -> int:
        return 2 * (self.sizes.inner + self.sizes.channels)


def saved_bytes(name: str, sizes: Sizes) -> int:
    """What each preset keeps for backward. x, y and u = x + y are counted where something reads them in backward."""
    half = Kept(replace(sizes, reduction=2 * sizes.reduction))
    kept, m, g, i = Kept(sizes), sizes.map, sizes.pooled, sizes.inner_map
    attention = kept.local() + kept.globally()
    selection = 2 * m + 2 * m  # x, y and w, 1 - w
    aff = selection + m + attention
    elements = {
        "add": 0,
        "concat": 2 * m,  # x beside y, the input of the convolution
        "se": m + kept.globally() + g,  # y and the gate, which multiply each other
        "gau": m + kept.globally() + g,  # the same with x
        "highway": 2 * m + kept.globally() + 2 * g,
        "sa": m + kept.globally(maps=2) + g,
        "sk": 2 * m + kept.globally() + 2 * g,
        "ms-se": m + attention + m,  # y is both gated and looked at
        "ms-gau": 2 * m + attention + m,
        "ms-sa": 2 * m + attention + m,  # x, u
        "aff": aff,
        "iaff": selection + m + attention + (2 * m + m + attention),  # x and y once
        "global-global": 2 * m + 2 * kept.globally() + 2 * g,
        "local-local": selection + m + 2 * kept.local(),
        "half-aff": selection + m + half.local() + half.globally(),
        "concat-aff": aff + 2 * m,  # both contexts side by side
        # L + g, the attention on it, its gate and the gate's complement, and what they multiply: L and g
        "recursive-aff": aff + m + attention + 2 * m + m + g,
        "aff:scales=local+4+global": aff + kept.pooled(4),
        "open-aff": aff,
        "open-iaff": selection + m + attention + (2 * m + m + attention),
        # x beside y; SiLU in place keeps a copy of its input; tanh(logits), 1 + t and 1 - t; x, y
        "eres2net-aff": 2 * m + kept.local() + i + 3 * m + 2 * m,
    }
    return elements[name] * FLOAT


def add_peak_bytes(sizes: Sizes) -> int:
    """x, y, z, the incoming gradient, and its copies that become the gradients of x and y."""
    return 6 * sizes.map * FLOAT


def attention_peak_bytes(sizes: Sizes, passes: int) -> int:
    """The peak of a training step of AFF (one pass) or iAFF (two)."""
    held = 6 * sizes.map + 2 * sizes.params(passes)
    saved_by_pass = sizes.map + Kept(sizes).local() + Kept(sizes).globally() + 2 * sizes.map
    moments = []
    for finished in range(passes):  # backward meets the last pass first
        waiting = (passes - 1 - finished) * saved_by_pass
        gradients = finished * 2 * sizes.branch_params
        moments += [held + waiting + gradients + moment for moment in _local_backward(sizes)]
    return max(moments) * FLOAT + sizes.buffer_bytes(passes)


def _local_backward(sizes: Sizes) -> tuple[int, int, int]:
    """Elements that one pass adds at the three moments, gradients of its own parameters included."""
    integrated = sizes.map
    of_global = sizes.branch_params
    of_second_norm = 2 * sizes.channels
    of_second_convolution = sizes.inner * sizes.channels + sizes.channels
    in_norm = (
        integrated
        + (2 * sizes.inner_map + sizes.map + 2 * (sizes.inner + sizes.channels))
        + (of_global + of_second_norm)
        + 4 * sizes.map
    )
    in_second = (
        integrated
        + (2 * sizes.inner_map + 2 * sizes.inner)
        + (of_global + of_second_norm + of_second_convolution)
        + (2 * sizes.map + sizes.inner_map)
    )
    in_first = integrated + 2 * sizes.branch_params + (2 * sizes.map + sizes.inner_map)
    return in_norm, in_second, in_first


def add_infer_peak_bytes(sizes: Sizes) -> int:
    """x, y and their sum."""
    return 3 * sizes.map * FLOAT


def attention_infer_peak_bytes(sizes: Sizes, passes: int) -> int:
    """At the second product of a gate: x, y, the logits, w, w x, 1 - w, (1 - w) y; iAFF's first pass also holds u."""
    maps = 7 if passes == 1 else 8
    return (maps * sizes.map + sizes.params(passes)) * FLOAT + sizes.buffer_bytes(passes)
