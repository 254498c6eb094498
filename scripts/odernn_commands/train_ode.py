"""Train a continuous-time model on a target functional of known memory, or on data of your own.

python scripts/train_ode.py --activation tanh
python scripts/train_ode.py --data recordings.csv
python scripts/train_ode.py --resume runs/DIR
"""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.experiments import draw_run as draw
from analysis.experiments import new_run
from odernn import activations, models, parameterizations, recurrences
from odernn.experiment import DEVICES, DTYPES, INITIALIZATIONS, INTERPOLATIONS, SOLVERS, Experiment, ExperimentConfig, read_config
from odernn.experiment.config import GENERATED
from odernn.losses import LOSSES
from odernn.runs import RunDirectory
from odernn.training import OPTIMIZERS, REGULARIZERS, SCHEDULES, TrainingConfig
from odernn.training.data import VALIDATION_FRACTION
from targets import INPUTS, KERNELS, kernels
from targets.functionals import NONLINEARITIES
from targets.kernels import names_code
from targets.named_objects import resolved

from .command_line import FAILED, INTERRUPTED, Parser, called, fail, limit_memory, listing, naming, program, require_memory

PROGRAM = program("train_ode.py")


def parser() -> Parser:
    result = Parser("Train a continuous-time model on a target H_t(x) = int rho(t-s) x(s) ds of known memory rho.")
    defaults, training = ExperimentConfig(), TrainingConfig()

    def add(group: Any, flag: str, help: str, default: Any, *short: str, **options: Any) -> None:
        # The default is shown but not set: a flag that was not given is absent, which --resume relies on.
        shown = "none" if default is None else default
        group.add_argument(f"--{flag}", *short, default=argparse.SUPPRESS, help=f"{help} (default: {shown})", **options)

    group = result.add_argument_group("model")
    code = "or code of yours as module:function or file.py:function"
    add(group, "model", f"kind of model: {', '.join(models.MODELS)}, {code} that makes one", defaults.model)
    add(group, "activation", f"sigma: {', '.join(activations.ACTIVATIONS)}, {code}", defaults.activation)
    add(group, "tau", "time constant of the models leaky and leaky_voltage", 1, type=float)
    add(
        group, "recurrence", "structure of W", defaults.recurrence, type=recurrences.current_name, choices=recurrences.RECURRENCES
    )
    add(
        group,
        "parameterization",
        "eigenvalues l = f(w)",
        defaults.parameterization,
        choices=parameterizations.PARAMETERIZATIONS,
    )
    add(group, "hidden-size", "m, entries of the state of one layer", defaults.hidden_size, type=int)
    add(group, "num-layers", "layers", defaults.num_layers, type=int)
    add(
        group,
        "initialization",
        "of the eigenvalues: random, or a spectrum scaled to T, as geometric: rates from 1/T to 1",
        defaults.initialization,
        "--init",
        choices=INITIALIZATIONS,
    )
    add(
        group,
        "rescale-readout",
        "divide the readout by the square root of tau first, so that outputs are of the order of 1",
        defaults.rescale_readout,
        action=argparse.BooleanOptionalAction,
    )
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
    add(group, "interpolation", "x between its samples", defaults.interpolation, choices=INTERPOLATIONS)

    group = result.add_argument_group("data of your own, in place of target and inputs")
    add(group, "data", "file .npz, .csv or .pt with t, x, y; NaN or an empty cell in y: a missing target", None, metavar="FILE")
    add(
        group,
        "validation-fraction",
        "part of its sequences that validates, unless it says which",
        VALIDATION_FRACTION,
        type=float,
    )

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
    add(
        group,
        "optimizer",
        "optimiser; auto: lm (Levenberg-Marquardt) where it fits, that is in float64, compiled and not too large, else lbfgs",
        training.optimizer,
        choices=OPTIMIZERS,
    )
    add(group, "epochs", "passes over the data (lm and lbfgs: rounds of --iterations steps)", training.epochs, type=int)
    add(group, "iterations", "steps of lm and lbfgs per epoch", "1 for lm, 10 for lbfgs", type=int)
    add(group, "batch-size", "sequences per step", "128 for adam and adamw; lm and lbfgs take all", type=int)
    add(group, "lr", "learning rate", "1 for lbfgs, 0.005 for adam and adamw", type=float)
    add(group, "schedule", "of the learning rate", training.schedule, choices=SCHEDULES)
    add(group, "gradient-clip", "largest gradient norm of adam and adamw", training.gradient_clip, type=float)
    add(group, "patience", "epochs without improvement before stopping; 0: never", training.patience, type=int)
    add(group, "chunk", "time steps after which adam and adamw cut backpropagation; none: whole sequences", None, type=int)
    add(group, "loss", "loss", training.loss, choices=LOSSES)
    add(group, "weight-decay", "adds weight_decay (|U|^2 + |c|^2) to the loss", training.weight_decay, type=float)
    add(group, "margin", "stability margin asked for by the penalty", training.margin, type=float)
    add(group, "margin-weight", "weight of the stability-margin penalty", training.margin_weight, type=float)

    add(
        group,
        "regularizer",
        "tau adds the generalisation measure tau to the loss, for models that are linear in their state (ssm, or linear)",
        training.regularizer,
        choices=REGULARIZERS,
    )
    add(group, "regularizer-weight", "weight of the regulariser", "0.01", type=float)

    group = result.add_argument_group("run")
    add(group, "seed", "of weights, inputs and mini-batches", defaults.seed, type=int)
    add(group, "device", "auto takes CUDA where there is one", defaults.device, choices=DEVICES)
    add(group, "dtype", "floating-point type", defaults.dtype, choices=DTYPES)
    add(group, "out", "run directory to make", "runs/DATE-TIME-MODEL-ACTIVATION", metavar="DIR")
    group.add_argument("--overwrite", action="store_true", default=False, help="replace the run that --out holds")
    group.add_argument(
        "--trust-code",
        action="store_true",
        default=False,
        help="run the code that the run of --resume or --warm-start names as its kernel, model or activation",
    )
    result.add_max_memory(group)
    add(
        group,
        "resume",
        "run directory to go on with; takes only --epochs and --max-memory beside it",
        None,
        metavar="DIR",
    )
    result.arrange(dict.fromkeys(("model", "target and inputs", "training", "run", "solver"), ()))
    return result


def prepare(arguments: dict[str, Any], held: ExitStack) -> tuple[Experiment, RunDirectory]:
    """The experiment and its directory, new or resumed; everything is validated before anything is written.

    The directory stays locked until `held` is closed.
    """
    overwrite, trust_code = arguments.pop("overwrite"), arguments.pop("trust_code")
    memory = arguments.pop("max_memory")
    limit_memory(memory)
    if "resume" in arguments:
        run_directory = RunDirectory.open(Path(arguments.pop("resume")))
        unexpected = sorted(set(arguments) - {"epochs"})
        if unexpected or overwrite:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in unexpected or ["overwrite"])
            raise ValueError(f"--resume goes on with the settings of its run, got {names} as well: leave them out")
        held.enter_context(run_directory.writing())
        config = read_config(run_directory, trust_code=trust_code)
        config = replace(config, training=replace(config.training, **arguments))
        # The checkpoint holds what a warm start began with.
        experiment = Experiment(config, warm=False)
        experiment.resume(run_directory)
        return experiment, run_directory
    ignored = sorted({"rtol", "atol", "step_size", "substeps"} & set(arguments)) if "solver" not in arguments else []
    if ignored:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise ValueError(f"--solver auto sets its own steps, got {names} as well: leave that out, or name a solver")
    taken = [name for name in GENERATED if name in arguments]
    if "data" in arguments and taken:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in taken)
        raise ValueError(f"--data brings its own inputs and targets, got {names} as well: leave that out")
    if "validation_fraction" in arguments and "data" not in arguments:
        raise ValueError("--validation-fraction is for --data: leave it out, or take --validation-size")
    out = arguments.pop("out", None)
    of_training = set(TrainingConfig.__dataclass_fields__) - {"seed"}
    training = {key: arguments.pop(key) for key in of_training & set(arguments)} | {"seed": arguments.get("seed", 0)}
    for name in {"kernel", "model", "activation"} & set(arguments):
        arguments[name] = resolved(arguments[name])  # so that --resume works from any directory
    config = ExperimentConfig(**arguments, training=TrainingConfig(**training))
    _require_memory(config, memory)
    if config.data is None and not names_code(config.kernel):
        with naming("--kernel"):
            kernels.load(config.kernel)
    experiment = Experiment(config, trust_code=trust_code)
    run_directory = new_run(experiment, out, overwrite=overwrite)
    held.callback(run_directory.unlock)
    return experiment, run_directory


def _require_memory(config: ExperimentConfig, limit: float) -> None:
    """Refuses what cannot fit: the data, the states of one solve, and the weights with their gradients."""
    m, layers, sequences = max(config.hidden_size, 0), max(config.num_layers, 0), config.train_size + config.validation_size
    require_memory(4 * 8.0 * sequences * config.points, "--points, --train-size and --validation-size", limit)
    require_memory(4 * 8.0 * m * m * layers, "--hidden-size and --num-layers", limit)
    states = 8.0 * config.validation_size * config.points * m * layers
    require_memory(states, "--points, --validation-size, --hidden-size and --num-layers", limit)


def main() -> None:
    with ExitStack() as held:
        experiment, run_directory = prepare(vars(parser().parse_args()), held)
        train(experiment, run_directory)


def train(experiment: Experiment, run_directory: RunDirectory) -> None:
    config, path = experiment.config, run_directory.path
    learnt = f"kernel {config.kernel}" if config.data is None else f"data {config.data}"
    print(f"{config.model} {config.activation}, m = {experiment.model.hidden_size}, {learnt}; run directory {path}")
    if experiment.solver is not None:
        print(f"solver {experiment.solver}, {_deviation(experiment.solver_deviation())} at the initial weights")
    if run_directory.others():
        print(f"{path} also holds what is not of this run: {', '.join(run_directory.others())}")
    resume = f"--resume {path}" + (" --trust-code" if config.code() else "")
    try:
        summary = experiment.train(run_directory)
        draw(experiment, path)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing to add
        message = f"interrupted after epoch {experiment.trainer.epoch}; go on with: {called()} {resume}"
        fail(PROGRAM, message, INTERRUPTED)
    except ArithmeticError as error:
        fail(PROGRAM, f"{error}. The checkpoint of the last good epoch is kept: {resume}", 1)
    except OSError as error:
        reason = f"{error.filename or path}: {error.strerror or error}"
        fail(PROGRAM, f"{reason}: the checkpoint of the last epoch is kept; make room, then {resume}", FAILED)
    rows = {
        "validation relative L2 error": f"{100 * summary['validation_relative_l2']:.3g} %",
        "stability margin": f"{summary['stability_margin']:.4g}",
        "slowest rate": f"{summary['slowest_rate']:.4g}",
        **({"generalisation measure tau": f"{summary['tau']:.4g}"} if "tau" in summary else {}),
        "vector-field evaluations": f"{summary['evaluations_training']} ({summary['evaluations_per_solve']} per solve)",
        "stopped": f"{summary['stopped']} after {summary['epochs']} epochs of {experiment.config.training.optimizer}",
        "seconds": f"{summary['seconds']:.1f}",
    }
    if experiment.solver is not None:
        rows["solver"] = f"{experiment.solver}, {_deviation(summary['solver_deviation'])}"
    print(listing(rows))
    found, allowed = summary["solver_deviation"], experiment.config.solver_tolerance
    if found is not None and found > allowed:
        print(
            f"{PROGRAM}: warning: the trained model is {found:.1e} from a tight solve, more than the {allowed:.0e} of "
            "--solver-tolerance: these numbers are those of its steps; leave out --solver, or take finer steps",
            file=sys.stderr,
        )
    print(f"wrote {', '.join(run_directory.files())} to {path}")


def _deviation(found: float | None) -> str:
    return "a tight solve to compare it with failed" if found is None else f"{found:.1e} from a tight one"
