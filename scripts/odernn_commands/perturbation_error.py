"""Perturbation errors E_m(beta) of trained runs, and whether they approximate their target stably.

python scripts/perturbation_error.py runs/m2 runs/m4 runs/m8 runs/m16
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch

from analysis.beta_grids import enclose_radius, spanning
from analysis.linear.theory import kernel_derivative_distance, kernel_distance
from analysis.perturbation import (
    DRAWS,
    ERRORS,
    PUBLISHED_BETAS,
    RESTARTS,
    STEPS,
    TOLERANCE,
    PerturbationCurve,
    perturbation_error,
    weight_norms,
)
from analysis.perturbation.picture import plot_perturbation
from analysis.perturbation.search import Norm, Search
from analysis.target_memory import target_memory
from analysis.verdict import Verdict, judge_stable_approximation
from odernn import json_values
from odernn.experiment import LoadedRun, load_run
from odernn.runs import replace_file
from odernn.tables import csv_text
from targets import Functional, grids

from .command_line import Parser, limit_memory, naming, program, require_room

PROGRAM = program("perturbation_error.py")
NAME = "perturbation_error"
FILES = tuple(f"{NAME}.{ending}" for ending in ("csv", "json", "png"))
_COLUMNS = ("hidden_size", "horizon", "blocks", "beta", "error", "relative_error", "searched_error", "lifted")
# Enough for slow and fast inputs alike; every sequence costs a solve for each of some thousand perturbed models.
_SEQUENCES = 32


def parser() -> Parser:
    result = Parser("Perturbation errors E_m(beta) of trained runs of one target, and a verdict on stable approximation.")
    add = result.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN_DIR", help="run directories of train_ode.py: one target, several widths")
    add(
        "--betas",
        nargs="+",
        type=float,
        default=None,
        metavar="BETA",
        help="radii of the balls of weights, increasing; by default the published ones, 0 and 1e-3 2^(i/2), continued as the "
        "horizon and the models need it",
    )
    add("--search", choices=get_args(Search), default="ascent", help="maximise, or draw as the papers do")
    add("--blocks", nargs="+", default=["recurrent", "all"], help="'recurrent', 'all', or names of weights; a curve for each")
    add("--norm", choices=get_args(Norm), default="spectral", help="of a block of weights")
    add("--error", choices=list(ERRORS), default="relative_l2", help="between the outputs of target and model")
    add("--draws", type=int, default=DRAWS, help="random draws per beta")
    add("--restarts", type=int, default=RESTARTS, help="random starts of the ascent per beta")
    add("--steps", type=int, default=STEPS, help="steps of an ascent, at most")
    add("--sequences", type=int, default=_SEQUENCES, help="validation sequences to measure on, at most")
    add("--solver", choices=("auto", "run"), default="auto", help="exact or rk4 with safe steps, or the solver of the run")
    add("--seed", type=int, default=0, help="of the search")
    add("--trust-code", action="store_true", help="run the code that a run names")
    add(
        "--out", type=Path, default=None, metavar="DIR", help="where to write; the run's directory, or the one above several runs"
    )
    add("--overwrite", action="store_true", help="replace results of other runs or settings")
    result.add_max_memory()
    result.arrange(
        {
            "what of": ("runs", "betas", "blocks", "error", "sequences", "out", "overwrite"),
            "search": ("search", "norm", "draws", "restarts", "steps", "seed"),
        }
    )
    return result


def main() -> None:
    arguments = parser().parse_args()
    limit_memory(arguments.max_memory)
    if arguments.sequences < 1:
        raise ValueError(f"--sequences must be at least 1, got {arguments.sequences}")
    runs = [load_run(directory, trust_code=arguments.trust_code) for directory in arguments.runs]
    for directory, loaded in zip(arguments.runs, runs):
        if loaded.config is None:
            raise ValueError(
                f"{directory} was saved by a Trainer, which keeps no target: in Python, "
                "perturbation_error(load_run(path).model, target, x, t) takes it"
            )
    _require_one_target(arguments.runs, runs)
    if arguments.error.startswith("kernel") and runs[0].target is None:
        raise ValueError(f"--error {arguments.error} compares kernels, and {arguments.runs[0]} learnt data: take relative_l2")
    out = arguments.out or (arguments.runs[0] if len(runs) == 1 else arguments.runs[0].resolve().parent)
    require_room(out)
    _require_own_results(out, arguments)
    with naming("--blocks", "block"):
        curves = {block: [_curve(run, block, arguments) for run in runs] for block in arguments.blocks}
    every = [curve for part in curves.values() for curve in part]
    widths = {curve.hidden_size for curve in every}
    # One width is no family: its curves are worth having, a verdict on them is not.
    verdict = judge_stable_approximation(every) if len(widths) > 1 else None
    described = [_described(run) for run in runs]
    _write(out, curves, verdict, described, arguments)
    _print(curves, verdict, described, out)


def _curve(run: LoadedRun, block: str, arguments: Any) -> PerturbationCurve:
    t, x, target = _measured_on(run, arguments.sequences)

    def on(betas: Any) -> PerturbationCurve:
        return perturbation_error(
            run.model,
            target,
            x,
            t,
            betas,
            search=arguments.search,
            blocks=block,
            norm=arguments.norm,
            error=arguments.error,
            draws=arguments.draws,
            restarts=arguments.restarts,
            steps=arguments.steps,
            seed=arguments.seed,
            solver=run.solver if arguments.solver == "run" else None,
            interpolation=run.interpolation,
        )

    horizon = grids.span(t)
    curve = enclose_radius(on, spanning(PUBLISHED_BETAS, horizon)) if arguments.betas is None else on(arguments.betas)
    if run.target is None:
        return curve
    return replace(curve, target_memory=target_memory(run.target, horizon, horizon / (len(run.t) - 1)))


def _measured_on(run: LoadedRun, most: int) -> tuple[torch.Tensor, torch.Tensor, Functional | torch.Tensor]:
    """t, x and the target of the first validation sequences: H, or the values of data, NaN where one is missing."""
    if run.target is not None:
        return run.t, run.validation_inputs[:most], run.target
    assert run.data is not None
    held = run.data.validation[slice(most)]
    return held.t, held.x, held.y


def _described(run: LoadedRun) -> dict[str, Any]:
    """What the theory asks of a run beside E_m: the norms of its weights, which [IA] Thm 3.9 wants bounded over the widths, and
    for linear functionals and models both parts of the error norm of Def 3.7, |H - H_hat| and |d/dt (H - H_hat)|."""
    norms, horizon = weight_norms(run.model), grids.span(run.t)
    described = {"hidden_size": run.model.hidden_size, "horizon": horizon, "weight_norms": norms}
    described["largest_weight"] = max(norms.values())
    parts: dict[str, float | None] = dict.fromkeys(("kernel_distance", "kernel_derivative_distance", "kernel_derivative_part"))
    if run.target is None:
        return described | parts
    try:
        first, second = (of(run.model, run.target, horizon) for of in (kernel_distance, kernel_derivative_distance))
    except ValueError:  # not linear, or a kernel that the grid does not see
        return described | parts
    parts |= {"kernel_distance": first.value, "kernel_derivative_distance": second.value}
    parts["kernel_derivative_part"] = second.value / first.value if first.value > 0 else None
    return described | parts


def _require_one_target(directories: list[Path], runs: list[LoadedRun]) -> None:
    first = runs[0]
    x = first.validation_inputs[:1]
    for directory, other in zip(directories[1:], runs[1:]):
        if first.target is None or other.target is None:
            checksums = [None if run.config is None else run.config.data_checksum for run in (first, other)]
            same = checksums[0] == checksums[1]
        else:
            same = first.target.input_size == other.target.input_size and torch.allclose(
                first.target(x, first.t).double(), other.target(x.to(first.t), first.t).double()
            )
        if not same:
            raise ValueError(f"{directory} learnt another target than {directories[0]}: give runs of one target")


def _settings(arguments: Any) -> dict[str, Any]:
    """The settings that the results depend on, as JSON values."""
    settings = {name: value for name, value in vars(arguments).items() if name not in ("out", "overwrite", "max_memory")}
    return json_values.encode(settings | {"runs": [str(directory.resolve()) for directory in arguments.runs]})


def _require_own_results(out: Path, arguments: Any) -> None:
    """Refuses to replace results of another command, and files of somebody else."""
    held = [name for name in FILES if (out / name).exists()]
    if not held or arguments.overwrite:
        return
    try:
        same = json_values.loads((out / FILES[1]).read_bytes())["settings"] == json_values.decode(_settings(arguments))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        which = f"{out} holds {', '.join(held)} of other runs or settings"
        raise ValueError(f"{which}: choose another --out, or give --overwrite to replace them")


def _write(
    out: Path,
    curves: dict[str, list[PerturbationCurve]],
    verdict: Verdict | None,
    described: list[dict[str, Any]],
    arguments: Any,
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {"run": directory, **row, "blocks": block}
        for block, part in curves.items()
        for directory, curve in zip(arguments.runs, part)
        for row in curve.rows(*_COLUMNS)
    ]
    replace_file(out / f"{NAME}.csv", csv_text(rows))
    content = {
        "settings": _settings(arguments),
        "runs": [str(directory) for directory in arguments.runs],
        "tolerance": TOLERANCE,
        "seed": arguments.seed,
        "curves": {block: [curve.to_dict() for curve in part] for block, part in curves.items()},
        "models": described,
        "verdict": verdict,
    }
    replace_file(out / f"{NAME}.json", json_values.dumps(content, indent=2) + "\n")
    judged = {block: f": {one.judgement}" for block, one in verdict.blocks.items()} if verdict else {}
    panels = {
        f"{block}, T = {T:g}{judged.get(block, '')}": family
        for block, part in curves.items()
        for T in sorted({curve.horizon for curve in part})
        for family in [[curve for curve in part if curve.horizon == T]]
        if any((curve.betas > 0).any() for curve in family)
    }
    if panels:
        plot_perturbation(panels, out / f"{NAME}.png")


def _print(
    curves: dict[str, list[PerturbationCurve]], verdict: Verdict | None, described: list[dict[str, Any]], out: Path
) -> None:
    sizes = {(one["hidden_size"], one["horizon"]): one["largest_weight"] for one in described}
    head = f"{'blocks':12s} {'m':>5s} {'T':>8s} {'E(0)/|H|':>10s} {'radius r':>10s} {'kappa = r T':>12s} {'|weights|':>10s}"
    print(head)
    for block, part in curves.items():
        for curve in sorted(part, key=lambda curve: (curve.horizon, curve.hidden_size)):
            radius, bound = curve.tolerance_radius(), curve.radius_bound()
            print(
                f"{block:12s} {curve.hidden_size:5d} {curve.horizon:8g} {curve.relative_initial:10.2g} "
                f"{bound + format(radius, '.3g'):>10s} {bound + format(radius * curve.horizon, '.3g'):>12s} "
                f"{sizes[curve.hidden_size, curve.horizon]:10.3g}"
            )
    if all(one["kernel_distance"] is not None for one in described):
        print("of the kernels, |H - H_hat| and |d/dt (H - H_hat)|:")
        for one in described:
            first, second = one["kernel_distance"], one["kernel_derivative_distance"]
            print(f"{'':12s} {one['hidden_size']:5d} {one['horizon']:8g} {first:10.2g} {second:10.2g}")
    if verdict:
        print(f"{'verdict':12s} {'':16s} {'a of r ~ T^-a':>15s}")
        for block, judged in sorted(verdict.blocks.items(), key=lambda item: item[0] != "all"):
            print(f"{block:12s} {judged.judgement:16s} {judged.exponent_text():>15s}")
    print(f"verdict: {verdict if verdict else 'none (needs runs of at least two widths)'}")
    print(f"written: {out / NAME}.csv, .json, .png")
