"""The paper's formulas written out once more, one function a preset, from a module's tensors alone.

Nothing here calls afftool: a branch is a matrix product over channels, batch norm its textbook formula. Maps are
flattened to (N, C, P), so one definition serves 1d, 2d and 3d.
"""

from __future__ import annotations

import torch

State = dict[str, torch.Tensor]
POOLED = "aff:scales=local+4+global"
"""A point of the grammar that no preset names, so that pooled scales are held to their formula too."""
SIZES = {1: (7,), 2: (3, 5), 3: (2, 3, 2)}
"""The maps that are fused, by their dimensions: what a pooled scale has to know besides (N, C, P)."""


def batch_norm(p: State, name: str, x: torch.Tensor, training: bool) -> torch.Tensor:
    if training:
        mean = x.mean(dim=(0, 2))
        variance = ((x - mean[:, None]) ** 2).mean(dim=(0, 2))
    else:
        mean, variance = p[f"{name}.running_mean"], p[f"{name}.running_var"]
    scaled = (x - mean[:, None]) / torch.sqrt(variance + 1e-5)[:, None]
    return p[f"{name}.weight"][:, None] * scaled + p[f"{name}.bias"][:, None]


def conv(p: State, name: str, x: torch.Tensor) -> torch.Tensor:
    weight = p[f"{name}.weight"].flatten(1)
    return torch.einsum("oc,ncp->nop", weight, x) + p[f"{name}.bias"][:, None]


def bottleneck(p: State, name: str, x: torch.Tensor, training: bool, first: int, delta=torch.relu) -> torch.Tensor:
    hidden = delta(batch_norm(p, f"{name}.{first + 1}", conv(p, f"{name}.{first}", x), training))
    return batch_norm(p, f"{name}.{first + 4}", conv(p, f"{name}.{first + 3}", hidden), training)


def g(p: State, x: torch.Tensor, t: bool, name: str = "global_att") -> torch.Tensor:
    return bottleneck(p, name, x.mean(dim=2, keepdim=True), t, first=1)


def local(p: State, x: torch.Tensor, t: bool, name: str = "local_att") -> torch.Tensor:
    return bottleneck(p, name, x, t, first=0)


def along(matrix: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
    return torch.tensordot(matrix.to(x), x, dims=([1], [axis])).movedim(0, axis)


def windows(s: int, k: int) -> torch.Tensor:
    """(k, s): means over the k windows floor(i s / k) to ceil((i + 1) s / k)."""
    ends = [(i * s // k, -(-(i + 1) * s // k)) for i in range(k)]
    return torch.tensor([[(a <= j < b) / (b - a) for j in range(s)] for a, b in ends], dtype=torch.float64)


def nearest(k: int, s: int) -> torch.Tensor:
    """(s, k): each of s positions takes that of k at floor(j k / s)."""
    return torch.tensor([[float(i == j * k // s) for i in range(k)] for j in range(s)])


def pooled(p: State, x: torch.Tensor, t: bool, k: int) -> torch.Tensor:
    """A branch on the map pooled to k a side, brought back to the map's size."""
    name = f"pool{k}_att"
    size = SIZES[p[f"{name}.1.weight"].dim() - 2]
    x = x.unflatten(2, size)
    for axis, s in enumerate(size, start=2):
        x = along(windows(s, k), x, axis)
    x = bottleneck(p, name, x.flatten(2), t, first=1).unflatten(2, (k,) * len(size))
    for axis, s in enumerate(size, start=2):
        x = along(nearest(k, s), x, axis)
    return x.flatten(2)


def sigma(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + torch.exp(-x))


def ms(p: State, x: torch.Tensor, t: bool, end: str = "", shared: bool = False) -> torch.Tensor:
    return sigma(local(p, x, t, f"local_att{end}") + g(p, x, t, "global_att" if shared else f"global_att{end}"))


def blend(m: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return m * x + (1 - m) * y


def recursive(p: State, x: torch.Tensor, y: torch.Tensor, t: bool) -> torch.Tensor:
    a, b = local(p, x + y, t), g(p, x + y, t)
    inner = sigma(local(p, a + b, t, "join_att.local_att") + g(p, a + b, t, "join_att.global_att"))
    return blend(sigma(blend(inner, a, b)), x, y)


def concat_aff(p: State, x: torch.Tensor, y: torch.Tensor, t: bool) -> torch.Tensor:
    a, b = local(p, x + y, t), g(p, x + y, t)
    return blend(sigma(conv(p, "join_att.conv", torch.cat([a, b.expand_as(a)], dim=1))), x, y)


def eres2net(p: State, x: torch.Tensor, y: torch.Tensor, t: bool) -> torch.Tensor:
    both = torch.cat([x, y], dim=1)
    gate = torch.tanh(bottleneck(p, "local_att", both, t, first=0, delta=lambda v: v * sigma(v)))
    return x * (1 + gate) + y * (1 - gate)


def iaff(p: State, x: torch.Tensor, y: torch.Tensor, t: bool, shared: bool = False) -> torch.Tensor:
    integrated = blend(ms(p, x + y, t), x, y)
    return blend(ms(p, integrated, t, "2", shared), x, y)


def twin(branch, name: str):
    return lambda p, x, y, t: blend(sigma(branch(p, x + y, t, name) + branch(p, x + y, t, f"{name}_b")), x, y)


FORMULAS = {
    "add": lambda p, x, y, t: x + y,
    "concat": lambda p, x, y, t: conv(p, "conv", torch.cat([x, y], dim=1)),
    "se": lambda p, x, y, t: x + sigma(g(p, y, t)) * y,
    "gau": lambda p, x, y, t: sigma(g(p, y, t)) * x + y,
    "highway": lambda p, x, y, t: blend(sigma(g(p, x, t)), x, y),
    "sa": lambda p, x, y, t: sigma(g(p, torch.cat([x, y], dim=1), t)) * x + y,
    "sk": lambda p, x, y, t: blend(sigma(g(p, x + y, t)), x, y),
    "ms-se": lambda p, x, y, t: x + ms(p, y, t) * y,
    "ms-gau": lambda p, x, y, t: ms(p, y, t) * x + y,
    "ms-sa": lambda p, x, y, t: ms(p, x + y, t) * x + y,
    "aff": lambda p, x, y, t: blend(ms(p, x + y, t), x, y),
    "iaff": iaff,
    "global-global": twin(g, "global_att"),
    "local-local": twin(local, "local_att"),
    "half-aff": lambda p, x, y, t: blend(sigma(0.5 * local(p, x + y, t) + 0.5 * g(p, x + y, t)), x, y),
    "concat-aff": concat_aff,
    "recursive-aff": recursive,
    POOLED: lambda p, x, y, t: blend(sigma(joined(p, x + y, t) + pooled(p, x + y, t, 4)), x, y),
    "open-aff": lambda p, x, y, t: 2 * x * ms(p, x + y, t) + 2 * y * (1 - ms(p, x + y, t)),
    "open-iaff": lambda p, x, y, t: iaff(p, x, y, t, shared=True),
    "eres2net-aff": eres2net,
}


# Any number of maps, as the grammar generalises Table 1: the last map is refined or added as it is, every other one
# is gated by its own share of the logits, and soft selection is a softmax whose last logit is 0.


def joined(p: State, c: torch.Tensor, t: bool, end: str = "", shared: bool = False) -> torch.Tensor:
    return local(p, c, t, f"local_att{end}") + g(p, c, t, "global_att" if shared else f"global_att{end}")


def recursive_logits(p: State, c: torch.Tensor, t: bool) -> torch.Tensor:
    a, b = local(p, c, t), g(p, c, t)
    inner = sigma(local(p, a + b, t, "join_att.local_att") + g(p, a + b, t, "join_att.global_att"))
    return blend(inner, a, b)


def concat_logits(p: State, c: torch.Tensor, t: bool) -> torch.Tensor:
    a, b = local(p, c, t), g(p, c, t)
    return conv(p, "join_att.conv", torch.cat([a, b.expand_as(a)], dim=1))


def shares(logits: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
    channels = maps[0].shape[1]
    return [logits[:, i * channels : (i + 1) * channels] for i in range(len(maps) - 1)]


def refined(logits: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    return sum(maps[:-1]) + sigma(logits) * maps[-1]


def modulated(logits: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    return sum(sigma(s) * x for s, x in zip(shares(logits, maps), maps[:-1], strict=True)) + maps[-1]


def selected(logits: torch.Tensor, maps: list[torch.Tensor]) -> torch.Tensor:
    powers = [torch.exp(s) for s in shares(logits, maps)] + [torch.ones_like(maps[0])]
    return sum(power * x for power, x in zip(powers, maps, strict=True)) / sum(powers)


def two_passes(p: State, maps: list[torch.Tensor], t: bool, shared: bool) -> torch.Tensor:
    integrated = selected(joined(p, sum(maps), t), maps)
    return selected(joined(p, integrated, t, "2", shared), maps)


FORMULAS_OF_N = {
    "add": lambda p, m, t: sum(m),
    "concat": lambda p, m, t: conv(p, "conv", torch.cat(m, dim=1)),
    "se": lambda p, m, t: refined(g(p, m[-1], t), m),
    "gau": lambda p, m, t: modulated(g(p, m[-1], t), m),
    "highway": lambda p, m, t: selected(g(p, m[0], t), m),
    "sa": lambda p, m, t: modulated(g(p, torch.cat(m, dim=1), t), m),
    "sk": lambda p, m, t: selected(g(p, sum(m), t), m),
    "ms-se": lambda p, m, t: refined(joined(p, m[-1], t), m),
    "ms-gau": lambda p, m, t: modulated(joined(p, m[-1], t), m),
    "ms-sa": lambda p, m, t: modulated(joined(p, sum(m), t), m),
    "aff": lambda p, m, t: selected(joined(p, sum(m), t), m),
    "iaff": lambda p, m, t: two_passes(p, m, t, shared=False),
    "global-global": lambda p, m, t: selected(g(p, sum(m), t) + g(p, sum(m), t, "global_att_b"), m),
    "local-local": lambda p, m, t: selected(local(p, sum(m), t) + local(p, sum(m), t, "local_att_b"), m),
    "half-aff": lambda p, m, t: selected(0.5 * joined(p, sum(m), t), m),
    "concat-aff": lambda p, m, t: selected(concat_logits(p, sum(m), t), m),
    "recursive-aff": lambda p, m, t: selected(recursive_logits(p, sum(m), t), m),
    POOLED: lambda p, m, t: selected(joined(p, sum(m), t) + pooled(p, sum(m), t, 4), m),
    "open-aff": lambda p, m, t: 2 * selected(joined(p, sum(m), t), m),
    "open-iaff": lambda p, m, t: two_passes(p, m, t, shared=True),
}
