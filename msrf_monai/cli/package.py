"""``msrf-monai package``: the zip of a bundle that MONAI, MONAI Label and MONAI Deploy take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msrf_monai.bundle.package import package_bundle
from msrf_monai.cli.lint import bundle_folder

__all__ = ["app"]

app = typer.Typer(help="Make the zip of a bundle.", add_completion=False)


@app.command()
def package(
    bundle: Annotated[str, typer.Argument(help="Folder of a bundle, or its name in the folder bundles.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The zip to write; an old one is replaced.")],
    with_exports: Annotated[
        bool, typer.Option("--with-exports", help="Also pack model.ts, model.onnx and other exported networks.")
    ] = False,
    no_lint: Annotated[
        bool, typer.Option("--no-lint", help="Pack it whatever the checks say; digests are compared all the same.")
    ] = False,
) -> None:
    """Check a bundle, pack it, and print the digest; the same files give the same bytes."""
    made = package_bundle(bundle_folder(bundle), output, with_exports=with_exports, lint=not no_lint)
    typer.echo(f"{made.path}: {len(made.files)} files, {made.path.stat().st_size / 1e6:.2f} MB")
    typer.echo(f"sha256 {made.sha256}")
