"""A solver of the user's own, wherever the library takes one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import F64, perturb_bias

from analysis import memory_function, perturbation_error
from odernn import ContinuousRNN, Fused, Solution, Solver, paths
from odernn.solvers import deviation
from odernn.training import Data, Trainer, TrainingConfig
from targets import ConvolutionalFunctional, inputs, kernels


class Heun(Solver):
    order = 2

    def solve(self, field, path, t, h0):
        states = [h0]
        for left, right in zip(t[:-1], t[1:]):
            h, dt = states[-1], (right - left).to(h0.dtype)
            rate = field(h, path(left))
            states.append(h + dt / 2 * (rate + field(h + dt * rate, path(right))))
        return Solution(t, torch.stack(states, -2), evaluations=2 * (t.numel() - 1))


T = torch.linspace(0, 4, 41, dtype=F64)
X = inputs.random_fourier(T, 4, seed=0)
H = ConvolutionalFunctional(kernels.exponential())
SAME = Fused("heun2", check=False)  # the same steps


def model() -> ContinuousRNN:
    return perturb_bias(ContinuousRNN(1, 4, 1, "tanh", "symmetric", "softplus", seed=0, dtype=F64))


def test_models_run_on_it():
    assert torch.allclose(model()(X, T, solver=Heun()), model()(X, T, solver=SAME), rtol=1e-12, atol=1e-14)


def test_training_runs_on_it():
    data = Data(T, X, H(X, T), X, H(X, T))
    losses = []
    for solver in (Heun(), SAME):
        trainer = Trainer(model(), data, TrainingConfig(optimizer="lbfgs", epochs=2, iterations=3), solver=solver)
        trainer.run(progress=False)
        losses.append((trainer.history[-1]["loss"], trainer.validation_error(check=True)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    trainer = Trainer(model(), data, TrainingConfig(optimizer="lm", epochs=2, iterations=3), solver=Heun())
    trainer.run(progress=False)
    assert trainer.history[-1]["loss"] < losses[0][0]


def test_memory_functions_run_on_it():
    values = [memory_function(model(), T, solver=solver).values for solver in (Heun(), SAME)]
    np.testing.assert_allclose(*values, rtol=1e-8)


def test_perturbation_errors_run_on_it():
    curves = [perturbation_error(model(), H, X, T, [0, 1e-2], draws=2, restarts=1, steps=3, solver=s) for s in (Heun(), SAME)]
    np.testing.assert_allclose(curves[0].errors, curves[1].errors, rtol=1e-8)


def test_it_is_compared_with_a_reference():
    field, path, h0 = model().field(), paths.linear(T, X), torch.zeros(4, 4, dtype=F64)
    coarse, fine = deviation(Heun(), field, path, T, h0), deviation(SAME, field, path, T, h0)
    assert coarse == pytest.approx(fine, rel=1e-6)
    assert 1e-6 < coarse < 1e-2


def test_a_solver_says_what_it_is():
    assert Heun().supports(model().field())
    assert Heun().tolerances == (0, 0)
    assert Heun().unchecked() == Heun()
    with pytest.raises(TypeError, match="abstract"):
        Solver()
