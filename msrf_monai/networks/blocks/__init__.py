"""Blocks that networks share, usable in any network of the reader's own."""

from __future__ import annotations

from msrf_monai.networks.blocks.attention_gate import AttentionGate
from msrf_monai.networks.blocks.attention_pooling_fusion import AttentionPoolingFusion
from msrf_monai.networks.blocks.dual_attention import DualAttention
from msrf_monai.networks.blocks.dual_mode_gate import DualModeAttentionGate
from msrf_monai.networks.blocks.dual_scale_dense_fusion import DualScaleDenseFusion
from msrf_monai.networks.blocks.excitation import ChannelExcitation
from msrf_monai.networks.blocks.feature_norm import ImageNorm, LiveBatchNorm, feature_norm
from msrf_monai.networks.blocks.frequency_attention import FrequencyChannelAttention
from msrf_monai.networks.blocks.gaussian_measure import GaussianSingularityStrength
from msrf_monai.networks.blocks.haar_dwt import HaarDWT2d, haar_low_pass, haar_sub_bands
from msrf_monai.networks.blocks.initialization import glorot_uniform_, he_truncated_normal_, normal_weights_
from msrf_monai.networks.blocks.keras_norm import BiasedBatchNorm, keras_batch_norm
from msrf_monai.networks.blocks.multi_res import MultiResBlock, ResPath
from msrf_monai.networks.blocks.multifractal import MultifractalRecalibration, SoftLevelSets
from msrf_monai.networks.blocks.partial_decoder import PartialDecoder
from msrf_monai.networks.blocks.recalibration import (
    SingularityStrengthRecalibration,
    SpatialChannelSqueezeExcitation,
    StyleRecalibration,
)
from msrf_monai.networks.blocks.receptive_field import ReceptiveFieldBlock
from msrf_monai.networks.blocks.resampling import DownConv, SparseUpConv, UpConv
from msrf_monai.networks.blocks.reverse_attention import ReverseAttention
from msrf_monai.networks.blocks.shape_stream import EdgeFusion, GatedShapeStream
from msrf_monai.networks.blocks.singularity_strength import (
    LocalSingularityStrength,
    box_sums,
    rescale_range,
    singularity_exponent,
)
from msrf_monai.networks.blocks.squeeze_excitation import SqueezeExcitation
from msrf_monai.networks.blocks.up_down_fusion import UpDownFusion
from msrf_monai.networks.blocks.wave_block import WaveBlock

__all__ = [
    "AttentionGate",
    "AttentionPoolingFusion",
    "BiasedBatchNorm",
    "ChannelExcitation",
    "DownConv",
    "DualAttention",
    "DualModeAttentionGate",
    "DualScaleDenseFusion",
    "EdgeFusion",
    "FrequencyChannelAttention",
    "GatedShapeStream",
    "GaussianSingularityStrength",
    "HaarDWT2d",
    "ImageNorm",
    "LiveBatchNorm",
    "LocalSingularityStrength",
    "MultiResBlock",
    "MultifractalRecalibration",
    "PartialDecoder",
    "ReceptiveFieldBlock",
    "ResPath",
    "ReverseAttention",
    "SingularityStrengthRecalibration",
    "SoftLevelSets",
    "SparseUpConv",
    "SpatialChannelSqueezeExcitation",
    "SqueezeExcitation",
    "StyleRecalibration",
    "UpConv",
    "UpDownFusion",
    "WaveBlock",
    "box_sums",
    "feature_norm",
    "glorot_uniform_",
    "haar_low_pass",
    "haar_sub_bands",
    "he_truncated_normal_",
    "keras_batch_norm",
    "normal_weights_",
    "rescale_range",
    "singularity_exponent",
]
