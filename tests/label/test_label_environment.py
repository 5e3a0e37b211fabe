"""How the environment of MONAI Label is made; that it works, the tests on the real server show."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from msrf_monai.errors import EngineError, InputError
from msrf_monai.label import environment as module
from msrf_monai.label.environment import Environment, environment_digest, main, make_environment


class Recorder:
    """Stands in for pip and venv: notes what is run, and makes the folders that they would."""

    def __init__(self, folder: Path) -> None:
        self.site = folder / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
        self.steps: list[tuple[list[str], dict[str, str]]] = []

    def __call__(self, command, variables) -> None:
        self.steps.append((list(command), dict(variables)))
        if "venv" in command:
            self.site.mkdir(parents=True)
            (self.site.parents[2] / "bin").mkdir()
            (self.site.parents[2] / "bin" / "python").touch()
            (self.site.parents[2] / "pyvenv.cfg").touch()


def test_torch_comes_first_and_all_later_steps_that_resolve_are_bound(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_CONSTRAINT", "/elsewhere")
    folder = tmp_path / "with space"
    recorder = Recorder(folder)

    made = make_environment(folder, torch_index="https://index.example/cpu", run=recorder)

    venv, torch, others, dicom, package = (command for command, _ in recorder.steps)
    assert venv[:3] == [sys.executable, "-m", "venv"]
    assert torch[-3:] == ["--index-url", "https://index.example/cpu", "torch==2.13.0"]
    bound = [variables.get("PIP_CONSTRAINT") for _, variables in recorder.steps]
    constraints = Path(module.__file__).with_name("installed") / "constraints.txt"
    assert bound == [None, None, constraints.as_uri(), None, constraints.as_uri()]
    assert recorder.steps[2][1]["SAM2_BUILD_CUDA"] == "0"
    assert others[-2:] == ["-r", str(constraints.with_name("requirements.txt"))]
    assert str(folder / "dicom3") in dicom
    assert "--no-deps" in package
    assert {path.name for path in recorder.site.iterdir()} == {"_torchvision_on_cpu.py", "_torchvision_on_cpu.pth"}
    assert made.is_current


def test_a_complete_environment_is_left_as_it_is(tmp_path):
    make_environment(tmp_path / "env", run=Recorder(tmp_path / "env"))

    def refuse(*_):
        raise AssertionError("nothing is to be run")

    assert make_environment(tmp_path / "env", run=refuse).is_current


def test_an_environment_of_other_versions_is_not_current(tmp_path, monkeypatch):
    made = make_environment(tmp_path / "env", run=Recorder(tmp_path / "env"))
    files = tmp_path / "installed"
    files.mkdir()
    (files / "constraints.txt").write_text("torch==99\n")
    before = environment_digest()

    monkeypatch.setattr(module, "_FILES", files)

    assert environment_digest() != before
    assert not made.is_current


def test_a_step_that_fails_leaves_no_environment_that_seems_complete(tmp_path):
    recorder = Recorder(tmp_path / "env")

    def fails_at_third(command, variables):
        recorder(command, variables)
        if len(recorder.steps) == 3:
            raise EngineError("no space left")

    with pytest.raises(EngineError, match="no space"):
        make_environment(tmp_path / "env", run=fails_at_third)

    assert not Environment(tmp_path / "env").is_current


def test_a_folder_with_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(InputError, match="holds other things"):
        make_environment(tmp_path, run=lambda *_: None)
    assert (tmp_path / "thesis.tex").exists()


def test_a_python_without_tested_versions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PYTHONS", ((3, 7, 2), (3, 8)))

    with pytest.raises(InputError, match=r"needs 3\.7\.2 or later, below 3\.8"):
        make_environment(tmp_path / "env", run=lambda *_: None)


def test_the_command_without_this_package_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "thesis.tex").touch()

    assert main([str(tmp_path)]) == 1
    assert "holds other things" in capsys.readouterr().err


def test_a_failing_step_is_named(tmp_path):
    with pytest.raises(EngineError, match="status 3"):
        module._run([sys.executable, "-c", "raise SystemExit(3)"], {})


@pytest.mark.parametrize("name", ["torch", "torchvision", "numpy", "pydicom", "monai", "monailabel", "dcmqi"])
def test_what_decides_is_pinned(name):
    constraints = (Path(module.__file__).with_name("installed") / "constraints.txt").read_text().splitlines()

    assert len([line for line in constraints if line.startswith(f"{name}==")]) == 1
