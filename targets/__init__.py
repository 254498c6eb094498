"""Targets of learning: memory kernels rho, functionals H, and ensembles of inputs x."""

from __future__ import annotations

from targets import arguments, functionals, grids, inputs, kernels, named_objects, quadrature
from targets.functionals import (
    NONLINEARITIES,
    ConvolutionalFunctional,
    Functional,
    NonlinearFunctional,
    StepResponseFunctional,
    TeacherFunctional,
    make_target,
)
from targets.inputs import INPUTS
from targets.kernels import KERNELS, Kernel
from targets.quadrature import Moments, QuadratureError

__all__ = [
    "INPUTS",
    "KERNELS",
    "NONLINEARITIES",
    "ConvolutionalFunctional",
    "Functional",
    "Kernel",
    "Moments",
    "NonlinearFunctional",
    "QuadratureError",
    "StepResponseFunctional",
    "TeacherFunctional",
    "arguments",
    "functionals",
    "grids",
    "inputs",
    "kernels",
    "make_target",
    "named_objects",
    "quadrature",
]
