"""A bundle's transforms, cut where a predictor has to look in: after loading, and right before the mask is decided."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from monai.transforms.compose import Compose
from monai.transforms.inverse import InvertibleTransform
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.post.dictionary import Activationsd, AsDiscreted, Invertd
from monai.transforms.transform import MapTransform
from monai.utils.enums import CommonKeys

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.predictor_config import BundleConfig
from msrf_monai.clinical.predictor_decision import ScoreMeaning, Units
from msrf_monai.clinical.predictor_frames import FrameLoader, make_loader
from msrf_monai.errors import ConfigError, InputError, MsrfError
from msrf_monai.transforms.decide import DecideMaskd
from msrf_monai.transforms.restore import RestoreSized

__all__ = ["Chain", "run_transforms", "split_chain"]

PRED = CommonKeys.PRED
_RESTORERS = (Invertd, RestoreSized)


@dataclass(frozen=True)
class Chain:
    """The transforms of a bundle around its network."""

    load: FrameLoader
    before: Compose
    """From the loaded frame to the network's input."""
    scores: Compose
    """From the network's output to what the mask is decided on."""
    decide: Compose
    """The deciding transform and all after it; nothing in it writes a file."""
    restore: Compose
    """Those of ``decide`` that bring results back onto the image's pixels, for probabilities that need it as well."""
    meaning: ScoreMeaning
    threshold: float | None
    """The threshold in force; None where classes are compared with each other."""


def split_chain(
    config: BundleConfig,
    *,
    threshold: float | None = None,
    read: Callable[[Case, int], npt.NDArray[Any]] = Case.frame,
) -> Chain:
    """Build and cut a bundle's pre- and postprocessing.

    Args:
        config: the bundle's.
        threshold: replaces that of the deciding transform.
        read: gives a frame of a case, see ``IntensityScaler``.

    Returns:
        The parts, made of the very transforms that the configuration builds.

    Raises:
        ConfigError: when the chains do not begin by loading one image, decide nothing, or have no threshold to replace.
    """
    preprocessing, postprocessing = (_compose(config, name) for name in ("preprocessing", "postprocessing"))
    first, *rest = _after_loading(preprocessing, config)
    steps = [step for step in _steps(postprocessing) if not type(step).__name__.startswith("Save")]
    index = next((number for number, step in enumerate(steps) if _decides(step)), None)
    if index is None:
        raise ConfigError(
            f"the postprocessing of {config.file} has no transform that decides the mask; expected AsDiscreted or "
            f'DecideMaskd on "{PRED}"'
        )
    decider = steps[index] if threshold is None else _with_threshold(steps[index], threshold, config)
    scores, after = steps[:index], steps[index + 1 :]
    if not any(isinstance(step, _RESTORERS) for step in steps) and _changes_geometry(rest):
        scores = [*scores, Invertd(PRED, preprocessing, orig_keys=first.keys[0], nearest_interp=False)]
    meaning = _meaning(scores, decider, config)
    return Chain(
        make_loader(first, config.build("intensity") if config.has("intensity") else None, _channels(config), read),
        _like(preprocessing, rest),
        _like(postprocessing, scores),
        _like(postprocessing, [decider, *after]),
        _like(postprocessing, [step for step in after if isinstance(step, _RESTORERS)]),
        meaning,
        _threshold(decider),
    )


def run_transforms(transforms: Compose, item: Mapping[Hashable, Any], stage: str) -> dict[Hashable, Any]:
    """Apply transforms to an item.

    Args:
        transforms: the chain; with none in it the item comes back.
        item: the item, which is not changed.
        stage: the chain's name, for the error.

    Raises:
        MsrfError: as the transforms of this package.
        InputError: when another transform fails; the message names it, and nothing of the image.
    """
    try:
        return dict(transforms(dict(item)))
    except MsrfError:
        raise
    except Exception as error:  # a bundle may hold any transform, and each of them fails in its own way
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, MsrfError):
            cause = cause.__cause__
        if cause is not None:
            raise cause from None
        named = re.search(r"applying transform <?[\w.]*?(\w+)(?: object|$)", str(error))
        name = named.group(1) if named else "a transform"
        root = error.__cause__ or error
        raise InputError(
            f"{name} of the bundle's {stage} cannot handle this image ({type(root).__name__}); "
            "check that the bundle is meant for images of this kind"
        ) from error


def _compose(config: BundleConfig, name: str) -> Compose:
    built = config.build(name)
    return built if isinstance(built, Compose) else Compose(built)


def _steps(transforms: Compose) -> list[Any]:
    return list(transforms.flatten().transforms)  # type: ignore[no-untyped-call]


def _like(original: Compose, steps: Sequence[Any]) -> Compose:
    return Compose(list(steps), lazy=original.lazy, overrides=original.overrides)


def _after_loading(preprocessing: Compose, config: BundleConfig) -> list[Any]:
    """Return the loading transform and all after it."""
    steps = _steps(preprocessing)
    loaders = [number for number, step in enumerate(steps) if isinstance(step, LoadImaged)]
    if len(loaders) != 1 or len(steps[loaders[0]].keys) != 1:
        raise ConfigError(
            f"the preprocessing of {config.file} loads {len(loaders)} times; expected one LoadImaged or LoadImage2Dd "
            "with one key, the image"
        )
    return steps[loaders[0] :]


def _changes_geometry(steps: Sequence[Any]) -> bool:
    return any(isinstance(step, InvertibleTransform) for step in steps)


def _decides(step: Any) -> bool:
    if not isinstance(step, MapTransform) or PRED not in step.keys:
        return False
    if isinstance(step, AsDiscreted):
        place = step.keys.index(PRED)
        return bool(step.argmax[place]) or step.threshold[place] is not None
    return isinstance(step, DecideMaskd)


def _threshold(decider: Any) -> float | None:
    if isinstance(decider, DecideMaskd):
        return float(decider.decider.threshold)
    found = decider.threshold[decider.keys.index(PRED)]
    return None if found is None else float(found)


def _with_threshold(decider: Any, threshold: float, config: BundleConfig) -> MapTransform:
    """Return the deciding transform with another threshold."""
    if not 0 < threshold < 1:
        raise ConfigError(f"threshold must lie between 0 and 1, got {threshold}")
    planes = config.described("outputs", PRED, "num_channels")
    if isinstance(decider, DecideMaskd):
        rule = decider.decider
        if isinstance(planes, int) and planes > 2 and not rule.multilabel:
            raise ConfigError(f"{config.folder} chooses among {planes} classes, and a threshold has no meaning for it")
        return DecideMaskd(PRED, threshold, from_logits=rule.from_logits, multilabel=rule.multilabel)
    place = decider.keys.index(PRED)
    if not decider.argmax[place]:
        options = {"to_onehot": decider.to_onehot[place], "rounding": decider.rounding[place]}
        return AsDiscreted(PRED, threshold=threshold, **options, **decider.converter.kwargs)
    if planes != 2 or decider.to_onehot[place] is not None:
        raise ConfigError(f"{config.folder} takes the most probable class, and a threshold has no meaning for it")
    return DecideMaskd(PRED, threshold)


def _meaning(scores: Sequence[Any], decider: Any, config: BundleConfig) -> ScoreMeaning:
    activations = [step for step in scores if isinstance(step, Activationsd) and PRED in step.keys]
    is_softmax = any(step.softmax[step.keys.index(PRED)] for step in activations)
    is_active = is_softmax or any(step.sigmoid[step.keys.index(PRED)] for step in activations)
    output = config.described("outputs", PRED)
    output = output if isinstance(output, Mapping) else {}
    units: Units = "unknown"
    if isinstance(decider, DecideMaskd) and decider.decider.from_logits:
        units = "logits"
    elif is_active or output.get("format") == "probability":  # value_range is often that of the activated output
        units = "probabilities"
    if isinstance(decider, DecideMaskd):
        return ScoreMeaning(units, not decider.decider.multilabel)
    names = output.get("channel_def")
    has_background = (
        isinstance(names, Mapping)
        and len(names) == output.get("num_channels")
        and str(names.get("0")).lower() == "background"
    )
    is_exclusive = bool(decider.argmax[decider.keys.index(PRED)]) or is_softmax or has_background
    return ScoreMeaning(units, is_exclusive)


def _channels(config: BundleConfig) -> int | None:
    planes = config.described("inputs", "image", "num_channels")
    if planes is None:
        planes = config.parser.get("network_def::in_channels") if config.has("network_def::in_channels") else None
    return planes if planes in (1, 3) else None
