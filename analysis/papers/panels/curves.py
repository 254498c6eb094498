"""Perturbation curves as rows of a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...perturbation import PerturbationCurve

_COLUMNS = ("hidden_size", "horizon", "blocks", "search", "beta", "error", "relative_error", "relative_linear_error")


def rows(curves: Iterable[Mapping[str, Any]], **columns: Any) -> list[dict[str, Any]]:
    """Long-format rows, one for each curve and beta, `columns` in front."""
    return [columns | row for curve in curves for row in PerturbationCurve.from_dict(curve).rows(*_COLUMNS)]
