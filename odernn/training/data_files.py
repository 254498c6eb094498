"""Data of a user's own, from a file: .npz, .pt or .csv.

.npz and .pt hold arrays by these names:

    t     (time,), or (batch, time): times of each sequence
    x     (batch, time, input), or (batch, time) for one channel
    y     (batch, time, output), or (batch, time) for one channel; NaN for a missing target
    mask  optional, (batch, time) or (batch, time, output), true where a target is there
    x_validation, y_validation, mask_validation    optional, sequences to validate on, with t_validation where it is not t
    split                                           optional, in their place: (batch,), 0 to train, 1 to validate

One sequence alone may come as (time,). .csv is a table in long format, a row for each time of each sequence, with a header:

    sequence,t,x,y

Several channels are x1, x2, ... and y1, y2, ...; `sequence` (any name) is optional, and so is a column `split`, 0 or 1. An empty
cell (or NA, NaN) in y is a missing target. Sequences may differ in their number of rows and in their times.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from targets import arguments, grids

from .csv_data import read_table
from .data import VALIDATION_FRACTION, Data

SUFFIXES = (".npz", ".pt", ".csv")
_NAMES = ("t", "x", "y", "mask")
_VALIDATION = tuple(f"{name}_validation" for name in _NAMES)


def read_data(path: str | Path, *, validation_fraction: float | None = None, seed: int = 0) -> Data:
    """The data of a file, in float64 on the CPU.

    Args:
        path: a file .npz, .pt or .csv; what it holds stands in `odernn.training.data_files`.
        validation_fraction: part of the sequences that validates, drawn at random, where the file does not say which; None for
            0.2. A single sequence is split in time, as by `Data.split`.
        seed: of the draw.

    Raises:
        ValueError: a file that is not there or cannot be read, arrays that are missing or do not fit; names file and array.

    Example:
        >>> from itertools import product
        >>> from odernn import read_data
        >>> with open("recordings.csv", "w") as file:
        ...     print("sequence,t,x,y", file=file)
        ...     for sequence, t in product(range(5), range(4)):
        ...         print(sequence, t, t % 2, t, sep=",", file=file)
        >>> read_data("recordings.csv").x.shape  # one of the five validates
        torch.Size([4, 4, 1])
    """
    arguments.instance("path", path, (str, Path), "give the path of a file")
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: expected a file that ends in {', '.join(SUFFIXES)}; save the arrays as one of these")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; give the path of the data")
    try:
        arrays = read_table(path) if suffix == ".csv" else _arrays(path, suffix)
        return _data(arrays, validation_fraction, seed)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(path: Path, suffix: str) -> dict[str, Any]:
    try:
        found = dict(_read_npz(path)) if suffix == ".npz" else torch.load(path, map_location="cpu", weights_only=True)
    except ValueError:
        raise
    except Exception as error:  # zipfile, zlib, pickle, numpy and torch each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"cannot be read ({reason[:120]}); save it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"holds {arguments.kind_of(found)}, expected a dict of tensors t, x, y; torch.save({{'t': t, ...}})")
    return found


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not zipfile.is_zipfile(path):
        raise ValueError("is no .npz archive; save it with numpy.savez(file, t=t, x=x, y=y)")
    found = {}
    with np.load(path, allow_pickle=False) as archive:
        for name in archive.files:
            try:
                found[name] = archive[name]
            except ValueError as error:
                if "pickle" not in str(error).lower():
                    raise
                raise ValueError(
                    f"array {name!r} has dtype object, expected numbers; pad sequences of unequal length with NaN in y, or save "
                    "them as .csv"
                ) from error
    return found


def _data(arrays: dict[str, Any], validation_fraction: float | None, seed: int) -> Data:
    known = (*_NAMES, *_VALIDATION, "split")
    unknown = [str(name) for name in arrays if name not in known]
    if unknown:
        raise ValueError(f"array {unknown[0]!r} is unknown, expected t, x, y and optionally {', '.join(known[3:])}; rename it")
    if "x_validation" not in arrays and (stray := [name for name in _VALIDATION if name in arrays]):
        raise ValueError(f"array {stray[0]!r} needs 'x_validation' beside it; add it")
    given = "x_validation" in arrays or "split" in arrays
    if "x_validation" in arrays and "split" in arrays:
        raise ValueError("'x_validation' and 'split' both say what validates; leave one out")
    if given and validation_fraction is not None:
        raise ValueError("the file says which sequences validate; leave validation_fraction out")
    t, x, y, mask = _sequences(arrays, "")
    if "x_validation" in arrays:
        with_times = {"t_validation": arrays["t"], **arrays} if "t" in arrays and t.ndim == 1 else arrays
        t_validation, x_validation, y_validation, mask_validation = _sequences(with_times, "_validation")
        own_times = None if "t_validation" not in arrays else t_validation
        return Data(t, x, y, x_validation, y_validation, mask, mask_validation, own_times)
    if "split" in arrays:
        whole = Data(t, x, y, x, y, mask, mask, t if t.ndim == 2 else None)
        validates = _flags("split", arrays["split"], (len(x),), "(batch,), 0 to train and 1 to validate")
        if validates.all() or not validates.any():
            raise ValueError("'split' leaves nothing for " + ("training" if validates.all() else "validation"))
        return whole.chosen((~validates).nonzero().flatten(), validates.nonzero().flatten())
    fraction = VALIDATION_FRACTION if validation_fraction is None else validation_fraction
    return Data.split(t, x, y, validation_fraction=fraction, seed=seed, mask=mask)


def _sequences(arrays: dict[str, Any], end: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """t, x, y and the mask, with all their axes."""
    found = {}
    for name in _NAMES[:3]:
        if name + end not in arrays:
            raise ValueError(f"array {name + end!r} is missing, got {', '.join(map(repr, arrays)) or 'none'}; {_EXPECTED[name]}")
        try:
            found[name] = arguments.real_tensor(repr(name + end), arrays[name + end], finite=False).double()
        except ValueError as error:
            raise ValueError(f"{error}; {_EXPECTED[name]}") from error
    t = found["t"]
    grids.times(t, f"'t{end}'", least=2, per_sequence=True)
    expected_time = t.shape[-1]
    for name in ("x", "y"):
        array = found[name]
        channels = {"x": "input", "y": "output"}[name]
        wide = array.unsqueeze(0) if array.ndim == 1 else array
        wide = wide.unsqueeze(-1) if wide.ndim == 2 else wide
        batch = t.shape[0] if t.ndim == 2 else len(found["x"]) if name == "y" and found["x"].ndim == 3 else len(wide)
        if wide.ndim != 3 or not wide.numel() or wide.shape[:2] != (batch, expected_time):
            shown = "batch" if t.ndim == 1 and name == "x" else batch
            raise ValueError(
                f"{name + end!r} has shape {tuple(array.shape)}, expected ({shown}, {expected_time}, {channels}), or "
                f"({shown}, {expected_time}) for one channel, to go with 't{end}' {tuple(t.shape)}"
                + ("" if name == "x" else f" and 'x{end}' {tuple(found['x'].shape)}")
            )
        found[name] = wide
    gaps = ~torch.isfinite(found["x"])
    if gaps.any():
        i, k, _ = gaps.nonzero()[0].tolist()
        raise ValueError(
            f"'x{end}' is NaN or infinite in sequence {i} at time {k} ({int(gaps.sum())} of {gaps.numel()} values), expected "
            "numbers, since x drives the model at all times; fill them in (numpy.interp), or leave those times out"
        )
    mask = None
    if f"mask{end}" in arrays:
        shape = tuple(found["y"].shape)
        given = arrays[f"mask{end}"]
        flat = np.ndim(given) == 1 and shape[0] == 1
        expected = f"{shape[:2]} (batch, time) or {shape} (batch, time, output), true where a target is there"
        shapes = ((shape[1],),) if flat else (shape[:2], shape)
        mask = _flags(f"mask{end}", given, shapes, expected).reshape(shape[:2] if np.ndim(given) < 3 else shape)
    return found["t"], found["x"], found["y"], mask


_EXPECTED = {
    "t": "expected 't' (time,) or (batch, time)",
    "x": "expected 'x' (batch, time, input)",
    "y": "expected 'y' (batch, time, output)",
}


def _flags(name: str, given: Any, shapes: Any, expected: str) -> Tensor:
    """An array of 0 and 1 as bools."""
    values = arguments.real_tensor(repr(name), given, finite=False)
    shapes = shapes if isinstance(shapes[0], tuple) else (shapes,)
    if tuple(values.shape) not in shapes or not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{name!r} is {tuple(values.shape)}, expected bools or 0 and 1, {expected}")
    return values.bool()
