"""Reading saved tensors, never executing what a file holds."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from msrf_monai.errors import CheckpointError
from msrf_monai.files import sha256_of

__all__ = ["read_tensors"]

_UNREADABLE = (RuntimeError, ValueError, KeyError, AttributeError, EOFError, OSError, pickle.UnpicklingError)


def read_tensors(path: str | os.PathLike[str], *, sha256: str | None = None) -> Any:
    """Read a file of tensors and plain values on the CPU, never executing what it holds.

    Args:
        path: a ``.safetensors`` file, or a file of ``torch.save`` (read with ``weights_only=True``).
        sha256: the digest that the file must have; it is compared before the file is opened as a checkpoint.

    Returns:
        What was saved.

    Raises:
        CheckpointError: when the file is missing, has another digest, is damaged, or holds other things than tensors
            and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}; train first, or give the path of an existing file")
    if sha256 is not None:
        found = sha256_of(path)
        if found != sha256.lower():
            raise CheckpointError(
                f"{path} is not the expected file: its SHA-256 is {found}, expected {sha256}; fetch it again"
            )
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch itself does not compare the checksums it stores
            if damaged is not None:
                raise CheckpointError(f"{path} is damaged (its part {damaged!r} has a wrong checksum); copy it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except (*_UNREADABLE, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint ({reason}): "
            "it is damaged, or holds more than tensors and plain values"
        ) from error
