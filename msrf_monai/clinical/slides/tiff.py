"""SVS and tiled TIFF slides: which of a file's pictures are its levels, and how their tiles become RGB."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from msrf_monai.clinical.reading import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.codestream import codestream_header
from msrf_monai.clinical.slides.files import SlideFile
from msrf_monai.clinical.slides.levels import LevelPixels, SlideInfo, SlideLevel, Tile, plausible_mpp
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.tiff_structure import TiffDirectory, read_directories
from msrf_monai.errors import MissingExtraError
from msrf_monai.optional import require

__all__ = ["open_tiff_levels"]

_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION = 256, 257, 258, 259, 262, 270
_SAMPLES, _X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _RESOLUTION_UNIT, _PREDICTOR = 277, 282, 283, 284, 296, 317
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS, _TILE_COUNTS, _JPEG_TABLES = 322, 323, 324, 325, 347

_RAW, _LZW, _JPEG, _ZSTD, _YCC_WAVELET = 1, 5, 7, 50000, 33003
_DEFLATE, _WAVELETS = (8, 32946), (33003, 33005, 34712)
_READABLE = (_RAW, _LZW, _JPEG, _ZSTD, *_DEFLATE, *_WAVELETS)
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _YCBCR = 0, 1, 2, 6
_ASPECT_TOLERANCE = 0.02


@dataclass(frozen=True)
class _Page:
    """What decides how the tiles of one picture are decoded."""

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    compression: int
    photometric: int
    samples: int
    predictor: int

    @property
    def tile_bytes(self) -> int:
        return self.tile_rows * self.tile_columns * self.samples


class TiffTiles:
    """The tiles of one level of a TIFF file.

    Args:
        file: the open file.
        page: how they are stored.
        directory: the picture's tags.
    """

    def __init__(self, file: SlideFile, page: _Page, directory: TiffDirectory) -> None:
        self._file = file
        self._page = page
        self._across = -(-page.columns // page.tile_columns)
        tiles = self._across * -(-page.rows // page.tile_rows)
        if directory.count(_TILE_OFFSETS) != tiles or directory.count(_TILE_COUNTS) != tiles:
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"a level of {tiles} tiles has {directory.count(_TILE_OFFSETS)} places and "
                f"{directory.count(_TILE_COUNTS)} lengths of tiles; copy or export the file again",
            )
        self._offsets = directory.values(_TILE_OFFSETS).astype(np.int64)
        self._sizes = directory.values(_TILE_COUNTS).astype(np.int64)
        self._tables = directory.values(_JPEG_TABLES).tobytes() or None
        ends = self._offsets + self._sizes
        if (self._offsets < 0).any() or (self._sizes < 0).any() or (ends > file.size).any() or (ends < 0).any():
            raise RefusedInput(RefusalCode.TRUNCATED, "tiles lie beyond the end of the file; copy or export it again")
        # no codec makes twice as much of a tile: longer ones are no tiles
        if int(self._sizes.max()) > 2 * page.tile_bytes + (1 << 20):
            raise RefusedInput(
                RefusalCode.BAD_HEADER,
                f"a tile claims {int(self._sizes.max())} bytes, and its pixels have {page.tile_bytes}",
            )

    def tile(self, row: int, column: int) -> Tile | None:
        """Decode one tile; see ``LevelPixels``."""
        index = row * self._across + column
        size = int(self._sizes[index])
        if not size:
            return None
        data = self._file.read(int(self._offsets[index]), size)
        _check_codestream(data, self._page)
        try:
            pixels = _decode(data, self._page, self._tables)
        except (RefusedInput, MissingExtraError):
            raise
        except Exception as error:  # codecs raise what they like
            raise RefusedInput(
                RefusalCode.DECODE_FAILED,
                f"the tile in row {row}, column {column} cannot be decoded ({type(error).__name__}); "
                "copy or export the file again",
            ) from None
        return _as_rgb(pixels, self._page)


def open_tiff_levels(file: SlideFile, limits: SlideLimits) -> tuple[SlideInfo, tuple[LevelPixels, ...]]:
    """Find the levels of a TIFF slide: the first picture, and every smaller one of the same shape that is tiled.

    Args:
        file: a TIFF file.
        limits: bounds.

    Returns:
        What is known of the slide, and the tiles of each level.

    Raises:
        RefusedInput: ``bad_header``, ``truncated``, ``too_many_pixels``, ``too_many_frames`` or ``unsupported``.
    """
    directories = read_directories(file, limits)
    first = directories[0]
    if not (first.count(_TILE_WIDTH) and first.count(_TILE_LENGTH)):
        raise RefusedInput(
            RefusalCode.UNSUPPORTED, "the TIFF is not tiled, so it is no slide; open it as a picture instead"
        )
    page = _page_of(first, limits)
    mpp = _resolution(first)
    levels = [(page, first)]
    candidates = [*first.children, *directories[1:]]
    for directory in (one for one in candidates if one.count(_TILE_WIDTH) and one.count(_TILE_LENGTH)):
        smaller = _page_of(directory, limits)
        if _is_smaller_version(smaller, levels[-1][0], page):
            levels.append((smaller, directory))
    info = SlideInfo(
        kind="tiff",
        levels=tuple(_level(one, page, mpp) for one, _ in levels),
        mpp=mpp,
        photometric={_YCBCR: "YBR_FULL_422", _RGB: "RGB"}.get(page.photometric, "MONOCHROME2"),
        is_lossy=page.compression in (_JPEG, *_WAVELETS),
        notes=_notes(page),
    )
    return info, tuple(TiffTiles(file, one, directory) for one, directory in levels)


def _page_of(directory: TiffDirectory, limits: SlideLimits) -> _Page:
    page = _Page(
        rows=directory.whole(_LENGTH),
        columns=directory.whole(_WIDTH),
        tile_rows=directory.whole(_TILE_LENGTH),
        tile_columns=directory.whole(_TILE_WIDTH),
        compression=directory.whole(_COMPRESSION, 1),
        photometric=directory.whole(_PHOTOMETRIC),
        samples=directory.whole(_SAMPLES, 1),
        predictor=directory.whole(_PREDICTOR, 1),
    )
    limits.check_level(page.rows, page.columns, page.tile_rows, page.tile_columns)
    bits = {int(value) for value in directory.values(_BITS)} if directory.count(_BITS) <= page.samples else {0}
    if bits != {8}:
        raise _unsupported("its samples do not have 8 bits")
    if directory.whole(_PLANAR, 1) != 1 and page.samples > 1:
        raise _unsupported("its colours are stored apart from each other")
    if page.compression not in _READABLE or page.predictor not in (1, 2):
        raise _unsupported(f"its tiles are compressed by method {page.compression} with predictor {page.predictor}")
    colours = {_RGB: (3, 4), _YCBCR: (3,), _MIN_IS_BLACK: (1,), _MIN_IS_WHITE: (1,)}.get(page.photometric, ())
    if page.samples not in colours or (page.photometric == _YCBCR and page.compression not in (_JPEG, *_WAVELETS)):
        raise _unsupported(f"{page.samples} samples of photometric interpretation {page.photometric} are no RGB")
    return page


def _unsupported(why: str) -> RefusedInput:
    return RefusedInput(
        RefusalCode.UNSUPPORTED, f"the tiled TIFF cannot be read as a slide: {why}; export it as 8-bit RGB"
    )


def _is_smaller_version(page: _Page, previous: _Page, first: _Page) -> bool:
    """Tell whether a picture is the next level: labels and photographs of the glass have other shapes."""
    if page.rows >= previous.rows or page.columns >= previous.columns or page.samples != first.samples:
        return False
    # each side may be rounded by a pixel
    slack = _ASPECT_TOLERANCE + 1 / page.rows + 1 / page.columns
    return abs((first.rows * page.columns) / (first.columns * page.rows) - 1) <= slack


def _level(page: _Page, first: _Page, mpp: tuple[float, float] | None) -> SlideLevel:
    scaled = mpp and (mpp[0] * first.rows / page.rows, mpp[1] * first.columns / page.columns)
    return SlideLevel(page.rows, page.columns, page.tile_rows, page.tile_columns, scaled)


def _notes(page: _Page) -> tuple[str, ...]:
    return (("grey_to_rgb",) if page.samples == 1 else ()) + (("alpha_dropped",) if page.samples == 4 else ())


def _resolution(directory: TiffDirectory) -> tuple[float, float] | None:
    """Return micrometres per pixel: from Aperio's or OME's description, else from the TIFF's own tags."""
    description = directory.text(_DESCRIPTION)
    aperio = re.search(r"\|\s*MPP\s*=\s*([0-9.]{1,20})", description) if description.startswith("Aperio") else None
    if aperio:
        value = _number(aperio[1])
        return plausible_mpp(value, value)
    ome = [_ome_size(description, axis) for axis in "YX"]
    if None not in ome:
        return plausible_mpp(ome[0] or 0.0, ome[1] or 0.0)
    rows, columns = directory.ratio(_Y_RESOLUTION), directory.ratio(_X_RESOLUTION)
    unit = {2: 25400.0, 3: 10000.0}.get(directory.whole(_RESOLUTION_UNIT, 2))
    if unit is None or not rows or not columns:
        return None
    return plausible_mpp(unit / rows, unit / columns)


def _ome_size(description: str, axis: str) -> float | None:
    size = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]{{1,30}})"', description)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]{{1,8}})"', description)
    scale = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3}.get(unit[1] if unit else "µm")
    return None if size is None or scale is None else _number(size[1]) * scale


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def _check_codestream(data: bytes, page: _Page) -> None:
    """Hold a compressed tile's own header against the TIFF's, since a decoder allocates by the former."""
    if page.compression not in (_JPEG, *_WAVELETS):
        return
    header = codestream_header(data)
    if header is None:
        raise RefusedInput(
            RefusalCode.DECODE_FAILED, "a tile does not begin as its compression says; copy or export the file again"
        )
    if (header.rows, header.columns, header.components) != (page.tile_rows, page.tile_columns, page.samples):
        raise RefusedInput(
            RefusalCode.CODESTREAM_SIZE,
            f"a tile is {header.rows} x {header.columns} x {header.components}, and the header says {page.tile_rows} "
            f"x {page.tile_columns} x {page.samples}; export the file again",
        )
    # decoders fill up what is missing with grey
    if b"\xff\xd9" not in data[-64:]:
        raise RefusedInput(
            RefusalCode.TRUNCATED, "a tile is cut short: its end is missing; copy or export the file again"
        )


def _decode(data: bytes, page: _Page, tables: bytes | None) -> npt.NDArray[Any]:
    codecs = require("imagecodecs", "slides")
    if page.compression == _JPEG:
        if page.photometric in (_RGB, _YCBCR) and page.samples == 3:
            stored = 2 if page.photometric == _RGB and not _is_jfif(data) else None
            pixels = codecs.jpeg8_decode(data, tables=tables, colorspace=stored, outcolorspace=2)
        else:
            pixels = codecs.jpeg8_decode(data, tables=tables)
    elif page.compression in _WAVELETS:
        pixels = codecs.jpeg2k_decode(data)
        if page.compression == _YCC_WAVELET and page.samples == 3:
            # the one kind whose codestream does not say that it holds YCbCr
            pixels = cv2.cvtColor(np.ascontiguousarray(pixels[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB)
    else:
        pixels = _inflate(codecs, data, page)
    if pixels.dtype != np.uint8 or pixels.size != page.tile_bytes:
        raise RefusedInput(
            RefusalCode.LENGTH_MISMATCH, f"a tile has {pixels.size} of {page.tile_bytes} samples; export the file again"
        )
    return np.asarray(pixels).reshape(page.tile_rows, page.tile_columns, page.samples)


def _inflate(codecs: Any, data: bytes, page: _Page) -> npt.NDArray[Any]:
    # the codecs write no more than they are told, whatever the data would become
    if page.compression in _DEFLATE:
        data = codecs.zlib_decode(data, out=page.tile_bytes)
    elif page.compression == _LZW:
        data = codecs.lzw_decode(data, out=page.tile_bytes)
    elif page.compression == _ZSTD:
        data = codecs.zstd_decode(data, out=page.tile_bytes)
    pixels = np.frombuffer(data, np.uint8)
    if page.predictor == 2 and pixels.size == page.tile_bytes:
        rows = pixels.reshape(page.tile_rows, page.tile_columns, page.samples)
        return np.add.accumulate(rows, axis=1, dtype=np.uint8)
    return pixels


def _is_jfif(data: bytes) -> bool:
    header = codestream_header(data)
    return header is not None and header.is_jfif


def _as_rgb(pixels: npt.NDArray[Any], page: _Page) -> Tile:
    if page.samples == 1:
        grey = 255 - pixels if page.photometric == _MIN_IS_WHITE else pixels
        return np.repeat(grey, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])
