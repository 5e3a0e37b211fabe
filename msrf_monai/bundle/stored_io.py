"""Inputs of a bundle's network and what it made of them, stored in the bundle, so that anybody can compare."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from PIL import Image
from torch.nn.functional import interpolate

from msrf_monai.clinical.backends import Runnable, first_output
from msrf_monai.clinical.predictor import Predictor, PredictorOptions
from msrf_monai.clinical.reading import open_case
from msrf_monai.errors import CheckpointError, ConfigError
from msrf_monai.files import write_bytes
from msrf_monai.runtime import versions
from msrf_monai.transforms.rows import plain

__all__ = ["STORED_IO", "StoredIO", "read_stored_io", "record_stored_io"]

STORED_IO = "models/test_io.safetensors"
_COUNT = 3
_ABOUT = "msrf_monai"


@dataclass(frozen=True)
class StoredIO:
    """What ``models/test_io.safetensors`` holds: one input and one output for each of three sizes."""

    inputs: tuple[torch.Tensor, ...]
    """float32 ``(1, C, H, W)``, as the bundle's preprocessing gives them: n = 0, 1, 2 for a quarter, a half and the
    whole of the spatial shape that ``metadata.json`` declares."""
    outputs: tuple[torch.Tensor, ...]
    """float32 ``(1, K, H, W)``: what the network gave in eager PyTorch on a CPU, before any postprocessing."""
    digest: str
    """Of weights and configuration when it was recorded, see ``Runnable.digest``."""
    made_with: dict[str, str]
    """Versions of libraries at that time."""


def record_stored_io(bundle: str | os.PathLike[str], source: Runnable, *, seed: int = 0) -> Path:
    """Run the network on a drawn picture in three sizes, and store inputs and outputs in the bundle.

    The picture passes the bundle's own preprocessing, so that the network sees values of the kind that it was made for.

    Args:
        bundle: folder of the bundle.
        source: its network with its weights.
        seed: of the picture.

    Returns:
        The file; the same bundle, versions and seed give the same bytes on the same machine.

    Raises:
        ConfigError: when the preprocessing gives an image that is smaller than the declared one.
        StorageError: when the file cannot be written.
    """
    _, channels, height, width = source.input_shape
    whole = _prepared(Path(bundle), height, width, seed)
    if whole.shape[0] != channels or whole.shape[1] < height or whole.shape[2] < width:
        raise ConfigError(
            f"{bundle}: the preprocessing gives {tuple(whole.shape)} for a picture of {height} x {width}, and "
            f"metadata.json declares {(channels, height, width)}; let them agree"
        )
    tensors: dict[str, torch.Tensor] = {}
    for n in range(_COUNT):
        rows, columns = (max(1, length >> (_COUNT - 1 - n)) for length in (height, width))
        top, left = (whole.shape[1] - rows) // 2, (whole.shape[2] - columns) // 2
        # half precision halves the file; what the network is given is what is stored
        image = whole[None, :, top : top + rows, left : left + columns].half().contiguous()
        try:
            with torch.no_grad():
                output = first_output(source.network(image.float()))
        except Exception as error:  # a bundle may hold any network, and each of them fails in its own way
            raise ConfigError(
                f"{bundle}: the network cannot take {tuple(image.shape)}, a part of the declared shape "
                f"({type(error).__name__}: {str(error)[:200]}); choose a declared shape whose quarter it takes"
            ) from error
        tensors[f"image.{n}"], tensors[f"pred.{n}"] = image, output.contiguous()
    # one entry, since the order of several is not fixed
    about = {_ABOUT: json.dumps({"digest": source.digest, "seed": seed, "versions": versions()}, sort_keys=True)}
    path = Path(bundle) / STORED_IO
    write_bytes(path, safetensors.torch.save(tensors, metadata=about))
    return path


def read_stored_io(bundle: str | os.PathLike[str]) -> StoredIO:
    """Read a bundle's stored inputs and outputs.

    Args:
        bundle: folder of the bundle.

    Raises:
        CheckpointError: when the file is missing or holds something else.
    """
    path = Path(bundle) / STORED_IO
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the bundle's author makes it with msrf-monai verify BUNDLE --record")
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            about = json.loads((handle.metadata() or {})[_ABOUT])
            tensors = {name: handle.get_tensor(name).float() for name in handle.keys()}  # noqa: SIM118
        places = range(len(tensors) // 2)
        inputs, outputs = (tuple(tensors[f"{kind}.{n}"] for n in places) for kind in ("image", "pred"))
        digest, made_with = str(about["digest"]), {str(name): str(each) for name, each in about["versions"].items()}
    except (KeyError, TypeError, ValueError, OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"{path} holds no stored inputs and outputs ({str(error)[:200]}); record them again with "
            "msrf-monai verify BUNDLE --record"
        ) from error
    if not inputs or any(each.ndim != 4 for each in (*inputs, *outputs)):
        raise CheckpointError(f"{path} holds no stored inputs and outputs; expected tensors (1, C, H, W)")
    return StoredIO(inputs, outputs, digest, made_with)


def _prepared(bundle: Path, height: int, width: int, seed: int) -> torch.Tensor:
    """Return a drawn picture ``(C, H, W)`` as the network would get it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.png"
        # MONAI's axes: the first one of a tensor goes across the picture
        Image.fromarray(_draw(width, height, seed)).save(path)
        predictor = Predictor.from_bundle(bundle, PredictorOptions(device="cpu"))
        return plain(predictor.network_input(predictor.prepare(open_case(path), 0)))


def _draw(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return smooth coloured noise ``(H, W, 3)`` in several sizes of grain, with an ellipse that stands out."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.zeros(3, height, width)
    for grain in (4, 16, 64):
        coarse = torch.randn(1, 3, grain, grain, generator=generator)
        picture += interpolate(coarse, (height, width), mode="bilinear")[0] / grain**0.5
    down, across = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    inside = ((down + 0.1) / 0.4) ** 2 + ((across - 0.1) / 0.5) ** 2 < 1
    picture[:, inside] += torch.tensor([[0.8], [-0.3], [-0.5]])
    return (128 + 70 * picture).clip(0, 255).byte().permute(1, 2, 0).numpy()
