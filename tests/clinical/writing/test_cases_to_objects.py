"""What reading opens, writing can refer to: the two rooms agree on frames, size and spacing."""

from __future__ import annotations

import numpy as np
import pytest

from msrf_monai.clinical.reading import open_dicom, open_folder
from msrf_monai.clinical.writing import (
    DicomSource,
    Identity,
    build_segmentation,
    check_segmentation,
    encode,
    spacing_of,
    stored_planes,
)
from support.dicom_writing import CLIP, POLYP, PRODUCER, STILLS, VOLUMES, blobs

pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'msrf-monai[clinical]'")


def written_and_checked(case) -> DicomSource:
    source = DicomSource.of_case(case)
    mask = blobs(case.info.frames, case.info.rows, case.info.columns)
    content = encode(build_segmentation(source, mask, (POLYP,), Identity.repeatable(PRODUCER)))
    check_segmentation(content, source, stored_planes(source, mask, (POLYP,)))
    return source


@pytest.mark.realdata
@pytest.mark.parametrize("name", [*STILLS, CLIP])
def test_an_opened_file_becomes_a_segmentation(data_root, name):
    case = open_dicom(data_root / "dicom_samples" / f"{name}.dcm")

    source = written_and_checked(case)

    own = spacing_of(source.header)
    assert source.spacing.is_real == case.info.spacing_is_real == own.is_real
    assert (source.spacing.rows_mm, source.spacing.columns_mm) == pytest.approx((own.rows_mm, own.columns_mm))


@pytest.mark.realdata
@pytest.mark.parametrize("name", VOLUMES)
def test_an_opened_series_becomes_a_segmentation_in_slice_order(data_root, name):
    (case,) = open_folder(data_root / "dicom_samples" / name).cases

    source = written_and_checked(case)

    positions = np.array([[float(part) for part in header.ImagePositionPatient] for header in source.headers])
    np.testing.assert_allclose(positions, np.array(case.info.positions_mm), atol=1e-6)
    assert source.layout == "slices"
