"""Recurrent structures: how the raw weights of a layer make its recurrent matrix W.

A `Recurrence` owns the raw weights, and `state_matrix()` gives the effective W of this moment. All of them take leading ensemble
axes. A recurrence of your own is one class, in any file. Once registered, its name is known wherever a name is taken:
`ContinuousRNN(..., recurrence="rotation")`, `ExperimentConfig`, `odernn.models.build` (import the file before you load its runs).

    import torch
    from torch import nn

    from odernn.norms import MAX
    from odernn.raw_weights import RawWeight
    from odernn.recurrences import Recurrence, register
    from odernn.state_matrices import DiagonalMatrix

    @register
    class Rotation(Recurrence):
        '''W of 2 x 2 blocks f(w) R(theta), R a rotation: eigenvalues f(w) e^{+-i theta}.'''

        name = "rotation"

        def _create(self, generator):
            pairs = self.size // 2
            self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(pairs, generator)))
            self.theta = nn.Parameter(torch.rand(*self.ensemble, pairs, generator=generator, dtype=torch.float64))

        def raw_weights(self):
            # Re l = f(w) cos(theta): larger angles are slower.
            return {"w": self._eigenvalue_weight(), "theta": RawWeight(MAX, lambda theta, norm: theta.sign())}

        def state_matrix(self):
            f = self.parameterization(self.w)
            return DiagonalMatrix(f * self.theta.cos(), f * self.theta.sin())

        def set_matrix(self, W):
            W = self._checked_matrix(W)
            columns = W[..., ::2].unflatten(-2, (-1, 2)).diagonal(dim1=-3, dim2=-1)  # (..., 2, pairs): f cos, f sin
            f = -torch.linalg.vector_norm(columns, dim=-2)
            self._copy("w", self.parameterization.inverse(f))
            self._copy("theta", torch.atan2(columns[..., 1, :] / f, columns[..., 0, :] / f))

        def scale_input(self, U):
            scale = self.parameterization.input_scale(self.parameterization(self.w))
            return U if scale is None else scale.repeat_interleave(2, -1).unsqueeze(-1) * U
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import torch
from torch import Tensor, nn

from targets import arguments

from .norms import MAX, SPECTRAL, Norm, Spectral
from .parameterizations import Direct, Parameterization
from .raw_weights import RawWeight, shrink, widen_basis, widen_block
from .state_matrices import DenseMatrix, DiagonalMatrix, StateMatrix

# Decay rates -Re l at initialisation, log-uniform: near 1/T they leave spurious slow modes in the fit.
INITIAL_RATES = (0.3, 2.0)
# Distance kept from the end of the range of f, where f' = 0 and a raw weight could not move.
RANGE_MARGIN = 0.975


class Recurrence(nn.Module, ABC):
    """Raw weights of size m whose effective W is (*ensemble, m, m).

    `name`: by which it is chosen. `modal`: whether the f(w) are the real parts of the eigenvalues of W (their moduli in discrete
    time), whatever the other weights are, so that f alone decides whether W is stable.
    """

    name: ClassVar[str]
    modal: ClassVar[bool] = False

    def __init__(
        self, size: int, parameterization: Parameterization, ensemble: tuple[int, ...], generator: torch.Generator | None
    ) -> None:
        super().__init__()
        self.size = size
        self.parameterization = parameterization
        self.ensemble = ensemble
        self._create(generator)
        described, held = set(self.raw_weights()), set(self.state_dict())
        if described != held:
            raise ValueError(
                f"raw_weights of recurrence {self.name!r} describes {', '.join(sorted(described)) or 'nothing'}, but it holds "
                f"{', '.join(sorted(held)) or 'nothing'}: describe each parameter and buffer"
            )

    @abstractmethod
    def _create(self, generator: torch.Generator | None) -> None:
        """Registers the raw weights, (*ensemble, ...) in float64, at their initial values."""

    @abstractmethod
    def raw_weights(self) -> dict[str, RawWeight]:
        """The description of each parameter and buffer, by its name."""

    @abstractmethod
    def state_matrix(self) -> StateMatrix:
        """The effective W, differentiable in the raw weights."""

    @abstractmethod
    def set_matrix(self, W: Tensor) -> None:
        """Sets the raw weights so that the effective W is this one, (*ensemble, m, m) or (m, m).

        Raises:
            ValueError: a W that this recurrence and parameterisation cannot take.
        """

    @abstractmethod
    def scale_input(self, U: Tensor) -> Tensor:
        """U as the state sees it: multiplied by the parameterisation's input scale, mode by mode."""

    def spectrum(self) -> Tensor:
        """Eigenvalues of the effective W, complex, (*ensemble, m)."""
        return self.state_matrix().eigenvalues()

    def _eigenvalue_weight(self) -> RawWeight:
        """The description of w where f(w) are real parts or moduli of eigenvalues: slower is where f' points."""
        return RawWeight(MAX, lambda w, norm: self.parameterization.derivative(w).sign())

    def _initial_eigenvalues(self, count: int, generator: torch.Generator | None) -> Tensor:
        """(*ensemble, count): -r in continuous and e^-r in discrete time, r log-uniform in INITIAL_RATES."""
        low, _ = self.parameterization.range
        continuous = self.parameterization.time == "continuous"
        # The fastest rate that f reaches.
        limit = -low if continuous else -math.log(low) if low > 0 else math.inf
        slowest, fastest = INITIAL_RATES
        fastest = min(fastest, RANGE_MARGIN * limit)
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


RECURRENCES: dict[str, type[Recurrence]] = {}
# Names of earlier versions, which are taken wherever a name is, and which the fingerprints of saved runs hold.
OLD_NAMES = {"orthogonal": "symmetric", "free_orthogonal": "free_basis"}
_R = TypeVar("_R", bound=Recurrence)


def current_name(name: str) -> str:
    """The name of today for one of an earlier version, any other as it came."""
    return OLD_NAMES.get(name, name) if isinstance(name, str) else name


def first_name(name: str) -> str:
    """The name under which runs were first saved: the inverse of `current_name`."""
    return {new: old for old, new in OLD_NAMES.items()}.get(name, name)


def register(cls: type[_R]) -> type[_R]:
    """Makes a recurrence known by its name; a decorator of the class, cls.

    Raises:
        ValueError: another class has that name.
    """
    known = RECURRENCES.get(current_name(cls.name), cls)
    # A class may be defined again, as when a cell of a notebook runs twice.
    if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
        raise ValueError(f"recurrence {cls.name!r} is the name of {known.__module__}.{known.__qualname__}: choose another")
    RECURRENCES[cls.name] = cls
    return cls


@register
class Dense(Recurrence):
    """Every entry of W is a weight. Starts symmetric, W = P^T diag(l) P with P random orthogonal."""

    name = "dense"

    def _create(self, generator: torch.Generator | None) -> None:
        if not isinstance(self.parameterization, Direct):
            raise ValueError(
                f"recurrence 'dense' takes only the parameterization 'direct', got {self.parameterization.name!r} (which acts on "
                "eigenvalues, and a dense W does not expose them): choose recurrence 'symmetric', 'diagonal' or 'complex'"
            )
        P = _random_orthogonal(self.size, self.ensemble, generator)
        eigenvalues = self._initial_eigenvalues(self.size, generator)
        self.W = nn.Parameter(P.mT @ (eigenvalues.unsqueeze(-1) * P))

    def raw_weights(self) -> dict[str, RawWeight]:
        return {"W": RawWeight(SPECTRAL, _towards_growth, widen_block)}

    def state_matrix(self) -> StateMatrix:
        return DenseMatrix(self.W)

    def set_matrix(self, W: Tensor) -> None:
        self._copy("W", self._checked_matrix(W))

    def scale_input(self, U: Tensor) -> Tensor:
        return U


@register
class Diagonal(Recurrence):
    """W = diag(f(w))."""

    name = "diagonal"
    modal = True

    def _create(self, generator: torch.Generator | None) -> None:
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(self.size, generator)))

    def raw_weights(self) -> dict[str, RawWeight]:
        return {"w": self._eigenvalue_weight()}

    def state_matrix(self) -> StateMatrix:
        return DiagonalMatrix(self.parameterization(self.w))

    def set_matrix(self, W: Tensor) -> None:
        W = self._checked_matrix(W)
        diagonal = W.diagonal(dim1=-2, dim2=-1)
        _require(W, torch.diag_embed(diagonal), "recurrence 'diagonal' needs a diagonal W")
        self._copy("w", self.parameterization.inverse(diagonal))

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else scale.unsqueeze(-1) * U


class _InBasis(Recurrence):
    """W = P^T diag(f(w)) P."""

    def _create(self, generator: torch.Generator | None) -> None:
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(self.size, generator)))
        self._create_basis(_random_orthogonal(self.size, self.ensemble, generator))

    @abstractmethod
    def _create_basis(self, P: Tensor) -> None:
        """Registers the raw weights of P, which starts orthogonal."""

    @abstractmethod
    def basis(self) -> Tensor:
        """P, (*ensemble, m, m)."""

    @abstractmethod
    def _set_basis(self, P: Tensor) -> None:
        """Sets the raw weights of P, orthogonal."""

    def state_matrix(self) -> StateMatrix:
        return DenseMatrix(_conjugate(self.basis(), self.parameterization(self.w)))

    def set_matrix(self, W: Tensor) -> None:
        W = self._checked_matrix(W)
        _require(W, W.mT, f"recurrence {self.name!r} needs a symmetric W (W = P^T diag(l) P with P orthogonal)")
        eigenvalues, Q = torch.linalg.eigh(W)
        self._copy("w", self.parameterization.inverse(eigenvalues))
        self._set_basis(Q.mT)

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else _conjugate(self.basis(), scale) @ U


@register
class Symmetric(_InBasis):
    """W = P^T diag(f(w)) P with P = expm(A - A^T) P0, orthogonal whatever A is; P0 is a fixed buffer."""

    name = "symmetric"
    modal = True

    def _create_basis(self, P: Tensor) -> None:
        self.A = nn.Parameter(torch.zeros_like(P))
        self.P0: Tensor
        self.register_buffer("P0", P)

    def raw_weights(self) -> dict[str, RawWeight]:
        A, P0 = RawWeight(SPECTRAL, widen=widen_block), RawWeight(SPECTRAL, widen=widen_basis)
        return {"w": self._eigenvalue_weight(), "A": A, "P0": P0}

    def basis(self) -> Tensor:
        return torch.linalg.matrix_exp(self.A - self.A.mT) @ self.P0

    def spectrum(self) -> Tensor:
        return DiagonalMatrix(self.parameterization(self.w)).eigenvalues()

    def _set_basis(self, P: Tensor) -> None:
        self._copy("A", torch.zeros_like(self.A))
        self._copy("P0", P)


@register
class FreeBasis(_InBasis):
    """W = P^T diag(f(w)) P with P a free matrix that only starts orthogonal, as in the original code of [IA].

    Once P has left the orthogonal matrices f(w) are no longer the eigenvalues of W: a stable f does not
    keep W stable.
    """

    name = "free_basis"

    def _create_basis(self, P: Tensor) -> None:
        self.P = nn.Parameter(P)

    def raw_weights(self) -> dict[str, RawWeight]:
        return {"w": self._eigenvalue_weight(), "P": RawWeight(SPECTRAL, shrink, widen_basis)}

    def basis(self) -> Tensor:
        return self.P

    def _set_basis(self, P: Tensor) -> None:
        self._copy("P", P)


class Pairs(Recurrence):
    """Conjugate pairs l = f(w) + i omega in continuous time, l = f(w) e^{i omega} in discrete time; m even."""

    modal = True

    def _create(self, generator: torch.Generator | None) -> None:
        if self.size % 2:
            raise ValueError(f"recurrence {self.name!r} needs an even hidden size (conjugate pairs), got {self.size}")
        pairs = self.size // 2
        self.w = nn.Parameter(self.parameterization.inverse(self._initial_eigenvalues(pairs, generator)))
        # Frequencies (radians per unit time) of the order of the rates: most memories met here do not oscillate.
        self._create_frequencies(torch.rand(*self.ensemble, pairs, generator=generator, dtype=torch.float64))

    @abstractmethod
    def _create_frequencies(self, omega: Tensor) -> None:
        """Registers the raw weights of omega, which starts here, in [0, 1)."""

    @abstractmethod
    def frequencies(self) -> Tensor:
        """omega, (*ensemble, m / 2)."""

    @abstractmethod
    def _set_frequencies(self, omega: Tensor) -> None:
        """Sets the raw weights of omega."""

    def state_matrix(self) -> StateMatrix:
        value, omega = self.parameterization(self.w), self.frequencies()
        if self.parameterization.time == "discrete":
            return DiagonalMatrix(value * omega.cos(), value * omega.sin())
        return DiagonalMatrix(value, omega)

    def set_matrix(self, W: Tensor) -> None:
        W = self._checked_matrix(W)
        index = torch.arange(0, self.size, 2, device=W.device)
        blocks = DiagonalMatrix(W[..., index, index], W[..., index + 1, index])
        _require(W, blocks.to_dense(), f"recurrence {self.name!r} needs W of 2 x 2 blocks [[a, -w], [w, a]]")
        pairs = blocks.eigenvalue
        discrete = self.parameterization.time == "discrete"
        w = self.parameterization.inverse(pairs.abs() if discrete else pairs.real)
        self._set_frequencies(pairs.angle() if discrete else pairs.imag)
        self._copy("w", w)


@register
class ComplexDiagonal(Pairs):
    """Conjugate pairs with raw frequencies omega, as in S4D."""

    name = "complex"

    def _create_frequencies(self, omega: Tensor) -> None:
        self.omega = nn.Parameter(omega)

    def raw_weights(self) -> dict[str, RawWeight]:
        return {"w": self._eigenvalue_weight(), "omega": RawWeight(MAX)}

    def frequencies(self) -> Tensor:
        return self.omega

    def _set_frequencies(self, omega: Tensor) -> None:
        self._copy("omega", omega)

    def scale_input(self, U: Tensor) -> Tensor:
        scale = self.parameterization.input_scale(self.parameterization(self.w))
        return U if scale is None else of_pairs(scale) * U


def of_pairs(scale: Tensor) -> Tensor:
    """One factor for both entries of each pair, (*ensemble, m, 1)."""
    return scale.repeat_interleave(2, -1).unsqueeze(-1)


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
    name = arguments.choice("recurrence", current_name(name), RECURRENCES)
    arguments.instance("parameterization", parameterization, Parameterization, "make one with odernn.parameterizations.get")
    if generator is not None:
        arguments.instance("generator", generator, torch.Generator, "give torch.Generator(), or None for torch's own")
    size, ensemble = arguments.count("size", size), arguments.counts("ensemble", ensemble)
    return RECURRENCES[name](size, parameterization, ensemble, generator)


def _towards_growth(W: Tensor, norm: Norm) -> Tensor:
    """I moves every eigenvalue alike; under the max-norm the signs of the slowest direction's projector reach further."""
    if isinstance(norm, Spectral):
        return torch.eye(W.shape[-1], dtype=W.dtype, device=W.device)
    slowest = torch.linalg.eigh(W + W.mT).eigenvectors[:, -1]
    return torch.outer(slowest, slowest).sign()


def _random_orthogonal(size: int, ensemble: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Haar-distributed (*ensemble, size, size): QR of a gaussian matrix with the signs of R made positive."""
    gaussian = torch.randn(*ensemble, size, size, generator=generator, dtype=torch.float64)
    Q, R = torch.linalg.qr(gaussian)
    # Contiguous: LAPACK gives columns, and torch.optim.LBFGS cannot flatten the gradient of such a weight.
    return (Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).contiguous()


def _conjugate(P: Tensor, values: Tensor) -> Tensor:
    """P^T diag(values) P."""
    return P.mT @ (values.unsqueeze(-1) * P)


def _require(W: Tensor, form: Tensor, message: str) -> None:
    # Symmetric or diagonal up to rounding of the products that made W.
    deviation = (W - form).abs().max().item()
    if deviation > 1e-10 * max(1.0, W.abs().max().item()):
        raise ValueError(f"{message}, got one that deviates by {deviation:.2g}: choose another recurrence")
