"""Settings: dataclasses whose values are of the types they declare, whoever made them (code, a command line, a JSON file)."""

from __future__ import annotations

import numbers
from dataclasses import fields
from types import NoneType
from typing import Any, get_args, get_type_hints

_EXPECTED = {int: "an integer", float: "a number", str: "text", bool: "true or false", NoneType: "nothing"}


def check_types(settings: Any) -> None:
    """Brings each field of a dataclass to its declared type (an integer may stand for a float), in place.

    Raises:
        ValueError: another type; names the field, what came and what was expected.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        kinds = get_args(hints[item.name]) or (hints[item.name],)
        object.__setattr__(settings, item.name, _as_one_of(kinds, item.name, getattr(settings, item.name)))


def _as_one_of(kinds: tuple[type, ...], name: str, value: Any) -> Any:
    for kind in kinds:
        if isinstance(value, kind) and kind not in (int, float):
            return value
        if isinstance(value, bool):
            continue
        if kind is int and isinstance(value, numbers.Integral):
            return int(value)
        if kind is float and isinstance(value, numbers.Real):
            try:
                return float(value)
            except OverflowError:  # an integer beyond the largest float
                continue
    expected = " or ".join(_EXPECTED.get(kind, f"a {kind.__name__}") for kind in kinds)
    raise ValueError(f"{name} must be {expected}, got {value!r}")
