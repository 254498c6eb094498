from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, combinations, perturb_bias

from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel
from odernn.models import build
from odernn.solvers import TorchDiffEq
from odernn.warm_start import widen

T = torch.linspace(0, 3, 6, dtype=F64)
X = torch.randn(4, 6, 2, dtype=F64)
STRUCTURES = sorted({(recurrence, f) for _, recurrence, f, _ in combinations()})


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_warm_start_keeps_the_answers_of_the_narrow_model(num_layers):
    for cls, recurrence, parameterization, activation in combinations((ContinuousRNN, StateSpaceModel)):
        if activation == "tanh":
            arguments = ("tanh", recurrence, parameterization)
            narrow = perturb_bias(cls(2, 4, 1, *arguments, num_layers=num_layers, dtype=F64))
            wide = cls(2, 8, 1, *arguments, num_layers=num_layers, seed=9, dtype=F64)
            widen(narrow, wide)
            # An adaptive solver would take other steps for the two.
            solver = TorchDiffEq("rk4", adjoint=False, check=False)
            assert torch.allclose(wide(X, T, solver=solver), narrow(X, T, solver=solver), atol=1e-10), arguments


@pytest.mark.slow
@pytest.mark.parametrize(("recurrence", "parameterization"), STRUCTURES)
@settings(max_examples=10, deadline=None)
@given(
    cls=st.sampled_from([ContinuousRNN, StateSpaceModel, DiscreteSSM]),
    half=st.integers(1, 3),
    more=st.integers(0, 3),
    num_layers=st.integers(1, 3),
    ensemble=st.sampled_from([(), (2,)]),
    seed=st.integers(0, 1000),
)
def test_the_first_units_move_as_those_of_the_narrow_model_wherever_the_others_are(
    recurrence, parameterization, cls, half, more, num_layers, ensemble, seed
):
    generator = torch.Generator().manual_seed(seed)
    m, M = 2 * half, 2 * (half + more)
    narrow, wide = (
        cls(2, size, 1, "tanh", recurrence, parameterization, num_layers=num_layers, ensemble=ensemble, seed=generator, dtype=F64)
        for size in (m, M)
    )
    with torch.no_grad():
        for weight in narrow.parameters():  # away from the start, where A and b are 0 and P is orthogonal
            weight += 0.3 * torch.randn(weight.shape, dtype=F64, generator=generator)
    widen(narrow, wide)
    h = torch.randn(*ensemble, 5, num_layers, M, dtype=F64, generator=generator)
    x = torch.randn(*ensemble, 5, 2, dtype=F64, generator=generator)
    few = h[..., :m].flatten(-2)
    ours, theirs = wide.field(), narrow.field()
    moved = ours(h.flatten(-2), x).unflatten(-1, (num_layers, M))[..., :m].flatten(-2)
    torch.testing.assert_close(moved, theirs(few, x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.readout(h.flatten(-2)), theirs.readout(few), rtol=1e-10, atol=1e-10)


def test_a_warm_start_needs_a_narrower_model_of_the_same_kind():
    with pytest.raises(ValueError, match="narrower"):
        widen(ContinuousRNN(1, 8, 1), ContinuousRNN(1, 4, 1))
    with pytest.raises(ValueError, match="activation"):
        widen(ContinuousRNN(1, 4, 1, "tanh"), ContinuousRNN(1, 8, 1, "relu"))


def test_a_run_of_an_earlier_version_widens_into_a_model_of_this_one():
    narrow = ContinuousRNN(1, 2, 1, "tanh", "symmetric", "exp", dtype=F64)
    earlier = build(narrow.config() | {"recurrence": "orthogonal"}, dtype=F64)
    widen(earlier, ContinuousRNN(1, 4, 1, "tanh", "symmetric", "exp", dtype=F64))
