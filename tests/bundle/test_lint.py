"""The static rules for configs: each broken rule gives one sentence that names the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from msrf_monai.bundle import config_files, lint_bundle, lint_config, lint_name, read_json
from msrf_monai.errors import ConfigError


def _lint(tmp_path: Path, config: Any) -> list[str]:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(config, indent=4) + "\n")
    return lint_config(path)


def test_bundle_that_keeps_the_rules_has_no_problem(bundle: Path) -> None:
    assert lint_bundle(bundle) == []


@pytest.mark.parametrize(
    "config",
    [
        {
            "a": "$import os",
            "b": "$from msrf_monai.bundle import prepare_run",
            "c": "$import torch.distributed as dist",
        },
        {"a": "$@bundle_root + '/models/model.pt'"},  # below a folder that is given
        {"a": "$@train#x[0] + @train::y", "b": "%train#x", "c": "@a", "d": "50 / 50 of both"},
        {"a": {"_target_": "monai.transforms.Flipd", "keys": ["image", "label", "edge"]}},
        {"a": {"_target_": "monai.transforms.Flipd", "keys": "@keys"}},
        {"a": {"_target_": "monai.transforms.SpatialPadd", "keys": ["image", "fov", "label2"]}},
        {"a": {"_target_": "monai.transforms.DeleteItemsd", "keys": ["fov", "label_fg_indices"]}},
        {"a": {"url": "https://x.org/a.zip", "sha256": "0" * 64}},
        {
            "run": ["$@a.run()"],
            "training": "@run",
            "evaluating": "@run",
            "train": {"handlers": [{"_target_": "monai.handlers.StatsHandler"}]},
        },
        {"a": "$os.path.join(@b, 'x')", "b": "$os.path.basename(@c)", "c": "$os.environ['LOCAL_RANK']"},
        {"a": "$math.ceil(@b / 2)", "b": "$sorted(glob.glob(@c + '/*.png'))", "c": "$f'{len(d)} of them'.upper()"},
        {"a": "$import numpy as np", "b": "$np.ones(3)", "c": "$from monai.data import Dataset"},
        {"a": {"_target_": "torch.jit.load", "f": "$@bundle_root + '/models/model.ts'"}},
        {"a": {"_target_": "msrf_monai.inferers.MaskSlidingWindowInferer"}},
        {"a": {"lazy": False, "b": None, "c": 1.5, "d": True}},
    ],
)
def test_good_config_has_no_problem(tmp_path: Path, config: Any) -> None:
    assert _lint(tmp_path, config) == []


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"a": {"b": "$lambda x: x"}}, "a::b: lambda"),
        ({"a": ["$[f for f in map(lambda y: y, z)]"]}, "a::0: lambda"),
        ({"a": "$f(1)\n+ 2"}, "a: the expression spans several lines"),
        ({"a": "$f(1"}, "a: the expression is not Python"),
        ({"a": "$import subprocess"}, "a: the expression imports subprocess"),
        ({"a": "$from shutil import rmtree"}, "a: the expression imports shutil"),
        ({"a": "$open('x').read()"}, "a: the expression calls open()"),
        ({"a": "$os.system('x')"}, "a: the expression uses .system"),
        ({"a": "$os.remove('x')"}, "a: the expression uses os.remove"),
        ({"a": "$list(map(os.remove, @b))"}, "uses os.remove"),
        ({"a": "$os.environ.update(@b)"}, "uses os.environ.update"),
        ({"a": "$[os][0].getpid()"}, "hands on the module os"),
        ({"a": "$pathlib.Path('x').write_text('y')"}, "uses .write_text"),
        ({"a": "$pathlib.Path('x')"}, "uses pathlib.Path"),
        ({"a": "$@folder.unlink()"}, "uses .unlink"),
        ({"a": "$torch.load('x.pt', weights_only=False)"}, "uses torch.load"),
        ({"a": "$torch.load('x.pt', weights_only=False)"}, "sets weights_only"),
        ({"a": "$monai.networks.nets.EfficientNetBN('efficientnet-b0')"}, "EfficientNetBN"),
        ({"a": "$monai.networks.nets.DenseNet121(2, 3, 2, pretrained=True)"}, "sets pretrained"),
        ({"a": {"_target_": "monai.networks.nets.EfficientNetBN", "model_name": "b0"}}, "unless pretrained is false"),
        ({"a": {"_target_": "monai.networks.nets.DenseNet121", "pretrained": True}}, "pretrained fetches weights"),
        ({"a": {"_target_": "monai.networks.nets.DenseNet121", "pretrained": "@yes"}}, "pretrained fetches weights"),
        ({"a": {"_target_": "monai.networks.nets.TorchVisionFCModel", "weights": "IMAGENET1K_V1"}}, "weights fetches"),
        ({"a": "$numpy.load('x', allow_pickle=True)"}, "uses numpy.load"),
        ({"a": "$np.load('x')"}, "uses numpy.load"),
        ({"a": "$@f('x', allow_pickle=True)"}, "sets allow_pickle"),
        ({"a": "$@f('x', **{'allow_pickle': True})"}, "sets allow_pickle"),
        ({"a": "$torch.hub.load('a/b', 'c')"}, "uses torch.hub.load"),
        ({"a": "$torch.jit.load('x.ts')"}, "uses torch.jit.load"),
        ({"a": "$torch.os.getcwd()"}, "uses .os"),
        ({"a": "$subprocess.run(['x'])"}, "uses the module subprocess"),
        ({"a": "$__builtins__['eval']('1')"}, "uses __builtins__"),
        ({"a": "$list(map(eval, ['1']))"}, "calls eval()"),
        ({"a": "$import os as o"}, "imports os as o"),
        ({"a": "$import torch as t"}, "imports torch as t"),
        ({"a": "$import torch.hub"}, "imports torch.hub"),
        ({"a": "$from os import remove"}, "imports os.remove"),
        ({"a": "$from torch import load"}, "imports torch.load"),
        ({"a": "$from torch import *"}, "imports torch;"),
        ({"a": "$'/data/secret/model.pt'"}, "is an absolute path"),
        ({"a": "$os.path.join(@b, '/data/x')"}, "is an absolute path"),
        ({"a": "$'' + '/data/x'"}, "is an absolute path"),
        ({"a": "$f'/data/{b}'"}, "is an absolute path"),
        ({"a": "$f'{@root}/data'"}, "a reference stands within a text"),
        ({"a": {"_target_": "torch.load", "f": "x.pt"}}, "a: _target_ 'torch.load' loads, writes or runs"),
        ({"a": {"_target_": "torch.hub.load"}}, "a: _target_ 'torch.hub.load' loads, writes or runs"),
        ({"a": {"_target_": "torch.os.remove"}}, "loads, writes or runs"),
        ({"a": {"_target_": "monai.utils.module.sys.exit"}}, "loads, writes or runs"),
        ({"a": {"_target_": "torch.nn.Module.__init__"}}, "loads, writes or runs"),
        ({"a": {"_target_": "subprocess.run"}}, "must be a dotted name"),
        ({"a": {"_target_": "monai.data.NumpyReader", "allow_pickle": True}}, "a: allow_pickle is set"),
        ({"a": "$().__class__"}, "a: the expression uses .__class__"),
        ({"a": "$'/home/someone/x'"}, "path of one machine"),
        ({"a": "see /workspace/data"}, "path of one machine"),
        ({"a": "/data/x"}, "is an absolute path"),
        ({"a": "%/data/x.json#b"}, "is an absolute path"),
        ({"a": "C:\\data"}, "is an absolute path"),
        ({"a": "~/x"}, "is an absolute path"),
        ({"a": "scripts.net.Net"}, "uses scripts/"),
        ({"a": {"_target_": "scripts.net.Net"}}, "a: _target_ 'scripts.net.Net' must be a dotted name"),
        ({"a": {"_target_": "MSRFNet"}}, "must be a dotted name under monai, torch, ignite, msrf_monai"),
        ({"a": {"_target_": "$@b"}}, "must be a dotted name"),
        ({"a": {"_target_": 3}}, "must be a dotted name"),
        ({"a": {"_target_": "monai.transforms.Flipd", "keys": ["img"]}}, "a: keys names 'img'"),
        ({"a": {"_target_": "monai.transforms.Flipd", "keys": "label_fg_indices"}}, "keys names 'label_fg_indices'"),
        ({"a": {"_target_": "monai.transforms.DeleteItemsd", "keys": ["x_y"]}}, "a: keys names 'x_y'"),
        ({"a": {"_target_": "monai.transforms.Compose", "lazy": True}}, "a: lazy resampling"),
        ({"a": {"url": "https://x.org/a.zip"}}, "a: url is a URL without a sha256"),
        ({"training": ["$@a.run()"]}, 'training: must be "@run"'),
        ({"evaluating": "$@a.run()"}, 'evaluating: must be "@run"'),
        ({"train": {"handlers": "$@a"}}, "train::handlers: must be a JSON list of objects"),
    ],
)
def test_broken_rule_is_named_with_its_key(tmp_path: Path, config: Any, problem: str) -> None:
    found = _lint(tmp_path, config)

    assert any(problem in sentence for sentence in found), found
    assert all(sentence.startswith("a.json: ") for sentence in found)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{\n  "a": 1\n}\n', "line 2 is not indented"),
        ('{\n\t"a": 1\n}\n', "line 2 is not indented"),
        ('{\n    "a": 1\n}', "no line end"),
        ('{"a": 1, "a": 2}\n', "the key a occurs twice"),
        ("{\n", "cannot be read as JSON"),
        ("[]\n", "a JSON object was expected"),
    ],
)
def test_layout_of_the_file_is_checked(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)

    assert any(problem in sentence for sentence in lint_config(path))


@pytest.mark.parametrize(
    ("name", "count"),
    [("msrf_net_polyp_segmentation", 0), ("MSRF-Net", 1), ("polyp_detection_segmentation", 1), ("polyp_detection", 2)],
)
def test_bundle_name_is_checked(name: str, count: int) -> None:
    assert len(lint_name(name)) == count


def test_overlays_in_subfolders_are_linted_and_metadata_is_not(bundle: Path) -> None:
    overlay = bundle / "configs" / "datasets" / "kvasir_seg.json"
    overlay.parent.mkdir()
    overlay.write_text('{"a": "$lambda: 1"}\n')

    assert overlay in config_files(bundle)
    assert bundle / "configs" / "metadata.json" not in config_files(bundle)
    assert lint_bundle(bundle) == [
        "kvasir_seg.json: a: lambda in an expression; make it a named function of the package"
    ]


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        read_json(tmp_path / "nowhere.json")


def test_many_short_names_are_one_problem_and_hide_no_other(tmp_path: Path) -> None:
    config = {name: {"_target_": "Compose"} for name in "abcd"} | {"e": {"_target_": "Dataset"}, "f": "$eval('1')"}

    assert _lint(tmp_path, config) == [
        "a.json: a and 4 more: _target_ must be a dotted name; short are Compose, Dataset",
        "a.json: f: the expression calls eval()",
    ]


def test_deeply_nested_json_is_one_problem(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": ' * 300 + "1" + "}" * 300 + "\n")

    assert lint_config(path) == [f"{path} is nested deeper than 100 levels"]
