"""Probes of discrete models and torch modules against powers of their matrices and their own outputs."""

from __future__ import annotations

import pytest
import torch

from analysis.memory import memory_function
from analysis.probes import PROBES
from odernn import DiscreteRNN, DiscreteSSM
from targets import Functional

DOUBLE = torch.float64


@pytest.mark.parametrize("probe", PROBES)
def test_linear_maps_have_the_memory_of_their_powers(probe):
    steps = torch.arange(30, dtype=DOUBLE)
    model = DiscreteSSM(2, 4, 1, activation="linear", recurrence="diagonal", seed=1, dtype=DOUBLE)
    layer = model.layers[0].effective()
    powers = torch.stack([torch.linalg.matrix_power(layer.W.to_dense(), k) for k in range(30)])
    expected = (model.c @ powers @ layer.U).abs().sum((-1, -2)).detach()
    torch.testing.assert_close(memory_function(model, steps, probe=probe).values, expected, rtol=0, atol=1e-8)
    euler = DiscreteRNN(1, 4, 1, activation="linear", seed=1, dtype=DOUBLE)
    layer = euler.layers[0].effective()
    step = torch.eye(4, dtype=DOUBLE) + 0.1 * layer.W.to_dense()
    powers = torch.stack([torch.linalg.matrix_power(step, k) for k in range(30)])
    expected = (euler.c @ powers @ layer.U).abs().sum((-1, -2)).detach()
    torch.testing.assert_close(memory_function(euler, 0.1 * steps, probe=probe).values, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("probe", ["heaviside", "impulse"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_a_torch_module_has_the_memory_of_its_outputs(kind, batch_first, probe):
    module = getattr(torch.nn, kind)(2, 7, 2, batch_first=batch_first, dropout=0.5, dtype=DOUBLE)
    x = torch.tensor([1.0, -1.0], dtype=DOUBLE)
    M = memory_function(module, torch.arange(12), probe=probe, amplitudes=[1.0], directions=x.unsqueeze(0))
    assert module.training  # evaluated without dropout, left as it was
    module.eval()
    on = torch.ones(12, 1, dtype=DOUBLE)
    if probe == "impulse":
        on[1:] = 0
    drive = torch.stack([on * x, 0 * on * x], 0 if batch_first else 1)
    y = module(drive)[0] if batch_first else module(drive)[0].transpose(0, 1)
    y = (y[0] - y[1]).detach()
    expected = y if probe == "impulse" else torch.cat([y[:1], y.diff(dim=0)])
    torch.testing.assert_close(M.values, torch.linalg.vector_norm(expected, dim=-1), rtol=1e-10, atol=1e-14)


def test_memory_is_a_rate_so_that_a_finer_sample_time_only_rescales_it():
    module = torch.nn.GRU(1, 5, dtype=DOUBLE)
    unit = memory_function(module, torch.arange(10.0))
    tenth = memory_function(module, 0.1 * torch.arange(10.0))
    torch.testing.assert_close(tenth.values, 10 * unit.values, rtol=1e-5, atol=0)
    spaced = memory_function(module, torch.tensor([0.0, 1.0, 4.0, 9.0]), dt=1.0)
    torch.testing.assert_close(spaced.values, unit.values[[0, 1, 4, 9]])


def test_warmup_of_a_module_runs_it_without_input_first():
    module = torch.nn.LSTM(1, 6, batch_first=True, dtype=DOUBLE)
    M = memory_function(module, torch.arange(8), warmup=50, amplitudes=[1.0], directions=torch.ones(1, 1))
    x = torch.zeros(2, 58, 1, dtype=DOUBLE)
    x[0, 50:] = 1
    D = (module(x)[0][0] - module(x)[0][1]).detach()
    torch.testing.assert_close(M.values, torch.linalg.vector_norm(D[50:] - D[49:-1], dim=-1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
@pytest.mark.parametrize("probe", PROBES)
def test_the_floor_lies_above_the_plateau_of_rounding_but_not_far_above(kind, dtype, probe):
    module = getattr(torch.nn, kind)(1, 64, batch_first=True, dtype=dtype)
    M = memory_function(module, torch.arange(150, dtype=dtype), probe=probe, amplitudes=[1.0], warmup=60)
    plateau = float(M.values[100:].max())
    assert plateau <= float(M.floor)
    # some 55 usable steps in double and 16 in single precision, by the prototypes of this project
    assert int(M.above_floor.sum()) >= (55 if dtype == torch.float64 else 16)
    assert float(M.floor) < 100 * torch.finfo(dtype).eps


def test_an_output_in_half_precision_has_the_floor_of_half_precision():
    M = memory_function(lambda x: x.cumsum(1).half(), torch.arange(5, dtype=torch.float64))
    assert M.floor > 1e-3


@pytest.mark.parametrize("options", [{"warmup": 1e30}, {"probe": "reversed", "hold": 1e30}])
def test_more_samples_than_any_memory_holds_are_refused(options):
    with pytest.raises(ValueError, match="samples of dt"):
        memory_function(torch.nn.GRU(1, 2), torch.arange(5, dtype=torch.float32), **options)


def test_a_functional_without_a_known_rate_is_read_from_its_samples():
    class Integral(Functional):
        """int_0^t x, whose rate is x."""

        def _respond(self, x, t):
            areas = (x[..., 1:, :] + x[..., :-1, :]) / 2 * t.to(x).diff().unsqueeze(-1)
            return torch.nn.functional.pad(areas.cumsum(-2), (0, 0, 1, 0))

    torch.testing.assert_close(
        memory_function(Integral(), torch.linspace(0, 20, 81, dtype=DOUBLE)).values, torch.ones(81, dtype=DOUBLE)
    )
