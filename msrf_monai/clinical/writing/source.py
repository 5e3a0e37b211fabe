"""The DICOM objects that a result comes from: what of them a result may know, and what it must repeat.

The library that builds our objects is never shown who the patient is. It gets stand-ins that hold geometry and UIDs
only, so that no name, number or date can reach its log, its warnings or its errors; afterwards the patient's and the
study's attributes are copied from the source as they stand there.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.writing.spacing import Spacing, spacing_of
from msrf_monai.clinical.writing.tolerance import REFUSALS, guarded, without_validation
from msrf_monai.errors import InputError

__all__ = ["VL_PHOTOGRAPHIC", "DicomSource", "Layout"]

Layout = Literal["image", "clip", "slices"]
"""``image``: one frame without a place in the patient; ``clip``: several; ``slices``: every frame has its place."""

VL_PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
"""A single-frame kind of object without a place, by which every other one of that sort stands in."""

_FOR_GEOMETRY = (
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_FOR_PLACE = (
    "NumberOfFrames",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "DimensionOrganizationSequence",
    "DimensionIndexSequence",
)
_FOR_DISPLAY = (
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
_PATIENT_AND_STUDY = (
    *_TYPE_2,
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "IssuerOfPatientID",
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "OtherPatientNames",
    "PatientBirthTime",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "PatientComments",
    "PatientSpeciesDescription",
    "PatientSpeciesCodeSequence",
    "PatientBreedDescription",
    "PatientBreedCodeSequence",
    "BreedRegistrationSequence",
    "ResponsiblePerson",
    "ResponsiblePersonRole",
    "ResponsibleOrganization",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "StudyDescription",
    "PhysiciansOfRecord",
    "AdmissionID",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)
_SPECIMEN = (
    "ContainerIdentifier",
    "IssuerOfTheContainerIdentifierSequence",
    "ContainerTypeCodeSequence",
    "SpecimenDescriptionSequence",
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomSource:
    """The headers of what was predicted, one for a file; for slices one a slice, in the order of the mask's frames.

    Raises:
        InputError: when the headers do not make one thing to predict, or miss what a result must refer to.
    """

    headers: tuple[Dataset, ...]
    spacing: Spacing
    layout: Layout = field(init=False)
    frames: int = field(init=False)
    """Frames that a mask of it has."""

    def __post_init__(self) -> None:
        if not self.headers:
            raise InputError("no DICOM header was given; a result needs at least one to refer to")
        for header in self.headers:
            missing = [name for name in (*_UIDS, "Rows", "Columns") if not header.get(name)]
            if missing:
                raise InputError(f"the DICOM source lacks {', '.join(missing)}; a result cannot refer to it")
        frames = int(self.header.get("NumberOfFrames") or 1)
        object.__setattr__(self, "layout", _layout(self.headers, frames))
        object.__setattr__(self, "frames", frames if len(self.headers) == 1 else len(self.headers))
        _check_series(self.headers)

    @property
    def header(self) -> Dataset:
        """The first header."""
        return self.headers[0]

    @property
    def rows(self) -> int:
        """Height of a frame."""
        return int(self.header.Rows)

    @property
    def columns(self) -> int:
        """Width of a frame."""
        return int(self.header.Columns)

    @property
    def laterality(self) -> str | None:
        """The side of a paired body part, ``"L"`` or ``"R"``, where the source states it."""
        sides = {str(self.header.get(name) or "") for name in ("Laterality", "ImageLaterality")} & {"L", "R"}
        return sides.pop() if len(sides) == 1 else None

    @property
    def instance_uids(self) -> tuple[str, ...]:
        """SOP instance UIDs, one a header."""
        return tuple(str(header.SOPInstanceUID) for header in self.headers)

    @classmethod
    def of_headers(cls, headers: Sequence[Dataset]) -> DicomSource:
        """Take headers that pydicom has read; their pixels are not needed.

        Args:
            headers: one, or one for each slice in the order of the mask's frames.

        Raises:
            InputError: when they do not make one thing to predict.
        """
        kept = tuple(headers)
        with guarded("read the source's header"):
            return cls(kept, spacing_of(kept[0]) if kept else Spacing(1.0, 1.0, is_real=False))

    @classmethod
    def of_case(cls, case: Case) -> DicomSource:
        """Read the headers of a case again, without their pixels.

        Args:
            case: a case of kind ``"dicom"`` or ``"dicom-volume"``.

        Raises:
            InputError: when the case does not come from DICOM, or has changed since it was opened.
        """
        if case.info.kind not in ("dicom", "dicom-volume"):
            raise InputError(f"a case of kind {case.info.kind!r} has no DICOM header; write it as PNG or NIfTI")
        with guarded("read the source's header again"):
            headers = tuple(pydicom.dcmread(path, stop_before_pixels=True) for path in case.sources)
        known = tuple(reference.sop_instance_uid for reference in case.info.sop)
        if known and tuple(str(header.get("SOPInstanceUID", "")) for header in headers) != known:
            raise InputError("the input is another object than the one that was predicted; run it again")
        source = cls.of_headers(headers)
        if case.info.spacing_mm is None:
            return source
        rows, columns = case.info.spacing_mm
        return cls(headers, Spacing(rows, columns, case.info.spacing_is_real, case.info.spacing_source))

    def stand_ins(self, *, placed: bool | None = None) -> list[Dataset]:
        """Return headers for the library that builds objects: geometry and UIDs, nobody's name.

        Args:
            placed: keep the place in the patient; None for only where every frame has one. Without it, the kind of
                object is that of a plain photograph, and ``restore_class`` puts the real one back.
        """
        placed = self.layout == "slices" if placed is None else placed
        with without_validation():
            return [_stand_in(header, placed) for header in self.headers]

    def display_stand_ins(self) -> list[Dataset]:
        """Return stand-ins without a place that keep how grey levels are shown, where all headers agree on it."""
        made = self.stand_ins(placed=False)
        with without_validation():
            for name in _FOR_DISPLAY:
                if all(name in header and header[name] == self.header[name] for header in self.headers):
                    for one, header in zip(made, self.headers, strict=True):
                        if header[name].value not in (None, "", []):
                            _copy(header, one, name)
        return made

    def restore_class(self, references: Dataset) -> None:
        """Name the source's real kind of object wherever ``references`` refers to the source."""
        real = {str(header.SOPInstanceUID): str(header.SOPClassUID) for header in self.headers}
        for element in references:
            if element.VR == "SQ":
                for item in element.value:
                    self.restore_class(item)
        instance = str(references.get("ReferencedSOPInstanceUID", ""))
        if instance in real:
            references.ReferencedSOPClassUID = real[instance]

    def stamp(self, target: Dataset, *, specimen: bool = False) -> None:
        """Copy the patient's and the study's attributes into ``target``, as the source has them.

        Args:
            target: an object of the same study.
            specimen: copy what is said of the slide's specimen too.
        """
        names = _PATIENT_AND_STUDY + (_SPECIMEN if specimen else ())
        with without_validation():
            for name in names:
                if name in target:
                    delattr(target, name)
                if name in self.header:
                    _copy(self.header, target, name)
                elif name in _TYPE_2:
                    setattr(target, name, None)


def _layout(headers: Sequence[Dataset], frames: int) -> Layout:
    if any("ImageOrientationSlide" in header or "TotalPixelMatrixColumns" in header for header in headers):
        raise InputError("a whole slide is written by tiles, not by this writer")
    if all(_has_place(header) for header in headers):
        return "slices"
    if len(headers) > 1:
        raise InputError(
            f"{len(headers)} images without a position in the patient make no volume; write each of them alone"
        )
    return "clip" if frames > 1 else "image"


def _has_place(header: Dataset) -> bool:
    if not header.get("FrameOfReferenceUID"):
        return False
    if header.get("ImagePositionPatient") and header.get("ImageOrientationPatient"):
        return True
    groups = [
        *(header.get("SharedFunctionalGroupsSequence") or []),
        *(header.get("PerFrameFunctionalGroupsSequence") or []),
    ]
    return any("PlanePositionSequence" in group for group in groups)


def _check_series(headers: Sequence[Dataset]) -> None:
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        if len({str(header.get(name)) for header in headers}) > 1:
            raise InputError(f"the slices differ in {name}, so they are not one volume; write each group alone")
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise InputError("two slices have the same SOPInstanceUID; a result could not tell them apart")
    if len(headers) > 1 and any(int(header.get("NumberOfFrames") or 1) > 1 for header in headers):
        raise InputError("several multi-frame images were given as one volume; write each of them alone")


def _stand_in(header: Dataset, placed: bool) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for name in (*_UIDS, *_FOR_GEOMETRY, *(_FOR_PLACE if placed else ())):
        if name in header:
            _copy(header, made, name)
    for name in _TYPE_2:
        setattr(made, name, "")
    if not placed:
        made.SOPClassUID = VL_PHOTOGRAPHIC
    return made


def _copy(source: Dataset, target: Dataset, name: str) -> None:
    try:
        target[name] = copy.deepcopy(source[name])
    except REFUSALS as error:
        # the value stays out of the log: it may be a name
        _log.warning("%s of the source is not readable (%s) and was left out", name, type(error).__name__)
