"""The figures about memory functions: S4D against its plain recurrence, the phase plane by other routes, and that claims hold."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.integrate import solve_ivp

from analysis.memory import memory_function
from analysis.papers import figures
from analysis.papers.compute.memory_bands import band, verdict
from analysis.papers.compute.phase_plane import equilibria, leaving_the_edge, periodic_orbit
from analysis.papers.compute.random_networks import network, settled_rates
from analysis.papers.compute.s4d import S4D, STEPS
from analysis.papers.engine.figure import Options
from odernn import json_values

W = [[1.0, 1.0], [-4.0, -3.0]]
DOUBLE = torch.float64


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Data and picture of a figure from those of its quick jobs that have at most so many layers, with one seed."""

    def compute(name, layers=4):
        figure = figures()[name]
        results = []
        for job in figure.jobs(Options(quick=True)):
            if job.settings.get("layers", 1) <= layers:
                if "seeds" in job.settings:
                    # Of seed 0 the GRU is no plain exponential at |x| = 10.
                    job = replace(job, settings={**job.settings, "seeds": [1]})
                result = json_values.decode(json_values.encode(job.compute(**job.settings)))
                results.append((job, result))
        data = json_values.decode(json_values.encode(figure.assemble(results)))
        path = tmp_path_factory.mktemp(name) / "picture.png"
        figure.plot(data, path)
        return figure, data, path

    return compute


@pytest.mark.slow
@pytest.mark.parametrize(("name", "layers"), [("ia-10", 1), ("ia-11a", 1), ("ia-11b", 1), ("ssm-depth", 2)])
def test_a_quick_run_holds_its_claims_and_leaves_a_picture_and_a_table(drawn, name, layers):
    figure, data, path = drawn(name, layers)
    outcomes = {claim.statement: claim.outcome for claim in figure.claims(data)}
    assert "failed" not in outcomes.values(), outcomes
    differing = [statement.partition(" (fails")[0] for statement, outcome in outcomes.items() if outcome == "differs"]
    assert differing == (["(1, 1) and (-1, -1) attract"] if name == "ia-11b" else [])
    assert min(imread(path).shape[:2]) > 300
    if figure.rows is not None:
        assert len(figure.rows(data)) >= layers
    text = figure.findings if isinstance(figure.findings, str) else figure.findings(data)
    assert "nan" not in text


# --- S4D ---------------------------------------------------------------------------------------------------


def _plain_s4d(net, x):
    """The recurrence z_k = e^{Delta A} z_{k-1} + B_bar u_k in complex numbers, sample by sample."""
    u = x @ net.encoder.mT
    for layer in net.blocks:
        weights = layer.ssm.layer_weights[0]
        # Delta A and Delta B; per channel (H, n / 2)
        A = torch.complex(-weights.recurrence.w.exp(), weights.recurrence.omega)
        B = torch.view_as_complex(weights.U.reshape(*A.shape, 2))
        C = torch.view_as_complex(layer.ssm.c.reshape(*A.shape, 2)).conj()
        decay, gain = A.exp(), (A.exp() - 1) / A * B
        z = torch.zeros(u.shape[0], *A.shape, dtype=torch.complex128)
        outputs = []
        for u_k in u.unbind(1):
            z = decay * z + gain * u_k.unsqueeze(-1)
            outputs.append((C * z).real.sum(-1) + layer.D * u_k)
        u = u + torch.nn.functional.gelu(torch.stack(outputs, 1)) @ layer.V.mT
    return u


def test_s4d_is_the_plain_complex_recurrence():
    net = S4D(2, 5, 3, states=6, seed=1)
    x = torch.randn(3, 40, 2, dtype=DOUBLE)
    with torch.no_grad():
        torch.testing.assert_close(net(x), _plain_s4d(net, x), rtol=1e-11, atol=1e-11)


def test_s4d_has_the_spectrum_of_s4d_lin_and_steps_within_its_range():
    layer = S4D(1, 7, states=8, seed=3).blocks[0]
    weights = layer.ssm.layer_weights[0]
    step = 2 * weights.recurrence.w.exp().detach()
    assert (step >= STEPS[0]).all()
    assert (step <= STEPS[1]).all()
    expected = step * torch.complex(torch.full_like(step, -0.5), math.pi * torch.arange(4.0, dtype=DOUBLE).expand_as(step))
    torch.testing.assert_close(weights.recurrence.state_matrix().eigenvalue.detach(), expected)
    x = torch.ones(1, 5, 1, dtype=DOUBLE)
    assert torch.equal(S4D(1, 7, states=8, seed=3)(x), S4D(1, 7, states=8, seed=3)(x))


def test_one_s4d_layer_in_its_small_signal_regime_has_the_kernel_of_its_modes():
    """gelu'(0) = 1/2: H_t(i^x) -> (delta + V (K + D delta) / 2) encoder, K_k = sum Re(C B_bar e^{A k})."""
    net = S4D(1, 4, 1, states=6, seed=0)
    layer = net.blocks[0]
    weights = layer.ssm.layer_weights[0]
    A = torch.complex(-weights.recurrence.w.exp(), weights.recurrence.omega)
    C = torch.view_as_complex(layer.ssm.c.reshape(*A.shape, 2)).conj()
    k = torch.arange(30, dtype=DOUBLE)
    B = torch.view_as_complex(weights.U.reshape(*A.shape, 2))
    K = ((C * (A.exp() - 1) / A * B).unsqueeze(-1) * (A.unsqueeze(-1) * k).exp()).real.sum(1)  # (H, time)
    K[:, 0] += layer.D
    response = 0.5 * layer.V @ (K * net.encoder)
    response[:, 0] += net.encoder[:, 0]
    M = memory_function(net, k, probe="impulse", amplitudes=[1e-6])
    torch.testing.assert_close(M.values, torch.linalg.vector_norm(response.detach(), dim=0), rtol=1e-4, atol=1e-8)


# --- bands and rates ---------------------------------------------------------------------------------------


def test_networks_are_known_by_their_seed_and_leave_the_global_generator_alone():
    state = torch.random.get_rng_state()
    first, again, other = (network("GRU", 4, 2, 0, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters()))
    assert not torch.equal(first.weight_hh_l0, other.weight_hh_l0)


def test_a_band_is_the_mean_of_logarithms_while_every_member_is_above_its_floor():
    times = torch.arange(120, dtype=DOUBLE)
    memories = [memory_function(network("RNN", 8, 1, 0, seed), times, amplitudes=[1.0], warmup=50) for seed in range(3)]
    found = band(memories)
    assert found["times"][-1] == min(int((~M.above_floor).int().argmax()) for M in memories) - 1
    expected = np.log10(np.stack([M.values.numpy() for M in memories])[:, found["times"].astype(int)])
    np.testing.assert_allclose(found["mean"], expected.mean(0))
    np.testing.assert_allclose(found["deviation"], expected.std(0, ddof=1))
    assert verdict(memories[0])["law"] == "exponential"
    assert verdict(memories[0], start=5.0)["window"][0] >= 5


def test_a_band_starts_where_the_input_has_passed_all_layers():
    def late(x):
        return torch.nn.functional.pad(x, (0, 0, 3, 0))[:, :-3].cumsum(1).tanh()

    delayed = memory_function(late, torch.arange(9, dtype=DOUBLE))
    assert band([delayed])["times"][0] == 3


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_settled_rates_are_how_fast_two_states_of_a_module_meet(kind):
    """The Jacobian's spectral radius against the distance of two runs of the module itself, with and without input."""
    rates = settled_rates(kind, 6, [2.0], 300, [0])["rates"]
    assert [rate["amplitude"] for rate in rates] == [0.0, 2.0]
    module = network(kind, 6, 1, 0, 0)
    found = []
    for x in (0.0, 2.0, -2.0):
        late = torch.full((1, 400, 1), x, dtype=DOUBLE)
        late = late.repeat(2, 1, 1)
        late[1, :300] += 0.3
        with torch.no_grad():
            y = module(late)[0]
        distance = torch.linalg.vector_norm(y[1] - y[0], dim=-1)[300:]
        usable = ((distance > 1e-13) & (distance < 1e-4 * distance[0])).nonzero().squeeze(-1)
        slope = np.polyfit(usable.numpy(), distance[usable].log().numpy(), 1)[0]
        found.append(-slope)
    # A pair of complex eigenvalues turns: the slope over a window is that far from its mean.
    assert rates[0]["rate"] == pytest.approx(found[0], rel=0.1)
    assert rates[1]["rate"] == pytest.approx(min(found[1:]), rel=0.1)


# --- the phase plane ---------------------------------------------------------------------------------------


def test_the_corners_of_figure_11b_have_the_eigenvalues_of_the_closed_form():
    """At a corner v_i = +-1 the Jacobian of (1 - v^2) (W v) is diagonal: -2 v_i (W v)_i."""
    points = {tuple(point["v"]): point for point in equilibria(W)["points"]}
    assert set(points) == {(0, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)}
    for corner in [corner for corner in points if any(corner)]:
        expected = sorted(-2 * np.array(corner) * (np.array(W) @ corner), reverse=True)
        np.testing.assert_allclose(points[corner]["eigenvalues"], expected, atol=1e-9)
    assert points[0, 0]["stability"] == "stable"
    assert points[1, 1]["stability"] == points[-1, -1]["stability"] == "unstable"


def test_the_orbit_closes_and_repels():
    orbit = periodic_orbit(W, 50)
    assert orbit["period"] == pytest.approx(26.3207, abs=1e-3)
    np.testing.assert_allclose(orbit["v"][0], orbit["v"][-1], atol=1e-6)
    np.testing.assert_allclose(orbit["v"][0], [0, math.tanh(orbit["crossing"])], atol=1e-12)
    assert orbit["multiplier_return"] == pytest.approx(orbit["multiplier_divergence"], rel=1e-5)
    assert orbit["multiplier_return"] > 1


def test_the_edge_is_left_unless_rounding_hides_the_distance():
    routes = leaving_the_edge(W, 0.9, 1e-30, 6.0, 1200)
    np.testing.assert_allclose(routes["digits"]["distance"], routes["u"]["distance"], rtol=1e-4)
    assert routes["v"]["left"] is None
    assert not np.any(routes["v"]["distance"])
    # A distance that float64 resolves: all three routes agree, and so does SciPy in v.
    near = leaving_the_edge(W, 0.9, 1e-6, 2.0, 1600)
    np.testing.assert_allclose(near["v"]["distance"], near["u"]["distance"], rtol=1e-6)
    A = np.array(W)
    run = solve_ivp(lambda _, v: (1 - v**2) * (A @ v), (0, near["times"][-1]), [0.9, 1 - 1e-6], rtol=1e-11, atol=1e-14)
    assert 1 - run.y[1, -1] == pytest.approx(near["u"]["distance"][-1], rel=1e-4)
