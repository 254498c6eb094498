from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64

from odernn.norms import EUCLIDEAN, MAX, SPECTRAL, column

DUAL = {
    SPECTRAL: lambda G: torch.linalg.svdvals(G).sum(-1),
    EUCLIDEAN: lambda G: torch.linalg.vector_norm(G.flatten(1), dim=-1),
    MAX: lambda G: G.flatten(1).abs().sum(-1),
}


@pytest.mark.parametrize("norm", DUAL, ids=["spectral", "euclidean", "max"])
@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6)), seed=st.integers(0, 1000), size=st.sampled_from([1e-100, 1.0, 1e100])
)
def test_the_maximizer_lies_in_the_unit_ball_and_attains_the_dual_norm(norm, shape, seed, size):
    G = size * torch.randn(3, *shape, dtype=F64, generator=torch.Generator().manual_seed(seed))
    D = norm.maximizer(G)
    torch.testing.assert_close(norm(D), torch.ones(3, dtype=F64))
    torch.testing.assert_close((G * D).flatten(1).sum(-1), DUAL[norm](G), rtol=1e-10, atol=0)


@pytest.mark.parametrize("norm", DUAL, ids=["spectral", "euclidean", "max"])
@settings(max_examples=40, deadline=None)
@given(shape=st.tuples(st.integers(1, 5), st.integers(1, 5)), seed=st.integers(0, 1000), factor=st.floats(-1e3, 1e3))
def test_norms_are_norms(norm, shape, seed, factor):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(4, *shape, dtype=F64, generator=generator) for _ in range(2))
    torch.testing.assert_close(norm(factor * a), abs(factor) * norm(a))
    assert (norm(a + b) <= norm(a) + norm(b) + 1e-12).all()
    assert (norm(a / column(norm(a), a)) - 1).abs().max() < 1e-12


def test_a_gradient_of_zero_has_a_maximizer_in_the_ball():
    for norm in DUAL:
        D = norm.maximizer(torch.zeros(2, 3, 3, dtype=F64))
        assert torch.isfinite(D).all()
        assert (norm(D) <= 1 + 1e-12).all()
