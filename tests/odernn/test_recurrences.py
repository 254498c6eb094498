from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import F64, combinations

from odernn import ContinuousRNN, DiscreteRNN, DiscreteSSM, StateSpaceModel, parameterizations
from odernn.experiment import ExperimentConfig
from odernn.models import build
from odernn.recurrences import INITIAL_RATES, OLD_NAMES, RECURRENCES, FreeBasis, Symmetric, create, register
from odernn.state_matrices import DiagonalMatrix

ALL = (ContinuousRNN, StateSpaceModel, DiscreteRNN, DiscreteSSM)
STRUCTURES = sorted({(cls, recurrence, parameterization) for cls, recurrence, parameterization, _ in combinations(ALL)}, key=str)


def make(cls, recurrence, parameterization, m=6, **arguments):
    return cls(2, m, 1, "tanh", recurrence, parameterization, dtype=F64, **arguments)


def matrix(model):
    return model.layer_weights[0].recurrence.state_matrix()


@pytest.mark.parametrize(("cls", "recurrence", "parameterization"), STRUCTURES)
def test_the_spectrum_is_that_of_the_effective_matrix(cls, recurrence, parameterization):
    model = make(cls, recurrence, parameterization, ensemble=(3,))
    expected = torch.linalg.eigvals(matrix(model).to_dense())

    def order(z):
        return sorted(z.tolist(), key=lambda value: (round(value.real, 9), round(value.imag, 9)))

    for got, want in zip(model.spectrum(), expected):
        assert torch.allclose(torch.tensor(order(got)), torch.tensor(order(want)), atol=1e-10)
    if model.time == "continuous":
        assert torch.allclose(model.stability_margin(), -expected.real.amax(-1))
    else:
        assert torch.allclose(model.stability_margin(), 1 - expected.abs().amax(-1))


@pytest.mark.parametrize(("cls", "recurrence", "parameterization"), STRUCTURES)
def test_initial_rates_lie_in_the_stated_range(cls, recurrence, parameterization):
    spectrum = make(cls, recurrence, parameterization, m=64).spectrum()
    rates = -spectrum.real if cls.time == "continuous" else -spectrum.abs().log()
    low, high = INITIAL_RATES
    assert rates.min() >= low - 1e-9
    assert rates.max() <= high + 1e-9
    assert rates.max() > 2 * rates.min()


@pytest.mark.parametrize(("cls", "recurrence", "parameterization"), STRUCTURES)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 1000), half=st.integers(1, 4), ensemble=st.sampled_from([(), (3,), (2, 2)]))
def test_any_matrix_of_its_form_can_be_set(cls, recurrence, parameterization, seed, half, ensemble):
    generator = torch.Generator().manual_seed(seed)
    source, model = (make(cls, recurrence, parameterization, 2 * half, ensemble=ensemble, seed=generator) for _ in range(2))
    with torch.no_grad():
        for name, weight in source.layer_weights[0].recurrence.named_parameters():
            if name != "P":  # once P has left the orthogonal matrices W is no longer symmetric up to rounding
                weight += 0.3 * torch.randn(weight.shape, dtype=F64, generator=generator)
    W = matrix(source).to_dense().detach()
    model.set_matrix(W)
    torch.testing.assert_close(matrix(model).to_dense().detach(), W, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_modal_recurrences_are_those_whose_stability_f_decides(recurrence):
    cls = RECURRENCES[recurrence]
    for time, model in (("continuous", ContinuousRNN), ("discrete", DiscreteSSM)):
        recurrence_of = make(model, recurrence, "direct").layer_weights[0].recurrence
        with torch.no_grad():
            for name, weight in recurrence_of.named_parameters():
                if name != "w":
                    weight += torch.randn(weight.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
        spectrum = recurrence_of.spectrum()
        found = (spectrum.real if time == "continuous" else spectrum.abs()).max()
        w = getattr(recurrence_of, "w", torch.zeros(1, dtype=F64))
        assert torch.isclose(found, w.max(), rtol=1e-9) == cls.modal


def test_names_of_earlier_versions_are_taken_and_those_of_now_written():
    for (old, new), cls in zip(OLD_NAMES.items(), (Symmetric, FreeBasis)):
        model = make(ContinuousRNN, old, "exp", seed=3)
        assert type(model.layer_weights[0].recurrence) is cls
        assert model.config()["recurrence"] == new
        config = ExperimentConfig(recurrence=old)
        assert config == ExperimentConfig.from_dict(config.to_dict() | {"recurrence": old}) == ExperimentConfig(recurrence=new)
        assert config.to_dict()["recurrence"] == new
        assert config.identity()["recurrence"] == old  # checkpoints are sealed with a fingerprint of it
        again = build(model.config() | {"recurrence": old}, seed=3, dtype=F64)
        for name, value in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], value)


def test_a_name_stands_for_one_class():
    for name in ("dense", "symmetric"):
        with pytest.raises(ValueError, match=f"'{name}' is the name of odernn.recurrences"):
            register(type("Another", (Symmetric,), {"name": name}))
    assert register(Symmetric) is Symmetric


def test_a_weight_without_a_description_is_named():
    one = {"name": "forgetful", "raw_weights": lambda self: {"w": self._eigenvalue_weight()}}
    forgetful = type("Forgetful", (Symmetric,), one)
    with pytest.raises(ValueError, match="'forgetful' describes w, but it holds A, P0, w"):
        forgetful(2, parameterizations.get("exp"), (), None)


def test_every_parameterization_starts_from_the_same_given_matrix():
    Q, _ = torch.linalg.qr(torch.randn(6, 6, dtype=F64))
    rates = torch.tensor([0.2, 0.3, 0.5, 0.7, 0.8, 0.9], dtype=F64)
    symmetric, diagonal = -Q.mT @ torch.diag(rates) @ Q, -torch.diag(rates)
    pairs = DiagonalMatrix(-rates[:3], torch.tensor([0.0, 1.0, -2.0], dtype=F64)).to_dense()
    starts = {"symmetric": symmetric, "free_basis": symmetric, "diagonal": diagonal, "complex": pairs}
    starts["dense"] = torch.randn(6, 6, dtype=F64)
    starts["lru"] = DiagonalMatrix(-rates[:3], torch.tensor([1e-6, 1.0, 2.0], dtype=F64)).to_dense()
    for cls, recurrence, parameterization in STRUCTURES:
        if cls is ContinuousRNN:
            model = make(cls, recurrence, parameterization)
            model.set_matrix(starts[recurrence])
            assert torch.allclose(matrix(model).to_dense(), starts[recurrence], atol=1e-12), (recurrence, parameterization)


def test_discrete_complex_modes_keep_modulus_and_phase():
    W = DiagonalMatrix(torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([0.5, 0.4], dtype=F64)).to_dense()
    model = make(DiscreteSSM, "complex", "exp", m=4)
    model.set_matrix(W)
    assert torch.allclose(matrix(model).to_dense(), W, atol=1e-12)


@pytest.mark.parametrize("cls", ALL)
def test_an_lru_starts_with_the_normalisation_of_its_modes(cls):
    # [LRU] Eq 7: gamma = sqrt(1 - |l|^2), of the modes that the discrete time step of one unit makes.
    for parameterization in ("exp", "softplus", "lru"):
        layer = make(cls, "lru", parameterization, ensemble=(2,)).layer_weights[0]
        value = layer.recurrence.parameterization(layer.recurrence.w.detach())
        residual = parameterization == "lru" and cls.time == "continuous"
        modulus = value if cls.time == "discrete" else 1 + value if residual else value.exp()
        expected = (1 - modulus**2).sqrt().repeat_interleave(2, -1).unsqueeze(-1) * layer.U
        torch.testing.assert_close(layer.recurrence.scale_input(layer.U), expected, rtol=1e-12, atol=0)
        # It is a weight of its own from then on.
        layer.recurrence.w.data.add_(1.0)
        torch.testing.assert_close(layer.recurrence.scale_input(layer.U), expected, rtol=1e-12, atol=0)


def test_the_frequencies_of_an_lru_are_moved_by_a_factor_and_those_of_complex_modes_by_beta():
    W = DiagonalMatrix(torch.tensor([-1e-3, -0.5], dtype=F64), torch.tensor([1e-3, 0.5], dtype=F64)).to_dense()
    moved = {}
    for recurrence, weight in (("complex", "omega"), ("lru", "theta_log")):
        model = make(ContinuousRNN, recurrence, "exp", m=4)
        model.set_matrix(W)
        with torch.no_grad():
            getattr(model.layer_weights[0].recurrence, weight).add_(0.1)
        moved[recurrence] = matrix(model).eigenvalue.imag.detach()
    torch.testing.assert_close(moved["complex"], torch.tensor([0.101, 0.6], dtype=F64))
    torch.testing.assert_close(moved["lru"], torch.tensor([1e-3, 0.5], dtype=F64) * math.exp(0.1))


def test_a_discrete_lru_takes_frequencies_up_to_a_full_turn():
    W = DiagonalMatrix(torch.tensor([0.5, -0.3], dtype=F64), torch.tensor([0.5, -0.4], dtype=F64)).to_dense()
    model = make(DiscreteSSM, "lru", "exp", m=4)
    model.set_matrix(W)
    torch.testing.assert_close(matrix(model).to_dense(), W, rtol=0, atol=1e-12)


def test_the_orthogonal_basis_stays_orthogonal_under_any_change_of_its_weights():
    model = make(ContinuousRNN, "symmetric", "softplus")
    recurrence = model.layer_weights[0].recurrence
    rates = recurrence.parameterization(recurrence.w.detach())
    with torch.no_grad():
        recurrence.A.add_(torch.randn(6, 6, dtype=F64))
    P = recurrence.basis()
    assert torch.allclose(P @ P.mT, torch.eye(6, dtype=F64), atol=1e-12)
    eigenvalues = torch.linalg.eigvalsh(recurrence.state_matrix().to_dense())
    assert torch.allclose(eigenvalues, rates.sort().values, atol=1e-12)


def test_a_free_basis_can_leave_the_stable_region_that_f_keeps():
    model = make(ContinuousRNN, "free_basis", "direct")
    with torch.no_grad():
        model.layer_weights[0].recurrence.w[0] = 0.5
    assert model.stability_margin() < 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(ContinuousRNN, "dense", "softplus"), "takes only the parameterization 'direct'"),
        (lambda: make(ContinuousRNN, "banded", "direct"), "expected one of dense, diagonal"),
        (lambda: make(ContinuousRNN, "complex", "exp", m=5), "even hidden size"),
        (lambda: make(ContinuousRNN, "lru", "exp", m=5), "even hidden size"),
        (
            lambda: make(ContinuousRNN, "lru", "exp").set_matrix(-torch.eye(6)),
            "got a block .* with w = 0: choose recurrence 'complex'",
        ),
        (lambda: make(ContinuousRNN, "diagonal", "exp").set_matrix(torch.ones(6, 6)), "needs a diagonal W"),
        (lambda: make(ContinuousRNN, "symmetric", "exp").set_matrix(torch.randn(6, 6)), "needs a symmetric W"),
        (lambda: make(ContinuousRNN, "complex", "exp").set_matrix(torch.randn(6, 6)), "2 x 2 blocks"),
        (lambda: make(ContinuousRNN, "diagonal", "exp").set_matrix(torch.eye(6)), "reaches eigenvalues in"),
        (lambda: make(ContinuousRNN, "dense", "direct").set_matrix(torch.eye(5)), "6, 6"),
        (lambda: create("dense", 2.5, parameterizations.get("direct"), (), None), "size is 2.5"),
        (lambda: create("dense", 2, "direct", (), None), "parameterization is a str"),
        (lambda: create("dense", 2, parameterizations.get("direct"), 3, None), "ensemble is 3"),
        (lambda: create("dense", 2, parameterizations.get("direct"), (), 0), "generator is a int"),
        (lambda: make(ContinuousRNN, "dense", "direct").set_matrix(torch.full((6, 6), torch.nan)), "NaN"),
    ],
)
def test_impossible_structures_say_what_to_choose(call, message):
    with pytest.raises(ValueError, match=message):
        call()
