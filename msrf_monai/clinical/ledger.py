"""What a run has done, in one file of its result folder: ``manifest.jsonl``, a line for each input, never rewritten.

The first line is a header: the bundle, the digests of the model and of the options, the versions of what computes.
Each line after it is an input that is finished, whatever became of it. Lines are only ever added, each synced to the
disk before the next input's, so that what a line says is on the disk is there after ``kill -9`` or a power cut. A last
line that was cut short is dropped; its input counts as not done. Of several lines about one input the last one holds.
No line holds a path of the user's, an attribute of a DICOM file, or the moment of the run.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from msrf_monai.clinical.line_file import LineFile, line_at, whole_lines
from msrf_monai.errors import ConfigError, DataError
from msrf_monai.files import Closing

__all__ = ["MANIFEST", "Entries", "Entry", "Header", "Ledger", "Manifest", "OpenManifest", "OutputRecord", "State"]
__all__ += ["digest_of_options", "open_manifest", "read_manifest"]

MANIFEST = "manifest.jsonl"
"""Name of the file in the result folder."""
_FORMAT, _VERSION = "msrf-monai manifest", 1

State = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class OutputRecord:
    """A file that a run has written."""

    kind: str
    """What it is: ``"mask"``, ``"seg"``, ``"stats"``, …."""
    path: str
    """Relative to the result folder, with ``/`` between its parts; begins with the entry's ``folder``."""
    sha256: str
    size: int
    """Bytes."""


@dataclass(frozen=True)
class Header:
    """What every line of a manifest has in common."""

    bundle: str
    """Name of the bundle."""
    bundle_version: str
    model_digest: str
    """SHA-256 over the weights and what decides their results; see ``Predictor.model_digest``."""
    options_digest: str
    """``digest_of_options(options)``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What changes results or which of them there are; the same for every run on this folder."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Versions of Python and of the libraries that compute."""
    format: str = _FORMAT
    version: int = _VERSION


@dataclass(frozen=True)
class Entry:
    """One finished input."""

    input: str
    """What people see: a picture's file name made harmless, or a hash where a name may identify a patient."""
    folder: str
    """Its sub-folder in the result folder, and its key: no other input has it. It exists only where it is done."""
    digest: str
    """SHA-256 of its content (of a volume, see ``Case.digest``); empty when it could not be read."""
    state: State
    code: str = ""
    """A stable word for what went wrong: a ``RefusalCode`` or one of the batch page's; empty when it is done."""
    reason: str = ""
    """The same as a sentence."""
    flags: tuple[str, ...] = ()
    """What a person should look at; those that begin with ``rule:`` or ``not_written:`` only inform."""
    outputs: tuple[OutputRecord, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    """Seconds of ``read``, ``predict`` and ``write``."""
    frames: int = 0
    """Images that were predicted: frames of a clip, slices of a volume; 0 unless it is done."""
    attempt: int = 1
    """Counts the lines about this input."""

    @property
    def is_flagged(self) -> bool:
        """True when a flag asks for a look."""
        return any(not flag.startswith(("rule:", "not_written:")) for flag in self.flags)


class Entries(Mapping[str, Entry]):
    """The last line about each input, by its folder, in the order in which the inputs first appear.

    Only the places where lines begin are in memory: each line is read when it is asked for, by any thread.

    Args:
        read: returns the line that begins at a place.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._places: dict[str, int] = {}
        self.end = 0
        """Lines that are noted from now on begin here or after."""

    def note(self, folder: str, place: int) -> None:
        """Take note of where the line about an input is now."""
        self._places[folder] = place
        self.end = place + 1

    def since(self, place: int) -> Iterator[Entry]:
        """Yield what was noted since ``end`` was a place, as it is now."""
        for folder in [folder for folder, begins in list(self._places.items()) if begins >= place]:
            yield self[folder]

    def __getitem__(self, folder: str) -> Entry:
        return _entry(json.loads(self._read(self._places[folder])))

    def __contains__(self, folder: object) -> bool:
        return folder in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._places))  # lines may be added meanwhile

    def __len__(self) -> int:
        return len(self._places)


@dataclass(frozen=True)
class Manifest:
    """A manifest as it holds now."""

    header: Header
    """Of the run that made the folder."""
    entries: tuple[Entry, ...]
    """The last line about each input, in the order in which the inputs first appear."""
    later: tuple[Header, ...] = ()
    """Headers of resumed runs whose packages differed from those before."""

    def in_order(self) -> Iterator[Entry]:
        """Yield the entries in the order of what people see."""
        return iter(sorted(self.entries, key=lambda each: (each.input, each.folder)))


@dataclass(frozen=True)
class OpenManifest:
    """The same as ``Manifest`` for any number of inputs: lines are read when they are asked for."""

    header: Header
    entries: Entries
    later: tuple[Header, ...] = ()

    def in_order(self) -> Iterator[Entry]:
        """Yield the entries in the order of what people see."""
        for _, folder in sorted((entry.input, folder) for folder, entry in self.entries.items()):
            yield self.entries[folder]


def digest_of_options(options: Mapping[str, Any]) -> str:
    """Return the hexadecimal SHA-256 of options that JSON can hold, whatever the order of their names."""
    return hashlib.sha256(json.dumps(options, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@contextmanager
def open_manifest(folder: str | os.PathLike[str]) -> Iterator[OpenManifest]:
    """Read what a result folder holds, line by line; the folder may be in use, and nothing in it is changed.

    Args:
        folder: the result folder.

    Yields:
        The manifest as it was then, without a last line that was cut short.

    Raises:
        DataError: when there is no manifest, it is of another format, or a line before the last is damaged.
    """
    path = Path(folder) / MANIFEST
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); give the folder that msrf-monai predict wrote into"
        ) from None
    with file:
        entries = Entries(partial(line_at, file.fileno()))
        headers = _learn(whole_lines(file), entries, path)
        if not headers:
            raise DataError(f"{path}: the header is missing; the run was cut short before its first input")
        yield OpenManifest(headers[0], entries, tuple(headers[1:]))


def read_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """Read what a result folder holds into memory; see ``open_manifest`` for what it takes and raises."""
    with open_manifest(folder) as found:
        return Manifest(found.header, tuple(found.entries.values()), found.later)


def _learn(lines: Iterable[tuple[int, bytes]], entries: Entries, path: Path) -> list[Header]:
    """Note where the line of each input is, and return the headers."""
    headers: list[Header] = []
    for number, (place, line) in enumerate(lines, start=1):
        try:
            values = json.loads(line)
            if "format" in values:
                headers.append(_header(values, path))
            else:
                entries.note(_entry(values).folder, place)
        except (ValueError, TypeError, KeyError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(
                f"{path}: line {number} is damaged; begin a new result folder, or put the file back from a copy"
            ) from None
        if not headers:
            raise DataError(f"{path}: the first line is no header; this is no manifest of msrf-monai")
    return headers


def _header(values: dict[str, Any], path: Path) -> Header:
    if values["format"] != _FORMAT or values["version"] != _VERSION:
        raise DataError(
            f"{path}: expected the format {_FORMAT!r}, version {_VERSION}; use the release of msrf-monai that wrote it"
        )
    return Header(**values)


def _entry(values: dict[str, Any]) -> Entry:
    outputs = tuple(OutputRecord(**output) for output in values.pop("outputs"))
    return Entry(**{**values, "flags": tuple(values["flags"])}, outputs=outputs)


class Ledger(Closing):
    """The manifest of a folder, open for adding lines; one process at a time, which ``lock.hold`` sees to.

    Args:
        folder: the result folder, which exists.
        header: of this run. Where the folder has a manifest, it is added only when the packages have changed.

    Raises:
        ConfigError: when the folder has a manifest of another model or of other options; the sentence names them.
        DataError: when it has one that cannot be read.
        StorageError: when the file cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], header: Header) -> None:
        path = Path(folder) / MANIFEST
        self._lines = LineFile(path)
        try:
            self.entries = Entries(self._lines.line)
            """The last line about each input, by its folder; for as long as this is open."""
            headers = _learn(self._lines.lines(), self.entries, path)
            if headers:
                _refuse_another(headers[0], header)
            if not headers or headers[-1].packages != header.packages:
                self._append(asdict(header))
        except BaseException:
            self._lines.close()
            raise

    def append(self, entry: Entry) -> None:
        """Add a line and wait until it is on the disk.

        Args:
            entry: the input; its outputs are on the disk already.

        Raises:
            StorageError: when the disk is full or fails; the lines before stay whole.
        """
        self.entries.note(entry.folder, self._append(asdict(entry)))

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _append(self, values: dict[str, Any]) -> int:
        return self._lines.append(json.dumps(values, separators=(",", ":"), allow_nan=False).encode())


def _refuse_another(before: Header, now: Header) -> None:
    """Refuse to add results of another model, or made in another way, to those that are there."""
    names = ("bundle", "bundle_version", "model_digest")
    different = [f"{name} was {getattr(before, name)}" for name in names if getattr(before, name) != getattr(now, name)]
    different += [
        f"{name} was {json.dumps(before.options.get(name))} and is {json.dumps(now.options.get(name))}"
        for name in sorted({*before.options, *now.options})
        if before.options.get(name) != now.options.get(name)
    ]
    if different:
        raise ConfigError(
            f"the results in this folder were made otherwise: {'; '.join(different)}. "
            "Run the same command as before, or name a new folder with --output"
        )
