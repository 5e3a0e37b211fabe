"""Processes with their logs, and the folder in which one cross-validation at a time works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.errors import InputError, StorageError
from msrf_monai.experiments import ProcessRunner
from msrf_monai.experiments import runner as runner_module
from msrf_monai.experiments.runner import last_lines
from msrf_monai.experiments.workplace import digest_of, workplace

OPTIONS: dict[str, Any] = {
    "folds": 3,
    "overrides": {"max_epochs": "3"},
    "configs": {"configs/train.json": "aa"},
    "variants": {"none": "00", "ssr": "11"},
}


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


def test_a_process_leaves_its_output_and_its_command_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "new" / "run.log"
    program = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(5)"

    code = ProcessRunner()(python(program), log)
    ProcessRunner()(python("print('again')"), log)

    assert code == 5
    lines = log.read_text().splitlines()
    assert lines[0].startswith(f"$ {sys.executable} -c ")
    assert set(lines[1:3]) == {"out", "err"}
    assert lines[-1] == "again"
    assert last_lines(log, 1) == ["again"]


def test_a_process_reads_nothing_and_needs_no_shell(tmp_path: Path) -> None:
    code = ProcessRunner()(
        [*python("import sys; print(sys.argv[1:], repr(sys.stdin.read()))"), "$HOME; ls"], tmp_path / "log"
    )

    assert code == 0
    assert last_lines(tmp_path / "log", 1) == ["['$HOME; ls'] ''"]


def test_a_killed_process_gives_the_signal(tmp_path: Path) -> None:
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"

    assert ProcessRunner()(python(program), tmp_path / "log") == -signal.SIGKILL


class LeaveError(Exception):
    """Stands for what ends the program."""


@pytest.mark.parametrize("stubborn", [False, True])
def test_the_process_ends_with_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: bool) -> None:
    monkeypatch.setattr(runner_module, "_GRACE_S", 0.3)
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    program = f"import os, signal, time; {ignore}print(os.getpid()); time.sleep(60)"
    log = tmp_path / "log"

    def waiting() -> None:
        if last_lines(log, 1)[0].isdigit():
            raise LeaveError

    with pytest.raises(LeaveError):
        ProcessRunner(waiting=waiting, interval_s=0.05)(python(program), log)

    with pytest.raises(ProcessLookupError):
        os.kill(int(last_lines(log, 1)[0]), 0)


def test_a_log_that_cannot_be_written_or_a_program_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot run with the log"):
        ProcessRunner()(python(""), tmp_path / "file" / "log")
    with pytest.raises(StorageError, match="No such file"):
        ProcessRunner()([str(tmp_path / "nothing")], tmp_path / "log")


def test_last_lines_are_those_with_text(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"x" * 50_000 + b"\nfirst\n\n  second \xff\n\n")

    assert last_lines(log, 2) == ["first", "  second \N{REPLACEMENT CHARACTER}"]
    assert last_lines(tmp_path / "nothing") == []


def test_the_same_options_may_come_again_and_others_are_named(tmp_path: Path) -> None:
    with workplace(tmp_path / "out", OPTIONS):
        pass
    with workplace(tmp_path / "out", OPTIONS):
        pass

    changes: dict[str, tuple[dict[str, Any], str]] = {
        "a number": ({"folds": 5}, "folds was 3, is 5"),
        "an override": ({"overrides": {"max_epochs": "9"}}, "overrides max_epochs was 3, is 9"),
        "a new override": ({"overrides": {**OPTIONS["overrides"], "a": "1" * 99}}, "a was not given, is 1{40}…"),
        "a file": ({"configs": {"configs/train.json": "bb"}}, r"\(configs/train.json has changed\)"),
        "a variant": ({"variants": {"none": "99"}}, r"\(none has changed\)"),
        "two": ({"folds": 2, "variants": {"none": "99"}}, r"\(folds was 3, is 2; none has changed\)"),
    }
    for change, message in changes.values():
        with pytest.raises(InputError, match=message), workplace(tmp_path / "out", {**OPTIONS, **change}):
            pass


def test_variants_may_come_and_go_and_are_remembered(tmp_path: Path) -> None:
    for variants in ({"none": "00"}, {"none": "00", "cse": "22"}, {"none": "00"}):
        with workplace(tmp_path, {**OPTIONS, "variants": variants}):
            pass

    record = json.loads((tmp_path / "experiment.json").read_text())
    assert record["options"]["variants"] == {"none": "00", "cse": "22"}
    with pytest.raises(InputError, match="cse has changed"), workplace(tmp_path, {**OPTIONS, "variants": {"cse": "3"}}):
        pass


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("")

    with pytest.raises(InputError, match="is not empty and holds no cross-validation"), workplace(tmp_path, OPTIONS):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_resume_a_used_folder_is_refused(tmp_path: Path) -> None:
    with workplace(tmp_path, OPTIONS, resume=False):
        pass

    with (
        pytest.raises(InputError, match="holds a cross-validation; choose"),
        workplace(tmp_path, OPTIONS, resume=False),
    ):
        pass


@pytest.mark.parametrize("content", ["{", "{}", '{"format": 9, "options": {}}', '{"format": 1, "options": []}'])
def test_a_record_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "experiment.json").write_text(content)

    with pytest.raises(InputError, match="is no record of a cross-validation"), workplace(tmp_path, OPTIONS):
        pass


def test_only_one_works_in_a_folder_and_an_orphan_keeps_the_lock(tmp_path: Path) -> None:
    with workplace(tmp_path, OPTIONS) as lock:
        with pytest.raises(InputError, match="is at work here"), workplace(tmp_path, OPTIONS):
            pass
        # what a killed parent would leave behind
        orphan = subprocess.Popen(python("input()"), stdin=subprocess.PIPE, pass_fds=(lock,))

    with pytest.raises(InputError, match="a training that it left behind"), workplace(tmp_path, OPTIONS):
        pass
    orphan.communicate(b"\n")
    with workplace(tmp_path, OPTIONS):
        pass


def test_a_drive_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", refuse)

    with workplace(tmp_path, OPTIONS):
        assert (tmp_path / "experiment.json").is_file()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="cannot write"), workplace(tmp_path / "file" / "out", OPTIONS):
        pass


def test_digests_do_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
