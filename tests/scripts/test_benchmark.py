from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "benchmark.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, cwd=ROOT, timeout=200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cases", "rnn"), "unknown case 'rnn' of --cases: choose from call-m32-b64-t200"),
        (("--repeats", "0"), "--repeats must be positive"),
        (("--threads", "100000"), "is more than the"),
        (("--fast",), "unrecognized arguments"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments, message):
    outcome = run(*arguments)
    assert outcome.returncode == 2
    assert message in outcome.stderr
    assert outcome.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["benchmark.json", "benchmark.md", "benchmark.png", "cases.png", "growth.png", "precision.png"])
def test_earlier_times_are_not_replaced_unasked(tmp_path, name):
    (tmp_path / name).write_text("mine")
    outcome = run("--quick", "--out", str(tmp_path))
    assert outcome.returncode == 2
    assert "--overwrite" in outcome.stderr
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.slow
def test_the_cases_are_listed_with_their_contenders():
    outcome = run("--list")
    assert outcome.returncode == 0
    assert "rnn-m64-b512-t100: fused rk4, " in outcome.stdout
    assert "41 cases, about " in outcome.stdout.splitlines()[-1]


PATIENCE = """
import sys
sys.path[:0] = {paths!r}
from odernn_commands import benchmark_contenders as contenders
from odernn_commands.benchmark_cases import CASES
names = [name for name, case in CASES.items() if "torchdiffeq backprop rk4" in contenders.contenders(case)]
assert names and all(contenders.patience_with(CASES[name], "torchdiffeq backprop rk4") == contenders.PATIENCE for name in names)
assert contenders.patience_with(CASES["call-m32-b64-t200"], "torchdiffeq backprop dopri5") == float("inf")
assert contenders.patience_with(CASES[names[0]], "fused rk4") == float("inf")
with contenders.patience(60):
    pass
try:
    with contenders.patience(0.01):
        while True:
            pass
except contenders.OutOfPatienceError:
    print("left out")
"""


@pytest.mark.slow
def test_a_peer_that_takes_too_long_is_left_out():
    program = PATIENCE.format(paths=[str(ROOT), str(SCRIPT.parent)])
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert outcome.stdout == "left out\n", outcome.stderr


SMALL = """
import sys
sys.path[:0] = {paths!r}
from odernn_commands import benchmark
from odernn_commands.benchmark_cases import Case
from odernn_commands.benchmark_peers import missing
cases = (
    Case("small", "train", 4, 6, 12),
    Case("call", "call", 4, 6, 12, noise=True),
    Case("stack", "stack", 4, 3, 12, layers=2, model="ssm", noise=True),
    Case("structure", "structure", 8, 3, 12, recurrence="diagonal"),
    Case("wide", "wide", 24, 3, 12),
    Case("map", "map", 4, 3, 12, model="discrete_rnn"),
    Case("line", "exact", 4, 2, 300),
    Case("group", "ensemble", 4, 3, 12, members=5),
    Case("growth-l2", "train", 4, 3, 12, layers=2),
    Case("long-t100", "long", 4, 1, 100),
    Case("precision", "precision", 4, 2, 12, noise=True),
)
benchmark.CASES.clear()
benchmark.CASES.update({{case.name: case for case in cases}})
benchmark.FEWEST_TURNS = 1
every = benchmark.contenders_of
benchmark.contenders_of = lambda case, quick: [name for name in every(case, quick) if name in {names!r}]
sys.argv = ["benchmark.py", "--threads", "1", "--repeats", "1", "--out", {out!r}]
benchmark.main()
"""
NAMES = (
    "model(x, t)", "fused rk4", "fused rk4, same error", "fused rk4, dense W", "torchdiffeq adjoint dopri5",
    "torchdiffeq backprop rk4", "torchdiffeq adjoint rk4, same error", "torch.nn.RNN", "plain loop", "exact",
    "fused rk4, one by one", "sgemm floor", "Adaptive dopri5", "scipy RK45",
)  # fmt: skip


@pytest.mark.slow
def test_every_kind_of_case_gives_table_data_and_pictures(tmp_path):
    program = SMALL.format(paths=[str(ROOT), str(SCRIPT.parent)], names=NAMES, out=str(tmp_path))
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600)
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(row["case"], row["contender"]): row for row in report["rows"]}
    assert {one: {name for case, name in rows if case == one} for one, _ in rows} == {
        "small": {"fused rk4", "torchdiffeq adjoint dopri5", "torchdiffeq backprop rk4", "sgemm floor"},
        "call": {"model(x, t)", "fused rk4, same error", "torchdiffeq adjoint dopri5", "torchdiffeq adjoint rk4, same error"},
        "stack": {"model(x, t)", "fused rk4, same error", "torchdiffeq adjoint rk4, same error"},
        "structure": {"model(x, t)", "fused rk4", "fused rk4, dense W", "torchdiffeq backprop rk4"},
        "wide": {"model(x, t)", "fused rk4", "torchdiffeq backprop rk4", "sgemm floor"},
        "map": {"model(x, t)", "torch.nn.RNN", "plain loop"},
        "line": {"exact", "torchdiffeq backprop rk4"},
        "group": {"fused rk4", "fused rk4, one by one", "sgemm floor"},
        "growth-l2": {"fused rk4", "sgemm floor"},
        "long-t100": {"model(x, t)", "fused rk4"},
        "precision": {"fused rk4", "Adaptive dopri5", "scipy RK45"},
    }
    timed = {key: row for key, row in rows.items() if "points" not in row}
    assert all(row["median_s"] > 0 for row in timed.values())
    for row in timed.values():
        assert row.get("error", 0) < 1e-3
        assert row.get("gradient_error", 0) < 1e-3
    ours, peer = rows["small", "fused rk4"], rows["small", "torchdiffeq backprop rk4"]
    assert ours["gradient_error"] < 10 * peer["gradient_error"]
    assert rows["call", "fused rk4, same error"]["error"] < 3 * rows["call", "model(x, t)"]["error"]
    assert "a sample" in rows["stack", "torchdiffeq adjoint rk4, same error"]["note"]
    for method in ("Adaptive dopri5", "fused rk4", "scipy RK45"):
        errors = [point["error"] for point in rows["precision", method]["points"]]
        assert errors[-1] < 1e-2 * errors[0]
    points = sum(len(row["points"]) for row in rows.values() if "points" in row)
    assert (tmp_path / "benchmark.md").read_text().count("\n|") == 1 + len(timed) + points
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("benchmark.png", "growth.png", "precision.png"))
