"""The entry point ``msrf-monai``: global options, groups that load when they are used, errors in one sentence."""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup

from msrf_monai import __version__
from msrf_monai.errors import MsrfError

__all__ = ["LazyGroup", "app", "main"]


class LazyGroup(TyperGroup):
    """A group whose members are imported when they are called, so that help and version answer at once.

    Attributes:
        members: for each name the module whose ``app`` it is, and its line in the help. A new group is one line here.
    """

    members: ClassVar[dict[str, tuple[str, str]]] = {
        "calibrate": ("msrf_monai.cli.calibrate", "Fit the bounds of a bundle's quality flags to its data."),
        "data": ("msrf_monai.cli.data", "List, prepare, draw and verify data sets."),
        "doctor": ("msrf_monai.cli.doctor", "Show what works here, and what to install for the rest."),
        "experiment": ("msrf_monai.cli.experiment", "Compare variants of a bundle by cross-validation."),
        "info": ("msrf_monai.cli.info", "Show this installation and its bundles."),
        "label": ("msrf_monai.cli.label", "Start MONAI Label with our bundles, for annotators."),
        "lint": ("msrf_monai.cli.lint", "Check bundles offline, and show what one would execute."),
        "listen": ("msrf_monai.cli.listen", "Predict what a PACS sends, and send the results back."),
        "package": ("msrf_monai.cli.package", "Make the zip of a bundle."),
        "predict": ("msrf_monai.cli.predict", "Predict clinical files with a bundle: DICOM, pictures, volumes."),
        "unpack": ("msrf_monai.cli.unpack", "Unpack the zip of a bundle."),
        "verify": ("msrf_monai.cli.verify", "Check a bundle's files, and that it gives its stored outputs."),
    }

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all members."""
        return sorted({*super().list_commands(ctx), *self.members})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a stand-in that carries the line of help; ``resolve_command`` brings the member itself."""
        if cmd_name not in self.members:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, callback=None, help=self.members[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the member that the arguments call."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in self.members:
            command = typer.main.get_command(importlib.import_module(self.members[name][0]).app)
        return name, command, rest


app = typer.Typer(
    name="msrf-monai",
    cls=LazyGroup,
    help="2-D medical image segmentation: data sets, training, inference.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"msrf-monai {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error was raised.")] = False,
) -> None:
    """2-D medical image segmentation: data sets, training, inference."""


def main() -> None:
    """Run the command line; an error that the user can mend is one message on stderr and exit code 1, not a traceback.

    Raises:
        SystemExit: with code 0, 1 after an error or 2 after a wrong use.
    """
    try:
        app()
    except MsrfError as error:
        if "--debug" in sys.argv[1:]:
            traceback.print_exc()
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
