"""2-D medical image segmentation networks, losses, transforms and MONAI bundles, exact and dependable."""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = ["__version__"]
