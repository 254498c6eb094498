from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from problems import F64, linear_kernel

from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, LeakyRNN, NeuralODE, StateSpaceModel, initialize
from odernn.recurrences import RECURRENCES
from odernn.spectra import SPECTRA, of_eigenvalues, spectrum
from odernn.warm_start import spread_rates

REAL, PAIRS, FULL = (
    {"geometric", "linear", "log_uniform", "s4d_real"},
    {"s4d_lin", "s4d_inv", "s4d_legs", "lru"},
    {"hippo_legs", "hippo_legs_normal"},
)


def sorted_spectrum(values):
    return np.sort_complex(np.asarray(values).round(7))


def model(recurrence="complex", parameterization="exp", cls=StateSpaceModel, m=6, **options):
    parameterization = "direct" if recurrence == "dense" else parameterization
    return cls(1, m, 1, "linear", recurrence, parameterization, seed=0, dtype=F64, **options)


def holds(recurrence, name):
    if recurrence == "dense":
        return True
    if recurrence == "lru":  # frequencies above 0
        return name in PAIRS - {"s4d_lin"} | {"geometric"}
    return name in REAL | (PAIRS if recurrence == "complex" else set())


@pytest.mark.parametrize("recurrence", sorted(RECURRENCES))
@pytest.mark.parametrize("name", sorted(SPECTRA))
def test_a_recurrence_takes_a_spectrum_or_says_in_a_line_that_it_cannot(recurrence, name):
    if recurrence not in ("dense", "diagonal", "symmetric", "free_basis", "complex", "lru"):
        pytest.skip("of another test")
    one = model(recurrence, num_layers=2)
    before = {key: value.clone() for key, value in one.state_dict().items()}
    if not holds(recurrence, name):
        with pytest.raises(ValueError, match=f"spectrum '{name}' .*recurrence") as caught:
            initialize(one, name, horizon=20.0)
        assert "\n" not in str(caught.value)
        assert all((value == before[key]).all() for key, value in one.state_dict().items())
        return
    initialize(one, name, horizon=20.0, seed=3)
    found = one.spectrum().detach().unflatten(-1, (2, 6)).numpy()
    if name == "geometric":
        again = model(recurrence, num_layers=2)
        spread_rates(again, 20.0)
        assert all((value == again.state_dict()[key]).all() for key, value in one.state_dict().items())
    elif not SPECTRA[name].drawn:
        expected = spectrum(name, 6, horizon=20.0, pairs=recurrence == "complex").eigenvalues
        for layer in found:
            # The eigenvalues of the full matrix are known to a root of the rounding.
            np.testing.assert_allclose(sorted_spectrum(layer), sorted_spectrum(expected), atol=1e-6)
    else:
        assert (sorted_spectrum(found[0]) != sorted_spectrum(found[1])).any()
    assert float(one.stability_margin().detach()) > 0


@pytest.mark.parametrize(("recurrence", "name"), [("complex", "s4d_legs"), ("diagonal", "s4d_real"), ("dense", "hippo_legs")])
@pytest.mark.parametrize("parameterization", ["exp", "lru"])
def test_the_states_are_those_of_the_paper_with_its_own_input(recurrence, name, parameterization):
    one, found, t = model(recurrence, parameterization), spectrum(name, 6, horizon=20.0), torch.linspace(0, 30, 7, dtype=F64)
    initialize(one, name, horizon=20.0)
    expected = torch.linalg.matrix_exp(t[:, None, None] * torch.from_numpy(found.matrix)) @ torch.from_numpy(found.input)
    with torch.no_grad():
        for row in range(6):
            one.c.zero_()
            one.c[0, row] = 1.0
            torch.testing.assert_close(linear_kernel(one, t)[:, 0, 0], expected[:, row], rtol=1e-10, atol=1e-12)


def test_a_leaky_model_takes_a_spectrum_of_its_rates():
    one = LeakyRNN(1, 4, 1, "linear", "diagonal", "exp", tau=0.2, seed=0, dtype=F64)
    initialize(one, "s4d_real", horizon=20.0)
    layer = one.layer_weights[0].effective()
    np.testing.assert_allclose(one.spectrum().detach().real, -np.arange(1, 5) / 20, rtol=1e-12)
    np.testing.assert_allclose(layer.U.detach(), 1 / 20, rtol=1e-12)


def test_inputs_of_their_own_go_into_layers_of_one_input_alone():
    one = model(num_layers=2)
    U = [layer.U.clone() for layer in one.layer_weights]
    initialize(one, "s4d_lin", horizon=20.0)
    assert (U[0] != one.layer_weights[0].U).all()
    assert (U[1] == one.layer_weights[1].U).all()
    wide = StateSpaceModel(2, 4, 1, "linear", "complex", "exp", seed=0, dtype=F64)
    before = wide.layer_weights[0].U.clone()
    initialize(wide, "s4d_lin", horizon=20.0)
    assert (before == wide.layer_weights[0].U).all()


def test_in_discrete_time_the_input_is_held_from_sample_to_sample():
    one, found, step = model(cls=DiscreteSSM), spectrum("s4d_inv", 6, horizon=20.0), 0.25
    initialize(one, "s4d_inv", horizon=20.0, step=step)
    np.testing.assert_allclose(
        sorted_spectrum(one.spectrum().detach()), sorted_spectrum(np.exp(step * found.eigenvalues)), rtol=1e-6
    )
    A, B = torch.from_numpy(found.matrix), torch.from_numpy(found.input)
    held = torch.linalg.solve(A, (torch.linalg.matrix_exp(step * A) - torch.eye(6, dtype=F64)) @ B)
    torch.testing.assert_close(one.layer_weights[0].effective().U.detach()[:, 0], held)


def test_members_of_an_ensemble_draw_their_own_modes_and_share_the_others():
    one = model(ensemble=(2, 3))
    initialize(one, "lru", seed=1)
    found = one.spectrum().detach().flatten(0, 1)
    assert len({tuple(sorted_spectrum(row)) for row in found}) == 6
    initialize(one, "s4d_inv", horizon=9.0)
    found = one.spectrum().detach().flatten(0, 1)
    assert len({tuple(sorted_spectrum(row)) for row in found}) == 1


def test_the_recurrence_of_the_lru_normalises_the_input_for_its_new_modes():
    one = model("lru", cls=DiscreteSSM)
    initialize(one, "lru", seed=1)
    recurrence = one.layer_weights[0].recurrence
    moduli = one.spectrum().detach().abs()[::2]
    torch.testing.assert_close(recurrence.gamma_log.detach().exp(), (1 - moduli**2).sqrt())


def test_the_parameterisation_bounds_what_is_spread_and_refuses_what_is_published():
    one = model("diagonal", "lru")  # rates below 1
    initialize(one, "linear", horizon=20.0)
    rates = -one.spectrum().detach().real
    assert rates.min() == pytest.approx(0.05)
    assert 0.9 < rates.max() < 1
    with pytest.raises(ValueError, match=r"spectrum 's4d_real' .*parameterization 'lru'"):
        initialize(one, "s4d_real", horizon=2.0)
    assert (rates == -one.spectrum().detach().real).all()


def test_euler_steps_that_grow_are_refused():
    one = model(cls=DiscreteRNN)
    with pytest.raises(ValueError, match=r"grow by .* in each Euler step"):
        initialize(one, "s4d_inv", horizon=10.0, step=1.0)
    initialize(one, "s4d_inv", horizon=1000.0, step=1e-3)


def test_modes_of_ones_own_and_spectra_go_in_as_they_are():
    one = model("diagonal")
    initialize(one, [-0.1, -0.2, -0.3, -0.4, -0.5, -0.6])
    np.testing.assert_allclose(-one.spectrum().detach().real, np.arange(1, 7) / 10)
    initialize(one, spectrum("s4d_real", 6, horizon=5.0).scaled(2.0))
    np.testing.assert_allclose(-one.spectrum().detach().real, np.arange(1, 7) * 0.4)
    pairs = model("complex")
    initialize(pairs, torch.tensor([-1 + 2j, -1 - 2j, -2 + 0j, -2 + 0j, -3 + 1j, -3 - 1j], dtype=torch.complex128))
    assert float(pairs.spectrum().detach().imag.abs().max()) == pytest.approx(2)


def test_weights_keep_their_precision():
    one = StateSpaceModel(1, 6, 1, "linear", "complex", "exp", seed=0, dtype=torch.float32)
    initialize(one, "s4d_legs", horizon=20.0)
    assert {weight.dtype for weight in one.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: initialize(model(), "s4d_lin"), "give horizon=T"),
        (lambda: initialize(model(), "random", horizon=9.0), "s4d_lin"),
        (lambda: initialize(model(), "s4d_lin", horizon=math.inf), "horizon"),
        (lambda: initialize(model(), "lru", step=0.0), "step"),
        (lambda: initialize(model(), "lru", seed=-1), "seed"),
        (lambda: initialize(model(), [-1.0], horizon=None), "1 modes"),
        (lambda: initialize(model(), [-1.0], horizon=9.0), "leave it out"),
        (lambda: initialize(model(), of_eigenvalues([1.0] * 6)), "recurrence|parameterization"),
        (lambda: initialize("rnn", "lru"), "model"),
        (lambda: initialize(model("dense", m=5), "s4d_lin", horizon=9.0), "even"),
        (lambda: initialize(NeuralODE(lambda t, h, x: x - h, 1), "s4d_lin", horizon=9.0), "NeuralODE"),
    ],
)
def test_bad_input_is_said_in_a_line(call, said):
    with pytest.raises(ValueError, match=said) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_first_model_of_the_default_kind_takes_every_spectrum():
    for name in SPECTRA:
        one = ContinuousRNN(1, 16, 1)
        initialize(one, name, horizon=10.0)
        assert one.c.dtype == torch.float32
