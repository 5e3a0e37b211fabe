"""What lies beside the configs: code, pickles, links and loggers that would execute something are each named."""

from __future__ import annotations

import json
import logging.config
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from msrf_monai.bundle import check_contents, check_large_files
from msrf_monai.bundle.artifacts import examine_artifact
from msrf_monai.bundle.logging_conf import check_logging


class Calls:
    """Pickles to a call of os.system."""

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.system, ("true",)


def _text(name: str, content: str = "x\n") -> Callable[[Path], None]:
    def write(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    return write


def _weights(root: Path) -> Path:
    (root / "models").mkdir(exist_ok=True)
    return root / "models" / "model.pt"


def _script_with(name: str, content: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        script = torch.jit.script(torch.nn.Identity())
        torch.jit.save(script, str(_weights(root).with_suffix(".ts")), _extra_files={name: content})

    return write


def _link(target: str, name: str = "docs/linked.md") -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "script": (_text("scripts/net.py"), "net.py: is no part of a bundle"),
    "python-anywhere": (_text("configs/a.py"), "a.py: is no part of a bundle"),
    "shared-library": (_text("models/a.so"), "a.so: is no part of a bundle"),
    "shell": (_text("docs/run.sh"), "run.sh: is no part of a bundle"),
    "bare-pickle": (_text("models/a.pkl"), "a.pkl: is no part of a bundle"),
    "notebook": (_text("docs/a.ipynb"), "a.ipynb: is no part of a bundle"),
    "yaml-config": (_text("configs/train.yaml"), "train.yaml: is YAML"),
    "upper-case-config": (_text("configs/a.JSON"), "a.JSON: is no part of a bundle"),
    "lookalike-name": (_text("configs/tr\u0430in.json"), "other than ASCII"),
    "config-elsewhere": (_text("docs/a.json", '{"a": {"b": "$1"}}'), "docs/a.json: a::b would be evaluated"),
    "target-elsewhere": (_text("models/a.json", '{"_target_": "x"}'), "top level has a _target_"),
    "broken-json": (_text("models/a.json", "{"), "cannot be read as a JSON object"),
    "same-but-for-case": (_text("docs/readme.md"), "are one file where case does not count"),
    "link-up": (_link("../../elsewhere.md"), "linked.md is a link that leads out"),
    "link-absolute": (_link("/etc/hostname"), "linked.md is a link that leads out"),
    "linked-folder": (_link("../..", "models"), "models is a link that leads out"),
    "pipe": (lambda root: os.mkfifo(root / "docs" / "pipe.md"), "pipe.md is neither a file nor a folder"),
    "endless-json": (_text("models/a.json", '{"a":' * 200 + "1" + "}" * 200), "cannot be read as a JSON object"),
    "logging-class": (_text("configs/logging.conf", "[handler_a]\nclass=__import__('os').system\n"), "is evaluated"),
    "weights-that-call": (lambda root: torch.save(Calls(), _weights(root)), "its pickle imports posix.system"),
    "weights-of-a-network": (
        lambda root: torch.save(torch.nn.Identity(), _weights(root)),
        "its pickle imports torch.nn.modules",
    ),
    "weights-bare-pickle": (lambda root: _weights(root).write_bytes(pickle.dumps(Calls())), "imports posix.system"),
    "weights-of-nothing": (lambda root: _weights(root).write_bytes(b"nothing"), "is no file of PyTorch's"),
    "safetensors-in-name-only": (
        lambda root: torch.save({}, _weights(root).with_suffix(".safetensors")),
        "is no safetensors file but PyTorch pickle",
    ),
    "script-with-config": (
        _script_with("train.json", '{"a": "$exec(1)"}'),
        "train.json: a: the expression calls exec()",
    ),
    "script-with-metadata": (_script_with("metadata.json", '{"a": "$exec(1)"}'), "metadata.json: a would be evaluated"),
    "script-with-broken-config": (_script_with("train.json", "{"), "train.json cannot be read as JSON"),
    "script-with-code": (_script_with("net.py", "1"), "the extra file net.py is no JSON"),
}


@pytest.mark.parametrize(("change", "problem"), BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_does_not_belong_is_named(bundle: Path, change: Callable[[Path], object], problem: str) -> None:
    change(bundle)

    problems = check_contents(bundle)
    assert any(problem in each for each in problems), problems


def test_metadata_is_no_config(bundle: Path) -> None:
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": "$open('x')", "task": "%a"}))

    problems = check_contents(bundle)

    assert {"version", "task"} <= {each.split(": ")[1].split()[0] for each in problems}


def test_plain_weights_leftovers_and_links_inside_are_fine(bundle: Path) -> None:
    torch.save(torch.nn.Conv2d(1, 1, 3).state_dict(), _weights(bundle))
    save_file({"a": torch.zeros(2)}, str(bundle / "models" / "model.safetensors"))
    _text("eval/run.py")(bundle)
    _text(".cache/x.bin")(bundle)
    (bundle / "docs" / "again.md").symlink_to("README.md")

    assert check_contents(bundle) == []


def test_files_are_judged_by_their_content(tmp_path: Path) -> None:
    network = torch.nn.Conv2d(1, 1, 3)
    torch.save(network.state_dict(), tmp_path / "a")
    torch.save(network.state_dict(), tmp_path / "b", _use_new_zipfile_serialization=False)
    save_file({"w": torch.zeros(3)}, str(tmp_path / "c"))
    with zipfile.ZipFile(tmp_path / "d", "w") as archive:
        archive.writestr("x", "y")
    (tmp_path / "e").write_bytes(b"")

    kinds = [examine_artifact(tmp_path / name).kind for name in "abcde"]

    assert kinds == ["PyTorch pickle", "bare pickle", "safetensors", "zip", "unknown"]
    assert examine_artifact(tmp_path / "a").unsafe == examine_artifact(tmp_path / "b").unsafe == ()


def imported_by(path: Path) -> list[tuple[str, str]]:
    """Return what Python's own unpickler would import, which here gets nothing instead."""
    asked: list[tuple[str, str]] = []

    class Recorder(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> None:
            asked.append((module, name))

    with path.open("rb") as file:
        Recorder(file).load()
    return asked


@pytest.mark.parametrize("protocol", range(6))
def test_calls_in_a_pickle_are_named_in_each_protocol(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a").write_bytes(b"\x80\x02" * (protocol < 2) + pickle.dumps(Calls(), protocol))

    assert examine_artifact(tmp_path / "a").unsafe == ("posix.system",)


def test_a_name_put_together_on_the_stack_is_not_believed(tmp_path: Path) -> None:
    # pushes posix, system, then two harmless texts that it drops again
    texts = (b"posix", b"system", b"collections", b"OrderedDict")
    push = b"".join(b"\x8c" + bytes([len(text)]) + text for text in texts)
    (tmp_path / "a").write_bytes(b"\x80\x04" + push + b"00" + b"\x93" + b".")

    found = examine_artifact(tmp_path / "a")

    assert imported_by(tmp_path / "a") == [("posix", "system")]
    assert found.unsafe == ("a name that is put together while loading",)


LOGGING = {
    "class-call": ("[handler_a]\nclass=__import__('os').system\n", "only the usual classes"),
    "class-other": ("[handler_a]\nclass=handlers.SocketHandler\n", "only the usual classes"),
    "args-call": ("[handler_a]\nargs=(open('x', 'w'),)\n", "only literals"),
    "args-walk": ("[handler_a]\nargs=(sys.modules,)\n", "only literals"),
    "kwargs": ("[handler_a]\nkwargs={'a': eval('1')}\n", "only literals"),
    "no-python": ("[handler_a]\nargs=(\n", "is not Python"),
    "far-file": ("[handler_a]\nargs=('/etc/cron.d/x',)\n", "lies outside the bundle"),
    "upwards": ("[handler_a]\nargs=('../../x.log',)\n", "lies outside the bundle"),
    "formatter": ("[formatter_a]\nclass=evil.Formatter\n", "only the usual classes"),
    "default-section": ("[DEFAULT]\nclass=evil.Handler\n", "only the usual classes"),
    "no-ini": ("nothing\n", "cannot be read"),
}


@pytest.mark.parametrize(("text", "problem"), LOGGING.values(), ids=LOGGING.keys())
def test_code_in_a_logging_configuration_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "logging.conf").write_text(text)

    assert any(problem in each for each in check_logging(tmp_path / "logging.conf"))


def test_logging_of_our_bundles_is_plain_and_python_takes_it(repository: Path) -> None:
    for path in (repository / "bundles").glob("*/configs/logging.conf"):
        assert check_logging(path) == []
        logging.config.fileConfig(path, disable_existing_loggers=False)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("large_files:\n- {path: ../a, hash_type: sha256, hash_val: '%s'}\n" % ("0" * 64), "lies outside"),
        ("large_files:\n- {path: /a, hash_type: sha256, hash_val: '%s'}\n" % ("0" * 64), "lies outside"),
        ("large_files:\n- {path: a, url: 'http://x', hash_type: sha256, hash_val: '%s'}\n" % ("0" * 64), "not https"),
        ("large_files:\n- a\n", "an entry has no path"),
        ("large_files: 3\n", "must hold a list"),
        ("{", "cannot be read as YAML"),
        ("!!python/object/apply:os.system ['true']\n", "cannot be read as YAML"),
    ],
    ids=["up", "absolute", "no-tls", "text", "number", "broken", "object"],
)
def test_bad_list_of_large_files_is_named(bundle: Path, text: str, problem: str) -> None:
    (bundle / "large_files.yml").write_text(text)

    assert any(problem in each for each in check_large_files(bundle))
