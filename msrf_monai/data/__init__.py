"""Data sets: what is known, how downloads become folders that training reads, and drawn ones that need no download."""

from __future__ import annotations

from msrf_monai.data.catalogue import CATALOGUE, DatasetInfo, get_dataset_info
from msrf_monai.data.datalist import list_images, load_datalist, verify_dataset
from msrf_monai.data.pool import balanced_weights, load_pool
from msrf_monai.data.prepare import PreparedDataset, prepare_dataset
from msrf_monai.data.synthetic import SyntheticCase, synthesize_case, synthesize_dataset, synthesize_image

__all__ = [
    "CATALOGUE",
    "DatasetInfo",
    "PreparedDataset",
    "SyntheticCase",
    "balanced_weights",
    "get_dataset_info",
    "list_images",
    "load_datalist",
    "load_pool",
    "prepare_dataset",
    "synthesize_case",
    "synthesize_dataset",
    "synthesize_image",
    "verify_dataset",
]
