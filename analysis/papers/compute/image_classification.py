"""Training runs of [IA] Fig 9 and [StableSSM] Table 2: images, as sequences of pixels, classified by the last output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from odernn.models import ContinuousModel, ContinuousRNN, StateSpaceModel
from odernn.paths import hold
from odernn.solvers import Exact, Fused, Solver

from ..engine.figure import job
from . import images
from .images import Images

_CLASSES = 10
# Test sequences at a time: bounds memory.
_TEST_BATCH = 2000
# A rate that every parameterisation reaches, the inverse one up to 2.
_FASTEST = 1.9


@job("image-rnn")
def train_rnn(
    source: dict[str, str],
    parameterization: str,
    hidden_size: int,
    rates: list[float],
    steps_per_pixel: int,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    recurrent_learning_rate: float | None = None,
    folder: str = "",
) -> dict[str, Any]:
    """Trains h_{k+1} = h_k + Dt tanh(W h_k + U x_k + b), y = c^T h(T), W = P^T diag(f(w)) P: Dt = 1, x_k the pixel of that time.

    The seed decides W, U, c and the order of the images: they are the same for all parameterisations.

    Args:
        source, folder: as in `images.DataSet`.
        parameterization: f.
        hidden_size: m.
        rates: slowest and fastest eigenvalue of -W at the start, log-uniform between.
        steps_per_pixel: steps Dt = 1 for which each pixel is held; T = pixels * steps.
        learning_rate, epochs, batch_size: of Adam.
        seed: of initial weights and batches.
        recurrent_learning_rate: that of w, where it has one of its own; 0 leaves the eigenvalues as they are.

    Returns:
        See `_train`.
    """
    model = initial_rnn(parameterization, hidden_size, rates, seed)
    # Euler steps of a held input are the discrete RNN.
    solver = Fused("euler", substeps=steps_per_pixel, check=False)  # the Euler map itself is the model here
    data = images.load(source, folder)
    return _train(model, solver, data, steps_per_pixel, learning_rate, epochs, batch_size, seed, recurrent_learning_rate)


@job("image-ssm")
def train_ssm(
    source: dict[str, str],
    parameterization: str,
    hidden_size: int,
    rates: list[float],
    steps_per_pixel: int,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    recurrent_learning_rate: float | None = None,
    growing: bool = False,
    euler: bool = False,
    folder: str = "",
) -> dict[str, Any]:
    """Trains dh/dt = diag(f(w)) h + U x + b, y = c^T tanh(h(T)), solved exactly; each pixel x is held for
    `steps_per_pixel` units of time.

    U starts in proportion to the rates, so that slow and fast modes begin with states of one size. Arguments and result as of
    `train_rnn`; `growing`: the eigenvalues start with the opposite sign, which only the direct parameterisation can take;
    `euler`: solved by Euler steps of length 1, which bear eigenvalues down to -2.
    """
    model = initial_ssm(parameterization, hidden_size, rates, seed, growing)
    data = images.load(source, folder)
    solver = Fused("euler", substeps=steps_per_pixel, check=False) if euler else Exact()
    return _train(model, solver, data, steps_per_pixel, learning_rate, epochs, batch_size, seed, recurrent_learning_rate)


def initial_rnn(parameterization: str, hidden_size: int, rates: list[float], seed: int) -> ContinuousRNN:
    """The model of `train_rnn` before training, in float32."""
    generator = torch.Generator().manual_seed(seed)
    model = ContinuousRNN(1, hidden_size, _CLASSES, "tanh", "symmetric", parameterization, seed=generator, dtype=torch.float64)
    P, _ = torch.linalg.qr(torch.randn(hidden_size, hidden_size, generator=generator, dtype=torch.float64))
    W = P.mT @ (_eigenvalues(rates, hidden_size, generator).unsqueeze(-1) * P)
    # Exactly symmetric: the product is so up to rounding alone.
    model.set_matrix((W + W.mT) / 2)
    return model.float()


def initial_ssm(parameterization: str, hidden_size: int, rates: list[float], seed: int, growing: bool = False) -> StateSpaceModel:
    """The model of `train_ssm` before training, in float32."""
    generator = torch.Generator().manual_seed(seed)
    model = StateSpaceModel(1, hidden_size, _CLASSES, "tanh", "diagonal", parameterization, seed=generator, dtype=torch.float64)
    eigenvalues = _eigenvalues(rates, hidden_size, generator)
    model.set_matrix(torch.diag(-eigenvalues if growing else eigenvalues))
    with torch.no_grad():
        model.layer_weights[0].U.mul_(-eigenvalues.unsqueeze(-1))
    return model.float()


def last_output(model: ContinuousModel, solver: Solver, x: Tensor, steps_per_pixel: int) -> Tensor:
    """y(T), (batch, output), from h(0) = 0 on pixels x (batch, pixels, 1), each held; what diverged comes as it is."""
    # The last sample of a held path has no effect.
    t = steps_per_pixel * torch.arange(x.shape[1] + 1, dtype=x.dtype)
    path = hold(t, torch.cat([x, x[:, -1:]], 1))
    solution = model.solve(path, t[[0, -1]], "zero", solver=solver, check=False)
    return model.field().readout(solution.h[:, -1])


def _eigenvalues(rates: list[float], count: int, generator: torch.Generator) -> Tensor:
    slowest, fastest = rates
    if not 0 < slowest <= fastest <= _FASTEST:
        raise ValueError(f"rates must lie in (0, {_FASTEST}], where all parameterisations can take them, got {rates}")
    return -slowest * (fastest / slowest) ** torch.rand(count, generator=generator, dtype=torch.float64)


def _train(
    model: ContinuousModel,
    solver: Solver,
    data: Images,
    steps_per_pixel: int,
    learning_rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    recurrent_learning_rate: float | None = None,
) -> dict[str, Any]:
    """Adam on the cross entropy of the last output.

    Returns:
        "loss" of training, "test_loss", "test_accuracy" after each epoch; NaN from the epoch on in which the loss or a weight
        stopped being finite. "margin": -max Re l at the end, negative: unstable.
    """

    def logits(x: Tensor) -> Tensor:
        return last_output(model, solver, x, steps_per_pixel)

    w = model.layer_weights[0].recurrence.w
    others = [weight for weight in model.parameters() if weight is not w]
    own = learning_rate if recurrent_learning_rate is None else recurrent_learning_rate
    groups: list[dict[str, Any]] = [{"params": others, "lr": learning_rate}, {"params": [w], "lr": own}]
    optimizer = torch.optim.Adam(groups)
    generator = torch.Generator().manual_seed(seed)
    history: dict[str, list[float]] = {"loss": [], "test_loss": [], "test_accuracy": []}
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(data.x), generator=generator).split(batch_size):
            loss = cross_entropy(logits(data.x[batch]), data.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch) / len(data.x)
            if not math.isfinite(total):
                break
        test_loss, accuracy = _test(logits, data) if math.isfinite(total) else (math.nan, math.nan)
        if not math.isfinite(test_loss):
            for values in history.values():
                values += [math.nan] * (epochs - len(values))
            break
        for name, value in (("loss", total), ("test_loss", test_loss), ("test_accuracy", accuracy)):
            history[name].append(value)
    with torch.no_grad():
        return {**history, "margin": float(model.stability_margin())}


@torch.no_grad()
def _test(logits: Callable[[Tensor], Tensor], data: Images) -> tuple[float, float]:
    """Mean cross entropy and part of the test set that is classified rightly."""
    outputs = torch.cat([logits(x) for x in data.x_test.split(_TEST_BATCH)])
    hits = (outputs.argmax(-1) == data.labels_test).double().mean()
    return float(cross_entropy(outputs, data.labels_test)), float(hits)
