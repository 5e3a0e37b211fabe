"""Parse a DICOM file and hold its header against its pixel data, before a pixel is decoded."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from pydicom.filereader import read_dataset, read_partial

from msrf_monai.clinical.reading.codestream import codestream_header
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.optional import require

__all__ = ["PixelLayout", "is_dicom", "parse_dicom", "pixel_layout"]

_PIXEL_DATA = 0x7FE00010
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_DEFLATED = "1.2.840.10008.1.2.1.99"
_RLE = "1.2.840.10008.1.2.5"
_WAVELETS = ("1.2.840.10008.1.2.4.9", "1.2.840.10008.1.2.4.20")
"""JPEG 2000 and HTJ2K."""
_MIB = 1 << 20

Keyword = Literal["PixelData", "FloatPixelData", "DoubleFloatPixelData"]


@dataclass(frozen=True)
class PixelLayout:
    """How the pixels of one DICOM file are stored, checked against each other and against their length."""

    keyword: Keyword
    rows: int
    columns: int
    frames: int
    samples: int
    photometric: str
    bits_allocated: int
    bits_stored: int
    is_signed: bool
    transfer_syntax: Any
    """A ``pydicom.uid.UID``."""
    notes: tuple[str, ...] = ()


def is_dicom(head: bytes) -> bool:
    """Tell whether a file begins as DICOM does: a preamble of 128 bytes, then ``DICM``."""
    return head[128:132] == b"DICM"


def parse_dicom(data: bytes, limits: Limits) -> Any:
    """Parse a DICOM file up to its pixel data; what comes behind that is not looked at.

    Args:
        data: the file's bytes.
        limits: for deflated files, ``inflated_bytes``.

    Returns:
        A ``pydicom.Dataset`` with file meta information.

    Raises:
        RefusedInput: ``not_dicom``, ``bad_file_meta``, ``no_transfer_syntax``, ``bad_transfer_syntax``,
            ``inflate_bomb``, ``truncated`` or ``unreadable``.
    """
    if not is_dicom(data):
        raise RefusedInput(RefusalCode.NOT_DICOM, "the file does not begin with a preamble and DICM; export it again")
    if len(data) <= 132:
        raise RefusedInput(RefusalCode.NOT_DICOM, "the file ends after DICM; copy or export it again")
    syntax, position = _transfer_syntax(data)
    if syntax == _DEFLATED:
        _check_inflated(data[position:], limits)
    try:
        return read_partial(io.BytesIO(data), stop_when=_is_behind_pixels)
    except EOFError:
        raise RefusedInput(RefusalCode.TRUNCATED, "the file ends within its header; copy or export it again") from None
    except Exception as error:  # pydicom raises whatever a broken value leads it to
        raise RefusedInput(
            RefusalCode.UNREADABLE, f"the header cannot be parsed ({type(error).__name__}); export the file again"
        ) from None


def _is_behind_pixels(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) > _PIXEL_DATA


def _is_behind_meta(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) >> 16 != 2


def _transfer_syntax(data: bytes) -> tuple[Any, int]:
    """Return the transfer syntax, and where the data set begins that is written in it."""
    handle = io.BytesIO(data)
    handle.seek(132)
    try:
        # by its tags, not by its announced length, which is often wrong
        meta = read_dataset(handle, is_implicit_VR=False, is_little_endian=True, stop_when=_is_behind_meta)
        syntax = meta.get("TransferSyntaxUID")
        is_known = syntax is not None and syntax.is_transfer_syntax
    except Exception as error:  # as above
        raise RefusedInput(
            RefusalCode.BAD_FILE_META,
            f"the file meta information cannot be parsed ({type(error).__name__}); export the file again",
        ) from None
    if syntax is None or not str(syntax):
        raise RefusedInput(
            RefusalCode.NO_TRANSFER_SYNTAX, "the file does not name its transfer syntax; export it again"
        )
    if not is_known or syntax.is_private:
        raise RefusedInput(
            RefusalCode.BAD_TRANSFER_SYNTAX, "the file's transfer syntax is none of DICOM's; export it again"
        )
    return syntax, handle.tell()


def _check_inflated(pending: bytes, limits: Limits) -> None:
    """Inflate piece by piece and count, holding a megabyte at a time."""
    stream, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        while pending and not stream.eof:
            total += len(stream.decompress(pending, _MIB))
            pending = stream.unconsumed_tail
            if total > limits.inflated_bytes:
                raise RefusedInput(
                    RefusalCode.INFLATE_BOMB,
                    f"the deflated file becomes larger than the limit of {limits.inflated_bytes} bytes; "
                    "raise inflated_bytes if that is meant",
                )
    except zlib.error:
        raise RefusedInput(
            RefusalCode.UNREADABLE, "the deflated data is damaged; copy or export the file again"
        ) from None


def pixel_layout(dataset: Any, limits: Limits) -> PixelLayout:
    """Read and cross-check everything that decides how the pixels are decoded.

    Args:
        dataset: from ``parse_dicom``.
        limits: bounds of size and number of frames.

    Returns:
        The layout; decoding it needs no more memory than it says.

    Raises:
        RefusedInput: ``not_an_image``, ``bad_header``, ``too_many_pixels``, ``too_many_frames``, ``truncated``,
            ``length_mismatch``, ``wrong_transfer_syntax``, ``bad_encapsulation``, ``codestream_size`` or
            ``unsupported``.
    """
    keyword = _pixel_keyword(dataset)
    rows, columns = _whole(dataset, "Rows"), _whole(dataset, "Columns")
    frames = 1 if dataset.get("NumberOfFrames") in (None, "") else _whole(dataset, "NumberOfFrames")
    limits.check_size(rows, columns, frames)
    samples = _whole(dataset, "SamplesPerPixel", 1)
    photometric = str(dataset.get("PhotometricInterpretation") or "")
    _check_photometric(photometric, samples)
    allocated = _whole(dataset, "BitsAllocated")
    is_float = keyword != "PixelData"
    stored = allocated if is_float else _whole(dataset, "BitsStored", allocated)
    representation = 0 if is_float else _whole(dataset, "PixelRepresentation", 0)
    _check_bits(keyword, allocated, stored, representation)
    syntax = dataset.file_meta.TransferSyntaxUID
    _check_colour(photometric, samples, stored, str(syntax))
    layout = PixelLayout(
        keyword, rows, columns, frames, samples, photometric, allocated, stored, representation == 1, syntax
    )
    notes = _check_encapsulated(dataset, layout) if syntax.is_encapsulated else _check_native(dataset, layout)
    if not is_float and _whole(dataset, "HighBit", stored - 1) != stored - 1:
        notes = (*notes, "unusual_high_bit")
    return PixelLayout(**{**layout.__dict__, "notes": notes})


def _pixel_keyword(dataset: Any) -> Keyword:
    for keyword in _PIXEL_KEYWORDS:
        if keyword in dataset:
            if not dataset[keyword].value:
                raise RefusedInput(RefusalCode.TRUNCATED, "the pixel data is empty; copy or export the file again")
            return keyword  # type: ignore[return-value]
    if "Rows" in dataset and "BitsAllocated" in dataset:
        raise RefusedInput(
            RefusalCode.TRUNCATED, "the header describes an image, and no pixel data follows; copy or export it again"
        )
    raise RefusedInput(
        RefusalCode.NOT_AN_IMAGE,
        "this DICOM object holds no image (a report, plan, presentation state, …); it is skipped",
    )


def _whole(dataset: Any, keyword: str, default: int | None = None) -> int:
    number: int | None = None
    # pydicom parses a value when it is first asked for, and raises NotImplementedError for a VR that it does not know
    with suppress(TypeError, ValueError, OverflowError, AttributeError, NotImplementedError):
        value = dataset.get(keyword)
        number = default if value in (None, "") else int(value)
    if number is None:
        raise RefusedInput(
            RefusalCode.BAD_HEADER, f"{keyword} is missing or is not one whole number; export the file again"
        )
    return number


def _check_photometric(photometric: str, samples: int) -> None:
    if photometric not in (*_COLOUR, *_GREY):
        raise RefusedInput(
            RefusalCode.BAD_HEADER,
            "PhotometricInterpretation is missing or none of those that can be read "
            f"({', '.join((*_GREY, *_COLOUR))}); export the file as RGB or MONOCHROME2",
        )
    if samples != (3 if photometric in _COLOUR else 1):
        raise RefusedInput(
            RefusalCode.BAD_HEADER,
            f"{photometric} does not go with {samples} samples a pixel; export the file again",
        )


def _check_bits(keyword: str, allocated: int, stored: int, representation: int) -> None:
    allowed = {"PixelData": (1, 8, 16, 32), "FloatPixelData": (32,), "DoubleFloatPixelData": (64,)}[keyword]
    if allocated not in allowed or not 1 <= stored <= allocated or representation not in (0, 1):
        raise RefusedInput(
            RefusalCode.BAD_HEADER,
            f"{stored} bits stored in {allocated} allocated ones, with pixel representation {representation}, "
            "is no way to store pixels; export the file again",
        )


def _check_colour(photometric: str, samples: int, stored: int, syntax: str) -> None:
    is_wavelet = syntax.startswith(_WAVELETS)
    if photometric in ("YBR_ICT", "YBR_RCT") and not is_wavelet:
        raise RefusedInput(RefusalCode.BAD_HEADER, f"{photometric} exists in JPEG 2000 alone; export the file as RGB")
    if (photometric.startswith("YBR_FULL") and stored > 8) or (samples == 3 and stored == 1):
        raise RefusedInput(
            RefusalCode.UNSUPPORTED, f"{photometric} of {stored} bits cannot be read; export the file as 8-bit RGB"
        )


def _check_native(dataset: Any, layout: PixelLayout) -> tuple[str, ...]:
    data = dataset[layout.keyword].value
    bits = layout.rows * layout.columns * layout.samples * layout.bits_allocated
    if layout.photometric == "YBR_FULL_422":
        bits = bits * 2 // 3
    needed = (bits * layout.frames + 7) // 8
    if len(data) != needed and data[:4] == b"\xfe\xff\x00\xe0":
        raise RefusedInput(
            RefusalCode.WRONG_TRANSFER_SYNTAX,
            "the pixel data is compressed, and the transfer syntax says that it is not; export the file again",
        )
    if len(data) < needed:
        raise RefusedInput(
            RefusalCode.TRUNCATED,
            f"the pixel data has {len(data)} of {needed} bytes; copy or export the file again",
        )
    # padding fills up a word, of careless writers a block; a whole row more means that the header is about other pixels
    row = max(bits // 8 // layout.rows, 2)
    if len(data) - needed >= row:
        raise RefusedInput(
            RefusalCode.LENGTH_MISMATCH,
            f"the pixel data has {len(data)} bytes, and the header describes {needed}; export the file again",
        )
    return ("excess_padding",) if len(data) - needed > 1 else ()


def _check_encapsulated(dataset: Any, layout: PixelLayout) -> tuple[str, ...]:
    if layout.keyword != "PixelData" or dataset.PixelData[:4] != b"\xfe\xff\x00\xe0":
        raise RefusedInput(
            RefusalCode.BAD_ENCAPSULATION,
            "the transfer syntax says that pixels are compressed, and they are not packed so; export the file again",
        )
    notes: set[str] = set()
    for frame in _compressed_frames(dataset.PixelData, layout.frames):
        if layout.transfer_syntax == _RLE:
            _check_rle(frame, layout)
        else:
            notes |= _check_codestream(frame, layout)
    return tuple(sorted(notes))


def _compressed_frames(data: bytes, count: int) -> Iterator[bytes]:
    """Yield all frames in one pass: asking for each by its number begins at the first one again."""
    # pydicom 2 has neither
    require("pydicom.pixels", "clinical")
    generate_frames = require("pydicom.encaps", "clinical").generate_frames
    index = 0
    try:
        for frame in generate_frames(data, number_of_frames=count):
            yield frame
            index += 1
            if index == count:
                return
        raise EOFError
    except Exception as error:  # pydicom raises ValueError, struct.error, EOFError, … for broken items
        raise RefusedInput(
            RefusalCode.BAD_ENCAPSULATION,
            f"compressed frame {index} of {count} is missing or broken ({type(error).__name__}); "
            "copy or export the file again",
        ) from None


def _check_rle(frame: bytes, layout: PixelLayout) -> None:
    bytes_a_plane = layout.rows * layout.columns
    planes = layout.samples * layout.bits_allocated // 8
    # the worst encoder writes two bytes for one; longer data can only inflate without end
    if len(frame) > 64 + planes * (2 * bytes_a_plane + 64):
        raise RefusedInput(
            RefusalCode.CODESTREAM_SIZE,
            f"a run-length frame of {len(frame)} bytes is longer than {layout.rows} x {layout.columns} pixels can be",
        )


def _check_codestream(frame: bytes, layout: PixelLayout) -> set[str]:
    header = codestream_header(frame)
    if header is None:
        raise RefusedInput(
            RefusalCode.BAD_ENCAPSULATION,
            "a compressed frame does not begin as JPEG, JPEG-LS or JPEG 2000 data does; copy or export the file again",
        )
    if (header.rows, header.columns, header.components) != (layout.rows, layout.columns, layout.samples):
        raise RefusedInput(
            RefusalCode.CODESTREAM_SIZE,
            f"a compressed frame is {header.rows} x {header.columns} x {header.components}, and the header says "
            f"{layout.rows} x {layout.columns} x {layout.samples}; export the file again",
        )
    if header.precision > layout.bits_allocated:
        raise RefusedInput(
            RefusalCode.BAD_HEADER,
            f"a compressed frame has {header.precision} bits, and {layout.bits_allocated} are allocated",
        )
    # decoders fill up what is missing with grey; data cannot contain the end marker, and only padding may follow it
    if b"\xff\xd9" not in frame[-64:]:
        raise RefusedInput(
            RefusalCode.TRUNCATED, "a compressed frame is cut short: its end is missing; copy or export the file again"
        )
    says_ybr = header.is_jfif or header.adobe_transform == 1
    return {"colour_marker_disagrees"} if layout.photometric == "RGB" and says_ybr else set()
