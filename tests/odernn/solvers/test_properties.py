"""Properties that hold for all inputs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, perturb_bias
from solves import RECURRENCES, assert_close, problem, relative, states_and_gradients
from torch import Tensor

from odernn import ContinuousRNN, Exact, Fused, StateSpaceModel, TorchDiffEq, paths
from odernn.activations import ACTIVATIONS
from odernn.solvers import TABLEAUX

few = settings(max_examples=12, deadline=None)
seeds = st.integers(0, 2**31 - 1)
recurrences = st.sampled_from(RECURRENCES)
kinds = st.sampled_from(["constant", "linear", "hold", "jumps"])


def randn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def times(seed: int, count: int = 9) -> Tensor:
    """Uneven, in [0, 3], none close to another."""
    steps = 0.2 + torch.rand(count - 1, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return torch.cat([torch.zeros(1, dtype=F64), 3 * steps.cumsum(0) / steps.sum()])


def path_of(kind: str, t: Tensor, x: Tensor) -> paths.Path:
    if kind == "constant":
        return paths.heaviside(t, x[..., 0, :])
    return paths.Path(t, "jumps", x[..., :-1, :], x[..., 1:, :] + 1) if kind == "jumps" else paths.interpolate(t, x, kind)


def linear_model(recurrence: tuple[str, str], seed: int, **options) -> StateSpaceModel:
    return StateSpaceModel(2, 4, 1, "tanh", *recurrence, seed=seed, dtype=F64, **options)


@few
@given(recurrences, kinds, seeds, st.integers(1, 7), st.sampled_from(["numba", "torch"]))
def test_exact_goes_to_s_and_on_from_there_as_in_one_solve(recurrence, kind, seed, at, backend):
    model, solver = perturb_bias(linear_model(recurrence, seed)), Exact(backend)
    t, h0 = times(seed), randn(seed + 1, 3, 4)
    path = path_of(kind, t, randn(seed, 3, 9, 2))
    whole = model.solve(path, t, h0, solver=solver).h
    first = model.solve(path, t[: at + 1], h0, solver=solver).h
    second = model.solve(path, t[at:], first[:, -1], solver=solver).h
    assert relative(torch.cat([first, second[:, 1:]], 1), whole) < 1e-12


@few
@given(recurrences, kinds, seeds)
def test_cutting_a_path_at_more_times_changes_nothing_in_exact(recurrence, kind, seed):
    model = perturb_bias(linear_model(recurrence, seed))
    t, h0 = times(seed), randn(seed + 1, 3, 4)
    path = path_of(kind, t, randn(seed, 3, 9, 2))
    cut = path.on(torch.cat([t, 3 * torch.rand(5, generator=torch.Generator().manual_seed(seed), dtype=F64)]).unique())
    assert cut.kind == kind
    assert cut.times.numel() > t.numel()
    assert relative(model.solve(cut, t, h0, solver=Exact()).h, model.solve(path, t, h0, solver=Exact()).h) < 1e-12


@few
@given(recurrences, kinds, seeds, st.floats(-3, 3), st.floats(-3, 3))
def test_a_linear_field_without_a_bias_is_solved_linearly(recurrence, kind, seed, a, b):
    model, t = linear_model(recurrence, seed, bias=False), times(seed)
    one, other = path_of(kind, t, randn(seed, 3, 9, 2)), path_of(kind, t, randn(seed + 1, 3, 9, 2))
    ends = None if one.ends is None else a * one.ends + b * other.ends
    both = replace(one, samples=a * one.samples + b * other.samples, ends=ends)
    h, g = randn(seed + 2, 3, 4), randn(seed + 3, 3, 4)
    for solver in (Exact(), Exact("torch"), Fused(check=False), TorchDiffEq("rk4", adjoint=False, check=False)):
        first, second = model.solve(one, t, h, solver=solver).h, model.solve(other, t, g, solver=solver).h
        found = model.solve(both, t, a * h + b * g, solver=solver).h
        size = abs(a) * first.abs().max() + abs(b) * second.abs().max()
        assert (found - (a * first + b * second)).abs().max() <= 1e-13 * size


@few
@given(recurrences, st.sampled_from(["linear", "hold"]), seeds, st.integers(1, 7))
def test_what_comes_after_s_changes_nothing_before(recurrence, interpolation, seed, at):
    model = perturb_bias(ContinuousRNN(2, 4, 1, "tanh", *recurrence, seed=seed, dtype=F64))
    state_space = perturb_bias(linear_model(recurrence, seed))
    t, x = times(seed), randn(seed, 3, 9, 2)
    changed = x.clone()
    changed[:, at + 1 :] += randn(seed + 1, 3, 8 - at, 2)
    for each, solver in (
        (state_space, Exact()),
        (state_space, Exact("torch")),
        (model, Fused("heun3", 2, check=False)),
        (model, Fused(backend="torch", check=False)),
        (model, TorchDiffEq("rk4", adjoint=False, check=False)),
    ):
        one, other = (each.solve(paths.interpolate(t, x, interpolation), t, solver=solver).h for x in (x, changed))
        assert torch.equal(one[:, : at + 1], other[:, : at + 1])
        assert not torch.equal(one[:, -1], other[:, -1]) or (interpolation == "hold" and at == 7)


@few
@given(
    recurrences,
    st.sampled_from(["linear", "hold", "jumps"]),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(sorted(TABLEAUX)),
    st.integers(1, 3),
    st.integers(1, 5),
    st.sampled_from([(), (2,)]),
    seeds,
)
def test_compiled_kernels_are_the_tensor_operations(
    recurrence, interpolation, activation, method, substeps, batch, ensemble, seed
):
    model = ContinuousRNN(2, 6, 1, activation, *recurrence, ensemble=ensemble, seed=seed, dtype=F64)
    arguments = problem(perturb_bias(model), batch=batch, interpolation=interpolation)
    compiled, plain = (Fused(method, substeps, backend, check=False) for backend in ("numba", "torch"))
    assert_close(states_and_gradients(model, compiled, *arguments), states_and_gradients(model, plain, *arguments))


@pytest.mark.parametrize(
    "solver", [Exact(), Exact("torch"), Fused(check=False), TorchDiffEq("rk4", adjoint=False, check=False)], ids=repr
)
@few
@given(recurrences, kinds, seeds, st.sampled_from([(2,), (2, 3)]))
def test_a_member_of_a_stack_is_solved_as_it_is_alone(solver, recurrence, kind, seed, ensemble):
    model, t, h0 = perturb_bias(linear_model(recurrence, seed, ensemble=ensemble)), times(seed), randn(seed + 1, 3, 4)
    path = path_of(kind, t, randn(seed, 3, 9, 2))
    stack = model.solve(path, t, h0, solver=solver).h
    index = tuple(seed % size for size in ensemble)
    alone = linear_model(recurrence, seed)
    alone.load_state_dict({name: weight[index] for name, weight in model.state_dict().items()})
    assert relative(alone.solve(path, t, h0, solver=solver).h, stack[index]) < 1e-13
