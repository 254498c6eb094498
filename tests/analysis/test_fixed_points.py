"""Fixed points against closed forms, among them the phase plane of [IA] Fig 11b."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from analysis.fixed_points import fixed_points
from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel

DOUBLE = torch.float64
W = torch.tensor([[1.0, 1.0], [-4.0, -3.0]], dtype=DOUBLE)


@pytest.mark.parametrize("model", [ContinuousRNN, StateSpaceModel])
def test_a_linear_system_rests_at_the_solution_of_its_equation_with_the_spectrum_of_w(model):
    model = model(1, 4, 1, activation="linear", seed=1, dtype=DOUBLE)
    with torch.no_grad():
        model.layers[0].b.normal_()
    x = torch.tensor([0.7], dtype=DOUBLE)
    found = fixed_points(model, x=x, starts=5)
    layer = model.layers[0].effective()
    expected = torch.linalg.solve(layer.W.W, -(layer.U @ x + layer.b)).detach()
    torch.testing.assert_close(found.points, expected.unsqueeze(0))
    torch.testing.assert_close(
        found.spectra[0].real.sort().values, model.spectrum().real.detach().sort().values, rtol=1e-9, atol=1e-12
    )
    assert found.stability == ("stable",)
    assert found.lost == 0


def test_a_map_rests_where_it_stays():
    model = DiscreteSSM(1, 3, 1, activation="linear", recurrence="diagonal", seed=1, dtype=DOUBLE)
    with torch.no_grad():
        model.layers[0].b.normal_()
    found = fixed_points(model)
    torch.testing.assert_close(found.points[0], model.rest_state().detach())
    assert found.stability == ("stable",)


def test_the_three_states_of_a_bistable_neuron_are_found_with_their_spectra():
    """dh/dt = -h + tanh(w h), w = 2: h = 0 (rate w - 1) and the roots of h = tanh(2 h)."""
    found = fixed_points(lambda h: -h + torch.tanh(2 * h), size=1)
    assert found.points.shape == (3, 1)
    root = float(found.points[1].abs())
    assert root == pytest.approx(math.tanh(2 * root), abs=1e-12)
    torch.testing.assert_close(found.points[2].abs(), found.points[1].abs())
    assert found.stability == ("unstable", "stable", "stable")
    assert found.spectra[0, 0].real == pytest.approx(1.0)
    assert found.spectra[1, 0].real == pytest.approx(-1 + 2 * (1 - root**2))
    assert int(found.basins.sum()) == 65


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_torch_module_rests_where_a_long_silence_leads(kind):
    module = getattr(torch.nn, kind)(2, 4, 2, batch_first=True, dtype=DOUBLE)
    found = fixed_points(module, starts=8)
    with torch.no_grad():
        _, state = module(torch.zeros(1, 500, 2, dtype=DOUBLE))
    state = torch.cat([part[:, 0].flatten() for part in (state if kind == "LSTM" else (state,))])
    torch.testing.assert_close(found.points[0], state, rtol=0, atol=1e-10)
    assert found.stability[0] == "stable"
    assert float(found.spectra[0].abs().max()) < 1


def test_random_starts_fill_a_cube_round_the_rest_state_that_the_seed_draws():
    """sin h = 0 at every multiple of pi."""
    near, far, again, other = (
        fixed_points(torch.sin, size=1, scale=scale, seed=seed, starts=16) for scale, seed in ((1, 0), (20, 0), (20, 0), (20, 1))
    )
    assert near.points.tolist() == [[0.0]]
    assert near.basins.tolist() == [17]
    assert len(far.points) > 5
    assert far == again
    assert far != other


def test_the_step_of_a_discrete_rnn_moves_its_spectrum_and_not_its_fixed_points():
    model = DiscreteRNN(1, 2, 1, "tanh", "diagonal", seed=0, dtype=DOUBLE)
    model.set_matrix(torch.diag(torch.tensor([-1.0, -3.0], dtype=DOUBLE)))
    for dt, stability in ((0.1, "stable"), (1.0, "unstable")):
        found = fixed_points(model, dt=dt, starts=3)
        torch.testing.assert_close(found.points, torch.zeros(1, 2, dtype=DOUBLE))
        expected = 1 - dt * torch.tensor([1.0, 3.0], dtype=DOUBLE)
        torch.testing.assert_close(found.spectra[0].real.sort(descending=True).values, expected)
        assert found.stability == (stability,)


def _velocity(v):
    """dv/dt of v = dh/dt = tanh(W h)."""
    return (1 - v**2) * (v @ W.T)


def test_the_phase_plane_of_figure_11b_has_one_stable_point_and_its_corners_are_saddles():
    """[IA] Fig 11b names (0, 0), (1, 1) and (-1, -1) as attractors. The linearisation says more: at (1, 1) and (-1, -1) dv/dt
    contracts along the edge v_2 = +-1 (rate -4) and expands across it (rate 14), so they attract what is *on* that edge."""
    grid = torch.linspace(-1.2, 1.2, 9, dtype=DOUBLE)
    found = fixed_points(_velocity, size=2, starts=torch.cartesian_prod(grid, grid))
    points = {tuple(p): k for k, p in enumerate(found.points.round(decimals=3).add(0.0).tolist())}
    inside = {p for p in points if max(map(abs, p)) <= 1}
    assert inside == {(0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1)}
    assert found.stability[points[0, 0]] == "stable"
    torch.testing.assert_close(found.spectra[points[0, 0]].real, torch.tensor([-1.0, -1.0], dtype=DOUBLE), rtol=0, atol=1e-5)
    for corner in ((1, 1), (-1, -1)):
        torch.testing.assert_close(found.spectra[points[corner]].real, torch.tensor([14.0, -4.0], dtype=DOUBLE))
    for corner in ((1, -1), (-1, 1)):
        torch.testing.assert_close(found.spectra[points[corner]].real, torch.tensor([0.0, -2.0], dtype=DOUBLE))


def _run(h0, horizon, sign=1.0, **options):
    """h along dh/dt = sign tanh(W h)... in u = W h, by SciPy."""
    A = W.numpy()
    return solve_ivp(lambda _, u: sign * A @ np.tanh(u), (0, horizon), h0, method="DOP853", rtol=1e-11, atol=1e-12, **options)


def test_the_phase_plane_of_figure_11b_has_a_periodic_orbit_between_its_attractors():
    def crosses(_, u):
        return u[0]

    crosses.direction = -1
    # the orbit repels, so backwards in time it attracts
    backward = _run([0.5, 0.0], 400, sign=-1.0, events=crosses)
    crossings = backward.t_events[0]
    assert np.diff(crossings)[-3:] == pytest.approx(26.3207, abs=1e-3)
    on_the_orbit = backward.y_events[0][-1]
    assert on_the_orbit[1] == pytest.approx(5.37528, abs=1e-4)
    once_round = _run(on_the_orbit, np.diff(crossings)[-1])
    np.testing.assert_allclose(once_round.y[:, -1], on_the_orbit, atol=1e-6)
    # inside it everything dies out; outside it |v| comes ever closer to the edge of the square
    inner, outer = _run(0.8 * on_the_orbit, 200), _run(1.2 * on_the_orbit, 200)
    assert np.abs(np.tanh(inner.y[:, -1])).max() < 1e-8
    late = np.tanh(np.abs(outer.y[:, outer.t > 50]).max(0))
    assert late.min() > 0.99


def test_bad_input_is_refused_with_the_reason():
    with pytest.raises(ValueError, match="no state equation"):
        fixed_points(3)
    with pytest.raises(ValueError, match="bidirectional"):
        fixed_points(torch.nn.GRU(1, 2, bidirectional=True))
    with pytest.raises(ValueError, match="ensemble"):
        fixed_points(ContinuousRNN(1, 2, 1, ensemble=(2,)))
    with pytest.raises(ValueError, match="x must be"):
        fixed_points(torch.nn.GRU(1, 2), x=torch.zeros(2))
    with pytest.raises(ValueError, match="starts must be"):
        fixed_points(torch.nn.GRU(1, 2), starts=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="expected the same shape"):
        fixed_points(lambda h: h.sum(), size=2)
