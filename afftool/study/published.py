"""The paper's numbers for its own ablations (PAPER Tables 3, 4, 6), to be set beside ours and never mixed with them."""

from __future__ import annotations

from afftool.spec import HostSpec

SOURCE = "Dai et al., WACV 2021"

_INCEPTION, _RESNET, _FPN, _RESNET50 = "inception", "resnet", "fpn", "resnet50"

TRAINED_ON = {
    _INCEPTION: "CIFAR-100, 20 superclasses, 400 epochs, top-1",
    _RESNET: "CIFAR-100, 20 superclasses, 400 epochs, top-1",
    _FPN: "StopSign (from COCO), 300 epochs, mIoU",
    _RESNET50: "ImageNet, 160 epochs, top-1",
}
"""What the published numbers were trained on, by host."""

_Table = dict[str, dict[str, tuple[float | None, ...]]]
"""Host -> variant -> score at b = 1, 2, 3, 4 (one number for a host without b)."""

_SCALE: _Table = {
    _INCEPTION: {
        "global-global": (0.735, 0.766, 0.775, 0.789),
        "local-local": (0.746, 0.771, 0.785, 0.787),
        "aff": (0.756, 0.784, 0.794, 0.801),
    },
    _RESNET: {
        "global-global": (0.754, 0.796, 0.811, 0.821),
        "local-local": (0.754, 0.794, 0.808, 0.814),
        "aff": (0.763, 0.804, 0.816, 0.826),
    },
    _FPN: {
        "global-global": (0.911, 0.923, 0.936, 0.939),
        "local-local": (0.895, 0.919, 0.921, 0.924),
        "aff": (0.924, 0.935, 0.939, 0.944),
    },
    _RESNET50: {"global-global": (0.777,), "local-local": (0.780,), "aff": (0.784,)},
}

_INTEGRATION: _Table = {
    _INCEPTION: {
        "add": (0.720, 0.753, 0.771, 0.782),
        "concat": (0.725, 0.749, 0.772, 0.779),
        "ms-gau": (0.751, 0.774, 0.788, 0.795),
        "ms-se": (0.752, 0.780, 0.790, 0.798),
        "ms-sa": (0.756, 0.779, 0.790, 0.798),
        "aff": (0.756, 0.784, 0.794, 0.801),
        "iaff": (0.774, 0.801, 0.808, 0.814),
    },
    _RESNET: {
        "add": (0.740, 0.786, 0.797, 0.808),
        "concat": (0.742, 0.782, 0.793, 0.798),
        "ms-gau": (0.766, 0.803, 0.815, 0.819),
        "ms-se": (0.765, 0.799, 0.814, 0.820),
        "ms-sa": (0.761, 0.801, 0.814, 0.822),
        "aff": (0.763, 0.804, 0.816, 0.826),
        "iaff": (0.772, 0.807, 0.822, None),
    },
    _FPN: {
        "add": (0.895, 0.920, 0.925, 0.928),
        "concat": (0.897, 0.909, 0.925, 0.939),
        "ms-gau": (0.917, 0.926, 0.937, 0.941),
        "ms-se": (0.915, 0.929, 0.940, 0.940),
        "ms-sa": (0.920, 0.932, 0.938, 0.941),
        "aff": (0.924, 0.935, 0.939, 0.944),
        "iaff": (0.927, 0.938, 0.945, 0.953),
    },
}

_JOINING: _Table = {
    _RESNET: {
        "half-aff": (0.759, 0.798, 0.813),
        "concat-aff": (0.765, 0.792, 0.817),
        "aff": (0.764, 0.799, 0.816),
        "recursive-aff": (0.764, 0.797, 0.812),
        "iaff": (0.772, 0.807, 0.822),
    }
}

TABLES: dict[str, tuple[str, _Table]] = {
    "scale": ("Table 3", _SCALE),
    "integration": ("Table 4", _INTEGRATION),
    "joining": ("Table 6", _JOINING),
    "depth": ("Table 4", _INTEGRATION),
}


def table_name(published: str) -> str:
    """Which table of the paper a study's numbers come from, `Table 3`."""
    return TABLES[published][0]


def trained_on(published: str, host: str) -> str:
    """What the paper's numbers under this name were trained on, in words (`TRAINED_ON`; Table 6 used mixup)."""
    return TRAINED_ON[host] + (", with mixup" if published == "joining" else "")


def known(published: str) -> bool:
    """Whether there are published numbers under this name."""
    return published in TABLES


def score(published: str, variant: str, host: HostSpec) -> float | None:
    """The paper's score for a variant (`aff`, or `aff b=2`) in a host of that depth; None where it has none."""
    by_variant = TABLES[published][1].get(host.name, {})
    scores = by_variant.get(variant.partition(" ")[0], ())
    if len(scores) == 1:
        return scores[0]
    b = dict(host.options).get("b")
    return scores[b - 1] if isinstance(b, int) and b <= len(scores) else None
