"""A slide as a whole: statistics, decisions, errors on the way, and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from msrf_monai.clinical.reading import RefusedInput
from msrf_monai.clinical.slides import PyramidSink, TileOptions, decide, open_slide, predict_slide
from msrf_monai.clinical.slides.ahead import read_ahead
from msrf_monai.errors import InputError
from support.slide_files import APERIO, ArraySink, halved, names, predicted, stain, stained, write_tiff

PICTURE = stained(301, 437)


@pytest.fixture
def svs(tmp_path: Path) -> Path:
    """A slide of three levels at 0.25 micrometres per pixel."""
    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO)
    return tmp_path / "a.svs"


def test_statistics_are_those_of_the_whole_picture(svs: Path) -> None:
    sink, result = predicted(svs, TileOptions(tile=(96, 128), skip_background=False, threshold=0.6))

    certain = stain(PICTURE[None])[0, 0]
    np.testing.assert_array_equal(sink.mask, certain >= np.float32(0.6))
    assert result.pixels == (int(sink.mask.sum()),)
    assert result.areas_mm2 == pytest.approx((sink.mask.sum() * 0.0625e-6,))
    assert result.confidence == pytest.approx(np.maximum(certain, 1 - certain).mean(), abs=1e-6)
    assert (result.windows, result.skipped) == (4 * 5, 0)
    assert result.seconds > 0
    assert sink.ended == "finished"


def test_areas_are_unknown_without_a_resolution(tmp_path: Path) -> None:
    write_tiff(tmp_path / "a.tif", PICTURE)

    _, result = predicted(tmp_path / "a.tif", TileOptions(tile=(96, 128)))

    assert result.areas_mm2 is None
    assert result.pixels[0] > 0


def test_decision_takes_the_most_probable_and_counts_the_background() -> None:
    probabilities = np.array([[[0.2, 0.5, 0.1, 0.3]], [[0.3, 0.1, 0.8, 0.3]]], dtype=np.float32)

    mask, certainty = decide(probabilities)

    np.testing.assert_array_equal(mask, [[0, 1, 2, 0]])
    np.testing.assert_allclose(certainty, [[0.5, 0.5, 0.8, 0.4]], atol=1e-6)
    np.testing.assert_array_equal(decide(probabilities, 0.3)[0], [[2, 1, 2, 1]])
    np.testing.assert_array_equal(decide(probabilities[:1], 0.3)[0], [[0, 1, 0, 1]])


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda windows: windows[..., 0], "the network gave"),
        (lambda windows: stain(windows)[:, :, 1:], "the network gave"),
        (lambda windows: (stain(windows) * 9).astype(np.uint8), "the network gave"),
        (lambda windows: stain(windows) - 1, "outside of 0..1"),
        (lambda windows: stain(windows) * np.float32("nan"), "outside of 0..1"),
    ],
    ids=["no-classes", "cropped", "whole-numbers", "negative", "nan"],
)
def test_network_that_gives_no_probabilities_is_an_error(svs: Path, network, words: str) -> None:
    sink = ArraySink()

    with open_slide(svs) as slide, pytest.raises(InputError, match=words):
        predict_slide(slide, network, sink, TileOptions(tile=(96, 128)))
    assert sink.ended == "aborted"


def test_number_of_classes_may_not_change_on_the_way(svs: Path) -> None:
    def growing(windows: np.ndarray, calls: list[int] = []) -> np.ndarray:  # noqa: B006
        calls.append(1)
        return np.repeat(stain(windows), len(calls), axis=1) / 10

    with pytest.raises(InputError, match="as many classes each time"):
        predicted(svs, TileOptions(tile=(96, 128)), growing)


def test_failing_network_leaves_no_file_and_no_thread(svs: Path, tmp_path: Path) -> None:
    def failing(windows: np.ndarray) -> np.ndarray:
        raise RuntimeError("out of memory")

    with open_slide(svs) as slide, pytest.raises(RuntimeError, match="out of memory"):
        predict_slide(slide, failing, PyramidSink(tmp_path / "m.tif"), TileOptions(tile=(96, 128)))
    assert names(tmp_path) == ["a.svs"]
    assert [thread for thread in threading.enumerate() if thread.name == "read-ahead"] == []


def test_damaged_tile_in_the_middle_aborts_the_result(tmp_path: Path) -> None:
    import tifffile

    write_tiff(tmp_path / "a.svs", PICTURE, description=APERIO, compression="jpeg", tile=(64, 64))
    with tifffile.TiffFile(tmp_path / "a.svs") as file:
        place = file.pages[0].dataoffsets[17]
    data = bytearray((tmp_path / "a.svs").read_bytes())
    data[place : place + 4] = b"\0\0\0\0"
    (tmp_path / "a.svs").write_bytes(data)
    sink = ArraySink()

    with open_slide(tmp_path / "a.svs") as slide, pytest.raises(RefusedInput, match="decode_failed"):
        predict_slide(slide, stain, sink, TileOptions(tile=(96, 128), skip_background=False))
    assert sink.ended == "aborted"


def test_slide_that_changes_on_the_way_is_not_kept(svs: Path) -> None:
    def touching(windows: np.ndarray) -> np.ndarray:
        os.utime(svs, ns=(1, 1))
        return stain(windows)

    with pytest.raises(RefusedInput, match="changed"):
        predicted(svs, TileOptions(tile=(96, 128)), touching)


def test_progress_counts_up_to_the_windows_that_are_predicted(svs: Path) -> None:
    seen: list[tuple[int, int]] = []
    sink = ArraySink()
    with open_slide(svs) as slide:
        result = predict_slide(
            slide, stain, sink, TileOptions(tile=(32, 48)), progress=lambda done, total: seen.append((done, total))
        )

    kept = result.windows - result.skipped
    assert seen[-1] == (kept, kept)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_each_stored_tile_is_decoded_once_though_windows_overlap(svs: Path) -> None:
    decoded = []
    with open_slide(svs) as slide:
        tiles = slide._pixels[0]
        plain = tiles.tile
        tiles.tile = lambda row, column: (decoded.append((row, column)), plain(row, column))[1]  # type: ignore
        predict_slide(slide, stain, ArraySink(), TileOptions(tile=(96, 128), skip_background=False))

    assert sorted(decoded) == [(row, column) for row in range(5) for column in range(5)]


def test_reading_ahead_keeps_the_order_and_gives_errors_in_their_turn() -> None:
    def items() -> Iterator[int]:
        yield from range(7)
        raise KeyError("last")

    with read_ahead(items()) as ahead:
        assert [next(ahead) for _ in range(7)] == list(range(7))
        with pytest.raises(KeyError, match="last"):
            next(ahead)
    with read_ahead(iter(range(3))) as ahead:
        assert list(ahead) == [0, 1, 2]


MEASURE = """
    import sys
    from pathlib import Path
    import numpy as np
    from msrf_monai.clinical.slides import PyramidSink, TileOptions, open_slide, predict_slide
    from support.slide_files import stain
    source = Path(sys.argv[1])
    with open_slide(source) as slide:
        predict_slide(slide, stain, PyramidSink(source.with_suffix(".ome.tif"), tile=256), TileOptions(tile=(256, 256)))
    # of this program alone: getrusage counts from before exec
    (peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    print(peak)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_does_not_grow_with_the_height_of_the_slide(tmp_path: Path, repository: Path) -> None:
    row = np.tile(halved(stained(512, 1024)), (1, 4, 1))
    peaks = []
    for times in (8, 32):
        picture = np.tile(row, (times, 1, 1))
        path = tmp_path / f"{times}.tif"
        write_tiff(path, picture, levels=3, tile=(256, 256), compression="jpeg", bigtiff=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(repository), str(repository / "tests")])}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(MEASURE), str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        peaks.append(int(done.stdout) / 1024)

    # the whole mask of the taller one would have 48 MiB more, its picture 144 MiB, its probabilities 192 MiB
    assert peaks[1] - peaks[0] < 24, peaks
