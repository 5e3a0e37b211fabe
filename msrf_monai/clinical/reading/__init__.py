"""Reading: clinical files as frozen cases, limits before decoding, and a stable code for each refusal."""

from msrf_monai.clinical.reading.dicom import open_dicom
from msrf_monai.clinical.reading.folder import open_folder
from msrf_monai.clinical.reading.limits import Limits
from msrf_monai.clinical.reading.metaimage import open_metaimage
from msrf_monai.clinical.reading.nifti import open_nifti
from msrf_monai.clinical.reading.opening import kind_of, open_case
from msrf_monai.clinical.reading.raster import open_raster
from msrf_monai.clinical.reading.refusal import RefusalCode, RefusedInput
from msrf_monai.clinical.reading.series import Opened, Refused, open_series
from msrf_monai.clinical.reading.voi import apply_window

__all__ = [
    "Limits",
    "Opened",
    "RefusalCode",
    "Refused",
    "RefusedInput",
    "apply_window",
    "kind_of",
    "open_case",
    "open_dicom",
    "open_folder",
    "open_metaimage",
    "open_nifti",
    "open_raster",
    "open_series",
]
