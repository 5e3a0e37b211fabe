"""Which weights a copy of a bundle starts with; fine-tuned ones always win, and the user reads that they did."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from msrf_monai.errors import ConfigError
from msrf_monai.files import sha256_of, write_text
from msrf_monai.label.app_folder import bundle_version
from msrf_monai.label.weights import has_weights, install_weights, is_untrained, make_untrained

__all__ = ["check_weights", "settle_weights"]

_WEIGHTS = Path("models") / "model.pt"
_RECORD = Path("models") / "installed.json"


@dataclass(frozen=True)
class _Installed:
    """SHA-256 digests of what was put into a copy: what training changes is not ours to replace."""

    copy: str | None
    """The copy's weights just after that."""
    bundle: str | None
    """The bundle's own weights at that time."""
    given: str | None
    """The file that ``--weights`` named."""


def check_weights(bundle: Path, copy: Path, given: Path | None, *, untrained: bool) -> None:
    """Refuse a bundle for which no weights can be had, before anything is copied.

    Args:
        bundle: the bundle's own folder.
        copy: its copy in the app's folder, which may be missing.
        given: a file of weights for it.
        untrained: random weights will do.

    Raises:
        ConfigError: when there are none.
    """
    if given is None and not untrained and not has_weights(bundle) and not has_weights(copy):
        raise ConfigError(
            f"no trained weights for {bundle.name}: give them with --weights {bundle.name}=FILE, leave the bundle out "
            "with --bundles, or begin with random ones to annotate and fine-tune from scratch with --untrained"
        )


def settle_weights(bundle: Path, copy: Path, given: Path | None) -> list[str]:
    """Put weights into a copy: the given ones, else the bundle's, else random ones; fine-tuned ones stay.

    Args:
        bundle: the bundle's own folder.
        copy: its copy in the app's folder.
        given: a file of weights for it.

    Returns:
        Sentences that the user should read.

    Raises:
        CheckpointError: when the given file does not fit.
        ConfigError: when the copy's configuration cannot be read.
        StorageError: when the copy cannot be written.
    """
    own, kept = _digest(bundle / _WEIGHTS), _digest(copy / _WEIGHTS)
    asked = _digest(given) if given else None
    before = _installed(copy, kept, own)
    has_newer = own not in (None, before.bundle) and bundle_version(bundle) == bundle_version(copy)
    if kept not in (None, before.copy):
        return [_kept(copy, given or bundle / _WEIGHTS)] if given or has_newer else []
    source = given or (bundle / _WEIGHTS if has_newer or (own and kept is None) else None)
    is_there = kept is not None and asked is not None and asked == before.given
    notes = []
    if source is not None and not is_there:
        install_weights(copy, source)
        notes = [f"{copy / _WEIGHTS} was not fine-tuned, and is now {source}"] if kept else []
    elif kept is None:
        make_untrained(copy)
    now = _Installed(_digest(copy / _WEIGHTS), own, asked if source else before.given)
    write_text(copy / _RECORD, json.dumps(asdict(now), indent=2) + "\n")
    if is_untrained(copy):
        notes.append(f"{copy.name} has random weights: its masks mean nothing until it is fine-tuned")
    return notes


def _kept(copy: Path, other: Path) -> str:
    return (
        f"{copy / _WEIGHTS} was fine-tuned and is used; {other} was not put in its place. "
        "Move the former away to start from the latter"
    )


def _installed(copy: Path, kept: str | None, own: str | None) -> _Installed:
    """Return what was put into a copy; one without a record was fine-tuned unless it is the bundle's or random."""
    try:
        found = json.loads((copy / _RECORD).read_text(encoding="utf-8"))
        return _Installed(found["copy"], found["bundle"], found["given"])
    except (OSError, ValueError, KeyError, TypeError):
        is_ours = kept == own or is_untrained(copy)
        return _Installed(kept if is_ours else None, own if kept == own else None, None)


def _digest(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None
