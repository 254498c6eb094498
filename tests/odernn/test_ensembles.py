from __future__ import annotations

import weakref
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, combinations, perturb_bias

from odernn import Adaptive, ContinuousRNN, DiscreteRNN, DiscreteSSM, Fused, StateSpaceModel, readouts
from odernn.ensembles import member, replicate, stack
from odernn.solvers import DivergedSolve, TorchDiffEq

RK4 = TorchDiffEq("rk4", adjoint=False, check=False)


def inputs(batch=3, points=9):
    t = torch.linspace(0, 2, points, dtype=F64)
    return torch.randn(batch, points, 1, dtype=F64), t


def make(seed=0, cls=ContinuousRNN, recurrence="symmetric", parameterization="softplus", **options):
    return perturb_bias(cls(1, 4, 1, "tanh", recurrence, parameterization, dtype=F64, seed=seed, **options))


@pytest.mark.slow
@pytest.mark.parametrize(("cls", "recurrence", "parameterization", "activation"), list(combinations()))
def test_a_stack_answers_like_its_models_one_by_one(cls, recurrence, parameterization, activation):
    models = [cls(1, 4, 1, activation, recurrence, parameterization, dtype=F64, seed=seed) for seed in range(3)]
    x, t = inputs()
    with torch.no_grad():
        together = stack(models)(x, t, solver=RK4)
        alone = torch.stack([model(x, t, solver=RK4) for model in models])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)


def test_replicated_copies_are_equal_and_independent_of_the_original():
    model = make()
    before = model.c.detach().clone()
    copies = replicate(model, 5)
    assert copies.ensemble == (5,)
    x, t = inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            copies(x, t, solver=RK4), model(x, t, solver=RK4).expand(5, -1, -1, -1), rtol=1e-12, atol=1e-13
        )
        copies.c[2] += 1
    assert torch.equal(model.c, before)
    assert torch.equal(copies.c[1], before)


def test_member_undoes_stack_and_replicate_down_to_the_buffers():
    models = [make(seed) for seed in range(3)]
    for ensemble, index, original in ((stack(models), 1, models[1]), (replicate(models[2], 4), -1, models[2])):
        single = member(ensemble, index)
        assert single.ensemble == ()
        assert single.config() == original.config()
        for name, value in original.state_dict().items():
            assert torch.equal(single.state_dict()[name], value), name


@pytest.mark.parametrize(("recurrence", "parameterization"), sorted({(r, f) for _, r, f, _ in combinations()}))
@settings(max_examples=8, deadline=None)
@given(
    cls=st.sampled_from([ContinuousRNN, StateSpaceModel, DiscreteSSM]),
    seeds=st.lists(st.integers(0, 1000), min_size=1, max_size=4),
    half=st.integers(1, 3),
    num_layers=st.integers(1, 2),
    ensemble=st.sampled_from([(), (2,)]),
)
def test_a_stack_has_the_matrices_of_its_members(recurrence, parameterization, cls, seeds, half, num_layers, ensemble):
    options = {"num_layers": num_layers, "ensemble": ensemble, "dtype": F64}
    models = [cls(1, 2 * half, 1, "tanh", recurrence, parameterization, seed=seed, **options) for seed in seeds]
    together = stack(models)
    layers = together.field().layers
    for index, model in enumerate(models):
        single = member(together, index)
        assert all(torch.equal(value, single.state_dict()[name]) for name, value in model.state_dict().items())
        for layer, own in zip(layers, model.field().layers):
            torch.testing.assert_close(layer.W.to_dense()[index], own.W.to_dense(), rtol=1e-13, atol=1e-14)
            torch.testing.assert_close(layer.U[index], own.U, rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(
        together.stability_margin(), torch.stack([model.stability_margin() for model in models]), rtol=1e-9, atol=1e-11
    )


def test_ensembles_nest():
    pair = stack([make(0), make(1)])
    nested = replicate(pair, 3)
    assert nested.ensemble == (3, 2)
    assert torch.equal(member(member(nested, 2), 1).c, make(1).c)


def test_discrete_models_mode_dtype_and_frozen_weights_are_kept():
    model = make(cls=DiscreteRNN, recurrence="diagonal").to(torch.float32).eval()
    model.c.requires_grad_(False)
    copies = replicate(model, 2)
    assert isinstance(copies, DiscreteRNN)
    assert copies.c.dtype == torch.float32
    assert not copies.training
    assert not copies.c.requires_grad
    assert copies.layer_weights[0].U.requires_grad


def test_the_backend_of_discrete_models_is_kept():
    model = make(cls=DiscreteRNN)
    model.backend = "torch"
    assert replicate(model, 2).backend == member(stack([model, model]), 0).backend == "torch"
    with pytest.raises(ValueError, match="differ in backend"):
        stack([model, make(cls=DiscreteRNN)])


def test_models_of_different_kinds_are_refused_with_what_differs():
    with pytest.raises(ValueError, match="parameterization"):
        stack([make(), make(parameterization="exp")])
    with pytest.raises(ValueError, match="model"):
        stack([make(), make(cls=StateSpaceModel)])
    with pytest.raises(ValueError, match="dtype"):
        stack([make(), make().to(torch.float32)])
    with pytest.raises(ValueError, match="at least one"):
        stack([])


def test_bad_counts_and_indices_are_refused():
    with pytest.raises(ValueError, match=r"n is .*integer of at least 1"):
        replicate(make(), 0)
    with pytest.raises(ValueError, match="no ensemble axis"):
        member(make(), 0)
    with pytest.raises(IndexError, match="index"):
        member(replicate(make(), 2), 2)


# --- members solved some after the others ------------------------------------------------------------------------------


class Watched(Fused):
    """Fused, with the bytes of the states that live at the end of each solve."""

    alive: ClassVar[list[Any]] = []
    bytes_alive: ClassVar[list[int]] = []

    def solve(self, field, path, t, h0):
        solution = super().solve(field, path, t, h0)
        self.alive.append(weakref.ref(solution.h))
        self.bytes_alive.append(sum(h.numel() * h.element_size() for h in (one() for one in self.alive) if h is not None))
        return solution


@pytest.fixture
def watched():
    Watched.alive.clear()
    Watched.bytes_alive.clear()
    return Watched(check=False)


def _call(model, solver, x_axes=(), interpolation="linear", batch=5, times=9):
    generator = torch.Generator().manual_seed(1)
    t = torch.cumsum(0.05 + 0.1 * torch.rand(times, generator=generator), 0)
    x = torch.randn(*x_axes, batch, times, model.input_size, generator=generator)
    h0 = torch.randn(*model.ensemble, batch, model.num_layers * model.hidden_size, generator=generator)
    return lambda: model(x, t, h0, solver=solver, interpolation=interpolation)


def _member_bytes(model, batch=5, times=9):
    return 4 * batch * times * model.num_layers * model.hidden_size


@torch.no_grad()
@pytest.mark.parametrize("solver", [None, Fused(substeps=4), Adaptive("bosh3")], ids=["default", "fused", "adaptive"])
@pytest.mark.parametrize("interpolation", ["linear", "hold"])
@pytest.mark.parametrize(
    ("ensemble", "x_axes"), [((5,), ()), ((7,), (7,)), ((3, 4), (4,)), ((3, 4), ()), ((1, 3, 2), (3, 2)), ((4, 1), ())]
)
@pytest.mark.parametrize(("cls", "layers"), [(ContinuousRNN, 1), (ContinuousRNN, 2), (StateSpaceModel, 2)])
def test_some_members_after_the_others_give_the_same_bits(cls, layers, ensemble, x_axes, interpolation, solver, monkeypatch):
    for recurrence, parameterization in (("dense", "direct"), ("diagonal", "softplus"), ("complex", "inverse")):
        model = cls(2, 8, 1, "tanh", recurrence, parameterization, num_layers=layers, ensemble=ensemble, seed=0)
        call = _call(model, solver, x_axes, interpolation)
        whole = call()
        for members in (0.5, 1, 2.5, 100):
            with monkeypatch.context() as patch:
                patch.setattr(readouts, "_MEMBERS_BYTES", int(members * _member_bytes(model)))
                assert torch.equal(call(), whole)


@torch.no_grad()
@pytest.mark.parametrize("ensemble", [(24,), (2, 12), (12, 2), (1, 24)])
def test_the_states_of_all_members_never_exist_at_once(ensemble, watched, monkeypatch):
    model = ContinuousRNN(1, 8, 1, "tanh", ensemble=ensemble, seed=0)
    monkeypatch.setattr(readouts, "_MEMBERS_BYTES", 3 * _member_bytes(model))
    _call(model, watched)()
    assert len(watched.bytes_alive) >= 8
    assert max(watched.bytes_alive) <= 2 * 3 * _member_bytes(model)  # of a part, while those of the one before go


@pytest.mark.parametrize("wanted", ["weights", "x", "c", "nothing"])
def test_members_are_solved_at_once_where_a_gradient_is_wanted(wanted, watched, monkeypatch):
    model = ContinuousRNN(1, 8, 1, "tanh", ensemble=(6,), seed=0).requires_grad_(wanted == "weights")
    model.c.requires_grad_(wanted == "c")
    monkeypatch.setattr(readouts, "_MEMBERS_BYTES", 1)
    t = torch.linspace(0, 1, 9)
    x = torch.sin(t).reshape(1, -1, 1).requires_grad_(wanted == "x")
    y = model(x, t, "zero", solver=watched)
    assert y.requires_grad == (wanted != "nothing")
    assert len(watched.bytes_alive) == (3 if wanted == "nothing" else 1)


@torch.no_grad()
def test_a_solver_whose_members_share_steps_takes_them_all_at_once(monkeypatch):
    model = ContinuousRNN(1, 8, 1, "tanh", ensemble=(6,), seed=0)
    for solver in (TorchDiffEq("dopri5", check=False), Adaptive(backend="torch"), Fused(backend="products", check=False)):
        call = _call(model, solver)
        whole = call()
        with monkeypatch.context() as patch:
            patch.setattr(readouts, "_MEMBERS_BYTES", 1)
            assert not solver.memberwise(model.c)
            assert torch.equal(call(), whole)


@torch.no_grad()
def test_one_diverged_member_of_many_parts_is_refused(monkeypatch):
    model = ContinuousRNN(1, 8, 1, "relu", ensemble=(6,), seed=0)
    model.layer_weights[0].recurrence.W[4] = 1e4 * torch.eye(8)
    monkeypatch.setattr(readouts, "_MEMBERS_BYTES", 1)
    t = torch.linspace(0, 100, 50)
    with pytest.raises(DivergedSolve, match="the solve diverged at t ="):
        model(torch.ones(2, 50, 1), t, "zero", solver=Fused(check=False))
