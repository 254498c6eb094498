"""Train a continuous-time model on a target functional of known memory.

python scripts/train_ode.py --activation tanh
python scripts/train_ode.py --resume runs/DIR
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from command_line import INTERRUPTED, Parser, fail, run

from analysis.memory import memory_function
from analysis.plotting import plot_memory, plot_training
from odernn import activations, models, parameterizations, recurrences
from odernn.experiment import DEVICES, DTYPES, SOLVERS, Experiment, ExperimentConfig, read_config
from odernn.losses import LOSSES
from odernn.runs import RunDirectory
from odernn.training import OPTIMIZERS, SCHEDULES, TrainingConfig
from targets import INPUTS, KERNELS
from targets.functionals import NONLINEARITIES

PROGRAM = "train_ode.py"


def parser() -> Parser:
    result = Parser("Train a continuous-time model on a target H_t(x) = int rho(t-s) x(s) ds of known memory rho.")
    defaults, training = ExperimentConfig(), TrainingConfig()

    def add(group: Any, flag: str, help: str, default: Any, **options: Any) -> None:
        # The default is shown but not set: a flag that was not given is absent, which --resume relies on.
        shown = "none" if default is None else default
        group.add_argument(f"--{flag}", default=argparse.SUPPRESS, help=f"{help} (default: {shown})", **options)

    group = result.add_argument_group("model")
    add(group, "model", "kind of model", defaults.model, choices=models.MODELS)
    add(group, "activation", "sigma", defaults.activation, choices=activations.ACTIVATIONS)
    add(group, "recurrence", "structure of W", defaults.recurrence, choices=recurrences.RECURRENCES)
    add(
        group,
        "parameterization",
        "eigenvalues l = f(w)",
        defaults.parameterization,
        choices=parameterizations.PARAMETERIZATIONS,
    )
    add(group, "hidden-size", "m, entries of the state of one layer", defaults.hidden_size, type=int)
    add(group, "num-layers", "layers", defaults.num_layers, type=int)
    add(group, "warm-start", "run directory of a narrower model to start from", defaults.warm_start, metavar="DIR")

    group = result.add_argument_group("target and inputs")
    add(
        group,
        "kernel",
        f"rho: {', '.join(KERNELS)}, with parameters as in polynomial:exponent=1.1, or a callable as module:function or "
        "file.py:function",
        defaults.kernel,
    )
    add(group, "nonlinearity", "psi of the target psi(int rho x)", "none", choices=("none", *NONLINEARITIES))
    add(group, "inputs", "ensemble of the inputs x", defaults.inputs, choices=INPUTS)
    add(group, "amplitude", "standard deviation of x", defaults.amplitude, type=float)
    add(group, "horizon", "T: time runs over [0, T]", defaults.horizon, type=float)
    add(group, "points", "samples of time", defaults.points, type=int)
    add(group, "train-size", "training sequences", defaults.train_size, type=int)
    add(group, "validation-size", "validation sequences", defaults.validation_size, type=int)
    add(group, "interpolation", "x between its samples", defaults.interpolation, choices=("linear", "hold"))

    group = result.add_argument_group("solver")
    add(
        group,
        "solver",
        "integrator; auto: the cheapest that keeps to --solver-tolerance on a few training sequences at the start",
        defaults.solver,
        choices=SOLVERS,
    )
    add(
        group,
        "solver-tolerance",
        "deviation from a tight dopri5 that auto allows, relative",
        defaults.solver_tolerance,
        type=float,
    )
    add(group, "substeps", "steps per sample of --solver fused", defaults.substeps, type=int)
    add(
        group,
        "adjoint",
        "torchdiffeq's adjoint for gradients, or --no-adjoint: backpropagation",
        defaults.adjoint,
        action=argparse.BooleanOptionalAction,
    )
    add(group, "rtol", "relative tolerance of adaptive solvers", defaults.rtol, type=float)
    add(group, "atol", "absolute tolerance of adaptive solvers", defaults.atol, type=float)
    add(group, "step-size", "largest step of fixed-step solvers; none: one step a sample", None, type=float)

    group = result.add_argument_group("training")
    add(group, "optimizer", "optimiser", training.optimizer, choices=OPTIMIZERS)
    add(group, "epochs", "passes over the data (lbfgs: rounds of --iterations steps)", training.epochs, type=int)
    add(group, "iterations", "steps of lbfgs per epoch", training.iterations, type=int)
    add(group, "batch-size", "sequences per step", "128 for adam and adamw; lbfgs takes all", type=int)
    add(group, "lr", "learning rate", "1 for lbfgs, 0.005 for adam and adamw", type=float)
    add(group, "schedule", "of the learning rate", training.schedule, choices=SCHEDULES)
    add(group, "gradient-clip", "largest gradient norm of adam and adamw", training.gradient_clip, type=float)
    add(group, "patience", "epochs without improvement before stopping; 0: never", training.patience, type=int)
    add(group, "loss", "loss", training.loss, choices=LOSSES)
    add(group, "weight-decay", "adds weight_decay (|U|^2 + |c|^2) to the loss", training.weight_decay, type=float)
    add(group, "margin", "stability margin asked for by the penalty", training.margin, type=float)
    add(group, "margin-weight", "weight of the stability-margin penalty", training.margin_weight, type=float)

    group = result.add_argument_group("run")
    add(group, "seed", "of weights, inputs and mini-batches", defaults.seed, type=int)
    add(group, "device", "auto takes CUDA where there is one", defaults.device, choices=DEVICES)
    add(group, "dtype", "floating-point type", defaults.dtype, choices=DTYPES)
    add(group, "out", "run directory to make", "runs/DATE-TIME-MODEL-ACTIVATION", metavar="DIR")
    group.add_argument("--overwrite", action="store_true", default=False, help="replace the run that --out holds")
    add(group, "resume", "run directory to go on with; of the other flags only --epochs may be given", None, metavar="DIR")
    return result


def prepare(arguments: dict[str, Any]) -> tuple[Experiment, RunDirectory]:
    """The experiment and its directory, new or resumed; everything is validated before anything is written."""
    overwrite = arguments.pop("overwrite")
    if "resume" in arguments:
        run_directory = RunDirectory.open(Path(arguments.pop("resume")))
        unexpected = sorted(set(arguments) - {"epochs"})
        if unexpected or overwrite:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in unexpected or ["overwrite"])
            raise ValueError(f"--resume goes on with the settings of its run, got {names} as well: leave them out")
        config = read_config(run_directory)
        config = replace(config, training=replace(config.training, **arguments))
        # The checkpoint holds what a warm start began with.
        experiment = Experiment(replace(config, warm_start=None))
        experiment.resume(run_directory)
        run_directory.write_config({"experiment": config.as_dict()})
        return experiment, run_directory
    ignored = sorted({"rtol", "atol", "step_size", "substeps"} & set(arguments)) if "solver" not in arguments else []
    if ignored:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise ValueError(f"--solver auto sets its own steps, got {names} as well: leave that out, or name a solver")
    out = arguments.pop("out", None)
    of_training = set(TrainingConfig.__dataclass_fields__) - {"seed"}
    training = {key: arguments.pop(key) for key in of_training & set(arguments)} | {"seed": arguments.get("seed", 0)}
    location, colon, attribute = arguments.get("kernel", "").rpartition(":")
    if location.endswith(".py"):
        arguments["kernel"] = f"{Path(location).resolve()}{colon}{attribute}"  # so that --resume works from any directory
    config = ExperimentConfig(**arguments, training=TrainingConfig(**training))
    if out is None:
        out = f"runs/{datetime.now():%Y%m%d-%H%M%S}-{config.model}-{config.activation}"
    experiment = Experiment(config)
    return experiment, RunDirectory.create(Path(out), {"experiment": experiment.config.as_dict()}, overwrite=overwrite)


def main() -> None:
    experiment, run_directory = prepare(vars(parser().parse_args()))
    config, path = experiment.config, run_directory.path
    print(f"{config.model} {config.activation}, m = {config.hidden_size}, kernel {config.kernel}; run directory {path}")
    if experiment.solver is not None:
        print(f"solver {experiment.solver}, within {experiment.solver_deviation():.1e} of a tight one")
    try:
        summary = experiment.train(run_directory)
    except KeyboardInterrupt:
        message = f"interrupted after epoch {experiment.trainer.epoch}; go on with: python scripts/{PROGRAM} --resume {path}"
        fail(PROGRAM, message, INTERRUPTED)
    except ArithmeticError as error:
        fail(PROGRAM, f"{error}. The checkpoint of the last good epoch is kept: --resume {path}", 1)
    draw(experiment, path)
    rows = {
        "validation relative L2 error": f"{100 * summary['validation_relative_l2']:.3g} %",
        "stability margin": f"{summary['stability_margin']:.4g}",
        "slowest rate": f"{summary['slowest_rate']:.4g}",
        "vector-field evaluations": f"{summary['evaluations_training']} ({summary['evaluations_per_solve']} per solve)",
        "seconds": f"{summary['seconds']:.1f}",
    }
    width = max(map(len, rows))
    print("\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items()))
    print(f"wrote {', '.join(sorted(file.name for file in path.iterdir()))} to {path}")


def draw(experiment: Experiment, path: Path) -> None:
    """training.png and memory.png."""
    if experiment.trainer.history:
        plot_training(experiment.trainer.history, path / "training.png")
    t = experiment.t
    M, rho = (memory_function(system, t, amplitudes=(1.0,)) for system in (experiment.model, experiment.target))
    plot_memory(M, path / "memory.png", target=(rho.times, rho.values))


if __name__ == "__main__":
    run(PROGRAM, main)
