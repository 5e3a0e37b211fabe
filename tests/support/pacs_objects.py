"""Fifty DICOM images of mixed kinds, each a study of its own, and a service that predicts them with a stand-in."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pydicom
from pydicom.filereader import read_partial
from pydicom.uid import generate_uid

from msrf_monai.clinical.ledger import read_manifest
from support.dicom_files import as_bytes

__all__ = ["STAND_IN", "accepted_lines", "mixed_objects", "segmentations", "without_meta"]

STAND_IN = """
import msrf_monai.clinical.predictor as predictor
from support.clinical_runs import ThresholdPredictor
predictor.Predictor.from_bundle = classmethod(lambda cls, *given: ThresholdPredictor())
"""
"""Code that makes the commands load the stand-in instead of a network."""


def mixed_objects(samples: Path, folder: Path, count: int = 50) -> list[Path]:
    """Write images with UIDs of their own, made from the samples in turn.

    Args:
        samples: folder of DICOM samples, files of it only.
        folder: where to write.
        count: how many.
    """
    folder.mkdir(parents=True)
    kinds = sorted(path for path in samples.glob("*.dcm"))
    made = []
    for number in range(count):
        dataset: Any = pydicom.dcmread(kinds[number % len(kinds)])
        seed = [f"image {number}"]
        dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*seed, "study"])
        dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*seed, "series"])
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*seed, "object"])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.PatientName, dataset.PatientID = f"Planted^Name{number}", f"PLANTED{number}"
        made.append(folder / f"{number:02}.dcm")
        made[-1].write_bytes(as_bytes(dataset))
    return made


def without_meta(content: bytes) -> bytes:
    """Return a DICOM file from behind its file meta, which every PACS writes with its own name in it."""
    handle = io.BytesIO(content)
    read_partial(handle, stop_when=lambda *_: True)
    return content[handle.tell() :]


def segmentations(output: Path) -> dict[str, bytes]:
    """Return the segmentations of a result folder by their UIDs, each without its file meta."""
    found = {}
    for entry in read_manifest(output).entries:
        for each in entry.outputs:
            if each.kind == "seg":
                content = (output / each.path).read_bytes()
                header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
                found[str(header.SOPInstanceUID)] = without_meta(content)
    return found


def accepted_lines(output: Path) -> list[str]:
    """Return the path of each object that a PACS has accepted, once for each line."""
    path = output / "deliveries.jsonl"
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [each["path"] for each in map(json.loads, lines) if each["state"] == "accepted"]
