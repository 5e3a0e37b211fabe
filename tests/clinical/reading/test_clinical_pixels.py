"""The table "header -> correct array", each row against values written down by hand or against another library."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit, RLELossless

from msrf_monai.clinical.case import Window
from msrf_monai.clinical.reading import RefusedInput, apply_window, open_dicom
from msrf_monai.clinical.reading.voi import proposed_windows
from msrf_monai.errors import InputError
from support.dicom_files import as_bytes, image_dataset, item_of, pattern

PALETTE = ("Red", "Green", "Blue")


def opened(dataset: Any, tmp_path: Path, syntax: Any = None) -> Any:
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (tmp_path / "image").write_bytes(as_bytes(dataset))
    return open_dicom(tmp_path / "image")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_monochrome2_comes_as_it_is_stored(tmp_path: Path, dtype: Any) -> None:
    pixels = pattern(peak=250, dtype=dtype)
    case = opened(image_dataset(pixels), tmp_path)
    assert np.array_equal(case.frame(), pixels)
    assert (case.info.dtype, case.info.white) == (np.dtype(dtype).name, float(np.iinfo(dtype).max))
    case.frame()[:] = 0  # writable, and not the file's own memory


def test_monochrome1_is_turned_within_its_stored_range(tmp_path: Path) -> None:
    pixels = pattern(peak=4000, dtype=np.uint16)
    case = opened(image_dataset(pixels, photometric="MONOCHROME1", stored=12), tmp_path)
    assert np.array_equal(case.frame(), 4095 - pixels)
    assert case.info.white == 4095


def test_signed_monochrome1_is_turned_before_it_is_rescaled(tmp_path: Path) -> None:
    pixels = (pattern(peak=1000, dtype=np.int16) - 500).astype(np.int16)
    dataset = image_dataset(pixels, photometric="MONOCHROME1", RescaleSlope="2", RescaleIntercept="10")
    assert np.array_equal(opened(dataset, tmp_path).frame(), (-1.0 - pixels) * 2 + 10)


@pytest.mark.realdata
def test_both_polarities_of_one_radiograph_give_one_picture(data_root: Path) -> None:
    one, two = (open_dicom(data_root / "dicom_samples" / f"cxr_dx_mono{kind}.dcm").frame() for kind in (1, 2))
    assert np.array_equal(one, two)
    assert one.std() > 0


def test_unused_bits_are_masked_and_signs_extended(tmp_path: Path) -> None:
    stored = np.array([[0x0FFF, 0x0001], [0xF7FF, 0x8005], [0x0800, 0x0000]], dtype=np.uint16)
    signed = image_dataset(stored, stored=12, PixelRepresentation=1)
    assert np.array_equal(opened(signed, tmp_path).frame(), [[-1, 1], [2047, 5], [-2048, 0]])
    unsigned = image_dataset(stored, stored=12)
    assert np.array_equal(opened(unsigned, tmp_path).frame(), [[4095, 1], [2047, 5], [2048, 0]])


def test_an_overlay_in_the_highest_bit_is_no_part_of_the_image(tmp_path: Path) -> None:
    pixels = pattern(peak=4000, dtype=np.uint16)
    dataset = image_dataset(pixels | 0x8000, stored=12)
    dataset.add_new(0x60000100, "US", 16)  # overlay bits allocated
    dataset.add_new(0x60000102, "US", 15)  # overlay bit position
    assert np.array_equal(opened(dataset, tmp_path).frame(), pixels)


def test_rescaled_values_are_floats_with_their_unit(tmp_path: Path) -> None:
    pixels = pattern(peak=3000, dtype=np.uint16)
    dataset = image_dataset(pixels, stored=12, RescaleSlope="0.5", RescaleIntercept="-1024", RescaleType="HU")
    case = opened(dataset, tmp_path)
    assert np.array_equal(case.frame(), pixels * np.float32(0.5) - 1024)
    assert (case.info.dtype, case.info.value_unit, case.info.white) == ("float32", "HU", None)


def test_empty_rescaling_and_empty_lookup_items_count_as_absent(tmp_path: Path) -> None:
    dataset = image_dataset(pattern(), ModalityLUTSequence=[item_of()], RescaleSlope=None, RescaleIntercept="")
    assert np.array_equal(opened(dataset, tmp_path).frame(), pattern())


@pytest.mark.parametrize("entry", [[16], [8]])
def test_the_modality_lookup_table_is_applied(tmp_path: Path, entry: list[int]) -> None:
    pixels = pattern(peak=40)
    values = (np.arange(30) ** 2 % (1 << entry[0])).astype(np.uint16)
    table = item_of(LUTDescriptor=[30, 5, *entry], LUTData=values.tobytes(), ModalityLUTType="US")
    table["LUTData"].VR = "OW"
    dataset = image_dataset(pixels, ModalityLUTSequence=[table])
    expected = apply_modality_lut(pixels.astype(np.int32), dataset)
    assert np.array_equal(opened(dataset, tmp_path).frame(), expected)
    assert np.array_equal(expected, values[np.clip(pixels.astype(int) - 5, 0, 29)])


def test_lookup_tables_longer_than_their_pixels_can_count_work(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16)[::-1]
    table = item_of(LUTDescriptor=[4096, 0, 12], LUTData=values.tobytes())
    table["LUTData"].VR = "OW"
    frame = opened(image_dataset(pattern(), ModalityLUTSequence=[table]), tmp_path).frame()
    assert np.array_equal(frame, 4095 - pattern().astype(np.float32))


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_comes_by_pixel_however_it_is_stored(tmp_path: Path, planar: int, dtype: Any) -> None:
    pixels = pattern(samples=3, peak=np.iinfo(dtype).max, dtype=dtype)
    dataset = image_dataset(pixels, PlanarConfiguration=planar)
    if planar:
        dataset.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    assert np.array_equal(opened(dataset, tmp_path).frame(), pixels)


def _ybr_of(rgb: Any) -> Any:
    """PS3.3 C.7.6.3.1.2, by its formula."""
    red, green, blue = (rgb[..., channel].astype(float) for channel in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma, 128 + (blue - luma) * 0.5 / 0.886, 128 + (red - luma) * 0.5 / 0.701], axis=-1)


def test_ybr_full_becomes_rgb(tmp_path: Path) -> None:
    rgb = pattern(samples=3)
    ybr = np.clip(_ybr_of(rgb).round(), 0, 255).astype(np.uint8)
    frame = opened(image_dataset(ybr, photometric="YBR_FULL"), tmp_path).frame()
    assert np.abs(frame.astype(int) - rgb).max() <= 2  # rounding of YCbCr to whole numbers, times 1.77


def test_native_ybr_full_422_shares_colour_between_two_pixels(tmp_path: Path) -> None:
    rgb = np.repeat(pattern(6, 4, samples=3), 2, axis=1)
    ybr = np.clip(_ybr_of(rgb).round(), 0, 255).astype(np.uint8)
    dataset = image_dataset(ybr, photometric="YBR_FULL_422")
    pairs = ybr.reshape(-1, 2, 3)
    dataset.PixelData = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1).tobytes()
    assert np.abs(opened(dataset, tmp_path).frame().astype(int) - rgb).max() <= 2


@pytest.mark.parametrize(("photometric", "stored"), [("YBR_ICT", 8), ("YBR_FULL", 16)])
def test_colour_spaces_that_cannot_be_meant_are_refused(tmp_path: Path, photometric: str, stored: int) -> None:
    pixels = pattern(samples=3, dtype=np.uint16 if stored == 16 else np.uint8)
    with pytest.raises(RefusedInput, match="export the file as"):
        opened(image_dataset(pixels, photometric=photometric), tmp_path)


def _with_palette(
    pixels: Any, tables: Any, bits: int, first: int = 0, segmented: bool = False, entries: int = 0
) -> Any:
    dataset = image_dataset(pixels, photometric="PALETTE COLOR")
    for colour, table in zip(PALETTE, tables, strict=True):
        size = (entries or len(table)) % 65536
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [size, first, bits])
        setattr(dataset, f"{'Segmented' if segmented else ''}{colour}PaletteColorLookupTableData", table.tobytes())
    return dataset


@pytest.mark.parametrize(
    ("entry", "bits", "shift"),
    [
        (np.uint8, 8, 0),  # packed, two entries to a word
        (np.uint16, 16, 8),  # the usual 16-bit palette: the upper byte
        (np.uint16, 16, 0),  # values of 8 bits in entries of 16
    ],
)
def test_palettes_give_8_bit_rgb(tmp_path: Path, entry: Any, bits: int, shift: int) -> None:
    pixels = pattern(peak=60)
    tables = [((np.arange(50) * factor % 256).astype(entry) << shift).astype(entry) for factor in (1, 3, 5)]
    case = opened(_with_palette(pixels, tables, bits, first=4), tmp_path)
    index = np.clip(pixels.astype(int) - 4, 0, 49)
    assert np.array_equal(case.frame(), np.stack([table[index] >> shift for table in tables], axis=-1))
    assert (case.info.samples, case.info.dtype, case.info.white) == (3, "uint8", 255.0)


def test_16_bit_indices_into_an_8_bit_palette_do_not_wrap(tmp_path: Path) -> None:
    pixels = pattern(peak=600, dtype=np.uint16)
    tables = [np.arange(256, dtype=np.uint8)] * 3
    frame = opened(_with_palette(pixels, tables, 8), tmp_path).frame()
    assert np.array_equal(frame[..., 1], np.minimum(pixels, 255))


def test_segmented_palettes_expand_as_pydicom_expands_them(tmp_path: Path) -> None:
    # 3 entries as they are, a line of 20 to 60000, the first segment again, a line of 10 back to 100
    red = np.array([0, 3, 100, 9000, 500, 1, 20, 60000, 2, 1, 0, 0, 1, 10, 100], dtype=np.uint16)
    dataset = _with_palette(pattern(peak=40), [red, red[::1], red], 16, segmented=True, entries=36)
    expected = apply_color_lut(pattern(peak=40), dataset) >> 8
    assert np.array_equal(opened(dataset, tmp_path).frame(), expected)


def test_an_indirect_segment_counts_bytes(tmp_path: Path) -> None:
    # words 0..3: two entries; 4..7: two more; then one segment again from byte 8, that is word 4
    table = np.array([0, 2, 256, 512, 0, 2, 768, 1024, 2, 1, 8, 0], dtype=np.uint16)
    dataset = _with_palette(pattern(peak=5), [table] * 3, 16, segmented=True, entries=6)
    expected = np.array([1, 2, 3, 4, 3, 4], dtype=np.uint8)[pattern(peak=5)]
    assert np.array_equal(opened(dataset, tmp_path).frame()[..., 0], expected)


@pytest.mark.parametrize(
    "table",
    [
        np.array([7, 3, 1, 2, 3, 0], dtype=np.uint16),  # no such segment
        np.array([1, 5, 9, 0], dtype=np.uint16),  # a line from nowhere
        np.array([0, 2, 1, 2], dtype=np.uint16),  # shorter than announced
        np.array([0, 2, 1, 2, 2, 1, 4, 0], dtype=np.uint16),  # repeats itself for ever
        np.array([0, 2, 1, 2, 1, 60000, 9], dtype=np.uint16),  # longer than announced
    ],
)
def test_broken_palettes_are_refused(tmp_path: Path, table: Any) -> None:
    case = opened(_with_palette(pattern(), [table] * 3, 16, segmented=True, entries=36), tmp_path)
    with pytest.raises(RefusedInput, match="lut_failed"):
        case.frame()


def test_a_palette_without_a_colour_is_refused(tmp_path: Path) -> None:
    dataset = _with_palette(pattern(), [np.arange(256, dtype=np.uint8)] * 3, 8)
    del dataset.BluePaletteColorLookupTableData
    with pytest.raises(RefusedInput, match="lut_failed"):
        opened(dataset, tmp_path).frame()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_byte_order_and_implicit_types_change_nothing(tmp_path: Path, syntax: Any) -> None:
    pixels = pattern(peak=4000, dtype=np.uint16)
    table = item_of(LUTDescriptor=[4096, 0, 16], LUTData=[int(v) for v in np.arange(4096) * 3])
    table["LUTData"].VR = "US"
    dataset = image_dataset(pixels, stored=12, ModalityLUTSequence=[table])
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(">u2" if big else "<u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    frame = opened(dataset, tmp_path).frame()
    assert np.array_equal(frame, pixels.astype(np.float32) * 3)
    assert frame.dtype.isnative


def test_big_endian_palettes_are_read_in_their_order(tmp_path: Path) -> None:
    tables = [(np.arange(50) * 256).astype(">u2")] * 3
    dataset = _with_palette(pattern(peak=49), tables, 16)
    dataset["PixelData"].VR = "OB"
    assert np.array_equal(opened(dataset, tmp_path, ExplicitVRBigEndian).frame()[..., 0], pattern(peak=49))


def test_clips_give_their_frames_in_order(tmp_path: Path) -> None:
    clip = np.stack([pattern(samples=3) // (step + 1) for step in range(3)])
    case = opened(image_dataset(clip), tmp_path)
    assert (case.info.frames, case.info.rows, case.info.columns) == (3, 6, 8)
    assert np.array_equal(np.stack(list(case.iter_frames())), clip)
    assert np.array_equal(case.frame(1), clip[1])
    with pytest.raises(InputError, match="frames 0 to 2"):
        case.frame(3)


def test_frames_of_single_bits_may_begin_within_a_byte(tmp_path: Path) -> None:
    clip = (np.arange(3 * 5 * 7) % 3 == 0).astype(np.uint8).reshape(3, 5, 7)
    dataset = image_dataset(clip, BitsAllocated=1, BitsStored=1, HighBit=0)
    dataset.PixelData = np.packbits(clip.ravel(), bitorder="little").tobytes()
    assert np.array_equal(np.stack(list(opened(dataset, tmp_path).iter_frames())), clip)


def test_enhanced_images_are_rescaled_frame_by_frame(tmp_path: Path) -> None:
    clip = np.stack([pattern(dtype=np.uint16)] * 3)
    per_frame = [
        item_of(
            PixelValueTransformationSequence=[item_of(RescaleSlope=str(step + 1), RescaleIntercept="-5")],
            PlanePositionSequence=[item_of(ImagePositionPatient=[0, 0, 2.5 * step])],
        )
        for step in range(2)
    ]
    shared = item_of(
        PixelValueTransformationSequence=[item_of(RescaleSlope="10", RescaleIntercept="0")],
        PixelMeasuresSequence=[item_of(PixelSpacing=[0.5, 0.7])],
        PlaneOrientationSequence=[item_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        FrameVOILUTSequence=[item_of(WindowCenter=40, WindowWidth=400)],
    )
    last = item_of(PlanePositionSequence=[item_of(ImagePositionPatient=[0, 0, 5.0])])
    dataset = image_dataset(
        clip, PerFrameFunctionalGroupsSequence=[*per_frame, last], SharedFunctionalGroupsSequence=[shared]
    )
    case = opened(dataset, tmp_path)
    values = pattern().astype(np.float32)
    assert np.array_equal(np.stack(list(case.iter_frames())), [values - 5, values * 2 - 5, values * 10])
    assert (case.info.spacing_mm, case.info.spacing_is_real) == ((0.5, 0.7), True)
    assert case.info.positions_mm == ((0, 0, 0), (0, 0, 2.5), (0, 0, 5))
    assert case.info.orientation == ((1, 0, 0), (0, 1, 0))
    assert case.info.windows == (Window(40, 400),)


def test_float_pixel_data_is_read(tmp_path: Path) -> None:
    values = pattern(dtype=np.float32) / np.float32(7)
    dataset = image_dataset(values)
    dataset.FloatPixelData = dataset.PixelData
    del dataset.PixelData
    assert np.array_equal(opened(dataset, tmp_path).frame(), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_run_length_colour_equals_its_uncompressed_twin(tmp_path: Path, dtype: Any) -> None:
    pixels = pattern(samples=3, peak=np.iinfo(dtype).max, dtype=dtype)
    dataset = image_dataset(pixels)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    assert np.array_equal(opened(dataset, tmp_path).frame(), pixels)


@pytest.mark.parametrize(("photometric", "has_note"), [("YBR_FULL_422", False), ("YBR_FULL", False), ("RGB", True)])
def test_jpeg_colour_is_that_of_libjpeg_and_a_wrong_label_is_noted(
    tmp_path: Path, photometric: str, has_note: bool
) -> None:
    pytest.importorskip("imagecodecs")
    buffer = io.BytesIO()
    Image.fromarray(pattern(40, 48, samples=3)).save(buffer, "JPEG", quality=90, subsampling=0)
    dataset = image_dataset(pattern(40, 48, samples=3), photometric=photometric)
    dataset.PixelData = encapsulate([buffer.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    case = opened(dataset, tmp_path, JPEGBaseline8Bit)
    expected = np.asarray(Image.open(buffer))
    assert np.abs(case.frame().astype(int) - expected).max() <= 2
    assert ("colour_marker_disagrees" in case.info.notes) == has_note
    assert case.info.is_lossy


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"PixelSpacing": ["0.5", "0.25"]}, ((0.5, 0.25), True, "PixelSpacing")),
        ({"PixelSpacing": ["0.5", "0.25"], "Modality": "DX"}, ((0.5, 0.25), False, "PixelSpacing")),
        (
            {"PixelSpacing": ["0.5", "0.25"], "Modality": "DX", "PixelSpacingCalibrationType": "FIDUCIAL"},
            ((0.5, 0.25), True, "PixelSpacing"),
        ),
        (
            {"PixelSpacing": ["0.4", "0.4"], "ImagerPixelSpacing": ["0.5", "0.5"], "Modality": "XA"},
            ((0.4, 0.4), True, "PixelSpacing"),
        ),
        ({"ImagerPixelSpacing": ["0.2", "0.3"]}, ((0.2, 0.3), False, "ImagerPixelSpacing")),
        ({"NominalScannedPixelSpacing": ["0.2", "0.3"]}, ((0.2, 0.3), False, "NominalScannedPixelSpacing")),
        ({"PixelSpacing": ["0", "0"]}, (None, False, "")),
        ({}, (None, False, "")),
    ],
)
def test_spacing_says_where_it_holds(tmp_path: Path, attributes: dict[str, Any], expected: Any) -> None:
    info = opened(image_dataset(pattern(), **attributes), tmp_path).info
    assert (info.spacing_mm, info.spacing_is_real, info.spacing_source) == expected


def test_ultrasound_spacing_needs_one_scale(tmp_path: Path) -> None:
    def region(delta: float, units: int = 3) -> Any:
        return item_of(
            PhysicalUnitsXDirection=units, PhysicalUnitsYDirection=units, PhysicalDeltaX=delta, PhysicalDeltaY=delta * 2
        )

    def spacing(*regions: Any) -> Any:
        return opened(image_dataset(pattern(), SequenceOfUltrasoundRegions=list(regions)), tmp_path).info.spacing_mm

    assert spacing(region(0.01)) == pytest.approx((0.2, 0.1))
    assert spacing(region(0.01), region(0.5, units=4)) == pytest.approx((0.2, 0.1))
    assert spacing(region(0.01), region(0.02)) is None


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_equal_those_of_pydicom(function: str) -> None:
    values = np.arange(-200, 400, 7).reshape(2, -1).astype(np.int16)
    dataset = image_dataset(values, WindowCenter="40", WindowWidth="300", VOILUTFunction=function, stored=16)
    expected = apply_voi_lut(values, dataset)
    (window,) = proposed_windows(dataset)
    ours = apply_window(values, window)
    low, high = -32768, 32767  # what pydicom maps to, from the stored bits
    # 16 steps of float32 at this range, and pydicom's own rounding
    np.testing.assert_allclose(ours * (high - low) + low, expected, atol=0.02)
    assert (ours.min() >= 0, ours.max() <= 1) == (True, True)


def test_windows_of_a_single_step_and_impossible_ones() -> None:
    assert apply_window(np.array([1.0, 2.0]), Window(2, 1)).tolist() == [0, 1]
    for window in (Window(0, 0.5), Window(0, 0, "SIGMOID"), Window(0, 9, "CUBIC")):  # type: ignore[arg-type]
        with pytest.raises(InputError, match="a width of at least 1"):
            apply_window(np.zeros(2), window)


def test_windows_that_make_no_sense_are_left_out() -> None:
    dataset = image_dataset(pattern(), WindowCenter=["10", "20", "30"], WindowWidth=["100", "0"])
    assert proposed_windows(dataset) == (Window(10, 100),)
    assert proposed_windows(image_dataset(pattern())) == ()
