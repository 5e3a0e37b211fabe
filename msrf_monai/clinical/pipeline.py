"""Clinical batch inference: find the inputs, predict each, write it whole, and lose nothing.

``predict`` is what ``msrf-monai predict`` does; ``PredictionRun`` does batch after batch, as a PACS sends them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msrf_monai.clinical.crashes import CrashJournal
from msrf_monai.clinical.execution.engines import open_engine, open_model
from msrf_monai.clinical.execution.roles import Observer
from msrf_monai.clinical.inputs import PlannedInput, check_given, plan_inputs
from msrf_monai.clinical.ledger import Entries, Entry, Header, Ledger, State, digest_of_options
from msrf_monai.clinical.lock import hold
from msrf_monai.clinical.naming import short_hash
from msrf_monai.clinical.privacy import PrivateLogs
from msrf_monai.clinical.quality import QualityLimits
from msrf_monai.clinical.result_folder import ResultFolder
from msrf_monai.clinical.run_options import RunOptions, RunResult
from msrf_monai.clinical.sent_again import SUPERSEDED, marks_of, settle
from msrf_monai.clinical.sources import SourceList
from msrf_monai.errors import MissingExtraError
from msrf_monai.runtime import versions

if TYPE_CHECKING:
    from msrf_monai.clinical.execution.worker_pool import WorkerPool
    from msrf_monai.clinical.predictor import Predictor

__all__ = ["Batch", "PredictionRun", "predict"]

_PACKAGES = ("pydicom", "highdicom", "pyjpegls", "imagecodecs", "nibabel")


def predict(
    bundle: str | os.PathLike[str] | Predictor,
    inputs: Iterable[str | os.PathLike[str]] | str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    observer: Observer | None = None,
    **options: Any,
) -> RunResult:
    """Predict files, folders and DICOM studies with a bundle.

    Every input ends as one line of ``manifest.jsonl`` in the result folder: done, with its results in a sub-folder of
    its own; failed, with a code and a sentence; or skipped. An input that cannot be read stops nothing.

    Args:
        bundle: folder of a MONAI bundle for 2-D segmentation, or a predictor that is loaded already.
        inputs: files, folders and patterns; what a file is, its content says.
        output: the result folder; made when missing.
        observer: is told of every input that is finished.
        **options: see ``RunOptions``.

    Returns:
        How many inputs are done, failed, flagged and skipped.

    Raises:
        InputError: when there are no inputs, or the result folder holds something else.
        ConfigError: when the bundle or an option makes no sense, or the folder's results were made otherwise.
        CheckpointError: when the weights are missing or do not fit.
        EngineError: when worker processes cannot begin, or die again and again.
        StorageError: when another run is writing there, or the disk takes nothing more; what is done stays whole.
    """
    settings = RunOptions(**options)
    many = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    check_given(many)
    with PredictionRun(bundle, output, settings, observer=observer) as run:
        done = run.do(many)
        run.report()
    return done.counted


@dataclass(frozen=True)
class Batch:
    """What became of one batch of inputs."""

    counted: RunResult
    """How many are done, failed, flagged and skipped."""
    entries: tuple[Entry, ...] = ()
    """The line of each input, in the order of the plan, where they were asked for."""
    sources: tuple[tuple[str, ...], ...] = ()
    """The files of each input, where they were asked for."""

    @property
    def kept(self) -> int:
        """Of all of them: how many an earlier batch or run had finished."""
        return self.counted.kept


class PredictionRun:
    """A result folder that is open for one batch of inputs after the other; the weights are loaded once.

    Use it as a context: it holds the folder's lock, its manifest and its private list from ``with`` on.

    Args:
        bundle: folder of a MONAI bundle for 2-D segmentation, or a predictor that is loaded already.
        output: the result folder; made when missing.
        settings: how.
        observer: is told of every input that is finished.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Predictor,
        output: str | os.PathLike[str],
        settings: RunOptions,
        *,
        observer: Observer | None = None,
    ) -> None:
        self._bundle = bundle
        self.settings = settings
        self._observer = observer
        self._results = ResultFolder(Path(output))
        self._privacy = PrivateLogs()
        self._stack = ExitStack()
        self._sources: SourceList
        self._journal: CrashJournal | None = None
        self._ledger: Ledger | None = None
        self._model: Predictor | WorkerPool

    @property
    def folder(self) -> Path:
        """The result folder."""
        return self._results.root

    @property
    def entries(self) -> Entries:
        """The last line about each input of this folder, by the name of its own folder."""
        return self._ledger.entries if self._ledger else Entries(lambda place: b"")

    def begin(self) -> Ledger:
        """Open the manifest; ``do`` does so once it has found something, and leaves none where it finds nothing.

        Returns:
            The manifest, which adds lines only in this run's threads.

        Raises:
            ConfigError: when the folder's results were made otherwise.
            StorageError: when it cannot be opened.
        """
        if self._ledger is None:
            self._results.clean()
            if self.settings.watch_crashes:
                self._journal = _journal(self.folder, self._stack)
            self._ledger = self._stack.enter_context(Ledger(self.folder, _header(self._model, self.settings)))
            sources = SourceList(self.folder, hashed=not self.settings.source_list)
            self._sources = self._stack.enter_context(closing(sources))
        return self._ledger

    def do(self, inputs: Iterable[str | os.PathLike[str]], *, with_sources: bool = False) -> Batch:
        """Predict what is not done yet.

        Args:
            inputs: files, folders and patterns.
            with_sources: return the line and the files of each input, which takes memory.

        Returns:
            What became of each of them.

        Raises:
            InputError, ConfigError, StorageError: see ``predict``.
        """
        settings = self.settings
        planned = plan_inputs(inputs, settings.input_options(self.folder))
        ledger = self.begin()
        settled = settle(planned, ledger.entries, self._sources, settings.limits)
        plan = settled.plan
        del planned  # the run empties its plan as it goes
        _supersede(settled.superseded, self._results, ledger)
        run = open_engine(
            self._model,
            settings,
            self._results,
            ledger,
            note_sources=_Note(self._sources),
            observer=self._observer,
            privacy=self._privacy,
            journal=self._journal,
        )
        folders = [each.folder for each in plan]
        sources = tuple(each.paths for each in plan) if with_sources else ()
        kept = run.run(plan)
        counted = RunResult.of((ledger.entries[folder] for folder in folders), len(kept))
        entries = tuple(ledger.entries[folder] for folder in folders) if with_sources else ()
        return Batch(counted, entries, sources)

    def holds(self, folder: str) -> bool:
        """Return whether an input is done or skipped, and its results are all there, byte for byte.

        Args:
            folder: its name in the result folder.
        """
        entry = self.entries.get(folder)
        return entry is not None and entry.state != "failed" and self._results.holds(entry.outputs)

    def note_absent(self, key: str, code: str, reason: str) -> Entry:
        """Add the line of an input that could not be had at all.

        Args:
            key: what names the input; only its hash is shown.
            code: a stable word for why.
            reason: the same as a sentence.

        Returns:
            The line.
        """
        return self._note(key, "failed", code, reason)

    def note_present(self, key: str) -> None:
        """Take back what ``note_absent`` has said, if it has."""
        folder = _absent_name(key)
        if folder in self.entries and self.entries[folder].state == "failed":
            self._note(key, "skipped", SUPERSEDED, "it could be had since; its results are under other names")

    def _note(self, key: str, state: State, code: str, reason: str) -> Entry:
        folder = _absent_name(key)
        before = self.entries.get(folder)
        entry = Entry(folder, folder, "", state, code, reason, attempt=before.attempt + 1 if before else 1)
        self.begin().append(entry)
        if self._observer is not None:
            self._observer.ended(entry, 0, True)
        return entry

    def report(self) -> None:
        """Write ``summary.csv`` and ``report.html`` of everything in the folder, unless the settings say otherwise."""
        if self.settings.report:
            _report(self.folder)

    def __enter__(self) -> Self:
        """Take the folder and load the weights; raises what ``predict`` raises."""
        results, settings = self._results, self.settings
        results.check_is_ours()
        with ExitStack() as stack:
            results.make()
            stack.enter_context(hold(results.root))
            results.check_is_new(resume=settings.resume)
            self._model = stack.enter_context(open_model(self._bundle, settings, results))
            stack.enter_context(self._privacy.active())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files and let go of the folder."""
        self._stack.__exit__(kind, error, trace)


def _absent_name(key: str) -> str:
    return f"absent-{short_hash(key)}"


def _header(model: Predictor | WorkerPool, settings: RunOptions) -> Header:
    # bounds raise flags: results of one folder are judged by the same ones
    bounds = QualityLimits.from_metadata(model.metadata).as_metadata()
    deciding = {**settings.deciding(), "quality_limits": bounds}
    packages = versions()
    for name in _PACKAGES:
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return Header(
        bundle=model.name,
        bundle_version=model.version,
        model_digest=model.model_digest,
        options_digest=digest_of_options(deciding),
        options=deciding,
        packages=packages,
    )


def _journal(root: Path, stack: ExitStack) -> CrashJournal:
    journal = CrashJournal(root)
    stack.enter_context(journal.watching())
    return journal


class _Note:
    """Adds an input's files to the list of sources."""

    def __init__(self, sources: SourceList) -> None:
        self._sources = sources

    def __call__(self, planned: PlannedInput) -> None:
        self._sources.add(planned.folder, planned.paths, marks_of(planned))


def _supersede(superseded: Mapping[str, str], results: ResultFolder, ledger: Ledger) -> None:
    """Take back earlier results, before what their files are now is read.

    Should that fail, no result stands that is known not to be of what there is now.
    """
    for folder, reason in superseded.items():
        entry = ledger.entries[folder]
        results.discard(folder)
        ledger.append(
            Entry(entry.input, folder, entry.digest, "skipped", SUPERSEDED, reason, attempt=entry.attempt + 1)
        )


def _report(root: Path) -> None:
    from msrf_monai.clinical.report import write_report
    from msrf_monai.clinical.summary import write_summary

    write_summary(root)
    try:
        write_report(root)
    except MissingExtraError:
        # the results are complete without it, and summary.csv says the same
        (root / "report.html").unlink(missing_ok=True)
