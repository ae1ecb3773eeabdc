"""Feature fusions: modules called as `fusion(x, y)` that turn two or more feature maps into one.

    >>> from afftool.fusion import AFF, IAFF, MSCAM, build_fusion
    >>> fuse = AFF(channels=64, reduction=4)                 # x, y: (N, 64, H, W) -> (N, 64, H, W)
    >>> fuse = build_fusion("iaff", channels=64, ndim=1)     # any name `afftool list fusions` prints

Formulas and sources: `afftool describe NAME`; paper: Attentional Feature Fusion, WACV 2021, arXiv 2009.14082.
"""

from afftool.fusion.attention import MSCAM
from afftool.fusion.build import FusionFactory, build_fusion, fusion_factory
from afftool.fusion.gated import AFF, IAFF
from afftool.fusion.released import load_open_aff

__all__ = ["AFF", "IAFF", "MSCAM", "FusionFactory", "build_fusion", "fusion_factory", "load_open_aff"]
