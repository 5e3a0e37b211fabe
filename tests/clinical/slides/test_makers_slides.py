"""Slides in makers' own formats are told by content and read as OpenSlide itself reads them."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from msrf_monai.cli.predict import app
from msrf_monai.clinical.ledger import read_manifest
from msrf_monai.clinical.preview import preview
from msrf_monai.clinical.reading import RefusedInput
from msrf_monai.clinical.slides import TileOptions, open_slide, slide_kind
from support.predictor_bundles import stock_config, stock_metadata
from support.slide_files import halved, predicted, stain, stained, write_tiff
from support.vendor_slides import jpeg, write_mirax, write_ndpi, write_vms

PICTURE = stained(640, 1152)
"""More than one tile that is read, in both directions, and whole tiles and restart intervals that are stored."""


def ndpi(folder: Path) -> Path:
    write_ndpi(folder / "a.ndpi", [PICTURE, halved(PICTURE)])
    return folder / "a.ndpi"


def whole_ndpi(folder: Path) -> Path:
    """Without restart markers, as the small levels are."""
    write_ndpi(folder / "w.ndpi", [PICTURE, halved(PICTURE)], blocks=0)
    return folder / "w.ndpi"


def mirax(folder: Path) -> Path:
    write_mirax(folder / "m.mrxs", PICTURE, left_out=[(0, 1), (3, 4)])
    return folder / "m.mrxs"


def vms(folder: Path) -> Path:
    write_vms(folder / "v.vms", [[PICTURE[:, :576], PICTURE[:, 576:]]])
    return folder / "v.vms"


def scn(folder: Path) -> Path:
    collection = "<scn xmlns='http://www.leica-microsystems.com/scn/2010/10/01'/>".replace("'", '"')
    write_tiff(folder / "s.scn", stained(96, 128), levels=1, description=collection, bigtiff=True)
    return folder / "s.scn"


def bif(folder: Path) -> Path:
    xmp = b"<?xml version='1.0'?><Metadata><iScan/></Metadata>"
    extratags = [(700, 1, len(xmp), xmp, True)]
    write_tiff(folder / "b.bif", stained(96, 128), levels=1, extratags=extratags)
    return folder / "b.bif"


def trestle(folder: Path) -> Path:
    write_tiff(folder / "t.tif", stained(96, 128), levels=1, software="MedScan", description="a=b")
    return folder / "t.tif"


def vmu(folder: Path) -> Path:
    (folder / "u.vmu").write_text("[Uncompressed Virtual Microscope Specimen]\nNoLayers=1\n")
    return folder / "u.vmu"


def czi(folder: Path) -> Path:
    (folder / "z.czi").write_bytes(b"ZISRAWFILE".ljust(600, b"\0"))
    return folder / "z.czi"


def svslide(folder: Path) -> Path:
    with closing(sqlite3.connect(folder / "k.svslide")) as base, base:
        base.execute("create table DataManagerSQLiteConfigXPO (TableName text)")
        base.execute("insert into DataManagerSQLiteConfigXPO values ('Slides')")
        base.execute("create table Slides (id text, size integer, data blob)")
        base.execute("insert into Slides values ('++MagicBytes', 16, ?)", (b"SVGigaPixelImage",))
    return folder / "k.svslide"


READ = {"ndpi": ndpi, "whole-ndpi": whole_ndpi, "mirax": mirax, "vms": vms}
RECOGNISED = {**READ, "scn": scn, "bif": bif, "trestle": trestle, "vmu": vmu, "czi": czi, "svslide": svslide}


def theirs(judge: Any, level: int, place: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """What OpenSlide gives for a rectangle (left, top; columns, rows) of a level, on white."""
    scale = round(judge.level_downsamples[level])
    image = judge.read_region((place[0] * scale, place[1] * scale), level, size)
    white = openslide.lowlevel.Image.new("RGBA", size, (255, 255, 255, 255))
    white.alpha_composite(image)
    return np.asarray(white.convert("RGB"))


@pytest.mark.parametrize("make", RECOGNISED.values(), ids=RECOGNISED)
def test_makers_formats_are_those_that_openslide_detects(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    from msrf_monai.clinical.slides.files import SlideFile
    from msrf_monai.clinical.slides.limits import SlideLimits
    from msrf_monai.clinical.slides.makers import makers_slide, may_be_makers

    path = make(tmp_path)
    with SlideFile(path, SlideLimits()) as file:
        found = makers_slide(file, SlideLimits())

    assert may_be_makers(path, path.read_bytes()[:512])
    assert found is not None
    assert found.vendor == openslide.OpenSlide.detect_format(path)
    assert slide_kind(path) == "openslide"


def test_what_is_read_without_openslide_stays_so(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.svs", PICTURE, description="Aperio Image Library v1\r\n|MPP = 0.25", levels=2)
    write_tiff(tmp_path / "b.tif", PICTURE)
    with closing(sqlite3.connect(tmp_path / "notes.db")) as base, base:
        base.execute("create table notes (line)")

    kinds = {path.name: slide_kind(path) for path in tmp_path.iterdir()}

    assert kinds == {"a.svs": "tiff", "b.tif": "tiff", "notes.db": None}


@pytest.mark.parametrize("make", READ.values(), ids=READ)
def test_every_level_is_read_as_openslide_reads_it(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)

    with open_slide(path) as slide, openslide.OpenSlide(path) as judge:
        assert [(one.columns, one.rows) for one in slide.info.levels] == list(judge.level_dimensions)
        assert slide.info.mpp == (0.5, 0.5)
        assert slide.info.levels[1].mpp == (1.0, 1.0)
        assert slide.info.maker == judge.properties["openslide.vendor"]
        for number, level in enumerate(slide.info.levels):
            region = slide.read_region(number, 0, 0, level.rows, level.columns)
            np.testing.assert_array_equal(region, theirs(judge, number, (0, 0), (level.columns, level.rows)))
        region = slide.read_region(0, 500, 481, 137, 555)
        np.testing.assert_array_equal(region, theirs(judge, 0, (481, 500), (555, 137)))
    assert np.abs(region.astype(int) - PICTURE[500:637, 481:1036]).mean() < 2


def test_tiles_that_a_mirax_slide_does_not_have_are_glass(tmp_path: Path) -> None:
    with open_slide(mirax(tmp_path)) as slide:
        missing = slide.read_region(0, 0, 96, 64, 96)
        beside = slide.read_region(0, 0, 0, 64, 96)

    assert (missing == 255).all()
    np.testing.assert_array_equal(beside, PICTURE[:64, :96])


def test_a_slide_is_predicted_at_the_resolution_that_is_wanted(tmp_path: Path) -> None:
    options = TileOptions(tile=(128, 128), mpp=1.0, skip_background=False, threshold=0.453)

    sink, result = predicted(mirax(tmp_path), options)

    with openslide.OpenSlide(tmp_path / "m.mrxs") as judge:
        level = theirs(judge, 1, (0, 0), (576, 320))
    np.testing.assert_array_equal(sink.mask, stain(level)[:, 0] > 0.453)
    assert result.areas_mm2 == pytest.approx((np.count_nonzero(sink.mask) * 1e-6,))


@pytest.mark.parametrize("part", ["m.mrxs", "m/Slidedat.ini", "m/Index.dat", "m/Data0000.dat"])
@pytest.mark.parametrize("how", ["written to", "replaced"])
def test_a_slide_of_which_any_file_changes_is_refused(tmp_path: Path, part: str, how: str) -> None:
    write_mirax(tmp_path / "m.mrxs", stained(128, 192))
    with open_slide(tmp_path / "m.mrxs") as slide:
        slide.check_unchanged()
        data = (tmp_path / part).read_bytes()
        if how == "replaced":
            (tmp_path / "other").write_bytes(data)
            (tmp_path / "other").replace(tmp_path / part)
        else:
            (tmp_path / part).write_bytes(data + b" ")

        with pytest.raises(RefusedInput, match="changed: "):
            slide.check_unchanged()


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    write_mirax(tmp_path / "m.mrxs", stained(128, 192))
    with open_slide(tmp_path / "m.mrxs") as slide:
        before = slide.digest()
        assert [path.name for path in slide.sources] == ["m.mrxs", "Slidedat.ini", "Index.dat", "Data0000.dat"]
    with (tmp_path / "m" / "Data0000.dat").open("ab") as data:
        data.write(b"more")
    with open_slide(tmp_path / "m.mrxs") as slide:
        assert slide.digest() != before


def test_without_openslide_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mirax(tmp_path / "m.mrxs", stained(128, 192))
    monkeypatch.setitem(sys.modules, "openslide", None)

    with pytest.raises(RefusedInput, match=r"decoder_missing: .*mirax .*pip install 'msrf-monai\[openslide\]'"):
        open_slide(tmp_path / "m.mrxs")
    (planned,) = (each for each in preview([tmp_path], tmp_path / "out") if each.code != "part_of_another")

    assert (planned.action, planned.code, planned.input) == ("refuse", "decoder_missing", "m.mrxs")
    assert "msrf-monai[openslide]" in planned.reason


def green_bundle(folder: Path) -> Path:
    """A bundle whose network marks what is less green than 0.6, and looks at one pixel at a time."""
    config, metadata = stock_config(3, 1), stock_metadata(3, 1)
    config["network_def"] = {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 1, "kernel_size": 1}
    scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1}
    steps = config["preprocessing"]["transforms"]
    config["preprocessing"]["transforms"] = [*steps[:2], scale, steps[-1]]
    steps = config["postprocessing"]["transforms"]
    config["postprocessing"]["transforms"] = [step for step in steps if step["_target_"] != "Invertd"]
    metadata["slide_tiles"] = {"tile": [256, 256], "batch": 2}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    weights = {"weight": torch.tensor([0.0, -200.0, 0.0]).reshape(1, 3, 1, 1), "bias": torch.tensor([120.0])}
    torch.save(weights, folder / "models" / "model.pt")
    return folder


def test_the_command_predicts_slides_of_makers_with_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    paths = [ndpi(tmp_path / "in"), mirax(tmp_path / "in"), vms(tmp_path / "in")]
    bundle = green_bundle(tmp_path / "bundle")
    words = [str(bundle), str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--device", "cpu", "--json"]

    done = CliRunner().invoke(app, words)
    again = CliRunner().invoke(app, [*words, "--resume"])

    found = json.loads(done.stdout)
    assert (found["done"], found["failed"], found["skipped"]) == (3, 0, 6), done.stderr
    assert json.loads(again.stdout)["kept"] == 9
    entries = {entry.input: entry for entry in read_manifest(tmp_path / "out").entries}
    for path in paths:
        with openslide.OpenSlide(path) as judge:
            picture = theirs(judge, 0, (0, 0), judge.dimensions)
        mask = tifffile.imread(tmp_path / "out" / entries[path.name].outputs[0].path)
        np.testing.assert_array_equal(mask, picture[..., 1] < 0.6 * 255)
    assert "SECRET" not in done.output
    parts = {"part_0_0.jpg", "part_1_0.jpg", "map.jpg"}
    skipped = [entry for entry in entries.values() if entry.state == "skipped"]
    # the slide's own digest holds them; their gigabytes are not read once more
    assert {(entry.code, entry.digest) for entry in skipped} == {("part_of_another", "")}
    assert parts < set(entries)
    assert not any("Slidedat" in name for name in entries)


def test_a_jpeg_that_is_called_mrxs_is_no_photograph(tmp_path: Path) -> None:
    (tmp_path / "m.mrxs").write_bytes(jpeg(PICTURE[::8, ::8]))

    (planned,) = preview([tmp_path / "m.mrxs"], tmp_path / "out")

    assert (planned.action, planned.code) == ("refuse", "missing")
    assert "copy the folder beside it" in planned.reason
