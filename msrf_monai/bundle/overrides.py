"""Overrides on the command line of ``python -m monai.bundle run``: read as Fire reads them, checked before use.

MONAI adds an unknown key to the config without a word, so that a misspelt ``--dataset_dirr`` trains on the default.
"""

from __future__ import annotations

import difflib
import inspect
import pydoc
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue, SeparateFlagArgs
from monai.bundle.config_item import ConfigComponent
from monai.bundle.config_parser import ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.scripts import run, run_workflow, update_kwargs
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS, ID_SEP_KEY, MERGE_KEY
from monai.bundle.workflows import ConfigWorkflow

from msrf_monai.errors import ConfigError

__all__ = ["CommandLine", "check_overrides", "parse_command_line"]

_COMMANDS: dict[str, Callable[..., Any]] = {"run": run, "run_workflow": run_workflow}
# Names that the commands or the workflow take as their own arguments; any other name is an override of the config.
_RESERVED = frozenset(
    name
    for function in (run, run_workflow, ConfigWorkflow.__init__)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name != "self"
)
_ALWAYS_ALLOWED = frozenset({"_requires_", "_meta_", "imports", "initialize", "run", "finalize"})


@dataclass(frozen=True)
class CommandLine:
    """What a command line of ``monai.bundle`` asks for."""

    command: str
    """``run`` or ``run_workflow``."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """The command's own arguments (``config_file``, ``run_id``, ``tracking``, …), those of ``args_file`` included."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Config ids, as written, and their new values."""


def parse_command_line(argv: Sequence[str]) -> CommandLine | None:
    """Read the arguments of ``python -m monai.bundle`` the way Fire and MONAI read them.

    Args:
        argv: the arguments after the program's name, such as ``["run", "training", "--config_file", "a.json"]``.

    Returns:
        The command with its arguments and overrides, or None for a command that runs no config.

    Raises:
        ConfigError: when the ``args_file`` cannot be read.
    """
    words, _ = SeparateFlagArgs(list(argv))
    if not words or words[0].replace("-", "_") not in _COMMANDS:
        return None
    command = words[0].replace("-", "_")
    names = [n for n, p in inspect.signature(_COMMANDS[command]).parameters.items() if p.kind is not p.VAR_KEYWORD]
    given, positional = _split_flags(words[1:], names)
    free = (name for name in names if name not in given)
    given.update(zip(free, positional, strict=False))
    merged = _with_args_file({key: DefaultParseValue(value) for key, value in given.items()})
    arguments = {key: value for key, value in merged.items() if key in _RESERVED}
    overrides = {key: value for key, value in merged.items() if key not in _RESERVED}
    return CommandLine(command, arguments, overrides)


def check_overrides(argv: Sequence[str]) -> dict[str, Any]:
    """Check that each override on a command line names something that the config files define or can take.

    Accepted are ids that exist in the merged config files, new arguments of a component (a dictionary with
    ``_target_``) whose class or function takes an argument of that name, ids that the config refers to (``@name``) and
    leaves to the user, MONAI's own settings of experiment tracking when ``--tracking`` is given, and ``+id``, which
    MONAI merges. Nothing in the config is evaluated; modules named by a ``_target_`` may be imported.

    Args:
        argv: the arguments after the program's name, as in ``sys.argv[1:]``.

    Returns:
        The merged config with the overrides in place; empty for commands without a config.

    Raises:
        ConfigError: naming every unknown key, the closest known one, and the config files that were searched.
    """
    line = parse_command_line(argv)
    if line is None or not line.arguments.get("config_file"):
        return {}
    files = line.arguments["config_file"]
    config = _load(files)
    parser = ConfigParser(config=deepcopy(config))
    _read_meta(parser, files, line.arguments.get("meta_file"))
    allowed = _ALWAYS_ALLOWED | _tracking_keys(line.arguments.get("tracking")) | _open_references(config)
    unknown = []
    _refuse_none(line.overrides)
    for key, value in line.overrides.items():
        name = ReferenceResolver.normalize_id(key.removeprefix(MERGE_KEY))
        if name not in allowed and name not in parser and not _is_new_argument(parser, name):
            unknown.append(_complaint(parser, name))
        elif not key.startswith(MERGE_KEY):
            parser.set(value, name)
    if unknown:
        where = ", ".join(_file_names(files))
        raise ConfigError(
            f"{'; '.join(unknown)} (the keys are those in {where}; join nested ones with '::', "
            "for example --train::trainer::max_epochs 3)"
        )
    return dict(parser.get())


def _refuse_none(overrides: Mapping[str, Any]) -> None:
    """Refuse a plain None, which MONAI leaves out without a word."""
    dropped = [key for key, value in overrides.items() if value is None]
    if dropped:
        raise ConfigError(
            f"--{dropped[0]} None would be ignored, since MONAI leaves out overrides that are None; "
            f"write --{dropped[0]} '$None' to set it to nothing"
        )


def _split_flags(words: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Separate ``--key value``, ``--key=value``, ``--flag`` and ``--noflag`` from positional words, as Fire does."""
    flags: dict[str, str] = {}
    positional: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not _is_flag(word):
            positional.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        key = key.replace("-", "_")
        if equals:
            flags[key] = value
        elif rest and not _is_flag(rest[0]):
            flags[key] = rest.pop(0)
        elif key not in names and key.startswith("no"):
            flags[key[2:]] = "False"
        else:
            flags[key] = "True"
    return flags, positional


def _is_flag(word: str) -> bool:
    return word.startswith("--") or re.match("^-[a-zA-Z]", word) is not None


def _with_args_file(given: dict[str, Any]) -> dict[str, Any]:
    args_file = given.pop("args_file", None)
    if args_file is None:
        return given
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MONAI warns about each "+key", and will again when it reads the file
            return dict(update_kwargs(args=str(args_file), **given))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the args_file {args_file}: {error}") from error


def _load(files: Any) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return dict(ConfigParser.load_config_files(files))
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the config {', '.join(_file_names(files))}: {error}") from error


def _file_names(files: Any) -> list[str]:
    return [str(name) for name in files] if isinstance(files, (list, tuple)) else [str(files)]


def _read_meta(parser: ConfigParser, files: Any, meta_file: Any) -> None:
    if meta_file is None:
        beside = Path(_file_names(files)[0]).parent / "metadata.json"
        meta_file = str(beside) if beside.is_file() else None
    if meta_file is not None:
        parser.set(_load(meta_file), "_meta_")


def _tracking_keys(tracking: Any) -> frozenset[str]:
    if tracking is None:
        return frozenset()
    known: dict[str, Any] = DEFAULT_EXP_MGMT_SETTINGS
    settings: Any = known.get(tracking) if isinstance(tracking, str) else tracking
    settings = _load(tracking) if settings is None else settings
    return frozenset(settings.get("configs", {})) | {"output_dir", "save_execute_config"}


def _open_references(config: Mapping[str, Any]) -> frozenset[str]:
    """Ids that the config uses as ``@id`` and may leave undefined for the user to give."""
    return frozenset(ReferenceResolver.find_refs_in_config(config=dict(config), id=""))


def _is_new_argument(parser: ConfigParser, name: str) -> bool:
    parent, _, last = name.rpartition(ID_SEP_KEY)
    component = _component(parser, parent)
    if component is None:
        return False
    if last in ConfigComponent.non_arg_keys:
        return True
    known = _parameters(parser, component)
    return known is None or last in known


def _component(parser: ConfigParser, name: str) -> dict[str, Any] | None:
    found = parser.get(name) if name else None
    return dict(found) if found is not None and ConfigComponent.is_instantiable(found) else None


def _parameters(parser: ConfigParser, component: Mapping[str, Any]) -> frozenset[str] | None:
    """Names of the arguments that a component takes; None when it takes any, or cannot be known without running it."""
    target: Any = ConfigComponent(config=component, locator=parser.locator).resolve_module_name()  # type: ignore[no-untyped-call]
    located = pydoc.locate(target) if isinstance(target, str) and not target.startswith("$") else None
    if not callable(located):
        return None
    try:
        parameters = inspect.signature(located).parameters
    except ValueError:
        return None
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return None
    return frozenset(parameters)


def _complaint(parser: ConfigParser, name: str) -> str:
    close = _closest(name, [*_ids(parser.get()), *_sibling_arguments(parser, name), *_RESERVED])
    hint = f"did you mean --{close}?" if close else "no known key is close to it"
    return f"unknown override --{name}: {hint}"


def _sibling_arguments(parser: ConfigParser, name: str) -> list[str]:
    parent = name.rpartition(ID_SEP_KEY)[0]
    component = _component(parser, parent)
    if component is None:
        return []
    return [f"{parent}{ID_SEP_KEY}{argument}" for argument in _parameters(parser, component) or ()]


def _closest(name: str, known: Sequence[str]) -> str | None:
    """The known id that is most like ``name``: a nested one of the same last part, else the nearest spelling."""
    last = name.rpartition(ID_SEP_KEY)[2]
    same_end = sorted((k for k in known if k.rpartition(ID_SEP_KEY)[2] == last), key=len)
    return next(iter(same_end or difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.6)), None)


def _ids(config: Any, prefix: str = "") -> Iterator[str]:
    if not isinstance(config, (dict, list)):
        return
    for _, name, value in ReferenceResolver.iter_subconfigs(id=prefix, config=config):
        yield name
        yield from _ids(value, name)
