"""Components as parts of MONAI: by dotted name always, by short name and through its tables after ``register()``."""

from __future__ import annotations

import importlib
import pydoc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser
from monai.data import resolve_writer
from monai.networks.layers import Norm
from monai.networks.nets import BasicUNet
from monai.transforms import LoadImage, SaveImage
from monai.transforms.io.array import SUPPORTED_READERS
from PIL import Image

from msrf_monai.bundle import public_components, register, unregister
from msrf_monai.bundle.image_io import AtomicPNGWriter, Image2DReader
from msrf_monai.errors import DataError, StorageError


@pytest.fixture
def registered() -> Iterator[tuple[str, ...]]:
    yield register()
    unregister()


def _state() -> tuple[object, ...]:
    return (
        ComponentLocator.get_component_module_name,
        tuple(SUPPORTED_READERS),
        Norm.names,
        Norm.__doc__,
        tuple(resolve_writer("png")),
    )


def test_every_public_component_resolves_by_dotted_name_to_itself() -> None:
    listed = public_components()

    rooms = ("networks", "losses", "transforms", "engines", "inferers")
    assert set(listed) >= {f"msrf_monai.{room}" for room in rooms}
    for room, names in listed.items():
        assert names, room
        for name in names:
            config = {"_target_": f"{room}.{name}", "_mode_": "callable"}
            resolved = ConfigParser({"x": config}).get_parsed_content("x")
            assert resolved is getattr(importlib.import_module(room), name)
            assert pydoc.locate(f"{room}.{name}") is resolved


def test_short_names_do_not_resolve_before_register() -> None:
    assert ComponentLocator().get_component_module_name("MSRFNet") is None


def test_short_names_resolve_after_register_to_the_same_objects(registered: tuple[str, ...]) -> None:
    homes = {name: room for room, names in public_components().items() for name in names}

    assert {"MSRFNet", "MSRFLoss", "LoadImage2Dd"} <= set(registered)
    locator = ComponentLocator()
    for name in registered:
        path = ConfigComponent(config={"_target_": name}, locator=locator).resolve_module_name()
        assert pydoc.locate(path) is getattr(importlib.import_module(homes[name]), name)


def test_short_name_builds_a_network_from_a_config(registered: tuple[str, ...]) -> None:
    config = {"net": {"_target_": "MSRFNet", "features": 8}, "seg": {"_target_": "BasicUNet", "features": [8] * 6}}
    parser = ConfigParser(config)

    assert type(parser.get_parsed_content("net")).__module__.startswith("msrf_monai.")
    assert type(parser.get_parsed_content("seg")) is BasicUNet


def test_names_of_monai_stay_its_own() -> None:
    theirs = ComponentLocator()
    ours = {name for names in public_components().values() for name in names}
    shared = {name: theirs.get_component_module_name(name) for name in ours}
    shared = {name: home for name, home in shared.items() if home is not None}

    try:
        names = register()
        locator = ComponentLocator()
        assert not set(names) & set(shared)
        assert {name: locator.get_component_module_name(name) for name in shared} == shared
        assert locator.get_component_module_name("NoSuchThing") is None
        assert ComponentLocator(excludes=["msrf_monai"]).get_component_module_name("MSRFNet") is None
    finally:
        unregister()


def test_register_twice_and_unregister_leave_monai_as_it_was() -> None:
    before = _state()

    first = register()
    during = _state()
    second = register()
    again = _state()
    unregister()
    unregister()

    assert first == second
    assert during == again
    assert during != before
    assert _state() == before


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_keras_batch_norm_is_in_the_norm_factory(registered: tuple[str, ...], dims: int) -> None:
    layer = Norm["keras_batch", dims](7)

    assert isinstance(layer, Norm["batch", dims])
    assert (layer.num_features, layer.eps, layer.momentum) == (7, 1e-3, 0.01)


def test_keras_batch_norm_builds_a_network_of_monai(registered: tuple[str, ...]) -> None:
    net = BasicUNet(spatial_dims=2, features=(4,) * 6, norm="keras_batch")

    assert {m.eps for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


def test_norm_of_the_same_name_by_someone_else_is_kept() -> None:
    theirs = lambda dim: torch.nn.Identity  # noqa: E731
    Norm.add("KERAS_BATCH", "", theirs)
    try:
        register()
        assert Norm["keras_batch", 2] is torch.nn.Identity
        unregister()
        assert "KERAS_BATCH" in Norm.names
    finally:
        unregister()
        Norm.components.pop("KERAS_BATCH")


def test_reader_of_the_same_name_by_someone_else_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUPPORTED_READERS, "image2dreader", object)
    try:
        register()
        assert SUPPORTED_READERS["image2dreader"] is object
    finally:
        unregister()


@pytest.fixture
def palette_file(tmp_path: Path) -> Path:
    """A 7x5 picture with a palette, which MONAI's own reader gives as indices."""
    rows = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(5, 7, 3) // 20 * 20
    Image.fromarray(rows).quantize(16).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def test_reader_is_found_by_name_and_left_aside_without_one(registered: tuple[str, ...], palette_file: Path) -> None:
    ours = LoadImage(reader="Image2DReader", image_only=True)(palette_file)
    theirs = LoadImage(image_only=True)(palette_file)

    expected = np.asarray(Image.open(palette_file).convert("RGB"))
    np.testing.assert_array_equal(ours.numpy(), np.swapaxes(expected, 0, 1))
    assert theirs.shape == (7, 5)


def test_reader_gives_grey_images_without_a_channel_axis(tmp_path: Path) -> None:
    Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7)).save(tmp_path / "a.tif")
    reader = Image2DReader()

    pixels, meta = reader.get_data(reader.read(tmp_path / "a.tif"))

    assert pixels.shape == (7, 5)
    assert tuple(meta["spatial_shape"]) == (7, 5)
    assert reader.verify_suffix("x.TIF")
    assert not reader.verify_suffix("x.nii.gz")


def test_reader_refuses_several_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got 2"):
        Image2DReader().read([tmp_path / "a.png", tmp_path / "b.png"])


def test_writer_writes_the_pixels_that_monai_writes(registered: tuple[str, ...], tmp_path: Path) -> None:
    image = torch.rand(3, 9, 6)
    for name, writer in (("ours", AtomicPNGWriter), ("theirs", "PILWriter")):
        save = SaveImage(tmp_path / name, output_ext=".png", output_dtype=np.uint8, scale=255, writer=writer,
                         separate_folder=False, print_log=False)  # fmt: skip
        save(image, meta_data={"filename_or_obj": "a.png"})

    ours, theirs = (np.asarray(Image.open(tmp_path / name / "a_trans.png")) for name in ("ours", "theirs"))
    assert ours.shape == (6, 9, 3)
    np.testing.assert_array_equal(ours, theirs)
    assert resolve_writer("png")[0] is AtomicPNGWriter


def test_writer_leaves_the_old_file_when_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    writer = AtomicPNGWriter(np.uint8, scale=None)
    writer.set_data_array(np.ones((1, 4, 4), dtype=np.uint8), channel_dim=0)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(StorageError, match="No space left"):
        writer.write(tmp_path / "a.png")

    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]
