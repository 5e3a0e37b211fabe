"""Predict cases with a bundle: its ``inference.json`` says everything about pre-processing, network and masks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from msrf_monai.clinical.case import Case
from msrf_monai.clinical.prediction import Prediction
from msrf_monai.clinical.writing.segments import Segment

__all__ = ["Backend", "Predictor", "PredictorOptions"]

Backend = Literal["eager", "torchscript", "onnxruntime", "openvino", "tensorrt"]


@dataclass(frozen=True)
class PredictorOptions:
    """How a bundle's network is run."""

    device: str = "auto"
    """``"auto"`` (a CUDA device when there is one), ``"cpu"``, ``"cuda"`` or ``"cuda:N"``."""
    backend: Backend = "eager"
    tta: bool = False
    """Average the image and its three mirror images: four times the computation."""
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
    """Folder of exported networks, kept from run to run; None for a temporary one."""


class Predictor:
    """A bundle's network with its chains, ready for cases; make it with ``from_bundle``."""

    name: str
    version: str
    model_digest: str
    segments: tuple[Segment, ...]
    metadata: dict[str, Any]
    threshold: float | None

    @classmethod
    def from_bundle(cls, bundle: str | Path, options: PredictorOptions | None = None) -> Predictor:
        """Read a bundle and load its weights once."""
        raise NotImplementedError

    def prepare(self, case: Case, index: int) -> dict[str, Any]:
        """Read and preprocess one frame; may be called from several threads at once."""
        raise NotImplementedError

    def infer(self, item: dict[str, Any]) -> dict[str, Any]:
        """Run the network on a prepared frame; called from one thread."""
        raise NotImplementedError

    def finish(self, items: Iterable[dict[str, Any]]) -> Prediction:
        """Postprocess the frames of one case, in their order, and bring them back onto its grid."""
        raise NotImplementedError

    def predict(self, case: Case) -> Prediction:
        """Prepare, infer and finish every frame of a case, one in memory at a time."""
        return self.finish(self.infer(self.prepare(case, index)) for index in range(case.info.frames))
