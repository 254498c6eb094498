"""The Hankel operator of a kernel in an orthonormal basis: polynomials on panels of time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from targets import Kernel

from .panels import gauss, interpolation

Array = NDArray[np.float64]

# Matrices up to this size are decomposed as they are; larger ones are first projected on the range of so many random vectors,
# doubled until they hold it to this part of the largest singular value.
_WHOLE, _VECTORS, _MISSED = 800, 160, 1e-14
_TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Discretised:
    """(Gamma u)(t) = int_0^X rho(t + s) u(s) ds on [0, X] in the basis l_i(t) / sqrt(w_i) of every panel, l_i the Lagrange
    polynomials of its Gauss nodes and w_i their weights: orthonormal functions.

    Args:
        times, weights: nodes and weights, (N,).
        matrix: (N, d N), channel by channel: symmetric for d = 1.
        edges: of the panels.
        nodes: on each panel.
        lost: (k,), L2 norms of what no polynomial has of rho(t + s) on the pairs of panels that a jump or kink crosses.
    """

    times: Array
    weights: Array
    matrix: Array
    edges: Array
    nodes: int
    lost: Array

    @staticmethod
    def build(kernel: Kernel, edges: Array, breaks: tuple[float, ...], nodes: int) -> Discretised:
        """The matrix: products of rho at the nodes, exact to rounding where rho is a polynomial on the sums of two panels, and
        integrals cut along t + s = b where a jump or kink crosses them."""
        x, w = gauss(nodes)
        width = np.diff(edges)
        t = (edges[:-1, None] + width[:, None] * x).ravel()
        weights = (width[:, None] * w).ravel()
        root = np.sqrt(weights)
        size = t.size
        matrix = np.empty((size, kernel.size, size))
        for rows in np.array_split(np.arange(size), max(1, size * size // 2**20)):
            rho = kernel.values((t[rows, None] + t).ravel()).reshape(rows.size, size, kernel.size)
            matrix[rows] = (root[rows, None, None] * rho * root[:, None]).transpose(0, 2, 1)
        panels = len(width)
        blocks = matrix.reshape(panels, nodes, kernel.size, panels, nodes)
        lost = []
        for i, j in _crossed(edges, breaks):
            block, missed = _cut_block(kernel, edges[i : i + 2], edges[j : j + 2], breaks, nodes)
            blocks[i, :, :, j] = block
            blocks[j, :, :, i] = block.transpose(2, 1, 0)
            lost += [missed] * (1 if i == j else 2)
        return Discretised(t, weights, matrix.reshape(size, -1), edges, nodes, np.array(lost))

    def singular_values(self) -> Array:
        """Decreasing, (n,): all N of a small matrix, those above rounding of a large one."""
        Q = self._range()
        if Q is None and len(self.matrix) == self.matrix.shape[1]:
            return np.sort(np.abs(np.linalg.eigvalsh(self.matrix)))[::-1]  # symmetric
        return np.asarray(np.linalg.svd(self.matrix if Q is None else Q.T @ self.matrix, compute_uv=False), np.float64)

    def eigenpairs(self) -> tuple[Array, Array]:
        """Eigenvalues (n,) and orthonormal eigenvectors (N, n) of a scalar kernel's operator: functions at the nodes times
        sqrt(w)."""
        Q = self._range()
        if Q is None:
            values, vectors = np.linalg.eigh(self.matrix)
            return values, vectors
        values, vectors = np.linalg.eigh(Q.T @ self.matrix @ Q)
        return values, Q @ vectors

    def _range(self) -> Array | None:
        """An orthonormal basis of the range of a large matrix, (N, n); None where the matrix is small, or has no small one.

        Source: Halko, Martinsson, Tropp, SIAM Rev. 53 (2011).
        """
        A, generator = self.matrix, np.random.default_rng(0)
        size, vectors = len(A), _VECTORS
        while size > _WHOLE and vectors < size // 2:
            # orthonormal in between, or the product would lose what is below the root of the precision
            Q, _ = np.linalg.qr(A.T @ generator.standard_normal((size, vectors)))
            Q, _ = np.linalg.qr(A @ Q)
            probe = A @ generator.standard_normal((A.shape[1], 4))
            if np.linalg.norm(probe - Q @ (Q.T @ probe)) <= _MISSED * np.linalg.norm(probe):
                return Q
            vectors *= 2
        return None


def _crossed(edges: Array, breaks: tuple[float, ...]) -> list[tuple[int, int]]:
    """Pairs i <= j of panels whose sums hold a jump or kink inside."""
    pairs = set()
    low, high = edges[:-1], edges[1:]
    for b in breaks:
        room = 1e-13 * b
        for i in np.flatnonzero(low < b):
            first = int(np.searchsorted(high, b - high[i] + room, side="right"))
            last = int(np.searchsorted(low, b - low[i] - room, side="left"))
            pairs |= {(min(int(i), j), max(int(i), j)) for j in range(first, last)}
    return sorted(pairs)


def _cut_block(kernel: Kernel, rows: Array, columns: Array, breaks: tuple[float, ...], nodes: int) -> tuple[Array, float]:
    """int int l_i(t) rho(t + s) l_j(s) dt ds / sqrt(w_i w_j) on one pair of panels, (nodes, d, nodes), and the L2 norm of what
    that projection leaves out."""
    x, w = gauss(nodes)
    inside = np.array([b for b in breaks if rows[0] + columns[0] < b < rows[1] + columns[1]])
    cuts = np.unique(np.clip(np.concatenate([rows, inside - columns[0], inside - columns[1]]), *rows))
    part = np.diff(cuts)
    t, t_weights = (cuts[:-1, None] + part[:, None] * x).ravel(), (part[:, None] * w).ravel()
    ends = np.sort(np.clip(inside - t[:, None], *columns), axis=1)
    ends = np.concatenate([np.full((t.size, 1), columns[0]), ends, np.full((t.size, 1), columns[1])], axis=1)
    part = np.diff(ends, axis=1)
    s, s_weights = ends[:, :-1, None] + part[..., None] * x, part[..., None] * w
    rho = kernel.values((t[:, None, None] + s).ravel()).reshape(t.size, -1, kernel.size)
    s, s_weights = s.reshape(t.size, -1), s_weights.reshape(t.size, -1)
    height, breadth = rows[1] - rows[0], columns[1] - columns[0]
    left = interpolation(nodes, (t - rows[0]) / height) / np.sqrt(height * w)
    right = interpolation(nodes, (s - columns[0]) / breadth) / np.sqrt(breadth * w)
    block = np.einsum("a,ai,aqd,aq,aqj->idj", t_weights, left, rho, s_weights, right, optimize=True)
    largest = max(float(np.abs(rho).max()), _TINY)  # the squares of large numbers would overflow
    whole = np.einsum("a,aqd,aq->", t_weights, (rho / largest) ** 2, s_weights)
    return block, largest * math.sqrt(max(whole - ((block / largest) ** 2).sum(), 0.0))
