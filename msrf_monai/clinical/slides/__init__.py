"""Whole slides: read by tiles, predicted band by band, written as tiled segmentations and pyramid masks.

``predict_slide`` never holds more than one band of windows, whatever the slide's height. tifffile, imagecodecs and
highdicom are imported when a slide of that kind is read or written, not before.
"""

from msrf_monai.clinical.slides.background import Tissue, find_tissue, thumbnail, tissue_mask
from msrf_monai.clinical.slides.blend import RowBlender, window_weights
from msrf_monai.clinical.slides.grid import SlideGrid, choose_grid
from msrf_monai.clinical.slides.levels import SlideInfo, SlideLevel
from msrf_monai.clinical.slides.limits import SlideLimits
from msrf_monai.clinical.slides.predict import RunTiles, SlideResult, decide, predict_slide
from msrf_monai.clinical.slides.pyramid import PyramidSink
from msrf_monai.clinical.slides.reading import Slide, open_slide, slide_kind
from msrf_monai.clinical.slides.resample import read_grid
from msrf_monai.clinical.slides.segmentation import SegmentationSink
from msrf_monai.clinical.slides.sinks import MaskSink, SinkGroup
from msrf_monai.clinical.slides.tiles import TileOptions, TilePlan, plan_tiles, window_starts

__all__ = [
    "MaskSink",
    "PyramidSink",
    "RowBlender",
    "RunTiles",
    "SegmentationSink",
    "SinkGroup",
    "Slide",
    "SlideGrid",
    "SlideInfo",
    "SlideLevel",
    "SlideLimits",
    "SlideResult",
    "TileOptions",
    "TilePlan",
    "Tissue",
    "choose_grid",
    "decide",
    "find_tissue",
    "open_slide",
    "plan_tiles",
    "predict_slide",
    "read_grid",
    "slide_kind",
    "thumbnail",
    "tissue_mask",
    "window_starts",
    "window_weights",
]
