"""Let torchvision's CUDA wheel be imported beside a CPU build of torch.

The wheel's compiled part links to CUDA libraries that a CPU build of torch does not bring, so it stays unloaded; then
``torchvision._meta_registrations`` describes operators that nobody has declared, and the import ends with
``operator torchvision::nms does not exist``. Declaring them beforehand is enough for all parts written in Python; the
operators themselves stay unusable, and MONAI Label uses none of them. ``_torchvision_on_cpu.pth`` imports this module
when the interpreter starts; it costs nothing until somebody imports torchvision.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["DeclareOperators"]

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# torch forgets what was declared together with the object that declared it
_declared: list[Any] = []


class DeclareOperators(MetaPathFinder):
    """Finds nothing; when torchvision is looked for it declares the operators first, once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Take note that torchvision is about to be imported, and leave finding it to the others."""
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            spec = importlib.util.find_spec(fullname)
            if spec is not None and not _loads(Path(spec.origin or "").parent):
                _declare()
        return None


def _loads(package: Path) -> bool:
    """Load the compiled part as torchvision itself would; tell whether that worked."""
    import torch

    for library in package.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
        except OSError:
            return False
    return True


def _declare() -> None:
    import torch

    namespace = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for schema in _SCHEMAS:
        namespace.define(schema)  # type: ignore[no-untyped-call]
    _declared.append(namespace)


sys.meta_path.insert(0, DeclareOperators())
