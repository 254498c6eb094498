from __future__ import annotations

import csv
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "sweep.py"
SMALL = shlex.split(
    "--points 11 --horizon 2 --train-size 4 --validation-size 4 --epochs 10 --solver fused --no-linear --workers 1"
)
OVER = ["--over", "hidden-size=2,3", "seed=0:3"]


def command(*arguments):
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def sweep(*arguments, cwd):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.slow
def test_a_sweep_that_is_interrupted_and_killed_computes_each_run_once(tmp_path):
    written = {}
    for index, (stop, done) in enumerate(((signal.SIGINT, 1), (signal.SIGKILL, 3))):
        with open(tmp_path / f"log{index}", "w") as log:
            process = subprocess.Popen(command(*OVER, *SMALL, "--out", "s"), cwd=tmp_path, stdout=log, stderr=log)
            while len(list((tmp_path / "s" / ".jobs").glob("*.json"))) < done:
                assert process.poll() is None, (tmp_path / f"log{index}").read_text()
                time.sleep(0.05)
            process.send_signal(stop)
            assert process.wait(timeout=60) == (130 if stop == signal.SIGINT else -signal.SIGKILL)
        written |= {path: path.stat().st_mtime_ns for path in (tmp_path / "s" / ".jobs").glob("*.json")}
    assert "the same command goes on" in (tmp_path / "log0").read_text()
    assert "Traceback" not in (tmp_path / "log0").read_text()
    # a run that its dead driver's worker was at is let go when that worker ends
    for _ in range(100):
        ended = sweep(*OVER, *SMALL, "--out", "s", cwd=tmp_path)
        if "being written" not in ended.stderr:
            break
        time.sleep(0.2)
    assert ended.returncode == 0, ended.stderr
    assert "of 6 jobs are done already" in ended.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written
    rows = list(csv.DictReader((tmp_path / "s" / "sweep.csv").read_text().splitlines()))
    assert [row["path"] for row in rows] == [f"hidden_size={m},seed={seed}" for m in (2, 3) for seed in range(3)]
    assert all(float(row["validation_error"]) > 0 for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*OVER, "--seed", "3"], "--seed is given once for all runs, and by --over"),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    ended = sweep(*arguments, cwd=tmp_path)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)
    assert message in ended.stderr
    assert list(tmp_path.iterdir()) == []
