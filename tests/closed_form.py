"""What every fusion and host must count, worked out on paper from PAPER's formulas. No torch, nothing of afftool.

Notation: C channels, r reduction, S positions of the map (H W in two dimensions), N batch, n maps fused. One
multiply-add is two FLOPs; addition, multiplication, comparison, sigmoid, tanh are one each; batch norm in eval is a
scale and a shift; SiLU is a sigmoid and a product; softmax is five per element; a mean over m values is m.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True)
class Cost:
    """Parameters, multiply-adds and FLOPs in eval."""

    params: int = 0
    macs: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.params + other.params, self.macs + other.macs, self.flops + other.flops)


@dataclass(frozen=True)
class Map:
    """The maps that are fused: n of them, each (N, C, S); `size` is S a side, for a pooled scale."""

    C: int
    S: int
    N: int = 2
    n: int = 2
    size: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        return self.N * self.C * self.S


def work(operations: int) -> Cost:
    """Operations that are neither parameters nor multiply-adds."""
    return Cost(flops=operations)


def conv1x1(c_in: int, c_out: int, positions: int) -> Cost:
    """With bias; `positions` over the whole batch."""
    macs = c_in * c_out * positions
    return Cost(c_in * c_out + c_out, macs, 2 * macs + c_out * positions)


def batch_norm(c: int, positions: int) -> Cost:
    return Cost(2 * c, 0, 2 * c * positions)


def bottleneck(c_in: int, k: int, c_out: int, positions: int, activation: int = 1) -> Cost:
    """B(W2 delta(B(W1 .))), the body of both contexts."""
    return (
        conv1x1(c_in, k, positions)
        + batch_norm(k, positions)
        + work(activation * k * positions)
        + conv1x1(k, c_out, positions)
        + batch_norm(c_out, positions)
    )


def local_context(m: Map, c_in: int, k: int, c_out: int, activation: int = 1) -> Cost:
    return bottleneck(c_in, k, c_out, m.N * m.S, activation)


def global_context(m: Map, c_in: int, k: int, c_out: int) -> Cost:
    return work(m.N * c_in * m.S) + bottleneck(c_in, k, c_out, m.N)


def pooled_context(m: Map, side: int, c_in: int, k: int, c_out: int) -> Cost:
    """A mean over every window, the bottleneck on side positions a dimension; going back to the map is a copy."""
    seen = prod(sum(-(-(i + 1) * s // side) - i * s // side for i in range(side)) for s in m.size)
    return work(m.N * c_in * seen) + bottleneck(c_in, k, c_out, m.N * side ** len(m.size))


def ms_cam_logits(m: Map, r: int, c_out: int | None = None) -> Cost:
    """L(X) (+) g(X)."""
    a = c_out or m.C
    k = m.C // r
    return local_context(m, m.C, k, a) + global_context(m, m.C, k, a) + work(m.N * a * m.S)


def summed(m: Map) -> Cost:
    return work((m.n - 1) * m.elements)


def selected(m: Map, weights: int) -> Cost:
    """Two maps by sigma(l) and 1 - sigma(l), n maps by a softmax; `weights` are the elements of one map's weights."""
    if m.n == 2:
        return work(weights + weights + 2 * m.elements + m.elements)
    return work(5 * m.n * weights + m.n * m.elements + (m.n - 1) * m.elements)


def modulated(m: Map, weights: int) -> Cost:
    """n - 1 gates, n - 1 products, n - 1 sums."""
    return work((m.n - 1) * weights + (m.n - 1) * m.elements + (m.n - 1) * m.elements)


def refined(m: Map, weights: int) -> Cost:
    return work(weights + m.elements + (m.n - 1) * m.elements)


def fusion(name: str, m: Map, r: int) -> Cost:
    """The cost of one preset; `r` means nothing to add and concat."""
    c, k, full, one = m.C, m.C // r, m.elements, m.N * m.C
    a = (m.n - 1) * c  # channels of the logits where n - 1 maps have a weight of their own
    match name:
        case "add":
            return summed(m)
        case "concat":
            return conv1x1(m.n * c, c, m.N * m.S)
        case "se":
            return global_context(m, c, k, c) + refined(m, one)
        case "gau":
            return global_context(m, c, k, a) + modulated(m, one)
        case "highway":
            return global_context(m, c, k, a) + selected(m, one)
        case "sa":
            return global_context(m, m.n * c, k, a) + modulated(m, one)
        case "sk":
            return summed(m) + global_context(m, c, k, a) + selected(m, one)
        case "ms-se":
            return ms_cam_logits(m, r) + refined(m, full)
        case "ms-gau":
            return ms_cam_logits(m, r, a) + modulated(m, full)
        case "ms-sa":
            return summed(m) + ms_cam_logits(m, r, a) + modulated(m, full)
        case "aff":
            return summed(m) + ms_cam_logits(m, r, a) + selected(m, full)
        case "iaff" | "open-iaff":
            return fusion("aff", m, r) + ms_cam_logits(m, r, a) + selected(m, full)
        case "open-aff":
            return fusion("aff", m, r) + work(full)
        case "global-global":
            both = global_context(m, c, k, a) + global_context(m, c, k, a)
            return summed(m) + both + work(m.N * a) + selected(m, one)
        case "local-local":
            both = local_context(m, c, k, a) + local_context(m, c, k, a)
            return summed(m) + both + work(m.N * a * m.S) + selected(m, full)
        case "half-aff":
            k = c // (2 * r)
            both = local_context(m, c, k, a) + global_context(m, c, k, a)
            return summed(m) + both + work(2 * m.N * a * m.S) + selected(m, full)
        case "concat-aff":
            both = local_context(m, c, k, a) + global_context(m, c, k, a)
            return summed(m) + both + conv1x1(2 * a, a, m.N * m.S) + selected(m, full)
        case "recursive-aff":
            both = local_context(m, c, k, a) + global_context(m, c, k, a)
            contexts = Map(a, m.S, m.N)
            return (
                summed(m) + both + summed(contexts) + ms_cam_logits(contexts, r) + selected(contexts, contexts.elements)
            ) + selected(m, full)
        case "aff:scales=local+4+global":
            logits = ms_cam_logits(m, r, a) + pooled_context(m, 4, c, k, a) + work(m.N * a * m.S)
            return summed(m) + logits + selected(m, full)
        case "eres2net-aff":
            gates = work(full + 2 * full + 2 * full + full)  # tanh; 1 + t and 1 - t; two products; the sum
            return local_context(m, 2 * c, k, c, activation=2) + gates
    raise KeyError(name)


def dead_params(name: str, m: Map, r: int) -> int:
    """Parameters that no gradient reaches: the second global branch of the released iAFF."""
    return bottleneck(m.C, m.C // r, (m.n - 1) * m.C, 0).params if name == "open-iaff" else 0


def aff_moved_bytes(m: Map, r: int, size: int = 4) -> int:
    """Bytes AFF must move in eval, operator by operator: maps and weights read, results written."""
    k, c = m.C // r, m.C
    full, inner, one, small = (m.N * width * places for width, places in ((c, m.S), (k, m.S), (c, 1), (k, 1)))

    def conv(values_in: int, values_out: int, c_in: int, c_out: int) -> int:
        return values_in + c_in * c_out + c_out + values_out

    def norm(values: int, width: int) -> int:
        return 2 * values + 4 * width

    def branch(values_in: int, values_inner: int, values_out: int) -> int:
        return (
            conv(values_in, values_inner, c, k)
            + norm(values_inner, k)
            + 2 * values_inner  # ReLU in place: read once, written once
            + conv(values_inner, values_out, k, c)
            + norm(values_out, c)
        )

    integration = 3 * full
    contexts = branch(full, inner, full) + full + one + branch(one, small, one)
    logits = full + one + full
    selection = 2 * full + 3 * full + 2 * full + 3 * full + 3 * full
    return size * (integration + contexts + logits + selection)


# Hosts: convolutions without bias, batch norm with weight and bias.


def _conv(c_in: int, c_out: int, kernel: int, positions: int, groups: int = 1) -> Cost:
    weights = c_in // groups * c_out * kernel**2
    return Cost(weights, weights * positions)


def _norm(c: int) -> Cost:
    return Cost(2 * c)


def _linear(c_in: int, c_out: int) -> Cost:
    return Cost(c_in * c_out + c_out, c_in * c_out)


def _fused(name: str, c: int, positions: int, r: int) -> Cost:
    cost = fusion(name, Map(c, positions, N=1), r)
    return Cost(cost.params, cost.macs)


def resnet20(name: str, b: int, width: int, classes: int, r: int = 4, size: int = 32) -> Cost:
    """The CIFAR host: stem, three stages of b pre-activation blocks, head; one image."""
    c = 16 * width
    total = _conv(3, c, 3, size**2)
    for stage in range(3):
        out = 16 * width * 2**stage
        for block in range(b):
            first = block == 0 and stage > 0
            size = size // 2 if first else size
            total += _norm(c) + _conv(c, out, 3, size**2) + _norm(out) + _conv(out, out, 3, size**2)
            total += _conv(c, out, 1, size**2) if first else Cost()
            total += _fused(name, out, size**2, r)
            c = out
    return total + _norm(c) + _linear(c, classes)


def resnet50(name: str, r: int = 16, *, resnext: bool = False, stem: str = "deep", fused_from: int = 3) -> Cost:
    """ResNet-50 or ResNeXt-50-32x4d on one image of 224 pixels a side."""
    size = 112
    if stem == "plain":
        c = 64
        total = _conv(3, 64, 7, size**2) + _norm(64)
    else:
        w = 64 if resnext else 32
        c = 2 * w
        total = _conv(3, w, 3, size**2) + _norm(w) + _conv(w, w, 3, size**2) + _norm(w)
        total += _conv(w, c, 3, size**2) + _norm(c)
    size = 56
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        planes = 64 * 2 ** (stage - 1)
        inner, groups = (2 * planes, 32) if resnext else (planes, 1)
        for block in range(blocks):
            before = size**2
            size = size // 2 if stage > 1 and block == 0 else size
            total += _conv(c, inner, 1, before) + _norm(inner)
            total += _conv(inner, inner, 3, size**2, groups) + _norm(inner)
            total += _conv(inner, 4 * planes, 1, size**2) + _norm(4 * planes)
            total += (_conv(c, 4 * planes, 1, size**2) + _norm(4 * planes)) if block == 0 else Cost()
            total += _fused(name, 4 * planes, size**2, r) if stage >= fused_from else Cost()
            c = 4 * planes
    return total + _linear(c, 1000)
