"""Attempts with back-off: how long they wait, what ends them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from msrf_monai.clinical.pacs.retry import Backoff, persistent
from msrf_monai.errors import ConfigError, PacsError


class Clock:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def failing(times: int, *, is_lasting: bool = False) -> Callable[[], int]:
    """A call that fails so many times; afterwards it returns how often it was called."""
    calls = 0

    def call() -> int:
        nonlocal calls
        calls += 1
        if calls <= times:
            raise PacsError(f"failure {calls}", is_lasting=is_lasting)
        return calls

    return call


def test_what_works_is_called_once() -> None:
    clock = Clock()

    assert persistent(failing(0), Backoff(), clock=clock, sleep=clock.sleep) == 1
    assert clock.waits == []


def test_waits_double_up_to_the_longest_with_jitter() -> None:
    clock = Clock()

    calls = persistent(failing(8), Backoff(1, 2, 20, 1000), clock=clock, sleep=clock.sleep)

    assert calls == 9
    turns = [1, 2, 4, 8, 16, 20, 20, 20]
    assert all(turn / 2 <= wait <= turn for wait, turn in zip(clock.waits, turns, strict=True))
    assert len({wait / turn for wait, turn in zip(clock.waits, turns, strict=True)}) == 8


def test_giving_up_raises_the_last_error_when_time_is_over_and_not_before() -> None:
    clock = Clock()

    with pytest.raises(PacsError, match="failure") as caught:
        persistent(failing(10**6), Backoff(1, 2, 10, 100), clock=clock, sleep=clock.sleep)

    assert clock.now == pytest.approx(1100)
    assert str(caught.value) == f"failure {len(clock.waits) + 1}"


def test_no_time_at_all_is_one_attempt() -> None:
    clock = Clock()

    with pytest.raises(PacsError, match="failure 1"):
        persistent(failing(1), Backoff(give_up_after=0), clock=clock, sleep=clock.sleep)
    assert clock.waits == []


def test_a_lasting_error_is_not_tried_again() -> None:
    clock = Clock()

    with pytest.raises(PacsError, match="failure 1"):
        persistent(failing(1, is_lasting=True), Backoff(), clock=clock, sleep=clock.sleep)
    assert clock.waits == []


def test_other_errors_are_not_caught() -> None:
    with pytest.raises(ZeroDivisionError):
        persistent(lambda: 1 // 0, Backoff())


def test_stop_ends_a_wait_at_once() -> None:
    stop = threading.Event()
    caught: list[PacsError] = []

    def work() -> None:
        try:
            persistent(failing(10**6), Backoff(3600, 1, 3600, 10**6), stop=stop)
        except PacsError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.05)
    stop.set()
    thread.join(60)

    assert [str(error) for error in caught] == ["failure 1"]


def test_after_stop_there_is_no_second_attempt() -> None:
    stop = threading.Event()
    stop.set()

    with pytest.raises(PacsError, match="failure 1"):
        persistent(failing(5), Backoff(first=0), stop=stop)


def test_a_very_long_outage_does_not_overflow() -> None:
    assert 30 <= Backoff(1.0, 10.0, 60.0).wait(100_000) <= 60


@pytest.mark.parametrize("options", [{"first": -1}, {"factor": 0.5}, {"longest": float("nan")}, {"give_up_after": -1}])
def test_times_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Backoff(**options)
