"""The maps of singularity strength, and their picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from msrf_monai.errors import InputError
from msrf_monai.experiments import draw_singularity_maps, singularity_maps
from msrf_monai.networks import RecalibratedUNet, SSRUNet
from msrf_monai.networks.blocks import singularity_exponent


def test_maps_are_those_of_the_features_before_recalibration() -> None:
    net = SSRUNet(features=(4, 8, 16))
    image = torch.rand(1, 3, 40, 56)
    features, exponents = singularity_maps(net, image, stage=1)
    with torch.no_grad():
        expected = net.encoder[1].convs(net.pool(net.encoder[0].eval()(image)))
    assert features.shape == (1, 8, 20, 28)
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(exponents, singularity_exponent(expected))


def test_drawing_leaves_the_network_in_its_mode() -> None:
    net = RecalibratedUNet(features=(4, 8), recalibration="ssr").train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    singularity_maps(net, torch.rand(1, 3, 16, 16))
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("kind", [None, "cse", "multifractal"])
def test_picture_is_drawn_for_any_recalibration(kind: str | None, tmp_path: Path) -> None:
    net = RecalibratedUNet(features=(4, 8), recalibration=kind)  # type: ignore[arg-type]
    path = tmp_path / "maps.png"
    draw_singularity_maps(net, torch.rand(1, 3, 32, 48), path, channels=3)
    with Image.open(path) as picture:
        colours = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert len(np.unique(colours, axis=0)) > 100


def test_wrong_stage_and_image_are_refused(tmp_path: Path) -> None:
    net = SSRUNet(features=(4, 8))
    with pytest.raises(InputError, match="stage is 1; expected 0 to 0"):
        singularity_maps(net, torch.rand(1, 3, 16, 16), stage=1)
    with pytest.raises(InputError, match="expected \\(1, 1 or 3, height, width\\)"):
        draw_singularity_maps(net, torch.rand(2, 3, 16, 16), tmp_path / "x.png")
    assert not list(tmp_path.iterdir())
