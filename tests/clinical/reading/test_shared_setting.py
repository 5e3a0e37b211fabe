"""Settings of the whole process stay as they are wanted while blocks of several threads overlap."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest
from pydicom import config

from msrf_monai.clinical.reading.quiet import quiet_pydicom
from msrf_monai.clinical.shared_setting import SharedSetting
from msrf_monai.clinical.writing.tolerance import guarded, without_validation

Block = Callable[[], AbstractContextManager[None]]


def writing() -> AbstractContextManager[None]:
    return guarded("write")


@pytest.mark.parametrize("first", [quiet_pydicom, without_validation, writing], ids=["reading", "checking", "writing"])
@pytest.mark.parametrize("second", [quiet_pydicom, without_validation, writing], ids=["reading", "checking", "writing"])
def test_a_block_keeps_its_settings_when_one_of_another_thread_ends(first: Block, second: Block) -> None:
    """The first begins, the second begins, the first ends: the second must still be undisturbed, and all ends well."""
    has_begun, may_end = threading.Event(), threading.Event()

    def other() -> None:
        with first():
            has_begun.set()
            may_end.wait(10)

    before = config.settings.reading_validation_mode, logging.getLogger("highdicom").level, list(warnings.filters)
    thread = threading.Thread(target=other)
    thread.start()
    has_begun.wait(10)
    with second():
        may_end.set()
        thread.join(10)
        assert config.settings.reading_validation_mode == config.IGNORE
        if second is writing:
            assert logging.getLogger("highdicom").level == logging.ERROR
    after = config.settings.reading_validation_mode, logging.getLogger("highdicom").level, list(warnings.filters)

    assert after == before


def test_the_first_block_sets_and_the_last_puts_back() -> None:
    changes: list[str] = []

    def change(undo: ExitStack) -> None:
        changes.append("set")
        undo.callback(changes.append, "put back")

    setting = SharedSetting(change)
    for _ in range(2):
        with setting.held(), setting.held():
            assert changes[-1] == "set"

    assert changes == ["set", "put back"] * 2


def test_it_is_put_back_after_an_error() -> None:
    before = config.settings.reading_validation_mode

    with pytest.raises(KeyError), without_validation():
        raise KeyError("x")

    assert config.settings.reading_validation_mode == before
