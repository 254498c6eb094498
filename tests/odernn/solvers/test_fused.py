from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from problems import F64, central_difference, dop853, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients

from odernn import ContinuousRNN, DivergedSolve, Fused, StateSpaceModel, TorchDiffEq, paths
from odernn.activations import ACTIVATIONS, Activation
from odernn.solvers import TABLEAUX, batched_products
from odernn.solvers.backends import backend_for
from odernn.solvers.numba.plan import SET_STRIDE

BACKENDS = ("numba", "products", "torch")
REFERENCE = TorchDiffEq("rk4", adjoint=False, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_it_is_torchdiffeqs_rk4_in_states_and_gradients(recurrence, interpolation, backend):
    for cls in (ContinuousRNN, StateSpaceModel):
        for activation in ACTIVATIONS:
            model = perturb_bias(cls(2, 6, 1, activation, *recurrence, dtype=F64))
            arguments = problem(model, interpolation=interpolation)
            expected = states_and_gradients(model, REFERENCE, *arguments)
            assert_close(states_and_gradients(model, Fused(backend=backend, check=False), *arguments), expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["euler", "midpoint", "heun2", "heun3"])
def test_methods_of_the_same_name_are_torchdiffeqs(method, backend):
    model = perturb_bias(ContinuousRNN(2, 6, 1, dtype=F64))
    arguments = problem(model, interpolation="jumps")
    expected = states_and_gradients(model, TorchDiffEq(method, adjoint=False, check=False), *arguments)
    assert_close(states_and_gradients(model, Fused(method, backend=backend, check=False), *arguments), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_substeps_are_equal_steps_in_every_interval(backend):
    model = perturb_bias(ContinuousRNN(2, 6, 1, dtype=F64))
    arguments = problem(model, even=True)
    for substeps in (2, 5):
        step = float(arguments[1][1]) / substeps
        expected = states_and_gradients(model, TorchDiffEq("rk4", adjoint=False, step_size=step, check=False), *arguments)
        assert_close(states_and_gradients(model, Fused("rk4", substeps, backend, check=False), *arguments), expected)


@pytest.mark.parametrize("method", TABLEAUX)
def test_methods_converge_at_their_order(method):
    model = perturb_bias(ContinuousRNN(1, 3, 1, dtype=F64))
    t = torch.tensor([0.0, 2.0], dtype=F64)
    path = paths.linear(t, torch.tensor([[[-1.0], [2.0]]], dtype=F64))
    h0 = torch.tensor([[0.3, -0.2, 0.5]], dtype=F64)
    reference = dop853(model, path, t, h0)
    substeps = np.array([10, 20, 40, 80])
    errors = [
        (model.solve(path, t, h0, solver=Fused(method, int(n), check=False)).h - reference).abs().max().item() for n in substeps
    ]
    slope = -np.polyfit(np.log(substeps), np.log(errors), 1)[0]
    assert slope == pytest.approx(Fused(method, check=False).order, abs=0.25)


def test_gradients_agree_with_central_differences():
    model = perturb_bias(ContinuousRNN(2, 4, 1, "tanh", "symmetric", "softplus", dtype=F64))
    x, t, h0, loss_weights, _ = problem(model)

    def loss():
        return (model.solve(paths.linear(t, x), t, h0, solver=Fused("bosh3", 2, check=False)).h * loss_weights).sum()

    weights = [weight for name, weight in model.named_parameters() if name != "c"]
    for weight, gradient in zip(weights, torch.autograd.grad(loss(), weights)):
        assert relative(gradient, central_difference(loss, weight)) < 1e-7


@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", [("dense", "direct"), ("diagonal", "exp"), ("complex", "exp")], ids=lambda pair: pair[0])
def test_kernels_agree_with_tensor_operations_over_many_tiles_and_threads(recurrence, interpolation):
    # Two tiles and more per thread, the last one short; m and d that fill no vector; several steps per interval.
    torch.set_num_threads(2)
    model = perturb_bias(ContinuousRNN(3, 42, 1, "tanh", *recurrence, ensemble=(2,), dtype=F64))
    arguments = problem(model, batch=61, times=5, interpolation=interpolation)
    expected = states_and_gradients(model, Fused("rk4", 3, "torch", check=False), *arguments)
    assert_close(states_and_gradients(model, Fused("rk4", 3, "numba", check=False), *arguments), expected)


@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_large_products_go_through_a_long_solve_in_segments(recurrence, interpolation, monkeypatch):
    model = perturb_bias(ContinuousRNN(2, 6, 1, "tanh", *recurrence, ensemble=(2,), dtype=F64))
    arguments = problem(model, interpolation=interpolation)
    expected = states_and_gradients(model, Fused("heun3", 2, "torch", check=False), *arguments)
    intervals = []
    stages = batched_products._stages

    def noted(given, W, h, *others):
        intervals.append(h.shape[1])
        return stages(given, W, h, *others)

    monkeypatch.setattr(batched_products, "_stages", noted)
    each = 8 * 3 * (3 * 2) * (2 * 5 * 6)  # float64; states, slopes, adjoints; stages of two steps; E, batch, m
    for limit, cut in ((4 * each, [4, 2]), (6 * each, [6]), (1, [1] * 6)):
        intervals.clear()
        monkeypatch.setattr(batched_products, "SEGMENT_BYTES", limit)
        assert_close(states_and_gradients(model, Fused("heun3", 2, "products", check=False), *arguments), expected)
        assert intervals == cut


def test_large_products_take_over_where_no_kernel_runs():
    assert backend_for("auto", torch.zeros(1, 1, 4, dtype=torch.bfloat16)) is batched_products
    assert backend_for("auto", torch.zeros(1, 1, 4, device="meta")) is batched_products


@pytest.mark.parametrize("recurrence", [("dense", "direct"), ("diagonal", "exp"), ("complex", "exp")], ids=lambda pair: pair[0])
def test_wide_rows_are_padded_off_the_stride_of_the_caches(recurrence):
    model = perturb_bias(ContinuousRNN(1, SET_STRIDE // 8, 1, "tanh", *recurrence, dtype=F64))
    arguments = problem(model, batch=9, times=4)
    expected = states_and_gradients(model, Fused(backend="torch", check=False), *arguments)
    assert_close(states_and_gradients(model, Fused(backend="numba", check=False), *arguments), expected)


@pytest.mark.parametrize("recurrence", RECURRENCES, ids=lambda pair: pair[0])
def test_single_precision_is_double_precision_rounded(recurrence):
    for activation in ("tanh", "sigmoid", "relu"):
        model = perturb_bias(ContinuousRNN(2, 18, 1, activation, *recurrence, dtype=F64))
        expected = states_and_gradients(model, Fused(backend="torch", check=False), *problem(model))
        single = [a.float() if isinstance(a, torch.Tensor) else a for a in problem(model)]
        found = states_and_gradients(model.float(), Fused(backend="numba", check=False), *single)
        assert_close(found, expected, states=3e-6, gradients=3e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_ensemble_is_many_single_solves(backend):
    model = perturb_bias(ContinuousRNN(2, 6, 1, ensemble=(2, 3), dtype=F64))
    for x_axes in ((), (3,), (2, 3)):
        x, t, h0, loss_weights, interpolation = problem(model, x_axes=x_axes)
        h, gradients = states_and_gradients(model, Fused(backend=backend, check=False), x, t, h0, loss_weights, interpolation)
        g_x = torch.zeros_like(gradients[-2])
        every = x.expand(2, 3, *x.shape[-3:])
        for index in np.ndindex(2, 3):
            single = ContinuousRNN(2, 6, 1, dtype=F64)
            single.load_state_dict({name: weight[index] for name, weight in model.state_dict().items()})
            found = states_and_gradients(
                single, Fused(backend=backend, check=False), every[index], t, h0[index], loss_weights[index], interpolation
            )
            assert relative(found[0], h[index]) < 1e-13
            for a, b in zip((*found[1][:-2], found[1][-1]), (*gradients[:-2], gradients[-1]), strict=True):
                assert relative(a, b[index]) < 1e-12
            g_x[index[2 - len(x_axes) :]] += found[1][-2]
        assert relative(gradients[-2], g_x) < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_output_times_may_lie_between_samples_and_breakpoints(backend):
    model = perturb_bias(ContinuousRNN(1, 4, 1, dtype=F64))
    t = torch.tensor([0.0, 0.3, 1.0, 1.7], dtype=F64)
    amplitude = torch.tensor([[1.0], [-2.0]], dtype=F64)
    for path in (paths.pulse(t, amplitude, 0.55), paths.heaviside(t, amplitude)):
        times = torch.tensor([0.1, 0.3, 1.5], dtype=F64)
        expected = model.solve(path, times, "zero", solver=REFERENCE).h
        assert relative(model.solve(path, times, "zero", solver=Fused(backend=backend, check=False)).h, expected) < 1e-12


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_and_their_derivatives_are_accurate_everywhere(activation, dtype):
    """One Euler step of length 1 from 0 with W = 0 is h = sigma(v)."""
    model = ContinuousRNN(1, 1, 1, activation, dtype=dtype)
    with torch.no_grad():
        model.layer_weights[0].recurrence.W.zero_()
        model.layer_weights[0].U.fill_(1)
    size = torch.logspace(-6, 2, 4001, dtype=F64).to(dtype)
    v = torch.cat([-size, torch.zeros(1, dtype=dtype), size]).requires_grad_()
    path = paths.hold(torch.tensor([0, 1], dtype=dtype), v.reshape(-1, 1, 1).expand(-1, 2, 1))
    h = model.solve(path, path.times, "zero", solver=Fused("euler", backend="numba", check=False)).h[:, 1, 0]
    (gradient,) = torch.autograd.grad(h.sum(), v)
    exact = ACTIVATIONS[activation]
    tolerance = 4 * torch.finfo(dtype).eps
    reference = exact(v.detach().double())
    scale = reference.abs() if activation == "tanh" else reference.abs().clamp_min(1)
    assert ((h.double() - reference).abs() <= tolerance * scale).all()
    assert ((gradient.double() - exact.slope(v.detach().double())).abs() <= 2 * tolerance).all()


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_diverges_or_is_not_finite_never_comes_out_as_a_number(backend, dtype):
    t = torch.linspace(0, 800, 5, dtype=dtype)
    x = torch.ones(9, 5, 1, dtype=dtype)
    for activation in ("linear", "relu"):
        model = ContinuousRNN(1, 4, 1, activation, dtype=dtype)
        model.set_matrix(2 * torch.eye(4, dtype=F64))
        with torch.no_grad():
            model.layer_weights[0].U.fill_(1)
        solver = Fused("rk4", 60, backend, check=False)
        h = model.solve(paths.linear(t, x), t, "zero", solver=solver, check=False).h
        assert not torch.isfinite(h[:, -1]).any()
        with pytest.raises(DivergedSolve, match="diverged at t = "):
            model(x, t, "zero", solver=solver)
    for activation in ACTIVATIONS:
        for bad in (float("nan"), float("inf")):
            model = ContinuousRNN(1, 4, 1, activation, dtype=dtype)
            poisoned = torch.full_like(x, 1.0)
            poisoned[4, 1] = bad
            h0 = torch.zeros(9, 4, dtype=dtype)
            h = model.solve(paths.linear(t, poisoned), t, h0, solver=Fused(backend=backend, check=False), check=False).h
            expected = model.solve(paths.linear(t, poisoned), t, h0, solver=REFERENCE, check=False).h
            assert torch.equal(torch.isfinite(h).all(-1), torch.isfinite(expected).all(-1))


def test_memory_holds_no_stages():
    """Backward keeps the states beside its inputs, not 4 stages for each."""
    model = ContinuousRNN(1, 8, 1, dtype=F64)
    x, t, h0, _, _ = problem(model, times=50)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.numel()) or tensor, lambda tensor: tensor):
        model.solve(paths.linear(t, x), t, h0, solver=Fused("rk4", 4, check=False))
    assert max(saved) == 5 * 50 * 8


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_gradients_asked_for_are_computed(backend):
    model = ContinuousRNN(2, 6, 1, dtype=F64)
    x, t, h0, loss_weights, _ = problem(model)
    _, gradients = states_and_gradients(model, Fused(backend=backend, check=False), x, t, h0, loss_weights, "linear")
    expected = dict(zip([name for name, _ in model.named_parameters() if name != "c"], gradients), x=gradients[-2])
    W = model.layer_weights[0].recurrence.W
    for wanted in ("W", "x"):
        model.requires_grad_(wanted == "W")
        x_here = x.clone().requires_grad_(wanted == "x")
        h = model.solve(paths.linear(t, x_here), t, h0, solver=Fused(backend=backend, check=False)).h
        (gradient,) = torch.autograd.grad((h * loss_weights).sum(), W if wanted == "W" else x_here)
        name = next((name for name, weight in model.named_parameters() if weight is W)) if wanted == "W" else "x"
        assert relative(gradient, expected[name]) < 1e-13


def test_gradients_differentiate_once():
    model = ContinuousRNN(1, 4, 1, dtype=F64)
    x, t, *_ = problem(model)
    y = model(x, t, solver=Fused(check=False))
    (gradient,) = torch.autograd.grad(y.sum(), model.layer_weights[0].U, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot be differentiated again"):
        gradient.sum().backward()


def test_bad_settings_are_refused():
    for substeps in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="expected an integer of at least 1"):
            Fused(substeps=substeps)
    with pytest.raises(ValueError, match="expected one of euler"):
        Fused("dopri5")
    with pytest.raises(ValueError, match="expected one of auto"):
        Fused(backend="cuda")
    softsign = Activation("softsign", torch.nn.functional.softsign, rests_at_zero=True)
    model = ContinuousRNN(1, 4, 1, softsign, num_layers=2, dtype=F64)
    assert not Fused().supports(model.field())
    with pytest.raises(ValueError, match=r"got 2 layer.s. of 4 and 4 units with 'softsign': choose TorchDiffEq\('rk4'\)"):
        model(torch.zeros(2, 3, 1, dtype=F64), torch.arange(3, dtype=F64), solver=Fused(check=False))


def test_python_threads_may_solve_at_once():
    torch.set_num_threads(2)
    model = ContinuousRNN(1, 16, 1, dtype=F64)
    x, t, h0, *_ = problem(model, batch=40, times=30)
    expected = model.solve(paths.linear(t, x), t, h0, solver=Fused(check=False)).h
    start = threading.Barrier(4)

    def solve(_):
        start.wait()
        return model.solve(paths.linear(t, x), t, h0, solver=Fused(check=False)).h

    with ThreadPoolExecutor(4) as pool:
        assert all(torch.equal(h, expected) for h in pool.map(solve, range(4)))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_second_process_finds_the_compiled_kernels_on_disk(threads):
    program = f"""
import sys, torch
from odernn import ContinuousRNN, Fused
torch.set_num_threads({threads})
model = ContinuousRNN(1, 4, 1, dtype=torch.float64)
model(torch.zeros(2, 3, 1, dtype=torch.float64), torch.arange(3, dtype=torch.float64), solver=Fused(check=False)).sum().backward()
from odernn.solvers.numba import backend, runge_kutta
for kernel in (runge_kutta.runge_kutta, runge_kutta.runge_kutta_adjoint):
    form = kernel.serial if backend._threads() == 1 else kernel.parallel
    hits, misses = (sum(count.values()) for count in (form.stats.cache_hits, form.stats.cache_misses))
    assert hits + misses == 1 and (hits == 1 or sys.argv[1] == "first"), form.stats
"""
    for run in ("first", "second"):
        subprocess.run([sys.executable, "-c", program, run], check=True, timeout=200)


@pytest.mark.slow
def test_one_thread_and_several_give_the_same_numbers():
    """In a process of its own, so that there are two threads on a machine of one core too."""
    program = """
import torch
from problems import F64, perturb_bias
from solves import assert_close, problem, states_and_gradients
from odernn import ContinuousRNN, Fused
from odernn.solvers.numba import backend

model = perturb_bias(ContinuousRNN(1, 20, 1, seed=0, dtype=F64))
arguments = problem(model, batch=9)
found = []
for threads in (1, 2):
    torch.set_num_threads(threads)
    assert backend._threads() == threads
    found.append(states_and_gradients(model, Fused(check=False), *arguments))
one, several = found
assert_close(several, one, 1e-15, 1e-13)
"""
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=200)
