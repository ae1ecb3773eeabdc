"""The options that several commands share, each written once. Lists are comma separated, or the option repeated."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from afftool import catalog
from afftool.errors import SpecError


class RunsCommand(TyperCommand):
    """A command whose arguments are runs, so that `-2` is the last but one and not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take `-N` as `latest~(N-1)`."""
        words = [f"latest~{int(word[1:]) - 1}" if re.fullmatch(r"-[1-9]\d*", word) else word for word in args]
        return super().parse_args(ctx, words)


def _names_first(words: list[str] | None) -> list[str] | None:
    """A mistyped fusion is answered before anything else is looked at."""
    from afftool.spec.sweep import parse_fusions

    if words:
        parse_fusions(words)
    return words


def _number_or_auto(text: str | None) -> str | None:
    """A whole number from 1 on, as it is, or `auto`."""
    if text is None or text == "auto":
        return text
    if text.isascii() and text.isdigit() and int(text[:20]) >= 1:
        # Imported here: `list` and `runs` have these options' module too, and no use for cases.
        from afftool.spec.amounts import MOST_THREADS, read_whole

        read_whole("--threads", text, most=MOST_THREADS, hint="as many as the machine has cores, or auto")
        return text
    raise typer.BadParameter(f"{text!r} is neither a whole number from 1 on nor auto")


def _share_of_points(points: float | None) -> float | None:
    """A difference in points, as a share."""
    if points is None or 0 < points < 100:
        return None if points is None else points / 100
    raise SpecError(f"--margin {points:g} is no difference in points", hint="for example --margin 0.5, half a point")


Fusions = Annotated[
    list[str] | None,
    typer.Option(
        "--fusion",
        "-f",
        is_eager=True,
        callback=_names_first,
        help="Fusions: name[:key=value]..., pkg.mod:Class[:key=value]... (or path/file.py:Class, its width as "
        "in_channels={channels}, its maps as maps=c@s+2c@s/2), or all. Lists.",
    ),
]
Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="What carries the fusion: name[:key=value]..., or graft:pkg.mod:build, a network of yours "
        "[default: module]. Lists.",
    ),
]
Channels = Annotated[
    list[str] | None, typer.Option("--channels", "-c", help="Channels of the bare fusion [default: 64]. Lists.")
]
Sizes = Annotated[
    list[str] | None,
    typer.Option("--size", "-s", help="Spatial size, 56 or 56x28 [default: the host's, 56 for a bare fusion]. Lists."),
]
Batches = Annotated[list[str] | None, typer.Option("--batch", "-b", help="Batch size [default: 8]. Lists.")]
Modes = Annotated[list[str] | None, typer.Option("--mode", help="infer or train [default: infer]. Lists.")]
Device = Annotated[str, typer.Option("--device", help="auto (CUDA where there is one), cpu, cuda or cuda:N.")]
Dtypes = Annotated[
    list[str] | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [default: float32]. Lists.")
]
MemoryFormats = Annotated[
    list[str] | None,
    typer.Option("--memory-format", help="contiguous or channels_last [default: contiguous]. Lists."),
]
Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", help="How it is run; `afftool list backends` [default: all this machine has]. Lists."),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin",
        metavar="POINTS",
        callback=_share_of_points,
        help="A difference, in points, that counts as none: within it two variants are `the same`.",
    ),
]
Threads = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="N|auto",
        callback=_number_or_auto,
        help="CPU threads torch may use; auto: as many as cores are free [default: auto, or as OMP_NUM_THREADS says].",
    ),
]
Baseline = Annotated[
    str,
    typer.Option(
        "--baseline",
        help="The fusion the others are compared with, measured along; auto: add, in a graft original; or none.",
    ),
]
StorePath = Annotated[
    Path, typer.Option("--store", envvar="AFFTOOL_STORE", show_envvar=True, help="The run store, a SQLite file.")
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Also write a report: a file (its suffix says the format) or a folder."),
]
Force = Annotated[
    bool, typer.Option("--force", help="Let --out replace a file that is no report of afftool (never a run store).")
]
_FORMATS = " or ".join(", ".join(catalog.FORMATS).rsplit(", ", 1))  # md, csv, json or html
Formats = Annotated[
    list[str] | None,
    typer.Option("--format", help=f"{_FORMATS} [default: by suffix; md and csv]. Lists."),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document to stdout, and nothing else there.")]

STORE = Path(".afftool/runs.sqlite")
