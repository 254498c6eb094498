"""Time the solvers against their alternatives, side by side in one run, with gradient errors and peak memory.

python scripts/benchmark.py --quick
python scripts/benchmark.py --cases rnn-m64-b512-t100 --threads 2 --out benchmark
python scripts/benchmark.py --device cuda
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from command_line import Parser, require_room, run  # first: see there

# isort: split
import numpy as np
import torch
from benchmark_contenders import Case, as_task, missing

from analysis.plotting import BLUE, GREY, label, picture
from odernn import json_values
from odernn.runs import replace_file
from odernn.tables import markdown

PROGRAM = "benchmark.py"
FILES = ("benchmark.json", "benchmark.md", "benchmark.png")
CASES = {
    case.name: case
    for case in (
        Case("rnn-m16-b128-t100", "train", 16, 128, 100),
        Case("rnn-m64-b512-t100", "train", 64, 512, 100),
        Case("rnn-m64-b128-t1000", "train", 64, 128, 1000),
        Case("diagonal-m64-b8-t10000", "exact", 64, 8, 10_000),
        Case("diagonal-m64-b8-t100000", "exact", 64, 8, 100_000),
        Case("ensemble-600-m64-b100-t100", "ensemble", 64, 100, 100, members=600),
        Case("perturbation-m16-b200-t100", "perturbation", 16, 200, 100, members=21 * 30),
        Case("perturbation-m64-b1000-t100", "perturbation", 64, 1000, 100, members=21 * 30),
        # Growth, around the second case, of ours and the floor.
        *(Case(f"growth-m{m}", "train", m, 256, 100) for m in (8, 32, 128)),
        *(Case(f"growth-b{batch}", "train", 64, batch, 100) for batch in (16, 64, 256, 1024)),
        *(Case(f"growth-t{times}", "train", 64, 128, times) for times in (30, 300, 3000)),
    )
}
GROWTH_CONTENDERS = ("fused rk4", "sgemm floor")
QUICK_CASES = ("rnn-m16-b128-t100", "diagonal-m64-b8-t10000")
QUICK_CONTENDERS = {"fused rk4", "torchdiffeq adjoint rk4", "torchdiffeq backprop rk4", "lax.scan rk4", "sgemm floor", "exact"}
FEWEST_TURNS = 3
PACKAGES = ("torch", "torchdiffeq", "numba", "jax", "diffrax", "torchode", "numpy")


# For glibc: no contender hands large blocks back to the system between runs. Getting them again can take longer than the work,
# and how long depends on what else the machine does.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def _import_path() -> str:
    return os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])


class Worker:
    """A process with one contender of one case, ready to run it once more at each request."""

    def __init__(self, case: Case, contender: str, threads: int, gradient: str) -> None:
        self.contender = contender
        command = [sys.executable, str(Path(__file__).with_name("benchmark_contenders.py"))]
        self.process = subprocess.Popen(
            [*command, as_task(case, contender, threads, gradient)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | _KEEP_MEMORY | {"PYTHONPATH": _import_path()},
        )
        self.times: list[float] = []
        self.result = self._answer()

    def take_turn(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.times += self._answer()["seconds"]

    def close(self) -> None:
        self.process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            _, errors = self.process.communicate()
            raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else f"exit code {self.process.returncode}")
        return json.loads(line)


def measure(case: Case, contenders: Sequence[str], threads: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """One row per contender. Runs take turns, so that what slows the machine down slows all of them."""
    rows: list[dict[str, Any]] = []
    workers: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        for contender in contenders:
            file = str(Path(folder) / f"{len(workers)}.npz") if case.kind == "train" else ""
            try:
                workers.append(Worker(case, contender, threads, file))
                workers[-1].result["file"] = file
            except RuntimeError as error:
                rows.append({"case": case.name, "contender": contender, "error": str(error)})
        started = time.perf_counter()
        turns = 0
        while turns < FEWEST_TURNS or (turns < repeats and time.perf_counter() - started < seconds):
            turns += 1
            for worker in workers:
                worker.take_turn()
        reference = reference_gradient(case, threads, folder)
        for worker in workers:
            worker.close()
            rows.append(row(case, worker, reference))
    return sorted(rows, key=lambda row: row.get("median_s", float("inf")))


def row(case: Case, worker: Worker, reference: dict[str, np.ndarray] | None) -> dict[str, Any]:
    quartiles = statistics.quantiles(worker.times, n=4)
    result = {
        "case": case.name,
        "contender": worker.contender,
        "median_s": statistics.median(worker.times),
        "lower_quartile_s": quartiles[0],
        "upper_quartile_s": quartiles[2],
        "runs": len(worker.times),
        "first_s": worker.result["first_s"],
        "memory_mib": worker.result["memory_mib"],
        "share": worker.result["share"],
    }
    if reference is not None and Path(worker.result["file"]).exists():
        with np.load(worker.result["file"]) as found:
            # |g - g_reference| / |g_reference|, all weights as one vector.
            error, size = (
                np.linalg.norm([np.linalg.norm(g) for g in gradients])
                for gradients in ([found[name] - exact for name, exact in reference.items()], reference.values())
            )
            result["gradient_error"] = float(error / size)
    return result


def reference_gradient(case: Case, threads: int, folder: str) -> dict[str, np.ndarray] | None:
    if case.kind != "train" or case.name.startswith("growth"):
        return None
    file = Path(folder) / "reference.npz"
    worker = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("benchmark_contenders.py")),
            as_task(case, "reference", threads, str(file)),
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": _import_path()},
    )
    if worker.returncode:
        raise RuntimeError(f"the reference gradient of {case.name} failed: {worker.stderr.strip().splitlines()[-1]}")
    with np.load(file) as found:
        return {name: found[name] for name in found.files}


def contenders_of(case: Case, quick: bool) -> list[str]:
    names = GROWTH_CONTENDERS if case.name.startswith("growth") else case.contenders
    return [name for name in names if not missing(name) and (not quick or name in QUICK_CONTENDERS)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; `ours` is how many times longer a contender takes than the first of its case, which is ours."""
    columns = ("case", "contender", "median ms", "quartiles ms", "times ours", "gradient error", "memory MiB", "first run s")
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if "error" in row:
            lines.append((row["case"], row["contender"], f"failed: {row['error']}", *[""] * 5))
            continue
        ours = next(
            other["median_s"] for other in rows if other["case"] == row["case"] and other["contender"] == our(row["case"])
        )
        cells = (
            row["case"],
            row["contender"] + ("" if row["share"] > 0.999 else f" (from {row['share']:.0%})"),
            f"{1e3 * row['median_s']:.4g}",
            f"{1e3 * row['lower_quartile_s']:.4g} to {1e3 * row['upper_quartile_s']:.4g}",
            f"{row['median_s'] / ours:.3g}",
            f"{row['gradient_error']:.1e}" if "gradient_error" in row else "",
            f"{row['memory_mib']:.0f}",
            f"{row['first_s']:.2f}",
        )
        lines.append(cells)
    return markdown(columns, lines)


def our(case: str) -> str:
    return CASES[case].contenders[0]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    timed = [row for row in rows if "median_s" in row]
    bars = [name for name in dict.fromkeys(row["case"] for row in timed) if not name.startswith("growth")]
    growth = [row for row in timed if row["case"].startswith("growth")]
    panels = len(bars) + (3 if growth else 0)
    columns = min(3, panels)
    with picture(path, rows=-(-panels // columns), columns=columns, width=4.2 * columns) as (_, axes):
        for panel, name in zip(axes, bars):
            of_case = [row for row in timed if row["case"] == name][::-1]
            medians = [1e3 * row["median_s"] for row in of_case]
            spread = [
                [1e3 * (row["median_s"] - row["lower_quartile_s"]) for row in of_case],
                [1e3 * (row["upper_quartile_s"] - row["median_s"]) for row in of_case],
            ]
            colours = [BLUE if row["contender"] == our(name) else GREY for row in of_case]
            panel.barh([row["contender"] for row in of_case], medians, xerr=spread, color=colours, error_kw={"linewidth": 0.8})
            panel.set_xscale("log")
            panel.set_xlim(left=10 ** math.floor(math.log10(min(medians)) - 0.3))
            label(panel, x="milliseconds", y="", title=name)
        for panel, letter in zip(axes[len(bars) :], "tbm") if growth else ():
            for contender, colour in zip(GROWTH_CONTENDERS, (BLUE, GREY)):
                points = sorted(
                    (int(row["case"].removeprefix(f"growth-{letter}")), 1e3 * row["median_s"])
                    for row in growth
                    if row["case"].startswith(f"growth-{letter}") and row["contender"] == contender
                )
                panel.loglog(*zip(*points), marker="o", color=colour, label=contender)
            label(panel, x={"t": "samples T", "b": "sequences B", "m": "hidden size m"}[letter], y="milliseconds")
            panel.legend()
        for panel in axes[panels:]:
            panel.axis("off")


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "processor": processor()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The processor's name where the system tells, else its architecture."""
    information = Path("/proc/cpuinfo")
    names = (
        [line for line in information.read_text().splitlines() if line.startswith("model name")] if information.exists() else []
    )
    return names[0].partition(":")[2].strip() if names else platform.machine()


def parser() -> Parser:
    result = Parser("Time the solvers against their alternatives, side by side in one run.")
    result.add_argument("--cases", nargs="+", metavar="CASE", help="named cases (see --list); all of them without this")
    result.add_argument("--list", action="store_true", help="list the cases and their contenders")
    result.add_argument("--quick", action="store_true", help="two cases and fewer contenders: under a minute")
    result.add_argument("--out", type=Path, metavar="DIR", help="write benchmark.json, benchmark.md and benchmark.png there")
    result.add_argument("--overwrite", action="store_true", help="replace what --out holds: the times of another run")
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all contenders run")
    result.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU cores to use")
    result.add_argument("--repeats", type=int, default=20, help="turns of each contender, at most; short runs come in fives")
    result.add_argument("--seconds", type=float, default=60.0, help="time for the turns of one case; at least 3 turns each")
    return result


def main() -> None:
    arguments = parser().parse_args()
    cases = {name: replace(case, device=arguments.device) for name, case in CASES.items()}
    if arguments.list:
        for case in cases.values():
            print(f"{case.name}: {', '.join(contenders_of(case, quick=False))}")
        return
    for flag in ("threads", "repeats", "seconds"):
        if not getattr(arguments, flag) > 0:
            raise ValueError(f"--{flag} must be positive, got {getattr(arguments, flag)}")
    if arguments.threads > (os.cpu_count() or 1):
        raise ValueError(f"--threads {arguments.threads} is more than the {os.cpu_count()} cores of this machine")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a CUDA GPU, and PyTorch sees none here: use --device cpu")
    names = arguments.cases or (QUICK_CASES if arguments.quick else tuple(CASES))
    for name in names:
        if name not in CASES:
            raise ValueError(f"unknown case {name!r} of --cases: choose from {', '.join(CASES)}")
    if arguments.out is not None:
        require_room(arguments.out, FILES, overwrite=arguments.overwrite)
        arguments.out.mkdir(parents=True, exist_ok=True)
    seconds = min(arguments.seconds, 5.0) if arguments.quick else arguments.seconds
    rows: list[dict[str, Any]] = []
    for name in names:
        case = cases[name]
        found = measure(case, contenders_of(case, arguments.quick), arguments.threads, arguments.repeats, seconds)
        print(table(found) if not rows else "\n".join(table(found).splitlines()[2:]), flush=True)
        rows += found
    if arguments.out is not None:
        report = {"threads": arguments.threads, "versions": versions(), "cases": [asdict(cases[n]) for n in names], "rows": rows}
        replace_file(arguments.out / FILES[0], json_values.dumps(report, indent=1) + "\n")
        replace_file(arguments.out / FILES[1], table(rows) + "\n")
        draw(rows, arguments.out / FILES[2])


if __name__ == "__main__":
    run(PROGRAM, main)
