"""How sensitive models are to their weights as memory grows: E |dh/dtheta|^2 and the curvature of losses, exact and measured."""

from .curvature import loss_curvature
from .expected import expected_gauss_newton, expected_loss, expected_sensitivity
from .measured import Sensitivity, measured_sensitivity
from .modes import ModeMoments, mode_moments
from .noise import Correlated, Noise, OrnsteinUhlenbeck, WhiteNoise
from .weight_matrix import WeightMatrix

__all__ = [
    "Correlated",
    "ModeMoments",
    "Noise",
    "OrnsteinUhlenbeck",
    "Sensitivity",
    "WeightMatrix",
    "WhiteNoise",
    "expected_gauss_newton",
    "expected_loss",
    "expected_sensitivity",
    "loss_curvature",
    "measured_sensitivity",
    "mode_moments",
]
