"""Small files made to take for ever: each is read or refused within the processor time of one damaged input."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from clinical.fuzz.worker import SECONDS, open_all
from support.dicom_files import as_bytes, image_dataset, pattern


class OutOfTime(BaseException):
    """The input took too long; no ``except Exception`` keeps it."""


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def outcome(dataset: Any, tmp_path: Path) -> str:
    content = dataset if isinstance(dataset, bytes) else as_bytes(dataset)
    return open_all(tmp_path, "image.dcm", content).partition(":")[0]


def test_a_palette_that_repeats_nothing_ends(tmp_path: Path) -> None:
    # one entry, 65,000 segments of nothing, then segments that repeat all of these a thousand times
    nothing = np.zeros(2 * 65_000, np.uint16)
    again = np.tile(np.array([2, 65_000, 6, 0], np.uint16), 1_000)
    table = np.concatenate([np.array([0, 1, 5], np.uint16), nothing, again])
    dataset = image_dataset(pattern(), photometric="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(dataset, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(dataset, f"Segmented{colour}PaletteColorLookupTableData", table.tobytes())
    assert outcome(dataset, tmp_path) == "lut_failed"


def test_many_compressed_frames_are_found_in_one_pass(tmp_path: Path) -> None:
    dataset = image_dataset(np.zeros((2, 1, 2), np.uint8))
    dataset.compress(RLELossless, generate_instance_uid=False)
    frame = next(generate_frames(dataset.PixelData, number_of_frames=2))
    dataset.NumberOfFrames = 10_000
    dataset.PixelData = encapsulate([frame] * 10_000, has_bot=False)
    dataset["PixelData"].VR = "OB"
    assert outcome(dataset, tmp_path) == "read"


def test_many_frames_of_one_pixel_are_described_in_time(tmp_path: Path) -> None:
    assert outcome(image_dataset(np.zeros((10_000, 1, 2), np.uint8)), tmp_path) == "read"


@pytest.mark.parametrize(("depth", "expected"), [(50, "read"), (3_000, "unreadable")])
def test_sequences_within_sequences_come_to_an_end(tmp_path: Path, depth: int, expected: str) -> None:
    data = as_bytes(image_dataset(pattern()))
    begin = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    at = data.index(b"\x08\x00\x60\x00")
    assert outcome(data[:at] + begin * depth + end * depth + data[at:], tmp_path) == expected


def test_a_picture_of_many_pixels_behind_few_bytes_is_refused(tmp_path: Path) -> None:
    header = b"P5\n10001 10000\n255\n"
    assert outcome(header + bytes(100), tmp_path) == "too_many_pixels"
    smaller = header.replace(b"10001", b"10000")
    assert outcome(smaller + bytes(100), tmp_path) in ("truncated", "decode_failed")
