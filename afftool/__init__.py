"""afftool: what a feature-fusion module costs, what it buys, and when it gets slower."""

__version__ = "0.1.0"
