"""Overlap of reading, predicting and writing: ahead, in order, and never more than a few steps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from msrf_monai.clinical.execution.overlap import Backlog, ahead_of


def test_results_come_in_order_while_the_next_ones_are_made() -> None:
    started = [threading.Event() for _ in range(4)]

    def work(number: int) -> int:
        started[number].set()
        return number * number

    with ThreadPoolExecutor(1) as pool:
        results = ahead_of(pool, work, range(4), 2)
        assert next(results) == 0
        # the second one is made although nobody has asked for it yet
        assert started[1].wait(10)
        assert list(results) == [1, 4, 9]


def test_no_more_is_taken_than_there_is_room_for() -> None:
    taken: list[int] = []

    def items() -> object:
        for number in range(100):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = ahead_of(pool, lambda number: number, items(), 3)
        for number in range(10):
            assert next(results) == number
            assert len(taken) <= number + 3
        results.close()
    assert len(taken) <= 13


def test_an_error_is_raised_in_its_turn() -> None:
    def work(number: int) -> int:
        return 6 // (2 - number)

    with ThreadPoolExecutor(1) as pool:
        results = ahead_of(pool, work, range(4), 2)
        assert [next(results), next(results)] == [3, 6]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_work_that_is_handed_over_waits_for_room() -> None:
    gate, done = threading.Event(), []

    def slow() -> None:
        gate.wait(10)
        done.append(len(done))

    with ThreadPoolExecutor(1) as pool:
        backlog = Backlog(pool, 2)
        backlog.add(slow)
        backlog.add(slow)
        opener = threading.Timer(0.05, gate.set)
        opener.start()
        backlog.add(slow)
        assert done, "the third piece was taken before the first was finished"
        backlog.finish()
    assert len(done) == 3


def test_an_error_of_earlier_work_is_raised_to_who_hands_over_more() -> None:
    def fail() -> None:
        raise OSError("full")

    with ThreadPoolExecutor(1) as pool:
        backlog = Backlog(pool, 1)
        backlog.add(fail)
        with pytest.raises(OSError, match="full"):
            backlog.add(fail)
        backlog.call_off()


def test_work_that_has_not_begun_is_called_off() -> None:
    gate, running, done = threading.Event(), threading.Event(), []

    def slow() -> None:
        running.set()
        gate.wait(10)
        done.append(1)

    with ThreadPoolExecutor(1) as pool:
        backlog = Backlog(pool, 3)
        for _ in range(3):
            backlog.add(slow)
        running.wait(10)
        opener = threading.Timer(0.05, gate.set)
        opener.start()
        backlog.call_off()
    assert done == [1]
