"""Dotted names in configs: only what a package itself defines passes, and what gets round that rule is found."""

from __future__ import annotations

import importlib
import inspect
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from monai.bundle import ConfigParser

from msrf_monai.bundle import explain_bundle, permitted
from msrf_monai.bundle.lint import lint_content
from msrf_monai.bundle.permitted import DENIED, UNSAFE_PARTS, is_permitted, is_target
from msrf_monai.bundle.public_names import find_definition

GOOD = (
    "monai.data.Dataset",
    "monai.data.dataset.Dataset",
    "monai.handlers.from_engine",
    "monai.networks.nets.UNet",
    "monai.networks.nets.unet.Unet",  # a second name, given by an assignment
    "monai.networks.layers.Norm.BATCH",
    "monai.transforms.LoadImaged.inverse",
    "monai.utils.BlendMode.GAUSSIAN",
    "ignite.engine.Events.EPOCH_STARTED",
    "torch.nn.Conv2d",
    "torch.nn.functional.conv2d",
    "torch.nn.functional.relu",
    "torch.nn.utils.clip_grad_norm_",
    "torch.optim.AdamW",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.utils.data.DataLoader",
    "torch.linalg.norm",
    "torch.amp.GradScaler",
    "torch.rand",
    "torch.cuda.is_available",
    "msrf_monai.networks.MSRFNet",
    "msrf_monai.transforms.canny_edges",
    "numpy.random.default_rng",
)
TARGETS = (
    # found by the reviewer
    "monai.handlers.stats_handler.logging.config.dictConfig",
    "monai.handlers.stats_handler.logging.config.fileConfig",
    "ignite.engine.engine.logging.config.listen",
    "monai.data.LMDBDataset",
    "monai.data.image_reader.nib.Nifti1Image.from_url",
    "monai.data.dataset.time.sleep",
    "functools.partial",
    "monai.data.utils.partial",
    # modules behind modules, and what modules only import
    "monai.data.dataset.tempfile.mkdtemp",
    "monai.handlers.stats_handler.logging.FileHandler",
    "monai.handlers.stats_handler.logging.Logger",
    "monai.transforms.io.array.Path.write_text",
    "monai.networks.nets.unet.nn.Module",
    "monai.data.dataset.Manager",
    "monai.data.ForkingPickler",
    "monai.data.image_reader.itk.imread",
    "monai.transforms.utils.warnings.warn",
    "torch.nn.modules.module.weakref.ref",
    "torch.utils.data.dataloader.queue.Queue",
    "ignite.handlers.checkpoint.Mapping",
    # a module instead of what is in it, another spelling, inner parts, too long a way
    "monai.data",
    "torch.nn.functional",
    "MONAI.data.Dataset",
    "monai.Data.Dataset",
    "monai.data.dataset.dataset",
    "monai.data.Dataset.__init__",
    "monai.data.Dataset.__class__.mro",
    "monai.data.__builtins__.eval",
    "monai.data._reduction.x",
    "monai.data.Dataset.x.y",
    "monai.data..Dataset",
    "torch.nn.Module.apply",  # a method without its object
    # public, and dangerous
    "monai.data.dataset.PersistentDataset",
    "monai.losses.PerceptualLoss",
    "monai.networks.nets.FlexUNetEncoderRegister",
    "monai.networks.utils.look_up_named_module",
    "monai.transforms.utils.look_up_option",
    "monai.bundle.run",
    "monai.bundle.config_item.ComponentLocator",
    "monai.utils.module.instantiate",
    "monai.utils.misc.run_cmd",
    "monai.utils.load_submodules",
    "monai.apps.utils.download_url",
    "monai.apps.auto3dseg.AutoRunner",
    "torch.package.PackageImporter",
    "torch.save",
    "torch.backends.xeon.run_cpu.main",
    "ignite.distributed.Parallel",
    "msrf_monai.clinical.predict",
    "msrf_monai.engines.best.save_weights",
)
EXPRESSIONS = {
    "logging-behind": "$monai.handlers.stats_handler.logging.config.dictConfig(@a)",
    "imported-time": "$monai.data.dataset.time.sleep(1)",
    "imported-function": "$monai.data.utils.partial(@a)",
    "module-as-value": "$[m.x for m in [monai.handlers.stats_handler]]",
    "numpy-module-as-value": "$[m.x for m in [np.random.mtrand]]",
    "import-of-import": "$import monai.handlers.stats_handler.logging as log",
    "import-name-of-import": "$from monai.handlers.stats_handler import logging",
    "import-partial": "$from monai.data.utils import partial",
    "alias-of-module": "$from monai.handlers import stats_handler",
    "loader-by-name": "$monai.transforms.LoadImage('os.system', command='x')",
    "pickles": "$monai.data.LMDBDataset(@a, @b)",
    "pickles-by-place": "$monai.data.NumpyReader(None, True, True)",
    "checkpoint-objects": "$ignite.handlers.Checkpoint.load_objects(@a, 'x.pt')",
    "array-dump": "$@a.dump('x')",
    "upper-case": "$torch.Load('x')",
}
CONFIGS: dict[str, dict[str, Any]] = {
    "partial-of-the-wrapper": {"a": {"_target_": "functools.partial", "func": "@b", "_mode_": "partial"}},
    "mode-partial": {"a": {"_target_": "torch.nn.Identity", "_mode_": "partial"}},
    "callable": {"a": {"_target_": "monai.data.dataset.time.sleep", "_mode_": "callable"}},
    "expression": {"a": {"_target_": "$'monai.data.' + 'LMDBDataset'"}},
    "reference": {"a": {"_target_": "@b"}, "b": "monai.data.LMDBDataset"},
    "short-run": {"a": {"_target_": "run_cmd"}},
    "short-configure": {"a": {"_target_": "dictConfig"}},
    "reader": {"a": {"_target_": "monai.transforms.LoadImage", "reader": "os.system", "command": "x"}},
    "reader-in-a-list": {"a": {"_target_": "monai.transforms.LoadImage", "reader": ["PILReader", "exec"]}},
    "reader-as-a-key": {"a": {"_target_": "monai.transforms.LoadImage", "reader": {"os.system": 1}}},
    "reader-made": {
        "a": {"_target_": "monai.transforms.LoadImage", "reader": {"_target_": "monai.utils.ensure_tuple", "vals": "x"}}
    },
    "reader-by-reference": {"a": {"_target_": "monai.transforms.LoadImage", "reader": "@b"}, "b": "os.system"},
    "reader-in-the-key": {"a::reader": "os.system"},
    "writer": {"a": {"_target_": "monai.transforms.SaveImaged", "keys": "pred", "writer": "os.system"}},
    "merger": {"a": {"_target_": "monai.inferers.PatchInferer", "merger_cls": "os.system"}},
    "loader-called-later": {"a": {"_target_": "monai.transforms.LoadImage", "_mode_": "callable"}},
    "loader-in-the-key": {"a::_target_": "monai.transforms.LoadImage"},
    "loader-merged": {"+a": {"_target_": "monai.transforms.LoadImage"}},
    "mode-in-the-key": {"a::_mode_": "callable"},
}


@pytest.mark.parametrize("name", GOOD)
def test_public_name_of_a_package_is_permitted(name: str) -> None:
    assert is_permitted(name) or name.startswith("monai.transforms.LoadImaged")


@pytest.mark.parametrize("name", TARGETS)
def test_other_name_is_refused_as_a_target(name: str) -> None:
    assert lint_content({"a": {"_target_": name}})
    assert lint_content({"a::_target_": name})


@pytest.mark.parametrize("text", EXPRESSIONS.values(), ids=EXPRESSIONS.keys())
def test_other_name_is_refused_in_an_expression(text: str) -> None:
    assert lint_content({"a": text})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_trick_around_the_names_is_found(config: dict[str, Any]) -> None:
    assert lint_content(config)


@pytest.mark.parametrize(
    "reader", ["PILReader", "monai.data.PILReader", ["itkreader"], {"_target_": "monai.data.PILReader"}]
)
def test_reader_of_monai_may_be_named(reader: Any) -> None:
    assert lint_content({"a": {"_target_": "monai.transforms.LoadImage", "reader": reader}}) == []


# These do run in MONAI, so that the linter has to find them and not only may.
def _tricks(mark: Path) -> dict[str, dict[str, Any]]:
    handler = {"()": "logging.FileHandler", "filename": str(mark)}
    return {
        "logging": {
            "_target_": "monai.handlers.stats_handler.logging.config.dictConfig",
            "config": {"version": 1, "disable_existing_loggers": False, "handlers": {"a": handler}},
        },
        "reader": {"_target_": "monai.transforms.LoadImage", "reader": "os.mkdir", "path": str(mark)},
    }


@pytest.mark.parametrize(
    ("trick", "problem"), [("logging", "no public class or function"), ("reader", "reader is 'os.mkdir'")]
)
def test_trick_that_monai_executes_is_found(tmp_path: Path, trick: str, problem: str) -> None:
    mark = tmp_path / "executed"
    config = {"a": _tricks(mark)[trick]}
    before = set(logging.root.handlers)

    found = lint_content(config)
    untouched = not mark.exists()
    ConfigParser(config).get_parsed_content("a")

    assert set(logging.root.handlers) == before
    assert mark.exists(), "MONAI does not execute this any more; the rule can be dropped"
    assert untouched
    assert any(problem in sentence for sentence in found), found


MODULES = (
    "monai.data.dataset",
    "monai.data.image_reader",
    "monai.data.utils",
    "monai.engines.workflow",
    "monai.handlers.stats_handler",
    "monai.networks.nets",
    "monai.networks.utils",
    "monai.transforms",
    "monai.transforms.utils",
    "ignite.engine",
    "ignite.handlers",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.modules.module",
    "torch.optim",
    "torch.utils.data",
)


@pytest.mark.parametrize("name", MODULES)
def test_what_passes_belongs_to_its_package_as_python_sees_it(name: str) -> None:
    module = importlib.import_module(name)
    root = name.partition(".")[0]
    public = {each: value for each, value in vars(module).items() if is_target(f"{name}.{each}")}

    homes = {each: getattr(value, "__module__", None) or root for each, value in public.items()}

    assert public
    assert not [each for each, value in public.items() if isinstance(value, ModuleType)]
    assert {each: home for each, home in homes.items() if home.partition(".")[0] not in (root, "builtins")} == {}


@pytest.mark.parametrize("name", ["monai.transforms", "monai.networks.nets", "monai.losses", "torch.nn", "torch.optim"])
def test_every_class_that_is_not_denied_passes(name: str) -> None:
    module = importlib.import_module(name)
    classes = [
        each
        for each, value in inspect.getmembers(module, inspect.isclass)
        if value.__module__.startswith(f"{name}.") and not each.startswith("_")
    ]

    refused = {each for each in classes if not is_target(f"{name}.{each}")}

    assert classes
    assert refused <= DENIED | UNSAFE_PARTS


def test_definition_says_where_a_name_comes_from() -> None:
    found = find_definition("monai.data.Dataset")

    assert found is not None
    assert (found.module, found.name) == ("monai.data.dataset", "Dataset")


def test_missing_package_is_said_and_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permitted, "find_definition", lambda name: None)
    monkeypatch.setattr(permitted, "is_installed", lambda root: False)

    problems = lint_content({"a": {"_target_": "monai.data.Dataset"}, "b": "$monai.handlers.from_engine(['a'])"})

    assert len(problems) == 2
    assert all("cannot be judged, since monai is not installed here" in problem for problem in problems)


def test_nothing_is_imported_to_judge_a_name() -> None:
    program = (
        "import sys; from msrf_monai.bundle.lint import lint_content;"
        "names = ('monai.data.Dataset', 'torch.nn.Conv2d', 'ignite.engine.Engine', 'msrf_monai.losses.MSRFLoss');"
        "found = [lint_content({'a': {'_target_': name}}) for name in names];"
        "print(found, {'monai', 'torch', 'ignite', 'numpy'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "[[], [], [], []] set()\n"


@pytest.mark.parametrize("name", ["run_cmd", "dictConfig", "LMDBDataset", "eval", "__import__", "breakpoint"])
def test_short_name_that_runs_or_loads_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"a": {{"_target_": "{name}"}}}}')

    (item,) = explain_bundle(tmp_path).dangerous

    assert item.text == name
