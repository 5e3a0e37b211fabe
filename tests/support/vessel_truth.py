"""Scores of vessels by scikit-learn, from pixels and their probabilities."""

from __future__ import annotations

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    precision_score,
    recall_score,
    roc_auc_score,
)


def scikit_learn(probability: np.ndarray, label: np.ndarray, threshold: float) -> dict[str, float]:
    """Return the scores by the names of ``msrf_monai.metrics``, of probabilities (N,) and truth (N,)."""
    pred = probability >= np.float32(threshold)
    counts, _ = np.histogram(probability, np.linspace(0, 1, 16))
    frequency, confidence = calibration_curve(label, probability, n_bins=15)
    return {
        "sensitivity": recall_score(label, pred),
        "specificity": recall_score(label, pred, pos_label=0),
        "ppv": precision_score(label, pred),
        "npv": precision_score(label, pred, pos_label=0),
        "f1": f1_score(label, pred),
        "accuracy": accuracy_score(label, pred),
        "mcc": matthews_corrcoef(label, pred),
        "auc_roc": roc_auc_score(label, probability),
        "auc_pr": average_precision_score(label, probability),
        "ece": float((np.abs(frequency - confidence) * counts[counts > 0]).sum() / counts.sum()),
    }
