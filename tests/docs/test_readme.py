"""What the documents say is true: links lead somewhere, commands and keys exist, Python examples run as printed."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from monai.bundle import scripts

from msrf_monai.bundle import check_overrides, parse_command_line
from msrf_monai.cli.main import LazyGroup
from msrf_monai.data import CATALOGUE
from msrf_monai.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
MSRF = ROOT / "bundles" / "msrf_net_polyp_segmentation"
SSR = ROOT / "bundles" / "ssr_unet_skin_lesion_segmentation"
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docker/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *(bundle / "docs" / "README.md" for bundle in BUNDLES),
]
# Keys that the documents show as mistakes, and the placeholder of a sentence about overrides.
SHOWN_MISTAKES = {"dataset_dirr", "trainn::trainer::max_epochs", "key"}
# Pages whose commands are run, in the folder that they speak from, by test_command_page.py and tests/label.
RUN_ELSEWHERE = {"bundle-commands": SSR, "federated": SSR, "packaging": ROOT}
FOLDERS = {"bundle-checks": MSRF, **RUN_ELSEWHERE}
EXPORTS = {name: getattr(scripts, name) for name in ("ckpt_export", "onnx_export", "verify_net_in_out")}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=_name)


def blocks(document: Path, language: str) -> Iterator[tuple[str, str]]:
    """Yield the line before each fenced block of a language, and the block."""
    pattern = rf"^(?P<before>[^\n]*)\n```{language}\n(?P<code>.*?)^```$"
    for match in re.finditer(pattern, document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        yield match["before"], match["code"]


def bundle_of(document: Path) -> Path:
    """Return the bundle that a document speaks of: its own, or that of its `export BUNDLE=`, else MSRF-Net's."""
    if document.parents[2] == ROOT / "bundles":
        return document.parents[1]
    named = re.search(r"^export BUNDLE=(\S+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return ROOT / named[1] if named else MSRF


def commands(document: Path, program: str) -> list[list[str]]:
    """Return the arguments of each command of a program in the document's bash blocks."""
    found = []
    bundle = str(bundle_of(document).relative_to(ROOT))
    for _, code in blocks(document, "bash"):
        for line in code.replace("\\\n", " ").replace("$BUNDLE", bundle).splitlines():
            # what goes before the program does not matter: torchrun and its options, a container's alias
            before, name, rest = line.partition(program)
            if name and not before.lstrip().startswith("#") and (rest[:1] in ("", " ")):
                found.append(shlex.split(rest, comments=True))
    return found


def spans(document: Path) -> list[str]:
    """Return the inline code of a document."""
    text = re.sub(r"^```.*?^```$", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@each_document
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if not re.match(r"[a-z]+:", target)]
    dead = [target for target in local if not (document.parent / target.partition("#")[0]).exists()]
    assert dead == []


@each_document
def test_documents_hold_no_machine_path(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users)/\S*", text) == []


@pytest.mark.parametrize(
    "document",
    [d for d in DOCUMENTS if "```python" in d.read_text() and d.stem not in RUN_ELSEWHERE],
    ids=lambda path: path.name,
)
def test_python_examples_print_what_their_comments_say(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some write a picture
    for number, (before, code) in enumerate(blocks(document, "python"), start=1):
        program = compile(code, f"{document.name}, example {number}", "exec")
        if before.startswith("<!-- not run:"):
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(program, {"__name__": "example"})
        assert printed.getvalue().splitlines() == re.findall(r"^\s*print\(.*\)  # (.*)$", code, re.MULTILINE)


@each_document
def test_bundle_commands_name_files_runs_and_keys_that_exist(
    document: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # a bundle's card and the page about checks speak from within the bundle's folder, all others from the top
    is_card = document.parents[2] == ROOT / "bundles"
    monkeypatch.chdir(document.parents[1] if is_card else FOLDERS.get(document.stem, ROOT))
    written = {}
    for _, code in blocks(document, "bash"):
        for name, content in re.findall(r"cat > (\S+) <<'END'\n(.*?)\nEND$", code, re.MULTILINE | re.DOTALL):
            written[name] = str(tmp_path / name)
            (tmp_path / name).write_text(content)
    for words in commands(document, "python -m monai.bundle") + commands(document, "-m monai.bundle"):
        argv = [written.get(word, word) for word in words]
        if argv[0] in EXPORTS:
            _check_export(argv)
            continue
        line = parse_command_line(argv)
        if document.stem in RUN_ELSEWHERE and (line is None or line.command != "run"):
            continue
        assert line is not None, argv
        assert line.arguments["run_id"] in check_overrides(argv), argv


def _check_export(argv: list[str]) -> None:
    # the command's own options are those of its function, all others are overrides of the configuration
    own = inspect.signature(EXPORTS[argv[0]]).parameters
    options = dict(zip((word.removeprefix("--") for word in argv[1::2]), argv[2::2], strict=True))
    assert Path(options["meta_file"]).is_file(), options["meta_file"]
    overrides = [word for name, value in options.items() if name not in own for word in (f"--{name}", value)]
    check_overrides(["run", "evaluating", "--config_file", options["config_file"], *overrides])


# the inline options of docker/README.md are those of docker
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if d.parent.name != "docker"], ids=_name)
def test_keys_in_the_text_exist(document: Path) -> None:
    folder = bundle_of(document) / "configs"
    train, evaluate, inference = (str(folder / f"{name}.json") for name in ("train", "evaluate", "inference"))
    configs = [["--config_file", files] for files in (train, repr([train, evaluate]), inference)]
    known = _cli_options() | {"tracking", "args_file", "config_file"}
    unknown = []
    ours = [span for span in spans(document) if re.match(r"--|msrf-monai |python |unknown override ", span)]
    for span in ours:
        for name in re.findall(r"(?:^|\s)--([A-Za-z_+](?:[\w+-]|::)*)", span):
            is_known = name in known | SHOWN_MISTAKES or any(_takes(config, name) for config in configs)
            unknown += [] if is_known else [name]
    assert unknown == []


def _takes(config: list[str], name: str) -> bool:
    try:
        check_overrides(["run", "x", *config, f"--{name}", "0"])
    except ConfigError:
        return False
    return True


def _groups() -> dict[str, Any]:
    return {name: typer.main.get_command(importlib.import_module(module).app) for name, (module, _) in _members()}


def _members() -> list[tuple[str, tuple[str, str]]]:
    return list(LazyGroup.members.items())


def _cli_options() -> set[str]:
    commands = [each for group in _groups().values() for each in getattr(group, "commands", {"": group}).values()]
    parameters = [parameter for command in commands for parameter in command.params]
    options = (option for p in parameters for option in (*p.opts, *p.secondary_opts))  # those after "/" turn a flag off
    return {option.lstrip("-") for option in options} | {"debug", "version", "help"}


@each_document
def test_msrf_monai_commands_exist_and_take_their_options(document: Path) -> None:
    groups = _groups()
    for words in commands(document, "msrf-monai"):
        if words[:1] in (["."], ["--help"], []) or words[0] == "--build-arg":
            continue  # the name of the image in docker commands
        if words[0] in ("msrf-monai", "python"):
            words = words[1:]  # behind the name of the image stands the command
        group = groups[words[0]]
        if not hasattr(group, "commands"):  # a command by itself, such as info
            assert group.make_context(words[0], list(words[1:])).info_name == words[0]
            continue
        context = group.commands[words[1]].make_context(words[1], list(words[2:]))
        assert context.info_name == words[1]
    for span in spans(document):
        if re.match(r"msrf-monai [a-z]+ [a-z]+", span):
            _, group_name, command = span.split()[:3]
            assert command in getattr(groups[group_name], "commands", {command}), span


@each_document
def test_bundle_files_in_the_text_exist(document: Path) -> None:
    names = set(re.findall(r"\b((?:datasets|recipes)/\w+\.json|multi_gpu_\w+\.json)", document.read_text("utf-8")))
    missing = [name for name in names if not any((bundle / "configs" / name).is_file() for bundle in BUNDLES)]
    assert missing == []


@each_document
def test_make_targets_exist(document: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {name for span in spans(document) for name in re.findall(r"^make ([a-z]+)$", span)}
    named |= {words[0] for words in commands(document, "make") if words}
    assert named <= targets


def test_table_of_training_keys_gives_the_defaults() -> None:
    config = json.loads((MSRF / "configs" / "train.json").read_text())
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w:]+)` \| (.+?) \| .* \|$", text.partition("## Overlays")[0], re.MULTILINE)
    assert len(rows) > 30
    for key, default in rows:
        assert _takes(["--config_file", str(MSRF / "configs" / "train.json")], key), key
        shown = re.fullmatch(r"`(.+)`", default)
        value = _value(config, key)
        if shown and not isinstance(value, str | dict):
            assert json.loads(shown[1]) == value, key
        elif isinstance(value, bool | int | float):
            pytest.fail(f"the table does not give the default of {key}, {value}")


def _value(config: Any, key: str) -> Any:
    for part in key.split("::"):
        config = config.get(part) if isinstance(config, dict) else config[int(part)]
    return config


def test_every_top_level_key_of_training_is_explained() -> None:
    config = json.loads((MSRF / "configs" / "train.json").read_text())
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    settings = [key for key, value in config.items() if not isinstance(value, dict | list) and key not in {"network"}]
    assert [key for key in settings if f"| `{key}` |" not in text and key != "training"] == []


def test_catalogue_and_extras_are_all_listed() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    readme, data = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "docs/data.md"))
    assert [name for name in extras if f"`{name}`" not in readme] == []
    assert [name for name in CATALOGUE if f"`{name}`" not in data] == []
