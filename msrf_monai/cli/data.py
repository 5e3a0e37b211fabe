"""``msrf-monai data``: list, prepare, synthesize, verify."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, cast

import typer

__all__ = ["app"]

# The modules that read and draw pictures are imported inside the commands, so that the help does not wait for them.

app = typer.Typer(help="List, prepare, draw and verify data sets.", no_args_is_help=True, add_completion=False)

_BAR_DELAY_S = 2.0
_BUNDLE = "bundles/msrf_net_polyp_segmentation"
_SKIN_BUNDLE = "bundles/ssr_unet_skin_lesion_segmentation"
_VESSEL_BUNDLE = "bundles/imff_net_retinal_vessel_segmentation"
_HIGMIS_BUNDLE = "bundles/higmisnet_breast_ultrasound_segmentation"
_OVERLAYS = (
    {name: (_BUNDLE, name) for name in ("kvasir_seg", "cvc_clinicdb", "dsb2018")}
    | {
        "isic2018": (_SKIN_BUNDLE, "isic2018"),
        "isic2017": (_SKIN_BUNDLE, "isic2018"),
        "busi": (_SKIN_BUNDLE, "busi"),
    }
    | {name: (_VESSEL_BUNDLE, name) for name in ("chase_db1", "drive", "stare", "hrf")}
    | {name: (_HIGMIS_BUNDLE, name) for name in ("monuseg", "glas", "physionet_ich", "montgomery", "promise12")}
)
"""The bundle, and the overlay in its configs/datasets, for each data set that has one."""


class _Images(StrEnum):
    """What becomes of the pictures; enumerations, since older releases of typer know no literals."""

    COPY = "copy"
    LINK = "link"
    REFERENCE = "reference"


class _Kind(StrEnum):
    """What can be drawn."""

    LESION = "lesion"
    NUCLEI = "nuclei"
    VESSELS = "vessels"


@app.command("list")
def list_datasets() -> None:
    """Show the data sets that can be prepared."""
    from msrf_monai.data.catalogue import CATALOGUE

    for info in CATALOGUE.values():
        count = " + ".join(str(number) for number in info.counts.values()) or "any number of"
        typer.echo(f"{info.name}: {info.title}, {count} pictures, {info.sizes}; {info.subject}")
        splits = ", ".join([*(split.name for split in info.standard_splits), *info.splits])
        for title, text in (
            ("grouped by", info.grouping),
            ("splits", splits),
            *((f"split {split.name}", split.about) for split in info.standard_splits),
            ("window", info.window.text if info.window else ""),
            ("licence", info.licence),
            ("from", info.url),
        ):
            if text:
                typer.echo(f"    {title}: {text}")
        layouts = " or ".join(dict.fromkeys(layout.expected for layout in info.layouts))
        typer.echo(f"    folders: {layouts}")


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="Name from `msrf-monai data list`.")],
    source: Annotated[Path, typer.Option(help="Folder of the downloaded data set.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    split: Annotated[
        str | None, typer.Option(help="official, random, one that `msrf-monai data list` names, or one in splits.json.")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(help="Folds over training and validation pictures, 0 for none; a cross-validation has its own."),
    ] = 5,
    seed: Annotated[int, typer.Option(help="Chooses the random split and the folds.")] = 0,
    images: Annotated[
        _Images, typer.Option(help="Copy the pictures, link to them, or note their paths.")
    ] = _Images.COPY,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse another number of pictures than the official.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is in --out.")] = False,
    include: Annotated[
        list[str] | None, typer.Option(help="Take a class that is left out otherwise, such as normal of busi.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="LEVEL,WIDTH of the values of volumes that become black to white.")
    ] = None,
    bits: Annotated[int, typer.Option(help="Depth of the slices of volumes, 8 or 16.")] = 8,
) -> None:
    """Check a downloaded data set and make the folder that training reads."""
    from msrf_monai.data.prepare import prepare_dataset

    with _bar("checking") as progress:
        done = prepare_dataset(
            name,
            source,
            out,
            split=split,
            folds=folds,
            seed=seed,
            images=images.value,
            strict=strict,
            overwrite=overwrite,
            include=include or (),
            window=window,
            bits=bits,
            progress=progress,
        )
    for note in done.notes:
        typer.echo(f"note: {note}")
    folds_made = f", {done.folds} folds" if done.folds else ""
    typer.echo(f"{done.name}, {done.split} split: {_counts(tuple(done.counts.values()))}{folds_made} in {done.folder}")
    _say_next(done.folder, *_OVERLAYS.get(done.name, (_BUNDLE,)))


@app.command()
def synthesize(
    kind: Annotated[_Kind, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    count: Annotated[str, typer.Option("--count", "-n", help="Training,validation,test pictures.")] = "80,10,10",
    size: Annotated[str, typer.Option(help="Height x width in pixels.")] = "256x256",
    size_jitter: Annotated[float, typer.Option(help="Largest relative change of height and width.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Chooses the pictures.")] = 0,
    folds: Annotated[int, typer.Option(help="Folds over training and validation pictures, 0 for none.")] = 5,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is in --out.")] = False,
) -> None:
    """Draw a data set with exact masks; no download is needed."""
    from msrf_monai.data.synthetic import synthesize_dataset

    counts = cast("tuple[int, int, int]", _numbers(count, ",", 3, "--count", "80,10,10"))
    height_width = cast("tuple[int, int]", _numbers(size.lower(), "x", 2, "--size", "256x320"))
    with _bar("drawing") as progress:
        folder = synthesize_dataset(
            kind.value,
            out,
            counts=counts,
            size=height_width,
            size_jitter=size_jitter,
            seed=seed,
            folds=folds,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(f"{kind.value}: {_counts(counts)} in {folder}")
    _say_next(folder, _VESSEL_BUNDLE if kind is _Kind.VESSELS else _BUNDLE)


@app.command()
def verify(folder: Annotated[Path, typer.Argument(help="Folder made by prepare or synthesize.")]) -> None:
    """Check that no file of a prepared data set is missing or has changed."""
    from msrf_monai.data.datalist import verify_dataset

    typer.echo(f"{folder}: {verify_dataset(folder)} files are as they were prepared")


def _numbers(text: str, separator: str, count: int, option: str, example: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(separator))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise typer.BadParameter(f"{text!r}: expected {count} numbers such as {example}", param_hint=option)
    return numbers


def _counts(counts: tuple[int, ...]) -> str:
    return "{} training, {} validation, {} test pictures".format(*counts)


def _say_next(folder: Path, bundle: str = _BUNDLE, overlay: str | None = None) -> None:
    """Show the command that trains on a data set, ready to be pasted into a shell."""
    config = f"{bundle}/configs/train.json"
    configs = f"\"['{config}','{bundle}/configs/datasets/{overlay}.json']\"" if overlay else config
    typer.echo(
        f"next: python -m monai.bundle run training --config_file {configs} --bundle_root {bundle} "
        f"--dataset_dir {shlex.quote(str(folder))}"
    )


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function that moves a bar on stderr, which appears when the work takes longer than two seconds."""
    from tqdm import tqdm

    with tqdm(desc=what, unit=" pictures", delay=_BAR_DELAY_S, leave=False) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move
