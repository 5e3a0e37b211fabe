"""What every object gets when it is built: the patient, the time, and UIDs that can be repeated."""

from __future__ import annotations

import datetime
import hashlib
import io
import re
from typing import Any

import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset

from msrf_monai.clinical.writing.identity import Identity
from msrf_monai.clinical.writing.source import DicomSource
from msrf_monai.clinical.writing.tolerance import guarded, without_validation

__all__ = ["CREATOR", "SERIES_NUMBERS", "common_arguments", "digest_of", "encode", "finish"]

CREATOR = "msrf-monai^automatic"
"""Who made the content, as a person's name."""

SERIES_NUMBERS = {"seg": 9100, "fractional": 9110, "labelmap": 9120, "sr": 9200, "pr": 9300, "sc": 9400}
"""Numbers of our series, far from those of scanners."""


def digest_of(*arrays: npt.NDArray[Any]) -> str:
    """Return a digest of what the arrays hold, to be part of a UID."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(f"{array.shape}{array.dtype}".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def common_arguments(role: str, source: DicomSource, identity: Identity, content: str) -> dict[str, Any]:
    """Return the arguments that highdicom wants for every kind of object.

    Args:
        role: a key of ``SERIES_NUMBERS``.
        source: what the object is about.
        identity: gives the UIDs.
        content: digest of what the object holds.
    """
    number = source.header.get("InstanceNumber")
    return {
        "series_instance_uid": identity.uid("series", role, str(source.header.SeriesInstanceUID)),
        "series_number": SERIES_NUMBERS[role],
        "sop_instance_uid": identity.uid(role, *source.instance_uids, content),
        "instance_number": int(number) if number and 0 < int(number) < 2**31 and len(source.headers) == 1 else 1,
        "manufacturer": identity.producer.manufacturer,
        "manufacturer_model_name": identity.producer.short_model,
        "software_versions": [identity.producer.software_version, identity.producer.short_version],
        "device_serial_number": identity.producer.serial_number,
    }


def finish(made: Dataset, source: DicomSource, identity: Identity, *, specimen: bool = False) -> None:
    """Put the patient, the study and the time into an object, and repeatable UIDs for its random ones.

    Args:
        made: the object as highdicom built it from stand-ins; changed in place.
        source: what it is about.
        identity: gives UIDs and time.
        specimen: copy what the source says of a specimen too.
    """
    source.restore_class(made)
    source.stamp(made, specimen=specimen)
    date, time = _moment(source.header, identity.moment)
    made.InstanceCreationDate, made.InstanceCreationTime = date, time
    for name in ("Content", "PresentationCreation"):
        if f"{name}Date" in made:
            setattr(made, f"{name}Date", date)
            setattr(made, f"{name}Time", time)
    if "DateOfSecondaryCapture" in made:
        made.DateOfSecondaryCapture, made.TimeOfSecondaryCapture = date, time
    for equipment in made.get("ContributingEquipmentSequence", []):
        equipment.ContributionDateTime = date + time
    organisation = identity.uid("dimensions", str(made.SOPInstanceUID))
    for name in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(name, []):
            item.DimensionOrganizationUID = organisation


def encode(made: Dataset) -> bytes:
    """Return the object as the bytes of a DICOM file.

    Raises:
        InputError: when a value cannot be encoded.
    """
    buffer = io.BytesIO()
    with guarded("encode the object"):
        pydicom.dcmwrite(buffer, made, enforce_file_format=True)
    return buffer.getvalue()


def _moment(header: Dataset, moment: datetime.datetime | None) -> tuple[str, str]:
    if moment is not None:
        return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S")
    with without_validation():
        for kind in ("Content", "Acquisition", "Series", "Study"):
            date = re.fullmatch(r"(\d{8})", str(header.get(f"{kind}Date") or ""))
            if date:
                time = re.match(r"\d{6}", str(header.get(f"{kind}Time") or ""))
                return date[1], time[0] if time else "000000"
    return "19000101", "000000"
