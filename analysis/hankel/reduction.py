"""Balanced truncation: the linear model of m states that keeps the largest Hankel singular values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from odernn.citations import record
from odernn.models import ContinuousRNN, SequenceModel, StateSpaceModel
from odernn.parameterizations import Parameterization
from odernn.state_matrices import DiagonalMatrix
from targets import Kernel, arguments

from ..results import Result
from .panels import NODES
from .spectrum import HankelSpectrum, Resolved, System, as_system, hankel_spectrum
from .state_space import StateSpace

Array = NDArray[np.float64]

_MODELS = {"rnn": ContinuousRNN, "ssm": StateSpaceModel}
_RECURRENCES = ("dense", "diagonal", "complex")
# Eigenvalues whose imaginary part is a smaller part of them than this are real.
_REAL = 1e-9
# Each panel of the singular functions is cut in so many, if there are not more nodes than this already.
_PARTS, _LARGE = 2, 1200


@dataclass(frozen=True, eq=False, repr=False)
class BalancedTruncation(Result):
    """A linear model of m states by balanced truncation.

    Args:
        W, U, c: (m, m), (m, d), (p, m): dh/dt = W h + U x, y = c h; W is stable.
        bound: 2 sum_{i > m} sigma_i: sup_w |G(iw) - G_m(iw)| is at most that; nan where the sum is not known.
        floor: no linear model of m states comes closer than this.
        spectrum: of what was reduced.
    """

    W: Array
    U: Array
    c: Array
    bound: float
    floor: float
    spectrum: HankelSpectrum

    @property
    def state_space(self) -> StateSpace:
        """The matrices as a system, which all of this package takes."""
        return StateSpace(self.W, self.U, self.c, f"truncation of {self.spectrum.system} to m = {len(self.W)}")

    def __call__(self, t: Array) -> Array:
        """The kernel c e^{Wt} U at times (n,), 0 before 0: (n,) for one input and output, else (n, p, d)."""
        times = arguments.real_tensor("t", t).double().reshape(-1, 1, 1)
        rho = self.c @ torch.linalg.matrix_exp(torch.from_numpy(self.W) * times.clamp(min=0)).numpy() @ self.U
        rho[(times < 0).flatten().numpy()] = 0.0
        return rho[:, 0, 0] if rho.shape[1:] == (1, 1) else rho

    def model(
        self, kind: str = "rnn", recurrence: str = "dense", parameterization: str | Parameterization = "direct"
    ) -> SequenceModel:
        """A model of odernn with this kernel: linear, without b, in float64.

            reduced = balanced_truncation(kernels.two_part(), 16)
            model = reduced.model()                                 # a ContinuousRNN with dense W: also a start for training
            spread = balanced_truncation(kernels.polynomial(1.5), 8).model("ssm", "diagonal", "exp")     # real poles: W = -e^M

        Args:
            kind: 'rnn' or 'ssm'.
            recurrence: 'dense'; 'diagonal' where all eigenvalues of W are real; 'complex' where they are conjugate pairs.
            parameterization: of the eigenvalues.

        Raises:
            ValueError: another kind or recurrence, or eigenvalues that it cannot take.
        """
        kind = arguments.choice("kind", kind, _MODELS)
        recurrence = arguments.choice("recurrence", recurrence, _RECURRENCES)
        W, U, c = self.W, self.U, self.c
        if recurrence != "dense":
            W, U, c = _modal(W, U, c, recurrence)
        sizes = (U.shape[1], len(W), len(c))
        model = _MODELS[kind](*sizes, "linear", recurrence, parameterization, bias=False, seed=0, dtype=torch.float64)
        layer = model.layer_weights[0]
        model.set_matrix(torch.from_numpy(W))
        with torch.no_grad():
            # the state sees U times the parameterisation's input scale
            scale = layer.recurrence.scale_input(torch.ones_like(layer.U))
            layer.U.copy_(torch.from_numpy(U) / scale)
            model.c.copy_(torch.from_numpy(c))
        return model


def balanced_truncation(system: System, m: int) -> BalancedTruncation:
    """The linear model of m states that keeps the m largest Hankel singular values of a kernel on [0, inf) or a linear model:

        sigma_{m+1} <= sup_w |G(iw) - G_m(iw)| <= 2 sum_{i > m} sigma_i.

        reduced = balanced_truncation(kernels.polynomial(1.5), 8)
        kernel_distance(reduced.model(), kernels.polynomial(1.5))     # its L1 error

    Of a kernel, from the eigenvalues g_i = +-sigma_i and eigenfunctions v_i of its operator, with no model in between:

        W_ij = -sign(g_j) b_i b_j / (g_i + g_j),    U_i = b_i = sqrt(sigma_i) v_i(0),    c_i = sign(g_i) b_i;

    of a model, by the factors of its Gramians (square-root method).

    Args:
        system: as in `hankel_spectrum`: a scalar kernel, or a linear model in continuous time.
        m: states; at most as many as there are resolved values. `HankelSpectrum.states_for` says how many an error takes.

    Raises:
        ValueError: as `hankel_spectrum`; m too large; a vector kernel; a map; or a result that is not stable, which rounding
            makes of values that are nearly equal: one more or one less state then helps.

    Source: Moore, IEEE Trans. Automat. Control 26 (1981); [Glover] Int. J. Control 39 (1984); of kernels: Glover, Curtain,
    Partington, SIAM J. Control Optim. 26 (1988).
    """
    record(balanced_truncation)
    m = arguments.count("m", m)
    return Truncations.build(system).to(m)


@dataclass(frozen=True)
class Truncations:
    """All balanced truncations of one system: its singular values and functions are computed once.

    Args:
        spectrum: of the system.
        parts: (W, U, c) of m states.
    """

    spectrum: HankelSpectrum
    parts: Callable[[int], tuple[Array, Array, Array]]

    @staticmethod
    def build(system: System) -> Truncations:
        """Of a scalar kernel on [0, inf) or a linear model in continuous time."""
        found = as_system(system)
        if isinstance(found, Kernel) and found.size != 1:
            raise ValueError(
                f"balanced truncation is for scalar kernels, got one of {found.size} channels: reduce them one by one"
            )
        if isinstance(found, StateSpace) and found.discrete:
            raise ValueError(f"{found.system} is a map, expected a model in continuous time")
        spectrum = hankel_spectrum(found)
        return Truncations(spectrum, _of_model(found) if isinstance(found, StateSpace) else _of_kernel(found))

    def to(self, m: int) -> BalancedTruncation:
        """That of m states."""
        spectrum, m = self.spectrum, arguments.count("m", m)
        if m > spectrum.values.size:
            raise ValueError(
                f"m is {m}, expected at most {spectrum.values.size}: {spectrum.system} has no more resolved singular values"
            )
        W, U, c = self.parts(m)
        # states have the sign with which their largest input is positive: singular vectors have any
        sign = np.where(U[np.arange(m), np.abs(U).argmax(1)] < 0, -1.0, 1.0)
        W, U, c = sign[:, None] * W * sign, sign[:, None] * U, c * sign
        found = BalancedTruncation(W, U, c, spectrum.ceiling(m), spectrum.floor(m), spectrum)
        if not float(-np.linalg.eigvals(W).real.max()) > 0:
            raise ValueError(
                f"balanced truncation of {spectrum.system} to m = {m} is not stable to rounding, where modes are too far apart "
                "or singular values nearly equal: give one more state, or fewer"
            )
        return found


def _of_kernel(kernel: Kernel) -> Callable[[int], tuple[Array, Array, Array]]:
    """W, U, c for m, by the eigenvalues of largest modulus and the normalised eigenfunctions at t = 0: int rho(s) v(s) ds / g."""
    panels = Resolved.build(kernel, math.inf)
    operator = panels.operator(parts=1 if panels.panels().size * NODES > _LARGE else _PARTS)
    g, vectors = operator.eigenpairs()
    order = np.argsort(-np.abs(g), kind="stable")
    g, vectors = g[order], vectors[:, order]
    at_0 = (np.sqrt(operator.weights) * kernel.values(operator.times)[:, 0]) @ vectors / g

    def parts(m: int) -> tuple[Array, Array, Array]:
        b, sign = np.sqrt(np.abs(g[:m])) * at_0[:m], np.sign(g[:m])
        W = -np.outer(b, b * sign) / np.add.outer(g[:m], g[:m])
        return W, b[:, None], (sign * b)[None]

    return parts


def _of_model(system: StateSpace) -> Callable[[int], tuple[Array, Array, Array]]:
    L, R = system.gramian_factors()
    X, values, Yt = np.linalg.svd(R.T @ L)

    def parts(m: int) -> tuple[Array, Array, Array]:
        root = np.sqrt(values[:m])
        left, right = R @ X[:, :m] / root, L @ Yt[:m].T / root
        return left.T @ system.W @ right, left.T @ system.U, system.c @ right

    return parts


def _modal(W: Array, U: Array, c: Array, recurrence: str) -> tuple[Array, Array, Array]:
    """The same system in its modes: W diagonal, or of blocks [[a, -w], [w, a]]."""
    values, vectors = np.linalg.eig(W)
    real = np.abs(values.imag) <= _REAL * np.abs(values)
    if recurrence == "diagonal":
        if not real.all():
            raise ValueError(f"{(~real).sum()} eigenvalues of W are not real: choose recurrence 'dense' or 'complex'")
        T = vectors.real
        return np.diag(values.real), np.linalg.solve(T, U), c @ T
    if real.any():
        raise ValueError(f"{real.sum()} eigenvalues of W are real, expected conjugate pairs: choose recurrence 'dense'")
    upper = np.flatnonzero(values.imag > 0)
    # the block [[a, -w], [w, a]] acts on the columns (Re v, -Im v) of an eigenvector v of a + iw
    T = np.stack([vectors[:, upper].real, -vectors[:, upper].imag], -1).reshape(len(W), -1)
    pairs = torch.from_numpy(values[upper])
    W = DiagonalMatrix(pairs.real, pairs.imag).to_dense().numpy()
    return W, np.linalg.solve(T, U), c @ T
