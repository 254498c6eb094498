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
        (("--cases", "rnn"), "unknown case 'rnn' of --cases: choose from rnn-m16-b128-t100"),
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
@pytest.mark.parametrize("name", ["benchmark.json", "benchmark.md", "benchmark.png"])
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


@pytest.mark.slow
def test_a_small_case_gives_table_data_and_picture(tmp_path):
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(SCRIPT.parent)!r}]
import benchmark
from benchmark_contenders import Case
benchmark.CASES = {{
    "small": Case("small", "train", 4, 6, 12),
    "line": Case("line", "exact", 4, 2, 300),
    "group": Case("group", "ensemble", 4, 3, 12, members=5),
}}
benchmark.FEWEST_TURNS = 1
benchmark.contenders_of = lambda case, quick: [
    name for name in case.contenders if name in ("fused rk4", "torchdiffeq backprop rk4", "exact", "sgemm floor")
]
sys.argv = ["benchmark.py", "--threads", "1", "--repeats", "1", "--out", {str(tmp_path)!r}]
benchmark.main()
"""
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr
    report = json.loads((tmp_path / "benchmark.json").read_text())
    rows = {(row["case"], row["contender"]): row for row in report["rows"]}
    assert set(rows) == {
        ("small", "fused rk4"),
        ("small", "torchdiffeq backprop rk4"),
        ("small", "sgemm floor"),
        ("line", "exact"),
        ("line", "torchdiffeq backprop rk4"),
        ("group", "fused rk4"),
        ("group", "sgemm floor"),
    }
    assert all(row["median_s"] > 0 for row in rows.values())
    ours, peer = rows["small", "fused rk4"], rows["small", "torchdiffeq backprop rk4"]
    assert ours["gradient_error"] < 1e-4
    assert ours["gradient_error"] < 10 * peer["gradient_error"]
    assert (tmp_path / "benchmark.md").read_text().count("\n") == 2 + len(rows)
    assert (tmp_path / "benchmark.png").stat().st_size > 10_000
