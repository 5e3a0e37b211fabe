"""Which sentence of a chain of exceptions reaches the user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset

from msrf_monai.bundle import install_error_line, is_bundle_program, sentence_of
from msrf_monai.errors import DataError, MsrfError


def fail(item: object = None) -> None:
    """Stand for anything of the package that meets bad input; at module level, for worker processes."""
    raise DataError("mask.png is empty;\n export it again")


def _raised(action: object) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        action()  # type: ignore[operator]
    return caught.value


@pytest.fixture
def hooks() -> Iterator[None]:
    """Put the interpreter's hooks back after the test."""
    hook, factory = sys.excepthook, logging.getLogRecordFactory()
    yield
    sys.excepthook = hook
    logging.setLogRecordFactory(factory)


@pytest.mark.parametrize(
    "config",
    [{"a": "$msrf.fail()", "i": f"$import {__name__} as msrf"}, {"a": {"_target_": f"{__name__}.fail"}}],
    ids=["expression", "component"],
)
def test_sentence_is_found_below_monai_wrappers(config: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__, type(sys)(__name__)))
    monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)

    error = _raised(lambda: ConfigParser(config).get_parsed_content("a"))

    assert not isinstance(error, MsrfError)
    assert sentence_of(error) == "mask.png is empty; export it again"


def test_sentence_is_found_in_the_text_of_a_worker_process() -> None:
    loader = DataLoader(Dataset([1, 2], transform=_one_line_failure), num_workers=1)

    error = _raised(lambda: list(loader))

    assert sentence_of(error) == "mask.png is empty; export it again"


def _one_line_failure(item: object) -> None:
    raise DataError("mask.png is empty; export it again")


def test_other_errors_have_no_sentence() -> None:
    assert sentence_of(ValueError("no")) is None


def test_hidden_context_is_not_reported() -> None:
    def act() -> None:
        try:
            fail()
        except DataError:
            raise ValueError("handled") from None

    assert sentence_of(_raised(act)) is None


def test_circular_chain_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert sentence_of(first) is None


def test_hook_prints_one_line_and_is_installed_once(
    hooks: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MSRF_DEBUG", raising=False)
    install_error_line()
    installed = sys.excepthook
    install_error_line()
    error = _raised(fail)

    sys.excepthook(type(error), error, error.__traceback__)

    assert sys.excepthook is installed
    assert capsys.readouterr().err == "error: mask.png is empty; export it again\n"


def test_hook_passes_other_errors_on_and_shows_all_when_asked(
    hooks: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.excepthook = sys.__excepthook__
    install_error_line()
    sys.excepthook(ValueError, ValueError("theirs"), None)
    theirs = capsys.readouterr().err
    monkeypatch.setenv("MSRF_DEBUG", "1")
    error = _raised(fail)
    sys.excepthook(type(error), error, error.__traceback__)
    ours = capsys.readouterr().err

    assert theirs == "ValueError: theirs\n"
    assert "Traceback" in ours
    assert ours.endswith("error: mask.png is empty; export it again\n")


def test_logged_tracebacks_of_package_errors_are_left_out_of_the_log(
    hooks: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MSRF_DEBUG", raising=False)
    install_error_line()
    for error in (_raised(fail), ValueError("theirs")):
        try:
            raise error
        except Exception:
            logging.getLogger("engine").exception("stopped")

    assert [record.exc_info is None for record in caplog.records] == [True, False]


def test_traceback_that_a_worker_sent_as_text_is_shortened_in_the_log(
    hooks: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MSRF_DEBUG", raising=False)
    install_error_line()
    text = "Run ends: Caught RuntimeError.\nTraceback:\n  File x\nmsrf_monai.errors.DataError: a.png is empty\n\nmore"

    logging.getLogger("engine").error(text)
    logging.getLogger("engine").error("two\nlines")

    assert caplog.messages == ["Run ends: Caught RuntimeError. a.png is empty", "two\nlines"]


def test_tests_are_not_the_bundle_program() -> None:
    assert not is_bundle_program()
