"""Golden pixels of each (transfer syntax, photometric interpretation) of the samples, and a second decoder for each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import convert_color_space

from msrf_monai.clinical.reading import Limits, RefusedInput, open_dicom
from msrf_monai.clinical.reading.decoders import PINNED_PLUGINS
from msrf_monai.clinical.reading.dicom_header import parse_dicom, pixel_layout
from msrf_monai.clinical.reading.dicom_values import decode_stored
from support.dicom_files import as_bytes, image_dataset, pattern

for decoder in ("gdcm", "jpeg_ls", "imagecodecs"):
    pytest.importorskip(decoder, reason="needs the decoders of the extra clinical")

GOLDEN: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("golden_pixels.json").read_text())
JPEG = "1.2.840.10008.1.2.4."
# The samples of one picture, uncompressed and without loss: equality needs no second decoder
TWINS = [
    ("nema_wg04/CT1_UNC.dcm", "nema_wg04/CT1_JLSL.dcm"),
    ("nema_wg04/CT2_UNC.dcm", "nema_wg04/CT2_JPLL.dcm"),
    ("nema_wg04/CT2_UNC.dcm", "nema_wg04/CT2_J2KR.dcm"),
    ("nema_wg04/MR4_UNC.dcm", "nema_wg04/MR4_RLE.dcm"),
    ("nema_wg04/US1_UNC.dcm", "nema_wg04/US1_J2KR.dcm"),
    ("nema_wg04/VL2_UNC.dcm", "nema_wg04/VL2_J2KR.dcm"),
]
# Two releases of OpenJPEG round 4 of the 12,467,616 values of the one lossy JPEG 2000 file differently, by a grey level
TOLERANCE = {JPEG + "91": 1}


def _second_decoder(path: Path) -> Any:
    """Decode all frames without pydicom: GDCM reads native files, JPEG and JPEG 2000, imagecodecs JPEG-LS."""
    dataset = dcmread(path)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    shape = (int(dataset.get("NumberOfFrames") or 1), dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)
    kind = f"<{'i' if dataset.PixelRepresentation else 'u'}{max(dataset.BitsAllocated // 8, 1)}"
    if syntax in (JPEG + "80", JPEG + "81"):
        codecs = pytest.importorskip("imagecodecs")
        frames = generate_frames(dataset.PixelData, number_of_frames=shape[0])
        return np.stack([codecs.jpegls_decode(frame) for frame in frames]).astype(kind).reshape(shape)
    if dataset.Modality in ("SEG", "DMS"):  # GDCM's reader aborts the process on the one, and refuses the other
        stored = np.frombuffer(dataset.PixelData, kind)
        stored = np.unpackbits(stored, bitorder="little") if dataset.BitsAllocated == 1 else stored
        return stored[: np.prod(shape)].reshape(shape)
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    data = reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape")
    stored = np.frombuffer(data, kind)[: np.prod(shape)].reshape(shape)
    # of the JPEG files GDCM gives the components as they are stored
    return convert_color_space(stored, "YBR_FULL", "RGB") if syntax == JPEG + "50" else stored


@pytest.mark.realdata
@pytest.mark.parametrize("name", GOLDEN)
def test_pixels_are_the_golden_ones(data_root: Path, name: str) -> None:
    case = open_dicom(data_root / name)
    digest = hashlib.sha256()
    for frame in case.iter_frames():
        digest.update(frame.tobytes())
    info = case.info
    assert {
        "transfer_syntax": info.transfer_syntax_uid,
        "photometric": info.photometric,
        "shape": [info.frames, info.rows, info.columns, info.samples],
        "dtype": info.dtype,
        "sha256": digest.hexdigest(),
    } == GOLDEN[name]


@pytest.mark.realdata
@pytest.mark.parametrize("name", GOLDEN)
def test_stored_values_equal_those_of_a_second_decoder(data_root: Path, name: str) -> None:
    path = data_root / name
    expected = _second_decoder(path)
    dataset = parse_dicom(path.read_bytes(), Limits())
    layout = pixel_layout(dataset, Limits())
    for index, other in enumerate(expected):
        ours = decode_stored(dataset, layout, index).reshape(other.shape)
        apart = np.abs(ours.astype(np.int64) - other.astype(np.int64)).max()
        assert apart <= TOLERANCE.get(str(layout.transfer_syntax), 0)


@pytest.mark.realdata
@pytest.mark.parametrize(("plain", "compressed"), TWINS)
def test_lossless_twins_are_equal(data_root: Path, plain: str, compressed: str) -> None:
    one, two = (open_dicom(data_root / "dicom" / name).frame() for name in (plain, compressed))
    assert np.array_equal(one, two)


@pytest.mark.realdata
def test_near_lossless_stays_within_its_promise(data_root: Path) -> None:
    one, two = (open_dicom(data_root / "dicom/nema_wg04" / name).frame() for name in ("MR4_UNC.dcm", "MR4_JLSN.dcm"))
    steps = np.abs(one - two).max() / 9.570207  # the rescale slope: a step of stored values
    assert 0 < steps <= 10


@pytest.mark.realdata
def test_golden_pixels_cover_every_pair_of_the_samples(data_root: Path) -> None:
    pairs = Counter((entry["transfer_syntax"], entry["photometric"]) for entry in GOLDEN.values())
    found = set()
    for folder in ("dicom", "dicom_samples"):
        for path in (data_root / folder).rglob("*"):
            if path.is_file() and "bad" not in path.parts:
                try:
                    info = open_dicom(path, keep=False).info
                except RefusedInput:
                    continue
                found.add((info.transfer_syntax_uid, info.photometric))
    assert found == set(pairs)


@pytest.mark.parametrize(
    ("syntax", "options"),
    [
        ("51", {"bitspersample": 12}),
        ("70", {"lossless": True, "bitspersample": 12}),
        ("201", {}),
    ],
)
def test_12_bit_frames_of_imagecodecs_come_back(tmp_path: Path, syntax: str, options: dict[str, Any]) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = pattern(24, 40, peak=4000, dtype=np.uint16)
    frame = codecs.htj2k_encode(pixels) if syntax == "201" else codecs.jpeg8_encode(pixels, level=100, **options)
    path = _encapsulated(tmp_path, pixels, frame, JPEG + syntax)
    apart = np.abs(open_dicom(path).frame().astype(int) - pixels)
    assert apart.max() <= (4 if syntax == "51" else 0)


def _encapsulated(folder: Path, pixels: Any, frame: bytes, syntax: str) -> Path:
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    dataset = image_dataset(pixels, stored=12)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    (folder / "image").write_bytes(as_bytes(dataset))
    return folder / "image"


def test_a_missing_decoder_is_named_and_no_other_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codecs = pytest.importorskip("imagecodecs")
    pixels = pattern(24, 40, peak=4000, dtype=np.uint16)
    path = _encapsulated(tmp_path, pixels, codecs.jpegls_encode(pixels), JPEG + "80")
    case = open_dicom(path)
    monkeypatch.setitem(PINNED_PLUGINS, JPEG + "80", ("absent", "some-package"))
    with pytest.raises(RefusedInput, match=r"decoder_missing: .* needs some-package"):
        case.frame()
    monkeypatch.delitem(PINNED_PLUGINS, JPEG + "80")
    with pytest.raises(RefusedInput, match="unsupported"):
        open_dicom(path).frame()
