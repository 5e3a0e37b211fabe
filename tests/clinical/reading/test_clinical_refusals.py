"""Bad inputs: each is refused before it is decoded, with its own code and one sentence without a path or a value."""

from __future__ import annotations

import copy
import logging
import os
import socket
import subprocess
import sys
import threading
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import config, dcmread
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000, DeflatedExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from msrf_monai.clinical.reading import Limits, RefusalCode, RefusedInput, open_case, open_dicom
from msrf_monai.clinical.reading.codestream import codestream_header
from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.reading.regular import check_inside, read_head, read_regular
from msrf_monai.errors import ConfigError, DataError
from support.dicom_files import as_bytes, image_dataset, pattern

BAD = {
    "bad_ts.dcm": "bad_transfer_syntax",
    "bits_stored_gt_alloc.dcm": "bad_header",
    "bitsalloc_wrong.dcm": "length_mismatch",
    "deflate_bomb_900MB.dcm": "inflate_bomb",
    "huge_header_rows_cols.dcm": "too_many_pixels",
    "jls_codestream_bomb.dcm": "codestream_size",
    "no_pi.dcm": "bad_header",
    "no_preamble.dcm": "not_dicom",
    "pi_rgb_spp1.dcm": "bad_header",
    "preamble_only.dcm": "not_dicom",
    "text.dcm": "not_dicom",
    "truncated_last100.dcm": "truncated",
    "zero_byte.dcm": "empty_file",
}
JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
TOLERATED = {
    "highbit_wrong.dcm": ("unusual_high_bit",),
    "ok.dcm": (),
    "private_tags.dcm": (),
    "rescale_slope_zero.dcm": ("rescale_slope_zero",),
    "trailing_junk.dcm": (),
    "traversal_series_desc.dcm": (),
}


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(RefusedInput) as caught:
        call()
    assert str(caught.value) == f"{caught.value.code.value}: {caught.value.sentence}"
    assert caught.value.__cause__ is None
    return caught.value.code.value


def opened(dataset: Any, tmp_path: Path, **limits: int) -> Any:
    path = tmp_path / "image.dcm"
    path.write_bytes(dataset if isinstance(dataset, bytes) else as_bytes(dataset))
    return open_dicom(path, Limits(**limits))


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "code"), BAD.items())
def test_each_bad_sample_is_refused_with_its_code(data_root: Path, name: str, code: str) -> None:
    path = data_root / "dicom_samples" / "bad" / name
    assert code_of(lambda: open_dicom(path)) == code


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "notes"), TOLERATED.items())
def test_each_odd_sample_is_read_and_noted(data_root: Path, name: str, notes: tuple[str, ...]) -> None:
    case = open_dicom(data_root / "dicom_samples" / "bad" / name)
    assert case.info.notes == notes
    assert case.frame().shape == (64, 64)


@pytest.mark.realdata
def test_all_bad_samples_together_stay_below_a_gigabyte(data_root: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from msrf_monai.clinical.reading import RefusedInput, open_dicom\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: open_dicom(path).frame()\n"
        "    except RefusedInput: pass\n"
        # Not ru_maxrss: it counts what the process that started this one held.
        "print(next(line for line in Path('/proc/self/status').open() if line.startswith('VmHWM')).split()[1])\n"
    )
    folder = str(data_root / "dicom_samples" / "bad")
    result = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 1024 * 1024  # KiB


def test_reading_imports_without_torch_and_without_decoders() -> None:
    code = (
        "import sys\n"
        "for name in ('gdcm', 'jpeg_ls', 'imagecodecs', 'openjpeg', 'highdicom', 'torch', 'monai'):\n"
        "    sys.modules[name] = None\n"
        "import msrf_monai.clinical.reading\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_pipes_sockets_and_folders_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        # a socket's path is short: 108 bytes
        here = Path.cwd()
        os.chdir(tmp_path)
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        for name in ("pipe", "socket", "."):
            assert code_of(lambda name=name: open_dicom(tmp_path / name)) == "not_regular_file"
    assert code_of(lambda: open_dicom(Path(os.devnull))) == "not_regular_file"


def test_missing_and_circular_paths_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"x")
    assert code_of(lambda: open_dicom(tmp_path / "loop")) == "link_loop"
    assert code_of(lambda: open_dicom(tmp_path / "dangling")) == "missing"
    assert code_of(lambda: open_dicom(tmp_path / "file" / "below")) == "missing"
    assert code_of(lambda: open_dicom(tmp_path / "zero\0byte")) == "missing"


def test_names_too_long_for_the_system_are_an_input_error(tmp_path: Path) -> None:
    assert code_of(lambda: open_dicom(tmp_path / ("n" * 300))) == "io_error"


def test_forbidden_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("msrf_monai.clinical.reading.regular.os.open", forbidden)
    assert code_of(lambda: open_dicom(tmp_path / "file")) == "permission_denied"


def test_names_outside_utf8_are_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"bild-\xff\xe4.dcm")
    path.write_bytes(as_bytes(image_dataset(pattern())))
    assert np.array_equal(open_dicom(path).frame(), pattern())


def test_links_out_of_the_input_folder_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "real").write_bytes(b"x")
    (root / "near").symlink_to(root / "real")
    (root / "loop").symlink_to(root / "loop")
    assert code_of(lambda: check_inside(root / "link", root)) == "link_outside"
    assert code_of(lambda: check_inside(root / "loop", root)) == "link_loop"
    check_inside(root / "near", root)


def test_size_limit_counts_the_bytes_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert code_of(lambda: read_regular(tmp_path / "file", Limits(file_bytes=4))) == "too_large"
    assert read_regular(tmp_path / "file", Limits(file_bytes=5)) == b"12345"
    assert read_head(tmp_path / "file", Limits(file_bytes=5), 2) == b"12"


@pytest.mark.parametrize("bound", [0, -1, 1.5, True])
def test_limits_must_be_positive_whole_numbers(bound: Any) -> None:
    with pytest.raises(ConfigError, match="frame_pixels must be a whole number"):
        Limits(frame_pixels=bound)


def test_deflated_bombs_are_counted_not_held(tmp_path: Path) -> None:
    dataset = image_dataset(pattern(200, 300))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert code_of(lambda: opened(dataset, tmp_path, inflated_bytes=50_000)) == "inflate_bomb"
    assert opened(dataset, tmp_path).frame().shape == (200, 300)
    damaged = bytearray(as_bytes(dataset))
    damaged[-80:] = zlib.compress(bytes(80))[:80].ljust(80, b"\xff")
    assert code_of(lambda: opened(bytes(damaged), tmp_path)) in ("unreadable", "truncated")


def _with_frame(frame: bytes, syntax: Any, **attributes: Any) -> Any:
    dataset = image_dataset(pattern(), **attributes)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    return dataset


def _j2k(rows: int, columns: int, components: int = 1, depth: int = 8) -> bytes:
    size = b"".join(n.to_bytes(4, "big") for n in (columns, rows, 0, 0, columns, rows, 0, 0))
    parts = components.to_bytes(2, "big") + bytes([depth - 1, 1, 1]) * components
    return b"\xff\x4f\xff\x51" + (38 + 3 * components).to_bytes(2, "big") + b"\0\0" + size + parts


def _jls(rows: int, columns: int) -> bytes:
    return b"\xff\xd8\xff\xf7\x00\x0b\x08" + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"


@pytest.mark.parametrize(
    ("frame", "syntax", "code"),
    [
        (_j2k(20000, 20000), JPEG2000, "codestream_size"),
        (JP2 + b"\x00\x00\x00\x08jp2h\x00\x00\x00\x00jp2c" + _j2k(9999, 8), JPEG2000, "codestream_size"),
        (_j2k(6, 8, components=3), JPEG2000, "codestream_size"),
        (_j2k(6, 8, depth=16), JPEG2000, "bad_header"),
        (_jls(6, 60000), JPEGLSLossless, "codestream_size"),
        (b"no codestream", JPEG2000, "bad_encapsulation"),
        (b"\xff\xd8\x00", JPEGLSLossless, "bad_encapsulation"),
        (JP2 + b"\x00\x00\x00\x02jp2h" + bytes(30), JPEG2000, "bad_encapsulation"),
        (_j2k(6, 8), JPEG2000, "truncated"),  # the header fits, and nothing follows
        (_j2k(6, 8) + b"\xff\xd9", JPEG2000, "decode_failed"),
        (bytes(2000), RLELossless, "codestream_size"),
        (bytes(64), RLELossless, "decode_failed"),
    ],
)  # fmt: skip
def test_compressed_frames_are_held_against_the_header(tmp_path: Path, frame: bytes, syntax: Any, code: str) -> None:
    if code == "decode_failed":
        pytest.importorskip("imagecodecs")
    assert code_of(lambda: opened(_with_frame(frame, syntax), tmp_path).frame()) == code


def test_the_size_hidden_in_a_second_fragment_is_found(tmp_path: Path) -> None:
    dataset = _with_frame(_jls(6, 60000), JPEGLSLossless)
    dataset.PixelData = encapsulate([_jls(6, 60000) + bytes(40)], fragments_per_frame=12)
    assert code_of(lambda: opened(dataset, tmp_path)) == "codestream_size"


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["CT1_JLSL.dcm", "CT2_JPLL.dcm", "US1_J2KR.dcm", "MR4_RLE.dcm"])
def test_compressed_frames_that_are_cut_are_never_filled_up(data_root: Path, tmp_path: Path, name: str) -> None:
    dataset = dcmread(data_root / "dicom" / "nema_wg04" / name)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    dataset.PixelData = encapsulate([frame[: len(frame) // 4 * 2]])
    assert code_of(lambda: opened(dataset, tmp_path).frame()) in ("truncated", "decode_failed")


def test_codestream_headers_say_what_they_claim() -> None:
    jfif = b"\xff\xd8\xff\xe0\x00\x07JFIF\0\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\x01\xff\xff\xd0"
    found = codestream_header(jfif + b"\xff\xc0\x00\x0b\x08\x00\x06\x00\x08\x03")
    assert found is not None
    assert (found.rows, found.columns, found.components, found.precision) == (6, 8, 3, 8)
    assert (found.is_jfif, found.adobe_transform) == (True, 1)
    assert codestream_header(b"\xff\xd8\xff\xc0\x00\x0b\x08") is None
    assert codestream_header(b"\xff\xd8\xff\xe0\x00\x02") is None


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: delattr(d, "PixelData"), "truncated"),
        (lambda d: setattr(d, "PixelData", b""), "truncated"),
        (lambda d: setattr(d, "PixelData", d.PixelData[:-2]), "truncated"),
        (lambda d: setattr(d, "PixelData", d.PixelData + bytes(8)), "length_mismatch"),
        (lambda d: setattr(d, "PixelData", encapsulate([b"\xff\xd8" * 90])), "wrong_transfer_syntax"),
        (lambda d: setattr(d, "NumberOfFrames", "1000000"), "too_many_frames"),
        (lambda d: setattr(d, "NumberOfFrames", "2"), "truncated"),
        (lambda d: setattr(d, "Rows", 0), "bad_header"),
        (lambda d: delattr(d, "Columns"), "bad_header"),
        (lambda d: setattr(d, "BitsAllocated", 12), "bad_header"),
        (lambda d: setattr(d, "PixelRepresentation", 7), "bad_header"),
        (lambda d: setattr(d, "PhotometricInterpretation", "YBR_PARTIAL_420"), "bad_header"),
        (lambda d: setattr(d, "RescaleSlope", "nan"), "bad_header"),
        (lambda d: [delattr(d, k) for k in ("PixelData", "Rows")], "not_an_image"),
    ],
)
def test_headers_that_contradict_the_pixels_are_refused(
    tmp_path: Path, change: Callable[[Any], None], code: str
) -> None:
    dataset = image_dataset(pattern())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        change(dataset)
        data = as_bytes(dataset)
    assert code_of(lambda: opened(data, tmp_path)) == code


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    data = as_bytes(image_dataset(pattern()))
    for length in range(1, len(data), 7):
        code = code_of(lambda length=length: opened(data[:length], tmp_path))
        assert code in {
            "not_dicom",
            "bad_file_meta",
            "no_transfer_syntax",
            "bad_transfer_syntax",
            "unreadable",
            "truncated",
            "not_an_image",
        }


def test_random_damage_is_refused_or_read_but_never_crashes(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    original = np.frombuffer(as_bytes(image_dataset(pattern())), dtype=np.uint8)
    refused = 0
    for _ in range(150):
        data = original.copy()
        places = generator.integers(128, len(data) - 60, size=4)
        data[places] = generator.integers(0, 256, size=4)
        try:
            opened(data.tobytes(), tmp_path).frame()
        except RefusedInput:
            refused += 1
    assert 20 < refused < 150


def test_a_file_that_changes_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    case = opened(image_dataset(pattern()), tmp_path)
    case.frame()
    (tmp_path / "image.dcm").write_bytes(as_bytes(image_dataset(pattern(peak=200))))
    assert code_of(case.frame) == "changed"


def test_values_that_name_patients_are_in_no_warning_and_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = image_dataset(pattern())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.add_new(0x00100030, "DA", "DOE-1950")
        dataset.add_new(0x00080030, "TM", "DOE JOHN 1234")
        dataset.PixelSpacing = ["1", "2"]
        data = as_bytes(dataset).replace(b"1\\2 ", b"DOE ")
    caplog.clear()
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        info = opened(data, tmp_path).info
    assert not [str(entry.message) for entry in caught]
    assert "DOE" not in caplog.text
    assert "DOE" not in repr(info)
    assert info.spacing_mm is None


def test_pydicom_speaks_again_when_the_last_of_several_threads_has_read() -> None:
    before = config.settings.reading_validation_mode
    filters = list(warnings.filters)
    first, second = threading.Event(), threading.Event()
    modes = []

    def outlast() -> None:
        with quiet_pydicom():
            first.set()
            second.wait(10)
            modes.append(config.settings.reading_validation_mode)

    thread = threading.Thread(target=outlast)
    thread.start()
    first.wait(10)
    with quiet_pydicom():
        pass
    second.set()
    thread.join()
    assert modes == [config.IGNORE]
    assert config.settings.reading_validation_mode == before
    assert warnings.filters == filters


@pytest.mark.realdata
def test_damaged_samples_of_every_kind_are_refused_or_read(data_root: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(11)
    names = ["bad/ok.dcm", "bad/palette.png", "bad/exif_rot6.jpg", "us_gray.dcm", "series/ok_axial/000.dcm"]
    files = [data_root / "dicom_samples" / name for name in names]
    files += [data_root / "dicom" / "nema_wg04" / name for name in ("MR4_JLSN.dcm", "US1_J2KR.dcm", "MR4_RLE.dcm")]
    outcomes: Counter[str] = Counter()
    for round_ in range(120):
        data = bytearray(files[round_ % len(files)].read_bytes())
        for place in generator.integers(0, min(len(data), 3000), size=3):
            data[place] = generator.integers(0, 256)
        path = tmp_path / "damaged"
        path.write_bytes(data[: generator.integers(1, len(data))] if round_ % 3 == 0 else data)
        try:
            open_case(path).frame()
            outcomes["read"] += 1
        except RefusedInput as refusal:
            outcomes[refusal.code] += 1
    assert outcomes["read"] > 10
    assert len(outcomes) > 6


def test_refusals_survive_being_sent_between_processes() -> None:
    # a copy is rebuilt by __reduce__, as an error is that a process sends
    error = copy.deepcopy(RefusedInput(RefusalCode.TRUNCATED, "cut short"))
    assert (error.code, error.sentence) == (RefusalCode.TRUNCATED, "cut short")
    assert isinstance(error, DataError)
