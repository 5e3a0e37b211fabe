"""Predict cases with a bundle: its ``inference.json`` says everything about pre-processing, network and masks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.inferers.inferer import SimpleInferer

from msrf_monai.clinical.backends import Backend, build_backend, pick_device
from msrf_monai.clinical.case import Case
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.predictor_chain import PRED, Chain, run_transforms, split_chain
from msrf_monai.clinical.predictor_config import read_bundle
from msrf_monai.clinical.predictor_decision import class_rows, dice_of_classes
from msrf_monai.clinical.predictor_network import digest_of, load_runnable
from msrf_monai.clinical.predictor_reading import FrameGate
from msrf_monai.clinical.traits import traits_of
from msrf_monai.clinical.writing.segments import Segment, segments_from_metadata
from msrf_monai.errors import ConfigError, InputError
from msrf_monai.runtime import set_threads
from msrf_monai.transforms.rows import plain, with_meta

__all__ = ["Backend", "Predictor", "PredictorOptions"]

MIRRORED = "mirrored"


@dataclass(frozen=True)
class PredictorOptions:
    """How a bundle's network is run."""

    device: str = "auto"
    """``"auto"`` (a CUDA device when there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``."""
    backend: Backend = "eager"
    tta: bool = False
    """Average the image and its three mirror images: four times the computation."""
    check_flips: bool = False
    """Predict the mirror image (left to right) of each frame too, and say how far both agree: twice the computation."""
    threshold: float | None = None
    """Replaces that of the bundle's deciding transform; None keeps it."""
    keep_probabilities: bool = False
    weights: Path | None = None
    """A file of weights instead of the bundle's own."""
    num_threads: int | None = None
    """CPU threads inside one operation; None leaves what the process has."""
    overrides: tuple[tuple[str, Any], ...] = ()
    """Config ids of ``inference.json`` and their new values, such as ``("network_def::features", 8)``."""
    cache: Path | None = None
    """Folder of exported networks, kept from run to run; None for the user's own, see ``network_cache``."""


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A bundle's network with its chains, ready for cases; made by ``from_bundle``.

    Reading, network and masks are apart, so that a pipeline can overlap them: ``prepare`` may be called from several
    threads at once, ``infer`` and ``finish`` from one thread each. A result depends on the case and on the bundle only,
    never on what was predicted before.
    """

    name: str
    version: str
    model_digest: str
    """SHA-256 over the weights, the configuration with its overrides, ``tta`` and ``threshold``."""
    segments: tuple[Segment, ...]
    metadata: dict[str, Any]
    threshold: float | None
    """The threshold in force; None where the bundle takes the most probable class."""
    options: PredictorOptions
    device: torch.device
    _gate: FrameGate
    _chain: Chain
    _inferer: Any
    _network: Any
    _amp: bool

    @classmethod
    def from_bundle(cls, bundle: str | Path, options: PredictorOptions | None = None) -> Predictor:
        """Read a bundle and load its weights once.

        Args:
            bundle: folder of any MONAI bundle for 2-D segmentation with ``configs/inference.json``.
            options: how to run it; default ``PredictorOptions()``.

        Returns:
            The predictor, its network in evaluation mode.

        Raises:
            ConfigError: when the bundle is none, is incomplete, is for volumes, or an option does not fit it, another
                option or this computer.
            CheckpointError: when there are no weights, or not the listed ones, or they do not fit the network.
            MissingExtraError: when the backend's library is not installed.
        """
        options = options or PredictorOptions()
        if options.tta and options.check_flips:
            raise ConfigError(
                "an average over mirror images agrees with its own mirror image; give either tta or check_flips"
            )
        device = pick_device(options.device, options.backend)
        if options.num_threads is not None:
            set_threads(options.num_threads)
        config = read_bundle(bundle, overrides=options.overrides, tta=options.tta, device=str(device))
        gate = FrameGate()
        chain = split_chain(config, threshold=options.threshold, read=gate.frame)
        source = load_runnable(
            config,
            weights=options.weights,
            overrides=options.overrides,
            cache=options.cache,
            num_threads=options.num_threads,
        )
        return cls(
            name=str(config.metadata.get("name") or config.folder.resolve().name),
            version=str(config.metadata.get("version") or ""),
            model_digest=digest_of(model=source.digest, tta=options.tta, threshold=options.threshold),
            segments=segments_from_metadata(config.metadata),
            metadata=config.metadata,
            threshold=chain.threshold,
            options=options,
            device=device,
            _gate=gate,
            _chain=chain,
            _inferer=config.build("inferer") if config.has("inferer") else SimpleInferer(),
            _network=build_backend(options.backend, source, device),
            _amp=device.type == "cuda" and config.has("evaluator::amp") and bool(config.build("evaluator::amp")),
        )

    def prepare(self, case: Case, index: int) -> dict[str, Any]:
        """Read and preprocess one frame; may be called from several threads at once.

        Args:
            case: the case.
            index: the frame's number.

        Returns:
            What ``infer`` takes.

        Raises:
            RefusedInput: when the frame cannot be read.
            DataError: when its values cannot be brought onto the bundle's scale.
            InputError: when the bundle's preprocessing cannot handle it.
        """
        pixels = self._gate.frame(case, index)
        started = time.perf_counter()
        picture = self._chain.load.picture(case, pixels)
        loaded = self._chain.load.load(case, index, picture)
        return {
            "traits": traits_of(picture),
            "data": run_transforms(self._chain.before, loaded, "preprocessing"),
            "size": (case.info.rows, case.info.columns),
            "seconds": time.perf_counter() - started,
        }

    def network_input(self, item: dict[str, Any]) -> torch.Tensor:
        """Return what the inferer gets of a prepared frame: ``(C, H, W)`` in the axes of the bundle's chain.

        Args:
            item: from ``prepare``.

        Raises:
            InputError: when the preprocessing gave no 2-D image.
        """
        image = item["data"][self._chain.load.key]
        if not isinstance(image, torch.Tensor) or image.ndim != 3:
            raise InputError(
                f"the bundle's preprocessing gives {getattr(image, 'shape', type(image).__name__)} for one frame; "
                "expected one channel-first 2-D image"
            )
        return image

    def infer(self, item: dict[str, Any]) -> dict[str, Any]:
        """Run the network on a prepared frame; called from one thread.

        Args:
            item: from ``prepare``; it is not changed.

        Returns:
            What ``finish`` takes; results are on the CPU.

        Raises:
            InputError: when the preprocessing gave no 2-D image.
        """
        started = time.perf_counter()
        image = self.network_input(item)
        batch = plain(image)[None].to(self.device).contiguous()
        scores = self._scores(batch, image)
        mirrored = self._scores(batch.flip(2), image, mirrored=True) if self.options.check_flips else None
        seconds = item["seconds"] + time.perf_counter() - started
        return {**item, "data": {**item["data"], PRED: scores}, MIRRORED: mirrored, "seconds": seconds}

    def finish(self, items: Iterable[dict[str, Any]]) -> Prediction:
        """Postprocess the frames of one case and bring them back onto its grid.

        Args:
            items: from ``infer``, in the order of the frames; they are taken one by one, so that a generator keeps one
                frame in memory.

        Returns:
            The prediction.

        Raises:
            InputError: when there is no item, or the bundle's postprocessing cannot handle one.
            ConfigError: when the postprocessing gives no mask on the case's pixels.
        """
        masks, maps, confidences, agreements, traits, seconds = [], [], [], [], [], 0.0
        for item in items:
            started = time.perf_counter()
            mask, foreground, confidence = self._decide(item)
            masks.append(mask)
            confidences.append(confidence)
            traits.append(item["traits"])
            if item[MIRRORED] is not None:
                again, _, _ = self._decide({**item, "data": {**item["data"], PRED: item[MIRRORED]}})
                agreements.append(dice_of_classes(mask, again))
            if foreground is not None:
                maps.append(foreground)
            seconds += item["seconds"] + time.perf_counter() - started
        if not masks:
            raise InputError("a case without frames has no prediction")
        return Prediction(
            np.stack(masks),
            np.stack(maps) if maps else None,
            tuple(confidences),
            seconds,
            flip_agreement=tuple(agreements) or None,
            traits=tuple(traits),
        )

    def predict(self, case: Case) -> Prediction:
        """Prepare, infer and finish every frame of a case, one in memory at a time.

        Args:
            case: the case.

        Returns:
            The prediction.

        Raises:
            MsrfError: as ``prepare``, ``infer`` and ``finish``.
        """
        return self.finish(self.infer(self.prepare(case, index)) for index in range(case.info.frames))

    def _scores(self, batch: torch.Tensor, image: torch.Tensor, *, mirrored: bool = False) -> torch.Tensor:
        """Return what the network gives, on the CPU and as the chain wants it, turned back when it was ``mirrored``."""
        with torch.no_grad(), self._precision():
            scores = plain(self._inferer(batch, self._network))[0].float().cpu()
        scores = scores.flip(1) if mirrored else scores
        return with_meta(scores, image) if isinstance(image, MetaTensor) else scores

    def _decide(self, item: dict[str, Any]) -> tuple[Any, Any, float]:
        """Return the mask ``(H, W)``, the probabilities ``(K, H, W)`` when they are kept, and the confidence."""
        chain, meaning = self._chain, self._chain.meaning
        data = run_transforms(chain.scores, item["data"], "postprocessing")
        probabilities = meaning.probabilities(data[PRED])
        foreground = meaning.foreground(probabilities)
        decided = run_transforms(chain.decide, data, "postprocessing")[PRED]
        if chain.restore.transforms:
            on_scores = {**data, PRED: with_meta(foreground, data[PRED])}
            foreground = plain(run_transforms(chain.restore, on_scores, "postprocessing")[PRED])
        mask = class_rows(decided, foreground, has_background=meaning.is_exclusive, size=item["size"])
        confidence = meaning.confidence(probabilities)
        if not self.options.keep_probabilities:
            return mask, None, confidence
        rows = foreground.permute(0, 2, 1).contiguous().numpy().astype(np.float16)
        if rows.shape[1:] != mask.shape:
            raise ConfigError("the bundle's postprocessing brings masks back to the image's size, but no probabilities")
        return mask, rows, confidence

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda") if self._amp else nullcontext()
