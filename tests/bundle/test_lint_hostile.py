"""Configs that try to get code past the linter: each is found, and what MONAI would make of the worst is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from msrf_monai.bundle import lint_bundle, lint_config

EXPRESSIONS = {
    "import-function": "$__import__('os').system('x')",
    "import-several": "$import os, subprocess",
    "import-relative": "$from . import evil",
    "import-own-module": "$import evil",
    "import-submodule": "$import logging.config",
    "import-as-known-name": "$from monai.data import Dataset as torch",
    "import-as-builtin": "$import monai.transforms as sorted",
    "import-then-more": "$import os; os.system('x')",
    "statement": "$x = 1",
    "two-expressions": "$print(1); print(2)",
    "walrus": "$(t := torch.device('cpu'))",
    "walrus-module": "$[(m := torch), m.hub.load('a', 'b')]",
    "lambda-nested": "$sorted(@a, key=lambda x: x)",
    "comprehension-module": "$[t.hub.load('a', 'b') for t in [torch]]",
    "comprehension-own-package": "$[m.bundle for m in [monai]]",
    "comprehension-package": "$[m.io for m in (monai.transforms,)]",
    "comprehension-hides-alias": "$[np.load for np in [numpy]]",
    "generator-frame": "$(x for x in [1]).gi_frame.f_back.f_globals",
    "comprehension-sets-environment": "$[0 for os.environ['PATH'] in ['x']]",
    "comprehension-sets-attribute": "$[0 for torch.nn.Module.forward in [@a]]",
    "comprehension-sets-inner": "$[0 for (x, @a.y) in [(1, 2)]]",
    "torch-allocator": "$torch.cuda.CUDAPluggableAllocator('x.so', 'a', 'b')",
    "torch-rpc": "$torch.distributed.rpc.init_rpc('a')",
    "await": "$[x async for x in @a]",
    "class-walk": "$().__class__.__bases__[0].__subclasses__()",
    "class-walk-mro": "$type.mro(int)",
    "type-of-three": "$type('X', (), {})",
    "dunder-by-key": "$@f['__globals__']",
    "dunder-by-format": "$'{0.__class__}'.format(@a)",
    "getattr": "$getattr(torch, 'load')",
    "attrgetter": "$operator.attrgetter('system')",
    "vars": "$vars(torch)",
    "globals": "$globals()['torch']",
    "map-eval": "$list(map(eval, ['1']))",
    "exec-in-dict": "${'a': exec}",
    "compile": "$compile('1', 'a', 'eval')",
    "torch-serialization": "$torch.serialization.load('x')",
    "torch-walk": "$torch.nn.modules.module.sys.modules",
    "torch-os": "$torch.nn.functional.importlib.import_module('os')",
    "torch-fx": "$torch.fx.Graph()",
    "torch-timer": "$torch.utils.benchmark.Timer('x').timeit(1)",
    "torch-ops": "$torch.ops",
    "torch-library": "$torch.classes.load_library('x.so')",
    "torch-extension": "$torch.utils.cpp_extension.load_inline('a', 'b')",
    "torch-object-list": "$torch.distributed.broadcast_object_list(@a)",
    "torch-private": "$torch._utils._rebuild_tensor",
    "torch-datapipes": "$torch.utils.data.datapipes.iter.FileOpener(@a)",
    "numpy-walk": "$np.lib.npyio.load('x')",
    "numpy-pickle": "$np.random.RandomState().__reduce__()",
    "numpy-file": "$np.fromfile('x')",
    "monai-optional-import": "$monai.utils.optional_import('os')",
    "monai-walk": "$monai.transforms.io.array.optional_import('os')",
    "monai-run": "$monai.bundle.run('training', config_file='x.json')",
    "monai-parser": "$monai.bundle.ConfigParser({'a': 'b'})",
    "monai-command": "$monai.utils.misc.run_cmd(['x'])",
    "monai-download": "$monai.apps.download_and_extract('x', 'y')",
    "own-require": "$msrf_monai.optional.require('os', 'x')",
    "own-files": "$msrf_monai.files.write_text('x', 'y')",
    "own-module": "$msrf_monai.data.datalist.json.loads(@a)",
    "url": "$open_it('https://example.org/x.pt')",
    "climbing": "$@bundle_root + '/../../other/models/model.pt'",
    "absolute-after-nothing": "$str() + '/etc/passwd'",
    "absolute-bytes": "$b'/etc/passwd'",
    "lookalike-full-width": "$\uff45\uff56\uff41\uff4c('1')",
    "lookalike-cyrillic": "$t\u043erch.device('cpu')",
    "several-lines": "$print(1,\n2)",
    "carriage-return": "$print(1,\r2)",
    "too-long": "$" + "+".join(["1"] * 200),
    "zero-byte": "$print(\x00)",
    "pickle-module": "$@f(pickle_module=@g)",
    "reference-in-text": "$'@f{print(1)}'",
    "reference-with-colon": "${@a:eval('1')}",
    "reference-with-comment": "$@a#b if eval('1') else 2",
    "reference-names-refs": "$__local_refs['a']",
    "reference-in-f-string": "$f'{@a.run()}'",
}


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_hostile_expression_is_found_however_deep_it_stands(tmp_path: Path, text: str) -> None:
    component = {"_target_": "torch.nn.Identity", "b": [{"_requires_": [text]}]}
    for place in ({"a": text}, {"a": component}, {"+run": [text]}):
        assert _lint(tmp_path, place), place


CONFIGS: dict[str, tuple[Any, str]] = {
    "target-in-the-key": ({"network_def::_target_": "os.system"}, "must be a dotted name"),
    "target-in-the-old-key": ({"+network_def#_target_": "os.system"}, "must be a dotted name"),
    "target-callable": ({"a": {"_target_": "builtins.eval", "_mode_": "callable"}}, "must be a dotted name"),
    "target-partial": ({"a": {"_target_": "torch.hub.load", "_mode_": "callable"}}, "loads, writes or runs"),
    "target-computed": ({"a": {"_target_": "$'os' + '.system'"}}, "must be a dotted name"),
    "target-by-reference": ({"a": {"_target_": "@b"}, "b": "os.system"}, "must be a dotted name"),
    "target-by-macro": ({"a": {"_target_": "%b"}, "b": "os.system"}, "must be a dotted name"),
    "target-lookalike": ({"a": {"_target_": "m\u043enai.data.Dataset"}}, "must be a dotted name"),
    "target-in-disguise": ({"a": {"_target_": "monai.data.dataset.pickle.loads"}}, "loads, writes or runs"),
    "target-behind-torch": ({"a": {"_target_": "monai.networks.utils.torch.load"}}, "loads, writes or runs"),
    "target-parser": ({"a": {"_target_": "monai.bundle.ConfigParser"}}, "loads, writes or runs"),
    "target-workflow": ({"a": {"_target_": "monai.bundle.run"}}, "loads, writes or runs"),
    "target-timer": ({"a": {"_target_": "torch.utils.benchmark.Timer", "stmt": "x"}}, "loads, writes or runs"),
    "target-extension": ({"a": {"_target_": "torch.utils.cpp_extension.load"}}, "loads, writes or runs"),
    "target-download": ({"a": {"_target_": "monai.apps.DecathlonDataset"}}, "loads, writes or runs"),
    "target-own-optional": ({"a": {"_target_": "msrf_monai.optional.require"}}, "loads, writes or runs"),
    "target-own-cli": ({"a": {"_target_": "msrf_monai.cli.main.main"}}, "loads, writes or runs"),
    "target-standard": ({"a": {"_target_": "pathlib.Path.unlink"}}, "must be a dotted name"),
    "target-list": ({"a": {"_target_": ["os.system"]}}, "must be a dotted name"),
    "mode-debug": ({"a": {"_target_": "torch.nn.Identity", "_mode_": "debug"}}, "_mode_ is 'debug'"),
    "mode-computed": ({"a": {"_target_": "torch.nn.Identity", "_mode_": "$'debug'"}}, "_mode_ is"),
    "requires": ({"a": {"_target_": "torch.nn.Identity", "_requires_": "$eval('1')"}}, "calls eval()"),
    "disabled": ({"a": {"_target_": "torch.nn.Identity", "_disabled_": "$exec('1')"}}, "calls exec()"),
    "description": ({"a": {"_target_": "torch.nn.Identity", "_desc_": "$open('x')"}}, "calls open()"),
    "merge-key": ({"+imports": ["$import subprocess"]}, "imports subprocess"),
    "delete-key": ({"~initialize": None}, "begins with a sign"),
    "delete-inner-key": ({"a": {"~handlers": []}}, "begins with a sign"),
    "key-lookalike": ({"tr\u0430in": {}}, "characters other than ASCII"),
    "handlers-in-the-key": ({"train#handlers": "$@a"}, "must be a JSON list of objects"),
    "training-in-the-key": ({"+training": ["$@a.run()"]}, 'must be "@run"'),
    "keys-in-the-key": ({"a::keys": ["img"]}, "keys names 'img'"),
    "pickle-in-the-key": ({"a#allow_pickle": True}, "allow_pickle is set"),
    "macro-other-bundle": ({"a": "%../other/configs/train.json::a"}, "goes up and may leave"),
    "macro-no-config": ({"a": "%models/model.json::sha256"}, "a macro may read only configs"),
    "macro-yaml": ({"a": "%configs/extra.yaml#a"}, "a macro may read only configs"),
    "macro-upper-case": ({"a": "%configs/extra.JSON::a"}, "a macro may read only configs"),
    "macro-metadata": ({"a": "%configs/metadata.json::a"}, "a macro may read only configs"),
    "macro-absolute": ({"a": "%/etc/x.json::a"}, "is an absolute path"),
    "macro-address": ({"a": "%file:///etc/x.json::a"}, "is an absolute path"),
    "macro-inside": ({"a": "%configs/../../x/configs/train.json::a"}, "goes up and may leave"),
    "climbing-path": ({"a": "../../secrets"}, "goes up and may leave"),
    "share": ({"a": "\\\\server\\share"}, "is an absolute path"),
    "addresses-in-a-list": ({"urls": ["https://example.org/a.pt"]}, "URL without a sha256"),
    "address-other-scheme": ({"a": {"url": "s3+x://bucket/a.pt"}}, "URL without a sha256"),
    "text-direction": ({"a": "\u202etp.ledom"}, "cannot be seen"),
    "no-width": ({"a": "mod\u200bel"}, "cannot be seen"),
    "scripts": ({"a": "%scripts/x.json::b"}, "uses scripts/"),
}


@pytest.mark.parametrize(("config", "problem"), CONFIGS.values(), ids=CONFIGS.keys())
def test_hostile_config_is_named(tmp_path: Path, config: Any, problem: str) -> None:
    assert any(problem in sentence for sentence in _lint(tmp_path, config))


# What MONAI itself executes: these do run, so that the linter has to find them and not only may.
RUNNING = {
    "reference-in-text": {"f": 1, "a": '$\'@f{open(__import__("os").environ["MARK"], "w")}\''},
    "reference-with-colon": {"i": "$import os", "k": 1, "a": "${@k:open(os.environ['MARK'], 'w')}"},
    "target-in-the-key": {
        "a": {"mode": "w", "file": "$__import__('os').environ['MARK']"},
        "a::_target_": "builtins.open",
    },
    "metadata": {"_meta_": {"version": "$open(__import__('os').environ['MARK'], 'w')"}},
}


@pytest.mark.parametrize("config", RUNNING.values(), ids=RUNNING.keys())
def test_tricks_that_monai_executes_are_found(
    tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    monkeypatch.setenv("MARK", str(mark))

    found = _lint(tmp_path, config)
    untouched = not mark.exists()
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "a.json"))
    parser.get_parsed_content("")

    assert mark.exists(), "MONAI does not execute this any more; the rule can be dropped"
    assert untouched
    assert found


def test_names_that_mean_two_things_are_named(bundle: Path) -> None:
    for name, module in (("one", "monai.data"), ("two", "torch.nn")):
        (bundle / "configs" / f"{name}.json").write_text(json.dumps({"a": f"$import {module} as d"}, indent=4) + "\n")

    assert any("imports torch.nn as d, which is monai.data" in problem for problem in lint_bundle(bundle))


def test_aliases_of_another_config_are_followed(bundle: Path) -> None:
    (bundle / "configs" / "one.json").write_text('{\n    "a": "$import torch.utils.data as d"\n}\n')
    (bundle / "configs" / "two.json").write_text('{\n    "a": "$d.datapipes.iter.FileOpener(@b)"\n}\n')

    problems = lint_bundle(bundle)

    assert any(each.startswith("two.json: a: the expression uses torch.utils.data") for each in problems)


def _lint(tmp_path: Path, config: Any) -> list[str]:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(config, indent=4) + "\n")
    return lint_config(path)
