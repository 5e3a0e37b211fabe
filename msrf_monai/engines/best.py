"""The best weights of a training run, as a plain file that anything can load."""

from __future__ import annotations

import hashlib
import io
import logging
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import monai
import torch
from ignite.engine import Events
from torch import nn

import msrf_monai
from msrf_monai.engines.finite import refuse_non_finite
from msrf_monai.engines.weights import unwrap
from msrf_monai.files import write_bytes
from msrf_monai.json_files import write_json

__all__ = ["SaveBest", "save_weights", "save_with_record", "versions"]

_LOGGER = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Return the versions that decide a result: this package, MONAI and PyTorch."""
    return {"msrf_monai": msrf_monai.__version__, "monai": str(monai.__version__), "torch": str(torch.__version__)}


def save_weights(network: nn.Module, path: str | Path) -> str:
    """Write a network's plain state dictionary, whole or not at all.

    Args:
        network: a network, maybe wrapped for distributed training or compiled.
        path: the ``.pt`` file to write; ``torch.load(path, weights_only=True)`` reads it.

    Returns:
        The SHA-256 digest of the file.

    Raises:
        StorageError: when it cannot be written; an older file stays as it is.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in unwrap(network).state_dict().items()}
    content = io.BytesIO()
    torch.save(state, content)
    write_bytes(path, content.getvalue())
    return hashlib.sha256(content.getvalue()).hexdigest()


class SaveBest:
    """Keep the weights of the best validation, by the evaluator's key metric.

    Attach it to the evaluator. When the epoch that was just validated is the best so far, the evaluator's network (the
    averaged one where validation uses it) is written to ``save_dir/filename``, with a small JSON file beside it.
    Together with ``TrainingState``, which restores the best metric, a resumed run never replaces a better file. The
    JSON file also names the fusion that Hi-gMISnet chose and the files that its trunks started from.

    Args:
        save_dir: folder of the weights, such as a bundle's ``models``.
        network: what to save; the evaluator's own network by default.
        filename: name of the weights; the JSON file has the same name with ``.json``.
        seed: seed of the run, noted in the JSON file.
        last: save at each validation, the best or not, so that the last one stays: for recipes that choose nothing.
    """

    def __init__(
        self,
        save_dir: str,
        *,
        network: nn.Module | None = None,
        filename: str = "model.pt",
        seed: int | None = None,
        last: bool = False,
    ) -> None:
        self.path = Path(save_dir) / filename
        self.network = network
        self.seed = seed
        self.last = last

    def attach(self, engine: Any) -> None:
        """Register with an evaluator that has a key metric."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Save when this epoch is the best, or always with ``last``; only the process of rank 0 writes.

        Raises:
            StorageError: when the files cannot be written.
            NonFiniteLossError: when a parameter or buffer is NaN or infinite; an older file stays.
        """
        state = engine.state
        is_best = state.best_metric_epoch == state.epoch
        if not (is_best or self.last) or idist.get_rank() != 0:
            return
        network = self.network if self.network is not None else engine.network
        value = float(state.best_metric if is_best else state.metrics[state.key_metric_name])
        record = save_with_record(
            network, self.path, epoch=int(state.epoch), metric=state.key_metric_name, value=value, seed=self.seed
        )
        what = "is the best so far" if is_best else "was saved"
        _LOGGER.info("epoch %d %s (%s %.4f): %s", record["epoch"], what, record["metric"], record["value"], self.path)


def save_with_record(
    network: nn.Module, path: Path, *, epoch: int, metric: str | None, value: float | None, seed: int | None
) -> dict[str, Any]:
    """Write weights, and beside them the JSON file that says what they are.

    Args:
        network: whose weights.
        path: of the weights; the record's has the suffix ``.json``.
        epoch: after which they are saved.
        metric: name of what validation measured; None without a validation.
        value: what it measured.
        seed: of the run.

    Returns:
        The record.

    Raises:
        StorageError: when the files cannot be written.
        NonFiniteLossError: when a parameter or buffer is NaN or infinite; an older file stays.
    """
    refuse_non_finite(unwrap(network).state_dict(), epoch=epoch, path=path)
    record = {
        "sha256": save_weights(network, path),
        **{"epoch": epoch, "metric": metric, "value": value, "seed": seed},
        **_facts(unwrap(network)),
        "versions": versions(),
    }
    write_json(path.with_suffix(".json"), record)
    return record


def _facts(network: nn.Module) -> dict[str, Any]:
    """Return what a network knows about itself and a reader of its weights should: a fusion, files of its trunks."""
    fusion = getattr(network, "fusion", None)
    facts: dict[str, Any] = {"fusion": fusion} if isinstance(fusion, str) else {}
    trunks = {
        name: {"file": weights.file, "sha256": weights.sha256}
        for module in network.modules()
        for name, weights in getattr(module, "backbone_weights", {}).items()
    }
    return facts | ({"backbone_weights": trunks} if trunks else {})
