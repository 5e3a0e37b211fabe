"""Whole slides are read as others read them: every kind of file, every level, any rectangle."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile

from msrf_monai.clinical.reading import RefusedInput
from msrf_monai.clinical.slides import open_slide, slide_kind
from msrf_monai.errors import InputError
from support.slide_files import APERIO, halved, stained, tiles_of, write_tiff, write_wsi

PICTURE = stained(301, 437)
COMPRESSIONS = ("none", "adobe_deflate", "lzw", "zstd", "predictor")


def whole(slide, level=0):
    known = slide.info.levels[level]
    return slide.read_region(level, 0, 0, known.rows, known.columns)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_lossless_tiff_levels_are_the_pixels_that_were_written(tmp_path: Path, compression: str) -> None:
    options = {"predictor": {"compression": "adobe_deflate", "predictor": True}, "none": {"compression": None}}
    levels = write_tiff(tmp_path / "a.tif", PICTURE, **options.get(compression, {"compression": compression}))

    with open_slide(tmp_path / "a.tif") as slide:
        assert [(one.rows, one.columns) for one in slide.info.levels] == [one.shape[:2] for one in levels]
        assert not slide.info.is_lossy
        for number, pixels in enumerate(levels):
            np.testing.assert_array_equal(whole(slide, number), pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_both_byte_orders_and_bigtiff_with_sub_directories_are_read(
    tmp_path: Path, byteorder: str, bigtiff: bool
) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=bigtiff, byteorder=byteorder) as writer:
        options = {"tile": (64, 96), "photometric": "rgb", "metadata": None}
        writer.write(PICTURE, subifds=1, **options)
        writer.write(halved(PICTURE), subfiletype=1, **options)

    with open_slide(tmp_path / "a.tif") as slide:
        np.testing.assert_array_equal(whole(slide), PICTURE)
        np.testing.assert_array_equal(whole(slide, 1), halved(PICTURE))


@pytest.mark.parametrize("options", [{"photometric": "rgb"}, {"photometric": "ycbcr", "subsampling": (2, 2)}], ids=str)
def test_jpeg_svs_is_read_as_openslide_and_tiffslide_read_it(tmp_path: Path, options: dict) -> None:
    openslide, tiffslide = pytest.importorskip("openslide"), pytest.importorskip("tiffslide")
    path = tmp_path / "a.svs"
    # tifffile writes what it is given, and does not convert it
    stored = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]] if "subsampling" in options else PICTURE
    write_tiff(path, stored, description=APERIO, compression="jpeg", tile=(256, 256), levels=1, **options)

    with open_slide(path) as slide, openslide.OpenSlide(path) as judge, tiffslide.TiffSlide(path) as second:
        region = slide.read_region(0, 31, 57, 200, 301)
        theirs = np.asarray(judge.read_region((57, 31), 0, (301, 200)).convert("RGB"))
        assert slide.info.mpp == (0.25, 0.25)
        assert judge.properties["openslide.mpp-x"] == "0.25"

        np.testing.assert_array_equal(region, second.read_region((57, 31), 0, (301, 200), as_array=True))
        np.testing.assert_array_equal(region, theirs)
    assert np.abs(region.astype(int) - PICTURE[31:231, 57:358]).mean() < 6


@pytest.mark.parametrize("code", [33003, 33005])
def test_wavelet_tiles_of_aperio_are_read_as_openslide_reads_them(tmp_path: Path, code: int) -> None:
    openslide = pytest.importorskip("openslide")
    picture = stained(512, 768)
    stored = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)[..., [0, 2, 1]] if code == 33003 else picture
    tiles = [
        imagecodecs.jpeg2k_encode(
            np.ascontiguousarray(stored[y : y + 256, x : x + 256]), codecformat="j2k", reversible=True, mct=False
        )
        for y in range(0, 512, 256)
        for x in range(0, 768, 256)
    ]
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        writer.write(
            iter(tiles),
            shape=picture.shape,
            dtype=np.uint8,
            tile=(256, 256),
            photometric="rgb",
            compression=code,
            description=APERIO,
            metadata=None,
        )

    with open_slide(tmp_path / "a.svs") as slide, openslide.OpenSlide(tmp_path / "a.svs") as judge:
        region = slide.read_region(0, 100, 40, 300, 500)
        theirs = np.asarray(judge.read_region((40, 100), 0, (500, 300)).convert("RGB"))
    # two ways of rounding the conversion
    assert np.abs(region.astype(int) - theirs).max() <= (2 if code == 33003 else 0)
    assert np.abs(region.astype(int) - picture[100:400, 40:540]).max() <= (2 if code == 33003 else 0)


def test_label_and_photograph_in_an_svs_are_no_levels(tmp_path: Path) -> None:
    label = stained(80, 70, seed=9)
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO, extra=[label, halved(label)])

    with open_slide(tmp_path / "a.svs") as slide:
        assert [one.rows for one in slide.info.levels] == [301, 151, 76]
        assert slide.info.levels[1].mpp == pytest.approx((0.25 * 301 / 151, 0.25 * 437 / 219))


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("jpeg", "basic"),
        ("jpeg", "none"),
        ("jpeg", "extended"),
        ("jpeg", "fragments"),
        ("rle", "basic"),
        ("j2k", "basic"),
        ("raw", ""),
    ],
)
def test_dicom_levels_are_read_as_highdicom_reads_them(tmp_path: Path, kind: str, table: str) -> None:
    highdicom = pytest.importorskip("highdicom")
    write_wsi(tmp_path / "a.dcm", PICTURE, kind=kind, table=table)
    write_wsi(tmp_path / "b.dcm", halved(PICTURE), kind=kind, table=table, number=1, mpp=1.0)

    with open_slide(tmp_path / "b.dcm") as slide:
        assert slide.info.kind == "dicom-wsi"
        assert slide.info.mpp == (0.5, 0.5)
        assert [one.sop.sop_instance_uid for one in slide.info.levels if one.sop] == ["2.25.771", "2.25.772"]
        for number, name in enumerate(("a.dcm", "b.dcm")):
            theirs = highdicom.imread(tmp_path / name).get_total_pixel_matrix(apply_icc_profile=False, dtype=np.uint8)
            np.testing.assert_array_equal(whole(slide, number), theirs)
        if kind != "jpeg":
            np.testing.assert_array_equal(whole(slide), PICTURE)


def test_grey_and_rgb_jpeg_tiles_of_dicom_are_taken_as_the_header_says(tmp_path: Path) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE)
    frames = [
        imagecodecs.jpeg8_encode(tile, level=100, colorspace="RGB", outcolorspace="RGB")
        for tile in tiles_of(PICTURE, (64, 96))
    ]
    header.PixelData, header.PhotometricInterpretation = pydicom.encaps.encapsulate(frames), "RGB"
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)
    with open_slide(tmp_path / "a.dcm") as slide:
        assert np.abs(whole(slide).astype(int) - PICTURE).max() <= 3

    frames = [imagecodecs.jpeg8_encode(tile[..., 1].copy(), level=100) for tile in tiles_of(PICTURE, (64, 96))]
    header.PixelData, header.SamplesPerPixel = pydicom.encaps.encapsulate(frames), 1
    for photometric, expected in (("MONOCHROME2", PICTURE[..., 1]), ("MONOCHROME1", 255 - PICTURE[..., 1])):
        header.PhotometricInterpretation = photometric
        pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)
        with open_slide(tmp_path / "a.dcm") as slide:
            assert slide.info.notes == ("grey_to_rgb",)
            assert np.abs(whole(slide)[..., 2].astype(int) - expected).max() <= 3


def test_tiles_of_16_bits_are_unsupported(tmp_path: Path) -> None:
    header = write_wsi(tmp_path / "a.dcm", PICTURE, kind="raw")
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit = 15
    header.PixelData = header.PixelData * 2
    pydicom.dcmwrite(tmp_path / "a.dcm", header, enforce_file_format=True)

    with open_slide(tmp_path / "a.dcm") as slide, pytest.raises(RefusedInput, match="unsupported"):
        whole(slide)


def test_sparse_dicom_tiles_lie_where_they_say_and_missing_ones_are_glass(tmp_path: Path) -> None:
    write_wsi(tmp_path / "a.dcm", PICTURE, kind="raw", left_out=[0, 6])

    with open_slide(tmp_path / "a.dcm") as slide:
        expected = PICTURE.copy()
        expected[:64, :96] = 255
        expected[64:128, 96:192] = 255
        np.testing.assert_array_equal(whole(slide), expected)


@pytest.mark.realdata
def test_sample_slide_is_the_same_by_openslide(data_root: Path) -> None:
    openslide = pytest.importorskip("openslide")
    folder = data_root / "dicom_samples" / "wsi"
    if not folder.is_dir():
        pytest.skip(f"no sample slides at {folder}")
    path = sorted(folder.glob("*.dcm"))[0]

    with open_slide(folder) as slide, openslide.OpenSlide(path) as judge:
        assert [(one.columns, one.rows) for one in slide.info.levels] == list(judge.level_dimensions)
        assert slide.info.mpp is not None
        assert float(judge.properties["openslide.mpp-x"]) == pytest.approx(slide.info.mpp[1])
        for number, (columns, rows) in enumerate(judge.level_dimensions):
            theirs = np.asarray(judge.read_region((0, 0), number, (columns, rows)).convert("RGB"))
            np.testing.assert_array_equal(slide.read_region(number, 0, 0, rows, columns), theirs)


def test_slides_are_told_from_pictures_and_other_objects(tmp_path: Path) -> None:
    write_tiff(tmp_path / "slide", PICTURE)
    write_tiff(tmp_path / "picture", PICTURE, levels=1)
    tifffile.imwrite(tmp_path / "strips", PICTURE)
    write_wsi(tmp_path / "dicom", PICTURE)
    write_wsi(tmp_path / "photo", PICTURE, number=1, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.4")
    (tmp_path / "text").write_text("II*")

    found = {path.name: slide_kind(path) for path in (*tmp_path.iterdir(), tmp_path / "nothing", tmp_path)}

    assert {name for name, kind in found.items() if kind == "tiff"} == {"slide"}
    assert {name for name, kind in found.items() if kind == "dicom-wsi"} == {"dicom"}


def test_other_objects_in_the_folder_of_a_slide_do_not_disturb(tmp_path: Path) -> None:
    write_wsi(tmp_path / "a.dcm", PICTURE)
    write_wsi(tmp_path / "b.dcm", halved(PICTURE), number=1)
    write_wsi(
        tmp_path / "seg.dcm", PICTURE, number=2, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.7", SeriesInstanceUID="2.25.9"
    )

    with open_slide(tmp_path) as slide:
        assert [path.name for path in slide.sources] == ["a.dcm", "b.dcm"]


def test_regions_beyond_the_edges_are_white(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)
    padded = np.pad(PICTURE, ((70, 70), (70, 70), (0, 0)), constant_values=255)

    with open_slide(tmp_path / "a.tif") as slide:
        np.testing.assert_array_equal(slide.read_region(0, -70, -70, 441, 577), padded)
        assert (slide.read_region(0, 500, 900, 5, 5) == 255).all()
        assert (slide.read_region(0, -50, -50, 20, 20) == 255).all()


def test_small_cache_gives_the_same_pixels_and_keeps_its_bound(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)

    with open_slide(tmp_path / "a.tif") as slide:
        slide.cache_bytes = 3 * 64 * 96 * 3
        np.testing.assert_array_equal(whole(slide), PICTURE)
        assert sum(tile.nbytes for tile in slide._cache.values()) <= slide.cache_bytes


def test_grey_and_transparent_slides_become_rgb_and_say_so(tmp_path: Path) -> None:
    grey = PICTURE[..., 1]
    alpha = np.dstack([PICTURE, grey])
    write_tiff(tmp_path / "g.tif", grey, photometric="minisblack", levels=1)
    write_tiff(tmp_path / "w.tif", grey, photometric="miniswhite", levels=1)
    write_tiff(tmp_path / "a.tif", alpha, levels=1, extrasamples=["unassalpha"])

    for name, expected, note in (
        ("g", np.dstack([grey] * 3), "grey_to_rgb"),
        ("w", np.dstack([255 - grey] * 3), "grey_to_rgb"),
        ("a", PICTURE, "alpha_dropped"),
    ):
        with open_slide(tmp_path / f"{name}.tif") as slide:
            np.testing.assert_array_equal(whole(slide), expected)
            assert slide.info.notes == (note,)


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"resolution": (40000, 20000), "resolutionunit": "CENTIMETER"}, (0.5, 0.25)),
        ({"resolution": (25400, 25400), "resolutionunit": "INCH"}, (1.0, 1.0)),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),  # a default that no microscope has
        ({"resolution": (40000, 40000), "resolutionunit": "NONE"}, None),
        ({"description": "Aperio x|MPP = nothing|"}, None),
        ({"description": "Aperio x|MPP = 0.499|"}, (0.499, 0.499)),
        ({"description": '<OME PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"/>'}, (0.5, 0.25)),
    ],
    ids=str,
)
def test_resolution_is_taken_from_what_the_file_says(tmp_path: Path, options: dict, mpp: object) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE, levels=1, **options)

    with open_slide(tmp_path / "a.tif") as slide:
        assert slide.info.mpp == (pytest.approx(mpp) if mpp else None)


def test_digest_is_that_of_the_file_and_of_all_files_of_a_dicom_slide(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)
    (tmp_path / "d").mkdir()
    for number, picture in enumerate((PICTURE, halved(PICTURE))):
        write_wsi(tmp_path / "d" / f"{number}.dcm", picture, number=number)
    sums = [hashlib.sha256((tmp_path / "d" / f"{number}.dcm").read_bytes()).hexdigest() for number in (0, 1)]

    with open_slide(tmp_path / "a.tif") as tiff, open_slide(tmp_path / "d") as dicom:
        assert tiff.digest() == hashlib.sha256((tmp_path / "a.tif").read_bytes()).hexdigest()
        assert dicom.digest() == hashlib.sha256("".join(sums).encode()).hexdigest()
        assert [path.name for path in dicom.sources] == ["0.dcm", "1.dcm"]


def test_slide_that_is_written_to_meanwhile_is_refused(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)
    with open_slide(tmp_path / "a.tif") as slide:
        slide.check_unchanged()
        with (tmp_path / "a.tif").open("ab") as handle:
            handle.write(b"more")

        with pytest.raises(RefusedInput, match="changed"):
            slide.check_unchanged()


@pytest.mark.parametrize("region", [(3, 0, 0, 5, 5), (-1, 0, 0, 5, 5), (0, 0, 0, 0, 5), (0, 0, 0, 5, -1)])
def test_levels_and_regions_that_do_not_exist_are_an_error(tmp_path: Path, region: tuple[int, ...]) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)

    with open_slide(tmp_path / "a.tif") as slide, pytest.raises(InputError, match="region"):
        slide.read_region(*region)
