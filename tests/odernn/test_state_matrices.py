from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64

from odernn.state_matrices import DenseMatrix, DiagonalMatrix, from_modes

KINDS = ("dense", "diagonal", "pairs")
SIZES = {"pairs": st.integers(1, 4), "ensemble": st.sampled_from([(), (1,), (3,), (2, 2)]), "seed": st.integers(0, 1000)}


def random_matrix(kind, pairs, ensemble, seed):
    """A W of size 2 * pairs, and the generator for more."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*ensemble, *shape, dtype=F64, generator=generator)

    m = 2 * pairs
    W = {"dense": lambda: DenseMatrix(draw(m, m)), "diagonal": lambda: DiagonalMatrix(draw(m))}
    return W.get(kind, lambda: DiagonalMatrix(draw(pairs), draw(pairs)))(), draw


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_applying_a_matrix_is_multiplying_by_its_dense_form(kind, pairs, ensemble, seed):
    W, draw = random_matrix(kind, pairs, ensemble, seed)
    h = draw(5, 2 * pairs)
    torch.testing.assert_close(W.apply(h), h @ W.to_dense().mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(**SIZES, shift=st.sampled_from([0.0, 1.0]))
def test_solving_undoes_multiplying(kind, pairs, ensemble, seed, shift):
    W, draw = random_matrix(kind, pairs, ensemble, seed)
    v = draw(2 * pairs)
    shifted = W.to_dense() - shift * torch.eye(2 * pairs, dtype=F64)
    back = (shifted @ W.solve(v, shift).unsqueeze(-1)).squeeze(-1)
    condition = float(torch.linalg.cond(shifted).max())
    torch.testing.assert_close(back, v, rtol=1e-12 * condition, atol=1e-12 * condition)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(**SIZES)
def test_the_eigenvalues_are_those_of_the_dense_form(kind, pairs, ensemble, seed):
    W, _ = random_matrix(kind, pairs, ensemble, seed)
    ours = W.eigenvalues()
    dense = W.to_dense().flatten(0, -3) if ensemble else W.to_dense().unsqueeze(0)
    for got, matrix in zip(ours.reshape(-1, 2 * pairs), dense):
        wanted = torch.linalg.eigvals(matrix).tolist()
        for value in got.tolist():  # each of ours takes away the nearest of theirs
            nearest = min(wanted, key=lambda z, value=value: abs(z - value))
            assert abs(nearest - value) < 1e-9
            wanted.remove(nearest)


@settings(max_examples=20, deadline=None)
@given(**SIZES)
def test_modes_and_states_are_each_others_inverse(pairs, ensemble, seed):
    for kind in ("diagonal", "pairs"):
        W, draw = random_matrix(kind, pairs, ensemble, seed)
        h = draw(5, 2 * pairs)
        assert torch.equal(from_modes(W.to_modes(h)), h)


@pytest.mark.parametrize("W", [DenseMatrix(torch.zeros(2, 2, dtype=F64)), DiagonalMatrix(torch.zeros(2, dtype=F64))])
def test_a_singular_matrix_solves_for_zero_alone(W):
    assert torch.equal(W.solve(torch.zeros(2, dtype=F64)), torch.zeros(2, dtype=F64))
    assert math.isnan(W.solve(torch.ones(2, dtype=F64))[0])
