"""Images as sequences of pixels: MNIST from a local folder in its IDX files, else the 8x8 digits that come with scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# MNIST's own file names, each as it stands or with .gz.
_PARTS = {
    "training images": "train-images-idx3-ubyte",
    "training labels": "train-labels-idx1-ubyte",
    "test images": "t10k-images-idx3-ubyte",
    "test labels": "t10k-labels-idx1-ubyte",
}
# Where below the folder of data sets they may lie; the last is torchvision's.
_PLACES = (".", "mnist", "MNIST", "MNIST/raw")
# A magic number is two zeros, the type (8: unsigned bytes) and the number of axes.
_UNSIGNED_BYTES = 0x08
# Part of the digits that is for testing, and the seed of the split.
_TEST_SHARE, _SPLIT_SEED = 0.2, 0

# JSON values: what a job is told about its data.
Source = Mapping[str, str]
DIGITS: Source = {"name": "digits"}


@dataclass(frozen=True)
class Images:
    """Sequences of pixels (n, pixels, 1), row by row, in units of the training set's mean and standard deviation; labels (n,)."""

    x: Tensor
    labels: Tensor
    x_test: Tensor
    labels_test: Tensor


def find(folder: Path | None) -> Source:
    """Chooses the images to load: MNIST where a folder of data sets has it, else the digits.

    Returns:
        {"name": "digits"}, or {"name": "mnist", "folder", "fingerprint"}: sha256 of the files, so that other files are other
        data.

    Raises:
        ValueError: some of MNIST's files, but not all of them.
    """
    for place in _PLACES if folder is not None else ():
        there = Path(folder or ".") / place
        paths = {part: _existing(there / name) for part, name in _PARTS.items()}
        if any(paths.values()):
            missing = [part for part, path in paths.items() if path is None]
            if missing:
                raise ValueError(f"{there} has no {missing[0]}: MNIST needs {_PARTS[missing[0]]} there (plain or .gz)")
            digest = hashlib.sha256()
            for path in paths.values():
                digest.update(path.read_bytes() if path else b"")
            return {"name": "mnist", "folder": str(there), "fingerprint": digest.hexdigest()[:16]}
    return DIGITS


def load(source: Source) -> Images:
    """The images that `find` found.

    Raises:
        ValueError: files that are missing, cut short or no IDX files; scikit-learn is missing.
    """
    train, labels, test, labels_test = _mnist(Path(source["folder"])) if source["name"] == "mnist" else _digits()
    mean, deviation = train.mean(), train.std()

    def sequences(images: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy((images - mean) / deviation).float().flatten(1).unsqueeze(-1)

    return Images(sequences(train), torch.from_numpy(labels), sequences(test), torch.from_numpy(labels_test))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes, plain or .gz.

    Raises:
        ValueError: not such a file, or shorter or longer than its header says.

    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database, "File formats".
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked ({error}): download it again") from error
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTES]):
        raise ValueError(f"{path} is no IDX file of unsigned bytes: it begins with {content[:4].hex() or 'nothing'}, not 000008")
    axes = content[3]
    header = 4 + 4 * axes
    if len(content) < header:
        raise ValueError(f"{path} is cut short: {len(content)} bytes, its header alone needs {header}")
    shape = struct.unpack(f">{axes}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        fault = "is cut short" if len(content) < expected else "is too long"
        raise ValueError(f"{path} {fault}: {len(content)} bytes, its header says {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _existing(path: Path) -> Path | None:
    return next((one for one in (path, path.with_name(path.name + ".gz")) if one.is_file()), None)


_Arrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def _mnist(folder: Path) -> _Arrays:
    arrays = []
    for part, name in _PARTS.items():
        path = _existing(folder / name) or folder / name
        array = read_idx(path)
        if array.ndim != (3 if "images" in part else 1):
            raise ValueError(f"{path} holds an array of shape {array.shape}, which are no {part}")
        arrays.append(array)
    for images, labels, part in ((arrays[0], arrays[1], "training"), (arrays[2], arrays[3], "test")):
        if len(images) != len(labels):
            raise ValueError(f"{folder} has {len(images)} {part} images and {len(labels)} {part} labels: files of two data sets")
    train, labels, test, labels_test = arrays
    return train.astype(np.float64), labels.astype(np.int64), test.astype(np.float64), labels_test.astype(np.int64)


def _digits() -> _Arrays:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError("the 8x8 digits come with scikit-learn: pip install 'odernn[images]'") from error
    digits = load_digits()
    # Its order goes by writers: the test set is a random part, the same for everyone.
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(digits.target))
    split = round((1 - _TEST_SHARE) * len(order))
    train, test = order[:split], order[split:]
    images, labels = digits.images.astype(np.float64), digits.target.astype(np.int64)
    return images[train], labels[train], images[test], labels[test]
