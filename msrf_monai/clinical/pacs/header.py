"""The UIDs of an object that was received or is to be sent, read from its first bytes and checked."""

from __future__ import annotations

import io
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydicom.filereader import read_dataset

from msrf_monai.clinical.reading.dicom_header import is_dicom
from msrf_monai.clinical.reading.quiet import quiet_pydicom, refusing_bad_headers
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput

__all__ = ["HEADER_BYTES", "FileHeader", "ObjectUids", "file_header", "object_uids"]

HEADER_BYTES = 1 << 24
"""The UIDs must come in the first 16 MiB: only small elements, and private ones, come before them."""

_CLASS, _INSTANCE, _STUDY = 0x00080016, 0x00080018, 0x0020000D
_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_META = 1 << 16


@dataclass(frozen=True)
class ObjectUids:
    """What tells an object from all others."""

    sop_class: str
    instance: str
    study: str


@dataclass(frozen=True)
class FileHeader:
    """What the file meta information of a DICOM file says, and where its data set begins."""

    sop_class: str
    instance: str
    transfer_syntax: str
    offset: int


def object_uids(head: bytes, transfer_syntax: Any) -> ObjectUids:
    """Read the UIDs of a data set.

    Args:
        head: its first bytes as they are encoded, all of them or ``HEADER_BYTES``.
        transfer_syntax: a ``pydicom.uid.UID``.

    Returns:
        The UIDs, each of digits and dots and at most 64 characters.

    Raises:
        RefusedInput: ``bad_header`` when one is missing or malformed, or the data set cannot be parsed.
    """
    with quiet_pydicom(), refusing_bad_headers():
        if transfer_syntax.is_deflated:
            # what is left of a longer stream is not looked at, so a bomb costs no more than this
            head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(head, HEADER_BYTES)
        dataset = read_dataset(
            io.BytesIO(head),
            transfer_syntax.is_implicit_VR,
            transfer_syntax.is_little_endian,
            stop_when=_is_behind_study,
            specific_tags=[_CLASS, _INSTANCE, _STUDY],
        )
        return ObjectUids(*(_uid(dataset, tag) for tag in (_CLASS, _INSTANCE, _STUDY)))


def file_header(path: Path) -> FileHeader:
    """Read the file meta information of a DICOM file.

    Args:
        path: the file.

    Returns:
        What is needed to send it as it is.

    Raises:
        RefusedInput: ``not_dicom``, ``missing`` or ``bad_header``.
    """
    try:
        with path.open("rb") as handle:
            head = handle.read(_LONGEST_META)
    except OSError:
        raise RefusedInput(RefusalCode.MISSING, "the file cannot be opened; check the path") from None
    if not is_dicom(head):
        raise RefusedInput(RefusalCode.NOT_DICOM, "the file does not begin with a preamble and DICM")
    with quiet_pydicom(), refusing_bad_headers():
        stream = io.BytesIO(head)
        stream.seek(132)
        meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_is_behind_meta)
        sop_class, instance, syntax = (_uid(meta, tag) for tag in (0x00020002, 0x00020003, 0x00020010))
        return FileHeader(sop_class, instance, syntax, stream.tell())


def _is_behind_study(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) > _STUDY


def _is_behind_meta(tag: Any, vr: str | None, length: int) -> bool:
    return int(tag) >> 16 != 2


def _uid(dataset: Any, tag: int) -> str:
    uid = str(dataset[tag].value if tag in dataset else "").strip(" \0")
    if _UID.fullmatch(uid) is None:
        raise RefusedInput(
            RefusalCode.BAD_HEADER,
            "the SOP class, SOP instance or study instance UID is missing or is no UID; export the object again",
        )
    return uid
