"""Exported networks are kept from run to run, found by what decides them, and checked before they are used."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from msrf_monai.clinical import backends, network_cache
from msrf_monai.clinical.network_cache import NetworkCache, folder_of_process, folder_of_user
from msrf_monai.errors import ConfigError, StorageError

KEY, OTHER = "0" * 32, "1" * 32
IMAGE = torch.linspace(-3, 3, 24).reshape(1, 1, 4, 6)


@pytest.fixture
def kept(tmp_path):
    """A cache that holds one file of five bytes."""
    cache = NetworkCache(tmp_path / "cache")
    return cache, keep(cache, KEY, b"first")


@pytest.fixture
def exported(monkeypatch):
    """Let the export write a network of one sigmoid, and count how often it is done."""
    pytest.importorskip("onnxruntime", reason="the extra export is not installed")
    onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
    done = []

    def export(bundle, path, *, checkpoint, config, input_shape, **overrides):
        done.append(config)
        ends = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in ("x", "y")
        ]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Sigmoid", ["x"], ["y"])], "net", ends[:1], ends[1:])
        onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
        return path

    monkeypatch.setattr(backends, "export_onnx", export)
    return done


def keep(cache, key, content):
    with cache.exporting() as work:
        (work / "draft").write_bytes(content)
        return cache.keep(key, work / "draft")


def source(digest="weights", cache=None):
    return backends.Runnable(torch.nn.Sigmoid(), Path(), "inference.json", {}, (1, 1, 8, 8), digest, cache, 1)


def run(backend="onnxruntime", **options):
    return backends.build_backend(backend, source(**options), torch.device("cpu"))(IMAGE)


def networks(folder):
    return sorted(path.name for path in folder.glob("*.onnx"))


def test_a_network_is_exported_once_and_then_found_in_the_users_cache(exported, user_cache):
    first, again = run(), run()

    torch.testing.assert_close(first, IMAGE.sigmoid())
    assert torch.equal(first, again)
    assert len(exported) == 1
    folder = user_cache / "msrf-monai" / "networks"
    assert len(networks(folder)) == 1
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(folder.glob(".export-*"))


def test_other_weights_or_other_libraries_are_another_network(exported, monkeypatch):
    run()
    run(digest="other weights")
    assert len(exported) == 2

    monkeypatch.setattr(backends, "versions", lambda: {"torch": "99"})
    run()
    assert len(exported) == 3


def test_one_file_serves_several_runtimes_and_each_is_compared_with_eager_once(exported, monkeypatch):
    pytest.importorskip("openvino", reason="the extra export is not installed")
    compared = []
    real = backends._compare
    monkeypatch.setattr(backends, "_compare", lambda *given: compared.append(1) or real(*given))

    for backend in ("onnxruntime", "openvino", "onnxruntime", "openvino"):
        torch.testing.assert_close(run(backend), IMAGE.sigmoid())

    assert (len(exported), len(compared)) == (1, 2)


@pytest.mark.parametrize("damage", [b"", b"something else"], ids=["emptied", "replaced"])
def test_a_damaged_file_is_not_used_but_exported_again(exported, tmp_path, caplog, damage):
    run(cache=tmp_path)
    (path,) = tmp_path.glob("*.onnx")
    path.write_bytes(damage)

    torch.testing.assert_close(run(cache=tmp_path), IMAGE.sigmoid())

    assert len(exported) == 2
    assert "was damaged" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_the_switch_keeps_nothing_from_run_to_run(exported, monkeypatch, user_cache):
    monkeypatch.setattr(network_cache, "_of_process", [])
    monkeypatch.setenv("MSRF_NETWORK_CACHE", "off")

    run()

    assert list(user_cache.iterdir()) == []
    assert len(networks(folder_of_process())) == 1


def test_a_cache_of_the_user_that_cannot_be_written_does_not_stop_a_run(exported, monkeypatch, user_cache, caplog):
    monkeypatch.setattr(network_cache, "_of_process", [])
    (user_cache / "msrf-monai").write_text("a file where the folder should be")

    torch.testing.assert_close(run(), IMAGE.sigmoid())

    assert "exported networks are not kept" in caplog.text


def test_a_folder_that_was_asked_for_and_cannot_be_written_is_an_error(exported, tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="cannot write the exported network"):
        run(cache=tmp_path / "file")


def test_the_users_folder_follows_the_standard(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for base, expected in [
        ("/var/own", "/var/own"),
        ("relative", tmp_path / "home/.cache"),
        ("", tmp_path / "home/.cache"),
    ]:
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert folder_of_user() == Path(expected) / "msrf-monai" / "networks"

    monkeypatch.setenv("MSRF_NETWORK_CACHE", str(tmp_path))
    assert folder_of_user() == tmp_path
    monkeypatch.setenv("MSRF_NETWORK_CACHE", "cache")
    with pytest.raises(ConfigError, match="expected the full path of a folder, or off"):
        folder_of_user()


def test_without_a_home_nothing_is_kept(monkeypatch):
    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", no_home)

    assert folder_of_user() is None


def test_what_is_found_is_what_was_kept(kept):
    cache, path = kept

    assert cache.find(KEY) == path
    assert path.read_bytes() == b"first"
    assert cache.find(OTHER) is None


def test_files_of_other_names_are_not_found(kept):
    cache, path = kept
    path.rename(path.with_name(f"{KEY}.network.onnx"))

    assert cache.find(KEY) is None


def test_drafts_of_a_process_that_was_killed_are_removed(kept):
    cache, _ = kept
    (cache.folder / ".export-old").mkdir()
    (cache.folder / ".export-old" / "draft").touch()

    with cache.exporting() as work:
        assert [each.name for each in cache.folder.iterdir() if each.is_dir()] == [work.name]


def test_the_networks_that_were_used_last_are_kept_with_what_belongs_to_them(tmp_path):
    cache = NetworkCache(tmp_path)
    for number in range(9):
        path = keep(cache, f"{number:032}", bytes([number]))
        cache.approve(path, "runtime 1/2")
        os.utime(path, (number, number))
        if number == 7:
            cache.find(f"{0:032}")  # used again

    found = [number for number in range(10) if cache.find(f"{number:032}")]

    assert found == [0, 2, 3, 4, 5, 6, 7, 8]
    assert len(list(tmp_path.iterdir())) == 16


def test_one_process_at_a_time_exports(kept):
    cache, _ = kept
    program = (
        "import sys; from pathlib import Path; from msrf_monai.clinical.network_cache import NetworkCache\n"
        "with NetworkCache(Path(sys.argv[1])).exporting():\n"
        "    print('exporting', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", program, str(cache.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "exporting\n"
    entered = threading.Event()

    def export():
        with cache.exporting():
            entered.set()

    waiting = threading.Thread(target=export)
    waiting.start()
    try:
        assert not entered.wait(0.2)
    finally:
        other.communicate("")
    assert entered.wait(30)
    waiting.join()
