"""Results as files: JSON values, inf and nan included, written in one move."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from odernn.runs import replace_file

# JSON has no word for them. As strings any reader of the files understands them; a result that holds one of these strings gets
# the number back.
_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """A value as strict JSON has it: numbers of numpy and torch as Python's, arrays and tuples as lists, inf and nan as the
    strings "inf", "-inf" and "nan".

    Raises:
        TypeError: a value that JSON does not know, or a key that is not a string.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        return encode(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"JSON has strings for keys, got {key!r}: write str({key!r})")
        return {key: encode(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    raise TypeError(f"JSON has no {type(value).__name__} (got {value!r}): give numbers, strings, None, lists and dicts")


def decode(value: Any) -> Any:
    """What `encode` was given, with lists for arrays and tuples, and numbers for "inf", "-inf" and "nan"."""
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {key: decode(part) for key, part in value.items()}
    return [decode(part) for part in value] if isinstance(value, list) else value


def read(path: Path) -> Any:
    """The value in a file.

    Raises:
        ValueError: the file holds something else than JSON.
    """
    try:
        return decode(json.loads(path.read_text()))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a JSON file ({error}): remove it, and it will be written again") from error


def write(path: Path, value: Any, *, indent: int | None = None) -> None:
    """Writes a value; see `write_text`."""
    write_text(path, json.dumps(encode(value), allow_nan=False, indent=indent) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file in one move, with the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text)
