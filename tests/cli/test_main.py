"""The command line as a user meets it: output, exit codes, and nothing heavy loaded for the help."""

from __future__ import annotations

import subprocess
import sys

import pytest

from msrf_monai import __version__
from msrf_monai.cli import main as main_module

HEAVY = "torch monai cv2 scipy PIL matplotlib onnx"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "msrf_monai.cli.main", *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["--version"], f"msrf-monai {__version__}"), (["--help"], "data"), (["data", "--help"], "")],
)
def test_version_and_help_load_nothing_heavy(arguments: list[str], shown: str) -> None:
    program = (
        "import sys\nfrom msrf_monai.cli.main import main\n"
        f"sys.argv = ['msrf-monai', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        f"print('loaded', *[name for name in {HEAVY!r}.split() if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded"


def test_the_data_package_needs_neither_torch_nor_monai() -> None:
    program = "import sys, msrf_monai.data; print([name for name in ('torch', 'monai') if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.strip() == "[]", done.stderr


def test_an_error_is_one_line_on_stderr_and_exit_code_1() -> None:
    done = run("data", "verify", "/no/such/folder")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: /no/such/folder: the data set folder does not exist")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback_as_well() -> None:
    done = run("--debug", "data", "verify", "/no/such/folder")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: /no/such/folder")


@pytest.mark.parametrize("arguments", [["nothing"], ["data", "nothing"], ["data", "prepare"], ["--nothing"]])
def test_wrong_use_is_exit_code_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["msrf-monai", *arguments])

    with pytest.raises(SystemExit) as leave:
        main_module.main()

    assert leave.value.code == 2


def test_errors_in_this_process_leave_with_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["msrf-monai", "--debug", "data", "verify", "/no/such/folder"])

    with pytest.raises(SystemExit) as leave:
        main_module.main()

    assert leave.value.code == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "error: /no/such/folder" in shown


def test_every_group_is_shown_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["msrf-monai", "--help"])

    with pytest.raises(SystemExit) as leave:
        main_module.main()

    shown = capsys.readouterr().out
    assert leave.value.code == 0
    for name, (_, line) in main_module.LazyGroup.members.items():
        assert name in shown
        assert line.split(".")[0] in shown
