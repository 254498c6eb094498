"""Linear models as matrices, and their Gramians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from odernn.models import SequenceModel
from targets import arguments

from ..results import Result

Array = NDArray[np.float64]

# Doublings of the time that Gramians are summed over: 2^60 steps.
_DOUBLINGS = 60
_ROUNDING = float(np.finfo(np.float64).eps)
# The second computation, for the error estimate, takes another step.
_OTHER = 3.0


@dataclass(frozen=True, eq=False, repr=False)
class StateSpace(Result):
    """dh/dt = W h + U x, y = c h; or h_{k+1} = W h_k + U x_k.

    Args:
        W: (m, m).
        U: (m, d).
        c: (p, m).
        system: how to call it.
        discrete: whether it is a map.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, or an unstable W.
    """

    W: Array
    U: Array
    c: Array
    system: str = "state space"
    discrete: bool = False

    def __post_init__(self) -> None:
        for name in ("W", "U", "c"):
            matrix = arguments.real_tensor(name, getattr(self, name)).detach().double().cpu().numpy()
            if matrix.ndim != 2:
                raise ValueError(f"{name} has shape {matrix.shape}, expected W (m, m), U (m, d) and c (p, m)")
            object.__setattr__(self, name, matrix)
        m = len(self.W)
        if self.W.shape != (m, m) or len(self.U) != m or self.c.shape[1] != m or not m:
            raise ValueError(
                f"W, U and c have shapes {self.W.shape}, {self.U.shape}, {self.c.shape}, expected (m, m), (m, d) and (p, m)"
            )
        margin = self.margin
        if not margin > 0:
            found = f"|l| up to {1 - margin:.3g}" if self.discrete else f"Re l up to {-margin:.3g}"
            raise ValueError(f"{self.system} is unstable ({found}): it has no Gramians; expected a stable W")

    @property
    def states(self) -> int:
        """m."""
        return len(self.W)

    @property
    def margin(self) -> float:
        """-max Re l, or 1 - max |l| of a map."""
        spectrum = np.linalg.eigvals(self.W)
        return float(1 - np.abs(spectrum).max()) if self.discrete else float(-spectrum.real.max())

    def gramian_factors(self, step: float = 1.0) -> tuple[Array, Array]:
        """L and R with P = L L^T and Q = R R^T, the Gramians

            W P + P W^T + U U^T = 0,    W^T Q + Q W + c^T c = 0        (W P W^T - P + U U^T = 0, ... of a map),

        by squared Smith iteration, which has the factors without the square roots of P and Q, whose rounding errors would be
        those of sqrt(eps). In continuous time A = (p + W) (p - W)^-1, with the same P and Q, for any p > 0.

        Args:
            step: factor of p, which is the geometric mean of the moduli of the fastest and the slowest mode.

        Raises:
            ValueError: W is too close to instability for the sum to end.

        Source: Smith, SIAM J. Appl. Math. 16 (1968); Penzl, SIAM J. Sci. Comput. 21 (1999).
        """
        if self.discrete:
            A, B, C = self.W, self.U, self.c
        else:
            sizes = np.abs(np.linalg.eigvals(self.W))
            p = step * float(np.sqrt(sizes.min()) * np.sqrt(sizes.max()))
            inverse = np.linalg.inv(p * np.eye(self.states) - self.W)
            A = (p * np.eye(self.states) + self.W) @ inverse
            B, C = np.sqrt(2 * p) * inverse @ self.U, np.sqrt(2 * p) * self.c @ inverse
        return self._doubled(A, B), self._doubled(A.T, C.T)

    def _doubled(self, A: Array, L: Array) -> Array:
        scale = float(np.abs(L).max())
        L = L / (scale or 1.0)  # the squares of very large or small numbers are none
        for _ in range(_DOUBLINGS):
            more = A @ L
            if not np.isfinite(more).all():
                break
            L = np.linalg.qr(np.concatenate([L, more], 1).T)[1].T
            if np.linalg.norm(more) <= _ROUNDING * np.linalg.norm(L):
                return scale * L
            A = A @ A
        raise ValueError(f"{self.system} is too close to instability ({self.margin:.2g}): its Gramians cannot be computed")

    def hankel_values(self) -> tuple[Array, Array]:
        """sqrt(eig(P Q)), (m,), decreasing, and the estimated errors."""
        first, second = (self._values(step) for step in (1.0, _OTHER))
        return first, np.abs(first - second)

    def _values(self, step: float) -> Array:
        # with a step of another size a map has the same factors: its error is that of rounding alone
        L, R = self.gramian_factors(step)
        found = np.linalg.svd(R.T @ L, compute_uv=False)
        return np.pad(found, (0, self.states - found.size))


def state_space(model: SequenceModel) -> StateSpace:
    """The matrices of a linear model; layers of a stack become blocks of W.

    Raises:
        ValueError: a nonlinear, unstable or nonstandard model, or an ensemble.
    """
    arguments.instance("model", model, SequenceModel, "give a model of odernn")
    if not model.activation.linear:
        raise ValueError(
            f"the model has activation {model.activation.name!r}, expected 'linear': Hankel singular values are those of linear "
            "systems; give a kernel measured of it"
        )
    if model.ensemble:
        raise ValueError(f"Hankel singular values are of one model, got an ensemble {model.ensemble}: take a member of it")
    if model.is_map and model.time == "continuous":
        raise ValueError(
            f"the model is the Euler step of a continuous one ({model.name!r}), expected that itself: give a ContinuousRNN"
        )
    field = model.field()
    W, U, c = [], [], field.c.detach().double().cpu().numpy()
    for layer in field.layers:
        W.append(layer.W.to_dense().detach().double().cpu().numpy())
        U.append(layer.U.detach().double().cpu().numpy())
    m, layers = model.hidden_size, len(W)
    whole = np.zeros((layers * m, layers * m))
    for k in range(layers):
        whole[k * m : (k + 1) * m, k * m : (k + 1) * m] = W[k]
        if k:
            whole[k * m : (k + 1) * m, (k - 1) * m : k * m] = U[k]
    first, last = np.zeros((layers * m, model.input_size)), np.zeros((model.output_size, layers * m))
    first[:m], last[:, -m:] = U[0], c
    return StateSpace(whole, first, last, f"{type(model).__name__}(m = {m})", discrete=model.is_map)
