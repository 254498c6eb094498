"""Experiments so small that they train in no time, and their run directories."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

from odernn.experiment import Experiment, ExperimentConfig, read_config
from odernn.runs import RunDirectory
from odernn.training import TrainingConfig

SMALL = {"hidden_size": 4, "points": 11, "horizon": 2.0, "train_size": 4, "validation_size": 4, "solver": "rk4"}


def make(training=None, **settings) -> Experiment:
    return Experiment(ExperimentConfig(**(SMALL | settings), training=training or TrainingConfig(epochs=2, iterations=2)))


def start(tmp_path, **settings):
    experiment = make(**settings)
    run = RunDirectory.create(tmp_path / "run", {"experiment": experiment.config.to_dict()})
    return experiment, run


def resumed(run, **training):
    """The run taken up again, as the script does it."""
    config = read_config(run, trust_code=True)
    experiment = Experiment(replace(config, training=replace(config.training, **training)), warm=False)
    experiment.resume(run)
    return experiment


def rows(run):
    return list(csv.DictReader((run.path / "metrics.csv").read_text().splitlines()))


def edit(run, seal=False, **settings):
    """config.json as changed by hand; `seal`: with the entry that says so deleted."""
    path = run.path / "config.json"
    content = json.loads(path.read_text())
    for name, value in settings.items():
        section, _, key = name.rpartition("__")
        (content["experiment"][section] if section else content["experiment"])[key] = value
    if seal:
        del content["sha256"]
    path.write_text(json.dumps(content))
