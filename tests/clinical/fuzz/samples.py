"""Small sound files of every kind that clinical reading opens, to be damaged; and the samples of the data folder."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from support.dicom_files import as_bytes, image_dataset, item_of, pattern
from support.vendor_slides import write_mirax, write_ndpi, write_vms

__all__ = ["SLIDES", "VOXELS", "files_beside", "generated_samples", "slide_samples", "stored_samples"]

VOXELS = "voxels.raw"
"""Name of the file beside a damaged ``.mhd`` header; it holds 8 x 6 x 3 values of 16 bits."""
SLIDES = {
    "slide.tif": ("input", "input"),
    "slide.ndpi": ("input", "input"),
    "slide.vms": ("input", "input"),
    "mirax_settings": ("mirax/Slidedat.ini", "mirax.mrxs"),
    "mirax_index": ("mirax/Index.dat", "mirax.mrxs"),
}
"""Samples that are whole slides: the file that is damaged, and the one by which the slide is opened."""
_ROWS, _COLUMNS = 24, 32
_LARGEST = 60_000
_VOLUME = np.random.default_rng(1).integers(-200, 300, (8, 6, 3)).astype(np.int16)


def stored_samples(data_root: Path | None) -> dict[str, bytes]:
    """Return the small files below ``dicom_samples`` of the data folder, by their path; none without the folder."""
    folder = None if data_root is None else data_root / "dicom_samples"
    if folder is None or not folder.is_dir():
        return {}
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and 0 < path.stat().st_size <= _LARGEST]
    # one slice of a series says as much as all of them
    first = {path.parent: path for path in reversed(paths)}
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in paths
        if path.suffix != ".md" and (path.parent in (folder, folder / "bad") or first[path.parent] == path)
    }


def generated_samples() -> dict[str, bytes]:
    """Return the samples made here: DICOM native and compressed, pictures, NIfTI, MetaImage."""
    return {**dict(_native_dicom()), **dict(_compressed_dicom()), **dict(_pictures()), **dict(_volumes())}


def slide_samples(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Make a slide of each kind in an empty folder.

    Returns:
        The files to damage, by the names of ``SLIDES``, and those beside them, by path.
    """
    picture = pattern(128, 192, samples=3)
    with tifffile.TiffWriter(folder / "slide.tif") as writer:
        writer.write(picture, tile=(64, 64), compression="jpeg", photometric="rgb", subifds=1)
        writer.write(picture[::2, ::2], tile=(64, 64), compression="jpeg", photometric="rgb", subfiletype=1)
    write_ndpi(folder / "slide.ndpi", [picture, np.ascontiguousarray(picture[::2, ::2][:, :64])])
    write_vms(folder / "slide.vms", [[np.ascontiguousarray(picture[:, :64]), np.ascontiguousarray(picture[:, 64:128])]])
    write_mirax(folder / "mirax.mrxs", picture)
    made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    damaged = {name: made.pop(name) for name in ("slide.tif", "slide.ndpi", "slide.vms")}
    damaged |= {"mirax_settings": made["mirax/Slidedat.ini"], "mirax_index": made["mirax/Index.dat"]}
    return damaged, made


def files_beside(slides: dict[str, bytes]) -> dict[str, bytes]:
    """Return all files that lie beside an input: the voxels of MetaImage headers, and the parts of slides."""
    return {VOXELS: bytes(8 * 6 * 3 * 2), **slides}


def _native_dicom() -> Iterator[tuple[str, bytes]]:
    grey = pattern(_ROWS, _COLUMNS, peak=4000, dtype=np.uint16)
    rgb = pattern(_ROWS, _COLUMNS, samples=3)
    yield "grey.dcm", as_bytes(image_dataset(grey, stored=12, WindowCenter=2000, WindowWidth=4000, Modality="DX"))
    yield "mono1.dcm", as_bytes(image_dataset(grey.astype(np.int16), photometric="MONOCHROME1", RescaleSlope="2"))
    yield "rgb.dcm", as_bytes(image_dataset(rgb))
    yield "planar.dcm", as_bytes(image_dataset(rgb, PlanarConfiguration=1))
    yield "ybr.dcm", as_bytes(image_dataset(rgb, photometric="YBR_FULL"))
    yield "clip.dcm", as_bytes(image_dataset(np.stack([rgb, rgb[::-1], rgb[:, ::-1]])))
    yield "bits.dcm", as_bytes(_bits())
    table = item_of(LUTDescriptor=[256, 0, 16], LUTData=[int(value) for value in np.arange(256) * 3])
    table["LUTData"].VR = "US"
    yield "table.dcm", as_bytes(image_dataset(grey >> 4, ModalityLUTSequence=[table]))
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        dataset = image_dataset(grey)
        dataset.file_meta.TransferSyntaxUID = syntax
        yield f"{name}.dcm", as_bytes(dataset)
    dataset = image_dataset(grey)
    dataset.PixelData = grey.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    yield "big.dcm", as_bytes(dataset)
    yield "palette.dcm", as_bytes(_palette([np.arange(256, dtype=np.uint16) * 257] * 3, ""))
    red = np.array([0, 3, 100, 9000, 500, 1, 200, 60000, 2, 1, 0, 0, 1, 50, 100], dtype=np.uint16)
    yield "segmented.dcm", as_bytes(_palette([red] * 3, "Segmented"))
    yield "enhanced.dcm", as_bytes(_enhanced(grey))


def _bits() -> Any:
    dataset = image_dataset(pattern(_ROWS, _COLUMNS))
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    dataset.PixelData = np.packbits(pattern(_ROWS, _COLUMNS) > 99, bitorder="little").tobytes()
    return dataset


def _palette(tables: Any, segmented: str) -> Any:
    dataset = image_dataset(pattern(_ROWS, _COLUMNS), photometric="PALETTE COLOR")
    for colour, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"{segmented}{colour}PaletteColorLookupTableData", table.tobytes())
    return dataset


def _enhanced(grey: Any) -> Any:
    def group(height: int) -> Any:
        return item_of(
            PlanePositionSequence=[item_of(ImagePositionPatient=[1, 2, height])],
            PixelValueTransformationSequence=[item_of(RescaleSlope="2", RescaleIntercept=str(height))],
        )

    shared = item_of(
        PlaneOrientationSequence=[item_of(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelMeasuresSequence=[item_of(PixelSpacing=[0.5, 0.75], SliceThickness="2")],
    )
    return image_dataset(
        np.stack([grey, grey[::-1], grey]),
        Modality="CT",
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[group(height) for height in (0, 2, 4)],
    )


def _compressed_dicom() -> Iterator[tuple[str, bytes]]:
    codecs: Any = __import__("imagecodecs")
    grey, deep = pattern(_ROWS, _COLUMNS), pattern(_ROWS, _COLUMNS, peak=4000, dtype=np.uint16)
    rgb = pattern(_ROWS, _COLUMNS, samples=3)
    yield "jpeg.dcm", _packed(rgb, JPEGBaseline8Bit, [codecs.jpeg8_encode(rgb)], photometric="YBR_FULL_422")
    yield "jpeg12.dcm", _packed(deep, JPEGExtended12Bit, [codecs.jpeg8_encode(deep, bitspersample=12)], stored=12)
    yield "lossless.dcm", _packed(deep, JPEGLossless, [codecs.ljpeg_encode(deep)], stored=16)
    yield "jpegls.dcm", _packed(grey, JPEGLSLossless, [codecs.jpegls_encode(grey)])
    yield "jpegls16.dcm", _packed(deep, JPEGLSLossless, [codecs.jpegls_encode(deep)])
    yield "j2k.dcm", _packed(deep, JPEG2000Lossless, [codecs.jpeg2k_encode(deep, codecformat="j2k", level=0)])
    lossy = codecs.jpeg2k_encode(rgb, codecformat="j2k", level=40, reversible=False)
    yield "j2k_rgb.dcm", _packed(rgb, JPEG2000, [lossy], photometric="YBR_ICT")
    yield "htj2k.dcm", _packed(grey, HTJ2K, [codecs.htj2k_encode(grey)])
    for name, pixels in (("rle", deep), ("rle_rgb", np.stack([rgb, rgb[::-1]]))):
        dataset = image_dataset(pixels)
        dataset.compress(RLELossless, generate_instance_uid=False)
        yield f"{name}.dcm", as_bytes(dataset)


def _packed(pixels: Any, syntax: UID, frames: list[bytes], **options: Any) -> bytes:
    dataset = image_dataset(pixels, **options)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([bytes(frame) for frame in frames])
    dataset["PixelData"].VR = "OB"
    return as_bytes(dataset)


def _pictures() -> Iterator[tuple[str, bytes]]:
    grey, deep = pattern(_ROWS, _COLUMNS), pattern(_ROWS, _COLUMNS, peak=65535, dtype=np.uint16)
    rgb = Image.fromarray(pattern(_ROWS, _COLUMNS, samples=3))
    exif = Image.Exif()
    exif[0x0112] = 6
    made: list[tuple[str, Any, dict[str, Any]]] = [
        ("grey.png", Image.fromarray(grey), {}),
        ("rgb.png", rgb, {"exif": exif, "dpi": (72, 72)}),
        ("palette.png", rgb.quantize(16), {"transparency": 3}),
        ("deep.png", Image.fromarray(deep), {}),
        ("bits.png", Image.fromarray(grey > 99), {}),
        ("rgba.png", rgb.convert("RGBA"), {}),
        ("rgb.jpg", rgb, {"exif": exif}),
        ("progressive.jpg", rgb, {"progressive": True}),
        ("grey.jpg", Image.fromarray(grey), {}),
        ("plain.tif", rgb, {}),
        ("lzw.tif", rgb, {"compression": "tiff_lzw"}),
        ("deflate.tif", Image.fromarray(deep), {"compression": "tiff_adobe_deflate"}),
        ("jpeg.tif", rgb, {"compression": "jpeg"}),
        ("group4.tif", Image.fromarray(grey > 99), {"compression": "group4"}),
        ("float.tif", Image.fromarray(grey.astype(np.float32)), {}),
        ("rgb.bmp", rgb, {}),
        ("rgb.ppm", rgb, {}),
        ("palette.gif", rgb.quantize(16), {}),
        ("rgb.webp", rgb, {"lossless": True}),
    ]
    for name, image, options in made:
        buffer = io.BytesIO()
        image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.rpartition(".")[2].upper()), **options)
        yield name, buffer.getvalue()


def _volumes() -> Iterator[tuple[str, bytes]]:
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]])
    scaled: Any = nibabel.Nifti1Image(_VOLUME, affine)
    scaled.header.set_slope_inter(2, -24)
    scaled.header.set_xyzt_units("mm")
    yield "scaled.nii", scaled.to_bytes()
    yield "scaled.nii.gz", gzip.compress(scaled.to_bytes(), mtime=0)
    yield "float.nii", nibabel.Nifti1Image(_VOLUME.astype(np.float32), affine).to_bytes()
    yield "bytes.nii.gz", gzip.compress(nibabel.Nifti1Image(_VOLUME.astype(np.uint8), affine).to_bytes(), mtime=0)
    yield "two.nii", nibabel.Nifti2Image(_VOLUME, affine).to_bytes()
    colours = np.zeros((8, 6, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    yield "rgb.nii", nibabel.Nifti1Image(colours, affine).to_bytes()
    lines = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = {}\n"
    lines += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 10 20 30\nElementSpacing = 0.5 0.75 3\nDimSize = 8 6 3\n"
    lines += "ElementType = MET_SHORT\nElementDataFile = {}\n"
    voxels = _VOLUME.tobytes(order="F")
    yield "plain.mha", lines.format(False, "LOCAL").encode() + voxels
    yield "packed.mha", lines.format(True, "LOCAL").encode() + zlib.compress(voxels)
    yield "header.mhd", lines.format(False, VOXELS).encode()
