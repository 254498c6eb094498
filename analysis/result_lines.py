"""What each kind of result says of itself on a line."""

from __future__ import annotations

from collections import Counter

from odernn.short_repr import shown

from .capacity import MemoryCapacity
from .decay.fit import DecayFit
from .fixed_points import FixedPoints
from .influence import BackgroundMemory, EffectiveStateSize
from .lyapunov import LyapunovExponents
from .memory import MemoryFunction
from .perturbation.curve import PerturbationCurve
from .results import line
from .sensitivity.measured import Sensitivity
from .sensitivity.weight_matrix import WeightMatrix
from .target_memory import TargetMemory
from .verdict import BlockVerdict, Verdict


@line.register
def _(M: MemoryFunction) -> str:
    ends = f"M({M.times[0]:.3g}) = {shown(M.values[..., 0])}, M({M.times[-1]:.4g}) = {shown(M.values[..., -1])}"
    rate = "" if M.spectrum_rate is None else f", slowest mode {M.spectrum_rate:.4g}"
    return (
        f"MemoryFunction({M.system}, {M.probe}, {M.amplitudes_text}, {len(M.times)} times: {ends}, floor {shown(M.floor)}{rate})"
    )


@line.register
def _(M: BackgroundMemory) -> str:
    exponent = "" if M.exponent is None else f", exponent {shown(M.exponent)}"
    curve = M.geometric_mean
    ends = f"{shown(curve[..., 0])} at lag 0, {shown(curve[..., -1])} at {M.times[-1]:.4g}"
    return (
        f"BackgroundMemory({M.system}, {M.influence.shape[-2]} sequences, {len(M.times)} lags: geometric mean per {M.per} "
        f"{ends}{exponent})"
    )


@line.register
def _(found: EffectiveStateSize) -> str:
    rank, entropy = found.rank, found.entropy
    ranks = f"{int(rank.min())}" if rank.min() == rank.max() else f"{int(rank.min())} to {int(rank.max())}"
    mean = f"mean entropy {float(entropy.mean()):.4g}"
    return f"EffectiveStateSize({found.system}, {len(found.times)} times: rank {ranks} above {found.tolerance:g}, {mean})"


@line.register
def _(fit: DecayFit) -> str:
    window = f"on [{fit.window[0]:.3g}, {fit.window[1]:.3g}]"
    why = f"; {fit.preference()}" if fit.preference() else ""
    return f"DecayFit({fit.describe()} {window}, {fit.points} {'maxima' if fit.envelope else 'points'}{why})"


@line.register
def _(curve: PerturbationCurve) -> str:
    radius = f"r = {curve.radius_bound()}{curve.tolerance_radius():.3g}"
    largest = f"E({curve.betas[-1]:.3g}) = {curve.relative[-1]:.3g} |H|"
    of = f"m = {curve.hidden_size}, T = {curve.horizon:g}, {curve.block_choice}"
    return f"PerturbationCurve({of}: E(0) = {curve.relative_initial:.3g} |H|, {radius}, {largest}, {curve.betas.size} betas)"


@line.register
def _(found: MemoryCapacity) -> str:
    delays = f"{len(found.delays)} delays up to {found.delays[-1]:.4g}"
    return f"MemoryCapacity(total {found.total:.4g} of a rank of {found.rank}, {delays}, {found.samples} samples)"


@line.register
def _(found: LyapunovExponents) -> str:
    pairs = [f"{value:.4g} ± {error:.1g}" for value, error in zip(found.exponents.tolist(), found.stderr.tolist())]
    shown_ones = ", ".join(pairs[:4]) + (", ..." if len(pairs) > 4 else "")
    return f"LyapunovExponents({shown_ones}; {len(pairs)} over {len(found.times)} intervals up to t = {found.times[-1]:.4g})"


@line.register
def _(found: FixedPoints) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(found.stability).items())
    return (
        f"FixedPoints({len(found.points)} of {found.points.shape[-1]} units: {kinds or 'none found'}; {found.lost} starts lost)"
    )


@line.register
def _(M: TargetMemory) -> str:
    rate = "" if M.slowest_rate is None else f", rate {M.slowest_rate:.4g}"
    ends = f"M(0) = {M.values[0]:.3g}, M({M.times[-1]:.4g}) = {M.values[-1]:.3g}"
    law = "exponential or faster" if M.law == "exponential" else f"{M.law} than exponential" if M.law == "slower" else M.law
    unsure = "" if M.sure or M.law != "between" else ", not sure"
    return f"TargetMemory({law}{rate}: {ends}, followed at {M.times.size} times{unsure})"


@line.register
def _(found: BlockVerdict) -> str:
    radii = ", ".join(f"{bound}{r:.3g} at T = {T:g}" for T, r, bound in zip(found.horizons, found.radii, found.radius_bounds))
    exponent = "" if found.horizon_exponent is None else f", r ~ T^-({found.exponent_text()})"
    return f"BlockVerdict({found.judgement} ({found.block}): r = {radii}{exponent}{_advice(found)})"


@line.register
def _(found: Verdict) -> str:
    judged = ", ".join(f"{one.judgement} ({one.block})" for one in found.blocks.values()) or found.judgement
    errors = ", ".join(f"{error:.2g}" for error in found.initial_errors)
    return f"Verdict({judged}: m = {shown(found.widths)}, T = {found.horizon:g}, E(0) = ({errors}) |H|{_advice(found)})"


@line.register
def _(found: Sensitivity) -> str:
    largest = ", ".join(f"{name} {float(value[-1].max()):.3g}" for name, value in list(found.values.items())[:4])
    more = ", ..." if len(found.values) > 4 else ""
    return f"Sensitivity(largest E |dy/dtheta|^2 at t = {float(found.times[-1]):.4g}: {largest}{more}; {len(found.times)} times)"


@line.register
def _(found: WeightMatrix) -> str:
    names = ", ".join(found.names[:4]) + (", ..." if len(found.names) > 4 else "")
    return f"WeightMatrix({len(found.matrix)} weights: {names}; trace {found.trace:.4g})"


def _advice(found: Verdict | BlockVerdict) -> str:
    """What an undecided verdict says to do."""
    return f"; {found.reasons[-1]}" if found.judgement == "undecided" and found.reasons else ""
