"""Every backend gives eager PyTorch's masks with each of our bundles, at every size of windows."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from support.predictor_bundles import gap_threshold, picture, save_case

# Batches of other sizes than the windows of the bundles in these tests have.
SIZES = {
    "msrf": [(2, 4, 61, 40), (1, 4, 33, 72)],
    "ssr": [(2, 3, 96, 64), (1, 3, 32, 80)],
    "imff": [(2, 3, 64, 48), (1, 3, 32, 80)],
    "higmis": [(2, 3, 64, 32), (1, 3, 32, 96)],
}
# Of probabilities on noise. Hi-gMISnet norms each map by its own statistics, again and again, and float32 loses more in
# it: eager PyTorch in this form differs from itself in the other memory layout by 1.5e-4, and from float64 by 2e-4.
TOLERANCES = {"higmis": 5e-4}
EXPORTS = [
    pytest.param("imff", marks=pytest.mark.slow),
    pytest.param("ssr", marks=pytest.mark.extended),
    pytest.param("msrf", marks=pytest.mark.extended),
    pytest.param("higmis", marks=pytest.mark.extended),
]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """One folder of exported networks for this file, so that each is exported once."""
    return tmp_path_factory.mktemp("exports")


@pytest.fixture
def cases(tmp_path):
    sizes = [(47, 61), (90, 38)]
    return [save_case(tmp_path / f"{rows}.png", picture(rows, columns)) for rows, columns in sizes]


def first(output):
    return output if isinstance(output, torch.Tensor) else first(output[0])


def check(bundle, cases, sizes, *, tolerance=1e-4, **options):
    """Compare masks that are neither empty nor full, and scores of batches of other sizes than the windows have."""
    threshold = gap_threshold(bundle.predictor().predict(cases[0]).probabilities)
    eager, other = bundle.predictor(threshold=threshold), bundle.predictor(threshold=threshold, **options)
    for case in cases:
        expected, found = eager.predict(case), other.predict(case)
        assert 0.02 < expected.mask.mean() < 0.98
        assert (found.mask == expected.mask).mean() >= 0.9999
        gap = np.abs(found.probabilities.astype(np.float32) - expected.probabilities.astype(np.float32))
        assert gap.max() <= 1e-3
    generator = torch.Generator().manual_seed(1)
    for size in sizes:
        batch = torch.rand(size, generator=generator)
        with torch.no_grad():
            expected, found = first(eager._network(batch)), first(other._network(batch))
        torch.testing.assert_close(found.sigmoid(), expected.sigmoid(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["imff", "msrf", "ssr", pytest.param("higmis", marks=pytest.mark.slow)])
def test_traced_networks_give_the_masks_of_eager(tiny, cases, name):
    check(tiny(name), cases[:1], SIZES[name][:1], backend="torchscript")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("name", EXPORTS)
def test_exported_networks_give_the_masks_of_eager(tiny, cases, exports, name, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip("the extra export is not installed")
    options = {"backend": backend, "cache": exports, "num_threads": 1}

    check(tiny(name), cases, SIZES[name], tolerance=TOLERANCES.get(name, 1e-4), **options)
