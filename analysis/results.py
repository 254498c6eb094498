"""Results that JSON can hold and give back, that say in a line what they found, and have a table and a picture.

The lines, tables and pictures of the kinds of results are in `result_lines`, `result_tables` and `result_pictures`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import singledispatch
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import torch

from odernn.json_values import decode, encode
from odernn.short_repr import short_repr

if TYPE_CHECKING:
    from matplotlib.axes import Axes

R = TypeVar("R", bound="Result")


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """Base of frozen dataclasses of numbers, strings, arrays, tensors, tuples, mappings and other results.

    `from_dict` reads each field by its type, so that text which happens to be "inf" stays text. Two results are equal if all
    their numbers are; nan equals nan.
    """

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, as `odernn.json_values.encode` has them; a tensor as its dtype, shape and values, of complex ones
        the pairs (real, imaginary)."""
        return {field.name: _written(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_dict(cls: type[R], values: Mapping[str, Any]) -> R:
        """The result that `to_dict` described, as it came from there or read from a file.

        Raises:
            ValueError: a field is missing.
        """
        kinds = get_type_hints(cls)
        missing = [field.name for field in fields(cls) if field.name not in values]
        if missing:
            raise ValueError(f"these values are no {cls.__name__}, they lack {', '.join(missing)}: give what to_dict() returned")
        return cls(**{field.name: _read(kinds[field.name], values[field.name]) for field in fields(cls)})

    def __eq__(self, other: object) -> bool:
        return self.to_dict() == other.to_dict() if isinstance(other, type(self)) else NotImplemented

    def __repr__(self) -> str:
        return " ".join(line(self).split())

    def to_frame(self) -> Any:
        """A pandas DataFrame: of a result over times, betas or the like one row for each, of any other one row.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise ImportError("to_frame() needs pandas, which is not installed: pip install pandas", name="pandas") from None
        return pandas.DataFrame(columns(self))

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draws this result.

        Args:
            ax: where to draw; a new figure of pyplot by default.
            options: of matplotlib, for the line.

        Returns:
            The axes.

        Raises:
            ValueError: there is no picture of this kind of result.
        """
        if ax is None:
            from matplotlib import pyplot

            ax = pyplot.subplots()[1]
        draw(self, ax, **options)
        return ax


@singledispatch
def line(result: Any) -> str:
    """What a result found, on one line."""
    return short_repr(result)


@singledispatch
def columns(result: Any) -> dict[str, Any]:
    """The table of a result by columns."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: [value] for name, value in values.items() if value is None or isinstance(value, int | float | str)}


@singledispatch
def draw(result: Any, axes: Axes, **options: Any) -> None:
    """The picture of a result."""
    raise ValueError(f"there is no picture of a {type(result).__name__}: draw what you need of its {', '.join(result.to_dict())}")


def _written(value: Any) -> Any:
    """A field as a JSON value."""
    if isinstance(value, Mapping) and any(isinstance(part, torch.Tensor) for part in value.values()):
        return {key: _written(part) for key, part in value.items()}
    if not isinstance(value, torch.Tensor):
        return encode(value)
    values = torch.view_as_real(value) if value.is_complex() else value
    return {"dtype": str(value.dtype).partition(".")[2], "shape": list(value.shape), "values": encode(values)}


def _tensor(value: Mapping[str, Any]) -> torch.Tensor:
    dtype: torch.dtype = getattr(torch, value["dtype"])
    if dtype.is_complex:
        pairs = torch.tensor(decode(value["values"]), dtype=dtype.to_real()).reshape(*value["shape"], 2)
        return torch.view_as_complex(pairs)
    return torch.tensor(decode(value["values"]), dtype=dtype).reshape(value["shape"])


def _read(kind: Any, value: Any) -> Any:
    """A JSON value as a field of that type."""
    if kind is torch.Tensor:
        return _tensor(value)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        (kind,) = (part for part in parts if part is not type(None))
        return None if value is None else _read(kind, value)
    if origin is np.ndarray:
        return np.array(decode(value), dtype=get_args(parts[1])[0])
    if origin is tuple:
        return tuple(_read(parts[0], part) for part in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: _read(parts[1], part) for key, part in value.items()}
    if isinstance(kind, type) and issubclass(kind, Result):
        return kind.from_dict(value)
    return float(value) if kind is float else value
