"""`afftool graft`: where a network of the user's own joins maps, and fusions put there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afftool import catalog, console, written
from afftool.cli import options
from afftool.cli.output import Output
from afftool.errors import SpecError
from afftool.registry import check_names
from afftool.spec import CaseSpec, FusionSpec, HostSpec, parse_size, show_size
from afftool.spec.amounts import MOST_WHOLE
from afftool.spec.graft import PREFIX, SELECTION_KEYS
from afftool.spec.text import read_options

if TYPE_CHECKING:
    from afftool.inspect.network import Look
    from afftool.tables import Report
    from afftool.written import Kind

_SHAPE_FUSIONS = ("add", "aff", "iaff")
"""What is measured at a network's shapes where nothing else is asked for."""


def graft(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NET", help="What makes the network: pkg.mod:build[:key=value]... or path/file.py:build..."
        ),
    ],
    size: Annotated[
        str | None, typer.Option("--size", "-s", help="Spatial size of its input, 224 or 320x240 [default: 224].")
    ] = None,
    inputs: Annotated[
        str | None, typer.Option("--inputs", help="Its inputs, channels first, 3x224x224,1x224x224 [default: 3].")
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="Sites: all, add, concat, 3+5-8, with :stage=3-4, :path=layer4.*, :scenario=long-skip [default: all].",
        ),
    ] = None,
    fusion: Annotated[
        str | None, typer.Option("--fusion", "-f", help="What is put there: a fusion as bench takes it.")
    ] = None,
    share: Annotated[
        bool, typer.Option("--share", help="One fusion for sites in the same place of repeated blocks.")
    ] = False,
    only_equal: Annotated[
        bool, typer.Option("--only-equal", help="Only sites whose maps have one width: no map is projected.")
    ] = False,
    init: Annotated[str | None, typer.Option("--init", help="paper or neutral (starts as the sum).")] = None,
    call: Annotated[str | None, typer.Option("--call", help="What NET is called with, as yolov8n.yaml.")] = None,
    attr: Annotated[str | None, typer.Option("--attr", help="The attribute of it that is the network.")] = None,
    inside: Annotated[
        str | None, typer.Option("--inside", help="The submodule to graft, by its path, where not all can be.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=1, max=MOST_WHOLE, help="Classes of its head.")
    ] = None,
    draw: Annotated[Path | None, typer.Option("--draw", help="Write a picture of its stages and sites, SVG.")] = None,
    save: Annotated[
        Path | None, typer.Option("--save", help="Write a Python module whose build() is the grafted network.")
    ] = None,
    shapes: Annotated[
        Path | None, typer.Option("--shapes", help="Write the shapes it fuses at as cases for bench and check, TOML.")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", "-b", min=1, max=MOST_WHOLE, help="Batch size of the cases of --shapes.")
    ] = 8,
    out: options.Out = None,
    force: options.Force = False,
    formats: options.Formats = None,
    as_json: options.Json = False,
) -> None:
    """Find where a network of yours joins maps (additions, concatenations), and put fusions there.

    Nothing of the network is edited: it is traced by torch.export, and its parameters keep their names. Without
    --fusion the table of sites is shown; with it what the fusions cost there. The text that is printed is a host for
    bench, profile, ablate and check.
    """
    given = {"inputs": inputs.replace(",", "+") if inputs else None, "init": init, "call": call, "attr": attr}
    given |= {"inside": inside, "classes": None if classes is None else str(classes)}
    given |= {"share": "true" if share else None, "only_equal": "true" if only_equal else None}
    said = {key: value for key, value in given.items() if value is not None}
    host = HostSpec.grafted(network.strip().removeprefix(PREFIX))
    host = host.with_settings(**said | _read_at(at)) if said or at else host
    _check_text(host)
    chosen_fusion = _read_fusion(fusion)
    if save is not None and chosen_fusion is None:
        raise SpecError("--save writes a network with fusions, and none is named", hint="for example --fusion iaff")
    output = Output.of(out, formats, as_json, stem="graft", force=force)
    case = _case(host, size)
    _refuse_files(draw, save, shapes, force=force)

    from afftool.fusion.own import say_assumptions
    from afftool.inspect.network import costs, look, sites_report

    with console.stdout_kept(as_json):
        looked = look(case, choose=at is not None or chosen_fusion is not None or _selects(host))
        counted = costs(looked, chosen_fusion) if chosen_fusion is not None else None
        report = sites_report(looked, counted)
        wrote = list(_texts(looked, chosen_fusion, draw, save, shapes, batch))
    say_assumptions()
    if as_json or (formats and not output.files):
        output.print(report)
    else:
        _show(report)
    output.write(report)
    output.tell()
    for path, text, kind in wrote:
        written.write(path, text, kind, force=force)
        console.note(f"wrote {path}")


def show_sites(host: HostSpec, size: str | None) -> None:
    """The sites of a network on the console. Raises `LoadError` and `SpecError`."""
    from afftool.inspect.network import look, sites_report

    _show(sites_report(look(_case(host, size), choose=_selects(host))))


def _show(report: Report) -> None:
    """The report on the console."""
    console.pairs(list(report.facts))
    for table in report.tables:
        console.out(f"\n{table.title}")
        console.table(table)
        if table.note:
            console.out(table.note)
    console.out()
    for note in report.notes:
        console.out(note)


def _read_at(at: str | None) -> dict[str, str]:
    """The keys that `--at` says: sites, then what else they have to be. Raises `SpecError`."""
    if at is None:
        return {}
    first, *rest = at.split(":")
    if "=" in first:
        first, rest = "all", [first, *rest]
    said = read_options(rest, at, "choice of sites")
    check_names("key of --at", said, SELECTION_KEYS[1:])
    return {"at": first, **said}


def _check_text(host: HostSpec) -> None:
    """The text that is printed and saved has to mean this host. Raises `SpecError`."""
    try:
        same = HostSpec.parse(host.text) == host
    except SpecError:
        same = False
    if not same:
        raise SpecError(f"{host.text} cannot be read back", hint="values hold no colon, and no space at their ends")


def _read_fusion(text: str | None) -> FusionSpec | None:
    if text is None:
        return None
    fusion = FusionSpec.parse(text)
    if fusion.original:
        raise SpecError("original is the network as it is, and nothing is put there", hint="leave --fusion out")
    return fusion


def _case(host: HostSpec, size: str | None) -> CaseSpec:
    """The network as it is, with one image. Raises `SpecError`."""
    wanted = size or host.size or ""
    extents = parse_size(wanted, host.ndim_of(wanted) or 2)
    return CaseSpec(fusion=FusionSpec.parse(catalog.ORIGINAL), host=host, channels=None, size=extents, batch=1)


def _selects(host: HostSpec) -> bool:
    """Whether its text means certain sites."""
    return any(key in SELECTION_KEYS for key, _ in host.options)


def _refuse_files(draw: Path | None, save: Path | None, shapes: Path | None, *, force: bool) -> None:
    """What cannot be written is refused before any work. Raises `LoadError`."""
    if draw is save is shapes is None:
        return
    from afftool.graft.draw import PICTURE
    from afftool.graft.saved import MODULE_FILE
    from afftool.graft.shapes import CASES

    for path, kind in ((draw, PICTURE), (save, MODULE_FILE), (shapes, CASES)):
        if path is not None:
            written.refuse(path, kind, force=force)


def _texts(
    looked: Look, fusion: FusionSpec | None, draw: Path | None, save: Path | None, shapes: Path | None, batch: int
) -> Iterator[tuple[Path, str, Kind]]:
    """Every file that is asked for: its path, its text and its kind. Raises `SpecError`."""
    from afftool.graft import draw as drawing
    from afftool.graft import saved as saving
    from afftool.graft import shapes as cases

    sites, case = looked.survey.sites, looked.case
    chosen = sites if looked.chosen is None else looked.chosen
    name = case.host.text.removeprefix(PREFIX)
    if draw is not None:
        numbers = [site.number for site in looked.chosen or ()]
        yield draw, drawing.draw(name, sites, numbers, _below_title(looked, fusion)), drawing.PICTURE
    if save is not None and fusion is not None:
        yield save, saving.saved_file(case.host, fusion, case.input_shapes(), chosen), saving.MODULE_FILE
    if shapes is not None:
        fusions = [FusionSpec.parse(one) for one in _SHAPE_FUSIONS]
        if fusion is not None:
            fusions = [fusions[0], *([fusion] if fusion != fusions[0] else [])]
        distinct = cases.shapes_of(site for site in chosen if not site.flat)
        text, refused = cases.cases_file(name, distinct, fusions, batch)
        for line in refused:
            console.note(f"left out of {shapes}: {line}")
        yield shapes, text, cases.CASES


def _below_title(looked: Look, fusion: FusionSpec | None) -> str:
    from afftool.graft.listing import count_in_words

    at = f", {fusion or 'chosen'} at {len(looked.chosen)} of them" if looked.chosen is not None else ""
    return f"{count_in_words(looked.survey.sites)}{at}; looked at with {show_size(looked.case.input_shapes()[0][1:])}"
