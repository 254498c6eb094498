"""What is to be learnt: memory kernels rho, functionals H, and ensembles of inputs x."""

from __future__ import annotations

from targets import arguments, functionals, grids, inputs, kernels, quadrature
from targets.functionals import (
    ConvolutionalFunctional,
    DifferentiableFunctional,
    Functional,
    NonlinearFunctional,
    TeacherFunctional,
)
from targets.inputs import INPUTS
from targets.kernels import KERNELS, Kernel
from targets.quadrature import Moments, QuadratureError

__all__ = [
    "INPUTS",
    "KERNELS",
    "ConvolutionalFunctional",
    "DifferentiableFunctional",
    "Functional",
    "Kernel",
    "Moments",
    "NonlinearFunctional",
    "QuadratureError",
    "TeacherFunctional",
    "arguments",
    "functionals",
    "grids",
    "inputs",
    "kernels",
    "quadrature",
]
