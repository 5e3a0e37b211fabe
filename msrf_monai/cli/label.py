"""``msrf-monai label``: MONAI Label with our bundles, for annotators; and the environment that it needs."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from msrf_monai.cli.info import find_bundles
from msrf_monai.errors import ConfigError, MissingExtraError
from msrf_monai.label.app_folder import AppFolder, running_environment
from msrf_monai.label.environment import VARIABLE, Environment, make_environment
from msrf_monai.label.launch import launch_of, warnings_of
from msrf_monai.label.options import LabelOptions

__all__ = ["app"]

_GONE_ON = "MSRF_LABEL_GONE_ON"
"""Set while one environment hands over to another, so that it happens once."""

app = typer.Typer(add_completion=False)


@app.command()
def label(
    studies: Annotated[
        str | None, typer.Option(metavar="FOLDER|URL", help="Folder of images, or address of a DICOMweb service.")
    ] = None,
    bundles: Annotated[
        str, typer.Option(metavar="NAME,…|all", help="Names or folders of bundles, with commas between them.")
    ] = "all",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on; OHIF's panel expects 8000.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; any other than this computer's own opens it to the network.")
    ] = "127.0.0.1",
    app_dir: Annotated[
        Path, typer.Option(help="Folder of the app: copies of the bundles, fine-tuned weights, logs.")
    ] = Path("label-app"),
    epistemic: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Rank images without a label by this bundle's uncertainty.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(metavar="BUNDLE=FILE", help="Weights for a bundle; may be repeated.")
    ] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Random weights for bundles without any, to annotate from scratch.")
    ] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: one fewer than the CPUs.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the command that this stands for.")] = False,
    environment: Annotated[
        Path | None, typer.Option(envvar=VARIABLE, help="MONAI Label's environment, when it is not this one.")
    ] = None,
    make: Annotated[
        Path | None,
        typer.Option("--make-environment", metavar="FOLDER", help="Make MONAI Label's environment there, and leave."),
    ] = None,
    torch_index: Annotated[
        str | None, typer.Option(help="With --make-environment: address of the index that PyTorch comes from.")
    ] = None,
) -> None:
    """Start a MONAI Label server that knows our bundles: offline, on this computer only, images of 2-D as they are.

    It runs until Ctrl-C. Exit code 1: it could not be started; otherwise that of MONAI Label's server.
    """
    if make is not None:
        made = make_environment(make, torch_index=torch_index)
        typer.echo(f"made {made.folder}; start with: {made.python.with_name('msrf-monai')} label --studies FOLDER")
        return
    if studies is None:
        raise ConfigError("nothing to label: name the folder of images, or a DICOMweb service, with --studies")
    where = _with_monai_label(environment)
    options = LabelOptions(
        studies=studies,
        bundles=tuple(_bundles(bundles)),
        app_dir=app_dir,
        host=host,
        port=port,
        epistemic=epistemic,
        weights=tuple(_pair(each) for each in weights or ()),
        untrained=untrained,
        threads=threads,
    )
    options.check()
    launch = launch_of(options, where)
    if dry_run:
        typer.echo(launch.line())
        return
    for note in [*_lay_out(options, where), *warnings_of(options)]:
        typer.echo(f"note: {note}", err=True)
    typer.echo(launch.line(), err=True)
    os.execve(launch.command[0], launch.command, launch.environment())  # noqa: S606 - there is no shell


def _with_monai_label(given: Path | None) -> Environment:
    """Return the environment to run in; when it is another one, go on there and never come back."""
    here = running_environment()
    was_here = os.environ.pop(_GONE_ON, None)
    if given is not None and Environment(given).folder.resolve() != here.folder.resolve():
        other = Environment(given)
        if not other.python.exists():
            raise ConfigError(f"{given} is no environment; make it with: msrf-monai label --make-environment {given}")
        if was_here:
            raise ConfigError(
                f"{given} is no environment of its own: its bin/python belongs to {here.folder}; make one with: "
                "msrf-monai label --make-environment FOLDER"
            )
        os.environ[_GONE_ON] = "1"
        arguments = [str(other.python), "-m", "msrf_monai.cli.main", *sys.argv[1:]]
        os.execv(arguments[0], arguments)  # noqa: S606 - there is no shell
    if importlib.util.find_spec("monailabel") is None:
        raise MissingExtraError(
            "MONAI Label is not installed here; it needs an environment of its own. Make it once with "
            "'msrf-monai label --make-environment FOLDER', and start with 'msrf-monai label --environment FOLDER …'"
        )
    return here


def _bundles(given: str) -> list[Path]:
    found = {path.name: path for path in find_bundles()}
    if given == "all":
        return list(found.values())
    chosen = []
    for name in filter(None, (each.strip() for each in given.split(","))):
        path = found.get(name, Path(name))
        if not (path / "configs" / "inference.json").is_file():
            raise ConfigError(
                f"{name} is no bundle: it has no configs/inference.json; give its folder"
                + (f", or one of {', '.join(found)}" if found else "")
            )
        chosen.append(path.absolute())
    return chosen


def _pair(given: str) -> tuple[str, Path]:
    name, separator, file = given.partition("=")
    if not (name and separator and file):
        raise ConfigError(f"--weights is BUNDLE=FILE, got {given!r}")
    return name, Path(file)


def _lay_out(options: LabelOptions, where: Environment) -> list[str]:
    """Make the app's folder and put weights into it; return what the user should read."""
    from msrf_monai.label.settling import check_weights, settle_weights

    folder = AppFolder(options.app_dir)
    given = dict(options.weights)
    for bundle in options.bundles:
        check_weights(bundle, folder.bundle(bundle.name), given.get(bundle.name), untrained=options.untrained)
    notes = folder.lay_out(options.bundles, where)
    if not where.is_current:
        notes.append(
            f"{where.folder} was not made by this version of msrf-monai, so its libraries may not be the tested ones; "
            "make it anew with msrf-monai label --make-environment"
        )
    for bundle in options.bundles:
        notes += settle_weights(bundle, folder.bundle(bundle.name), given.get(bundle.name))
    return notes
