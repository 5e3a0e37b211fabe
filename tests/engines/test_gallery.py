"""The gallery of predictions: the right images, upright, with outlines where they belong."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from PIL import Image

from msrf_monai.engines import GalleryCase, PredictionGallery, draw_gallery
from msrf_monai.engines.gallery import _picture, _shortened
from msrf_monai.errors import ConfigError

GREEN, YELLOW = (0, 230, 64), (255, 196, 0)


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def _case(score: float, name: str = "a.png") -> GalleryCase:
    truth, prediction = np.zeros((20, 40), bool), np.zeros((20, 40), bool)
    truth[2:8, 3:15] = True
    prediction[12:18, 25:37] = True
    return GalleryCase(name, score, np.full((20, 40, 3), 90, np.uint8), truth, prediction)


def test_outlines_stand_where_the_masks_are(tmp_path: Path) -> None:
    draw_gallery([_case(0.5)], tmp_path / "g.png", columns=1, size_px=160)  # enlarged 4 times: 160 wide, 80 high
    pixels = _pixels(tmp_path / "g.png")[28:, 6:]  # below the header, right of the margin
    top = (160 - 80) // 2
    for colour, rows, columns in ((GREEN, (2, 8), (3, 15)), (YELLOW, (12, 18), (25, 37))):
        found_rows, found_columns = np.nonzero((pixels == colour).all(-1))
        assert (found_rows.min(), found_rows.max()) == (top + 4 * rows[0], top + 4 * rows[1] - 1)
        assert (found_columns.min(), found_columns.max()) == (4 * columns[0], 4 * columns[1] - 1)


def test_pictures_are_upright_in_colour_and_without_the_edge_channel() -> None:
    image = torch.zeros(4, 5, 3)  # (C, columns, rows), the fourth channel is an edge map
    image[0, 4, 0] = 1.0  # red in the upper right corner
    image[3] = 1.0
    picture = _picture(image)
    assert picture.shape == (3, 5, 3)
    assert picture[0, 4].tolist() == [255, 0, 0]
    assert picture.sum() == 255


def test_grey_and_standardised_images_are_shown_in_their_range() -> None:
    grey = _picture(torch.tensor([[[-2.0, 2.0], [0.0, 2.0]]]))
    assert grey[..., 0].tolist() == [[0, 128], [255, 255]]
    assert (grey == grey[..., :1]).all()


def _evaluate(handler: PredictionGallery, dice_like: list[int], *, is_best: bool = True, key: str | None = "d") -> None:
    """Run an evaluator's events over images whose prediction covers some of the 8 columns of the truth."""
    label = torch.zeros(1, 16, 24)
    label[:, :8] = 1

    def step(engine: Engine, covered: int) -> list[dict[str, torch.Tensor]]:
        pred = torch.zeros(1, 16, 24)
        pred[:, :covered] = 1
        image = MetaTensor(torch.rand(4, 16, 24), meta={"filename_or_obj": f"/x/c{covered}.png"})
        engine.state.batch = [{"image": image}]
        return [{"image": image, "pred": pred, "label": label}]

    engine = Engine(step)
    engine.state.key_metric_name = key
    engine.state.best_metric_epoch = 1 if is_best else 0
    handler.attach(engine)
    engine.run(dice_like)


def test_the_gallery_goes_from_the_worst_to_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[GalleryCase]] = []
    monkeypatch.setattr("msrf_monai.engines.gallery.draw_gallery", lambda cases, path, **_: drawn.append(list(cases)))
    _evaluate(PredictionGallery(str(tmp_path), count=3), [8, 1, 4, 2, 6])
    assert [case.name for case in drawn[0]] == ["c1.png", "c4.png", "c8.png"]
    assert [case.score for case in drawn[0]] == pytest.approx([2 / 9, 2 / 3, 1.0])
    assert drawn[0][0].truth.shape == (24, 16)


def test_the_failures_are_the_images_with_the_lowest_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, list[str]] = {}

    def draw(cases: list[GalleryCase], path: Path, **_: int) -> None:
        drawn[path.name] = [case.name for case in cases]

    monkeypatch.setattr("msrf_monai.engines.gallery.draw_gallery", draw)
    _evaluate(PredictionGallery(str(tmp_path), count=2, failures=3), [8, 1, 4, 2, 6])
    assert drawn == {"gallery.png": ["c1.png", "c8.png"], "failures.png": ["c1.png", "c2.png", "c4.png"]}
    _evaluate(PredictionGallery(str(tmp_path), max_cases=2, failures=1), [8, 6, 4, 2])  # a late one is found too
    assert drawn == {"gallery.png": ["c6.png", "c8.png"], "failures.png": ["c2.png"]}


def test_only_the_best_validation_or_a_lone_evaluation_is_drawn(tmp_path: Path) -> None:
    gallery = PredictionGallery(str(tmp_path))
    _evaluate(gallery, [1, 2], is_best=False)
    assert not (tmp_path / "gallery.png").exists()
    _evaluate(gallery, [1, 2], is_best=False, key=None)
    assert (tmp_path / "gallery.png").exists()


def test_memory_is_bounded_by_the_first_cases_and_by_thinning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[GalleryCase]] = []
    monkeypatch.setattr("msrf_monai.engines.gallery.draw_gallery", lambda cases, path, **_: drawn.append(list(cases)))
    _evaluate(PredictionGallery(str(tmp_path), max_cases=2), [8, 1, 4])
    assert {case.name for case in drawn[0]} == {"c8.png", "c1.png"}
    handler = PredictionGallery(str(tmp_path), size_px=16)
    item = {"image": torch.rand(3, 160, 100), "label": torch.ones(1, 160, 100), "pred": torch.ones(1, 160, 100)}
    case = handler._case(item, "x")
    assert case.picture.shape == (10, 16, 3)  # every tenth pixel
    assert case.truth.shape == case.prediction.shape == (10, 16)


def test_it_works_in_a_training(tmp_path: Path, job: ModuleType) -> None:
    run = job.build(tmp_path, epochs=1, validation_handlers=[PredictionGallery(str(tmp_path))])
    run["trainer"].run()
    pixels = _pixels(tmp_path / "gallery.png")
    assert (pixels == GREEN).all(-1).sum() > 100


def test_other_ranks_draw_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ignite.distributed.get_rank", lambda: 1)
    _evaluate(PredictionGallery(str(tmp_path)), [1])
    assert not list(tmp_path.iterdir())


def test_long_names_are_shortened() -> None:
    assert _shortened("abcdef", 6) == "abcdef"
    assert _shortened("abcdefg", 6) == "abcde…"


def test_empty_galleries_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a gallery needs"):
        draw_gallery([], tmp_path / "g.png")
    with pytest.raises(ConfigError, match="a gallery needs"):
        PredictionGallery(str(tmp_path), count=0)
    with pytest.raises(ConfigError, match="failures of 0 or more"):
        PredictionGallery(str(tmp_path), failures=-1)
    with pytest.raises(ConfigError, match="name of the picture of failures"):
        PredictionGallery(str(tmp_path), failures=1, filename="failures.png")


def test_an_evaluation_without_images_draws_nothing(tmp_path: Path) -> None:
    engine = Engine(lambda engine, batch: [])
    engine.state.key_metric_name = None
    gallery = PredictionGallery(str(tmp_path))
    gallery.attach(engine)
    engine.fire_event(Events.EPOCH_COMPLETED)
    assert not list(tmp_path.iterdir())
