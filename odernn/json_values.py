"""Values as strict JSON, and back: arrays and tuples are lists there, inf and nan the strings "inf", "-inf" and "nan"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

# Strings, so that any reader of the files understands them.
_SPECIAL = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any) -> Any:
    """A value as strict JSON has it: numbers of numpy and torch as Python's, arrays and tuples as lists, what has a `to_dict` as
    that, and inf and nan as the strings "inf", "-inf" and "nan".

    Raises:
        TypeError: a value that JSON does not know, or a key that is not a string.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        plain = value.tolist()
        if not isinstance(plain, np.generic):
            return encode(plain)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"JSON has strings for keys, got {key!r}: write str({key!r})")
        return {key: encode(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(part) for part in value]
    if hasattr(value, "to_dict"):
        return encode(value.to_dict())
    raise TypeError(f"JSON has no {type(value).__name__} (got {value!r}): give numbers, strings, None, lists and dicts")


def decode(value: Any) -> Any:
    """The inverse of `encode`, but for what JSON does not tell apart: arrays and tuples come back as lists, results as dicts, and
    text that reads "inf", "-inf" or "nan" as that number (keys stay text)."""
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    if isinstance(value, dict):
        return {key: decode(part) for key, part in value.items()}
    return [decode(part) for part in value] if isinstance(value, list) else value


def dumps(value: Any, *, indent: int | None = None) -> str:
    """The text of a value; `loads` is its inverse. Raises as `encode`."""
    return json.dumps(encode(value), allow_nan=False, indent=indent)


def loads(text: str | bytes) -> Any:
    """The value of a text, as `decode` gives it.

    Raises:
        ValueError: the text is not JSON, or not UTF-8, or holds the words NaN and Infinity, which JSON does not have.
    """
    return decode(json.loads(text, parse_constant=refuse))


def refuse(word: str) -> Any:
    """For `json.loads`, where it meets NaN or Infinity."""
    raise ValueError(f"{word} is no JSON value")
