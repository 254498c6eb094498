"""Time the solvers against their alternatives, side by side in one run, with gradient errors and peak memory.

python scripts/benchmark.py --quick
python scripts/benchmark.py --cases rnn-m64-b512-t100 --threads 2 --out benchmark
python scripts/benchmark.py --device cuda
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import odernn
from odernn import json_values
from odernn.runs import replace_file
from odernn.tables import markdown

from .benchmark_cases import CASES, QUICK_CASES, Case, has_errors
from .benchmark_contenders import as_task, contenders
from .benchmark_peers import missing
from .benchmark_pictures import draw_growth, draw_headlines, draw_others, draw_precision
from .benchmark_plan import Plan, stored
from .benchmark_precision import METHODS
from .command_line import Parser, program, require_room

PROGRAM = program("benchmark.py")
PICTURES = {
    "benchmark.png": draw_headlines,
    "cases.png": draw_others,
    "growth.png": draw_growth,
    "precision.png": draw_precision,
}
FILES = ("benchmark.json", "benchmark.md", *PICTURES)
QUICK_CONTENDERS = {
    "model(x, t)", "fused rk4", "fused rk4, same error", "torchdiffeq adjoint dopri5", "torchdiffeq adjoint rk4",
    "torchdiffeq backprop rk4", "lax.scan rk4", "sgemm floor", "exact",
}  # fmt: skip
FEWEST_TURNS = 3
# Turns of a contender whose first run took longer than so many seconds.
FEWER_TURNS = ((3.0, 1), (1.0, 2))
PACKAGES = ("torch", "torchdiffeq", "numba", "jax", "diffrax", "torchode", "scipy", "numpy")


# For glibc: no contender hands large blocks back to the system between runs. Getting them again can take longer than the work,
# and how long depends on what else the machine does.
_KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}


def _import_path() -> str:
    return os.pathsep.join([str(Path(odernn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])


def _start(case: Case, contender: str, threads: int, file: str, more: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"{__package__}.benchmark_contenders", as_task(case, contender, threads, file)]
    # There it finds this package, whatever lies in the working directory.
    place: Any = {"cwd": Path(__file__).parents[1], "env": os.environ | more | {"PYTHONPATH": _import_path()}}
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, **place, text=True)


class Worker:
    """A process with one contender of one case, which loads its libraries, prepares, and then runs once more at each request."""

    def __init__(self, case: Case, contender: str, threads: int, file: str = "") -> None:
        self.contender, self.file = contender, file
        self.process = _start(case, contender, threads, file, _KEEP_MEMORY)
        self.times: list[float] = []
        self.result: Any = {}

    def loaded(self) -> None:
        """Waits for that."""
        self._answer()

    def prepare(self) -> None:
        self.result = self._ask()

    def take_turn(self) -> None:
        if any(self.result["first_s"] > seconds and len(self.times) >= turns for seconds, turns in FEWER_TURNS):
            return
        self.times += self._ask()["seconds"]

    def close(self) -> None:
        self.process.communicate()

    def _ask(self) -> Any:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # its own last words say more
            pass
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.stderr.read() if self.process.stderr is not None else ""
            raise RuntimeError(errors.strip().splitlines()[-1] if errors.strip() else f"exit code {self.process.wait()}")
        return json.loads(line)


def measure(case: Case, names: Sequence[str], threads: int, repeats: int, seconds: float) -> list[dict[str, Any]]:
    """One row per contender. They load their libraries side by side and prepare one after the other, while the reference is
    computed; then runs take turns, so that what slows the machine down slows all of them."""
    rows: list[dict[str, Any]] = []
    ready: list[Worker] = []
    with tempfile.TemporaryDirectory() as folder:
        reference = Reference(case, folder)
        files = [str(Path(folder) / f"{index}.npz") if has_errors(case) else "" for index in range(len(names))]
        if case.kind == "precision":
            files = [reference.file] * len(names)
            reference.values()  # all of them read it
        workers = [Worker(case, contender, threads, file) for contender, file in zip(names, files)]
        for step in (Worker.loaded, Worker.prepare):
            for worker in list(workers):
                try:
                    step(worker)
                except RuntimeError as error:
                    rows.append({"case": case.name, "contender": worker.contender, "failed": str(error)})
                    workers.remove(worker)
        for worker in workers:
            if case.kind == "precision":
                rows.append({"case": case.name, "contender": worker.contender, "points": worker.result})
            elif "left_out" in worker.result:
                rows.append({"case": case.name, "contender": worker.contender, **worker.result})
            else:
                ready.append(worker)
        values = reference.values() if has_errors(case) else None
        started = time.perf_counter()
        turns = 0
        while turns < FEWEST_TURNS or (turns < repeats and time.perf_counter() - started < seconds):
            turns += 1
            for worker in ready:
                worker.take_turn()
        for worker in workers:
            worker.close()
        rows += [row(case, worker, values) for worker in ready]
    for found in rows:
        found["ours"] = names[0] if case.kind == "precision" else contenders(case)[0]
    return sorted(rows, key=lambda row: row.get("median_s", float("inf")))


def row(case: Case, worker: Worker, reference: dict[str, np.ndarray] | None) -> dict[str, Any]:
    quartiles = statistics.quantiles(worker.times, n=4) if len(worker.times) > 1 else [worker.times[0]] * 3
    result = {
        "case": case.name,
        "contender": worker.contender,
        "median_s": statistics.median(worker.times),
        "lower_quartile_s": quartiles[0],
        "upper_quartile_s": quartiles[2],
        "runs": len(worker.times),
        **worker.result,
    }
    if reference is not None and Path(worker.file).exists():
        with np.load(worker.file) as found:
            result["error"] = _distance(found, reference, ["y"])
            result["gradient_error"] = _distance(found, reference, [name for name in reference if name != "y"])
    return result


def _distance(found: Any, reference: dict[str, np.ndarray], names: Sequence[str]) -> float:
    """|g - g_reference| / |g_reference|, all of these as one vector."""
    error, size = (
        np.linalg.norm([np.linalg.norm(value) for value in values])
        for values in ([found[name] - reference[name] for name in names], [reference[name] for name in names])
    )
    return float(error / size)


class Reference:
    """What errors are errors from, computed in a process of its own."""

    def __init__(self, case: Case, folder: str) -> None:
        self.case, self.file = case, str(Path(folder) / "reference.npz")
        wanted = has_errors(case) or case.kind == "precision"
        self.process = _start(case, "reference", 1, self.file, {}) if wanted else None

    def values(self) -> dict[str, np.ndarray]:
        assert self.process is not None
        _, errors = self.process.communicate()
        if self.process.returncode:
            raise RuntimeError(f"the reference of {self.case.name} failed: {errors.strip().splitlines()[-1]}")
        with np.load(self.file) as found:
            return {name: found[name] for name in found.files}


def contenders_of(case: Case, quick: bool) -> list[str]:
    """All contenders, installed or not."""
    names = list(METHODS) if case.kind == "precision" else contenders(case)
    return [name for name in names if not quick or name in QUICK_CONTENDERS]


def installed(names: Sequence[str]) -> list[str]:
    return [name for name in names if not missing(name)]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; 'times ours' is how many times longer a contender takes than the first of its case, which is ours."""
    columns = (
        "case", "contender", "median ms", "quartiles ms", "times ours", "error", "gradient error", "memory MiB", "first run s",
    )  # fmt: skip
    lines: list[tuple[str, ...]] = []
    for row in rows:
        if "median_s" not in row:
            lines += _other_lines(row)
            continue
        ours = [
            one["median_s"]
            for one in rows
            if one["case"] == row["case"] and one["contender"] == row["ours"] and "median_s" in one
        ]
        share, note = "" if row["share"] > 0.999 else f" (from {row['share']:.0%})", f" ({row['note']})" if row["note"] else ""
        cells = (
            row["case"],
            row["contender"] + note + share,
            f"{1e3 * row['median_s']:.4g}",
            f"{1e3 * row['lower_quartile_s']:.4g} to {1e3 * row['upper_quartile_s']:.4g}",
            f"{row['median_s'] / ours[0]:.3g}" if ours else "",
            f"{row['error']:.1e}" if "error" in row else "",
            f"{row['gradient_error']:.1e}" if "gradient_error" in row else "",
            f"{row['memory_mib']:.0f}",
            f"{row['first_s']:.2f}",
        )
        lines.append(cells)
    return markdown(columns, lines)


def _other_lines(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """Of a row without a time, or with points in place of one."""
    if "points" not in row:
        why = f"left out: {row['left_out']}" if "left_out" in row else f"failed: {row['failed']}"
        return [(row["case"], row["contender"], why, *[""] * 6)]
    empty = ("", "")
    return [
        (
            row["case"],
            f"{row['contender']}, {one['setting']:g}",
            f"{1e3 * one['median_s']:.4g}",
            *empty,
            f"{one['error']:.1e}",
            "",
            *empty,
        )
        for one in row["points"]
    ]


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
    result.add_argument("--list", action="store_true", help="list cases, contenders and about how long they take")
    result.add_argument("--quick", action="store_true", help="three cases and fewer contenders: under two minutes")
    result.add_argument("--out", type=Path, metavar="DIR", help="write the times and pictures there")
    result.add_argument("--overwrite", action="store_true", help="replace what --out holds: the times of another run")
    result.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where all contenders run")
    result.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="CPU cores to use")
    result.add_argument("--repeats", type=int, default=20, help="turns of each contender, at most; short runs come in fives")
    result.add_argument(
        "--seconds", type=float, default=3.0, help="time for the turns of one case; 3 turns each, or 1 of slow ones"
    )
    result.arrange({"cases": ("quick", "cases", "list", "out", "overwrite"), "machine": ("device", "threads")})
    return result


def main() -> None:
    arguments = parser().parse_args()
    cases = {name: replace(case, device=arguments.device) for name, case in CASES.items()}
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
    everyone = {name: contenders_of(cases[name], arguments.quick) for name in names}
    plan = Plan(everyone, stored(), min(arguments.seconds, 3.0) if arguments.quick else arguments.seconds)
    if arguments.list:
        print(plan)
        return
    if arguments.out is not None:
        require_room(arguments.out, FILES, overwrite=arguments.overwrite)
        arguments.out.mkdir(parents=True, exist_ok=True)
    absent = dict.fromkeys(package for contenders in everyone.values() for one in contenders for package in missing(one))
    if absent:
        print(f"not installed, so their contenders are left out: {', '.join(absent)} (pip install -e '.[bench]')", flush=True)
    print(f"{PROGRAM}: {len(names)} cases, {plan.left(0)}", file=sys.stderr, flush=True)
    rows: list[dict[str, Any]] = []
    for done, name in enumerate(names, 1):
        case = cases[name]
        found = measure(case, installed(everyone[name]), arguments.threads, arguments.repeats, plan.seconds)
        print(table(found) if not rows else "\n".join(table(found).splitlines()[2:]), flush=True)
        rows += found
        if arguments.out is not None:  # after every case: an interrupted run keeps what it has
            report = {
                "threads": arguments.threads,
                "versions": versions(),
                "not_installed": list(absent),
                "cases": [asdict(cases[one]) for one in names[:done]],
                "rows": rows,
            }
            replace_file(arguments.out / FILES[0], json_values.dumps(report, indent=1) + "\n")
            left_out = f"\nNot installed: {', '.join(absent)}\n" if absent else ""
            replace_file(arguments.out / FILES[1], table(rows) + "\n" + left_out)
        print(f"{PROGRAM}: {name} done, {done} of {len(names)}; {plan.left(done)}", file=sys.stderr, flush=True)
    if arguments.out is not None:
        for file, draw in PICTURES.items():
            draw(rows, arguments.out / file)
