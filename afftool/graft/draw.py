"""A picture of a network's sites: a row a stage, depth to the right, each site at its place. SVG, as a pure function.

Where a skip comes from is not drawn exactly: a long one from the last place before the network went to smaller maps, a
short one from just before its site.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from html import escape

from afftool import visible
from afftool.spec.site import Site
from afftool.spec.text import show_size
from afftool.written import Kind

_MARK = "<!-- drawn by afftool -->"
PICTURE = Kind(
    name="picture that afftool drew",
    is_ours=lambda head: head.startswith(_MARK.encode()),
    instead="name another file by --draw",
    force="--force",
)
LEFT, TOP, STEP, ROW = 206, 92, 34, 92
LEAST_WIDTH = 920
FONT = 12
_LETTER = 0.62
"""How wide a letter is at most, in heights of the font."""

_STYLE = """\
svg { font: 12px ui-sans-serif, system-ui, sans-serif }
.page { fill: #ffffff } text { fill: #1f2328 } .quiet { fill: #59636e } .title { font-size: 16px; font-weight: 600 }
.row { stroke: #d1d9e0; stroke-dasharray: 2 5 } .trunk { stroke: #818b98; stroke-width: 2; fill: none }
.skip { stroke: #0969da; stroke-width: 1.6; fill: none } .long { stroke: #8250df; stroke-width: 1.6; fill: none }
.same { stroke: #1a7f37; stroke-width: 1.6; fill: none } .mark { fill: #ffffff; stroke: #1f2328; stroke-width: 1.6 }
.sign { stroke: #1f2328; stroke-width: 1.6 } .chosen .mark { fill: #bc4c00; stroke: #bc4c00 }
.chosen .sign { stroke: #ffffff }
@media (prefers-color-scheme: dark) {
.page { fill: #0d1117 } text { fill: #f0f6fc } .quiet { fill: #9198a1 } .row { stroke: #3d444d }
.skip { stroke: #4493f8 } .long { stroke: #ab7df8 } .same { stroke: #3fb950 }
.mark { fill: #0d1117; stroke: #f0f6fc } .sign { stroke: #f0f6fc } .chosen .mark { fill: #f0883e; stroke: #f0883e }
.chosen .sign { stroke: #0d1117 }
}"""


@dataclass(frozen=True)
class _Place:
    """Where a site is drawn."""

    site: Site
    x: float
    y: float


def draw(title: str, sites: Sequence[Site], chosen: Collection[int] = (), words: str = "") -> str:
    """The picture as one SVG document; the sites of the numbers `chosen` are filled, `words` stand below the title."""
    stages = sorted({site.stage for site in sites}, key=lambda stage: stage or len(sites) + 1)  # flat ones last
    height = {stage: TOP + ROW * place + ROW / 2 for place, stage in enumerate(stages)}
    places = [_Place(site, LEFT + STEP * (n + 1), height[site.stage]) for n, site in enumerate(sites)]
    width = max(LEAST_WIDTH, LEFT + STEP * (len(sites) + 2))
    bottom = TOP + ROW * len(stages)
    parts = [f'<rect class="page" width="{width}" height="{bottom + 84}"/>']
    parts += [_text(24, 34, title, width - 48, "title", 16), _text(24, 58, words, width - 48, "quiet")]
    for stage in stages:
        parts += _row(height[stage], width, [site for site in sites if site.stage == stage])
    parts.append(_trunk(places, width))
    parts += [_joined(places, number) for number in range(len(places))]
    parts += [_mark(place, place.site.number in chosen) for place in places]
    parts += _legend(bottom + 18)
    parts.append(
        _text(24, bottom + 66, "A long skip is drawn from the last site before the network left its size.", 600)
    )
    size = f'viewBox="0 0 {width} {bottom + 84}" width="{width}" height="{bottom + 84}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{_quoted(title)}">'
    return "\n".join([_MARK, head, f"<style>{_STYLE}</style>", *(part for part in parts if part), "</svg>", ""])


def _row(y: float, width: float, sites: Sequence[Site]) -> list[str]:
    """A stage: its line, and at the left what it is."""
    first = sites[0]
    channels = sorted({site.out for site in sites})
    said = f"{channels[0]}" if len(channels) == 1 else f"{channels[0]} to {channels[-1]}"
    name = "not of its size" if first.flat else f"stage {first.stage}: {show_size(first.size)}"
    return [
        f'<line class="row" x1="24" y1="{y - ROW / 2}" x2="{width - 24}" y2="{y - ROW / 2}"/>',
        _text(24, y - 4, name, LEFT - 34),
        _text(24, y + 14, f"{said} channels", LEFT - 34, "quiet"),
    ]


def _trunk(places: Sequence[_Place], width: float) -> str:
    """The way from site to site."""
    if not places:
        return ""
    steps = [f"M{LEFT:g} {places[0].y:g}"]
    before = places[0]
    for place in places:
        if place.y != before.y:
            steps.append(f"H{place.x - STEP * 0.5:g} V{place.y:g}")
        steps.append(f"H{place.x:g}")
        before = place
    return f'<path class="trunk" d="{" ".join(steps)} H{min(before.x + STEP * 0.7, width - 24):g}"/>'


def _joined(places: Sequence[_Place], number: int) -> str:
    """How the maps of one site come to it."""
    place = places[number]
    x, y = place.x, place.y
    if place.site.scenario == "same-layer":
        start = x - STEP * 0.5
        return f'<path class="same" d="M{start:g} {y - 12:g} L{x:g} {y:g} L{start:g} {y + 12:g}"/>'
    if place.site.scenario == "short-skip":
        start = x - STEP * 0.5
        return f'<path class="skip" d="M{start:g} {y:g} C{start:g} {y - 24:g} {x:g} {y - 24:g} {x:g} {y - 8:g}"/>'
    source = _source(places, number)
    start = LEFT + STEP * 0.2 if source is None else source.x + (0 if source.y == y else STEP * 0.5)
    lift = min(ROW * 0.42, 24 + (x - start) * 0.06)
    top = y - lift - 8
    return f'<path class="long" d="M{start:g} {y - 8:g} C{start:g} {top:g} {x:g} {top:g} {x:g} {y - 8:g}"/>'


def _source(places: Sequence[_Place], number: int) -> _Place | None:
    """The last place before a site from which the way leads to smaller maps and back: of its size, or a larger one."""
    y = places[number].y
    sizes = [place.y for place in places[:number]]
    for n in reversed(range(number)):
        if sizes[n] <= y and any(between > y for between in sizes[n + 1 :]):
            return places[n]
    return None


def _mark(place: _Place, chosen: bool) -> str:
    """A site: a circle with a plus for an addition, a bar for a concatenation, its number below, its place as a title.

    A reader's pointer shows the title.
    """
    site, x, y = place.site, place.x, place.y
    channels = "+".join(map(str, site.channels))
    where = f"{site.number}: {site.kind} in {site.where}, {site.line}, {channels} channels"
    if site.kind == "add":
        shape = f'<circle class="mark" cx="{x:g}" cy="{y:g}" r="8"/>'
        shape += f'<path class="sign" d="M{x - 4:g} {y:g} H{x + 4:g} M{x:g} {y - 4:g} V{y + 4:g}"/>'
    else:
        shape = f'<rect class="mark" x="{x - 4:g}" y="{y - 12:g}" width="8" height="24" rx="2"/>'
    label = f'<text x="{x:g}" y="{y + 28:g}" text-anchor="middle">{site.number}</text>'
    kind = f"site {site.kind}{' chosen' if chosen else ''}"
    return f'<g class="{kind}"><title>{_quoted(where)}</title>{shape}{label}</g>'


def _legend(y: float) -> list[str]:
    """What the marks mean."""
    bar = '<rect class="mark" x="{x}" y="{top}" width="8" height="24" rx="2"/>'
    plus = '<circle class="mark" cx="{m}" cy="{y}" r="8"/><path class="sign" d="M{x} {y} h8 m-4 -4 v8"/>'
    filled = '<g class="chosen"><circle class="mark" cx="{m}" cy="{y}" r="8"/></g>'
    arc = '<path class="{kind}" d="M{left} {low} C{left} {top} {right} {top} {right} {low}"/>'
    fork = '<path class="same" d="M{left} {top} L{right} {y} L{left} {low}"/>'
    entries = (
        (plus, "", "addition"),
        (bar, "", "concatenation"),
        (filled, "", "a fusion is put here"),
        (arc, "skip", "short skip"),
        (arc, "long", "long skip"),
        (fork, "", "maps of one layer"),
    )
    parts, x = [], 34.0
    for shape, kind, words in entries:
        at = {"x": x - 4, "m": x, "y": y + 12, "top": y, "low": y + 24, "left": x - 10, "right": x + 10}
        parts.append(shape.format(kind=kind, **{key: f"{value:g}" for key, value in at.items()}))
        parts.append(_text(x + 18, y + 16, words, 200))
        x += 18 + width_of(words) + 30
    return parts


def _text(x: float, y: float, words: str, room: float, kind: str = "", size: float = FONT) -> str:
    """Words that end before `room` is used up."""
    if not words:
        return ""
    words = visible.line(words)
    fits = int(room / (size * _LETTER))
    shown = words if len(words) <= fits else f"{words[: fits - 1]}…"
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:g}" y="{y:g}">{escape(shown)}</text>'


def width_of(words: str, size: float = FONT) -> float:
    """How much room words take, at most."""
    return len(words) * size * _LETTER


def _quoted(words: str) -> str:
    return escape(visible.line(words), quote=True)
