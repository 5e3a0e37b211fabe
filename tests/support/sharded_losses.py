"""Gradients of every bundle's losses, of a whole batch in one process or of its halves in two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from monai.bundle import ConfigParser
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from support import gan_job
from support.bundle_runs import BUNDLES, HIGMIS, IMFF, MSRF, SSR, Bundle
from support.processes import exit_as_two, join_two

SHARDED = ("train.json", "multi_gpu_train.json")
# The same bundle with a loss of the batch as a whole, as one process may have it.
OF_THE_BATCH: dict[Bundle, dict[str, Any]] = {
    MSRF: {"loss::batch": True},
    SSR: {"loss": {"_target_": "msrf_monai.losses.BatchDiceBCELoss"}},
    IMFF: {"loss::batch": True},
    HIGMIS: {"train::trainer::reciprocal_per_image": False},
}


def batch(channels: int) -> tuple[Tensor, Tensor]:
    """Four images (4, channels, 48, 64) and their masks: empty, small, large, and of one pixel."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.zeros(4, 1, 48, 64, dtype=torch.float64)
    mask[1, :, 10:16, 20:28] = 1
    mask[2, :, 4:44, 6:50] = 1
    mask[3, :, 30, 31] = 1
    noise = torch.rand(4, channels, 48, 64, generator=generator, dtype=torch.float64)
    return (0.3 * mask + 0.6 * noise).clamp(0, 1), mask


def gradient(bundle: Bundle, changes: dict[str, Any], *, half: int | None = None, is_shared: bool = False) -> Tensor:
    """Return the gradient of a bundle's losses by all weights, of the whole batch or of one of its halves.

    With ``is_shared`` two processes average theirs. Norms take the statistics that they start with, and nothing is
    dropped: what is left is what the loss does.
    """
    files = [str(bundle.configs / name) for name in SHARDED]
    config = ConfigParser(ConfigParser.load_config_files(files))
    config.update({**bundle.network, **bundle.training, **changes})
    torch.manual_seed(7)
    network = _ready(config.get_parsed_content("network_def"))
    image, mask = batch(4 if bundle is MSRF else 3)  # MSRF-Net takes an edge map, too
    if half is not None:
        image, mask = image[2 * half : 2 * half + 2], mask[2 * half : 2 * half + 2]
    find = _of_generators_and_discriminators if bundle is HIGMIS else _of_network
    modules = find(config, network, image, mask, is_shared=is_shared)
    return torch.cat([p.grad.flatten() for module in modules for p in module.parameters() if p.grad is not None])


def _of_network(
    config: ConfigParser, network: nn.Module, image: Tensor, mask: Tensor, *, is_shared: bool
) -> list[nn.Module]:
    asked = DistributedDataParallel(network) if is_shared else network
    config.get_parsed_content("loss")(asked(image), mask).backward()
    return [network]


def _of_generators_and_discriminators(
    config: ConfigParser, network: Any, image: Tensor, mask: Tensor, *, is_shared: bool
) -> list[nn.Module]:
    judges: dict[str, Any] = {
        branch: _ready(config.get_parsed_content(f"{branch}_discriminator_def")) for branch in gan_job.BRANCHES
    }
    asked = DistributedDataParallel(network) if is_shared else network
    wrapped = {name: DistributedDataParallel(judge) for name, judge in judges.items()} if is_shared else judges
    trainer = gan_job.trainer(
        asked,
        wrapped,
        [],
        train_data_loader=[],
        loss_function={branch: config.get_parsed_content(f"{branch}_loss") for branch in gan_job.BRANCHES},
        discriminator_loss=config.get_parsed_content("discriminator_loss"),
        reciprocal_loss=config.get_parsed_content("reciprocal_loss"),
        reciprocal_weight=config.get_parsed_content("reciprocal_weight"),
        reciprocal_per_image=config.get_parsed_content("train::trainer::reciprocal_per_image"),
    )
    maps = asked(image)
    torch.stack(list(trainer._generator_terms(image, mask, maps).values())).sum().backward()
    for branch, judge in wrapped.items():
        for is_real, judged in ((True, mask), (False, getattr(maps, branch).mask.detach())):
            trainer.discriminator_loss(judge(image, judged), is_real).backward()
    return [network, *judges.values()]


def _ready(network: nn.Module) -> nn.Module:
    """In training mode, in double precision, without what a batch or chance changes."""
    network.double().train()
    for layer in network.modules():
        if any(word in type(layer).__name__ for word in ("Norm", "Dropout", "SingularityStrength")):
            layer.eval()  # the last of them calls its norm itself
    return network


def process(rank: int, folder: Path) -> None:
    """Compute as one of two processes; write what each bundle's losses give."""
    join_two(rank, folder)
    found = {bundle.name: gradient(bundle, {}, half=rank, is_shared=True) for bundle in BUNDLES}
    torch.save(found, folder / f"rank{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    exit_as_two(process, Path(sys.argv[1]), seconds=300)
