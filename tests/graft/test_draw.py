"""The picture of a network's sites: one mark a site, labels that can be read, nothing that runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from afftool.graft.draw import draw, width_of
from afftool.spec.site import Site

SVG = "{http://www.w3.org/2000/svg}"


def site(number: int, kind: str, stage: int, scenario: str, channels=(64, 64), **changed) -> Site:
    given = {"path": f"layer{stage}.{number}", "line": "net.py:12", "code": "x + y", "alike": 1, "nth": 0}
    given |= {"size": (112 >> stage,) * 2} | changed
    return Site(number=number, kind=kind, stage=stage, scenario=scenario, channels=channels, **given)


UNET = [
    site(1, "add", 1, "short-skip"),
    site(2, "add", 2, "short-skip"),
    site(3, "add", 3, "same-layer"),
    site(4, "concat", 2, "long-skip"),
    site(5, "concat", 1, "long-skip"),
]
DENSE = [site(n, "concat", 1 + (n > 6) + (n > 18) + (n > 42), "short-skip", (64 + 32 * n, 32)) for n in range(1, 61)]


def parsed(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def labels(picture: ElementTree.Element) -> Iterator[tuple[float, float, float, float]]:
    """The box of every text: left, top, right, bottom, with room for the widest letters."""
    for text in picture.iter(f"{SVG}text"):
        size = 16 if text.get("class") == "title" else 12
        width = width_of(text.text or "", size)
        left = float(text.get("x", "0")) - (width / 2 if text.get("text-anchor") == "middle" else 0)
        bottom = float(text.get("y", "0")) + 0.25 * size
        yield left, bottom - size, left + width, bottom


@pytest.mark.parametrize("sites", [UNET, DENSE, UNET[:1]], ids=["unet", "dense", "one site"])
def test_every_site_has_one_mark_of_its_kind_and_its_number(sites) -> None:
    picture = parsed(draw("net", sites, {1}))
    marks = [g for g in picture.iter(f"{SVG}g") if (g.get("class") or "").startswith("site ")]
    assert [g.findtext(f"{SVG}text") for g in marks] == [str(one.number) for one in sites]
    assert [(g.get("class") or "").split()[1] for g in marks] == [one.kind for one in sites]
    shapes = {"add": f"{SVG}circle", "concat": f"{SVG}rect"}
    assert all(g.find(shapes[one.kind]) is not None for g, one in zip(marks, sites, strict=True))


@pytest.mark.parametrize("sites", [UNET, DENSE, UNET[:1]], ids=["unet", "dense", "one site"])
def test_labels_lie_within_the_picture_and_never_over_each_other(sites) -> None:
    picture = parsed(draw("torchvision.models:densenet121:weights=none" * 9, sites, words="said of it " * 40))
    _, _, width, height = map(float, (picture.get("viewBox") or "").split())
    boxes = list(labels(picture))
    assert len(boxes) > len(sites)
    for left, top, right, bottom in boxes:
        assert left >= 0
        assert top >= 0
        assert right <= width
        assert bottom <= height
    for number, (left, top, right, bottom) in enumerate(boxes):
        for left2, top2, right2, bottom2 in boxes[:number]:
            assert right <= left2 or right2 <= left or bottom <= top2 or bottom2 <= top


def test_the_sites_that_are_chosen_are_filled_and_no_others() -> None:
    picture = parsed(draw("net", UNET, {2, 5}))
    chosen = [g.findtext(f"{SVG}text") for g in picture.iter(f"{SVG}g") if (g.get("class") or "").endswith(" chosen")]
    assert chosen == ["2", "5"]


def test_a_skip_is_drawn_as_what_it_is() -> None:
    picture = parsed(draw("net", UNET))
    kinds = [path.get("class") for path in picture.findall(f"{SVG}path") if path.get("class") != "trunk"]
    legend = ["skip", "long", "same", "sign"]
    assert sorted(kinds) == sorted(["skip", "skip", "same", "long", "long", *legend])


def test_a_long_skip_begins_where_the_network_left_its_size() -> None:
    text = draw("net", UNET)
    starts = [float(x) for x in re.findall(r'class="long" d="M([\d.]+)', text)]
    numbers = [float(x) for x in re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="middle"', text)]
    assert starts[:2] == [numbers[1], numbers[0]]
    decoder = [*UNET[:3], site(4, "add", 2, "short-skip"), site(5, "concat", 2, "long-skip")]
    start = re.search(r'class="long" d="M([\d.]+)', draw("net", decoder))
    assert start is not None
    assert float(start[1]) == numbers[1]  # and not the site just before it, which is past the smaller maps


def test_a_site_that_joins_no_maps_of_the_inputs_dimensions_has_a_row_of_its_own_at_the_foot() -> None:
    flat = site(6, "concat", 0, "same-layer", flat=True, size=(8400,))
    picture = parsed(draw("net", [*UNET, flat]))
    rows = {text.text: float(text.get("y", "0")) for text in picture.iter(f"{SVG}text")}
    assert rows["not of its size"] > rows["stage 3: 14x14"]


def test_names_with_marks_of_xml_or_of_the_terminal_are_shown_and_not_obeyed() -> None:
    hostile = site(1, "add", 1, "short-skip", path='a"><script>x</script>\x1b[2J', line="<&>.py:1")
    text = draw("<b>&\x1b[31m", [hostile])
    picture = parsed(text)
    assert not list(picture.iter(f"{SVG}script"))
    assert "\x1b" not in text
    assert next(picture.iter(f"{SVG}text")).text is not None


def test_it_is_readable_in_light_and_dark_and_holds_nothing_that_runs_or_is_fetched() -> None:
    text = draw("net", UNET)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|href|url\(|@import|\son\w+=", text)
