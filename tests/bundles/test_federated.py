"""Federated learning by MONAI's client: two sites with data of their own, and their weights averaged by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from msrf_monai.data import load_datalist, synthesize_dataset
from support.bundle_results import table
from support.bundle_runs import HIGMIS, IMFF, MSRF, Bundle, one_thread, run_here

pytestmark = pytest.mark.filterwarnings("ignore:executing the bundle config")
ROUNDS = 2
NO_LOADING = {"validate::handlers::0::_disabled_": True}
THRESHOLD = {"threshold_file": 0.5}  # IMFF-Net's report; in its own evaluation a pass before it chooses one

State = dict[str, torch.Tensor]
MakeClient = Callable[..., MonaiAlgo]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Two data sets of each kind; those of one kind differ."""
    folder = tmp_path_factory.mktemp("sites")
    made = {}
    for kind, name in (("lesion", "lesions"), ("vessels", "vessels")):
        made[name] = [folder / f"{name}{seed}" for seed in (1, 2)]
        for seed, site in enumerate(made[name], start=1):
            synthesize_dataset(kind, site, counts=(4, 1, 2), size=(48, 64), seed=seed)
    return made


@pytest.fixture
def client_of(tmp_path: Path) -> MakeClient:
    """A client at a site, which has its own folder."""

    def make(bundle: Bundle, data: Path, **options: Any) -> MonaiAlgo:
        root = tmp_path / data.name
        if not root.exists():
            shutil.copytree(bundle.configs, root / "bundle" / "configs")
        common = {**bundle.small("train.json"), "dataset_dir": str(data), "device": "cpu"}
        training = {"use_ema": False, "patience": 0, "lr_scheduler::t_total": ROUNDS, "bundle_root": str(root)}
        settings: dict[str, Any] = {
            "send_weight_diff": False,
            "train_kwargs": {**common, **training},
            "eval_kwargs": {**common, **evaluation_of(bundle), "output_dir": str(root / "test")},
        }
        client = MonaiAlgo(bundle_root="bundle", **{**settings, **options})
        client.initialize(extra={ExtraItems.CLIENT_NAME: data.name, ExtraItems.APP_ROOT: str(root)})
        return client

    return make


def evaluation_of(bundle: Bundle) -> dict[str, Any]:
    """Keys of a client's evaluation."""
    return {**NO_LOADING, **THRESHOLD} if bundle is IMFF else NO_LOADING


def weights_at(client: MonaiAlgo) -> State:
    """Return a copy of the weights that a client has now."""
    return {name: tensor.clone() for name, tensor in client.get_weights().weights.items()}


def mean_of(one: State, two: State) -> State:
    """Return the mean of two states; of whole numbers the first."""
    return {name: (v + two[name]) / 2 if v.is_floating_point() else v for name, v in one.items()}


@pytest.mark.parametrize("bundle", [MSRF, IMFF], ids=lambda bundle: bundle.name)
def test_two_sites_train_one_network_whose_average_evaluates_at_both(
    bundle: Bundle, sites: dict[str, list[Path]], client_of: MakeClient, tmp_path: Path
) -> None:
    data = sites[bundle.data]
    with one_thread():
        clients = [client_of(bundle, site) for site in data]
        start = weights = weights_at(clients[0])
        for number in range(1, ROUNDS + 1):
            states = []
            for client in clients:
                client.train(ExchangeObject(weights=weights))
                assert client.trainer.state.epoch == number
                states.append(weights_at(client))
            learnt = [name for name, tensor in start.items() if tensor.is_floating_point()]
            assert any(not torch.equal(states[0][name], states[1][name]) for name in learnt)  # each from its own data
            weights = mean_of(*states)
        metrics = [client.evaluate(ExchangeObject(weights=weights)).metrics for client in clients]
        for client in clients:
            client.finalize()

    assert start.keys() == weights.keys()
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    key = bundle.metric
    torch.save(weights, tmp_path / "average.pt")
    for site, found in zip(data, metrics, strict=True):
        cases = table(tmp_path / site.name / "test" / "cases.csv")
        names = {Path(item["image"]).stem for item in load_datalist(site, "test")}
        assert {Path(row["file"]).stem for row in cases} == names
        # the same score as that of the bundle's own evaluation with the average as its file of weights
        small = {**bundle.small("train.json"), "device": "cpu", "weights": str(tmp_path / "average.pt")}
        small |= THRESHOLD if bundle is IMFF else {}
        folders = {"bundle_root": tmp_path, "dataset_dir": site, "output_dir": tmp_path / f"{site.name}_again"}
        with one_thread():
            again = run_here(bundle, "train.json", "evaluate.json", **folders, **small)
        assert found[key] == pytest.approx(again.evaluator.state.metrics[key], abs=1e-6)


def test_differences_are_what_training_has_changed(
    sites: dict[str, list[Path]], client_of: MakeClient, tmp_path: Path
) -> None:
    with one_thread():
        client = client_of(MSRF, sites["lesions"][0], send_weight_diff=True, config_evaluate_filename=None)
        before = {name: tensor.clone() for name, tensor in client.trainer.network.state_dict().items()}
        client.train(ExchangeObject(weights=before))
        sent = client.get_weights()
    assert sent.weight_type == WeightType.WEIGHT_DIFF
    after = client.trainer.network.state_dict()
    for name, difference in sent.weights.items():
        torch.testing.assert_close(before[name] + difference, after[name])
    assert any(difference.any() for difference in sent.weights.values())


def test_without_the_key_evaluation_asks_for_the_file_of_weights(
    sites: dict[str, list[Path]], client_of: MakeClient, tmp_path: Path
) -> None:
    data = sites["lesions"][0]
    options = {**MSRF.small("train.json"), "dataset_dir": str(data), "device": "cpu", "output_dir": str(tmp_path)}
    client = client_of(MSRF, data, config_train_filename=None, eval_kwargs=options)
    weights = {name: tensor.clone() for name, tensor in client.evaluator.network.state_dict().items()}
    with one_thread(), pytest.raises(Exception, match=r"models/model\.pt"):
        client.evaluate(ExchangeObject(weights=weights))


def test_gan_is_refused_for_training_and_evaluated_with_weights_from_elsewhere(
    sites: dict[str, list[Path]], client_of: MakeClient
) -> None:
    data = sites["lesions"][0]
    with pytest.raises(ValueError, match="trainer must be SupervisedTrainer"):
        client_of(HIGMIS, data, config_evaluate_filename=None)

    client = client_of(HIGMIS, data, config_train_filename=None)
    weights = {name: tensor.clone() for name, tensor in client.evaluator.network.state_dict().items()}
    assert not weights["fusion_code"].is_floating_point()
    with one_thread():
        metrics = client.evaluate(ExchangeObject(weights=weights)).metrics
    assert 0 <= metrics["val_dice"] <= 1
