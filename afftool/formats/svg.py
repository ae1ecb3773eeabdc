"""A bar chart as inline SVG: bars from zero, whiskers for intervals, every value written out."""

from __future__ import annotations

from html import escape

from afftool.report.model import Chart

_LABELS, _BARS, _VALUES, _ROW = 330, 420, 110, 24


def bars(chart: Chart) -> str:
    """The chart as one `<svg>`; lengths are proportional to values, the widest reaches the right edge."""
    top = max(bar.high if bar.high is not None else bar.value for bar in chart.bars)
    scale = _BARS / top if top > 0 else 0.0
    height = _ROW * len(chart.bars)
    parts = []
    for position, bar in enumerate(chart.bars):
        y, middle = position * _ROW, position * _ROW + _ROW / 2
        parts.append(f'<text x="{_LABELS - 8}" y="{middle + 4:g}" text-anchor="end">{escape(bar.label)}</text>')
        parts.append(
            f'<rect x="{_LABELS}" y="{y + 4}" width="{bar.value * scale:.1f}" height="{_ROW - 8}" fill="var(--bar)"/>'
        )
        if bar.low is not None and bar.high is not None:
            low, high = _LABELS + bar.low * scale, _LABELS + bar.high * scale
            parts.append(
                f'<path d="M{low:.1f} {middle:g}H{high:.1f}M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8" '
                'stroke="currentColor" fill="none"/>'
            )
        parts.append(f'<text x="{_LABELS + _BARS + 8}" y="{middle + 4:g}">{escape(chart.show(bar.value))}</text>')
    width = _LABELS + _BARS + _VALUES
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(chart.title)}">\n' + "\n".join(parts) + "\n</svg>"
    )
