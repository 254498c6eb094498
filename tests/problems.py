"""Problems with known solutions, for every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from odernn import ContinuousRNN, SequenceModel, StateSpaceModel
from odernn.activations import ACTIVATIONS
from odernn.models import ContinuousModel
from odernn.parameterizations import PARAMETERIZATIONS
from odernn.paths import Path
from odernn.recurrences import RECURRENCES

F64 = torch.float64


def combinations(models: tuple[type[SequenceModel], ...] = (ContinuousRNN, StateSpaceModel)) -> Iterator[tuple]:
    """(model class, recurrence, parameterisation, activation) of everything that constructs."""
    for cls, recurrence, parameterization, activation in product(models, RECURRENCES, PARAMETERIZATIONS, ACTIVATIONS):
        if recurrence != "dense" or parameterization == "direct":
            yield cls, recurrence, parameterization, activation


def perturb_bias(model: SequenceModel, scale: float = 0.3) -> SequenceModel:
    """Gives b values other than its initial 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in model.layer_weights:
            layer.b.copy_(scale * torch.randn(layer.b.shape, generator=generator, dtype=F64))
    return model


def linear_kernel(model: SequenceModel, t: Tensor) -> Tensor:
    """rho(t) = c^T e^{Wt} U of a linear model by matrix exponential, (time, output, d)."""
    layer = model.layer_weights[0].effective()
    return (model.c @ torch.linalg.matrix_exp(layer.W.to_dense() * t[:, None, None]) @ layer.U).detach()


def dop853(model: ContinuousModel, path: Path, t: Tensor, h0: Tensor, tolerance: float = 1e-12) -> Tensor:
    """h at times t (batch, time, state) by SciPy's DOP853, interval by interval of the path."""
    field = model.field()
    edges = torch.cat([path.times, t]).unique()
    edges = edges[(edges >= t[0]) & (edges <= t[-1])]
    pieces = path.on(edges)
    states = {float(t[0]): h0.numpy()}
    h = h0.numpy()
    for k in range(edges.numel() - 1):
        left, right = float(edges[k]), float(edges[k + 1])
        start, end = pieces.start[..., k, :], pieces.end[..., k, :]

        def rate(s: float, flat: np.ndarray, left=left, right=right, start=start, end=end, shape=h.shape) -> np.ndarray:
            with torch.no_grad():
                x = start + (s - left) / (right - left) * (end - start)
                return field(torch.from_numpy(flat.reshape(shape).copy()), x).numpy().ravel()

        h = solve_ivp(rate, (left, right), h.ravel(), method="DOP853", rtol=tolerance, atol=tolerance).y[:, -1].reshape(h.shape)
        states[right] = h
    return torch.from_numpy(np.stack([states[float(s)] for s in t], -2))


def central_difference(f, parameter: Tensor, step: float = 1e-5) -> Tensor:
    """Gradient of the scalar f() in every entry of a parameter; error O(step^2)."""
    gradient = torch.zeros_like(parameter)
    with torch.no_grad():
        flat, out = parameter.view(-1), gradient.view(-1)
        for index in range(flat.numel()):
            value = flat[index].item()
            flat[index] = value + step
            above = float(f())
            flat[index] = value - step
            out[index] = (above - float(f())) / (2 * step)
            flat[index] = value
    return gradient
