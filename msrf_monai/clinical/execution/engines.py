"""The choice of who does the work of a run: this process, or workers here or in a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msrf_monai.clinical.crashes import CrashJournal
from msrf_monai.clinical.desks import take_away_all
from msrf_monai.clinical.execution.loading import load_predictor
from msrf_monai.clinical.execution.local import LocalRun
from msrf_monai.clinical.execution.roles import Observer
from msrf_monai.clinical.execution.worker_handle import Processes
from msrf_monai.clinical.execution.worker_pool import WorkerPool
from msrf_monai.clinical.execution.workers import WorkersRun
from msrf_monai.clinical.execution.workplace import Workplace
from msrf_monai.clinical.inputs import PlannedInput
from msrf_monai.clinical.ledger import Ledger
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.result_writer import ResultWriter
from msrf_monai.clinical.run_options import RunOptions
from msrf_monai.clinical.slide_writer import SlideWriter
from msrf_monai.errors import ConfigError

if TYPE_CHECKING:
    from msrf_monai.clinical.predictor import Predictor

__all__ = ["Engine", "open_engine", "open_model"]


class Engine(Protocol):
    """Does plans."""

    def run(self, plan: MutableSequence[PlannedInput]) -> set[str]:
        """Do everything in a plan that is not done yet; see ``LocalRun.run``."""
        ...  # pragma: no cover


@contextmanager
def open_model(
    bundle: str | os.PathLike[str] | Predictor, settings: RunOptions, results: ResultFolder
) -> Iterator[Predictor | WorkerPool]:
    """Load a bundle once, here or in as many workers as the settings say, for as long as the block runs.

    Args:
        bundle: its folder, or a predictor that is loaded already.
        settings: of the run.
        results: its result folder, which this run holds.

    Yields:
        What ``open_engine`` takes; it has the bundle's ``name``, ``version`` and ``model_digest``. Workers load while
        the block goes on, and these wait for the first one that has.

    Raises:
        ConfigError: when workers are asked for and the predictor is loaded already, or an option makes no sense.
        CheckpointError: when the weights are missing or do not fit.
        EngineError: when no worker can begin.
        StorageError: when the result folder cannot be changed.
    """
    take_away_all(results.root)
    if not isinstance(bundle, str | os.PathLike):
        if settings.has_workers:
            raise ConfigError(
                "a predictor that is loaded already cannot be sent to other processes; give the bundle's folder, or "
                "run with num_workers=0 and the engine local"
            )
        yield bundle
    elif settings.has_workers:
        with WorkerPool(Path(bundle), settings, results.root, workplace=_workplace(settings)) as pool:
            yield pool
    else:
        yield load_predictor(Path(bundle), settings)


def _workplace(settings: RunOptions) -> Workplace:
    if settings.engine == "local":
        return Processes()
    from msrf_monai.clinical.execution.ray_workers import RayCluster

    return RayCluster(settings.ray_address, on_gpus=settings.device != "cpu")


def open_engine(
    model: Predictor | WorkerPool,
    settings: RunOptions,
    results: ResultFolder,
    ledger: Ledger,
    *,
    note_sources: Callable[[PlannedInput], None],
    observer: Observer | None = None,
    privacy: PrivateLogs | None = None,
    journal: CrashJournal | None = None,
) -> Engine:
    """Return who does a plan with a model.

    Args:
        model: of ``open_model``.
        settings: of the run.
        results: the result folder.
        ledger: its manifest, open.
        note_sources: called with each input before its line is added; for the list of paths.
        observer: is told of every input that is finished.
        privacy: that the threads of the run join.
        journal: is told which inputs are in work, and says which may bring the process down.
    """
    if isinstance(model, WorkerPool):
        return WorkersRun(
            model, results, ledger, settings, note_sources=note_sources, observer=observer, journal=journal
        )
    return LocalRun(
        model,
        ResultWriter(model, settings),
        SlideWriter(model, settings),
        results,
        ledger,
        limits=settings.limits,
        note_sources=note_sources,
        convert_unusual=settings.convert_unusual,
        readers=settings.reader_count,
        thumbnails=settings.thumbnails,
        observer=observer,
        privacy=privacy,
        journal=journal,
    )
