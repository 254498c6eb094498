"""The problems that `benchmark.py` times, and what all contenders of one share: the data, the model and its loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from odernn import SequenceModel, Solver
from odernn.models import MODELS
from targets import inputs

# Seconds between samples: rk4 is then about as accurate as float32 on waves; and of noise, whose every sample is a kink.
WAVE_STEP, NOISE_STEP = 0.05, 0.1
WAVES, HIGHEST_FREQUENCY = 4, 2.0
# The problem on which errors are compared has at most so many sequences and samples: the reference takes it in double precision.
ERROR_BATCH, ERROR_TIMES = 8, 200


@dataclass(frozen=True)
class Case:
    """A problem to time.

    Args:
        kind: who is timed on it, see `benchmark_contenders.CONTENDERS`. 'train' a tanh RNN, forward and backward, one step a
            sample; 'call' as the README writes it; 'stack' layers, or a linear state equation; 'structure' a diagonal W; 'wide'
            a W beyond the caches; 'map' a discrete model; 'long' one sequence; 'exact' a diagonal state-space model; 'ensemble'
            runs `members` models forward over the same sequences; 'perturbation' samples E_m(beta) by the papers' protocol;
            'precision' solves forward to many tolerances.
        m, batch, times: hidden size, sequences, samples in each.
        title: what the picture calls it.
        members: models, for 'ensemble' and 'perturbation'.
        model, recurrence, layers: of `odernn.models.MODELS`, and so on.
        noise: whether the input is white noise; else it sums waves.
        device: 'cpu' or 'cuda'.
    """

    name: str
    kind: Literal[
        "train", "call", "stack", "structure", "wide", "map", "long", "exact", "ensemble", "perturbation", "precision"
    ]  # fmt: skip
    m: int
    batch: int
    times: int
    title: str = ""
    members: int = 1
    model: str = "rnn"
    recurrence: str = "dense"
    layers: int = 1
    noise: bool = False
    device: str = "cpu"

    @property
    def step(self) -> float:
        return NOISE_STEP if self.noise else WAVE_STEP


def _call(name: str, kind: Any, title: str, m: int = 32, batch: int = 64, times: int = 200, **options: Any) -> Case:
    return Case(name, kind, m, batch, times, title, noise=True, **options)


_DIAGONAL: Any = {"recurrence": "diagonal"}
CASES = {
    case.name: case
    for case in (
        # The call that a user writes, on white noise.
        _call("call-m32-b64-t200", "call", "tanh RNN, model(x, t)"),
        _call("call-m16-b128-t101", "call", "tanh RNN, model(x, t)", 16, 128, 101),
        _call("rnn-2-layers", "stack", "RNN, 2 layers, model(x, t)", layers=2),
        _call("rnn-4-layers", "stack", "RNN, 4 layers, model(x, t)", layers=4),
        _call("ssm-2-layers", "stack", "SSM, 2 layers, model(x, t)", model="ssm", layers=2),
        _call("ssm-4-layers", "stack", "SSM, 4 layers, model(x, t)", model="ssm", layers=4),
        _call("ssm-diagonal", "stack", "diagonal SSM, model(x, t)", model="ssm", **_DIAGONAL),
        _call("ssm-diagonal-2-layers", "stack", "diagonal SSM, 2 layers, model(x, t)", model="ssm", layers=2, **_DIAGONAL),
        _call("diagonal-rnn-m64", "structure", "RNN of diagonal W", 64, **_DIAGONAL),
        _call("diagonal-rnn-m256", "structure", "RNN of diagonal W", 256, **_DIAGONAL),
        _call("wide-m1024-b16-t50", "wide", "wide tanh RNN", 1024, 16, 50),
        _call("discrete-rnn-m64-b128-t1000", "map", "DiscreteRNN", 64, 128, 1000, model="discrete_rnn"),
        _call("discrete-ssm-m32-b64-t200", "map", "DiscreteSSM, diagonal", model="discrete_ssm", **_DIAGONAL),
        # One step a sample, on smooth inputs.
        Case("rnn-m16-b128-t100", "train", 16, 128, 100, "tanh RNN, one step a sample"),
        Case("rnn-m64-b512-t100", "train", 64, 512, 100, "tanh RNN, one step a sample"),
        Case("rnn-m64-b128-t1000", "train", 64, 128, 1000, "tanh RNN, one step a sample"),
        Case("diagonal-m64-b8-t10000", "exact", 64, 8, 10_000, "diagonal SSM"),
        Case("diagonal-m64-b8-t100000", "exact", 64, 8, 100_000, "diagonal SSM"),
        Case("ensemble-600-m64-b100-t100", "ensemble", 64, 100, 100, "600 RNNs, forward", members=600),
        Case("perturbation-m16-b200-t100", "perturbation", 16, 200, 100, "E_m(β) by the papers' protocol", members=21 * 30),
        Case("perturbation-m64-b1000-t100", "perturbation", 64, 1000, 100, "E_m(β) by the papers' protocol", members=21 * 30),
        # Growth, around the second of these, of ours and the floor.
        *(Case(f"growth-m{m}", "train", m, 256, 100) for m in (8, 32, 128, 512, 1024)),
        *(Case(f"growth-b{batch}", "train", 64, batch, 100) for batch in (16, 64, 256, 1024)),
        *(Case(f"growth-t{times}", "train", 64, 128, times) for times in (30, 300, 3000)),
        *(Case(f"growth-l{layers}", "train", 32, 64, 200, layers=layers) for layers in (1, 2, 4, 8)),
        *(Case(f"long-t{times}", "long", 64, 1, times) for times in (10_000, 100_000, 1_000_000)),
        _call("precision-m32-b16-t100", "precision", "", 32, 16, 100),
    )
}
QUICK_CASES = ("call-m16-b128-t101", "rnn-m16-b128-t100", "diagonal-m64-b8-t10000")


def data(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """t, inputs x and targets y of a case: x is white noise, and y its running sum over the root of the number of its terms; or x
    sums waves of random frequency and phase, and y the same waves later."""
    t = case.step * torch.arange(case.times, dtype=torch.float64)
    if case.noise:
        x = inputs.white_noise(t, case.batch, seed=0)
        y = x.cumsum(-2) / torch.arange(1, case.times + 1, dtype=t.dtype).unsqueeze(-1).sqrt()
    else:
        generator = torch.Generator().manual_seed(0)
        frequency, phase = torch.rand(2, case.batch, WAVES, 1, generator=generator, dtype=torch.float64)
        angle = HIGHEST_FREQUENCY * frequency * t + 2 * math.pi * phase
        x, y = (wave(angle).sum(1).unsqueeze(-1) / math.sqrt(WAVES) for wave in (torch.cos, torch.sin))
    # Through float32, so that every precision solves the same problem; a long time in it would not know its own steps.
    x, y = (value.float().to(case.device, dtype) for value in (x, y))
    return (t if case.kind in ("long", "exact") else t.float().to(dtype)).to(case.device), x, y


def model_of(case: Case, dtype: torch.dtype = torch.float32, ensemble: tuple[int, ...] = (), model: str = "") -> SequenceModel:
    cls = MODELS[model or case.model]
    stable = "softplus" if case.recurrence == "diagonal" and cls.time == "continuous" else "direct"
    return cls(
        1, case.m, 1, "tanh", case.recurrence, stable, num_layers=case.layers, ensemble=ensemble, seed=0, dtype=dtype
    ).to(case.device)  # fmt: skip


def answer(model: SequenceModel, t: Tensor, x: Tensor, solver: Solver | None) -> Tensor:
    return model(x, t, "zero", solver=solver)


def small(case: Case) -> Case:
    return replace(case, batch=min(case.batch, ERROR_BATCH), times=min(case.times, ERROR_TIMES))


def has_errors(case: Case) -> bool:
    """Whether its contenders are compared with a reference."""
    return case.kind in ("train", "call", "stack", "structure", "wide", "map") and not case.name.startswith("growth")


def weights_of(model: SequenceModel) -> dict[str, Tensor]:
    """The raw weights by name, those of the first layer by the last part of it: W, U, b and c."""
    return {name.removeprefix("layers.0.").removeprefix("recurrence."): weight for name, weight in model.named_parameters()}
