"""The command line: `main()`, and a group that imports a command's module only when that command is used."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from afftool import __version__, catalog, console
from afftool.cli.ending import end_over_threads, refused_by_system
from afftool.cli.streams import guarded
from afftool.errors import AfftoolError, ReaderLeft
from afftool.registry import load, unknown


class CatalogGroup(TyperGroup):
    """The commands of `catalog.COMMANDS`; their help lines come from the catalog, so `--help` imports none."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the catalog's order."""
        return list(catalog.COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:
        """Import and build one command. Raises `UnknownName` for a typo."""
        if cmd_name not in catalog.COMMANDS:
            if ctx.resilient_parsing or cmd_name.startswith("-"):
                return None
            raise unknown("command", cmd_name, catalog.COMMANDS)
        return build_command(cmd_name, load(catalog.COMMANDS[cmd_name].path))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """The command section of `--help`."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in catalog.COMMANDS.items()])


def build_command(name: str, target: Any) -> TyperCommand | TyperGroup:
    """A command from a function, or from a `typer.Typer` that holds sub-commands."""
    if not isinstance(target, typer.Typer):
        single = typer.Typer(rich_markup_mode=None, add_completion=False)
        single.command(name)(target)
        target = single
    command = typer.main.get_command(target)
    assert isinstance(command, (TyperCommand, TyperGroup))
    command.name = name
    return command


app = typer.Typer(cls=CatalogGroup, rich_markup_mode=None, no_args_is_help=True, add_completion=False)


def _version(wanted: bool) -> None:
    if wanted:
        console.out(f"afftool {__version__}")
        raise typer.Exit


@app.callback()
def global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Profile and ablate feature-fusion modules: what a fusion costs, what it buys, and when it gets slower."""


def main() -> None:
    """Run the command line; the one place where errors become messages and exit codes (`afftool.errors`)."""
    with guarded() as streams:
        told: AfftoolError | None = None
        try:
            typer.main.get_command(app)(prog_name="afftool")
            code: Any = 0
        except SystemExit as end:
            code = end.code
        except AfftoolError as error:
            told, code = error, error.exit_code
            _tell(error)
        except Exception as error:
            told = refused_by_system(error)
            if told is None:
                code = 1
                console.bug(error)
            else:
                code = told.exit_code
                _tell(told)
        unwritten = streams.finish()
        if unwritten and unwritten is not told:
            code = code or unwritten.exit_code  # a verdict stays what it is
            _tell(unwritten)
        end_over_threads(code)
    sys.exit(code)


def _tell(error: AfftoolError) -> None:
    if not isinstance(error, ReaderLeft):
        console.error(error.message, error.hint)
