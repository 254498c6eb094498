"""The states at which a vector field vanishes."""

from __future__ import annotations

import pytest
import torch
from problems import F64, combinations, perturb_bias

from odernn import ContinuousRNN, StateSpaceModel

X = torch.tensor([[1.0, -0.5], [0.0, 0.0], [-2.0, 0.3]], dtype=F64)


@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("ensemble", [(), (2,)])
def test_nothing_moves_at_the_steady_state_of_a_constant_input(num_layers, ensemble):
    for cls, recurrence, parameterization, activation in combinations():
        model = cls(
            2, 4, 1, activation, recurrence, parameterization, num_layers=num_layers, ensemble=ensemble, seed=0, dtype=F64
        )
        field = perturb_bias(model).field()
        h = field.steady_state(X)
        assert h.shape == (*ensemble, 3, 4 * num_layers)
        if cls is ContinuousRNN and activation in ("relu", "sigmoid"):
            assert h.isnan().all()  # none, or many
        else:
            assert torch.allclose(field(h, X), torch.zeros_like(h), atol=1e-10)
            assert torch.allclose(h[..., 1, :], field.rest_state(), atol=1e-12)


def test_a_singular_matrix_has_no_steady_state_under_an_input():
    model = StateSpaceModel(2, 2, 1, "linear", bias=False, dtype=F64)
    model.set_matrix(torch.tensor([[-1.0, 1.0], [1.0, -1.0]]))
    h = model.field().steady_state(X)
    assert h[[0, 2]].isnan().all()
    assert (h[1] == 0).all()  # without a drive 0 rests all the same
