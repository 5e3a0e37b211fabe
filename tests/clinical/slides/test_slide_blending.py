"""Blending band by band gives what MONAI's sliding window gives on the whole picture."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.inferers.utils import _get_scan_interval

from msrf_monai.clinical.slides import (
    RowBlender,
    TileOptions,
    open_slide,
    predict_slide,
    window_starts,
    window_weights,
)
from msrf_monai.clinical.slides.predict import _Run
from msrf_monai.clinical.slides.tiles import plan_tiles
from msrf_monai.errors import ConfigError, InputError
from support.slide_files import ArraySink, stained, write_tiff


def edged(windows: np.ndarray) -> np.ndarray:
    """A network that knows where in the window it is, so that every wrong weight shows."""
    ramp = np.linspace(0, 1, windows.shape[2], dtype=np.float32) * np.linspace(0.2, 1, windows.shape[1])[:, None]
    first = windows[..., 1].astype(np.float32) / 255 * ramp.astype(np.float32)
    second = (1 - first) * windows[..., 2].astype(np.float32) / 510
    return np.stack([first, second], axis=1)


def blended(path: Path, options: TileOptions) -> np.ndarray:
    """Return the probabilities that a slide is decided by."""
    kept = []
    with open_slide(path) as slide:
        plan = plan_tiles(slide, options)
        run = _Run(slide, plan, edged, ArraySink(), options, None)
        leave = run._blender.leave

        def keeping(top: int) -> Iterator[tuple]:
            kept.append(np.zeros((2, top - run._blender.top, plan.grid.columns), np.float32))
            for first, means, covered in leave(top):
                kept[-1][..., first : first + means.shape[2]] = means
                yield first, means, covered

        run._blender.leave = keeping  # type: ignore[method-assign]
        run.all_rows()
    return np.concatenate(kept, axis=1)


def by_monai(picture: np.ndarray, options: TileOptions) -> np.ndarray:
    """The same by MONAI, on the whole picture in memory."""

    def network(batch: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(edged(batch.permute(0, 2, 3, 1).numpy()))

    whole = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    done = sliding_window_inference(
        whole,
        options.tile,
        3,
        network,
        overlap=options.overlap,
        mode=options.blend,
        sigma_scale=options.sigma_scale,
        cval=255,
    )
    return done[0].numpy()  # type: ignore[union-attr, no-any-return, call-overload]


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [
        ((301, 437), (96, 128), 0.25),
        ((301, 437), (96, 128), 0.0),
        ((301, 437), (100, 70), 0.6),  # three windows over each other
        ((301, 437), (301, 437), 0.25),  # one window
        ((80, 437), (96, 128), 0.25),  # lower than a window
        ((301, 90), (96, 129), 0.5),  # narrower than a window
        ((61, 53), (96, 128), 0.25),  # both
        ((193, 256), (97, 128), 0.5),  # the last window fits, and does not
    ],
)
def test_bands_give_the_whole_picture_of_monai(
    tmp_path: Path,
    size: tuple[int, int],
    tile: tuple[int, int],
    overlap: float,
    blend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("msrf_monai.clinical.slides.blend._PIECE", 60)
    picture = stained(*size)
    write_tiff(tmp_path / "a.tif", picture, levels=1)
    options = TileOptions(tile=tile, overlap=overlap, blend=blend, skip_background=False)  # type: ignore[arg-type]

    found = blended(tmp_path / "a.tif", options)

    expected = by_monai(picture, options)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("length", "tile"), [(437, 96), (96, 96), (97, 96), (192, 96), (10_000, 512), (433, 97)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.77])
def test_windows_begin_where_monai_places_them(length: int, tile: int, overlap: float) -> None:
    interval = _get_scan_interval((length,), (tile,), 1, (overlap,))
    expected = [one[0].start for one in dense_patch_slices((length,), (tile,), interval)]

    assert list(window_starts(length, tile, overlap=overlap)) == expected


@pytest.mark.parametrize("halo", [0, 7, 30])
def test_windows_with_a_halo_leave_no_gap(halo: int) -> None:
    starts = window_starts(1000, 97, overlap=0.1, halo=halo)

    assert starts[0] == 0
    assert starts[-1] == 1000 - 97
    assert all(after + halo <= before + 97 - halo for before, after in pairwise(starts))


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("tile", [(64, 96), (33, 512)])
def test_weights_are_those_of_monai(tile: tuple[int, int], blend: str) -> None:
    expected = compute_importance_map(tile, mode=blend, sigma_scale=0.125).numpy()

    np.testing.assert_allclose(window_weights(tile, blend, 0.125), expected, rtol=1e-5)  # type: ignore[arg-type]


def test_halo_takes_each_pixel_from_windows_that_see_enough_around_it(tmp_path: Path) -> None:
    picture = stained(301, 437)
    write_tiff(tmp_path / "a.tif", picture, levels=1)

    def spoilt_edges(windows: np.ndarray) -> np.ndarray:
        good = windows[..., 1].astype(np.float32)[:, None] / 255
        good[..., :9, :] = good[..., -9:, :] = good[..., :9] = good[..., -9:] = 0.5
        return good

    sink = ArraySink()
    with open_slide(tmp_path / "a.tif") as slide:
        predict_slide(slide, spoilt_edges, sink, TileOptions(tile=(96, 128), halo=9, skip_background=False))

    inner = np.s_[9:-9, 9:-9]
    np.testing.assert_array_equal(sink.mask[inner], (picture[..., 1] / np.float32(255) >= 0.5)[inner])
    assert (sink.mask[:9] == 1).all()  # at the slide's own border there is nothing better than the window's edge


def test_window_out_of_its_band_is_an_error() -> None:
    blender = RowBlender((100, 50), (20, 20), window_weights((20, 20)))
    blender.add(0, 0, np.zeros((1, 20, 20), np.float32))
    list(blender.leave(15))

    with pytest.raises(InputError, match="rows 0 to 20 were added to the band of rows 15 to 35"):
        blender.add(0, 0, np.zeros((1, 20, 20), np.float32))


@pytest.mark.parametrize(
    "changes",
    [
        {"tile": (0, 5)},
        {"batch": 0},
        {"overlap": 1.0},
        {"overlap": -0.1},
        {"sigma_scale": 0},
        {"halo": 256},
        {"halo": -1},
        {"blend": "mean"},
        {"threshold": 1.0},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(changes: dict) -> None:
    with pytest.raises(ConfigError):
        TileOptions(**changes)
