"""``msrf-monai unpack``: a bundle's zip becomes a folder, and cannot become anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msrf_monai.bundle.unpack import unpack_bundle
from msrf_monai.files import sha256_of

__all__ = ["app"]

app = typer.Typer(help="Unpack the zip of a bundle.", add_completion=False)


@app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="The zip of a bundle.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder in which the bundle's folder is made.", file_okay=False)
    ] = Path(),
    sha256: Annotated[str | None, typer.Option("--sha256", help="The digest that the zip must have.")] = None,
) -> None:
    """Unpack a bundle into a new folder, whole or not at all; links and names that lead out are refused."""
    if not archive.is_file():
        raise typer.BadParameter(f"{archive} is no file; give the zip of a bundle")
    found = sha256_of(archive)
    if sha256 is not None and sha256.lower() != found:
        raise typer.BadParameter(f"{archive} has the sha256 {found}, not the one that was given; fetch it again")
    folder = unpack_bundle(archive, output)
    typer.echo(f"{folder} from {archive}, sha256 {found}")
    typer.echo(f"nothing of it was executed; look at it first: msrf-monai lint {folder} --explain")
