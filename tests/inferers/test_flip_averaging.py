"""Test-time augmentation by mirror images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from msrf_monai.errors import InputError
from msrf_monai.inferers import FlipAveragingInferer, MaskSlidingWindowInferer
from msrf_monai.networks import IMFFNet

OPTIONS: dict[str, Any] = {"roi_size": (32, 32), "sw_batch_size": 2, "overlap": 0.25, "mode": "gaussian"}
SIZES = [(40, 56), (32, 32), (20, 28), (1, 1)]


@pytest.fixture(scope="module")
def network() -> IMFFNet:
    torch.manual_seed(0)
    return IMFFNet(features=(4, 8, 8)).eval()


def image(*size: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def both_ways(x: torch.Tensor) -> torch.Tensor:
    """A network that sees an image and its mirror images alike."""
    return x[:, :1] * 2 - 1


@pytest.mark.parametrize("size", SIZES)
def test_it_is_the_mean_of_four_passes(network: IMFFNet, size: tuple[int, int]) -> None:
    x = image(*size, batch=2)
    single = MaskSlidingWindowInferer(**OPTIONS)

    with torch.no_grad():
        found = FlipAveragingInferer(**OPTIONS)(x, network)
        passes = [
            single(x, network),
            single(x.flip(2), network).flip(2),
            single(x.flip(3), network).flip(3),
            single(x.flip(2).flip(3), network).flip(2).flip(3),
        ]

    assert found.shape == (2, 1, *size)
    torch.testing.assert_close(found, torch.stack(passes).mean(dim=0))


def test_the_passes_of_a_real_network_differ_and_the_mean_is_symmetric(network: IMFFNet) -> None:
    x, inferer = image(40, 56), FlipAveragingInferer(**OPTIONS)

    with torch.no_grad():
        found, of_mirror, single = inferer(x, network), inferer(x.flip(3), network), network(x)

    assert not torch.allclose(found, single, atol=1e-3)
    torch.testing.assert_close(found, of_mirror.flip(3))


@pytest.mark.parametrize("size", SIZES)
def test_a_symmetric_network_gives_what_one_pass_gives(size: tuple[int, int]) -> None:
    x = image(*size)
    torch.testing.assert_close(FlipAveragingInferer(**OPTIONS)(x, both_ways), both_ways(x))


def test_switched_off_it_is_one_pass(network: IMFFNet) -> None:
    x, calls = image(40, 56), []

    def counted(windows: torch.Tensor) -> torch.Tensor:
        calls.append(len(windows))
        return network(windows)

    with torch.no_grad():
        found = FlipAveragingInferer(flips=False, **OPTIONS)(x, counted)
        once = sum(calls)
        assert torch.equal(found, MaskSlidingWindowInferer(**OPTIONS)(x, network))
        FlipAveragingInferer(**OPTIONS)(x, counted)

    assert sum(calls) == 5 * once


def test_the_first_of_several_outputs_counts() -> None:
    x = image(40, 56)
    found = FlipAveragingInferer(**OPTIONS)(x, lambda windows: (both_ways(windows), windows))
    torch.testing.assert_close(found, both_ways(x))


def test_metadata_of_the_image_stay() -> None:
    x = MetaTensor(image(40, 56), meta={"filename_or_obj": "eye.png"})

    found = FlipAveragingInferer(**OPTIONS)(x, both_ways)

    assert isinstance(found, MetaTensor)
    assert found.meta["filename_or_obj"] == "eye.png"
    assert found.applied_operations == []
    torch.testing.assert_close(found.as_tensor(), both_ways(x.as_tensor()))


def test_arguments_reach_the_network() -> None:
    x = image(20, 28)
    found = FlipAveragingInferer(**OPTIONS)(x, lambda windows, gain, *, shift: windows * gain + shift, 3.0, shift=1.0)
    torch.testing.assert_close(found, x * 3 + 1)


def test_no_output_is_refused() -> None:
    with pytest.raises(InputError, match="returned no output"):
        FlipAveragingInferer(**OPTIONS)(image(40, 56), lambda _: ())


def test_a_configuration_builds_it_by_its_dotted_name() -> None:
    config = {"a": {"_target_": "msrf_monai.inferers.FlipAveragingInferer", "roi_size": [32, 32], "flips": False}}
    inferer = ConfigParser(config).get_parsed_content("a")
    assert isinstance(inferer, FlipAveragingInferer)
    assert not inferer.flips
