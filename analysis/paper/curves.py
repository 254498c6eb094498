"""Perturbation curves as the data of a figure: `PerturbationCurve.as_dict` and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..perturbation import PerturbationCurve


def restore(curve: Mapping[str, Any]) -> PerturbationCurve:
    """The curve that `as_dict` described, without the worst-case weights: enough to draw and to judge it."""
    return PerturbationCurve(
        betas=np.array(curve["betas"], dtype=np.float64),
        errors=np.array(curve["errors"], dtype=np.float64),
        searched=np.array(curve["searched"], dtype=np.float64),
        initial=float(curve["initial_error"]),
        blocks=tuple(curve["blocks"]),
        worst_case=None,  # type: ignore[arg-type]
        **{name: curve[name] for name in _SAME},
    )


_SAME = ("scale", "power", "hidden_size", "horizon", "error", "search", "norm", "block_choice", "evaluations", "model")


def rows(curves: Iterable[Mapping[str, Any]], **columns: Any) -> list[dict[str, Any]]:
    """Long-format rows, one for each curve and beta, `columns` in front."""
    return [
        {
            **columns,
            "hidden_size": curve["hidden_size"],
            "horizon": curve["horizon"],
            "blocks": curve["block_choice"],
            "search": curve["search"],
            "beta": beta,
            "error": error,
            "relative_error": relative,
        }
        for curve in curves
        for beta, error, relative in zip(curve["betas"], curve["errors"], restore(curve).relative.tolist())
    ]
