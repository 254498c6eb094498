from __future__ import annotations

import csv
from dataclasses import replace

import pytest
from small_runs import SMALL

from analysis import Sweep, sweep
from analysis.sweeps.trained import train_run
from odernn.experiment import ExperimentConfig
from odernn.training import TrainingConfig

CONFIG = ExperimentConfig(**SMALL, training=TrainingConfig(epochs=2, iterations=2))
OVER = {"hidden_size": [2, 3], "seed": range(2)}


@pytest.mark.slow
def test_a_sweep_trains_each_run_once_and_is_extended_by_other_values(tmp_path):
    found = sweep(CONFIG, OVER, tmp_path / "sweep", workers=1)
    assert [(row["hidden_size"], row["seed"]) for row in found.rows] == [(2, 0), (2, 1), (3, 0), (3, 1)]
    for row in found.rows:
        assert row["stopped"] == "out of steps"
        assert row["initial_error"] == pytest.approx(row["validation_error"], rel=1e-2)
    assert found.run(hidden_size=3, seed=1).model.hidden_size == 3
    assert found.best()["validation_error"] == min(row["validation_error"] for row in found.rows)
    assert Sweep.from_dict(found.to_dict()) == found
    assert len(repr(found).splitlines()) <= 5
    assert len(found.plot().lines) == 1
    with open(tmp_path / "sweep" / "sweep.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [row["path"] for row in found.rows]
    assert (tmp_path / "sweep" / "sweep.png").stat().st_size > 0
    with pytest.raises(ValueError, match="activation is 'tanh' there, 'relu' here"):
        sweep(replace(CONFIG, activation="relu"), OVER, tmp_path / "sweep")
    # what is there is not computed again, but for a run that was removed
    kept = {row["path"]: (tmp_path / "sweep" / row["path"] / "summary.json").stat().st_mtime_ns for row in found.rows}
    more = sweep(CONFIG, OVER | {"seed": [1, 2]}, tmp_path / "sweep", workers=1)
    assert len(more.rows) == 6
    for path, written in kept.items():
        assert (tmp_path / "sweep" / path / "summary.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_runs_that_diverge_or_do_not_fit_are_rows_with_their_reason(tmp_path):
    training = TrainingConfig(optimizer="adam", epochs=30, lr=1e100)
    found = sweep(
        replace(CONFIG, activation="relu", training=training),
        {"recurrence": ["dense"], "parameterization": "exp,direct"},
        tmp_path / "s",
        workers=1,
    )
    refused, diverged = found.rows
    assert refused["stopped"] == "refused"
    assert "takes only the parameterization 'direct'" in refused["reason"]
    assert diverged["stopped"] == "diverged"
    assert diverged["reason"]
    with pytest.raises(ValueError, match="no run"):
        found.best()


def test_another_sweep_in_the_directory_and_wrong_settings_are_refused(tmp_path):
    out = tmp_path / "s"
    with pytest.raises(ValueError, match="nope"):
        sweep(CONFIG, {"kernel": ["nope"]}, out)
    with pytest.raises(ValueError, match="points"):
        sweep(CONFIG, {"points": [10, 1]}, out)
    assert not out.exists()
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="holds no sweep"):
        sweep(CONFIG, OVER, out)
    (out / "sweep.json").write_text("{")
    with pytest.raises(ValueError, match=r"sweep\.json is damaged"):
        sweep(CONFIG, OVER, out)


def test_a_run_stopped_half_way_goes_on_from_its_checkpoint(tmp_path):
    whole = train_run(CONFIG.to_dict(), False, {}, str(tmp_path / "whole"))
    part = tmp_path / "part"
    train_run(CONFIG.to_dict(), False, {}, str(part))
    # as a kill between the last checkpoint and the summary leaves it
    (part / "summary.json").unlink()
    again = train_run(CONFIG.to_dict(), False, {}, str(part))
    assert again["validation_error"] == whole["validation_error"]
    assert (part / "best.pt").read_bytes() == (tmp_path / "whole" / "best.pt").read_bytes()


def test_data_that_changed_are_no_reason_to_keep_a_result(tmp_path):
    file = tmp_path / "own.csv"
    rows = [f"{s},{k / 4},{(k * (s + 1)) % 3},{k * s / 10}" for s in range(5) for k in range(6)]
    file.write_text("\n".join(["sequence,t,x,y", *rows]))
    config = ExperimentConfig(data=str(file), hidden_size=2, training=TrainingConfig(epochs=1))
    first = sweep(config, {"seed": [0]}, tmp_path / "out", workers=1)
    assert first.rows[0]["initial_error"] > 0
    file.write_text("\n".join(["sequence,t,x,y", *rows[::-1][::-1][:-1], "4,1.25,0,9"]))
    (second,) = sweep(config, {"seed": [0]}, tmp_path / "out", workers=1).rows
    assert second["stopped"] == "refused"
    assert "holds a run of other settings" in second["reason"]
