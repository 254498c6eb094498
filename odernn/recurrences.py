"""Recurrent structures: how the raw weights of a layer make its recurrent matrix W.

A `Recurrence` owns the raw weights; `state_matrix()` gives the effective W of this moment in its cheapest
form, which is what vector fields and solvers use. All of them take leading ensemble axes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from targets import arguments

from .parameterizations import Parameterization

# Rates at initialisation, log-uniform: near 1/T they leave spurious slow modes in the fit.
INITIAL_RATES = (0.3, 2.0)
# Distance kept from the end of the range of f, where f' = 0 and a raw weight could not move.
_RANGE_MARGIN = 0.975


@dataclass(frozen=True)
class DenseMatrix:
    """W as it stands, (..., m, m)."""

    W: Tensor

    def apply(self, h: Tensor) -> Tensor:
        """W h for h of shape (..., batch, m)."""
        return h @ self.W.mT

    def to_dense(self) -> Tensor:
        return self.W

    def eigenvalues(self) -> Tensor:
        """Complex, (..., m)."""
        return torch.linalg.eigvals(self.W)

    def solve(self, v: Tensor, shift: float = 0.0) -> Tensor:
        """(W - shift I)^-1 v for v of shape (..., m). Where that matrix is singular to working precision: NaN, or, for v = 0,
        the constant 0."""
        if self.W.dtype in (torch.float16, torch.bfloat16):  # LAPACK has no such kinds
            return DenseMatrix(self.W.float()).solve(v.float(), shift).to(v.dtype)
        m = self.W.shape[-1]
        eye = torch.eye(m, dtype=self.W.dtype, device=self.W.device)
        matrix = self.W - shift * eye
        pivots = torch.linalg.lu_factor_ex(matrix.detach()).LU.diagonal(dim1=-2, dim2=-1).abs()
        singular = pivots.amin(-1) <= m * torch.finfo(pivots.dtype).eps * pivots.amax(-1)
        # A singular matrix is replaced before the solve: a gradient of NaN times 0 would still be NaN.
        regular = torch.where(singular[..., None, None], eye, matrix)
        result = torch.linalg.solve_ex(regular, v.unsqueeze(-1)).result.squeeze(-1)
        unknown = torch.where((v == 0).all(-1, keepdim=True), 0.0, math.nan).to(result)
        return torch.where(singular.unsqueeze(-1), unknown, result)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.W,)


@dataclass(frozen=True)
class DiagonalMatrix:
    """W = diag(l), l = rate of shape (..., m), or l = rate + i omega of shape (..., m/2) for conjugate pairs.

    A pair a + i w stands for the real block [[a, -w], [w, a]] on two neighbouring entries of h, that is for
    multiplication of the complex number h[2j] + i h[2j+1] by it.
    """

    # Real tensors both: torchdiffeq's adjoint flattens the weights into one state, and one complex weight would make it complex.
    rate: Tensor
    omega: Tensor | None = None

    @property
    def eigenvalue(self) -> Tensor:
        """l: (..., m) real, or (..., m/2) complex."""
        return self.rate if self.omega is None else torch.complex(self.rate, self.omega)

    def apply(self, h: Tensor) -> Tensor:
        """W h for h of shape (..., batch, m)."""
        return from_modes(self.eigenvalue.unsqueeze(-2) * self.to_modes(h))

    def to_modes(self, h: Tensor) -> Tensor:
        """The entries of h, (..., m), that l multiplies: h itself, or (..., m/2) complex."""
        return h if self.omega is None else torch.complex(h[..., 0::2], h[..., 1::2])

    def to_dense(self) -> Tensor:
        if self.omega is None:
            return torch.diag_embed(self.rate)
        a, w = self.rate, self.omega
        blocks = torch.stack([torch.stack([a, -w], -1), torch.stack([w, a], -1)], -2)  # (..., m/2, 2, 2)
        pairs = blocks.shape[-3]
        eye = torch.eye(pairs, dtype=a.dtype, device=a.device)
        return torch.einsum("...jab,jk->...jakb", blocks, eye).reshape(*blocks.shape[:-3], 2 * pairs, 2 * pairs)

    def eigenvalues(self) -> Tensor:
        """Complex, (..., m)."""
        if self.omega is None:
            return torch.complex(self.rate, torch.zeros_like(self.rate))
        return torch.stack([self.eigenvalue, self.eigenvalue.conj()], -1).flatten(-2)

    def solve(self, v: Tensor, shift: float = 0.0) -> Tensor:
        """(W - shift I)^-1 v for v of shape (..., m). In the modes whose l = shift: NaN, or, where v = 0, the constant 0."""
        modes, divisor = self.to_modes(v), self.eigenvalue - shift
        singular = divisor == 0
        result = modes / torch.where(singular, torch.ones_like(divisor), divisor)
        unknown = torch.where(modes == 0, 0.0, math.nan).to(result)
        return from_modes(torch.where(singular, unknown, result))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.rate,) if self.omega is None else (self.rate, self.omega)


def from_modes(z: Tensor) -> Tensor:
    """The real state, (..., m), of modes z: the inverse of `DiagonalMatrix.to_modes`."""
    return torch.view_as_real(z).flatten(-2) if z.is_complex() else z


StateMatrix = DenseMatrix | DiagonalMatrix


class Recurrence(nn.Module, ABC):
    """Raw weights of size m whose effective W is (*ensemble, m, m)."""

    name: ClassVar[str]

    def __init__(
        self, size: int, parameterization: Parameterization, ensemble: tuple[int, ...], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.size = size
        self.parameterization = parameterization
        self.ensemble = ensemble
        self._create(generator)

    @abstractmethod
    def _create(self, generator: torch.Generator | None) -> None:
        """Registers the raw weights at their initial values."""

    @abstractmethod
    def state_matrix(self) -> StateMatrix:
        """The effective W, differentiable in the raw weights."""

    @abstractmethod
    def spectrum(self) -> Tensor:
        """Eigenvalues of the effective W, complex, (*ensemble, m)."""

    @abstractmethod
    def set_matrix(self, W: Tensor) -> None:
        """Sets the raw weights so that the effective W is this one, (*ensemble, m, m) or (m, m).

        Raises:
            ValueError: a W that this recurrence and parameterisation cannot take.
        """

    def scale_input(self, U: Tensor) -> Tensor:
        """U as the state sees it: multiplied by the parameterisation's input scale, mode by mode."""
        return U

    def _initial_eigenvalues(self, count: int, generator: torch.Generator | None) -> Tensor:
        """(*ensemble, count): -r in continuous and e^-r in discrete time, r log-uniform in INITIAL_RATES."""
        low, _ = self.parameterization.range
        continuous = self.parameterization.time == "continuous"
        # The fastest rate that f reaches.
        limit = -low if continuous else -math.log(low) if low > 0 else math.inf
        slowest, fastest = INITIAL_RATES
        fastest = min(fastest, _RANGE_MARGIN * limit)
        if fastest < 2 * slowest:
            slowest = fastest * INITIAL_RATES[0] / INITIAL_RATES[1]
        uniform = torch.rand(*self.ensemble, count, generator=generator, dtype=torch.float64)
        rates = slowest * (fastest / slowest) ** uniform
        return -rates if continuous else (-rates).exp()

    def _checked_matrix(self, W: Tensor) -> Tensor:
        W = arguments.real_tensor("W", W)
        if W.shape[-2:] != (self.size, self.size):
            raise ValueError(f"W must be (..., {self.size}, {self.size}) for hidden size {self.size}, got {tuple(W.shape)}")
        try:
            return W.detach().to(torch.float64).expand(*self.ensemble, self.size, self.size)
        except RuntimeError:
            raise ValueError(f"leading axes of W, {tuple(W.shape[:-2])}, do not fit the ensemble {self.ensemble}") from None

    def _copy(self, name: str, value: Tensor) -> None:
        with torch.no_grad():
            getattr(self, name).copy_(value)


class Dense(Recurrence):
    """Every entry of W is a weight. Starts symmetric, W = P^T diag(l) P with P random orthogonal."""

    name = "dense"

    def _create(self, generator: torch.Generator | None) -> None:
        P = _random_orthogonal(self.size, self.ensemble, generator)
        eigenvalues = self._initial_eigenvalues(self.size, generator)
        self.W = nn.Parameter(P.mT @ (eigenvalues.unsqueeze(-1) * P))

    def state_matrix(self) -> StateMatrix:
        return DenseMatrix(self.W)

    def spectrum(self) -> Tensor:
        return self.state_matrix().eigenvalues()

    def set_matrix(self, W: Tensor) -> None:
        self._copy("W", self._checked_matrix(W))


class Diagonal(Recurrence):
    """W = diag(f(w))."""

    name = "diagonal"

    def _create(self, generator: torch.Generator | None) -> None:
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(self.size, generator)))

    def state_matrix(self) -> StateMatrix:
        return DiagonalMatrix(self.parameterization(self.w))

    def spectrum(self) -> Tensor:
        return self.state_matrix().eigenvalues()

    def set_matrix(self, W: Tensor) -> None:
        W = self._checked_matrix(W)
        diagonal = W.diagonal(dim1=-2, dim2=-1)
        _require(W, torch.diag_embed(diagonal), "recurrence 'diagonal' needs a diagonal W")
        self._copy("w", self.parameterization.inverse(diagonal))

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else scale.unsqueeze(-1) * U


class ComplexDiagonal(Recurrence):
    """Conjugate pairs l = f(w) + i omega in continuous time, l = f(w) e^{i omega} in discrete time; m even."""

    name = "complex"

    def _create(self, generator: torch.Generator | None) -> None:
        if self.size % 2:
            raise ValueError(f"recurrence 'complex' needs an even hidden size (conjugate pairs), got {self.size}")
        pairs = self.size // 2
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(pairs, generator)))
        # Frequencies (radians per unit time) of the order of the rates: most memories met here do not oscillate.
        self.omega = nn.Parameter(torch.rand(*self.ensemble, pairs, generator=generator, dtype=torch.float64))

    def state_matrix(self) -> StateMatrix:
        value = self.parameterization(self.w)
        if self.parameterization.time == "discrete":
            return DiagonalMatrix(value * self.omega.cos(), value * self.omega.sin())
        return DiagonalMatrix(value, self.omega)

    def spectrum(self) -> Tensor:
        return self.state_matrix().eigenvalues()

    def set_matrix(self, W: Tensor) -> None:
        W = self._checked_matrix(W)
        index = torch.arange(0, self.size, 2, device=W.device)
        blocks = DiagonalMatrix(W[..., index, index], W[..., index + 1, index])
        _require(W, blocks.to_dense(), "recurrence 'complex' needs W of 2 x 2 blocks [[a, -w], [w, a]]")
        pairs = blocks.eigenvalue
        discrete = self.parameterization.time == "discrete"
        self._copy("w", self.parameterization.inverse(pairs.abs() if discrete else pairs.real))
        self._copy("omega", pairs.angle() if discrete else pairs.imag)

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else scale.repeat_interleave(2, -1).unsqueeze(-1) * U


class Orthogonal(Recurrence):
    """W = P^T diag(f(w)) P with P = expm(A - A^T) P0, orthogonal whatever A is; P0 is a fixed buffer."""

    name = "orthogonal"

    def _create(self, generator: torch.Generator | None) -> None:
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(self.size, generator)))
        self.A = nn.Parameter(torch.zeros(*self.ensemble, self.size, self.size, dtype=torch.float64))
        self.P0: Tensor
        self.register_buffer("P0", _random_orthogonal(self.size, self.ensemble, generator))

    def basis(self) -> Tensor:
        """P, (*ensemble, m, m)."""
        return torch.linalg.matrix_exp(self.A - self.A.mT) @ self.P0

    def state_matrix(self) -> StateMatrix:
        return DenseMatrix(_conjugate(self.basis(), self.parameterization(self.w)))

    def spectrum(self) -> Tensor:
        return DiagonalMatrix(self.parameterization(self.w)).eigenvalues()

    def set_matrix(self, W: Tensor) -> None:
        eigenvalues, P = _symmetric_eigen(self._checked_matrix(W), self.name)
        self._copy("w", self.parameterization.inverse(eigenvalues))
        self._copy("A", torch.zeros_like(self.A))
        self._copy("P0", P)

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else _conjugate(self.basis(), scale) @ U


class FreeOrthogonal(Recurrence):
    """W = P^T diag(f(w)) P with P a free matrix that only starts orthogonal, as in the original code of [IA].

    Once P has left the orthogonal matrices f(w) are no longer the eigenvalues of W: a stable f does not
    keep W stable.
    """

    name = "free_orthogonal"

    def _create(self, generator: torch.Generator | None) -> None:
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(self.size, generator)))
        self.P = nn.Parameter(_random_orthogonal(self.size, self.ensemble, generator))

    def state_matrix(self) -> StateMatrix:
        return DenseMatrix(_conjugate(self.P, self.parameterization(self.w)))

    def spectrum(self) -> Tensor:
        return self.state_matrix().eigenvalues()

    def set_matrix(self, W: Tensor) -> None:
        eigenvalues, P = _symmetric_eigen(self._checked_matrix(W), self.name)
        self._copy("w", self.parameterization.inverse(eigenvalues))
        self._copy("P", P)

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else _conjugate(self.P, scale) @ U


RECURRENCES: dict[str, type[Recurrence]] = {
    cls.name: cls for cls in (Dense, Diagonal, Orthogonal, FreeOrthogonal, ComplexDiagonal)
}


def create(
    name: str,
    size: int,
    parameterization: Parameterization,
    ensemble: tuple[int, ...],
    generator: torch.Generator | None,
) -> Recurrence:
    """The recurrence of this name in float64; its initial weights come from `generator`, or from torch's own.

    Raises:
        ValueError: unknown name (lists the choices), a size or ensemble axis below 1, or a combination that has no
            meaning: 'dense' has no eigenvalues of its own for f to act on, so it takes only 'direct'.
    """
    arguments.choice("recurrence", name, RECURRENCES)
    arguments.instance("parameterization", parameterization, Parameterization, "make one with odernn.parameterizations.get")
    if generator is not None:
        arguments.instance("generator", generator, torch.Generator, "give torch.Generator(), or None for torch's own")
    size, ensemble = arguments.count("size", size), arguments.counts("ensemble", ensemble)
    if name == Dense.name and parameterization.name != "direct":
        raise ValueError(
            f"recurrence 'dense' takes only the parameterization 'direct', got {parameterization.name!r} (which acts on "
            "eigenvalues, and a dense W does not expose them): choose recurrence 'orthogonal', 'diagonal' or 'complex'"
        )
    return RECURRENCES[name](size, parameterization, ensemble, generator)


def _random_orthogonal(size: int, ensemble: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Haar-distributed (*ensemble, size, size): QR of a gaussian matrix with the signs of R made positive."""
    gaussian = torch.randn(*ensemble, size, size, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(gaussian)
    # Contiguous: LAPACK gives columns, and torch.optim.LBFGS cannot flatten the gradient of such a weight.
    return (Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).contiguous()


def _conjugate(P: Tensor, values: Tensor) -> Tensor:
    """P^T diag(values) P."""
    return P.mT @ (values.unsqueeze(-1) * P)


def _symmetric_eigen(W: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Eigenvalues and P with W = P^T diag P, of a symmetric W."""
    _require(W, W.mT, f"recurrence {name!r} needs a symmetric W (W = P^T diag(l) P with P orthogonal)")
    eigenvalues, Q = torch.linalg.eigh(W)
    return eigenvalues, Q.mT


def _require(W: Tensor, form: Tensor, message: str) -> None:
    # Symmetric or diagonal up to rounding of the products that made W.
    deviation = (W - form).abs().max().item()
    if deviation > 1e-10 * max(1.0, W.abs().max().item()):
        raise ValueError(f"{message}, got one that deviates by {deviation:.2g}: choose another recurrence")
