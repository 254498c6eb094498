"""Train one model for each combination of settings; an interrupted sweep goes on where it stopped.

python scripts/sweep.py --over hidden_size=4,8,16 parameterization=direct,softplus seed=0:3 --epochs 20 --out sweeps/widths
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from analysis.sweeps.axes import SETTINGS, combinations, read_axes
from analysis.sweeps.results import Sweep
from analysis.sweeps.sweep import PICTURE, RECORD, TABLE, sweep
from analysis.sweeps.trained import is_good
from odernn.experiment import ExperimentConfig
from odernn.training import TrainingConfig

from . import train_ode
from .command_line import FAILED, INTERRUPTED, Parser, fail, limit_memory, listing, program

PROGRAM = program("sweep.py")
# Each is a process of some 500 MB: more than these would only wait for each other.
_WORKERS_PER_CORE = 4
_NOT_HERE = ("resume", "out", "overwrite", "trust_code")


def parser() -> Parser:
    result = Parser(
        "Trains one model for each combination of settings. Every flag of train_ode.py but --out, --resume and --overwrite is "
        "taken, too, as a setting that all runs share."
    )
    add = result.add_argument
    add(
        "--over",
        nargs="+",
        required=True,
        metavar="NAME=VALUES",
        help="what varies: hidden_size=4,8,16 seed=0:3 lr=1e-4:1e-1:log4 horizon=10:40:lin4 adjoint=true,false "
        f"kernel=polynomial:exponent=1.1,exponential; any of {', '.join(dict.fromkeys(SETTINGS))}",
    )
    where = "directory of the sweep (default: sweeps/NAMES of --over)"
    add("--out", type=Path, default=argparse.SUPPRESS, metavar="DIR", help=where)
    add("--workers", type=int, default=None, metavar="N", help="runs at a time; default: as many as cores")
    add("--engine", choices=("local", "ray"), default="local", help="processes of this machine, or a Ray cluster")
    add("--address", default=None, help="of a running Ray cluster; default: a local one of its own")
    add("--linear", action=argparse.BooleanOptionalAction, default=True, help="compare with the best linear model of each width")
    add("--verdict", action="store_true", help="perturbation curves of the runs, and whether the widths approximate stably")
    return result


def main() -> None:
    arguments, rest = parser().parse_known_args()
    axes = read_axes(arguments.over)
    given = vars(train_ode.parser().parse_args(rest))
    limit_memory(given.pop("max_memory"))
    for name in _NOT_HERE:
        if given.pop(name, False):
            raise ValueError(f"--{name.replace('_', '-')} is a flag of train_ode.py that a sweep does not take: leave it out")
    twice = sorted(set(axes) & set(given))
    if twice:
        raise ValueError(f"--{twice[0].replace('_', '-')} is given once for all runs, and by --over: leave one out")
    most = _WORKERS_PER_CORE * (os.cpu_count() or 1)
    if arguments.engine == "local" and arguments.workers is not None and not 1 <= arguments.workers <= most:
        raise ValueError(f"--workers must be from 1 to {most}, {_WORKERS_PER_CORE} for each core, got {arguments.workers}")
    # Settings that are valid only beside those that vary are checked with the first of these.
    first = combinations(axes)[0]
    config = _config(given, first)
    out = getattr(arguments, "out", None) or Path("sweeps") / ",".join(axes)
    try:
        found = sweep(
            config,
            axes,
            out,
            workers=arguments.workers,
            engine=arguments.engine,
            address=arguments.address,
            linear=arguments.linear,
            verdict=arguments.verdict,
        )
    except KeyboardInterrupt:
        fail(PROGRAM, f"interrupted; what has finished is in {out}: the same command goes on", INTERRUPTED)
    report(found)


def _config(given: dict[str, object], first: dict[str, object]) -> ExperimentConfig:
    """The settings of the flags, beside the first of those that vary."""
    together = {**first, **given}
    of_training = set(TrainingConfig.__dataclass_fields__) - {"seed"}
    training = {name: together.pop(name) for name in of_training & set(together)} | {"seed": together.get("seed", 0)}
    return ExperimentConfig(**together, training=TrainingConfig(**training))  # type: ignore[arg-type]


def report(found: Sweep) -> None:
    good = [row for row in found.rows if is_good(row)]
    print(f"{len(good)} of {len(found.rows)} runs with a result, over {', '.join(found.axes)}")
    for row in sorted(good, key=lambda row: row["validation_error"])[:5]:
        print(f"  {100 * row['validation_error']:.3g} %  {row['path']}")
    lost = {row["path"]: f"{row['stopped']}: {row['reason']}" for row in found.rows if not is_good(row)}
    if lost:
        print(listing(dict(list(lost.items())[:10])))
    for verdict in found.verdicts:
        of = ", ".join(f"{name}={value}" for name, value in verdict["settings"].items()) or "all runs"
        print(f"verdict ({of}): {verdict['text']}")
    print(f"wrote {TABLE}, {RECORD}, {PICTURE} and the run directories to {found.out}")
    if not good:
        sys.exit(FAILED)
