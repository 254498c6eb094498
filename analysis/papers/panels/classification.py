"""Texts and numbers of image classification (IA 9 and StableSSM Table 2)."""

from __future__ import annotations

import math

import numpy as np

from ..compute import images


def spread(values: np.ndarray) -> float:
    """Standard error of the mean over the first axis; NaN of one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def with_spread(values: np.ndarray, digits: int = 3) -> str:
    """'0.903 ± 0.012', mean and standard error."""
    error = spread(values)
    return f"{values.mean():.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def describe(source: images.Source) -> str:
    """Which data, for texts."""
    if source["name"] == "mnist":
        return f"MNIST (60,000 training and 10,000 test images of 28x28, from files with sha256 {source['fingerprint']})"
    return (
        "not MNIST, which does not come with the project (`--data` takes a folder with its four IDX files), but "
        "scikit-learn's 8x8 digits, 1438 for training and 359 for testing"
    )


def short_name(source: images.Source) -> str:
    """Which data, for titles."""
    return "MNIST" if source["name"] == "mnist" else "8x8 digits (not MNIST)"
