"""Whether tests without MONAI Label's environment are left out or fail is said by an environment variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from msrf_monai.label.environment import VARIABLE, environment_digest
from support.label_server import REQUIRED, label_environment


def test_without_an_environment_a_test_is_skipped_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    monkeypatch.delenv(REQUIRED, raising=False)

    with pytest.raises(pytest.skip.Exception, match="holds no Python"):
        label_environment()


def test_where_it_is_required_a_test_fails_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    monkeypatch.setenv(REQUIRED, "1")

    with pytest.raises(pytest.fail.Exception, match="holds no Python"):
        label_environment()


def test_where_it_is_required_a_test_fails_when_it_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # XDG_CACHE_HOME's folder for it holds other things, which make_environment refuses to touch
    folder = tmp_path / "msrf-monai" / f"label-{environment_digest()[:16]}"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").touch()
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(REQUIRED, "1")

    with pytest.raises(pytest.fail.Exception, match="holds other things"):
        label_environment()
