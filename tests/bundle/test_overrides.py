"""Overrides on the command line: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fire
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msrf_monai.bundle import check_overrides, parse_command_line
from msrf_monai.errors import ConfigError


@pytest.fixture
def config(toy: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The start of a good command line, in the toy bundle's folder."""
    monkeypatch.chdir(toy)
    return ["run", "training", "--config_file", "configs/train.json"]


@pytest.mark.parametrize(
    "words",
    [
        [],  # nothing overridden
        ["--dataset_dir", "x"],  # a key that exists
        ["--dataset-dir", "x"],  # Fire turns hyphens into underscores
        ["--dataset_dir=x"],
        ["--train::trainer::max_epochs", "3"],
        ["--train#trainer#max_epochs", "3"],  # MONAI's old separator
        ["--network_def::features", "[4,4,4,4,4,4]"],
        ["--network_def::dropout", "0.5"],  # not in the config, an argument of BasicUNet
        ["--train::trainer::amp", "True"],  # an argument found by a short name
        ["--network_def::_disabled_", "True"],
        ["--optimizer::weight_decay", "0.1"],
        ["--train::handlers::0::_disabled_", "True"],  # a list index
        ["--train::handlers::0::tag_name", "x"],
        ["--run_id", "run", "--logging_file", "l.conf", "--init_id", "initialize"],  # arguments of `run` itself
        ["--_requires_", "x"],
        ["--+initialize", "['$1']"],
        ["--tracking", "mlflow", "--experiment_name", "a", "--tracking_uri", "b", "--run_name", "c"],
        ["--tracking", "{'configs': {'my_key': 1}, 'handlers_id': {}}", "--my_key", "2"],
        ["--network_def", "$torch.nn.Identity()"],  # replaced as a whole
        ["--network_def", "{'_target_': 'monai.networks.nets.UNet'}", "--network_def::strides", "[2]"],
        ["--val_interval", "-1"],  # a negative number is a value, not a flag
        ["--imports", "[]", "--", "--verbose"],  # words after a lone -- are Fire's own
    ],
)
def test_known_overrides_are_accepted(config: list[str], words: list[str]) -> None:
    assert check_overrides([*config, *words])["seed"] == 0


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        (["--dataset_dirr", "x"], "--dataset_dirr", "--dataset_dir?"),
        (["--train::trainer::max_epoch", "3"], "--train::trainer::max_epoch", "--train::trainer::max_epochs?"),
        (["--network_def#feature", "8"], "--network_def::feature", "--network_def::features?"),
        (["--network_def::drop", "8"], "--network_def::drop", "--network_def::dropout?"),
        (["--max_epochs", "3"], "--max_epochs", "--train::trainer::max_epochs?"),
        (["--confg_file", "x"], "--confg_file", "--config_file?"),
        (["--traning::x::y", "1"], "--traning::x::y", "did you mean"),
        (["--zzzzqq", "1"], "--zzzzqq", "no known key is close"),
        (["--tracking_uri", "1"], "--tracking_uri", "unknown override"),  # only together with --tracking
        (["--train::max_epoch", "1"], "--train::max_epoch", "--train::trainer::max_epochs?"),  # no component
        (["--train::handlers::0::tagname", "1"], "--train::handlers::0::tagname", "tag_name?"),
    ],
)
def test_unknown_override_names_the_nearest_key_and_the_file(
    config: list[str], words: list[str], wrong: str, right: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_overrides([*config, *words])

    message = str(caught.value)
    assert f"unknown override {wrong}:" in message
    assert right in message
    assert "configs/train.json" in message
    assert "\n" not in message


def test_all_unknown_overrides_are_named_at_once(config: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--dataset_dirr.*--sed"):
        check_overrides([*config, "--dataset_dirr", "x", "--sed", "1"])


def test_overlays_and_metadata_are_merged_before_the_check(config: list[str], toy: Path) -> None:
    (toy / "configs" / "b.json").write_text(
        json.dumps({"extra": 1, "train#trainer#max_epochs": 9, "+initialize": ["$2"]})
    )
    (toy / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0"}))
    argv = [
        "run",
        "--config_file",
        "['configs/train.json','configs/b.json']",
        "--extra",
        "2",
        "--_meta_::version",
        "2.0.0",
    ]

    merged = check_overrides(argv)

    assert merged["extra"] == 2
    assert merged["train"]["trainer"]["max_epochs"] == 9
    assert merged["initialize"][-1] == "$2"
    assert merged["_meta_"]["version"] == "2.0.0"


def test_reference_left_open_by_the_config_may_be_given(config: list[str], toy: Path) -> None:
    path = toy / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "paths": "$[@given_by_user]"}))

    assert check_overrides([*config, "--given_by_user", "1"])["given_by_user"] == 1


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_args_file_gives_config_and_overrides(config: list[str], toy: Path, suffix: str) -> None:
    content = {"config_file": "configs/train.json", "run_id": "training", "dataset_dirr": "x"}
    (toy / f"args.{suffix}").write_text(json.dumps(content))

    with pytest.raises(ConfigError, match="unknown override --dataset_dirr"):
        check_overrides(["run", "--args_file", f"args.{suffix}"])


def test_missing_args_file_is_named(config: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"args_file nowhere\.json"):
        check_overrides(["run", "--args_file", "nowhere.json"])


def test_missing_config_file_is_named(config: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"configs/nowhere\.json"):
        check_overrides(["run", "--config_file", "configs/nowhere.json"])


def test_component_that_takes_anything_accepts_any_argument(config: list[str]) -> None:
    target = "{'_target_': 'builtins.dict'}"  # its signature cannot be read
    assert check_overrides([*config, "--network_def", target, "--network_def::a", "1"])["network_def"]["a"] == 1
    target = "{'_target_': 'torch.nn.Identity'}"
    assert check_overrides([*config, "--network_def", target, "--network_def::a", "1"])["network_def"]["a"] == 1


@pytest.mark.parametrize("argv", [[], ["verify_metadata", "--meta_file", "x"], ["run"], ["run_workflow", "a.b.C"]])
def test_commands_without_a_config_are_left_alone(argv: list[str]) -> None:
    assert check_overrides(argv) == {}


def test_run_workflow_knows_its_own_arguments(config: list[str]) -> None:
    argv = ["run_workflow", "--config_file", "configs/train.json", "--workflow_type", "train", "--dataset_dir", "x"]
    assert check_overrides(argv)["dataset_dir"] == "x"


_KEY = st.from_regex(r"[a-m][a-z_]{0,6}(::[a-z]{1,4})?", fullmatch=True)
_VALUE = st.one_of(
    st.integers().map(str), st.from_regex(r"[a-zA-Z0-9_/.]{1,8}", fullmatch=True), st.just("[1,2]"), st.just("{'a': b}")
)
_WORDS = st.lists(
    st.one_of(
        st.tuples(_KEY, _VALUE).map(lambda kv: [f"--{kv[0]}", kv[1]]),
        st.tuples(_KEY, _VALUE).map(lambda kv: [f"--{kv[0]}={kv[1]}"]),
        _KEY.map(lambda key: [f"--{key}"]),
        _KEY.map(lambda key: [f"--no{key}"]),
    ),
    max_size=5,
)


@settings(max_examples=150, deadline=None)
@given(words=_WORDS, positional=st.lists(st.sampled_from(["training", "initialize"]), max_size=2))
def test_command_line_is_read_as_fire_reads_it(words: list[list[str]], positional: list[str]) -> None:
    argv = ["run", *positional, *(word for group in words for word in group)]

    def run(run_id: Any = None, init_id: Any = None, final_id: Any = None, meta_file: Any = None,
            config_file: Any = None, logging_file: Any = None, tracking: Any = None, args_file: Any = None,
            **override: Any) -> Any:  # fmt: skip
        seen.update(run_id=run_id, init_id=init_id, **override)

    seen: dict[str, Any] = {}
    fire.Fire({"run": run}, command=argv, name="test")
    line = parse_command_line(argv)

    assert line is not None
    assert {k: v for k, v in seen.items() if v is not None} == {
        k: v for k, v in {**line.arguments, **line.overrides}.items() if v is not None
    }


def test_plain_none_is_refused_since_monai_would_ignore_it(config: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--dataset_dir None would be ignored.*'\$None'"):
        check_overrides([*config, "--dataset_dir", "None"])
    check_overrides([*config, "--dataset_dir", "$None"])
