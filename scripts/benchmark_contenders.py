"""The contenders of `benchmark.py`, one on one case in a process of its own.

python scripts/benchmark_contenders.py '{"case": ..., "contender": "fused rk4", "threads": 2, "gradient": "FILE.npz"}'

It answers with a line of JSON when it is ready, then with one for every line it is sent: the seconds of some more runs.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from odernn import ContinuousRNN, DiscreteRNN, Exact, Fused, SequenceModel, Solver, StateSpaceModel, TorchDiffEq, paths

# Seconds between samples: rk4 is then about as accurate as float32.
SAMPLE_STEP = 0.05
WAVES, HIGHEST_FREQUENCY = 4, 2.0
# The problem on which gradients are compared has this many sequences: the reference takes it in double precision.
GRADIENT_BATCH = 8
MIB = 2**20
# Contenders take turns: seconds until the threads of the one before have gone to sleep, and what counts as a short run, of which
# a turn has several.
SETTLE, SHORT, RUNS_IN_A_TURN = 0.1, 0.3, 5


@dataclass(frozen=True)
class Case:
    """A problem to time.

    Args:
        kind: 'train' a tanh RNN (forward and backward); 'exact' trains a diagonal state-space model; 'ensemble' runs `members`
            models forward over the same sequences; 'perturbation' samples E_m(beta) by the papers' protocol.
        m, batch, times: hidden size, sequences, samples in each.
        members: models, for 'ensemble' and 'perturbation'.
        device: 'cpu' or 'cuda'.
    """

    name: str
    kind: Literal["train", "exact", "ensemble", "perturbation"]
    m: int
    batch: int
    times: int
    members: int = 1
    device: str = "cpu"

    @property
    def contenders(self) -> tuple[str, ...]:
        return tuple(name for name in CONTENDERS[self.kind] if self.device == "cpu" or name not in _CPU_ONLY)


@dataclass(frozen=True)
class Trial:
    """A prepared contender: `run` does the work once; `gradient`, where it has one, gives those of W, U, b and c. It has `share`
    of the case's work, and its time is divided by that."""

    run: Callable[[], None]
    gradient: Callable[[], dict[str, np.ndarray]] | None = None
    share: float = 1.0


def data(case: Case, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """t, inputs x and targets y of a case: x sums waves of random frequency and phase, y the same waves later."""
    generator = torch.Generator().manual_seed(0)
    t = SAMPLE_STEP * torch.arange(case.times, dtype=torch.float64)
    frequency, phase = torch.rand(2, case.batch, WAVES, 1, generator=generator, dtype=torch.float64)
    angle = HIGHEST_FREQUENCY * frequency * t + 2 * math.pi * phase
    x, y = (wave(angle).sum(1).unsqueeze(-1) / math.sqrt(WAVES) for wave in (torch.cos, torch.sin))
    # Through float32, so that every precision solves the same problem.
    return tuple(value.float().to(case.device, dtype) for value in (t, x, y))


def rnn(
    case: Case, dtype: torch.dtype = torch.float32, cls: type[ContinuousRNN | DiscreteRNN] = ContinuousRNN
) -> ContinuousRNN | DiscreteRNN:
    model = cls(1, case.m, 1, "tanh", "dense", dtype=dtype, seed=0).to(case.device)
    if isinstance(model, DiscreteRNN):
        model.backend = "torch"  # the plain loop, for comparison
    return model


def loss(model: SequenceModel, t: Tensor, x: Tensor, y: Tensor, solver: Solver | None) -> Tensor:
    return ((model(x, t, "zero", solver=solver) - y) ** 2).mean()


def weights_of(model: SequenceModel) -> dict[str, Tensor]:
    layer = model.layer_weights[0]
    return {"W": layer.recurrence.get_parameter("W"), "U": layer.U, "b": layer.get_parameter("b"), "c": model.c}


def gradients_of(model: SequenceModel) -> dict[str, np.ndarray]:
    gradients = {name: weight.grad for name, weight in weights_of(model).items()}
    return {name: gradient.double().cpu().numpy() for name, gradient in gradients.items() if gradient is not None}


def small(case: Case) -> Case:
    return replace(case, batch=min(case.batch, GRADIENT_BATCH))


# --- training a tanh RNN ----------------------------------------------------------------------------------------------


def _torch_trial(
    case: Case,
    loss_of: Callable[..., Tensor],
    cls: type[ContinuousRNN | DiscreteRNN] = ContinuousRNN,
    dtype: torch.dtype = torch.float32,
) -> Trial:
    """`loss_of(model, t, x, y)` is what is differentiated."""
    model, problem = rnn(case, dtype, cls), data(case, dtype)

    def run() -> None:
        model.zero_grad()
        loss_of(model, *problem).backward()

    def gradient() -> dict[str, np.ndarray]:
        model = rnn(case, dtype, cls)
        loss_of(model, *data(small(case), dtype)).backward()
        return gradients_of(model)

    return Trial(run, gradient)


def with_solver(solver: Solver | None, **options: Any) -> Callable[[Case], Trial]:
    return lambda case: _torch_trial(case, partial(loss, solver=solver), **options)


def _jax_trial(case: Case, states: Callable[..., Any]) -> Trial:
    """`states(jax, jnp, weights, x)` gives h, (time, batch, m), from 0."""
    import jax
    import jax.numpy as jnp

    weights = {name: jnp.asarray(weight.detach().numpy()) for name, weight in weights_of(rnn(case)).items()}

    def problem(case: Case) -> list[Any]:
        return [jnp.asarray(value.numpy()) for value in data(case)[1:]]

    def value(weights: dict[str, Any], x: Any, y: Any) -> Any:
        h = states(jax, jnp, weights, x)
        return jnp.mean((jnp.swapaxes(h, 0, 1) @ weights["c"].T - y) ** 2)

    step, given = jax.jit(jax.value_and_grad(value)), problem(case)

    def run() -> None:
        jax.block_until_ready(step(weights, *given))

    def gradient() -> dict[str, np.ndarray]:
        found = step(weights, *problem(small(case)))[1]
        return {name: np.asarray(g, np.float64) for name, g in found.items()}

    return Trial(run, gradient)


def lax_scan_rk4(case: Case) -> Trial:
    """A hand-written RK4 (3/8 rule) in jax.lax.scan, the drive of all times in one product."""

    def states(jax: Any, jnp: Any, weights: dict[str, Any], x: Any) -> Any:
        drive = jnp.swapaxes(x @ weights["U"].T + weights["b"], 0, 1)  # (time, batch, m)
        W, D = weights["W"].T, SAMPLE_STEP

        def step(h: Any, ends: Any) -> Any:
            left, right = ends
            slope = (right - left) / 3
            k1 = jnp.tanh(h @ W + left)
            k2 = jnp.tanh((h + D / 3 * k1) @ W + left + slope)
            k3 = jnp.tanh((h + D * (k2 - k1 / 3)) @ W + left + 2 * slope)
            k4 = jnp.tanh((h + D * (k1 - k2 + k3)) @ W + right)
            h = h + D / 8 * (k1 + 3 * (k2 + k3) + k4)
            return h, h

        h0 = jnp.zeros(drive.shape[1:], drive.dtype)
        _, h = jax.lax.scan(step, h0, (drive[:-1], drive[1:]))
        return jnp.concatenate([h0[None], h])

    return _jax_trial(case, states)


def diffrax_tsit5(case: Case) -> Trial:
    """diffrax, Tsit5 with one step a sample, its default adjoint."""
    import diffrax

    def states(jax: Any, jnp: Any, weights: dict[str, Any], x: Any) -> Any:
        t = SAMPLE_STEP * jnp.arange(case.times, dtype=x.dtype)
        path = diffrax.LinearInterpolation(t, jnp.swapaxes(x, 0, 1))

        def rate(s: Any, h: Any, weights: dict[str, Any]) -> Any:
            return jnp.tanh(h @ weights["W"].T + path.evaluate(s) @ weights["U"].T + weights["b"])

        h0 = jnp.zeros((x.shape[0], case.m), x.dtype)
        h = diffrax.diffeqsolve(
            diffrax.ODETerm(rate),
            diffrax.Tsit5(),
            t[0],
            t[-1],
            None,
            h0,
            args=weights,
            saveat=diffrax.SaveAt(steps=True),
            stepsize_controller=diffrax.StepTo(t),
            max_steps=case.times - 1,
        ).ys
        return jnp.concatenate([h0[None], h])

    return _jax_trial(case, states)


def torchode_tsit5(case: Case) -> Trial:
    """torchode, Tsit5 with one step a sample, backpropagation through the solver."""
    import torchode

    def loss_of(model: ContinuousRNN | DiscreteRNN, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        field = model.field()
        rows = torch.arange(x.shape[0])

        def rate(s: Tensor, h: Tensor) -> Tensor:
            k = (s / SAMPLE_STEP).long().clamp(0, t.numel() - 2)
            fraction = ((s - t[k]) / SAMPLE_STEP).unsqueeze(-1)
            return field(h, torch.lerp(x[rows, k], x[rows, k + 1], fraction))

        term = torchode.ODETerm(rate)
        solver = torchode.AutoDiffAdjoint(torchode.Tsit5(term=term), torchode.FixedStepController())
        evaluation = t.expand(x.shape[0], -1)
        problem = torchode.InitialValueProblem(y0=x.new_zeros(x.shape[0], case.m), t_eval=evaluation)
        h = solver.solve(problem, dt0=torch.full_like(t[:1], SAMPLE_STEP).expand(x.shape[0])).ys
        return ((h @ model.c.mT - y) ** 2).mean()

    return _torch_trial(case, loss_of)


# Rows of one product: few enough for the caches of a core, enough to fill a GPU.
_FLOOR_ROWS = {"cpu": 4096, "cuda": 2**18}


def sgemm_floor(products: int) -> Callable[[Case], Trial]:
    """The products (rows, m) x (m, m) of rk4 and nothing else: 4 a step forward, and twice 4 backward; on a GPU the roofline. In
    blocks of rows that caches hold, so that this is the speed of the library's sgemm and not of memory."""

    def prepare(case: Case) -> Trial:
        rows = 4 * case.members * case.batch * (case.times - 1)
        block = min(rows, _FLOOR_ROWS[case.device])
        left, W = torch.randn(block, case.m, device=case.device), torch.randn(case.m, case.m, device=case.device)
        out, square = torch.empty_like(left), torch.empty_like(W)

        def run() -> None:
            for _ in range(rows // block):
                for _ in range(min(products, 2)):
                    torch.mm(left, W, out=out)
                if products == 3:
                    torch.mm(left.T, left, out=square)

        return Trial(run, share=rows // block * block / rows)

    return prepare


# --- an exact diagonal model ------------------------------------------------------------------------------------------


def diagonal(solver: Solver, share: float = 1.0) -> Callable[[Case], Trial]:
    """On that share of the samples: for what takes minutes on all of them and is linear in their number."""

    def prepare(case: Case) -> Trial:
        model = StateSpaceModel(1, case.m, 1, "tanh", "diagonal", "softplus", seed=0).to(case.device)
        t, x, y = data(replace(case, times=max(3, round(case.times * share))))

        def run() -> None:
            model.zero_grad()
            loss(model, t, x, y, solver).backward()

        return Trial(run, share=t.numel() / case.times)

    return prepare


# --- an ensemble, forward ---------------------------------------------------------------------------------------------


def together(solver: Solver) -> Callable[[Case], Trial]:
    """All members in one solve. (Every member has the same weights here: that makes no difference to a solver.)"""

    def prepare(case: Case) -> Trial:
        single = rnn(case)
        model = ContinuousRNN(1, case.m, 1, "tanh", "dense", ensemble=(case.members,), seed=0)
        model.load_state_dict({name: w.expand(case.members, *w.shape) for name, w in single.state_dict().items()})
        model.to(case.device)
        t, x, _ = data(case)
        path = paths.linear(t, x)

        @torch.no_grad()
        def run() -> None:
            model.solve(path, t, "zero", solver=solver)

        return Trial(run)

    return prepare


def one_by_one(solver: Solver, share: float = 1.0) -> Callable[[Case], Trial]:
    def prepare(case: Case) -> Trial:
        model = ContinuousRNN(1, case.m, 1, "tanh", "dense", seed=0).to(case.device)
        t, x, _ = data(case)
        path = paths.linear(t, x)
        members = max(1, round(case.members * share))

        @torch.no_grad()
        def run() -> None:
            for _ in range(members):
                model.solve(path, t, "zero", solver=solver)

        return Trial(run, share=members / case.members)

    return prepare


def sampled_perturbations(case: Case) -> Trial:
    """E_m(beta) on the published radii, the same number of draws for each but 0."""
    from analysis.perturbation import PUBLISHED_BETAS, perturbation_error

    model, (t, x, y) = rnn(case), data(case)
    draws = case.members // (len(PUBLISHED_BETAS) - 1)

    def run() -> None:
        perturbation_error(model, y, x, t, PUBLISHED_BETAS, search="sample", draws=draws)

    return Trial(run)


# The first of each kind is ours, and what the others are compared with.
CONTENDERS: dict[str, dict[str, Callable[[Case], Trial]]] = {
    "train": {
        "fused rk4": with_solver(Fused("rk4")),
        "fused heun2": with_solver(Fused("heun2")),
        "fused rk4, torch": with_solver(Fused("rk4", backend="torch")),
        "torchdiffeq adjoint rk4": with_solver(TorchDiffEq("rk4", adjoint=True)),
        "torchdiffeq backprop rk4": with_solver(TorchDiffEq("rk4", adjoint=False)),
        "torchdiffeq adjoint dopri5": with_solver(TorchDiffEq("dopri5", 1e-4, 1e-4, adjoint=True)),
        "torchdiffeq backprop dopri5": with_solver(TorchDiffEq("dopri5", 1e-4, 1e-4, adjoint=False)),
        "diffrax Tsit5": diffrax_tsit5,
        "torchode Tsit5": torchode_tsit5,
        "lax.scan rk4": lax_scan_rk4,
        "Python Euler loop": with_solver(None, cls=DiscreteRNN),
        "sgemm floor": sgemm_floor(3),
    },
    "exact": {
        "exact": diagonal(Exact()),
        "exact, torch": diagonal(Exact(backend="torch"), share=0.05),
        "torchdiffeq adjoint rk4": diagonal(TorchDiffEq("rk4", adjoint=True), share=0.01),
        "torchdiffeq backprop rk4": diagonal(TorchDiffEq("rk4", adjoint=False), share=0.01),
    },
    "ensemble": {
        "fused rk4": together(Fused("rk4")),
        "fused rk4, one by one": one_by_one(Fused("rk4")),
        "torchdiffeq rk4, one by one": one_by_one(TorchDiffEq("rk4", adjoint=False), share=0.02),
        "sgemm floor": sgemm_floor(1),
    },
    "perturbation": {
        "perturbation_error": sampled_perturbations,
        "torchdiffeq rk4, one by one": one_by_one(TorchDiffEq("rk4", adjoint=False), share=0.02),
    },
}
REFERENCE = with_solver(TorchDiffEq("dopri5", 1e-9, 1e-11, adjoint=False), dtype=torch.float64)
_CPU_ONLY = ("diffrax Tsit5", "lax.scan rk4")
_NEEDS = {"diffrax Tsit5": ("jax", "diffrax"), "torchode Tsit5": ("torchode",), "lax.scan rk4": ("jax",)}


def missing(contender: str) -> tuple[str, ...]:
    """Packages that a contender needs and that are not installed."""
    return tuple(name for name in _NEEDS.get(contender, ()) if importlib.util.find_spec(name) is None)


def memory(device: str) -> float:
    """Memory of the device in use, MiB: on the CPU what is resident (where the system tells, else its peak)."""
    if device == "cuda":
        return torch.cuda.memory_allocated() / MIB
    statm = Path("/proc/self/statm")
    if not statm.exists():
        return peak_memory(device)
    return int(statm.read_text().split()[1]) * resource.getpagesize() / MIB


def peak_memory(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MIB


def main() -> None:
    task = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):  # the one limit that all libraries keep to
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["threads"]])
    torch.set_num_threads(task["threads"])
    case = Case(**task["case"])
    if task["contender"] == "reference":
        gradient = REFERENCE(replace(case, device="cpu")).gradient
        assert gradient is not None
        np.savez(task["gradient"], **gradient())  # type: ignore[arg-type]
        return
    trial = CONTENDERS[case.kind][task["contender"]](case)
    before = memory(case.device)

    def timed() -> float:
        start = time.perf_counter()
        trial.run()
        if case.device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / trial.share

    answer = {"first_s": timed() * trial.share, "share": trial.share}
    timed()
    answer["memory_mib"] = max(0.0, peak_memory(case.device) - before)
    if trial.gradient is not None and task["gradient"]:
        np.savez(task["gradient"], **trial.gradient())  # type: ignore[arg-type]
    print(json.dumps(answer), flush=True)
    for _ in sys.stdin:
        time.sleep(SETTLE)
        seconds = [timed()]
        if seconds[0] * trial.share < SHORT:
            seconds = [timed() for _ in range(RUNS_IN_A_TURN)]  # the first one woke threads and caches up
        print(json.dumps({"seconds": seconds}), flush=True)


def as_task(case: Case, contender: str, threads: int, gradient: str) -> str:
    return json.dumps({"case": asdict(case), "contender": contender, "threads": threads, "gradient": gradient})


if __name__ == "__main__":
    main()
