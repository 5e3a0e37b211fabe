"""Every bundle's network takes ``dropout``, which programs such as MONAI Label set to estimate uncertainty."""

from __future__ import annotations

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from msrf_monai.errors import InputError
from msrf_monai.inferers import MaskSlidingWindowInferer
from msrf_monai.networks import IMFFNet, RecalibratedUNet
from support.bundle_runs import BUNDLES, Bundle


def network(bundle: Bundle, dropout: float) -> nn.Module:
    """The network of a bundle's inference, small, with a dropout as MONAI Label writes it into the configuration."""
    parser = ConfigParser()
    parser.read_config(str(bundle.configs / "inference.json"))
    for key, value in bundle.network.items():
        parser.set(value, key.replace("::", "#"))
    parser["network_def"]["dropout"] = dropout
    torch.manual_seed(1)
    built: nn.Module = parser.get_parsed_content("network_def")
    return built


def passes(net: nn.Module, channels: int) -> list[torch.Tensor]:
    images = torch.rand(1, channels, 48, 32, generator=torch.Generator().manual_seed(4))
    inferer = MaskSlidingWindowInferer(roi_size=(48, 32))
    with torch.no_grad():
        return [inferer(images, net) for _ in range(2)]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_passes_in_training_mode_differ_and_those_in_evaluation_mode_do_not(bundle: Bundle) -> None:
    channels = 4 if bundle.name == "msrf" else 3
    net, without = network(bundle, 0.5), network(bundle, 0.0)

    first, second = passes(net.train(), channels)
    assert not torch.equal(first, second)

    net.load_state_dict(without.state_dict())
    torch.testing.assert_close(passes(net.eval(), channels)[0], passes(without.eval(), channels)[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", [IMFFNet, RecalibratedUNet])
def test_networks_are_published_without_dropout(kind: type[nn.Module]) -> None:
    assert not [module for module in kind(features=(4, 8, 8)).modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize("kind", [IMFFNet, RecalibratedUNet])
@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(kind: type[nn.Module], dropout: float) -> None:
    with pytest.raises(InputError, match="dropout is"):
        kind(features=(4, 8, 8), dropout=dropout)


@pytest.mark.parametrize("kind", [IMFFNet, RecalibratedUNet])
def test_a_network_with_dropout_is_scripted(kind: type[nn.Module]) -> None:
    net = kind(features=(4, 8, 8), dropout=0.3).eval()
    images = torch.rand(1, 3, 10, 14)

    torch.testing.assert_close(torch.jit.script(net)(images), net(images))
