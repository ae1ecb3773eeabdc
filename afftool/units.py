"""Numbers as people read them: three significant digits and a unit. Stored values are never rounded."""

from __future__ import annotations

import math

_DECIMAL = ("", "k", "M", "G", "T", "P")


def count(number: float) -> str:
    """A count in full, with thousands separators: `30,373,192`."""
    return f"{number:,.0f}"


def scaled(number: float, unit: str = "") -> str:
    """A large number with a decimal prefix: `4.08 G`, `12.8 MB`."""
    step = 0
    while abs(number) >= 999.5 and step < len(_DECIMAL) - 1:
        number /= 1000
        step += 1
    suffix = _DECIMAL[step] + unit
    text = f"{number:g}" if step == 0 and float(number).is_integer() else significant(number)
    return f"{text} {suffix}".rstrip()


def data(number: float) -> str:
    """A number of bytes: `802 kB`. Decimal, as bandwidths are."""
    return scaled(number, "B")


def milliseconds(number: float) -> str:
    """A time given in milliseconds, in the unit that fits: `12.3 µs`, `4.56 ms`, `1.20 s`."""
    for factor, unit in ((1e6, "ns"), (1e3, "µs"), (1.0, "ms")):
        if abs(number) * factor < 999.5:
            return f"{significant(number * factor)} {unit}"
    return f"{significant(number / 1e3)} s"


def seconds(number: float) -> str:
    """A time given in seconds: `8.1 s`, `2 min 05 s`."""
    if number < 60:
        return f"{significant(number, 2)} s"
    minutes, rest = divmod(round(number), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def ratio(number: float) -> str:
    """How many times as much: `3.21x`."""
    return f"{significant(number)}x" if number < 1000 else f"{number:,.0f}x"


def percent(share: float, decimals: int = 1) -> str:
    """A share as people read it: `12.3%`."""
    return f"{share:.{decimals}%}"


def significant(number: float, digits: int = 3) -> str:
    """A number with so many significant digits and no exponent where it can be helped."""
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    decimals = digits - 1 - math.floor(math.log10(abs(number)))
    if not 0 <= decimals <= 6:
        return f"{number:.{digits - 1}e}" if decimals > 6 else f"{number:,.0f}"
    text = f"{number:.{decimals}f}"
    if len(text.replace(".", "").replace("-", "").lstrip("0")) > digits and decimals:
        text = f"{number:.{decimals - 1}f}"  # 9.996 rounds to 10.00, which is one digit too many
    return text
