"""Blocks that networks share, usable in any network of the reader's own."""

from __future__ import annotations

from msrf_monai.networks.blocks.attention_gate import AttentionGate
from msrf_monai.networks.blocks.dual_attention import DualAttention
from msrf_monai.networks.blocks.dual_scale_dense_fusion import DualScaleDenseFusion
from msrf_monai.networks.blocks.initialization import glorot_uniform_, he_truncated_normal_, normal_weights_
from msrf_monai.networks.blocks.keras_norm import keras_batch_norm
from msrf_monai.networks.blocks.resampling import DownConv, SparseUpConv, UpConv
from msrf_monai.networks.blocks.shape_stream import EdgeFusion, GatedShapeStream
from msrf_monai.networks.blocks.squeeze_excitation import SqueezeExcitation

__all__ = [
    "AttentionGate",
    "DownConv",
    "DualAttention",
    "DualScaleDenseFusion",
    "EdgeFusion",
    "GatedShapeStream",
    "SparseUpConv",
    "SqueezeExcitation",
    "UpConv",
    "glorot_uniform_",
    "he_truncated_normal_",
    "keras_batch_norm",
    "normal_weights_",
]
