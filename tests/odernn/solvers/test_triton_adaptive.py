"""The adaptive Triton kernels: through Triton's interpreter on the CPU, in a process of its own, or wherever there is a GPU."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from problems import perturb_bias
from solves import assert_close, problem, states_and_gradients
from triton_interpreter import INTERPRETED, needs_gpu, on_device, require_passed

from odernn import Adaptive, ContinuousRNN, DivergedSolve, LeakyRNN, LeakyVoltageRNN, StateSpaceModel, TorchDiffEq, paths
from odernn.solvers import automatic, choice
from odernn.solvers.backends import obstacle

triton = pytest.importorskip("triton", reason="triton is not installed")
ROWS = 16


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this is the inner process")
def test_the_adaptive_kernels_pass_these_tests_in_tritons_interpreter():
    require_passed(__file__)


def path_of(x, t, interpolation):
    if interpolation == "jumps":
        return paths.Path(t, "jumps", 2 * x[..., :-1, :], x[..., 1:, :] ** 2)
    return paths.interpolate(t, x, interpolation)


def of_block(arguments, block):
    x, t, h0, loss_weights, interpolation = arguments
    return x[block], t, h0[..., block, :], loss_weights[..., block, :, :], interpolation


def compare(model, method="dopri5", tolerance=1e-3, **options):
    """The kernels in float32 against the plain route in float64, block by block: numbers of steps, states and gradients."""
    arguments = problem(model, **options)
    plain = Adaptive(method, tolerance, tolerance, "torch", check=False)
    blocks = [slice(first, first + ROWS) for first in range(0, arguments[0].shape[0], ROWS)]
    parts = [states_and_gradients(model, plain, *of_block(arguments, block)) for block in blocks]
    weights = [sum(of) for of in zip(*(part[1][:-2] for part in parts))]
    x, h0 = torch.cat([part[1][-2] for part in parts]), torch.cat([part[1][-1] for part in parts], -2)
    expected = torch.cat([part[0] for part in parts], -3), (*weights, x, h0)
    counts = []
    for block in blocks:
        x, t, h0, *_, interpolation = of_block(arguments, block)
        solution = model.solve(path_of(x, t, interpolation), t, h0, solver=plain)
        counts.append((solution.accepted + solution.rejected, solution.accepted, solution.evaluations))
    model, arguments = on_device(model, arguments)
    compiled = replace(plain, backend="triton")
    found = states_and_gradients(model, compiled, *arguments)
    x, t, h0, *_, interpolation = arguments
    with torch.no_grad():  # without a record
        solution = model.solve(path_of(x, t, interpolation), t, h0, solver=compiled)
    assert torch.equal(solution.h, found[0])
    assert (solution.accepted + solution.rejected, solution.accepted, solution.evaluations) == max(counts)
    assert_close((found[0].cpu(), tuple(g.cpu() for g in found[1])), expected, 1e-5, 1e-4)
    return counts


@needs_gpu
@pytest.mark.parametrize("interpolation", ["linear", "hold", "jumps"])
def test_steps_states_and_gradients_are_those_of_the_plain_form(interpolation):
    model = perturb_bias(ContinuousRNN(2, 6, 1, "tanh", dtype=torch.float64))
    compare(model, batch=18, times=4, interpolation=interpolation)


@needs_gpu
@pytest.mark.parametrize(("method", "tolerance"), [("dopri5", 1e-4), ("tsit5", 1e-3), ("bosh3", 1e-3)])
def test_every_pair_on_one_state_and_one_sequence(method, tolerance):
    compare(perturb_bias(ContinuousRNN(1, 1, 1, "sigmoid", dtype=torch.float64)), method, tolerance, batch=1, times=3)


@needs_gpu
def test_an_ensemble_of_stacks_and_linear_state_equations():
    model = ContinuousRNN(1, 3, 1, "tanh", "diagonal", "softplus", num_layers=2, ensemble=(2,), dtype=torch.float64)
    compare(perturb_bias(model), "bosh3", batch=3, times=3)
    compare(perturb_bias(StateSpaceModel(1, 4, 1, "tanh", dtype=torch.float64)), batch=2, times=3)


@needs_gpu
def test_every_block_takes_its_own_steps():
    model = perturb_bias(ContinuousRNN(1, 4, 1, "tanh", dtype=torch.float64))
    x, t, h0, *_ = problem(model, batch=2 * ROWS, times=3)
    x = torch.cat([0.1 * x[:ROWS], 20 * x[ROWS:]])
    model, (x, t, h0) = on_device(model, (x, t, h0))
    solver = Adaptive(rtol=1e-3, atol=1e-3, backend="triton", check=False)
    with torch.no_grad():
        both = model.solve(paths.linear(t, x), t, h0, solver=solver)
        calm, wild = (
            model.solve(paths.linear(t, x[block]), t, h0[block], solver=solver) for block in (slice(ROWS), slice(ROWS, None))
        )
    assert wild.accepted > 2 * calm.accepted
    assert torch.equal(both.h, torch.cat([calm.h, wild.h]))
    assert both.accepted == wild.accepted


@needs_gpu
def test_short_records_are_made_long_enough_and_gone_back_in_segments(monkeypatch):
    from odernn.solvers.triton import launch

    model = perturb_bias(ContinuousRNN(1, 3, 1, "tanh", dtype=torch.float64))
    model, arguments = on_device(model, problem(model, batch=2, times=3))
    solver = Adaptive("bosh3", 2e-6, 2e-6, "triton", check=False)
    expected = states_and_gradients(model, solver, *arguments)
    for name, value in (("_ROOM", 0), ("_ROOM_PER_INTERVAL", 0), ("_SEGMENT_BYTES", 1)):
        monkeypatch.setattr(launch, name, value)
    found = states_and_gradients(model, solver, *arguments)
    x, t, h0, *_ = arguments
    with torch.no_grad():
        assert model.solve(paths.linear(t, x), t, h0, solver=solver).accepted > 16
    assert torch.equal(found[0], expected[0])
    assert_close(found, expected, 1e-7, 1e-5)


@needs_gpu
def test_a_step_size_that_underflows_is_an_error_and_the_gradient_of_lost_states_is_nan():
    model = ContinuousRNN(1, 2, 1, "relu", dtype=torch.float64)
    model.set_matrix(9 * torch.eye(2, dtype=torch.float64))
    with torch.no_grad():
        model.layer_weights[0].U.fill_(1.0)
    t = torch.tensor([0.0, 0.5, 20.0], dtype=torch.float64)
    model, (x, t) = on_device(model, (torch.ones(1, 3, 1), t))
    solver = Adaptive("dopri5", 1e-2, 1e-2, "triton", check=False)
    with pytest.raises(DivergedSolve, match=r"t = 20 \(the step size underflowed; "):
        model(x, t, "zero", solver=solver)
    solution = model.solve(paths.linear(t, x), t, "zero", solver=solver, check=False)
    assert solution.failure == "the step size underflowed"
    assert torch.isfinite(solution.h[0]).all(-1).tolist() == [True, True, False]
    U = model.layer_weights[0].U
    (known,) = torch.autograd.grad(solution.h[:, 1].log().sum(), U, retain_graph=True)
    assert torch.isfinite(known).all()
    assert known.any()
    (lost,) = torch.autograd.grad(solution.h.sum(), U)
    assert torch.isnan(lost).all()


@needs_gpu
def test_more_steps_than_the_most_are_an_error(monkeypatch):
    from odernn.solvers.triton import adaptive

    monkeypatch.setattr(adaptive, "_MAX_STEPS", triton.language.constexpr(3))
    model = ContinuousRNN(1, 1, 1, "tanh", dtype=torch.float64)
    model, (x, t) = on_device(model, (torch.ones(1, 2, 1), torch.tensor([0.0, 50.0])))
    solver = Adaptive(rtol=1e-5, atol=1e-5, backend="triton", check=False)
    if INTERPRETED:  # a compiled kernel keeps the number it was compiled with
        assert "steps in one interval" in model.solve(paths.linear(t, x), t, "zero", solver=solver, check=False).failure


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is told to work on the CPU")
def test_what_the_kernels_do_not_take_is_refused():
    model = ContinuousRNN(1, 4, 1, dtype=torch.float32)
    x, t = torch.zeros(2, 3, 1), torch.arange(3.0)
    with pytest.raises(ValueError, match="'triton' runs on cuda, got tensors on cpu: choose backend 'torch' or 'auto'"):
        model(x, t, solver=Adaptive(backend="triton"))


@needs_gpu
@pytest.mark.parametrize(("layers", "dtype", "message"), [(1, "float64", "computes in"), (2, "float32", "between layers")])
def test_models_beyond_the_kernels_limits_are_refused(layers, dtype, message):
    device = "cpu" if INTERPRETED else "cuda"
    model = StateSpaceModel(1, 4, 1, "tanh", num_layers=layers, dtype=getattr(torch, dtype), device=device)
    x = torch.zeros(2, 3, 1, dtype=model.c.dtype, device=device)
    with pytest.raises(ValueError, match=message):
        model(x, torch.arange(3.0, device=device), solver=Adaptive(backend="triton"))


@needs_gpu
@pytest.mark.parametrize(("m", "batch"), [(33, 2), (64, 17), (128, 1)])
def test_every_width(m, batch):
    compare(perturb_bias(ContinuousRNN(1, m, 1, dtype=torch.float64)), "bosh3", batch=batch, times=2)


@needs_gpu
def test_a_tile_whose_input_is_not_finite_is_lost_and_no_other():
    model = perturb_bias(ContinuousRNN(1, 3, 1, dtype=torch.float64))
    x, t, h0, *_ = problem(model, batch=ROWS + 1, times=3)
    x[2, 1] = torch.nan
    model, (x, t, h0) = on_device(model, (x, t, h0))
    solver = Adaptive("bosh3", 1e-2, 1e-2, "triton", check=False)
    solution = model.solve(paths.linear(t, x), t, h0, solver=solver, check=False)
    assert solution.failure == "the step size underflowed"
    assert torch.isnan(solution.h[:ROWS, 1:]).all()
    assert torch.isfinite(solution.h[ROWS:]).all()


@needs_gpu
def test_without_a_solver_named_models_take_the_kernels_where_these_take_the_states(monkeypatch):
    from odernn.solvers import adaptive
    from odernn.solvers.triton import launch

    refuse = {"numba": "runs elsewhere"}
    monkeypatch.setattr(adaptive, "obstacle", lambda name, *like: refuse.get(name) or obstacle(name, *like))
    monkeypatch.setattr(choice, "_said", [True])
    calls = []
    run = launch.adaptive_forward
    monkeypatch.setattr(launch, "adaptive_forward", lambda *given: calls.append(1) or run(*given))
    for layers, m, dtype, taken in ((1, 4, 32, True), (2, 4, 32, True), (1, 4, 64, False), (2, 65, 32, False)):
        model = ContinuousRNN(1, m, 1, num_layers=layers, dtype=getattr(torch, f"float{dtype}"))
        model, x, t = (
            one.to("cpu" if INTERPRETED else "cuda") for one in (model, torch.zeros(1, 2, 1), torch.tensor([0.0, 0.1]))
        )
        assert automatic(model.field()) == (Adaptive() if taken else TorchDiffEq("dopri5", adjoint=False))
        if taken:
            calls.clear()
            model(x, t)
            assert calls
    stack = StateSpaceModel(1, 4, 1, "tanh", num_layers=2, dtype=torch.float32)
    for other in (stack, LeakyRNN(1, 4, 1, dtype=torch.float32), LeakyVoltageRNN(1, 4, 1, dtype=torch.float32)):
        assert automatic(other.field()) == TorchDiffEq("dopri5", adjoint=False)
        with pytest.raises(ValueError, match=r"'triton' takes no .*choose backend 'torch' or 'auto'"):
            other.to(x.device)(x, t, solver=Adaptive(backend="triton"))


@pytest.mark.skipif(INTERPRETED, reason="the interpreter is told to work on the CPU")
def test_on_a_gpu_the_default_takes_the_kernels_where_they_take_the_states(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    for dtype, m, passes_on, taken in (
        (32, 128, (False, False), True),
        (64, 4, (False, False), False),
        (32, 129, (False, False), False),
        (32, 4, (True, False), False),
        (32, 4, (False, True), False),
    ):
        kind = getattr(torch, f"float{dtype}")
        states = SimpleNamespace(device=torch.device("cuda"), is_cuda=True, dtype=kind, shape=(1, 2, m))
        assert obstacle("numba", states) is not None
        assert (obstacle("triton", states, *passes_on) is None) == taken
