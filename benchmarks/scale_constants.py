"""What each input costs the process that hands out the work: the constants of the calculation in ``docs/scaling.md``.

No network and no worker is here, only what that process does itself and what therefore grows with the number of inputs:
planning (pictures and DICOM images), what planned inputs take of memory, the manifest (size of a line, adding one,
reading it again, memory of what is known of it), the list of sources, ``summary.csv`` and ``report.html``.

Times are CPU time, which other programs on the machine disturb less, but for the syncs, which are waited for.

Run:
    python benchmarks/scale_constants.py [--inputs 10000]
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from clinical_pipeline import draw_pictures
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from msrf_monai.clinical.inputs import InputOptions, plan_inputs
from msrf_monai.clinical.ledger import MANIFEST, Entry, Header, Ledger, OutputRecord, open_manifest
from msrf_monai.clinical.line_file import LineFile
from msrf_monai.clinical.report import write_report
from msrf_monai.clinical.sources import SOURCES, SourceList
from msrf_monai.clinical.summary import write_summary

SYNCS = 200


def main() -> None:
    """Measure everything once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10000)
    number = parser.parse_args().inputs
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_pictures(folder / "pictures", number, rows=48, columns=64)
        save_dicom(folder / "dicom", number)
        for kind in ("pictures", "dicom"):
            plan, seconds, size = costs(lambda kind=kind: plan_inputs([folder / kind], InputOptions()))
            print(f"planning {kind}: {1e6 * seconds / number:.0f} µs and {size / number:.0f} bytes of memory an input")
        report_sync(folder)
        os.fsync = lambda descriptor: None
        report_results(folder, plan[:number])


def report_sync(folder: Path) -> None:
    """Print how long a line takes to come to the disk."""
    with LineFile(folder / "lines") as lines:
        began = time.perf_counter()
        for _ in range(SYNCS):
            lines.append(b"x" * 600)
        print(f"a line and its sync: {1e3 * (time.perf_counter() - began) / SYNCS:.2f} ms")


def report_results(folder: Path, plan: list[Any]) -> None:
    """Print what a manifest and what is made of it cost; the disk is not waited for."""
    output = folder / "out"
    output.mkdir()
    header = Header("bundle", "1.0", "ab" * 32, "cd" * 32)
    entries = [entry_of(each.folder) for each in plan]
    number = len(entries)
    with Ledger(output, header) as ledger:
        began = time.process_time()
        for entry in entries:
            ledger.append(entry)
        print(f"adding a line of the manifest: {1e6 * (time.process_time() - began) / number:.0f} µs")
    size = (output / MANIFEST).stat().st_size
    ledger, seconds, memory = costs(lambda: Ledger(output, header))
    ledger.close()
    print(f"a line of the manifest: {size / number:.0f} bytes, {1e6 * seconds / number:.0f} µs to read, ", end="")
    print(f"{memory / number:.0f} bytes of memory")
    with SourceList(output) as sources:
        for each in plan:
            sources.add(each.folder, each.paths)
    size = (output / SOURCES).stat().st_size
    sources, seconds, memory = costs(lambda: SourceList(output))
    sources.close()
    print(
        f"a line of the list of sources: {size / number:.0f} bytes, {1e6 * seconds / number:.0f} µs to read, ", end=""
    )
    print(f"{memory / number:.0f} bytes of memory")
    with open_manifest(output) as manifest:
        _, seconds, _ = costs(lambda: sum(1 for _ in manifest.in_order()))
        print(f"sorting the manifest: {1e6 * seconds / number:.0f} µs a line")
    for write in (write_summary, write_report):
        path, seconds, memory = costs(lambda write=write: write(output), peak=True)
        print(
            f"{path.name} of {number} inputs without statistics: {path.stat().st_size / 1e3:.0f} kB, "
            f"{1e6 * seconds / number:.0f} µs and {memory / number:.0f} bytes of memory an input"
        )


def costs(make: Callable[[], Any], *, peak: bool = False) -> tuple[Any, float, int]:
    """Return what is made, the CPU time of making it, and the memory that it takes, or that making it took."""
    began = time.process_time()
    made = make()
    seconds = time.process_time() - began
    del made
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[1 if peak else 0]
    tracemalloc.stop()
    return made, seconds, size


def entry_of(folder: str) -> Entry:
    """Return a line as a run writes it."""
    outputs = tuple(
        OutputRecord(kind, f"{folder}/{name}", "ef" * 32, 4321)
        for kind, name in (("mask", "mask.png"), ("stats", "stats.json"), ("thumbnail", "thumbnail.png"))
    )
    timings = {"read": 0.0123, "predict": 0.1234, "write": 0.0123}
    return Entry(folder, folder, "ab" * 32, "done", outputs=outputs, timings=timings, frames=1)


def save_dicom(folder: Path, number: int) -> None:
    """Write small DICOM images, all different, that are no slices of a volume."""
    from highdicom.sc import SCImage

    folder.mkdir()
    pixels = np.zeros((48, 64), np.uint8)
    image = SCImage(
        pixels,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=generate_uid(),
        series_instance_uid=generate_uid(),
        series_number=1,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="none",
        patient_orientation=("L", "P"),
    )
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for index in range(number):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"2.25.{index + 1}"
        image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        image.save_as(folder / f"{index:06}.dcm", enforce_file_format=True)


if __name__ == "__main__":
    sys.exit(main())
