"""A threshold that validation images choose, kept in a file for the evaluation that follows."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from torch import Tensor

from msrf_monai.engines.best import versions
from msrf_monai.engines.cases import UNKNOWN_FILE, case_names
from msrf_monai.engines.report_parts import EvaluationHandler, absolute_path
from msrf_monai.engines.vessel_report_cases import evaluated_items
from msrf_monai.errors import DataError, InputError
from msrf_monai.json_files import write_json
from msrf_monai.metrics import Confusion, choose_threshold, confusion, pixels_inside, vessel_pixel_scores

__all__ = ["THRESHOLD_NAME", "ChooseThreshold", "read_threshold"]

_LOGGER = logging.getLogger(__name__)
THRESHOLD_NAME = "threshold.json"


class ChooseThreshold(EvaluationHandler):
    """Choose the threshold with the highest Dice over the pixels of all validation images together.

    Attach it to an evaluator of the **validation** part whose items have ``"probability"`` and ``"label"``, and
    ``"fov"`` where only the field of view counts. It writes ``threshold.json``, which ``VesselReport`` reads. Images
    count once, also when several processes share them. It keeps five bytes for each pixel of the field of view until
    the end of the evaluation (a picture of 960 x 999: 3 MB).

    Args:
        output_dir: folder of the file.
        steps: number of candidates, see ``msrf_monai.metrics.choose_threshold``.
        channel: channel (K, X, Y) of the probability and the masks.
        filename: name of the file.

    Attributes:
        value: the threshold, None before the first evaluation has ended.
    """

    def __init__(self, output_dir: str, *, steps: int = 1000, channel: int = 0, filename: str = THRESHOLD_NAME) -> None:
        self.path = Path(output_dir) / filename
        self.steps = steps
        self.channel = channel
        self.value: float | None = None
        self._names: list[str] = []
        self._pixels: list[tuple[Tensor, Tensor]] = []
        self._has_fov = True

    def __call__(self, engine: Any) -> None:
        """Choose the threshold, write the file and put ``threshold`` and ``threshold_f1`` among the metrics.

        Raises:
            InputError: when no image was seen, or none has a vessel in truth.
            StorageError: when the file cannot be written.
        """
        count, probability, label = self._gathered()
        if count == 0:
            raise InputError("there is no validation image to choose the threshold on; prepare the data set with some")
        self.value = choose_threshold([probability], [label], steps=self.steps)
        f1, f1_at_half = (_f1(probability, label, threshold) for threshold in (self.value, 0.5))
        engine.state.metrics.update({"threshold": self.value, "threshold_f1": f1})
        self._names, self._pixels = [], []
        if idist.get_rank() == 0:
            content = {
                "threshold": self.value,
                "f1": f1,
                "f1_at_0.5": f1_at_half,
                "images": count,
                "pixels": "in the field of view" if self._has_fov else "of whole images: no field of view was given",
                "rule": f"highest Dice over the pixels of all images together, in steps of 1/{self.steps}",
                "versions": versions(),
            }
            write_json(self.path, content)
            _LOGGER.info("threshold %.3f (Dice %.4f) by %d validation images: %s", self.value, f1, count, self.path)
        idist.barrier()  # others may read the file next

    def _begin(self) -> None:
        self._names, self._pixels, self._has_fov = [], [], True

    def _collect(self, engine: Any) -> None:
        for item, name in zip(evaluated_items(engine), case_names(engine.state.batch), strict=True):
            path = absolute_path(name)
            if path != UNKNOWN_FILE and path in self._names:
                continue
            probability, label = (item[key][self.channel].detach().cpu() for key in ("probability", "label"))
            fov = item.get("fov")
            self._has_fov = self._has_fov and fov is not None
            inside = None if fov is None else fov[0].detach().cpu()
            said, true = pixels_inside(probability, label, inside, name="probability")
            self._names.append(path)
            self._pixels.append((said.float(), true))

    def _gathered(self) -> tuple[int, Tensor, Tensor]:
        """Return the number of images and the pixels of all processes, each image once."""
        kept = list(range(len(self._names)))
        count = len(kept)
        if idist.get_world_size() > 1:
            gathered: Any = idist.all_gather(json.dumps(self._names))
            shares = [json.loads(share) for share in gathered]
            before = {name for share in shares[: idist.get_rank()] for name in share} - {UNKNOWN_FILE}
            kept = [place for place in kept if self._names[place] not in before]
            known = {name for share in shares for name in share} - {UNKNOWN_FILE}
            count = len(known) + sum(share.count(UNKNOWN_FILE) for share in shares)
        parts = [self._pixels[place] for place in kept] or [(torch.empty(0), torch.empty(0, dtype=torch.bool))]
        said, true = (torch.cat(list(each)) for each in zip(*parts, strict=True))
        return count, _of_all_processes(said), _of_all_processes(true.float()).bool()


def read_threshold(path: str | os.PathLike[str]) -> float:
    """Return the threshold of a file that ``ChooseThreshold`` wrote.

    Args:
        path: the file.

    Raises:
        DataError: when the file is missing or holds no threshold in [0, 1].
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        value = float(content["threshold"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no threshold can be read from it ({error}); evaluate the validation images first "
            "(msrf_monai.engines.ChooseThreshold), or give the threshold as a number"
        ) from error
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise DataError(f"{path}: the threshold is {value}; expected a probability in [0, 1]")
    return value


def _of_all_processes(values: Tensor) -> Tensor:
    """Return the values (N,) of all processes, which may have different numbers of them."""
    if idist.get_world_size() == 1:
        return values
    device = idist.device()
    sizes: Any = idist.all_gather(torch.tensor([len(values)], device=device))
    longest = int(sizes.max())
    padded = torch.zeros(longest, device=device)
    padded[: len(values)] = values.to(device)
    shares: Any = idist.all_gather(padded[None])
    return torch.cat([share[:size] for share, size in zip(shares, sizes.flatten().tolist(), strict=True)]).cpu()


def _f1(probability: Tensor, label: Tensor, threshold: float) -> float:
    counts = confusion((probability >= threshold)[None], label[None])
    return float(vessel_pixel_scores(Confusion(*(count[0] for count in counts)))["f1"])
