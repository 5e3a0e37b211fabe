"""Damaged files of every kind are read or refused, and nothing else: no crash, no hang, no foreign error, no 2 GB."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clinical.fuzz.mutations import mutated
from clinical.fuzz.samples import SLIDES, files_beside, generated_samples, slide_samples, stored_samples
from clinical.fuzz.supervisor import run_inputs
from clinical.fuzz.worker import open_all
from support.real_data import data_folder

for decoder in ("jpeg_ls", "imagecodecs"):
    pytest.importorskip(decoder, reason="needs the decoders of the extra clinical")

_MOST_MIB = 2048


Samples = tuple[dict[str, bytes], dict[str, bytes]]


@pytest.fixture
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """The samples made here, and those of the data folder where there is one; and what lies beside them."""
    slides, parts = slide_samples(tmp_path_factory.mktemp("slides"))
    return {**generated_samples(), **stored_samples(data_folder()), **slides}, files_beside(parts)


def _run(samples: Samples, seed: int, count: int, folder: Path) -> None:
    outcome = run_inputs(*samples, seed, count, folder)
    assert outcome.findings == []
    assert (outcome.inputs, outcome.outcomes.total()) == (count, count)
    assert outcome.peak_mib < _MOST_MIB
    # the damage is neither too slight nor too heavy: many are still read, and many kinds of refusal occur
    assert outcome.outcomes["read"] > count / 20
    assert len(outcome.outcomes) > 12


def test_slides_are_read_as_long_as_they_are_sound(samples: Samples, tmp_path: Path) -> None:
    for name, data in samples[1].items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)

    assert {name: open_all(tmp_path, name, samples[0][name]) for name in SLIDES} == dict.fromkeys(SLIDES, "read")


@pytest.mark.slow
def test_two_thousand_damaged_inputs_are_read_or_refused(samples: Samples, tmp_path: Path) -> None:
    _run(samples, 1, 2_000, tmp_path)


@pytest.mark.slow
def test_twenty_thousand_damaged_inputs_are_read_or_refused(samples: Samples, tmp_path: Path) -> None:
    _run(samples, 2, 20_000, tmp_path)


@pytest.mark.extended
def test_a_million_damaged_inputs_are_read_or_refused(samples: Samples, tmp_path: Path) -> None:
    # another seed begins another million
    seed, count = os.environ.get("MSRF_FUZZ_SEED", "3"), os.environ.get("MSRF_FUZZ_INPUTS", "1000000")
    _run(samples, int(seed), int(count), tmp_path)


def test_the_same_seed_gives_the_same_damage() -> None:
    samples = {name: data for name, data in generated_samples().items() if not name.endswith((".jpg", ".webp"))}
    once = [mutated(samples, 5, number) for number in range(200)]
    assert once == [mutated(dict(reversed(samples.items())), 5, number) for number in range(200)]
    changed = [data != samples[name] for name, data in once]
    assert sum(changed) > 190


def test_a_dying_worker_is_a_finding_and_the_rest_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "import clinical.fuzz.mutations as room\n"
        "sound = room.mutated\n"
        "def deadly(samples, seed, number):\n"
        "    if number == 3: os.abort()\n"
        "    if number == 5: raise KeyError('foreign')\n"
        "    return sound(samples, seed, number)\n"
        "room.mutated = deadly\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = tmp_path / "run"
    folder.mkdir()
    samples = {name: data for name, data in generated_samples().items() if name.endswith((".nii", ".dcm"))}
    outcome = run_inputs(samples, files_beside({}), 4, 8, folder)
    assert [finding["number"] for finding in outcome.findings] == [3, 5]
