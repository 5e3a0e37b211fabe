"""Transforms for 2-D images: load, resize, edge maps, decisions, geometry restored, save.

Arrays inside chains are channel-first in MONAI's axis order, ``(C, W, H)`` for image files; see ``rows``.
"""

from __future__ import annotations

from msrf_monai.edges import canny_edges, mask_edge_target, mask_edges
from msrf_monai.transforms.colour import RandColorJitter, RandColorJitterd, shift_colours
from msrf_monai.transforms.decide import DecideMask, DecideMaskd, decide_mask
from msrf_monai.transforms.edge_map import EdgeMap, EdgeMapd, EdgeTarget, EdgeTargetd
from msrf_monai.transforms.field_of_view import ClearOutsided, FieldOfViewd, NormalizeInsided
from msrf_monai.transforms.fuse import FuseProbabilitiesd
from msrf_monai.transforms.layout import SafeFolderLayout
from msrf_monai.transforms.load import LoadImage2D, LoadImage2Dd
from msrf_monai.transforms.load_mask import LoadMask2D, LoadMask2Dd
from msrf_monai.transforms.overlay import SaveOverlay, SaveOverlayd, draw_overlay
from msrf_monai.transforms.picture import Picture
from msrf_monai.transforms.reading import read_picture
from msrf_monai.transforms.resize import Resize2D, Resize2Dd
from msrf_monai.transforms.restore import RestoreSized
from msrf_monai.transforms.rows import to_planes, to_rows
from msrf_monai.transforms.save import SaveMask, SaveMaskd, SaveProbability, SaveProbabilityd
from msrf_monai.transforms.select import SelectMask, SelectMaskd
from msrf_monai.transforms.source_axes import ToSourceAxesd
from msrf_monai.transforms.twelve_augmentations import AUGMENTATION_CYCLE, RandTwelveAugmentationsd, augment
from msrf_monai.transforms.vessel_measures import SaveVesselMeasuresd

__all__ = [
    "AUGMENTATION_CYCLE",
    "ClearOutsided",
    "DecideMask",
    "DecideMaskd",
    "EdgeMap",
    "EdgeMapd",
    "EdgeTarget",
    "EdgeTargetd",
    "FieldOfViewd",
    "FuseProbabilitiesd",
    "LoadImage2D",
    "LoadImage2Dd",
    "LoadMask2D",
    "LoadMask2Dd",
    "NormalizeInsided",
    "Picture",
    "RandColorJitter",
    "RandColorJitterd",
    "RandTwelveAugmentationsd",
    "Resize2D",
    "Resize2Dd",
    "RestoreSized",
    "SafeFolderLayout",
    "SaveMask",
    "SaveMaskd",
    "SaveOverlay",
    "SaveOverlayd",
    "SaveProbability",
    "SaveProbabilityd",
    "SaveVesselMeasuresd",
    "SelectMask",
    "SelectMaskd",
    "ToSourceAxesd",
    "augment",
    "canny_edges",
    "decide_mask",
    "draw_overlay",
    "mask_edge_target",
    "mask_edges",
    "read_picture",
    "shift_colours",
    "to_planes",
    "to_rows",
]
