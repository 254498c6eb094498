from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from problems import F64

from odernn import ContinuousRNN, Data, StateSpaceModel, TrainingConfig, train
from odernn.losses import LOSSES, relative_l2
from odernn.solvers import Fused
from odernn.training import LeastSquares
from targets import inputs

T = torch.linspace(0, 3, 25, dtype=F64)
X = inputs.random_fourier(T, 6, seed=0)
Y = torch.cat([X.cumsum(1) * (T[1] - T[0]), X.sin()], -1)
FUSED = Fused(check=False)


def mask_of(seed: int = 0) -> torch.Tensor:
    return torch.rand(Y.shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def trained(data: Data, optimizer: str, **settings: object) -> dict[str, torch.Tensor]:
    model = ContinuousRNN(1, 3, data.output_size, dtype=F64, seed=0)
    config = TrainingConfig(
        optimizer=optimizer,
        epochs=1 if optimizer == "lm" else 3,
        **({"batch_size": 4} if optimizer == "adam" else {}),
        **settings,
    )
    train(model, data, config, solver=FUSED, progress=False)
    return model.state_dict()


def assert_same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor], tolerance: float) -> None:
    for name, value in left.items():
        assert torch.allclose(value, right[name], rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("optimizer", "tolerance"), [("lm", 1e-5), ("lbfgs", 1e-6), ("adam", 1e-10)])
def test_a_masked_fit_is_that_of_the_data_without_what_is_masked(optimizer: str, tolerance: float, loss: str):
    count = 15
    whole = Data(T[:count], X[:, :count], Y[:, :count], X, Y, t_validation=T)
    mask = (torch.arange(len(T)) < count).expand(len(X), -1)
    masked = Data(T, X, Y, X, Y, mask=mask)
    # (The decay keeps the small singular values of the Jacobian above the error of its differences.)
    one, other = (trained(data, optimizer, loss=loss, weight_decay=1e-2) for data in (whole, masked))
    assert_same(one, other, tolerance)


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs", "adam"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1e30])
def test_the_value_of_a_missing_target_does_not_matter(optimizer: str, value: float):
    mask = mask_of()
    given, spoilt = (Data(T, X, torch.where(mask, Y, fill), X, Y, mask=mask) for fill in (0.0, value))
    assert_same(trained(given, optimizer), trained(spoilt, optimizer), 0.0)
    assert math.isnan(float(spoilt.y[~mask][0]))


def test_nan_in_the_targets_means_what_a_mask_means():
    mask = mask_of()
    data = Data(T, X, torch.where(mask, Y, math.nan), X, Y)
    assert torch.equal(data.mask, mask)
    assert data.mask_validation is None
    both = Data(T, X, data.y, X, Y, mask=mask_of(1))
    assert torch.equal(both.mask, mask & mask_of(1))
    assert Data(T, X, Y, X, Y, mask=torch.ones(Y.shape[:2], dtype=torch.bool)).mask is None


@pytest.mark.parametrize("loss", LOSSES)
def test_least_squares_find_the_readout_of_the_targets_that_are_there(loss: str):
    mask = mask_of()
    data = Data(T, X, Y, X, Y, mask=mask)
    model = StateSpaceModel(1, 3, 2, "tanh", dtype=F64, seed=1)
    problem = LeastSquares(
        model, data, LOSSES[loss], solver=FUSED, interpolation="linear", weight_decay=0.0, penalty=None
    )  # fmt: skip
    point = problem.evaluate()
    z = model.activation(model.respond(X, T, solver=FUSED).solution.h).detach()
    w = torch.ones_like(Y)
    if loss == "time_weighted":
        w = (torch.arange(1, len(T) + 1, dtype=F64) ** 2)[:, None].expand_as(Y)
        w = w / w[mask].mean()
    cost = 0.0
    for output in range(2):
        there = mask[..., output]
        rows, y = w[..., output][there], Y[..., output][there]
        found = torch.linalg.lstsq(rows[:, None] * z[there], (rows * y)[:, None])
        assert torch.allclose(point.c[0, output], found.solution[:, 0], rtol=1e-7, atol=1e-9)
        cost += float((rows * (y - z[there] @ found.solution[:, 0])).square().sum() / mask.sum())
    assert float(point.cost) == pytest.approx(cost, rel=1e-9)


def test_the_jacobian_of_a_masked_problem_is_that_of_its_residuals():
    mask = mask_of()
    data = Data(T, X, Y, X, Y, mask=mask)
    model = ContinuousRNN(1, 3, 2, dtype=F64, seed=1)
    problem = LeastSquares(
        model, data, LOSSES["mse"], solver=FUSED, interpolation="linear", weight_decay=1e-3, penalty=None
    )  # fmt: skip
    point = problem.evaluate()
    problem.move(problem.theta, point.c)
    J, (forwards, backwards) = problem.jacobian(point.basis), problem.products(point.basis)
    v = torch.randn(1, J.shape[-1], dtype=F64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose((J @ v.unsqueeze(-1)).squeeze(-1), forwards(v).flatten(1), rtol=1e-5, atol=1e-7)
    u = torch.randn(1, J.shape[-2], dtype=F64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose((J.mT @ u.unsqueeze(-1)).squeeze(-1), backwards(u.reshape(1, -1, 2)), rtol=1e-5, atol=1e-7)
    assert J.reshape(1, *Y.shape, -1)[:, ~mask].abs().max() < 1e-14  # projections included


def test_the_validation_error_is_over_what_is_there():
    mask = mask_of()
    y = Y + torch.randn(Y.shape, dtype=F64, generator=torch.Generator().manual_seed(2))
    expected = torch.linalg.vector_norm((y - Y)[mask]) / torch.linalg.vector_norm(Y[mask])
    assert float(relative_l2(y, torch.where(mask, Y, math.nan), mask)) == pytest.approx(float(expected), rel=1e-12)


def test_a_split_takes_every_sequence_once_and_the_same_ones_for_the_same_seed():
    one, again, other = (Data.split(T, X, Y, validation_fraction=0.34, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.x_validation, again.x_validation)
    assert not torch.equal(one.x_validation, other.x_validation)
    assert len(one.x_validation) == 2
    everything = torch.cat([one.x, one.x_validation])
    assert sorted(everything[:, 3, 0].tolist()) == sorted(X[:, 3, 0].tolist())
    assert len(Data.split(T, X[:2], Y[:2], validation_fraction=0.01).x_validation) == 1


def test_data_say_what_they_are_in_a_line():
    text = repr(Data.split(T, X, torch.where(mask_of(), Y, math.nan)))
    assert text.startswith("Data(5 sequences to train and 1 to validate, 25 times, 1 channels to 2, ")
    assert "\n" not in text


def test_a_split_takes_arrays():
    mask = mask_of()
    one = Data.split(T.numpy(), X.numpy(), Y.numpy(), mask=mask.numpy())
    other = Data.split(T, X, Y, mask=mask)
    assert torch.equal(one.x_validation, other.x_validation)
    assert torch.equal(one.mask_validation, other.mask_validation)


def test_a_single_sequence_is_split_in_time():
    data = Data.split(T, X[:1], torch.where(mask_of()[:1], Y[:1], math.nan), validation_fraction=0.25)
    assert torch.equal(data.x, data.x_validation)
    assert not (data.mask & data.mask_validation).any()
    assert torch.equal(data.mask | data.mask_validation, mask_of()[:1])
    last = data.mask.any(-1)[0].nonzero().max()
    assert last < data.mask_validation.any(-1)[0].nonzero().min()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.full_like(Y, math.inf)}, "y holds infinite values"),
        ({"y": torch.where(torch.arange(6)[:, None, None] == 4, math.nan, Y)}, "all targets y of sequence 4 are missing"),
        ({"mask": torch.ones(Y.shape)}, r"mask is torch.float32 \(6, 25, 2\), expected a bool tensor \(6, 25\)"),
        ({"mask": torch.ones(6, 24, dtype=torch.bool)}, "expected a bool tensor"),
        ({"x": torch.full_like(X, math.nan)}, "x holds NaN"),
        ({"t": T.expand(6, -1)}, "give t_validation"),
        ({"t": T.expand(5, -1), "t_validation": T}, r"t has shape \(5, 25\)"),
        ({"t": T.flip(0)}, "t is not increasing"),
        ({"t_validation": T[:-1]}, "x, y and t disagree"),
    ],
)
def test_data_that_do_not_fit_are_refused(change: dict[str, torch.Tensor], message: str):
    with pytest.raises(ValueError, match=message):
        replace(Data(T, X, Y, X, Y), **change)


@pytest.mark.parametrize("fraction", [0, 1, math.nan, "half"])
def test_a_split_needs_a_part(fraction: object):
    with pytest.raises(ValueError, match="validation_fraction is"):
        Data.split(T, X, Y, validation_fraction=fraction)  # type: ignore[arg-type]


def test_one_target_cannot_be_split():
    y = torch.full_like(Y[:1], math.nan)
    y[0, 3] = 1.0
    with pytest.raises(ValueError, match="nothing is left for validation"):
        Data.split(T, X[:1], y)


# --- times of each sequence ---

OWN = torch.cumsum(0.05 + torch.rand(6, 25, dtype=F64, generator=torch.Generator().manual_seed(3)) * 0.2, 1)


@pytest.mark.parametrize("optimizer", ["lm", "lbfgs", "adam"])
def test_times_of_each_sequence_that_agree_train_as_times_of_all(optimizer: str):
    shared = Data(T, X, Y, X, Y)
    own = Data(T.expand(6, -1), X, Y, X, Y, t_validation=T)
    one, other = (trained(data, optimizer, weight_decay=1e-2) for data in (shared, own))
    assert_same(one, other, 1e-5)


@pytest.mark.parametrize("cls", [ContinuousRNN, StateSpaceModel])
def test_any_model_trains_on_times_of_each_sequence_by_its_default_solver(cls: type[ContinuousRNN]):
    data = Data.split(OWN, X, Y, mask=mask_of())
    assert data.t.shape == (5, 25)
    assert data.t_validation is not None
    model = cls(1, 3, 2, dtype=F64, seed=0)
    trainer = train(model, data, TrainingConfig(epochs=2), progress=False)
    assert trainer.config.optimizer == "lm"
    assert trainer.history[-1]["loss"] < trainer.history[0]["loss"]
    assert trainer.mean_dt == pytest.approx(float((data.t[:, -1] - data.t[:, 0]).mean() / 24))


def test_mini_batches_take_the_times_of_their_sequences():
    data = Data.split(OWN, X, Y)
    part = data.training[torch.tensor([2, 0])]
    assert torch.equal(part.t, data.t[[2, 0]])
    assert torch.equal(part.x, data.x[[2, 0]])


def test_data_move_with_their_times_in_full_precision():
    data = Data.split(OWN, X, torch.where(mask_of(), Y, math.nan)).to(dtype=torch.float32)
    assert (data.x.dtype, data.y.dtype, data.t.dtype) == (torch.float32, torch.float32, F64)
    assert data.mask is not None
    trainer = train(ContinuousRNN(1, 3, 2, seed=0), data, TrainingConfig(epochs=1), progress=False)
    assert math.isfinite(trainer.best_error)
