"""Load the predictor of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msrf_monai.clinical.run_options import RunOptions

if TYPE_CHECKING:
    from msrf_monai.clinical.predictor import Predictor

__all__ = ["load_predictor"]


def load_predictor(
    bundle: Path,
    settings: RunOptions,
    *,
    threads: int | None = None,
    worker: int | None = None,
) -> Predictor:
    """Load a bundle's predictor as a run's settings want it.

    Args:
        bundle: its folder.
        settings: of the run.
        threads: of one operation of the network; None for what the settings say.
        worker: number of this process where several do the work, which share the GPUs of a computer.

    Raises:
        ConfigError, CheckpointError, MissingExtraError: see ``Predictor.from_bundle``.
    """
    # torch takes seconds to load: not before everything else has been checked
    from msrf_monai.clinical.predictor import Predictor, PredictorOptions

    return Predictor.from_bundle(
        bundle,
        PredictorOptions(
            device=_device(settings, worker),
            backend=settings.backend,
            tta=settings.tta,
            check_flips=settings.check_flips,
            threshold=settings.threshold,
            keep_probabilities=settings.keeps_probabilities,
            weights=settings.weights,
            num_threads=threads or settings.num_threads,
            overrides=settings.overrides,
        ),
    )


def _device(settings: RunOptions, worker: int | None) -> str:
    """Return where the network runs: where any GPU will do, each worker takes the next one."""
    if worker is None or settings.device not in ("auto", "cuda"):
        return settings.device
    from torch.cuda import device_count

    from msrf_monai.clinical.backends import pick_device

    found = pick_device(settings.device, settings.backend)
    return f"cuda:{worker % device_count()}" if found.type == "cuda" else str(found)
