from __future__ import annotations

import pytest
import torch

from analysis import Family, family_curves, judge_stable_approximation, train_family
from odernn.solvers import DivergedSolve
from odernn.training import Trainer
from targets import ConvolutionalFunctional, kernels

POLYNOMIAL = ConvolutionalFunctional(kernels.polynomial(1.1))
SMALL = {"widths": (2, 4), "horizon": 60.0, "points": 61, "sequences": 6, "steps": 60, "starts": 2}
FAST = {"betas": [0.0, 0.003, 0.01, 0.03, 0.1], "draws": 4, "restarts": 1, "steps": 6}


def test_wider_models_start_from_narrower_ones_and_end_no_worse():
    seen = []
    family = Family(recurrence="orthogonal", parameterization="softplus", **SMALL)
    trained = train_family(family, POLYNOMIAL, lambda m, error: seen.append((m, error)))
    assert [model.hidden_size for model in trained] == [2, 4]
    assert [m for m, _ in seen] == [2, 4]
    assert seen[1][1] < seen[0][1] < 0.3
    curves = family_curves(family, trained, POLYNOMIAL, **FAST)
    assert [(curve.hidden_size, curve.block_choice) for curve in curves] == [
        (2, "recurrent"),
        (2, "all"),
        (4, "recurrent"),
        (4, "all"),
    ]
    assert curves[0].relative_initial == pytest.approx(seen[0][1], rel=1e-3)  # other steps of the solver
    assert judge_stable_approximation(curves).widths == (2, 4)


def test_the_same_seed_trains_the_same_models():
    family = Family(**{**SMALL, "steps": 10, "widths": (2,)}, seed=3)
    first, second = (train_family(family, POLYNOMIAL)[0] for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters()):
        assert torch.equal(a, b)


def test_inputs_show_fast_slow_and_constant_sequences():
    family = Family(**SMALL)
    x = family.test_inputs()
    assert x.shape == (6, 61, 1)
    assert not torch.equal(x, family.training_inputs())
    roughness = x.diff(dim=1).square().mean((1, 2)) / x.square().mean((1, 2))
    assert roughness[:3].mean() > 10 * roughness[3:].mean()
    assert (x[-1] == 1).all()


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "unstable"), ({"recurrence": "orthogonal", "parameterization": "softplus"}, "stable")],
    ids=["dense direct", "orthogonal softplus"],
)
def test_a_tanh_family_on_a_power_law_is_judged_as_the_theory_says(options, expected):
    # [IA] Thm 3.9: no stable approximation, unless the parameterisation keeps every perturbed spectrum stable.
    family = Family(**options, widths=(2, 4, 8), steps=150)
    search = {"betas": [0.0, 1e-3, 4e-3, 1.5e-2, 5e-2], "draws": 4, "restarts": 1, "steps": 5}
    curves = family_curves(family, train_family(family, POLYNOMIAL), POLYNOMIAL, **search)
    assert judge_stable_approximation(curves).judgement == expected


def test_a_start_that_diverges_is_replaced_by_the_next(monkeypatch):
    family, run, calls = Family(**{**SMALL, "steps": 10}), Trainer.run, []

    def diverges_first(trainer, **options):
        # Start 0 of width 2, start 0 of width 4.
        calls.append(trainer.model.hidden_size)
        if len(calls) in (1, 3):
            raise DivergedSolve("here")
        return run(trainer, **options)

    monkeypatch.setattr(Trainer, "run", diverges_first)
    assert [model.hidden_size for model in train_family(family, POLYNOMIAL)] == [2, 4]
    assert calls == [2, 2, 4, 4]


def test_a_width_of_which_every_start_diverges_is_an_error(monkeypatch):
    def diverges(*_, **__):
        raise DivergedSolve("the state is not finite")

    monkeypatch.setattr(Trainer, "run", diverges)
    with pytest.raises(DivergedSolve, match="all 2 starts of width 2 diverged, the last: the state is not finite"):
        train_family(Family(**SMALL), POLYNOMIAL)
