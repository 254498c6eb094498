"""Images as sequences of pixels: the 8x8 digits that come with scikit-learn, and MNIST from a local folder in its IDX files."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
_TEST_FILES = ("test images", "test labels")
# Of data that come in one piece, the part that is for testing, and the seed of the split.
_TEST_SHARE, _SPLIT_SEED = 0.2, 0

# JSON values: what a job is told about its data, nothing of this machine.
Source = Mapping[str, str]
DIGITS: Source = {"name": "digits"}


@dataclass(frozen=True)
class DataSet:
    """Images to train on.

    Args:
        source: which they are: the name, 'digits', 'mnist' or 'mnist-10k', and of files "fingerprint", sha256 of them, so that
            other files are other data.
        places: {"folder": where the files lie}, empty for the digits.
    """

    source: Source
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.source["name"]


@dataclass(frozen=True)
class Images:
    """Sequences of pixels (n, pixels, 1), row by row, in units of the training set's mean and standard deviation; labels (n,)."""

    x: Tensor
    labels: Tensor
    x_test: Tensor
    labels_test: Tensor


def find(folder: Path | None) -> list[DataSet]:
    """The images there are: the digits, and MNIST where a folder of data sets has it.

    'mnist' is all of it, 60,000 images to train and 10,000 to test. Of its test files alone ('mnist-10k') a random part of 8,000,
    the same for everyone, is for training.

    Raises:
        ValueError: others of MNIST's files, but not all of them.
    """
    found = [DataSet(DIGITS)]
    for place in _PLACES if folder is not None else ():
        there = Path(folder or ".") / place
        paths = {part: path for part, name in _PARTS.items() if (path := _existing(there / name))}
        if not paths:
            continue
        name = "mnist-10k" if tuple(paths) == _TEST_FILES else "mnist"
        missing = [part for part in _PARTS if part not in paths]
        if missing and name == "mnist":
            raise ValueError(
                f"{there} has no {missing[0]}: MNIST needs {_PARTS[missing[0]]} there (plain or .gz), or the two test files alone"
            )
        return [*found, DataSet({"name": name, "fingerprint": _fingerprint(paths.values())}, {"folder": str(there)})]
    return found


def load(source: Source, folder: str = "") -> Images:
    """The images that `find` found.

    Args:
        source, folder: as in `DataSet`.

    Raises:
        ValueError: files that are missing, cut short, no IDX files, or others than `find` found; scikit-learn is missing.
    """
    train, labels, test, labels_test = _mnist(source, Path(folder)) if "fingerprint" in source else _digits()
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


def _fingerprint(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


_Arrays = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def _mnist(source: Source, folder: Path) -> _Arrays:
    parts = _TEST_FILES if source["name"] == "mnist-10k" else tuple(_PARTS)
    paths = [_existing(folder / _PARTS[part]) or folder / _PARTS[part] for part in parts]
    arrays = []
    for part, path in zip(parts, paths):
        array = read_idx(path)
        if array.ndim != (3 if "images" in part else 1):
            raise ValueError(f"{path} holds an array of shape {array.shape}, which are no {part}")
        arrays.append(array)
    for images, labels, part in zip(arrays[0::2], arrays[1::2], parts[0::2]):
        if len(images) != len(labels):
            raise ValueError(f"{folder} has {len(images)} {part} and {len(labels)} labels of them: files of two data sets")
    if _fingerprint(paths) != source["fingerprint"]:
        raise ValueError(f"the files of MNIST in {folder} have changed: start again")
    if len(arrays) == len(_TEST_FILES):
        return _split(*arrays)
    train, labels, test, labels_test = arrays
    return train.astype(np.float64), labels.astype(np.int64), test.astype(np.float64), labels_test.astype(np.int64)


def _digits() -> _Arrays:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ValueError("the 8x8 digits come with scikit-learn: pip install 'odernn[images]'") from error
    digits = load_digits()
    return _split(digits.images, digits.target)


def _split(images: NDArray[Any], labels: NDArray[Any]) -> _Arrays:
    """Training and test set: the order of both data sets goes by writers, so the test set is a random part."""
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    split = round((1 - _TEST_SHARE) * len(order))
    train, test = order[:split], order[split:]
    images, labels = images.astype(np.float64), labels.astype(np.int64)
    return images[train], labels[train], images[test], labels[test]
