"""What a fusion of the grammar costs, as a formula in its channels and positions; nothing is built or counted.

Follows PAPER-style bottlenecks `B(W2 delta(B(W1 .)))` with a bias in every 1x1 convolution: a branch from `a` over `m`
to `b` channels has `a m + m + m b + b` parameters, two per normalised channel besides, and makes `a m + m b`
multiply-adds a position. Tests compare it with what is counted on the built modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from afftool.spec import Grammar

ORDER = "CmkP"
"""C: channels; m: width of the bottleneck; k: width of the one inside a recursive join; P: positions of a map."""


@dataclass(frozen=True)
class Polynomial:
    """A sum of products of symbols with whole coefficients, as `4 C m + 6 C`."""

    terms: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Polynomial) -> Polynomial:
        merged = dict(self.terms)
        for symbols, coefficient in other.terms.items():
            merged[symbols] = merged.get(symbols, 0) + coefficient
        return Polynomial({symbols: number for symbols, number in merged.items() if number})

    def __mul__(self, other: Polynomial) -> Polynomial:
        product = Polynomial()
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                product += Polynomial({"".join(sorted(left + right, key=ORDER.index)): a * b})
        return product

    def at(self, values: Mapping[str, int]) -> int:
        """The value where each symbol has a value."""
        total = 0
        for symbols, coefficient in self.terms.items():
            for symbol in symbols:
                coefficient *= values[symbol]
            total += coefficient
        return total

    def __str__(self) -> str:
        parts = []
        for symbols, coefficient in sorted(self.terms.items(), key=lambda term: (-len(term[0]), term[0])):
            powers = [s if symbols.count(s) == 1 else f"{s}^{symbols.count(s)}" for s in dict.fromkeys(symbols)]
            parts.append(" ".join([str(coefficient)] * (coefficient != 1 or not powers) + powers))
        return " + ".join(parts) or "0"


@dataclass(frozen=True)
class ClosedForm:
    """Parameters, and multiply-adds of one forward pass of one sample, as formulas; `widths` gives m and k."""

    params: Polynomial
    macs: Polynomial
    widths: Mapping[str, str]
    grammar: Grammar

    def values(self, channels: int, positions: int) -> dict[str, int]:
        """The symbols' values. Raises `SpecError` if the channels are too few for the reduction."""
        found = {"C": channels, "P": positions}
        if "m" in self.widths:
            found["m"] = self.grammar.inner_channels(channels)
        if "k" in self.widths:
            found["k"] = channels * _gated(self.grammar) // self.grammar.reduction
        return found


C, M, K, P = (Polynomial({symbol: 1}) for symbol in ORDER)


def closed_form(grammar: Grammar) -> ClosedForm:
    """The cost of a fusion as formulas in C, m, k and P."""
    if grammar.strategy == "add":
        return ClosedForm(Polynomial(), Polynomial(), {}, grammar)
    if grammar.strategy == "concat":
        weights = _times(grammar.inputs) * C * C
        return ClosedForm(weights + C, weights * P, {}, grammar)
    out = _times(_gated(grammar)) * C
    first = _times(grammar.inputs) * C if grammar.integration == "concat" else C
    params = macs = Polynomial()
    for number in range(grammar.iterations):
        params_of_pass, macs_of_pass = _attention(grammar, first if number == 0 else C, out)
        params, macs = params + params_of_pass, macs + macs_of_pass
    share = grammar.reduction * (len(grammar.scales) if grammar.join == "half" else 1)
    widths = {"m": f"C / {share}"}
    if grammar.join == "recursive":
        gated = _gated(grammar)
        widths["k"] = f"{gated} C / {grammar.reduction}" if gated > 1 else f"C / {grammar.reduction}"
    return ClosedForm(params, macs, widths, grammar)


def _attention(grammar: Grammar, channels_in: Polynomial, out: Polynomial) -> tuple[Polynomial, Polynomial]:
    """Parameters and multiply-adds of one pass: its branches, and what joins them."""
    params = macs = Polynomial()
    for scale in grammar.scales:
        params += _branch_params(grammar, channels_in, M, out)
        macs += (channels_in * M + M * out) * _positions(grammar, scale)
    joined_at = _times(1) if set(grammar.scales) == {"global"} else P
    if grammar.join == "concat":
        weights = _times(len(grammar.scales)) * out * out
        params, macs = params + weights + out, macs + weights * joined_at
    if grammar.join == "recursive":
        params += _times(2) * _branch_params(grammar, out, K, out)
        macs += _times(2) * out * K * (joined_at + _times(1))
    return params, macs


def _branch_params(grammar: Grammar, channels_in: Polynomial, inner: Polynomial, out: Polynomial) -> Polynomial:
    norms = _times(0 if grammar.norm == "none" else 2) * (inner + out)
    return channels_in * inner + inner + inner * out + out + norms


def _positions(grammar: Grammar, scale: str | int) -> Polynomial:
    if scale == "local":
        return P
    return _times(scale**grammar.ndim if isinstance(scale, int) else 1)


def _gated(grammar: Grammar) -> int:
    """How many maps have a gate of their own."""
    return 1 if grammar.strategy == "refinement" else grammar.inputs - 1


def _times(number: int) -> Polynomial:
    return Polynomial({"": number} if number else {})
