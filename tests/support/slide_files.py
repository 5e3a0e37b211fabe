"""Small slides that are made on the spot: SVS, tiled TIFF and DICOM, of one asymmetric picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
import tifffile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from msrf_monai.clinical.slides import RunTiles, SlideLimits, SlideResult, TileOptions, open_slide, predict_slide

Picture = npt.NDArray[np.uint8]
APERIO = "Aperio Image Library v11.2.1\r\n46000x32914 (256x256) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2500|Patient = SECRET"
WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
SYNTAXES = {"raw": ExplicitVRLittleEndian, "jpeg": JPEGBaseline8Bit, "rle": RLELossless, "j2k": JPEG2000Lossless}


def read_all(path: Path, limits: SlideLimits | None = None) -> None:
    """Open a slide and read all of it."""
    with open_slide(path, limits) as slide:
        for number, level in enumerate(slide.info.levels):
            slide.read_region(number, 0, 0, level.rows, level.columns)


def stained(rows: int, columns: int, *, seed: int = 3) -> Picture:
    """Glass with pink and violet tissue in its lower left part; without any symmetry."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    waves = np.sin(y / 17 + x / 29) + np.sin(x / 11) * np.cos(y / 23)
    inside = ((y / rows - 0.62) / 0.3) ** 2 + ((x / columns - 0.35) / 0.28) ** 2 < 1
    picture = np.full((rows, columns, 3), (246, 245, 247), dtype=np.float32)
    picture[inside] = (205, 120, 175)
    picture[inside & (waves > 0.9)] = (95, 45, 130)
    picture += random.normal(0, 1.5, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8)


def halved(picture: Picture) -> Picture:
    """The next level: every second pixel, so that it is known exactly."""
    return np.ascontiguousarray(picture[::2, ::2])


def write_tiff(
    path: Path,
    picture: Picture,
    *,
    levels: int = 3,
    tile: tuple[int, int] = (64, 96),
    description: str | None = None,
    sub: bool = False,
    extra: Sequence[Picture] = (),
    **options: Any,
) -> list[Picture]:
    """Write a tiled pyramid; ``extra`` pictures are label and photograph, untiled. Returns the levels' pixels."""
    pictures = [picture]
    while len(pictures) < levels:
        pictures.append(halved(pictures[-1]))
    options = {"photometric": "rgb", "compression": None, "metadata": None, "tile": tile, **options}
    with tifffile.TiffWriter(path, bigtiff=options.pop("bigtiff", False)) as writer:
        for number, pixels in enumerate(pictures):
            first = {"description": description, "subifds": levels - 1 if sub else 0} if number == 0 else {}
            writer.write(pixels, subfiletype=int(number > 0), **first, **options)
        for pixels in extra:
            writer.write(pixels, photometric="rgb", metadata=None)
    return pictures


def wsi_header(rows: int, columns: int, tile: tuple[int, int], *, number: int = 0, mpp: float = 0.5) -> Dataset:
    """A header of one level, without pixels."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.SOPClassUID, header.SOPInstanceUID = WSI, f"2.25.77{number + 1}"
    header.StudyInstanceUID, header.SeriesInstanceUID = "2.25.71", "2.25.72"
    header.FrameOfReferenceUID, header.PositionReferenceIndicator = "2.25.73", "SLIDE_CORNER"
    header.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    header.Modality, header.PatientName, header.PatientID = "SM", "SECRET^NAME", "SECRET-ID"
    header.PatientBirthDate, header.PatientSex, header.StudyDate, header.StudyTime = "19500131", "F", "20200102", "0304"
    header.StudyID, header.AccessionNumber, header.ReferringPhysicianName = "S1", "A1", ""
    header.InstanceNumber = number + 1
    header.SamplesPerPixel, header.PhotometricInterpretation, header.PlanarConfiguration = 3, "RGB", 0
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.Rows, header.Columns = tile
    header.TotalPixelMatrixRows, header.TotalPixelMatrixColumns = rows, columns
    header.NumberOfOpticalPaths = header.TotalPixelMatrixFocalPlanes = 1
    header.DimensionOrganizationType = "TILED_FULL"
    header.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    header.ContainerIdentifier = "SECRET-GLASS"
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    header.OpticalPathSequence = DicomSequence([path])
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = 20, 40
    header.TotalPixelMatrixOriginSequence = DicomSequence([origin])
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [mpp / 1000, mpp / 1000], 0.001
    shared.PixelMeasuresSequence = DicomSequence([measures])
    header.SharedFunctionalGroupsSequence = DicomSequence([shared])
    return header


def tiles_of(picture: Picture, tile: tuple[int, int]) -> list[Picture]:
    """Every tile, row by row, filled up with grey beyond the picture's edge."""
    rows, columns = (-(-size // step) * step for size, step in zip(picture.shape, tile, strict=False))
    whole = np.full((rows, columns, 3), 99, dtype=np.uint8)
    whole[: picture.shape[0], : picture.shape[1]] = picture
    return [
        np.ascontiguousarray(whole[y : y + tile[0], x : x + tile[1]])
        for y in range(0, rows, tile[0])
        for x in range(0, columns, tile[1])
    ]


def compressed(tile: Picture, kind: str) -> bytes:
    """One frame."""
    if kind == "jpeg":
        return bytes(imagecodecs.jpeg8_encode(tile, level=95, colorspace="RGB", outcolorspace="YCBCR"))
    if kind == "j2k":
        return bytes(imagecodecs.jpeg2k_encode(tile, codecformat="j2k", reversible=True, mct=True))
    if kind == "rle":
        planes = [imagecodecs.packbits_encode(np.ascontiguousarray(tile[..., k])) for k in range(3)]
        planes = [plane + b"\0" * (len(plane) % 2) for plane in planes]
        starts = np.cumsum([64, *map(len, planes[:-1])])
        return np.array([3, *starts, *[0] * 12], dtype="<u4").tobytes() + b"".join(planes)
    return tile.tobytes()


def write_wsi(
    path: Path,
    picture: Picture,
    *,
    tile: tuple[int, int] = (64, 96),
    kind: str = "jpeg",
    table: str = "basic",
    left_out: Sequence[int] | None = None,
    number: int = 0,
    mpp: float = 0.5,
    **changes: Any,
) -> Dataset:
    """Write one level as a DICOM file; with ``left_out`` as TILED_SPARSE without those frames."""
    header = wsi_header(*picture.shape[:2], tile, number=number, mpp=mpp)
    frames = [compressed(one, kind) for one in tiles_of(picture, tile)]
    if left_out is not None:
        header.DimensionOrganizationType = "TILED_SPARSE"
        across = -(-picture.shape[1] // tile[1])
        # last tile first, since the order of the frames means nothing
        order = [index for index in reversed(range(len(frames))) if index not in left_out]
        header.PerFrameFunctionalGroupsSequence = DicomSequence(
            [_place(index // across * tile[0] + 1, index % across * tile[1] + 1) for index in order]
        )
        frames = [frames[index] for index in order]
    header.NumberOfFrames = len(frames)
    if kind == "jpeg":
        header.PhotometricInterpretation = "YBR_FULL_422"
        header.LossyImageCompression = "01"
    if kind == "j2k":
        header.PhotometricInterpretation = "YBR_RCT"
    header.file_meta.TransferSyntaxUID = SYNTAXES[kind]
    header.PixelData = _packed(header, frames, kind, table)
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = kind != "raw"
    for name, value in changes.items():
        setattr(header, name, value)
    pydicom.dcmwrite(path, header, enforce_file_format=True)
    return header


def _place(row: int, column: int) -> Dataset:
    place, group = Dataset(), Dataset()
    place.RowPositionInTotalImagePixelMatrix, place.ColumnPositionInTotalImagePixelMatrix = row, column
    group.PlanePositionSlideSequence = DicomSequence([place])
    return group


def _packed(header: Dataset, frames: list[bytes], kind: str, table: str) -> bytes:
    if kind == "raw":
        return b"".join(frames)
    if table == "extended":
        data, header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths = encapsulate_extended(frames)
        return bytes(data)
    pieces = 2 if table == "fragments" else 1
    return bytes(encapsulate(frames, fragments_per_frame=pieces, has_bot=table != "none"))


class ArraySink:
    """Keeps a mask in memory."""

    def __init__(self) -> None:
        self.bands: list[Picture] = []
        self.ended = ""

    def begin(self, grid: Any) -> None:
        """See ``MaskSink``."""
        self.grid = grid

    def write(self, rows: Picture) -> None:
        """See ``MaskSink``."""
        self.bands.append(rows.copy())

    def finish(self) -> tuple[()]:
        """See ``MaskSink``."""
        self.ended = "finished"
        return ()

    def abort(self) -> None:
        """See ``MaskSink``."""
        self.ended = self.ended or "aborted"

    @property
    def mask(self) -> Picture:
        """All of it."""
        return np.concatenate(self.bands)


def stain(windows: Picture) -> npt.NDArray[np.float32]:
    """A trivial network with a receptive field of one pixel: the darker the green, the surer. Glass gives 0."""
    green = windows[..., 1].astype(np.float32)
    return np.clip((200 - green) / 160, 0, 1)[:, None]


def predicted(path: Path, options: TileOptions, network: RunTiles = stain) -> tuple[ArraySink, SlideResult]:
    """Predict a slide into memory."""
    sink = ArraySink()
    with open_slide(path) as slide:
        return sink, predict_slide(slide, network, sink, options)


def names(folder: Path) -> list[str]:
    """What lies in a folder, hidden files among it."""
    return sorted(path.name for path in folder.iterdir())
