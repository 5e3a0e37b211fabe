"""One stitched mask, whatever mode the network is in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer

from msrf_monai.errors import InputError
from msrf_monai.inferers import MaskSlidingWindowInferer
from msrf_monai.networks import MSRFNet


@pytest.fixture(scope="module")
def network() -> MSRFNet:
    torch.manual_seed(0)
    return MSRFNet(features=2)


def image(*size: int) -> torch.Tensor:
    return torch.rand(1, 4, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("size", [(40, 56), (32, 32), (20, 28), (20, 56)])
@pytest.mark.parametrize("is_training", [True, False])
def test_the_mask_alone_comes_back_in_both_modes(network: MSRFNet, is_training: bool, size: tuple[int, int]) -> None:
    network.train(is_training)

    with torch.no_grad():
        mask = MaskSlidingWindowInferer((32, 32), 2)(image(*size), network)

    assert isinstance(mask, torch.Tensor)
    assert mask.shape == (1, 1, *size)
    assert torch.isfinite(mask).all()


@pytest.mark.parametrize("size", [(40, 56), (20, 28)])
def test_evaluation_mode_gives_what_monai_gives(network: MSRFNet, size: tuple[int, int]) -> None:
    network.eval()
    options: dict[str, Any] = {"roi_size": (32, 32), "sw_batch_size": 2, "overlap": 0.5, "mode": "gaussian"}

    with torch.no_grad():
        mask = MaskSlidingWindowInferer(**options)(image(*size), network)
        expected = SlidingWindowInferer(**options)(image(*size), network)

    assert torch.equal(mask, expected)


@pytest.mark.parametrize(
    "pack",
    [
        lambda mask, other: (mask, other),
        lambda mask, other: [mask, other],
        # the order given counts, not that of the alphabet
        lambda mask, other: {"mask": mask, "edge": other},
        lambda mask, other: OrderedDict(out=mask, aux=other),
        lambda mask, other: mask,
    ],
)
def test_the_first_of_several_outputs_is_stitched(pack: Callable[..., Any]) -> None:
    inputs = image(40, 56)

    mask = MaskSlidingWindowInferer((32, 32), 3, overlap=0.5)(inputs, lambda x: pack(x[:, :1] * 2, x[:, :2, ::2, ::2]))

    torch.testing.assert_close(mask, inputs[:, :1] * 2)


def test_arguments_reach_the_network() -> None:
    inputs = image(40, 56)

    def network(windows: torch.Tensor, places: Any, gain: float, *, shift: float) -> tuple[torch.Tensor, None]:
        assert len(places) == len(windows)
        return windows * gain + shift, None

    mask = MaskSlidingWindowInferer((32, 32), 2, with_coord=True)(inputs, network, 3.0, shift=1.0)

    torch.testing.assert_close(mask, inputs * 3 + 1)


def test_metadata_of_the_image_stay() -> None:
    inputs = MetaTensor(image(40, 56), meta={"filename_or_obj": "case.png"})

    mask = MaskSlidingWindowInferer((32, 32))(inputs, lambda x: (x, x))

    assert isinstance(mask, MetaTensor)
    assert mask.meta["filename_or_obj"] == "case.png"


@pytest.mark.parametrize("nothing", [(), [], {}])
def test_no_output_is_refused(nothing: Any) -> None:
    with pytest.raises(InputError, match="returned no output"):
        MaskSlidingWindowInferer((32, 32))(image(40, 56), lambda _: nothing)


def test_a_configuration_builds_it_by_its_dotted_name() -> None:
    config = {"inferer": {"_target_": "msrf_monai.inferers.MaskSlidingWindowInferer", "roi_size": [32, 32]}}

    inferer = ConfigParser(config).get_parsed_content("inferer")

    assert isinstance(inferer, MaskSlidingWindowInferer)
    assert list(inferer.roi_size) == [32, 32]
