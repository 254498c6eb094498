"""Training in chunks of time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from odernn import ContinuousRNN, Data, DiscreteSSM, Fused, Trainer, TrainingConfig, train
from odernn.losses import relative_l2

T = torch.linspace(0, 4, 41, dtype=torch.float64)


def data(missing=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 41, 1, generator=generator, dtype=torch.float64)
    y = torch.tanh(x.cumsum(1) / 5)
    if missing:
        y = torch.where(torch.rand(y.shape, generator=generator) < 0.3, torch.nan, y)
        y[:, 10:21] = torch.nan  # a chunk without targets
    return Data(T, x[:4], y[:4], x[4:], y[4:])


def trained(chunk, *, missing=False, kind=ContinuousRNN, epochs=2, **options):
    model = kind(1, 4, 1, seed=0, dtype=torch.float64)
    solver = None if model.is_map else Fused(check=False)
    config = TrainingConfig(**{"optimizer": "adam", "epochs": epochs, "batch_size": 2, "chunk": chunk, **options})
    trainer = Trainer(model, data(missing), config, solver=solver)
    trainer.run(progress=False)
    return trainer


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("loss", ["mse", "time_weighted"])
@pytest.mark.parametrize("kind", [ContinuousRNN, DiscreteSSM])
def test_a_chunk_as_long_as_the_sequence_changes_nothing(kind, loss, missing):
    whole, chunked = (trained(chunk, missing=missing, kind=kind, loss=loss) for chunk in (None, 40))
    for one, other in zip(whole.model.parameters(), chunked.model.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    losses = [[row["loss"] for row in trainer.history] for trainer in (whole, chunked)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert whole.history[-1]["validation_relative_l2"] == pytest.approx(chunked.history[-1]["validation_relative_l2"], rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 40, 100])
@pytest.mark.parametrize("missing", [False, True])
def test_the_validation_error_is_that_of_whole_sequences(chunk, missing):
    trainer = trained(chunk, missing=missing, epochs=0)
    held = trainer.data.validation
    with torch.no_grad():
        expected = float(relative_l2(trainer.model(held.x, held.t, solver=Fused(check=False)), held.y, held.mask))
    assert trainer.validation_error() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", ["mse", "time_weighted"])
def test_steps_are_those_of_truncated_backpropagation(loss):
    """Against a loop in plain PyTorch."""
    trainer = trained(10, loss=loss, epochs=1, batch_size=4)
    model = ContinuousRNN(1, 4, 1, seed=0, dtype=torch.float64)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    samples = data().training
    weights = torch.arange(1, 42, dtype=torch.float64)[:, None] ** 2
    weights = weights / weights.mean() if loss == "time_weighted" else torch.ones_like(weights)
    h = None
    for begin in range(0, 40, 10):
        window = slice(begin, begin + 11)
        y, h = model(samples.x[:, window], T[window], h, solver=Fused(check=False), return_state=True)
        new, h = slice(int(begin > 0), None), h.detach()
        error = (weights[window] * (y - samples.y[:, window]))[:, new]
        optimizer.zero_grad()
        error.square().mean().backward()
        optimizer.step()
    for one, other in zip(trainer.model.parameters(), model.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_chunks_learn():
    model = ContinuousRNN(1, 4, 1, seed=0, dtype=torch.float64)
    before = Trainer(model, data(), TrainingConfig(optimizer="adam")).validation_error()
    trainer = train(model, data(), TrainingConfig(optimizer="adam", epochs=30, chunk=8, batch_size=2), progress=False)
    assert trainer.best_error < 0.8 * before


def test_a_resumed_training_goes_on_bit_for_bit():
    whole, first = trained(8, epochs=4), trained(8, epochs=2)
    model = ContinuousRNN(1, 4, 1, seed=1, dtype=torch.float64)
    later = Trainer(model, data(), replace(first.config, epochs=4), solver=Fused(check=False))
    later.load_state_dict(first.state_dict())
    later.run(progress=False)
    for one, other in zip(whole.model.parameters(), model.parameters()):
        assert torch.equal(one, other)


@pytest.mark.parametrize("optimizer", ["auto", "lm", "lbfgs"])
def test_optimizers_that_need_all_data_take_no_chunks(optimizer):
    with pytest.raises(ValueError, match="chunk is for adam, adamw"):
        TrainingConfig(optimizer=optimizer, chunk=8)
    with pytest.raises(ValueError, match="chunk"):
        TrainingConfig(optimizer="adam", chunk=0)


def test_auto_chooses_a_solver_for_the_training_and_keeps_to_its_tolerance():
    model = ContinuousRNN(1, 4, 1, seed=0, dtype=torch.float64)
    trainer = Trainer(model, data(), TrainingConfig(optimizer="adam", epochs=1), solver="auto")
    first = trainer.solver
    assert isinstance(first, Fused)
    with torch.no_grad():
        model.layers[0].U.mul_(30)
    trainer.run(progress=False)
    assert trainer.solver.substeps > first.substeps
