"""The bar that people watch while a run goes on."""

from __future__ import annotations

import io

from tqdm import tqdm

from msrf_monai.cli.running import Watch
from msrf_monai.clinical.ledger import Entry


def entry(state: str = "done", frames: int = 1) -> Entry:
    return Entry("a.png", "a", "d" * 64, state, frames=frames)  # type: ignore[arg-type]


def test_the_bar_counts_images_and_says_how_long_it_will_take() -> None:
    screen = io.StringIO()
    with tqdm(unit=" images", file=screen, mininterval=0, miniters=1) as bar:
        watch = Watch(bar, quiet=True)
        watch.begin(4, 8)
        watch.ended(entry(frames=3), 3, True)
        watch.ended(entry(), 1, False)

    last = screen.getvalue().split("\r")[-1]
    assert "4/8" in last
    # time gone by, and time left
    assert "<" in last
    assert " images/s" in last or "s/ images" in last


def test_a_clip_whose_frames_nobody_knew_before_makes_the_total_larger() -> None:
    with tqdm(file=io.StringIO()) as bar:
        watch = Watch(bar, quiet=True)
        watch.begin(2, 2)
        watch.ended(entry(frames=10), 1, True)

        assert (bar.n, bar.total) == (10, 11)


def test_batch_after_batch_adds_up_where_nobody_knows_how_many_come() -> None:
    with tqdm(file=io.StringIO()) as bar:
        watch = Watch(bar, quiet=True, is_endless=True)
        for _ in range(2):
            watch.begin(1, 3)
            watch.ended(entry(frames=3), 3, True)

        assert (bar.n, bar.total) == (6, 6)
