"""Who does what next, and what becomes of what a worker had in work when it died; without any process."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from msrf_monai.clinical.execution.dispatch import Dispatch
from msrf_monai.clinical.inputs import PlannedInput

Held = dict[str, PlannedInput]


def plan(count: int, *, slides: tuple[int, ...] = ()) -> list[PlannedInput]:
    return [PlannedInput((f"/{number}",), folder=f"f{number}", is_slide=number in slides) for number in range(count)]


def fill(work: Dispatch, held: Held) -> list[str]:
    """Give a worker what it has room for, and return its names."""
    while (planned := work.take(held)) is not None:
        held[planned.folder] = planned
    return list(held)


def test_a_worker_gets_a_few_inputs_in_the_order_of_the_plan() -> None:
    given = plan(100)
    work = Dispatch(given, suspects=(), window=4, workers=2)

    assert fill(work, {}) == ["f0", "f1", "f2", "f3"]
    assert fill(work, {}) == ["f4", "f5", "f6", "f7"]
    assert (work.unfinished, len(given)) == (100, 92)


def test_towards_the_end_the_first_worker_leaves_its_share_to_the_others() -> None:
    work = Dispatch(plan(5), suspects=(), window=8, workers=2)

    assert fill(work, {}) == ["f0", "f1", "f2"]
    assert fill(work, {}) == ["f3", "f4"]


def test_a_slide_keeps_a_worker_busy_by_itself() -> None:
    work = Dispatch(plan(20, slides=(1,)), suspects=(), window=4, workers=2)
    first: Held = {}

    assert fill(work, first) == ["f0", "f1"]
    work.finished(first.popitem()[0])
    assert fill(work, first) == ["f0", "f2", "f3", "f4"]


def test_what_a_dead_worker_had_in_work_is_done_one_at_a_time_alone() -> None:
    work = Dispatch(plan(9), suspects=(), window=3, workers=1)
    held: Held = {}
    fill(work, held)

    assert work.died(held) == []

    for name in ("f0", "f1", "f2"):
        alone: Held = {}
        assert fill(work, alone) == [name]
        work.finished(name)
    assert fill(work, {}) == ["f3", "f4", "f5"]


def test_a_worker_that_still_has_something_gets_no_suspect() -> None:
    work = Dispatch(plan(9), suspects=("f8",), window=3, workers=2)
    busy = {"x": PlannedInput(("/x",), folder="x")}

    assert fill(work, busy) == ["x", "f0", "f1"]
    assert fill(work, {}) == ["f8"]


def test_an_input_alone_in_two_workers_that_die_is_the_culprit() -> None:
    work = Dispatch(plan(3), suspects=(), window=3, workers=1)
    held: Held = {}
    fill(work, held)
    work.died(held)
    first: Held = {}
    fill(work, first)

    assert work.died(first) == []
    ends = []
    for _ in range(3):
        held = {}
        (name,) = fill(work, held)
        if name == "f0":
            ends = work.died(held)
        work.finished(name)

    assert [each.folder for each in ends] == ["f0"]
    assert work.unfinished == 0


@pytest.mark.parametrize("seed", range(20))
def test_every_input_is_finished_once_whatever_dies_when(seed: int) -> None:
    """A simulation: workers die at random and of poison; nothing is lost or doubled, and only poison is blamed."""
    generator = random.Random(seed)
    count, workers = generator.randrange(1, 60), generator.randrange(1, 5)
    poison = {f"f{number}" for number in range(count) if generator.random() < 0.1}
    work = Dispatch(plan(count), suspects={"f1"}, window=generator.randrange(1, 9), workers=workers)
    hands: list[Held] = [{} for _ in range(workers)]
    ends: Counter[str] = Counter()
    blamed: set[str] = set()
    while work.unfinished:
        held = generator.choice(hands)
        fill(work, held)
        if not held:
            continue
        name = next(iter(held))
        # a worker that is killed from outside has several in work here, so that nobody innocent is ever alone twice
        if name in poison or (len(held) > 1 and generator.random() < 0.1):
            for culprit in work.died(held):
                blamed.add(culprit.folder)
                ends[culprit.folder] += 1
                work.finished(culprit.folder)
            held.clear()
        else:
            del held[name]
            ends[name] += 1
            work.finished(name)

    assert ends == Counter(f"f{number}" for number in range(count))
    assert blamed == poison
