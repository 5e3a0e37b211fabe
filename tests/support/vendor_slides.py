"""Small slides in makers' own formats, written by what OpenSlide's format pages say of them.

Hamamatsu NDPI (a TIFF of whole JPEG pictures with restart markers) and VMS (a text file beside its JPEG files), and
3DHISTECH MIRAX (a picture beside a folder of settings, index and data).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["MIRAX_ID", "SLIDEDAT", "mirax_settings", "write_mirax", "write_ndpi", "write_vms"]

Picture = npt.NDArray[np.uint8]

MIRAX_ID = "0123456789ABCDEF0123456789ABCDEF"
SLIDEDAT = "Slidedat.ini"
_SHORT, _LONG, _RATIO, _SIGNED, _FLOAT = 3, 4, 5, 9, 11
_SIZES = {_SHORT: 2, _LONG: 4, _RATIO: 8, _SIGNED: 4, _FLOAT: 4}
_CODES = {_SHORT: "H", _LONG: "I", _RATIO: "II", _SIGNED: "i", _FLOAT: "f"}


def jpeg(picture: Picture, *, blocks: int = 0) -> bytes:
    """A JPEG file without subsampling; ``blocks`` squares of 8 x 8 lie between two restart markers."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=95, subsampling=0, restart_marker_blocks=blocks)
    return stream.getvalue()


def _restarts(data: bytes) -> list[int]:
    """Where each restart interval of a JPEG begins: behind the scan's header, and behind each marker D0 to D7."""
    scan = data.index(b"\xff\xda")
    first = scan + 2 + struct.unpack_from(">H", data, scan + 2)[0]
    marks = [place for place in range(first, len(data) - 1) if data[place] == 255 and 0xD0 <= data[place + 1] <= 0xD7]
    return [first, *(mark + 2 for mark in marks)]


def write_ndpi(
    path: Path, levels: Sequence[Picture], *, blocks: int = 8, mpp: float = 0.5, **changes: tuple[int, ...]
) -> None:
    """Write an NDPI file; each level's width is a multiple of 8 x ``blocks``, its height one of 8.

    ``changes`` are values of tags of the first directory by number, such as ``t256=(99,)``.
    """
    data = bytearray(b"II*\0" + struct.pack("<Q", 0))
    place = 4
    for number, picture in enumerate(levels):
        stored = jpeg(picture, blocks=blocks)
        start = len(data)
        data += stored
        tags: dict[int, tuple[int, tuple[float, ...]]] = {
            256: (_LONG, (picture.shape[1],)),
            257: (_LONG, (picture.shape[0],)),
            258: (_SHORT, (8, 8, 8)),
            259: (_SHORT, (7,)),
            262: (_SHORT, (6,)),
            273: (_LONG, (start,)),
            277: (_SHORT, (3,)),
            278: (_LONG, (picture.shape[0],)),
            279: (_LONG, (len(stored),)),
            282: (_RATIO, (round(1e7 / mpp / 2**number), 1000)),
            283: (_RATIO, (round(1e7 / mpp / 2**number), 1000)),
            296: (_SHORT, (3,)),
            65420: (_LONG, (1,)),
            65421: (_FLOAT, (20.0 / 2**number,)),
            65424: (_SIGNED, (0,)),
            65426: (_LONG, tuple(_restarts(stored))),
        }
        if number == 0:
            tags.update({int(name[1:]): (tags[int(name[1:])][0], values) for name, values in changes.items()})
        place = _add_directory(data, place, tags)
    path.write_bytes(data)


def _add_directory(data: bytearray, place: int, tags: dict[int, tuple[int, tuple[float, ...]]]) -> int:
    """Add an NDPI directory, to which ``place`` is made to point; return the place of its own pointer."""
    entries = bytearray()
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{_CODES[kind] * (len(values) // len(_CODES[kind]))}", *values)
        if len(packed) > 4:
            entries += struct.pack("<HHII", tag, kind, len(packed) // _SIZES[kind], len(data))
            data += packed + b"\0" * (len(packed) % 2)
        else:
            entries += struct.pack("<HHI", tag, kind, len(packed) // _SIZES[kind]) + packed.ljust(4, b"\0")
    struct.pack_into("<Q", data, place, len(data))
    data += struct.pack("<H", len(tags)) + entries
    following = len(data)
    # the next directory by 64 bits, and the upper halves of all values
    data += struct.pack("<Q", 0) + bytes(4 * len(tags))
    return following


def mirax_settings(levels: int, tile: tuple[int, int], grid: tuple[int, int], mpp: float) -> str:
    """Slidedat.ini of a slide whose pictures are PNG and do not overlap."""
    rows, columns = grid
    lines = [
        "[GENERAL]",
        "SLIDE_VERSION = 01.02",
        f"SLIDE_ID = {MIRAX_ID}",
        "SLIDE_NAME = SECRET",
        f"IMAGENUMBER_X = {columns}",
        f"IMAGENUMBER_Y = {rows}",
        "OBJECTIVE_MAGNIFICATION = 20",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]",
        "HIER_COUNT = 1",
        "NONHIER_COUNT = 0",
        "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level",
        f"HIER_0_COUNT = {levels}",
        *(f"HIER_0_VAL_{level} = ZoomLevel_{level}" for level in range(levels)),
        *(f"HIER_0_VAL_{level}_SECTION = LEVEL_{level}" for level in range(levels)),
        "[DATAFILE]",
        "FILE_COUNT = 1",
        "FILE_0 = Data0000.dat",
    ]
    for level in range(levels):
        lines += [
            f"[LEVEL_{level}]",
            "OVERLAP_X = 0.0",
            "OVERLAP_Y = 0.0",
            f"MICROMETER_PER_PIXEL_X = {mpp * 2**level}",
            f"MICROMETER_PER_PIXEL_Y = {mpp * 2**level}",
            "IMAGE_FORMAT = PNG",
            "IMAGE_FILL_COLOR_BGR = 16777215",
            f"DIGITIZER_WIDTH = {tile[1]}",
            f"DIGITIZER_HEIGHT = {tile[0]}",
            f"IMAGE_CONCAT_FACTOR = {min(level, 1)}",
        ]
    return "\n".join(lines) + "\n"


def write_mirax(
    path: Path,
    picture: Picture,
    *,
    levels: int = 2,
    tile: tuple[int, int] = (64, 96),
    mpp: float = 0.5,
    left_out: Sequence[tuple[int, int]] = (),
    settings: dict[str, str] | None = None,
) -> None:
    """Write ``path`` (a small JPEG, as scanners do) and its folder.

    The picture is a whole number of tiles; of the finest level the tiles ``left_out`` (row, column) are not stored.
    ``settings`` replaces texts in Slidedat.ini.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(jpeg(np.ascontiguousarray(picture[::8, ::8])))
    grid = picture.shape[0] // tile[0], picture.shape[1] // tile[1]
    text = mirax_settings(levels, tile, grid, mpp)
    for before, after in (settings or {}).items():
        assert before in text
        text = text.replace(before, after)
    (folder / SLIDEDAT).write_text(text)
    data, pages = bytearray(b"data"), []
    for level in range(levels):
        pages.append(_tiles(data, picture[:: 2**level, :: 2**level], tile, grid, 2**level, left_out))
    (folder / "Data0000.dat").write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(pages))


def _tiles(
    data: bytearray,
    pixels: Picture,
    tile: tuple[int, int],
    grid: tuple[int, int],
    step: int,
    left_out: Sequence[tuple[int, int]],
) -> list[tuple[int, int, int, int]]:
    """Add a level's tiles to the data; return number, place and length of each, and the number of its file."""
    found = []
    for row in range(0, grid[0], step):
        for column in range(0, grid[1], step):
            if step == 1 and (row, column) in left_out:
                continue
            whole = np.full((*tile, 3), 255, np.uint8)
            top, left = row // step * tile[0], column // step * tile[1]
            part = pixels[top : top + tile[0], left : left + tile[1]]
            whole[: part.shape[0], : part.shape[1]] = part
            stream = io.BytesIO()
            Image.fromarray(whole).save(stream, "PNG")
            found.append((row * grid[1] + column, len(data), len(stream.getvalue()), 0))
            data += stream.getvalue()
    return found


def _index(pages: Sequence[Sequence[tuple[int, int, int, int]]]) -> bytes:
    """Index.dat: pointers to each level's list, each of which is one empty page and one page of tiles."""
    head = b"01.02" + MIRAX_ID.encode()
    hierarchy = len(head) + 8
    lists = hierarchy + 4 * len(pages)
    pointers, body = b"", b""
    for page in pages:
        start = lists + len(body)
        pointers += struct.pack("<i", start)
        body += struct.pack("<ii", 0, start + 8) + struct.pack("<ii", len(page), 0)
        body += b"".join(struct.pack("<4i", *entry) for entry in page)
    return head + struct.pack("<ii", hierarchy, 0) + pointers + body


def write_vms(path: Path, pictures: Sequence[Sequence[Picture]], *, blocks: int = 8, **changes: str) -> None:
    """Write a VMS slide: rows of pictures beside each other, each with restart markers, and one small map of all."""
    lines = {"NoLayers": "1", "NoJpegColumns": str(len(pictures[0])), "NoJpegRows": str(len(pictures))}
    for row, across in enumerate(pictures):
        for column, picture in enumerate(across):
            name = f"part_{column}_{row}.jpg"
            key = "ImageFile" if (row, column) == (0, 0) else f"ImageFile({column},{row})"
            lines[key] = name
            (path.parent / name).write_bytes(jpeg(picture, blocks=blocks))
    whole = np.concatenate([np.concatenate(list(across), axis=1) for across in pictures])
    (path.parent / "map.jpg").write_bytes(jpeg(np.ascontiguousarray(whole[::2, ::2]), blocks=blocks))
    lines |= {"MapFile": "map.jpg", "PhysicalWidth": str(whole.shape[1] * 500)}
    lines |= {"PhysicalHeight": str(whole.shape[0] * 500), "SourceLens": "20", **changes}
    path.write_text("[Virtual Microscope Specimen]\n" + "".join(f"{key}={value}\n" for key, value in lines.items()))
