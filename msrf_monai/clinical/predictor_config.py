"""A bundle's ``inference.json`` as a predictor needs it: read, overridden, its savers left out, its parts built."""

from __future__ import annotations

import difflib
import json
import pydoc
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai.bundle.config_item import ConfigComponent
from monai.bundle.config_parser import ConfigParser
from monai.inferers.inferer import SimpleInferer, SlidingWindowInferer
from monai.transforms.io.array import SaveImage
from monai.transforms.io.dictionary import SaveImaged

from msrf_monai.errors import ConfigError, MsrfError
from msrf_monai.inferers import FlipAveragingInferer

__all__ = ["BundleConfig", "read_bundle"]

_NAMES = ("inference.json", "inference.yaml", "inference.yml")
_FLIPPING = f"{FlipAveragingInferer.__module__.rpartition('.')[0]}.{FlipAveragingInferer.__name__}"
_FAILURES = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, ImportError, OSError)


@dataclass(frozen=True)
class BundleConfig:
    """An inference configuration, ready to build its parts."""

    folder: Path
    file: Path
    parser: ConfigParser
    metadata: dict[str, Any]
    resolved: dict[str, Any]
    """The configuration with its overrides, without anything that depends on the computer."""

    def has(self, name: str) -> bool:
        """Tell whether the configuration has an id."""
        return name in self.parser

    def build(self, name: str) -> Any:
        """Return what an id stands for, built once.

        Args:
            name: the id.

        Raises:
            ConfigError: when there is no such id, or it cannot be built; an error of this package passes as it is.
        """
        if not self.has(name):
            raise ConfigError(f'{self.file} has no "{name}", which a prediction needs')
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # MONAI's loaders tell of every reader that is not installed
                return self.parser.get_parsed_content(name)
        except _FAILURES as error:
            raise _own(error) or ConfigError(
                f'"{name}" of {self.file} cannot be built: {_first_line(error)}; mend it, or the override that set it'
            ) from error

    def described(self, *path: str) -> Any:
        """Return what ``network_data_format`` of the metadata says below a path; None when it says nothing."""
        found: Any = self.metadata.get("network_data_format")
        for part in path:
            found = found.get(part) if isinstance(found, Mapping) else None
        return found


def read_bundle(
    bundle: str | Path, *, overrides: Sequence[tuple[str, Any]] = (), tta: bool = False, device: str = "cpu"
) -> BundleConfig:
    """Read a bundle's inference configuration and metadata.

    Args:
        bundle: the bundle's folder.
        overrides: ids and new values.
        tta: average mirror images: by the bundle's own switch ``tta``, or by ``FlipAveragingInferer`` in the place of a
            plain inferer.
        device: replaces the bundle's ``device``.

    Returns:
        The configuration; transforms that save files are switched off in it.

    Raises:
        ConfigError: when there is no such bundle, a file cannot be read, an override names nothing, or ``tta`` cannot
            be switched on.
    """
    folder = Path(bundle)
    file = next((folder / "configs" / name for name in _NAMES if (folder / "configs" / name).is_file()), None)
    if file is None:
        raise ConfigError(f"{folder} is not a bundle: it has no configs/inference.json; give the folder of a bundle")
    parser = ConfigParser()
    meta_file = folder / "configs" / "metadata.json"
    try:
        parser.read_config(str(file))
        metadata = dict(ConfigParser.load_config_file(str(meta_file))) if meta_file.is_file() else {}
        parser.set(metadata, "_meta_")
        parser.resolve_macro_and_relative_ids()  # type: ignore[no-untyped-call]
    except _FAILURES as error:
        raise ConfigError(f"{file} or metadata.json beside it cannot be read: {_first_line(error)}") from error
    for name, value in overrides:
        _override(parser, name, value, file)
    resolved = {key: value for key, value in parser.get().items() if key != "_meta_"}
    resolved = json.loads(json.dumps(resolved, sort_keys=True, default=str))
    if "bundle_root" in parser and not any(name == "bundle_root" for name, _ in overrides):
        parser["bundle_root"] = str(folder)
    if "device" in parser:
        parser["device"] = f"$torch.device({device!r})"
    for component in _components(parser.get()):
        if _is_saver(located(parser, component)):
            component["_disabled_"] = True
    if tta:
        _switch_flips_on(parser, file)
    return BundleConfig(folder, file, parser, metadata, resolved)


def located(parser: ConfigParser, component: Mapping[str, Any]) -> Any:
    """Return the class or function that a component names; None when that cannot be known without running it."""
    try:
        item = ConfigComponent(config=dict(component), locator=parser.locator)
        target: Any = item.resolve_module_name()  # type: ignore[no-untyped-call]
        return pydoc.locate(target) if isinstance(target, str) and not target.startswith("$") else None
    except (*_FAILURES, pydoc.ErrorDuringImport):
        return None


def _override(parser: ConfigParser, name: str, value: Any, file: Path) -> None:
    name = name.replace("#", "::")
    parent = name.rpartition("::")[0]
    if name not in parser and not (parent and parent in parser and isinstance(parser[parent], dict)):
        close = difflib.get_close_matches(name, [str(key) for key in parser.get()], n=1)
        hint = f"did you mean {close[0]!r}?" if close else "no known key is close to it"
        raise ConfigError(f"unknown override {name!r}: {hint} (the keys are those of {file})")
    parser[name] = value


def _components(config: Any) -> Iterator[dict[str, Any]]:
    children = config.values() if isinstance(config, dict) else config if isinstance(config, list) else ()
    for child in children:
        if isinstance(child, dict) and "_target_" in child:
            yield child
        yield from _components(child)


def _is_saver(target: Any) -> bool:
    if not isinstance(target, type):
        return False
    return issubclass(target, (SaveImage, SaveImaged)) or target.__name__.startswith("Save")


def _switch_flips_on(parser: ConfigParser, file: Path) -> None:
    if "tta" in parser:
        parser["tta"] = True
        return
    inferer = parser.get("inferer")
    if inferer is None:
        inferer = {"_target_": "monai.inferers.SimpleInferer"}
    target = located(parser, inferer) if isinstance(inferer, Mapping) else None
    plain = {key: value for key, value in dict(inferer).items() if key != "_target_"} if target is not None else {}
    if target is SimpleInferer:
        plain = {"roi_size": [-1, -1]}  # one window: the whole image
    elif not (isinstance(target, type) and issubclass(target, SlidingWindowInferer)):
        raise ConfigError(
            f'{file} has neither a switch "tta" nor a sliding-window inferer, so mirror images cannot be averaged; '
            "predict without tta"
        )
    parser["inferer"] = {"_target_": _FLIPPING, **plain, "flips": True}


def _own(error: BaseException) -> MsrfError | None:
    """Return the error of this package behind one of MONAI's, which hides it in a chain of causes."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, MsrfError):
        cause = cause.__cause__
    return cause


def _first_line(error: BaseException) -> str:
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return (str(error).strip().split("\n")[0] or type(error).__name__)[:200]
