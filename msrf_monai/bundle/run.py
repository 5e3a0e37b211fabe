"""``prepare_run``: the first expression of every config's ``initialize`` list."""

from __future__ import annotations

import os
import sys
from typing import Any

from monai.utils.misc import set_determinism

from msrf_monai.bundle.manifest import write_manifest
from msrf_monai.bundle.overrides import check_overrides, parse_command_line
from msrf_monai.bundle.reporting import install_error_line, is_bundle_program
from msrf_monai.errors import ConfigError
from msrf_monai.runtime import tune_allocator

__all__ = ["prepare_run"]

_MAX_SEED = 2**32 - 1


def prepare_run(
    *,
    seed: int | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    bundle_root: str | os.PathLike[str] | None = None,
    device: Any = None,
    weights: str | os.PathLike[str] | None = None,
    tune_memory: bool = False,
) -> None:
    """Make a bundle's run safe to start: one-line errors, checked overrides, seeds, and a record of what ran.

    In a config: ``"$msrf_monai.bundle.prepare_run(seed=@seed, output_dir=@output_dir, bundle_root=@bundle_root)"``.
    The error line and the check of the command line act only when the program is ``python -m monai.bundle`` (alone or
    under torchrun), never inside MONAI Label, tests or a program of the user's that opens the bundle.

    Args:
        seed: seeds Python, NumPy, PyTorch and MONAI's random transforms, and makes cuDNN deterministic
            (``cudnn.deterministic = True``, ``cudnn.benchmark = False``); None leaves all of it as it is.
        output_dir: folder of the results; ``run.json`` is written there, and that of a finished run before it is kept
            as ``run.previous.json``. None writes nothing.
        bundle_root: folder of the bundle, for the commit that ``run.json`` names.
        device: the device of the run, for ``run.json``.
        weights: the checkpoint that the run starts from, for its digest in ``run.json``.
        tune_memory: keep large freed blocks for reuse (see ``msrf_monai.runtime.tune_allocator``).

    Raises:
        ConfigError: when the seed is not a whole number in [0, 2**32 - 1], or an override names no known key.
        StorageError: when ``run.json`` cannot be written.
    """
    argv: list[str] | None = None
    config: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    if is_bundle_program():
        argv = list(sys.argv)
        install_error_line()
        config = check_overrides(argv[1:])
        line = parse_command_line(argv[1:])
        overrides = line.overrides if line is not None else {}
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= _MAX_SEED:
            raise ConfigError(f"seed is {seed!r}: give a whole number from 0 to {_MAX_SEED}, or None for no seed")
        set_determinism(seed=seed)
    if tune_memory:
        tune_allocator()
    if output_dir is not None:
        write_manifest(
            output_dir,
            config=config,
            overrides=overrides,
            argv=argv,
            seed=seed,
            device=device,
            bundle_root=bundle_root,
            weights=weights,
        )
