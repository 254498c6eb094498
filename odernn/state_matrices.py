"""State matrices: the effective W of one moment in its cheapest form, dense or diagonal, for vector fields and solvers.

Leading axes are ensembles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# How solvers tell the kinds apart.
Structure = Literal["dense", "diagonal", "pairs"]


@dataclass(frozen=True)
class DenseMatrix:
    """W as it stands, (..., m, m)."""

    W: Tensor

    @property
    def structure(self) -> Structure:
        return "dense"

    @property
    def entries(self) -> Tensor:
        """(..., m, m)."""
        return self.W

    def apply(self, h: Tensor) -> Tensor:
        """W h for h of shape (..., batch, m)."""
        return h @ self.W.mT

    def to_dense(self) -> Tensor:
        return self.W

    def eigenvalues(self) -> Tensor:
        """Complex, (..., m)."""
        return torch.linalg.eigvals(self.W)

    def scaled_plus_identity(self, factor: float) -> DenseMatrix:
        """I + factor W."""
        return DenseMatrix(factor * self.W + torch.eye(self.W.shape[-1], dtype=self.W.dtype, device=self.W.device))

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
    """W = diag(l), l = real of shape (..., m), or l = real + i imag of shape (..., m/2) for conjugate pairs.

    A pair a + i w stands for the real block [[a, -w], [w, a]] on two neighbouring entries of h, that is for
    multiplication of the complex number h[2j] + i h[2j+1] by it.
    """

    # Real tensors both: torchdiffeq's adjoint flattens the weights into one state, and one complex weight would make it complex.
    real: Tensor
    imag: Tensor | None = None

    @property
    def structure(self) -> Structure:
        return "diagonal" if self.imag is None else "pairs"

    @property
    def entries(self) -> Tensor:
        """The diagonal, (..., 1, m); or for conjugate pairs (..., 2, m): [0] multiplies an entry of h, [1] its partner."""
        if self.imag is None:
            return self.real.unsqueeze(-2)
        own, partner = torch.stack([self.real, self.real], -1), torch.stack([-self.imag, self.imag], -1)
        return torch.stack([own, partner], -3).flatten(-2)

    @property
    def eigenvalue(self) -> Tensor:
        """l: (..., m) real, or (..., m/2) complex."""
        return self.real if self.imag is None else torch.complex(self.real, self.imag)

    def apply(self, h: Tensor) -> Tensor:
        """W h for h of shape (..., batch, m)."""
        return from_modes(self.eigenvalue.unsqueeze(-2) * self.to_modes(h))

    def to_modes(self, h: Tensor) -> Tensor:
        """The entries of h, (..., m), that l multiplies: h itself, or (..., m/2) complex."""
        return h if self.imag is None else torch.complex(h[..., 0::2], h[..., 1::2])

    def to_dense(self) -> Tensor:
        if self.imag is None:
            return torch.diag_embed(self.real)
        a, w = self.real, self.imag
        blocks = torch.stack([torch.stack([a, -w], -1), torch.stack([w, a], -1)], -2)  # (..., m/2, 2, 2)
        pairs = blocks.shape[-3]
        eye = torch.eye(pairs, dtype=a.dtype, device=a.device)
        return torch.einsum("...jab,jk->...jakb", blocks, eye).reshape(*blocks.shape[:-3], 2 * pairs, 2 * pairs)

    def eigenvalues(self) -> Tensor:
        """Complex, (..., m)."""
        if self.imag is None:
            return torch.complex(self.real, torch.zeros_like(self.real))
        return torch.stack([self.eigenvalue, self.eigenvalue.conj()], -1).flatten(-2)

    def scaled_plus_identity(self, factor: float) -> DiagonalMatrix:
        """I + factor W."""
        return DiagonalMatrix(factor * self.real + 1, None if self.imag is None else factor * self.imag)

    def solve(self, v: Tensor, shift: float = 0.0) -> Tensor:
        """(W - shift I)^-1 v for v of shape (..., m). In the modes whose l = shift: NaN, or, where v = 0, the constant 0."""
        modes, divisor = self.to_modes(v), self.eigenvalue - shift
        singular = divisor == 0
        result = modes / torch.where(singular, torch.ones_like(divisor), divisor)
        unknown = torch.where(modes == 0, 0.0, math.nan).to(result)
        return from_modes(torch.where(singular, unknown, result))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.real,) if self.imag is None else (self.real, self.imag)


def from_modes(z: Tensor) -> Tensor:
    """The real state, (..., m), of modes z: the inverse of `DiagonalMatrix.to_modes`."""
    return torch.view_as_real(z).flatten(-2) if z.is_complex() else z


StateMatrix = DenseMatrix | DiagonalMatrix
