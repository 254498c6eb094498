"""The table of each kind of result, by columns."""

from __future__ import annotations

from typing import Any

import torch

from .capacity import MemoryCapacity
from .decay.fit import DecayFit
from .fixed_points import FixedPoints
from .influence import BackgroundMemory, EffectiveStateSize
from .lyapunov import LyapunovExponents
from .memory import MemoryFunction
from .perturbation.curve import PerturbationCurve
from .results import columns
from .sensitivity.measured import Sensitivity
from .sensitivity.weight_matrix import WeightMatrix
from .target_memory import TargetMemory
from .verdict import BlockVerdict, Verdict


@columns.register
def _(M: MemoryFunction) -> dict[str, Any]:
    """One row for each time; of an ensemble for each member and time, with its index in `member_0`, `member_1`, ..."""
    found = _indices(M.values, [f"member_{k}" for k in range(M.values.ndim - 1)])
    found["time"] = M.times.expand(M.values.shape).flatten().cpu().numpy()
    found["memory"] = M.values.flatten().cpu().numpy()
    found["above_floor"] = M.above_floor.flatten().cpu().numpy()
    x = M.maximizer.flatten(end_dim=-2).cpu().numpy()
    return found | {"maximizer" if x.shape[-1] == 1 else f"maximizer_{k}": x[:, k] for k in range(x.shape[-1])}


@columns.register
def _(M: BackgroundMemory) -> dict[str, Any]:
    """One row for each lag, of an ensemble for each member and lag."""
    found = _indices(M.values, [f"member_{k}" for k in range(M.values.ndim - 1)])
    low, high = M.spread
    curves = {"lag": M.times.expand(M.values.shape), "mean": M.mean, "geometric_mean": M.geometric_mean}
    curves |= {"quantile_10": low, "quantile_90": high, "above_floor": M.above_floor}
    return found | {name: values.flatten().cpu().numpy() for name, values in curves.items()}


@columns.register
def _(size: EffectiveStateSize) -> dict[str, Any]:
    """One row for each sequence and time, of an ensemble for each member as well."""
    members = size.rank.ndim - 2
    found = _indices(size.rank, [*(f"member_{k}" for k in range(members)), "sequence"])
    curves = {"time": size.times.expand(size.rank.shape), "rank": size.rank, "entropy": size.entropy}
    return found | {name: values.flatten().cpu().numpy() for name, values in curves.items()}


@columns.register
def _(fit: DecayFit) -> dict[str, Any]:
    """One row for each law that was tried, the best first."""
    laws = sorted(fit.evidence, key=lambda law: (law != fit.law, fit.evidence[law]))
    fits = [fit.fits.get(law) for law in laws]
    found: dict[str, Any] = {"law": laws, "chosen": [law == fit.law for law in laws], "aic": [fit.evidence[law] for law in laws]}
    names = ("amplitude", "rate", "exponent", "scale", "stderr", "order", "second_rate", "residual")
    return found | {name: [getattr(one, name, None) for one in fits] for name in names}


@columns.register
def _(curve: PerturbationCurve) -> dict[str, Any]:
    names = ("hidden_size", "horizon", "blocks", "search", "beta", "error", "relative_error", "searched_error", "lifted")
    rows = curve.rows(*names)
    return {name: [row[name] for row in rows] for name in names}


@columns.register
def _(found: MemoryCapacity) -> dict[str, Any]:
    return {"delay": found.delays.cpu().numpy(), "capacity": found.values.cpu().numpy()}


@columns.register
def _(found: LyapunovExponents) -> dict[str, Any]:
    return {"exponent": found.exponents.cpu().numpy(), "stderr": found.stderr.cpu().numpy()}


@columns.register
def _(found: FixedPoints) -> dict[str, Any]:
    leading, points = found.spectra[:, 0].cpu(), found.points.cpu().numpy()
    table = {"stability": found.stability, "leading_real": leading.real.numpy(), "leading_imag": leading.imag.numpy()}
    table |= {"residual": found.residuals.cpu().numpy(), "starts": found.basins.cpu().numpy()}
    return table | {f"h_{k}": points[:, k] for k in range(points.shape[-1])}


@columns.register
def _(M: TargetMemory) -> dict[str, Any]:
    return {"time": M.times, "memory": M.values, "envelope": M.envelope}


@columns.register
def _(found: BlockVerdict) -> dict[str, Any]:
    one = {"block": found.block, "judgement": found.judgement}
    same = {name: [value] * len(found.horizons) for name, value in one.items()}
    return same | {"horizon": found.horizons, "radius": found.radii, "radius_bound": found.radius_bounds}


@columns.register
def _(found: Verdict) -> dict[str, Any]:
    """One row for each choice of blocks and width, with the judgement of the blocks."""
    table: dict[str, list[Any]] = {
        name: [] for name in ("block", "judgement", "hidden_size", "radius", "radius_bound", "initial_error")
    }
    for block, radii in found.radii.items():
        judged = found.blocks[block].judgement if block in found.blocks else found.judgement
        for row in zip(found.widths, radii, found.radius_bounds[block], found.initial_errors):
            for name, value in zip(table, (block, judged, *row)):
                table[name].append(value)
    return table


@columns.register
def _(found: Sensitivity) -> dict[str, Any]:
    """One row for each time, with the sum over the entries of each weight."""
    sums = {name: value.reshape(len(value), -1).sum(-1).cpu().numpy() for name, value in found.values.items()}
    return {"time": found.times.cpu().numpy()} | sums


@columns.register
def _(found: WeightMatrix) -> dict[str, Any]:
    """One row for each weight, with the sum over its entries of the diagonal."""
    return {"weight": list(found.names), "trace": [float(value.sum()) for value in found.by_name().values()]}


def _indices(values: torch.Tensor, names: list[str]) -> dict[str, Any]:
    """For each value its index along the leading axes, by the names of these."""
    found = {}
    for k, name in enumerate(names):
        index = torch.arange(values.shape[k]).reshape(-1, *[1] * (values.ndim - k - 1))
        found[name] = index.expand(values.shape).flatten().numpy()
    return found
