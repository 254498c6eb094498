"""The effective state size: against Hankel singular values, ranks that are known, and the size of the state."""

from __future__ import annotations

import pytest
import torch
from scipy.linalg import solve_continuous_lyapunov
from torch import nn

from analysis import EffectiveStateSize, effective_state_size
from odernn import ContinuousRNN, DiscreteSSM, StateSpaceModel
from targets import inputs

F64 = torch.float64


def noise(count, batch=2, channels=1):
    return torch.randn(batch, count, channels, generator=torch.Generator().manual_seed(5), dtype=F64)


def test_of_a_linear_model_they_are_its_hankel_singular_values_whatever_drives_it():
    model = StateSpaceModel(1, 3, 1, "linear", "diagonal", "softplus", bias=False, seed=0, dtype=F64)
    with torch.no_grad():
        model.set_matrix(torch.diag(torch.tensor([-1.0, -2.0, -4.0], dtype=F64)))
    W, U, c = model.field().layers[0].W.to_dense(), model.field().layers[0].U, model.c
    W, U, c = (one.detach().numpy() for one in (W, U, c))
    P, Q = solve_continuous_lyapunov(W, -U @ U.T), solve_continuous_lyapunov(W.T, -c.T @ c)
    hankel = torch.linalg.eigvals(torch.from_numpy(P @ Q)).real.sqrt().sort(descending=True).values
    t = torch.linspace(0, 24, 481, dtype=F64)
    found = effective_state_size(model, t, 5 * noise(481), at=[12.0])
    assert torch.allclose(found.singular_values[:, 0, :3], hankel.expand(2, 3), rtol=5e-3, atol=1e-3 * float(hankel[0]))
    assert (found.rank == 3).all()


def test_the_rank_is_that_of_the_state_or_of_what_the_window_shows():
    model = DiscreteSSM(1, 3, 1, "linear", seed=0, dtype=F64)
    found = effective_state_size(model, torch.arange(10.0), noise(10), at=[1, 2, 5, 9])
    assert found.rank.tolist() == [[1, 2, 3, 1]] * 2
    shift = effective_state_size(lambda x: nn.functional.pad(x, (0, 0, 3, 0))[:, :-3], torch.arange(12.0), noise(12), at=[6])
    assert shift.rank.flatten().tolist() == [3, 3]
    # three directions that count alike
    assert torch.allclose(shift.entropy, torch.tensor(3.0, dtype=F64))


def test_no_network_has_more_directions_than_its_state():
    t = torch.linspace(0, 10, 21, dtype=F64)
    found = effective_state_size(ContinuousRNN(1, 4, 1, "tanh", seed=0, dtype=F64), t, inputs.white_noise(t, batch=2))
    assert int(found.rank.max()) <= 4
    assert (found.entropy <= found.rank + 1e-2).all()
    assert EffectiveStateSize.from_dict(found.to_dict()) == found


def test_a_system_without_memory_has_none():
    found = effective_state_size(lambda x: x**2, torch.arange(6.0), noise(6))
    assert not found.rank.any()
    assert not found.entropy.any()


@pytest.mark.parametrize("at", [[0.0], [0.5], [7.0], []])
def test_places_that_part_no_past_from_a_future_are_refused(at):
    with pytest.raises(ValueError, match="among the times"):
        effective_state_size(nn.RNN(1, 4, batch_first=True).double(), torch.arange(6.0), noise(6), at=at)


def test_too_few_times_and_a_senseless_tolerance_are_refused():
    with pytest.raises(ValueError, match="times"):
        effective_state_size(nn.RNN(1, 4, batch_first=True).double(), torch.arange(2.0), noise(2))
    with pytest.raises(ValueError, match="tolerance"):
        effective_state_size(nn.RNN(1, 4, batch_first=True).double(), torch.arange(6.0), noise(6), tolerance=0)
