"""A slide's mask as tiled segmentation and pyramid OME-TIFF: others read it back, and nothing half-done stays."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pydicom
import pytest

from msrf_monai.clinical.slides import (
    PyramidSink,
    SegmentationSink,
    SinkGroup,
    SlideGrid,
    SlideResult,
    TileOptions,
    open_slide,
    predict_slide,
    segmentation,
)
from msrf_monai.clinical.slides import pyramid as pyramid_module
from msrf_monai.clinical.writing import Identity, Segment
from msrf_monai.errors import ConfigError, InputError, StorageError
from support.dicom_writing import POLYP, PRODUCER, VESSEL
from support.slide_files import APERIO, ArraySink, halved, names, stain, stained, write_tiff, write_wsi

highdicom = pytest.importorskip("highdicom")

PICTURE = stained(301, 437)
OPTIONS = TileOptions(tile=(96, 128))
IDENTITY = Identity.repeatable(PRODUCER)


@pytest.fixture
def slide_folder(tmp_path: Path) -> Path:
    """A DICOM slide of two levels."""
    folder = tmp_path / "slide"
    folder.mkdir()
    write_wsi(folder / "a.dcm", PICTURE)
    write_wsi(folder / "b.dcm", halved(PICTURE), number=1, mpp=1.0)
    return folder


def segmented(
    folder: Path, target: Path, options: TileOptions = OPTIONS, **more: object
) -> tuple[np.ndarray, SlideResult]:
    """Predict a slide into a segmentation; return its mask too."""
    kept = ArraySink()
    with open_slide(folder) as slide:
        sink = SegmentationSink(target, slide, [POLYP], IDENTITY, **more)  # type: ignore[arg-type]
        result = predict_slide(slide, stain, SinkGroup([kept, sink]), options)
    return kept.mask, result


def total(path: Path) -> np.ndarray:
    """The whole mask as highdicom reads it, frame by frame."""
    seg = highdicom.seg.segread(path, lazy_frame_retrieval=True)
    return np.asarray(seg.get_total_pixel_matrix(combine_segments=True))


@pytest.mark.parametrize("codec", ["jpeg-ls", "rle"])
@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        (OPTIONS, 0.5),
        (TileOptions(tile=(96, 128), level=1), 1.0),
        (TileOptions(tile=(96, 128), mpp=0.8), 0.8),  # none of the levels
    ],
    ids=["level0", "level1", "resampled"],
)
def test_highdicom_reads_the_mask_that_was_predicted(
    slide_folder: Path, tmp_path: Path, options: TileOptions, mpp: float, codec: str
) -> None:
    mask, result = segmented(slide_folder, tmp_path / "seg.dcm", options, codec=codec)

    assert 0.05 < mask.mean() < 0.6
    np.testing.assert_array_equal(total(tmp_path / "seg.dcm"), mask)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (seg.SegmentationType, seg.DimensionOrganizationType) == ("LABELMAP", "TILED_FULL")
    assert (seg.TotalPixelMatrixRows, seg.TotalPixelMatrixColumns) == mask.shape
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(value) for value in measures.PixelSpacing] == pytest.approx([mpp / 1000] * 2)
    assert result.grid.mpp == pytest.approx((mpp, mpp))
    assert result.areas_mm2 == pytest.approx((mask.sum() * mpp**2 * 1e-6,))


def test_segmentation_names_its_source_its_patient_and_its_segments(slide_folder: Path, tmp_path: Path) -> None:
    _, result = segmented(slide_folder, tmp_path / "seg.dcm")

    seg, source = pydicom.dcmread(tmp_path / "seg.dcm"), pydicom.dcmread(slide_folder / "a.dcm")
    for name in ("PatientName", "PatientID", "PatientBirthDate", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert seg[name].value == source[name].value
    assert seg.ContainerIdentifier == source.ContainerIdentifier
    assert seg.ImageOrientationSlide == source.ImageOrientationSlide
    assert seg.SourceImageSequence[0].ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert seg.SourceImageSequence[0].ReferencedSOPClassUID == source.SOPClassUID
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Background", "polyp"]
    (written,) = result.written
    assert (written.role, written.path, written.instance_uid) == ("seg", tmp_path / "seg.dcm", seg.SOPInstanceUID)
    assert seg.file_meta.MediaStorageSOPInstanceUID == seg.SOPInstanceUID


def test_highdicom_maps_the_mask_back_to_the_slide(slide_folder: Path, tmp_path: Path) -> None:
    mask, _ = segmented(slide_folder, tmp_path / "seg.dcm")
    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    source = highdicom.imread(slide_folder / "a.dcm")

    seg_geometry, source_geometry = seg.get_volume_geometry(), source.get_volume_geometry()
    np.testing.assert_allclose(seg_geometry.affine[:, 1:], source_geometry.affine[:, 1:])
    dark = np.asarray(source.get_total_pixel_matrix(apply_icc_profile=False))[..., 1] <= 120
    np.testing.assert_array_equal(mask.astype(bool), dark)


def test_same_slide_gives_the_same_bytes_and_another_mask_another_uid(slide_folder: Path, tmp_path: Path) -> None:
    _, first = segmented(slide_folder, tmp_path / "1.dcm")
    _, second = segmented(slide_folder, tmp_path / "2.dcm")
    _, other = segmented(slide_folder, tmp_path / "3.dcm", TileOptions(tile=(96, 128), threshold=0.7))

    assert (tmp_path / "1.dcm").read_bytes() == (tmp_path / "2.dcm").read_bytes()
    assert first.written[0].instance_uid == second.written[0].instance_uid
    assert other.written[0].instance_uid != first.written[0].instance_uid


def test_frames_beyond_4_gib_are_found_by_the_extended_offset_table(
    slide_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "_MOST_BASIC", 100)
    mask, _ = segmented(slide_folder, tmp_path / "seg.dcm")

    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert len(seg.ExtendedOffsetTable) == 8 * seg.NumberOfFrames
    np.testing.assert_array_equal(total(tmp_path / "seg.dcm"), mask)


def test_several_classes_keep_their_numbers(slide_folder: Path, tmp_path: Path) -> None:
    def two(windows: np.ndarray) -> np.ndarray:
        first = stain(windows)
        return np.concatenate([first * (windows[..., 0:1].transpose(0, 3, 1, 2) > 150), first * 0.6], axis=1)

    kept = ArraySink()
    with open_slide(slide_folder) as slide:
        sinks = [kept, SegmentationSink(tmp_path / "s.dcm", slide, [POLYP, VESSEL], IDENTITY)]
        result = predict_slide(slide, two, SinkGroup([*sinks, PyramidSink(tmp_path / "s.tif")]), OPTIONS)

    assert set(np.unique(kept.mask)) == {0, 1, 2}
    np.testing.assert_array_equal(total(tmp_path / "s.dcm"), kept.mask)
    assert result.pixels == tuple(int((kept.mask == number).sum()) for number in (1, 2))
    assert [written.role for written in result.written] == ["seg", "mask"]


@pytest.mark.parametrize("tile", [64, 512])
def test_tifffile_and_tiffslide_read_every_level_of_the_pyramid(tmp_path: Path, tile: int) -> None:
    tifffile, tiffslide = pytest.importorskip("tifffile"), pytest.importorskip("tiffslide")
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    kept = ArraySink()

    with open_slide(tmp_path / "a.svs") as slide:
        predict_slide(slide, stain, SinkGroup([kept, PyramidSink(tmp_path / "m.ome.tif", tile=tile)]), OPTIONS)

    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        levels = file.series[0].levels
        assert file.is_ome
        assert len(levels) == (4 if tile == 64 else 1)
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(level.asarray(), kept.mask[:: 2**number, :: 2**number])
    with tiffslide.TiffSlide(tmp_path / "m.ome.tif") as judge:
        assert judge.properties["tiffslide.mpp-x"] == pytest.approx(0.25)
        for number in range(judge.level_count):
            size = judge.level_dimensions[number]
            pixels = judge.read_region((0, 0), number, size, as_array=True)
            np.testing.assert_array_equal(pixels.reshape(size[::-1]), kept.mask[:: 2**number, :: 2**number])


def test_openslide_and_we_read_the_mask_as_a_slide(tmp_path: Path) -> None:
    openslide = pytest.importorskip("openslide")
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    kept = ArraySink()
    with open_slide(tmp_path / "a.svs") as slide:
        predict_slide(slide, stain, SinkGroup([kept, PyramidSink(tmp_path / "m.ome.tif", tile=64)]), OPTIONS)

    with open_slide(tmp_path / "m.ome.tif") as again, openslide.OpenSlide(tmp_path / "m.ome.tif") as judge:
        theirs = np.asarray(judge.read_region((0, 0), 0, judge.dimensions).convert("RGB"))
        np.testing.assert_array_equal(theirs[..., 0], kept.mask)
        assert again.info.mpp == pytest.approx((0.25, 0.25))
        for number, level in enumerate(again.info.levels):
            ours = again.read_region(number, 0, 0, level.rows, level.columns)
            np.testing.assert_array_equal(ours[..., 0], kept.mask[:: 2**number, :: 2**number])


def test_pyramid_beyond_4_gib_is_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(pyramid_module, "_MOST_CLASSIC", 10)
    sink = PyramidSink(tmp_path / "m.ome.tif", tile=32)
    mask = (PICTURE[..., 1] > 200).astype(np.uint8)

    sink.begin(SlideGrid(0, *mask.shape))
    for rows in np.array_split(mask, 7):
        sink.write(rows)
    sink.finish()

    with tifffile.TiffFile(tmp_path / "m.ome.tif") as file:
        assert file.is_bigtiff
        np.testing.assert_array_equal(file.asarray(), mask)


def test_slide_that_is_not_dicom_has_no_segmentation(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.svs", PICTURE)

    with open_slide(tmp_path / "a.svs") as slide:
        sink = SegmentationSink(tmp_path / "s.dcm", slide, [POLYP], IDENTITY)
        with pytest.raises(InputError, match="only a DICOM slide"):
            predict_slide(slide, stain, sink, OPTIONS)
    assert names(tmp_path) == ["a.svs"]


def test_sinks_refuse_what_they_cannot_write(slide_folder: Path, tmp_path: Path) -> None:
    grid = SlideGrid(0, 301, 437)
    with open_slide(slide_folder) as slide:
        with pytest.raises(ConfigError, match="jpeg-ls or rle"):
            SegmentationSink(tmp_path / "s", slide, [POLYP], IDENTITY, codec="zip")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="1, 2"):
            SegmentationSink(tmp_path / "s", slide, [Segment(2, "b")], IDENTITY)
        with pytest.raises(ConfigError, match="multiple of 16"):
            PyramidSink(tmp_path / "m", tile=100)
        for sink in (SegmentationSink(tmp_path / "s", slide, [POLYP], IDENTITY), PyramidSink(tmp_path / "m")):
            with pytest.raises(InputError, match="not begun"):
                sink.write(np.zeros((3, 437), np.uint8))
            sink.begin(grid)
            with pytest.raises(InputError, match="437 uint8"):
                sink.write(np.zeros((3, 436), np.uint8))
            sink.write(np.zeros((3, 437), np.uint8))
            with pytest.raises(InputError, match=r"rows are missing|tiles of the mask"):
                sink.finish()
            sink.abort()
        sink = SegmentationSink(tmp_path / "s", slide, [POLYP], IDENTITY)
        sink.begin(grid)
        with pytest.raises(InputError, match="class 2, and 1 segments"):
            sink.write(np.full((3, 437), 2, np.uint8))
        sink.abort()
    assert names(tmp_path) == ["slide"]


def test_tile_that_comes_back_changed_is_not_kept(
    slide_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(tile: np.ndarray) -> bytes:
        return bytes(encode(tile | (tile.sum() % 2 == 1)))

    encode = segmentation._encoder("jpeg-ls")
    monkeypatch.setattr(segmentation, "_encoder", lambda codec: wrong)

    with pytest.raises(StorageError, match="tiles of the segmentation came back changed"):
        segmented(slide_folder, tmp_path / "seg.dcm")
    assert names(tmp_path) == ["slide"]


RUN = """
    import resource, signal, sys
    from pathlib import Path
    import numpy as np
    from msrf_monai.clinical.slides import PyramidSink, SegmentationSink, TileOptions, open_slide, predict_slide
    from msrf_monai.clinical.writing import Identity, Producer, Segment

    folder, target, kind, limit = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    if limit:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def network(windows):
        print("window", flush=True)
        if not limit:
            sys.stdin.readline()
        random = np.random.default_rng(int(windows.sum()))
        return random.random((len(windows), 1, *windows.shape[1:3]), dtype=np.float32)

    with open_slide(folder) as slide:
        identity = Identity.repeatable(Producer("x", "1"))
        sink = PyramidSink(target) if kind == "tif" else SegmentationSink(target, slide, [Segment(1, "a")], identity)
        try:
            predict_slide(slide, network, sink, TileOptions(tile=(96, 128), skip_background=False))
        except OSError as error:
            print(type(error).__name__, error)
"""


def start(folder: Path, target: Path, kind: str, limit: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(RUN), str(folder), str(target), kind, str(limit)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kind", ["dcm", "tif"])
def test_full_disk_leaves_what_was_there_and_nothing_else(slide_folder: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out" / f"a.{kind}"
    target.parent.mkdir()
    target.write_bytes(b"old")

    said, _ = start(slide_folder, target, kind, 9000).communicate(timeout=120)

    assert "StorageError cannot write" in said
    assert names(target.parent) == [target.name]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["dcm", "tif"])
def test_killed_prediction_leaves_no_result(slide_folder: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out" / f"a.{kind}"
    process = start(slide_folder, target, kind, 0)
    assert process.stdin is not None
    assert process.stdout is not None
    for _ in range(3):
        assert process.stdout.readline() == "window\n"
        process.stdin.write("\n")
        process.stdin.flush()
    assert process.stdout.readline() == "window\n"

    process.send_signal(signal.SIGKILL)
    process.communicate()

    assert process.returncode == -signal.SIGKILL
    assert names(target.parent) == []
