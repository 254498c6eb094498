from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, combinations, perturb_bias

from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel
from odernn.ensembles import member, replicate, stack
from odernn.solvers import TorchDiffEq

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
