"""Settings: dataclasses whose values are of the types they declare, whether code, a command line or a JSON file gave them."""

from __future__ import annotations

import numbers
from dataclasses import fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from targets import arguments

_EXPECTED = {int: "an integer", float: "a number", str: "text", bool: "true or false", NoneType: "nothing"}


def check_types(settings: Any) -> None:
    """Brings each field of a dataclass to its declared type (an integer may stand for a float), in place.

    Raises:
        ValueError: another type, or no value of a `Literal`; names the field, what came and what was expected.
    """
    hints = get_type_hints(type(settings))
    for item in fields(settings):
        hint, value = hints[item.name], getattr(settings, item.name)
        if get_origin(hint) is Literal:
            arguments.choice(item.name, value, get_args(hint))
        else:
            object.__setattr__(settings, item.name, _as_one_of(get_args(hint) or (hint,), item.name, value))


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
