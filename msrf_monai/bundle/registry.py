"""``register()``: short names, a norm layer, a reader and a writer of ours in MONAI's own tables; and back."""

from __future__ import annotations

import importlib
import inspect
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

__all__ = ["public_components", "register", "unregister"]

_log = logging.getLogger(__name__)
_lock = threading.RLock()
_undo: list[Callable[[], None]] = []
_names: dict[str, str] = {}

_ROOMS = (
    "msrf_monai.networks",
    "msrf_monai.networks.blocks",
    "msrf_monai.losses",
    "msrf_monai.metrics",
    "msrf_monai.transforms",
    "msrf_monai.engines",
    "msrf_monai.inferers",
    "msrf_monai.data",
    "msrf_monai.bundle",
    "msrf_monai.bundle.image_io",
)
# What the other rooms export is called by expressions, not built from a _target_.
_SHORT_NAME_ROOMS = frozenset(_ROOMS) - {"msrf_monai.data", "msrf_monai.bundle"}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def public_components() -> dict[str, tuple[str, ...]]:
    """List every public class and function that a config can name, by the module that exports it.

    Returns:
        ``{"msrf_monai.networks": ("MSRFNet", …), …}``; ``"<module>.<name>"`` is a valid ``_target_``.
    """
    listed = {}
    for room in _ROOMS:
        module = importlib.import_module(room)
        members = ((name, getattr(module, name)) for name in module.__all__)
        listed[room] = tuple(name for name, value in members if inspect.isclass(value) or inspect.isfunction(value))
    return listed


def register() -> tuple[str, ...]:
    """Make this package's components part of MONAI in this process.

    - ``"_target_": "MSRFNet"`` resolves, like MONAI's own short names; a name that MONAI has stays MONAI's, and a name
      that two of our modules export stays without a short form.
    - ``Norm["keras_batch"]``: batch norm with Keras' eps 1e-3 and momentum 0.01, in 1, 2 and 3 dimensions.
    - ``LoadImage(reader="Image2DReader")``; without ``reader=`` MONAI tries it last, after its own readers.
    - PNG files of ``SaveImage`` go through ``AtomicPNGWriter``: the same pixels, never half a file.

    Bundles of this package use dotted names and need none of this. Calling it again changes nothing;
    ``unregister()`` takes all of it back.

    Returns:
        The short names that resolve to this package, sorted.
    """
    with _lock:
        if not _undo:
            _register_short_names()
            _register_norm()
            _register_reader()
            _register_writer()
        return tuple(sorted(_names))


def unregister() -> None:
    """Put MONAI's tables back as ``register()`` found them; does nothing when it was not called."""
    with _lock:
        while _undo:
            _undo.pop()()
        _names.clear()


def _register_short_names() -> None:
    from monai.bundle.config_item import ComponentLocator

    homes: dict[str, list[str]] = {}
    for room, names in public_components().items():
        for name in names if room in _SHORT_NAME_ROOMS else ():
            homes.setdefault(name, []).append(room)
    theirs = ComponentLocator()
    for name, rooms in homes.items():
        objects = {id(getattr(importlib.import_module(room), name)) for room in rooms}
        if theirs.get_component_module_name(name) is not None or len(objects) > 1:
            _log.info("%s has no short name, it would be ambiguous: write %s.%s in _target_", name, rooms[0], name)
        else:
            _names[name] = rooms[0]
    original = ComponentLocator.get_component_module_name

    def get_component_module_name(self: Any, name: str) -> Any:
        found = original(self, name)
        if found is not None or any(word in _names.get(name, "") for word in self.excludes):
            return found
        return _names.get(name)

    setattr(ComponentLocator, "get_component_module_name", get_component_module_name)  # noqa: B010 - the attribute is a method
    _undo.append(partial(setattr, ComponentLocator, "get_component_module_name", original))


def _register_norm() -> None:
    from monai.networks.layers.factories import Norm

    if "KERAS_BATCH" in Norm.names:
        return
    doc = Norm.__doc__
    Norm.add_factory_callable("keras_batch", _keras_batch, "Batch norm with the defaults of Keras.")

    def undo() -> None:
        Norm.components.pop("KERAS_BATCH", None)
        Norm.__doc__ = doc

    _undo.append(undo)


def _keras_batch(dim: int) -> Callable[..., nn.Module]:
    return partial(_BATCH_NORMS[dim - 1], eps=1e-3, momentum=0.01)


def _register_reader() -> None:
    from monai.transforms.io.array import SUPPORTED_READERS

    from msrf_monai.bundle.image_io import Image2DReader

    if "image2dreader" in SUPPORTED_READERS:
        return
    theirs = dict(SUPPORTED_READERS)
    SUPPORTED_READERS.clear()
    # LoadImage tries the last reader first: ours goes to the front so that it replaces none of MONAI's.
    SUPPORTED_READERS.update({"image2dreader": Image2DReader, **theirs})

    def undo() -> None:
        SUPPORTED_READERS.pop("image2dreader", None)

    _undo.append(undo)


def _register_writer() -> None:
    from monai.data import image_writer

    from msrf_monai.bundle.image_io import AtomicPNGWriter

    if not image_writer.SUPPORTED_WRITERS:
        image_writer.init()  # type: ignore[no-untyped-call]  # MONAI fills its table only while it is empty
    image_writer.register_writer("png", AtomicPNGWriter)  # type: ignore[no-untyped-call]

    def undo() -> None:
        writers = image_writer.SUPPORTED_WRITERS.get("png", ())
        image_writer.SUPPORTED_WRITERS["png"] = tuple(w for w in writers if w is not AtomicPNGWriter)

    _undo.append(undo)
