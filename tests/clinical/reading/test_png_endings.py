"""A PNG whose compressed pixels end early, though validly, is refused; good ones of every kind are read."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from msrf_monai.clinical.reading import RefusedInput, open_case
from msrf_monai.clinical.reading.png import has_all_pixels, is_interlaced_png

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))
"""Of the standard: first row, step, first column, step."""


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def file_of(header: tuple[int, ...], raw: bytes, *before: bytes, pieces: int = 1) -> bytes:
    """A PNG of filtered rows; the stream is ended as it should be, however many rows there are."""
    stream = zlib.compress(raw)
    size = -(-len(stream) // pieces)
    parts = b"".join(chunk(b"IDAT", stream[place : place + size]) for place in range(0, len(stream), size))
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", *header)) + b"".join(before) + parts + chunk(b"IEND", b"")


def rows_of(pixels: np.ndarray) -> bytes:
    """Rows of bytes, each with the filter that does nothing."""
    return b"".join(b"\0" + row.tobytes() for row in pixels.reshape(len(pixels), -1))


def passes_of(pixels: np.ndarray) -> bytes:
    parts = (pixels[top::down, left::right] for top, down, left, right in PASSES)
    return b"".join(rows_of(np.ascontiguousarray(part)) for part in parts if part.size)


GREY = np.random.default_rng(3).integers(1, 256, (13, 22), dtype=np.uint8)
COLOUR = np.random.default_rng(4).integers(1, 256, (13, 22, 3), dtype=np.uint8)
BLACK_BELOW = np.concatenate([COLOUR, np.zeros_like(COLOUR)])
DEEP = np.random.default_rng(5).integers(1, 65536, (13, 22), dtype=np.uint16).astype(">u2")
PALETTE = chunk(b"PLTE", bytes(number % 255 + 1 for number in range(768)))
SMALL_PALETTE = chunk(b"PLTE", bytes(range(100, 148)))

GOOD = {
    "grey": file_of((22, 13, 8, 0, 0, 0, 0), rows_of(GREY)),
    "colour": file_of((22, 13, 8, 2, 0, 0, 0), rows_of(COLOUR)),
    "colour, black below": file_of((22, 26, 8, 2, 0, 0, 0), rows_of(BLACK_BELOW)),
    "colour in many chunks": file_of((22, 26, 8, 2, 0, 0, 0), rows_of(BLACK_BELOW), pieces=9),
    "16 bits": file_of((22, 13, 16, 0, 0, 0, 0), rows_of(DEEP)),
    "1 bit": file_of((22, 13, 1, 0, 0, 0, 0), rows_of(np.packbits(GREY > 127, axis=1))),
    "1 bit, black": file_of((22, 13, 1, 0, 0, 0, 0), rows_of(np.packbits(GREY > 255, axis=1))),
    "palette": file_of((22, 13, 8, 3, 0, 0, 0), rows_of(GREY), PALETTE),
    "palette of 4 bits": file_of((22, 13, 4, 3, 0, 0, 0), rows_of(GREY[:, :11]), SMALL_PALETTE),
    "interlaced grey": file_of((22, 13, 8, 0, 0, 0, 1), passes_of(GREY)),
    "interlaced colour": file_of((22, 26, 8, 2, 0, 0, 1), passes_of(BLACK_BELOW)),
    "interlaced, one row": file_of((22, 1, 8, 0, 0, 0, 1), passes_of(GREY[:1])),
    "interlaced, one column": file_of((1, 13, 8, 0, 0, 0, 1), passes_of(GREY[:, :1])),
    "more than there should be": file_of((22, 13, 8, 0, 0, 0, 0), rows_of(GREY) + bytes(100)),
}


@pytest.mark.parametrize("kind", GOOD)
def test_good_pictures_are_read(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(GOOD[kind])
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert("RGB") if image.mode == "P" else image)

    rows = open_case(tmp_path / "a.png").frame(0)

    np.testing.assert_array_equal(rows, expected)
    assert has_all_pixels(GOOD[kind])
    assert is_interlaced_png(GOOD[kind]) == kind.startswith("interlaced")


def cut(data: bytes, left: int) -> bytes:
    """The same file with fewer bytes of rows in a stream that ends as it should."""
    place = data.index(b"IDAT") - 4
    length = struct.unpack_from(">I", data, place)[0]
    raw = zlib.decompress(data[place + 8 : place + 8 + length])
    return data[:place] + chunk(b"IDAT", zlib.compress(raw[:left])) + data[place + 12 + length :]


def read_by_pillow(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except OSError:
        return False
    return True


CUT = {
    "grey": len(rows_of(GREY)),
    "colour": len(rows_of(COLOUR)),
    "16 bits": len(rows_of(DEEP)),
    "1 bit": 13 * 4,
    "palette": len(rows_of(GREY)),
    "palette of 4 bits": 13 * 12,
    "interlaced grey": len(passes_of(GREY)),
    "interlaced, one row": len(passes_of(GREY[:1])),
    "interlaced, one column": len(passes_of(GREY[:, :1])),
}
"""Bytes of their rows."""


@pytest.mark.parametrize("kind", CUT)
def test_pictures_whose_pixels_end_early_are_refused_wherever_they_end(tmp_path: Path, kind: str) -> None:
    believed = 0
    for left in range(CUT[kind]):
        data = cut(GOOD[kind], left)
        believed += read_by_pillow(data)
        (tmp_path / "a.png").write_bytes(data)

        with pytest.raises(RefusedInput) as caught:
            open_case(tmp_path / "a.png").frame(0)

        assert caught.value.code in ("truncated", "decode_failed")
        assert not has_all_pixels(data)
    # where a row ends Pillow takes it for the end; of what it notices by itself there is more
    assert 0 < believed < CUT[kind]


def test_the_sentence_says_what_is_missing(tmp_path: Path) -> None:
    data = cut(GOOD["palette"], 5 * 23)
    (tmp_path / "a.png").write_bytes(data)
    assert read_by_pillow(data)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None

    with pytest.raises(RefusedInput, match="truncated: the picture's pixels end before its last row; copy or export"):
        open_case(tmp_path / "a.png").frame(0)


def test_a_turned_picture_whose_pixels_end_early_is_refused(tmp_path: Path) -> None:
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(stream, "PNG", exif=exif)
    (tmp_path / "a.png").write_bytes(stream.getvalue())
    (tmp_path / "b.png").write_bytes(cut(stream.getvalue(), 6 * 67))

    np.testing.assert_array_equal(open_case(tmp_path / "a.png").frame(0), np.rot90(COLOUR, -1))
    with pytest.raises(RefusedInput, match="truncated"):
        open_case(tmp_path / "b.png").frame(0)


def test_an_animation_of_one_picture_is_read(tmp_path: Path) -> None:
    Image.fromarray(BLACK_BELOW).save(tmp_path / "a.png", save_all=True, default_image=False)
    Image.fromarray(BLACK_BELOW).save(
        tmp_path / "b.png", save_all=True, default_image=True, append_images=[Image.fromarray(BLACK_BELOW[::-1])]
    )

    np.testing.assert_array_equal(open_case(tmp_path / "a.png").frame(0), BLACK_BELOW)
    with pytest.raises(RefusedInput, match="several pages"):
        open_case(tmp_path / "b.png")
