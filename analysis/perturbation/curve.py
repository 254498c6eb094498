"""Perturbation curves: the errors E_m(beta) of one model, and the radius up to which it tolerates perturbations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from odernn.json_values import encode
from odernn.models import SequenceModel
from odernn.recurrences import current_name

from ..results import Result
from ..target_memory import TargetMemory

Array = NDArray[np.float64]

# Part of |H| that E_m may reach within the tolerance radius: above it the model says nothing of the target.
TOLERANCE = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class PerturbationCurve(Result):
    """E_m(beta) of one model. Curves are equal that say the same of E_m, whatever their worst cases are.

    Args:
        betas: (K,), increasing, >= 0; in units of the trainable parameters.
        errors: E_m(beta), (K,), inf where a perturbed model diverges; non-decreasing unless `running_maximum=False`.
        searched: the errors that the search found at each beta alone, (K,): in a larger ball it may find less than in a smaller.
        initial: E_m(0).
        scale: the same error for the model that answers 0: |H| in the units of `errors`.
        power: 2 for squared errors, else 1: `relative` takes this root.
        hidden_size: m.
        horizon: T, the length of time over which the error is measured; may be inf.
        error, search, norm, blocks: as asked for; `blocks` holds the names of the perturbed parameters.
        block_choice: 'all', 'recurrent' or 'named'.
        evaluations: models solved, those with gradients included.
        model: `SequenceModel.config()` of the unperturbed model.
        worst_case: the worst parameters found within each beta as an ensemble (K,) of models: `member(worst_case, k)`; None for a
            curve of `from_dict`.
        linear: E_m(0) of the best linear model of the same width and structure, where it was measured: of a trained family.
        target_memory: M of the target, where it was measured: `judge_stable_approximation` judges the horizon by it.

    Example:
        >>> from analysis import fit_kernel, perturbation_error
        >>> from targets import kernels
        >>> rho = kernels.exponential()
        >>> E = perturbation_error(fit_kernel(rho, 2, horizon=30), rho, None, None, [0, 0.1, 0.5], error="kernel_l1", horizon=30)
        >>> E.hidden_size, E.horizon, E.block_choice
        (2, 30, 'all')
    """

    betas: Array
    errors: Array
    searched: Array
    initial: float
    scale: float
    power: int
    hidden_size: int
    horizon: float
    error: str
    search: str
    norm: str
    blocks: tuple[str, ...]
    block_choice: str
    evaluations: int
    model: dict[str, Any]
    worst_case: SequenceModel | None = None
    target_memory: TargetMemory | None = None
    linear: float | None = None

    @property
    def lifted(self) -> NDArray[np.bool_]:
        """Where the search alone fell below a smaller beta's error, so that E_m stands there by monotonicity, (K,)."""
        return self.searched < self.errors

    @property
    def relative(self) -> Array:
        """E_m(beta) / |H|, (K,): (errors / scale)^(1 / power)."""
        return np.asarray((self.errors / self.scale) ** (1 / self.power))

    @property
    def relative_initial(self) -> float:
        """E_m(0) / |H|."""
        return float((self.initial / self.scale) ** (1 / self.power))

    @property
    def relative_linear(self) -> float | None:
        """E_m(0) / |H| of the best linear model; None where it was not measured."""
        return None if self.linear is None else float((self.linear / self.scale) ** (1 / self.power))

    def radius_bracket(self, tolerance: float = TOLERANCE) -> tuple[float, float]:
        """The betas next to r: the largest with E_m <= tolerance |H| (0 for none), the smallest with more (inf for none)."""
        if not self.relative_initial <= tolerance:
            return 0.0, 0.0
        above = np.flatnonzero(~((self.relative <= tolerance) | (self.betas == 0)))
        end = int(above[0]) if above.size else self.betas.size
        return float(self.betas[end - 1]) if end else 0.0, float(self.betas[end]) if above.size else math.inf

    def tolerance_radius(self, tolerance: float = TOLERANCE) -> float:
        """r = the largest beta with E_m(beta) <= tolerance |H|, log-linear between the betas.

        0 where already E_m(0) is larger. A bound where the betas do not enclose it, see `radius_bound`: the smallest beta > 0
        where E_m is larger there, the largest beta where it never is, the last finite one where E_m is inf at the next.
        """
        low, high = self.radius_bracket(tolerance)
        if low == 0:
            return high if math.isfinite(high) else 0.0
        if not math.isfinite(high):
            return low
        left, right = self.relative[np.searchsorted(self.betas, [low, high])]
        if not (left > 0 and math.isfinite(right)):
            return low
        return float(low * (high / low) ** (math.log(tolerance / left) / math.log(right / left)))

    def radius_bound(self, tolerance: float = TOLERANCE) -> str:
        """'<' where `tolerance_radius` is known from above only, '>' where from below only (or to the next beta), else ''."""
        low, high = self.radius_bracket(tolerance)
        if high == 0:
            return ""
        if low == 0 < high < math.inf:
            return "<"
        left, right = np.interp([low, high], self.betas, self.relative)
        return "" if high < math.inf and left > 0 and right < math.inf else ">"

    @property
    def within_tolerance(self) -> bool:
        """Whether E_m <= |H| / 2 at every beta given, so that only larger ones can tell the radius."""
        return bool((self.relative <= TOLERANCE).all() and self.relative_initial <= TOLERANCE)

    def to_dict(self) -> dict[str, Any]:
        """JSON values: everything but the worst-case weights and the target's memory, and what can be read off it."""
        values = {
            "hidden_size": self.hidden_size,
            "horizon": self.horizon,
            "error": self.error,
            "power": self.power,
            "scale": self.scale,
            "search": self.search,
            "norm": self.norm,
            "block_choice": self.block_choice,
            "blocks": self.blocks,
            "evaluations": self.evaluations,
            "initial_error": self.initial,
            "linear_error": self.linear,
            "tolerance_radius": self.tolerance_radius(),
            "tolerance_radius_bound": self.radius_bound(),
            "betas": self.betas,
            "errors": self.errors,
            "searched": self.searched,
            "lifted": self.lifted,
            "model": self.model,
        }
        return encode(values)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PerturbationCurve:
        """The curve of `to_dict`, from these values or from JSON of them: enough to draw and to judge it."""
        model = dict(values["model"])
        if "recurrence" in model:  # earlier versions wrote its old name
            model["recurrence"] = current_name(model["recurrence"])
        own = {"initial": values["initial_error"], "model": model, "worst_case": None, "target_memory": None}
        own["linear"] = values.get("linear_error")  # earlier versions did not measure it
        return super().from_dict({**values, **own})

    def rows(self, *names: str) -> list[dict[str, Any]]:
        """These columns of a table with a row for each beta."""
        one = {"hidden_size": self.hidden_size, "horizon": self.horizon, "blocks": self.block_choice, "search": self.search}
        one["relative_linear_error"] = self.relative_linear
        columns = {name: [value] * self.betas.size for name, value in one.items()} | {
            "beta": self.betas.tolist(),
            "error": self.errors.tolist(),
            "relative_error": self.relative.tolist(),
            "searched_error": self.searched.tolist(),
            "lifted": self.lifted.tolist(),
        }
        return [dict(zip(names, row)) for row in zip(*(columns[name] for name in names))]
