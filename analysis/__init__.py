"""Measurements of sequence models: memory functions and decay laws, perturbation errors, stability, and what others compare."""

from __future__ import annotations

import odernn  # noqa: F401  first: it looks for packages that hide ours

# isort: split
from . import result_lines, result_pictures, result_tables  # noqa: F401  what results say, their pictures and tables
from .capacity import MemoryCapacity, memory_capacity
from .curve_sets import crossing
from .decay import DecayFit, fit_decay
from .experiments import run_experiment
from .families import Family, family_curves, judge_family, train_family
from .fixed_points import FixedPoints, fixed_points
from .hankel import (
    BalancedTruncation,
    HankelSpectrum,
    StateSpace,
    WidthErrors,
    balanced_truncation,
    h_infinity_distance,
    hankel_spectrum,
    plot_width_errors,
    width_errors,
)
from .influence import BackgroundMemory, EffectiveStateSize, background_memory, effective_state_size, plot_background
from .linear.all_blocks import readout_bounds
from .linear.best_readout import ReadoutFit, best_readout
from .linear.curves import linear_curves
from .linear.fits import ExponentialSum, fit_amplitudes, fit_kernel, laplace_sum
from .linear.minimax import MinimaxFit, fit_minimax
from .linear.theory import KernelDistance, kernel_distance
from .lyapunov import LyapunovExponents, lyapunov_exponents
from .memory import MemoryFunction, memory_function
from .perturbation import PerturbationCurve, perturbation_error
from .perturbation.picture import plot_perturbation
from .plotting import plot_memory, plot_training
from .probes import Adapted
from .sensitivity import (
    Correlated,
    ModeMoments,
    OrnsteinUhlenbeck,
    Sensitivity,
    WeightMatrix,
    WhiteNoise,
    expected_gauss_newton,
    expected_loss,
    expected_sensitivity,
    loss_curvature,
    measured_sensitivity,
    mode_moments,
)
from .stability import (
    StabilityReport,
    complex_stability_radius,
    gradient_over_weight,
    raw_radius,
    spectral_abscissa,
    stability_margin,
    stability_report,
    structured_radius,
)
from .sweeps.results import Sweep
from .sweeps.sweep import sweep
from .target_memory import TargetMemory, target_memory
from .verdict import BlockVerdict, Verdict, judge_stable_approximation

__all__ = [
    "Adapted",
    "BackgroundMemory",
    "BalancedTruncation",
    "BlockVerdict",
    "Correlated",
    "DecayFit",
    "EffectiveStateSize",
    "ExponentialSum",
    "Family",
    "FixedPoints",
    "HankelSpectrum",
    "KernelDistance",
    "LyapunovExponents",
    "MemoryCapacity",
    "MemoryFunction",
    "MinimaxFit",
    "ModeMoments",
    "OrnsteinUhlenbeck",
    "PerturbationCurve",
    "ReadoutFit",
    "Sensitivity",
    "StabilityReport",
    "StateSpace",
    "Sweep",
    "TargetMemory",
    "Verdict",
    "WeightMatrix",
    "WhiteNoise",
    "WidthErrors",
    "background_memory",
    "balanced_truncation",
    "best_readout",
    "complex_stability_radius",
    "crossing",
    "effective_state_size",
    "expected_gauss_newton",
    "expected_loss",
    "expected_sensitivity",
    "family_curves",
    "fit_amplitudes",
    "fit_decay",
    "fit_kernel",
    "fit_minimax",
    "fixed_points",
    "gradient_over_weight",
    "h_infinity_distance",
    "hankel_spectrum",
    "judge_family",
    "judge_stable_approximation",
    "kernel_distance",
    "laplace_sum",
    "linear_curves",
    "loss_curvature",
    "lyapunov_exponents",
    "measured_sensitivity",
    "memory_capacity",
    "memory_function",
    "mode_moments",
    "perturbation_error",
    "plot_background",
    "plot_memory",
    "plot_perturbation",
    "plot_training",
    "plot_width_errors",
    "raw_radius",
    "readout_bounds",
    "run_experiment",
    "spectral_abscissa",
    "stability_margin",
    "stability_report",
    "structured_radius",
    "sweep",
    "target_memory",
    "train_family",
    "width_errors",
]
