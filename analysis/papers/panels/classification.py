"""Texts and numbers of image classification (IA 9 and StableSSM Table 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..compute import images
from ..engine.figure import Job, Result

# Pixels of an image, by data set.
PIXELS = {"digits": 64, "mnist-10k": 784, "mnist": 784}
# For titles, tables and claims.
SHORT_NAMES = {"digits": "digits", "mnist-10k": "MNIST, 8,000 images", "mnist": "MNIST"}


def by_data_set(results: Sequence[tuple[Job, Result]]) -> list[tuple[images.Source, list[tuple[Job, Result]]]]:
    """Results apart by what they were trained on, in the order of the jobs."""
    parts: dict[str, tuple[images.Source, list[tuple[Job, Result]]]] = {}
    for one in results:
        source = one[0].settings["source"]
        parts.setdefault(source["name"], (source, []))[1].append(one)
    return list(parts.values())


def spread(values: np.ndarray) -> float:
    """Standard error of the mean over the first axis; NaN of one."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def with_spread(values: np.ndarray, digits: int = 3) -> str:
    """'0.903 ± 0.012', mean and standard error."""
    error = spread(values)
    return f"{values.mean():.{digits}f}" + ("" if math.isnan(error) else f" ± {error:.{digits}f}")


def describe(source: images.Source) -> str:
    """Which data, for texts."""
    if source["name"] == "digits":
        return "scikit-learn's 8x8 digits, 1438 for training and 359 for testing"
    files = f"of 28x28, from files with sha256 {source['fingerprint']}"
    if source["name"] == "mnist":
        return f"MNIST (60,000 training and 10,000 test images {files})"
    return (
        "of MNIST's 10,000 test images a random part of 8,000, the same for everyone, is for training and the rest for testing "
        f"({files}; none of the 60,000 training images, from which the published numbers come, is used)"
    )


def short_name(source: images.Source) -> str:
    """Which data, for titles."""
    return SHORT_NAMES[source["name"]]
